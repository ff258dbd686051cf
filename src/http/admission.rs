//! Who is let in when not all can be, decided before a body is looked at.
//!
//! Work in flight is counted three times: all of it, what one peer address sent, and what one connection sent. Each count
//! has a limit, and a request is let in while all three are below the part of their limit that is open to it
//! ([`Limits::permille`]). So the less important are refused first, and what is left is there for those who end sessions:
//! a Release gives money back and makes room.
//!
//! A request beyond its limit is refused instead of queued: by the time a queue had drained, the consumer would have given
//! up on the oldest in it. A connection gets one [`Door`]; a request costs three counters up and three down, and no lock.
//!
//! To refuse is not free: it takes a sixth of what it takes to serve an update, and a consumer that sends again whatever
//! was refused gets through several times as many in the same time. So refusals are in proportion to what is served
//! ([`Refusals`]), and beyond that they wait for a moment. A stream that waits sends nothing new, which is all that slows
//! down a consumer that takes no notice of `Retry-After`.
//!
//! What this module does not know: bodies, and therefore events, which are sent to the same resource as Creates and count
//! as such; and accounts, whose requests wait for each other in `app`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// What a request does, as far as its path tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Release,
    Update,
    /// Opens a session or charges an event; or it is none of the charging services' requests.
    Create,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Release, Self::Update, Self::Create];

    pub fn of(path: &str) -> Self {
        match path.rsplit_once('/') {
            Some((resource, "release")) if resource.starts_with("/nchf-") => Self::Release,
            Some((resource, "update")) if resource.starts_with("/nchf-") => Self::Update,
            _ => Self::Create,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Update => "update",
            Self::Create => "create",
        }
    }
}

/// `3gpp-Sbi-Message-Priority` (TS 29.500 5.2.3.2.2 and 6.8): 0 to 31, and 0 is the most important.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority(u8);

impl Priority {
    /// That of a message which names none.
    pub const DEFAULT: Self = Self(24);
    const LAST: u8 = 31;

    /// What is no priority is as good as absent.
    pub fn of(headers: &HeaderMap) -> Self {
        let named = headers.get("3gpp-sbi-message-priority").and_then(|value| value.to_str().ok());
        named.and_then(|text| text.trim().parse().ok()).and_then(Self::new).unwrap_or(Self::DEFAULT)
    }

    pub fn new(value: u8) -> Option<Self> {
        (value <= Self::LAST).then_some(Self(value))
    }
}

/// How much may be in work at once on one listener, and who may have which part of it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub in_flight_max: u32,
    pub create_percent: u32,
    pub update_percent: u32,
    pub per_peer_percent: u32,
    pub per_connection_percent: u32,
}

impl Limits {
    /// The part of a limit that is open to a request, in thousandths. At the default priority it is that of the class. A
    /// more important one opens more in proportion, up to all of it for priority 0; a less important one opens less, down
    /// to half of its class for priority 31. So of two requests of one priority the class decides, and of two requests of
    /// one class the priority does.
    pub fn permille(&self, class: Class, priority: Priority) -> u32 {
        let percent = match class {
            Class::Release => 100,
            Class::Update => self.update_percent.min(100),
            Class::Create => self.create_percent.min(100),
        };
        let (of_class, given) = (percent * 10, u32::from(priority.0));
        let (default, last) = (u32::from(Priority::DEFAULT.0), u32::from(Priority::LAST));
        match default.checked_sub(given) {
            Some(above) => of_class + (1000 - of_class) * above / default,
            None => of_class - of_class / 2 * (given - default) / (last - default),
        }
    }

    fn part(&self, percent: u32) -> u32 {
        parts_of(self.in_flight_max, percent, 100)
    }
}

/// Rounded down, so that a small limit keeps its reserve; but never to nothing.
fn parts_of(whole: u32, part: u32, of: u32) -> u32 {
    let parts = u64::from(whole) * u64::from(part) / u64::from(of);
    u32::try_from(parts).unwrap_or(u32::MAX).clamp(1, whole.max(1))
}

/// A count of work in flight, and its limit.
#[derive(Debug)]
pub struct Share {
    in_flight: AtomicU32,
    max: u32,
}

