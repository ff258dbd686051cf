//! Targets that are being called: places for calls, and one connection each.
//!
//! A target's connection carries all its calls at once. It is opened by the first that needs it while the others wait,
//! and let go when it breaks, when a call on it got no answer, when it is idle or old, or when another target needs the
//! room. Calls under way on a connection that was let go still end on it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::connect::{Connector, Driver, NoConnection, Opened, Sender, Tasks};
use super::outcome::Failure;
use super::settings::{ConnectionLimits, Settings};
use super::target::Origin;

pub(super) struct Peers {
    connector: Connector,
    known: Mutex<Known>,
    /// One for each call under way. As many as connections, so that a call that needs a new connection always finds
    /// either room or a connection that carries no call.
    places: Semaphore,
    rooms: Arc<Semaphore>,
    connections_max: usize,
    calls_per_target_max: usize,
    next_id: AtomicU64,
}

struct Known {
    peers: HashMap<Origin, Arc<Peer>>,
    /// At how many to look for those that nobody uses any more.
    sweep_at: usize,
}

/// Fewer peers than this are not worth a sweep.
const SWEEP_AT_LEAST: usize = 1024;

/// One target.
pub(super) struct Peer {
    places: Semaphore,
    /// Held while a connection is opened.
    opening: tokio::sync::Mutex<()>,
    live: Mutex<Option<Live>>,
}

/// The connection on which new calls go.
struct Live {
    id: u64,
    sender: Sender,
    answers_http1: Arc<AtomicBool>,
    calls: u32,
    opened_at: Instant,
    used_at: Instant,
}

/// The right to have a call under way.
pub(super) struct Place<'a> {
    _of_target: SemaphorePermit<'a>,
    _of_all: SemaphorePermit<'a>,
}

impl Peers {
    pub(super) fn new(settings: &Settings, connector: Connector) -> Self {
        let connections_max = settings.connections_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            connector,
            known: Mutex::new(Known { peers: HashMap::new(), sweep_at: SWEEP_AT_LEAST }),
            places: Semaphore::new(connections_max),
            rooms: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            calls_per_target_max: settings.calls_per_target_max.clamp(1, Semaphore::MAX_PERMITS),
            next_id: AtomicU64::new(0),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections_max.saturating_sub(self.rooms.available_permits())
    }

    pub(super) fn peer(&self, origin: &Origin) -> Arc<Peer> {
        let mut known = self.known();
        if let Some(peer) = known.peers.get(origin) {
            return Arc::clone(peer);
        }
        if known.peers.len() >= known.sweep_at {
            // Calls and connections each hold on to their peer.
            known.peers.retain(|_, peer| Arc::strong_count(peer) > 1);
            known.sweep_at = SWEEP_AT_LEAST.max(known.peers.len() * 2);
        }
        let peer = Arc::new(Peer {
            places: Semaphore::new(self.calls_per_target_max),
            opening: tokio::sync::Mutex::new(()),
            live: Mutex::new(None),
        });
        known.peers.insert(origin.clone(), Arc::clone(&peer));
        peer
    }

    /// The target's own place first: whoever waits for it holds nothing that calls to others need.
    pub(super) async fn place<'a>(&'a self, peer: &'a Peer) -> Place<'a> {
        let of_target = peer.places.acquire().await.expect("never closed");
        let of_all = self.places.acquire().await.expect("never closed");
        Place { _of_target: of_target, _of_all: of_all }
    }

    /// The target's connection, opened if there is none.
    pub(super) async fn lease(
        &self,
        peer: &Arc<Peer>,
        origin: &Origin,
        deadline: Instant,
    ) -> Result<Lease, NoConnection> {
        if let Some(lease) = Lease::of(peer, false) {
            return Ok(lease);
        }
        let _turn = peer.opening.lock().await;
        // Somebody else has opened it meanwhile.
        if let Some(lease) = Lease::of(peer, false) {
            return Ok(lease);
        }
        let room = self.room().await;
        let Opened { sender, driver, tasks, answers_http1 } = self.connector.connect(origin, deadline).await?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        *peer.live() = Some(Live { id, sender, answers_http1, calls: 0, opened_at: now, used_at: now });
        let lease = Lease::of(peer, true).ok_or(NoConnection::Failed(Failure::Lost));
        let limits = self.connector.limits.clone();
        tokio::spawn(drive(driver, tasks, Arc::clone(peer), id, limits, room));
        lease
    }

