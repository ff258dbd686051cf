//! The server: worker threads, listeners, connections with deadlines, and an end that loses nothing.
//!
//! Each worker is a thread with a single-threaded runtime. A connection lives on one worker from its first octet to its
//! last, so requests never move between threads; a router is made on the worker it serves, so that what it opens there
//! (connections to a store) is polled there too. Each listener has one acceptor that deals connections to the workers in
//! turn: a consumer opens a few connections and keeps them, and the kernel's own balancing (`SO_REUSEPORT`) hashes a few
//! connections onto workers badly.
//!
//! ```no_run
//! # use nchf::http::server::{Error, Settings, Workers};
//! # use std::time::Duration;
//! # async fn serve() -> Result<(), Error> {
//! let workers = Workers::start(2)?;
//! let routers = workers.build(|_worker| async { Ok::<_, Error>(axum::Router::new()) }).await?;
//! let server = workers.listen(([127, 0, 0, 1], 8000).into(), None, Settings::default(), routers).await?;
//! // ... until it is time to go:
//! let drained = server.drain(Duration::from_secs(20)).await;
//! workers.stop();
//! # Ok(())
//! # }
//! ```
//!
//! What this module does not do: routes, charging, access control. Where to start reading: [`Workers`], [`Server`],
//! then `watch` for the rules that end a connection.

mod connection;
mod settings;
mod tls;
mod watch;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{self, Handle};
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::settings::Settings;
pub use self::tls::{Tls, TlsError, TlsFiles};
use self::watch::{Protocol, Traffic, Verdict, Watch};
use super::admission::{Admission, Share};
use super::layers::{self, Layered};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start a worker thread: {0}")]
    Start(io::Error),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
}

// ---- Workers ----

/// The threads that serve. They end when this is dropped.
pub struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    handle: Handle,
    /// Dropped to end the thread.
    _stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Workers {
    /// At least one. More than the machine has cores makes every request slower.
    pub fn start(count: usize) -> Result<Self, Error> {
        let workers = (0..count.max(1)).map(Worker::start).collect::<Result<_, _>>().map_err(Error::Start)?;
        Ok(Self { workers })
    }

    /// Makes one `T` per worker, on that worker's runtime and all at the same time; `make` is given the worker's number.
    pub async fn build<T, E, F>(&self, make: impl Fn(usize) -> F) -> Result<Vec<T>, E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let tasks: Vec<_> = self.workers.iter().enumerate().map(|(i, worker)| worker.handle.spawn(make(i))).collect();
        let mut made = Vec::with_capacity(tasks.len());
        for task in tasks {
            made.push(ended(task).await?);
        }
        Ok(made)
    }

    /// Runs something to its end on the first worker's runtime.
    pub async fn run_on_first<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        ended(self.first().spawn(work)).await
    }

    /// The first worker's runtime, for work that belongs to no request.
    pub fn first(&self) -> &Handle {
        &self.workers[0].handle
    }

    /// Serves at `address`. The first router is served by the first worker and so on; with fewer routers than workers the
    /// last workers do not serve this listener.
    ///
    /// # Panics
    ///
    /// If there are no routers, or more than workers.
    pub async fn listen(
        &self,
        address: SocketAddr,
        tls: Option<Tls>,
        settings: Settings,
        routers: Vec<Router>,
    ) -> Result<Server, Error> {
        assert!((1..=self.workers.len()).contains(&routers.len()), "one router for each worker that serves");
        let counters = routers
            .into_iter()
            .zip(&self.workers)
            .map(|(router, worker)| Counter { worker: worker.handle.clone(), router })
            .collect();
        let hall = Arc::new(Hall {
            builder: connection::builder(&settings),
            admission: Admission::new(settings.admission_limits()),
            settings,
            tls,
            seats: Mutex::default(),
            emptied: Notify::new(),
        });

        let first = &self.workers[0].handle;
        let listener = first.spawn(async move { listener(address) }).await;
        let listener = listener.map_err(io::Error::other).flatten();
        let (listener, address) = listener.map_err(|error| Error::Listen { address, error })?;
        let acceptor = first.spawn(accept(listener, counters, Arc::clone(&hall)));
        let watcher = first.spawn(watch(Arc::clone(&hall)));
        Ok(Server { address, hall, acceptor: Mutex::new(Some(acceptor)), watcher: watcher.abort_handle() })
    }

    /// Ends the threads and waits for them; what still runs on them is dropped.
    pub fn stop(self) {
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        for thread in threads {
            // A worker catches the panics of its tasks, so a thread ends as asked or not at all.
            let _ended = thread.join();
        }
    }
}