impl Share {
    fn new(max: u32) -> Self {
        Self { in_flight: AtomicU32::new(0), max }
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    fn take(&self, permille: u32) -> bool {
        let open = parts_of(self.max, permille, 1000);
        let one_more = |in_flight| (in_flight < open).then_some(in_flight + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// True if this was the last of it.
    fn give_back(&self) -> bool {
        self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Which limit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    Listener,
    Peer,
    Connection,
}

impl Full {
    pub const ALL: [Self; 3] = [Self::Listener, Self::Peer, Self::Connection];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Peer => "peer",
            Self::Connection => "connection",
        }
    }
}

/// The admission of one listener, shared by all its workers.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Whole>);

#[derive(Debug)]
struct Whole {
    limits: Limits,
    share: Share,
    refusals: Refusals,
    /// Told when nothing is in work any more.
    emptied: Notify,
    /// By what was full and by class, in their order of declaration.
    refused: [[AtomicU64; 3]; 3],
}

impl Admission {
    pub fn new(limits: Limits) -> Self {
        let share = Share::new(limits.in_flight_max.max(1));
        let refusals = Refusals::new(limits.in_flight_max);
        Self(Arc::new(Whole { limits, share, refusals, emptied: Notify::new(), refused: Default::default() }))
    }

    /// What all connections of one peer have in common.
    pub fn peer(&self) -> Arc<Share> {
        Arc::new(Share::new(self.0.limits.part(self.0.limits.per_peer_percent)))
    }

    /// The door of a new connection.
    pub fn door(&self, peer: Arc<Share>) -> Door {
        let own = Share::new(self.0.limits.part(self.0.limits.per_connection_percent));
        Door(Arc::new(Connection { whole: Arc::clone(&self.0), peer, own }))
    }

    /// Requests in work now, including work that outlives its request.
    pub fn in_flight(&self) -> u32 {
        self.0.share.in_flight()
    }

    /// Ends when nothing is in work any more; for a shutdown, after the connections are gone. It keeps nobody out.
    pub async fn idle(&self) {
        while self.in_flight() > 0 {
            self.0.emptied.notified().await;
        }
    }

    /// How many were refused since this was last asked.
    pub fn take_refused(&self, full: Full, class: Class) -> u64 {
        self.0.refused(full, class).swap(0, Ordering::Relaxed)
    }
}

impl Whole {
    fn refused(&self, full: Full, class: Class) -> &AtomicU64 {
        &self.refused[full as usize][class as usize]
    }
}

/// How many may be told at once that they are refused. Those who wait are told in the order in which they came.
#[derive(Debug)]
struct Refusals {
    /// One permit for each that may be told now.
    open: Semaphore,
    /// So many permits at most: those of a burst, after which there was nothing to refuse for long.
    open_max: usize,
    /// Requests whose work has ended, and which no permit was made of yet.
    served: AtomicU32,
}

impl Refusals {
    /// So many requests are served for each that is refused without delay. Too few, and refusals take what served ones
    /// need; too many, and a consumer that would come again later hears of it late.
    const SERVED_FOR_EACH: u32 = 3;

    /// The longest wait, for a time in which nothing is served.
    const WAIT_MAX: Duration = Duration::from_millis(500);

    fn new(open_max: u32) -> Self {
        let open_max = usize::try_from(open_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { open: Semaphore::new(open_max), open_max, served: AtomicU32::new(0) }
    }

    fn served_one(&self) {
        if self.open.available_permits() < self.open_max
            && self.served.fetch_add(1, Ordering::Relaxed).is_multiple_of(Self::SERVED_FOR_EACH)
        {
            self.open.add_permits(1);
        }
    }

    async fn turn(&self) {
        // Never closed. Who has waited for long enough needs no permit.
        if let Ok(Ok(permit)) = timeout(Self::WAIT_MAX, self.open.acquire()).await {
            permit.forget();
        }
    }
}

/// Where the requests of one connection come in.
#[derive(Clone, Debug)]
pub struct Door(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    whole: Arc<Whole>,
    peer: Arc<Share>,
    own: Share,
}

impl Door {
    pub fn admit(&self, class: Class, priority: Priority) -> Result<Permit, Full> {
        let taken = self.take(self.0.whole.limits.permille(class, priority));
        match taken {
            Ok(()) => Ok(Permit { _held: Some(Arc::new(Held(self.clone()))) }),
            Err(full) => {
                self.0.whole.refused(full, class).fetch_add(1, Ordering::Relaxed);
                Err(full)
            }
        }
    }

    /// Ends when a request that was not admitted may be told so.
    pub fn refusal(&self) -> impl Future<Output = ()> + Send + 'static {
        let whole = Arc::clone(&self.0.whole);
        async move { whole.refusals.turn().await }
    }

    /// The narrowest first, so that who has too much of their own touches nothing of others'.
    fn take(&self, permille: u32) -> Result<(), Full> {
        let Connection { whole, peer, own } = &*self.0;
        if !own.take(permille) {
            return Err(Full::Connection);
        }
        if !peer.take(permille) {
            own.give_back();
            return Err(Full::Peer);
        }
        if !whole.share.take(permille) {
            peer.give_back();
            own.give_back();
            return Err(Full::Listener);
        }
        Ok(())
    }
}

/// The right to be in work. It is in the extensions of every request; work that must survive the request (hyper drops
/// the handler when the consumer resets the stream) takes a clone along, and stays counted until its last clone is gone.
#[derive(Clone, Debug)]
pub struct Permit {
    _held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held(Door);

impl Drop for Held {
    fn drop(&mut self) {
        let Connection { whole, peer, own } = &*self.0.0;
        own.give_back();
        peer.give_back();
        whole.refusals.served_one();
        if whole.share.give_back() {
            whole.emptied.notify_one();
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Permit {
    type Rejection = Infallible;

    /// A router that is called without this server around it gets a permit that counts for nothing.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or(Self { _held: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    use Class::{Create, Release, Update};

    const LIMITS: Limits = Limits {
        in_flight_max: 1000,
        create_percent: 80,
        update_percent: 95,
        per_peer_percent: 50,
        per_connection_percent: 25,
    };

    #[test]
    fn what_is_open_to_whom() {
        for (class, priority, permille) in [
            (Release, 24, 1000),
            (Update, 24, 950),
            (Create, 24, 800),
            (Create, 23, 808),
            (Create, 12, 900),
            (Create, 0, 1000),
            (Update, 0, 1000),
            (Create, 25, 743),
            (Create, 31, 400),
            (Update, 31, 475),
            (Release, 31, 500),
        ] {
            let open = LIMITS.permille(class, Priority::new(priority).unwrap());
            assert_eq!(open, permille, "{class:?} of priority {priority}");
        }
    }

    #[test]
    fn class_and_priority_never_contradict() {
        let open = |class, priority| LIMITS.permille(class, Priority(priority));
        for priority in 0..=31 {
            assert!(open(Release, priority) >= open(Update, priority));
            assert!(open(Update, priority) >= open(Create, priority));
        }
        for (class, priority) in Class::ALL.into_iter().flat_map(|class| (1..=31).map(move |p| (class, p))) {
            assert!(open(class, priority) <= open(class, priority - 1), "{class:?} {priority}");
        }
    }

    #[test]
    fn classes_are_told_by_the_path() {
        for (path, class) in [
            ("/nchf-convergedcharging/v3/chargingdata/abc/release", Release),
            ("/nchf-offlineonlycharging/v1/offlinechargingdata/abc/update", Update),
            ("/nchf-convergedcharging/v3/chargingdata", Create),
            ("/nchf-convergedcharging/v3/chargingdata/release/", Create),
            ("/admin/v1/accounts/release", Create),
            ("/release", Create),
            ("*", Create),
            ("", Create),
        ] {
            assert_eq!(Class::of(path), class, "{path}");
        }
    }

    #[test]
    fn what_is_no_priority_is_ignored() {
        let told = |value: &'static [u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            Priority::of(&HeaderMap::from_iter([(HeaderName::from_static("3gpp-sbi-message-priority"), value)])).0
        };
        assert_eq!(Priority::of(&HeaderMap::new()), Priority::DEFAULT);
        for (value, priority) in [
            (&b"0"[..], 0),
            (b"31", 31),
            (b" 7 ", 7),
            (b"32", 24),
            (b"-1", 24),
            (b"256", 24),
            (b"1.5", 24),
            (b"", 24),
            (b"high", 24),
            (b"\xff", 24),
        ] {
            assert_eq!(told(value), priority, "{value:?}");
        }
    }

    /// How many of one kind are let in, one after the other.
    fn admitted(door: &Door, class: Class, kept: &mut Vec<Permit>) -> u32 {
        let before = kept.len();
        kept.extend(std::iter::from_fn(|| door.admit(class, Priority::DEFAULT).ok()));
        u32::try_from(kept.len() - before).unwrap()
    }

    #[test]
    fn each_share_keeps_the_same_order() {
        let admission = Admission::new(LIMITS);
        let (mut kept, peer) = (Vec::new(), admission.peer());
        let door = admission.door(Arc::clone(&peer));
        // A connection has 250, its peer 500, all together 1000; each leaves a fifth to Updates and Releases.
        assert_eq!(admitted(&door, Create, &mut kept), 200);
        assert_eq!(admitted(&door, Update, &mut kept), 37);
        assert_eq!(admitted(&door, Release, &mut kept), 13);
        assert_eq!(door.admit(Release, Priority::DEFAULT).unwrap_err(), Full::Connection);

        let door = admission.door(Arc::clone(&peer));
        assert_eq!(admitted(&door, Create, &mut kept), 150);
        assert_eq!(door.admit(Create, Priority::DEFAULT).unwrap_err(), Full::Peer);
        assert_eq!(door.0.own.in_flight(), 150);

        let door = admission.door(admission.peer());
        assert_eq!(admitted(&door, Create, &mut kept), 200);
        let door = admission.door(admission.peer());
        assert_eq!(admitted(&door, Create, &mut kept), 200);
        assert_eq!(door.admit(Create, Priority::DEFAULT).unwrap_err(), Full::Connection);
        let door = admission.door(admission.peer());
        assert_eq!(door.admit(Create, Priority::DEFAULT).unwrap_err(), Full::Listener);
        assert_eq!(admission.take_refused(Full::Listener, Create), 1);
        assert_eq!(admission.take_refused(Full::Listener, Create), 0);

        kept.clear();
        assert_eq!((admission.in_flight(), peer.in_flight(), door.0.own.in_flight()), (0, 0, 0));
    }

    /// Time stands still but for those who wait.
    #[tokio::test(start_paused = true)]
    async fn refusals_are_in_proportion_to_what_is_served() {
        let admission = Admission::new(Limits { in_flight_max: 10, ..LIMITS });
        let door = admission.door(admission.peer());
        let waits = async || {
            let began = tokio::time::Instant::now();
            door.refusal().await;
            began.elapsed()
        };
        for _ in 0..10 {
            assert_eq!(waits().await, Duration::ZERO);
        }
        assert_eq!(waits().await, Duration::from_millis(500));
        for _ in 0..6 {
            drop(door.admit(Create, Priority::DEFAULT).unwrap());
        }
        assert_eq!(waits().await, Duration::ZERO);
        assert_eq!(waits().await, Duration::ZERO);
        // Whoever waits is told when as many were served as one refusal needs, not later.
        let served = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop(door.admit(Create, Priority::DEFAULT).unwrap());
            }
        };
        let (waited, ()) = tokio::join!(waits(), served);
        assert!(waited <= Duration::from_millis(30), "{waited:?}");
        // A long time without refusals opens no more than a burst.
        for _ in 0..100 {
            drop(door.admit(Create, Priority::DEFAULT).unwrap());
        }
        for _ in 0..10 {
            assert_eq!(waits().await, Duration::ZERO);
        }
        assert_eq!(waits().await, Duration::from_millis(500));
    }

    #[test]
    fn a_small_limit_keeps_a_reserve_and_lets_somebody_in() {
        for (in_flight_max, creates, all) in [(1, 1, 1), (2, 1, 2), (5, 4, 5)] {
            let limits = Limits { in_flight_max, per_peer_percent: 100, per_connection_percent: 100, ..LIMITS };
            let admission = Admission::new(limits);
            let (mut kept, door) = (Vec::new(), admission.door(admission.peer()));
            assert_eq!(admitted(&door, Create, &mut kept), creates);
            admitted(&door, Release, &mut kept);
            assert_eq!(admission.in_flight(), all);
        }
    }
}