    /// Room for one more connection, where needed that of the one that carries no call for the longest time.
    async fn room(&self) -> OwnedSemaphorePermit {
        if let Ok(room) = Arc::clone(&self.rooms).try_acquire_owned() {
            return room;
        }
        let idle = {
            let known = self.known();
            let since =
                |peer: &&Arc<Peer>| peer.live().as_ref().filter(|live| live.calls == 0).map(|live| live.used_at);
            let idle = known.peers.values().filter(|peer| since(peer).is_some());
            idle.min_by_key(since).map(Arc::clone)
        };
        if let Some(peer) = idle {
            drop(peer.live().take_if(|live| live.calls == 0));
        }
        Arc::clone(&self.rooms).acquire_owned().await.expect("never closed")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Peers {
    /// Lets all connections go; each ends politely in its own task.
    fn drop(&mut self) {
        self.known().peers.values().for_each(|peer| drop(peer.live().take()));
    }
}

impl Peer {
    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether new calls shall go on the connection `id`. Lets go of it when it is idle or old.
    fn keeps(&self, id: u64, limits: &ConnectionLimits) -> bool {
        let now = Instant::now();
        let mut live = self.live();
        let is_over = |live: &mut Live| {
            let is_idle = live.calls == 0 && now.saturating_duration_since(live.used_at) >= limits.idle_close;
            live.id == id && (is_idle || now.saturating_duration_since(live.opened_at) >= limits.age_max)
        };
        drop(live.take_if(is_over));
        live.as_ref().is_some_and(|live| live.id == id)
    }

    fn forget(&self, id: u64) {
        drop(self.live().take_if(|live| live.id == id));
    }
}

/// How long the last words of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Drives a connection to its end.
async fn drive(
    driver: Driver,
    tasks: Tasks,
    peer: Arc<Peer>,
    id: u64,
    limits: ConnectionLimits,
    _room: OwnedSemaphorePermit,
) {
    while_used(driver, &peer, id, &limits).await;
    peer.forget(id);
    drop(peer);
    let _said = timeout(FAREWELL, tasks.ended()).await;
    tasks.abort();
}

/// Takes the driver, for the socket's own task says farewell only when it is gone.
async fn while_used(driver: Driver, peer: &Peer, id: u64, limits: &ConnectionLimits) {
    let look_every =
        (limits.idle_close.min(limits.age_max) / 4).clamp(Duration::from_millis(5), Duration::from_secs(1));
    let mut driver = pin!(driver);
    while timeout(look_every, driver.as_mut()).await.is_err() {
        if !peer.keeps(id, limits) {
            // It ends by itself when the last of its calls has, none of which takes longer than this.
            let _ended = timeout(limits.deadline + FAREWELL, driver.as_mut()).await;
            return;
        }
    }
}

/// The use of a connection for one request.
pub(super) struct Lease {
    peer: Arc<Peer>,
    id: u64,
    sender: Sender,
    answers_http1: Arc<AtomicBool>,
    is_new: bool,
    is_answered: bool,
}

impl Lease {
    fn of(peer: &Arc<Peer>, is_new: bool) -> Option<Self> {
        let mut slot = peer.live();
        drop(slot.take_if(|live| live.sender.is_closed()));
        let live = slot.as_mut()?;
        live.calls += 1;
        Some(Self {
            peer: Arc::clone(peer),
            id: live.id,
            sender: live.sender.clone(),
            answers_http1: Arc::clone(&live.answers_http1),
            is_new,
            is_answered: false,
        })
    }

    /// Opened for this request: what goes wrong on it is the target's doing.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(super) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        match self.sender.send_request(request).await {
            Ok(response) => {
                self.is_answered = true;
                Ok(response)
            }
            Err(_) if self.answers_http1.load(Ordering::Relaxed) => Err(Failure::NotHttp2),
            Err(_) => Err(Failure::Lost),
        }
    }
}

impl Drop for Lease {
    /// A connection on which a call got no answer may be one that nobody listens to any more: the next call gets a new
    /// one.
    fn drop(&mut self) {
        let mut slot = self.peer.live();
        if let Some(live) = slot.as_mut().filter(|live| live.id == self.id) {
            live.calls = live.calls.saturating_sub(1);
            live.used_at = Instant::now();
            if !self.is_answered {
                *slot = None;
            }
        }
    }
}