/// What came of a task that nobody aborts: its only other end is a panic, which is then the caller's panic too.
async fn ended<T>(task: JoinHandle<T>) -> T {
    task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(format!("nchf-worker-{number}")).spawn(move || {
            // Ends with an error when the sender is dropped, which is the sign.
            let _stopped = runtime.block_on(stopped);
            runtime.shutdown_timeout(Duration::from_secs(1));
        })?;
        Ok(Self { handle, _stop: stop, thread })
    }
}

// ---- Listening ----

/// Connections the kernel completes ahead of the acceptor. Beyond it connecting slows down, which is what a peer should
/// see that opens thousands at once.
const BACKLOG: u32 = 1024;

fn listener(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the connections of the process before it to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A worker and the router it serves at one listener.
struct Counter {
    worker: Handle,
    router: Router,
}

async fn accept(listener: TcpListener, counters: Vec<Counter>, hall: Arc<Hall>) {
    let mut turns = counters.iter().cycle();
    let mut failures = Burst::default();
    let mut refusals = Burst::default();
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if ends_one_connection(&error) => continue,
            Err(error) => {
                // Out of file descriptors, mostly. The connection stays in the backlog, so without a pause this would
                // spin until one is free.
                if failures.begins() {
                    tracing::error!(%error, "connections cannot be accepted; trying on");
                }
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let counter = turns.next().expect("a listener has at least one counter");
        if let Err(refusal) = hall.admit(socket, peer.ip(), counter)
            && refusals.begins()
        {
            tracing::warn!(refusal, "a connection was closed at once; more of this kind are not logged");
        }
    }
}

/// Errors of `accept` that concern the connection at hand and not the listener.
fn ends_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Tells the first of many like events from the others.
#[derive(Default)]
struct Burst {
    last: Option<Instant>,
}

impl Burst {
    /// True if nothing of this kind happened for ten seconds.
    fn begins(&mut self) -> bool {
        let now = Instant::now();
        let before = self.last.replace(now);
        before.is_none_or(|before| now - before > Duration::from_secs(10))
    }
}

// ---- Connections ----

/// All connections of a listener, on whichever worker.
struct Hall {
    settings: Settings,
    builder: connection::Builder,
    admission: Admission,
    tls: Option<Tls>,
    seats: Mutex<Seats>,
    /// Told when the last connection has ended.
    emptied: Notify,
}

#[derive(Default)]
struct Seats {
    connections: HashMap<u64, Seat>,
    per_peer: HashMap<IpAddr, Peer>,
    /// Connections ever admitted, which numbers them.
    admitted: u64,
}

/// What one address has of this listener. Kept until its work has ended too: otherwise a peer that opens its connections
/// anew would begin with a share anew.
struct Peer {
    connections: usize,
    share: Arc<Share>,
}

impl Peer {
    fn is_gone(&self) -> bool {
        self.connections == 0 && self.share.in_flight() == 0
    }
}

struct Seat {
    traffic: Arc<Traffic>,
    watch: Watch,
    leave: Option<oneshot::Sender<()>>,
    task: AbortHandle,
}

impl Hall {
    /// Hands the connection to a worker, or closes it and says why.
    fn admit(self: &Arc<Self>, socket: TcpStream, peer: IpAddr, counter: &Counter) -> Result<(), &'static str> {
        let peer = peer.to_canonical();
        // The lock is held until the connection is in its seat: its task may run to its end at once on another thread,
        // and must find the seat it gives back.
        let mut seats = self.seats();
        if seats.connections.len() >= self.settings.connections_max {
            return Err("connections_max");
        }
        let from_peer = seats.per_peer.get(&peer).map_or(0, |peer| peer.connections);
        if from_peer >= self.settings.connections_per_peer_max {
            return Err("connections_per_peer_max");
        }
        // A socket belongs to the runtime that accepted it until it is taken off and put on another one.
        let Ok(socket) = socket.into_std() else { return Err("the socket is broken") };

        // From here on it succeeds.
        let number = seats.admitted;
        seats.admitted += 1;
        let new_peer = || Peer { connections: 0, share: self.admission.peer() };
        let of_peer = seats.per_peer.entry(peer).or_insert_with(new_peer);
        of_peer.connections += 1;
        let door = self.admission.door(Arc::clone(&of_peer.share));
        let router = layers::around(counter.router.clone(), door, self.settings.body_limits());
        let protocol = if self.tls.is_some() { Protocol::Handshake } else { Protocol::Unknown };
        let traffic = Arc::new(Traffic::new(protocol));
        let (leave, left) = oneshot::channel();
        let place = Place { hall: Arc::clone(self), number, peer };
        let task = counter.worker.spawn(converse(place, socket, router, Arc::clone(&traffic), left));
        let watch = Watch::new(Instant::now(), number, &self.settings);
        let seat = Seat { traffic, watch, leave: Some(leave), task: task.abort_handle() };
        seats.connections.insert(number, seat);
        Ok(())
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every connection once.
    fn look(&self, now: Instant) {
        let mut seats = self.seats();
        seats.per_peer.retain(|_, peer| !peer.is_gone());
        for seat in seats.connections.values_mut() {
            match seat.watch.look(now, &seat.traffic, &self.settings) {
                Verdict::Stays => {}
                Verdict::Leaves => seat.ask_to_leave(),
                Verdict::Closed(why) => {
                    tracing::info!(why, "a connection was closed");
                    seat.task.abort();
                }
            }
        }
    }

    /// Ends when there is no connection left.
    async fn empty(&self) {
        while !self.seats().connections.is_empty() {
            self.emptied.notified().await;
        }
    }
}

impl Seat {
    fn ask_to_leave(&mut self) {
        if let Some(leave) = self.leave.take() {
            // If nobody listens the connection has just ended by itself.
            let _told = leave.send(());
        }
    }
}

/// A connection's claim to its seat, given back when its task ends, however that comes.
struct Place {
    hall: Arc<Hall>,
    number: u64,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = self.hall.seats();
        seats.connections.remove(&self.number);
        if let Some(peer) = seats.per_peer.get_mut(&self.peer) {
            peer.connections -= 1;
            if peer.is_gone() {
                seats.per_peer.remove(&self.peer);
            }
        }
        if seats.connections.is_empty() {
            self.hall.emptied.notify_one();
        }
    }
}

async fn watch(hall: Arc<Hall>) {
    let pause = hall.settings.look_every();
    loop {
        sleep(pause).await;
        hall.look(Instant::now());
    }
}

async fn converse(
    place: Place,
    socket: std::net::TcpStream,
    router: Layered<Router>,
    traffic: Arc<Traffic>,
    mut leave: oneshot::Receiver<()>,
) {
    let hall = &place.hall;
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    // Answers are written whole: to wait for more octets only delays them. Without it they are late, not wrong.
    let _nodelay = socket.set_nodelay(true);
    let Some(tls) = &hall.tls else {
        return connection::serve(socket, router, traffic, &hall.builder, leave).await;
    };
    let deadline = Instant::now() + hall.settings.tls_handshake_deadline;
    let handshake = tokio::select! {
        handshake = timeout_at(deadline, tls.acceptor.accept(socket)) => handshake,
        _ = &mut leave => return,
    };
    match handshake {
        Ok(Ok(socket)) => {
            traffic.speaks(Protocol::Unknown);
            connection::serve(socket, router, traffic, &hall.builder, leave).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake was not complete in time"),
    }
}

// ---- The server and its end ----

/// A listener that is being served.
pub struct Server {
    address: SocketAddr,
    hall: Arc<Hall>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    watcher: AbortHandle,
}

/// What a drain had to cut off when its time was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Requests that had no complete answer yet, and work of earlier ones that had not ended.
    pub requests_cut: u32,
    /// Connections that were still open, most of them because the peer did not react.
    pub connections_cut: usize,
}

impl Drained {
    pub fn in_time(&self) -> bool {
        *self == Self::default()
    }
}

/// Given to a peer to hear that it was asked to leave: far more than the way there and back.
const TIME_TO_LEAVE: Duration = Duration::from_secs(2);
const IDLE_LOOKED_FOR_EVERY: Duration = Duration::from_millis(50);

impl Server {
    /// The address it listens on, with the port the kernel chose if it was asked to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.hall.seats().connections.len()
    }

    pub fn admission(&self) -> &Admission {
        &self.hall.admission
    }

    /// Ends politely, within `deadline` and a little: accepts no more, tells every connection to finish, serves what
    /// arrives before the peer has heard of it, waits for answers and for work that outlives its request, then closes
    /// what is left. A peer that has nothing under way and does not react is closed after two seconds. HTTP/2 peers are told by a GOAWAY that names no last stream and, once they have answered the ping
    /// behind it, by one that does; HTTP/1.1 peers by `connection: close`.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        let deadline = Instant::now() + deadline;
        self.stop_accepting().await;
        self.hall.seats().connections.values_mut().for_each(Seat::ask_to_leave);
        let ended = async {
            if timeout(TIME_TO_LEAVE, self.hall.empty()).await.is_err() {
                self.close_idle_connections().await;
            }
            self.hall.admission.idle().await;
        };
        if timeout_at(deadline, ended).await.is_ok() {
            return Drained::default();
        }
        let cut = {
            let seats = self.hall.seats();
            let unanswered: u32 = seats.connections.values().map(|seat| seat.traffic.in_flight()).sum();
            seats.connections.values().for_each(|seat| seat.task.abort());
            Drained {
                requests_cut: unanswered.max(self.hall.admission.in_flight()),
                connections_cut: seats.connections.len(),
            }
        };
        // Aborted tasks end at their next turn; a worker that is stuck for longer is beyond help from here.
        let _ended = timeout_at(Instant::now() + Duration::from_secs(1), self.hall.empty()).await;
        cut
    }

    /// Closes what has nothing under way, until all is closed. Many clients read nothing while they send nothing, so they
    /// never learn that they were asked to leave.
    async fn close_idle_connections(&self) {
        while self.connections() > 0 {
            let is_idle = |seat: &&Seat| seat.traffic.in_flight() == 0;
            self.hall.seats().connections.values().filter(is_idle).for_each(|seat| seat.task.abort());
            let _closed = timeout(IDLE_LOOKED_FOR_EVERY, self.hall.empty()).await;
        }
    }

    async fn stop_accepting(&self) {
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acceptor) = acceptor {
            acceptor.abort();
            // Cancelled, as asked; the listening socket is closed when this returns.
            let _cancelled = acceptor.await;
        }
    }
}

impl Drop for Server {
    /// Cuts everything off at once; `drain` first for a polite end.
    fn drop(&mut self) {
        self.watcher.abort();
        let acceptor = self.acceptor.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acceptor) = acceptor {
            acceptor.abort();
        }
        self.hall.seats().connections.values().for_each(|seat| seat.task.abort());
    }
}
