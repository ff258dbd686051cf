//! `nchf bench`: plays consumers (SMFs) against a charging function and measures it from outside.
//!
//! A closed loop: every stream of every connection is one consumer that opens a charging session, updates it, releases
//! it and takes the next one, always waiting for the answer before it sends again. Every answer is checked; a wrong one
//! is counted by kind and never measured as work done. The measured time ends after `--duration-secs`; the sessions that
//! are open then are still released, so that a run leaves no reservations behind.
//!
//! It speaks HTTP/2 with prior knowledge to any Nchf_ConvergedCharging service and uses nothing of the charging core.
//! Start reading at [`run`]; `consumer` is the loop, `message` the bodies and the checks, `report` the figures.

mod consumer;
mod cpu;
mod message;
mod report;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{io, thread};

use hyper::Uri;
use tokio::time::Instant;

use self::consumer::{Consumer, Link};
use self::message::Subscribers;
use self::report::Tally;
pub use self::report::{CpuFigure, Figures, Report};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Base URL of the charging function: HTTP/2 with prior knowledge, without TLS
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub target: Uri,
    /// Connections, opened at the start and again when one is lost
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub connections: usize,
    /// Consumers on each connection; each has at most one request under way
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub streams: usize,
    /// Threads of this generator; more than one takes cores from what is measured
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Measured time
    #[arg(long, value_name = "SECS", default_value_t = 10)]
    pub duration_secs: u64,
    /// End earlier, when this many sessions are done
    #[arg(long, value_name = "N")]
    pub sessions: Option<u64>,
    /// Updates in each session
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub updates: u32,
    /// First of the subscribers that are charged in turn
    #[arg(long, value_name = "SUPI", default_value = "imsi-001010000000001")]
    pub first_subscriber: String,
    /// Subscribers in that row
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub subscribers: u64,
    /// Where notifications are to be sent; nothing needs to listen there
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9/notify")]
    pub notify_uri: Uri,
    /// Processes whose CPU time per message is reported
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Also write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--target {0}: an http:// URL with a host is needed")]
    Target(Uri),
    #[error("--first-subscriber {0}: imsi- and 5 to 15 digits are needed, with room for --subscribers after it")]
    Subscribers(String),
    #[error("--pid {pid}: {source}")]
    Process { pid: u32, source: io::Error },
    #[error("cannot connect to {target}: {source}")]
    Connect { target: Uri, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Start(io::Error),
    #[error("cannot write {path}: {source}")]
    Report { path: PathBuf, source: io::Error },
}

/// Measures for the time given, then writes the JSON file if one is named. Blocks the calling thread.
pub fn run(args: &Args) -> Result<Report, Error> {
    let target = Target::new(&args.target)?;
    let subscribers = Subscribers::new(&args.first_subscriber, args.subscribers)
        .ok_or_else(|| Error::Subscribers(args.first_subscriber.clone()))?;
    // A target that is not there is said at once instead of counted for the whole time.
    std::net::TcpStream::connect(&target.authority)
        .map_err(|source| Error::Connect { target: args.target.clone(), source })?;

    let plan = Arc::new(Plan {
        target,
        subscribers,
        notify_uri: args.notify_uri.to_string(),
        updates: args.updates,
        sessions_max: args.sessions.unwrap_or(u64::MAX),
        sessions_begun: AtomicU64::new(0),
        stop_at: Instant::now() + Duration::from_secs(args.duration_secs),
    });
    let before = cpu::Reading::take(&args.pid)?;
    let (tally, elapsed, after) = play(args, &plan)?;
    let report = Report::new(&tally, elapsed, cpu::between(&before, &after));
    if let Some(path) = &args.json {
        report.write_json(path).map_err(|source| Error::Report { path: path.clone(), source })?;
    }
    Ok(report)
}

/// What all consumers share.
struct Plan {
    target: Target,
    subscribers: Subscribers,
    notify_uri: String,
    updates: u32,
    sessions_max: u64,
    sessions_begun: AtomicU64,
    stop_at: Instant,
}

impl Plan {
    /// The number of the next session, as long as there is time and sessions are left.
    fn next_session(&self) -> Option<u64> {
        if !self.is_measured_time() {
            return None;
        }
        let session = self.sessions_begun.fetch_add(1, Ordering::Relaxed);
        (session < self.sessions_max).then_some(session)
    }

    fn is_measured_time(&self) -> bool {
        Instant::now() < self.stop_at
    }
}

/// Where to connect, and what URLs begin with.
#[derive(Clone, Debug)]
struct Target {
    authority: String,
    root: String,
}

impl Target {
    fn new(uri: &Uri) -> Result<Self, Error> {
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(Error::Target(uri.clone()));
        };
        let root = format!("http://{authority}{}", uri.path().trim_end_matches('/'));
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { authority: format!("{}:{port}", authority.host()), root })
    }
}

/// Runs all consumers. Returns what they counted, how long that took, and the processes' CPU time at that moment.
fn play(args: &Args, plan: &Arc<Plan>) -> Result<(Tally, Duration, cpu::Reading), Error> {
    let threads = args.threads.clamp(1, args.connections.max(1));
    let (alive, all_ended) = mpsc::channel::<()>();
    let began = Instant::now();
    let mut players = Vec::with_capacity(threads);
    for thread in 0..threads {
        let connections = (thread..args.connections.max(1)).step_by(threads).count();
        let (plan, streams, alive) = (Arc::clone(plan), args.streams.max(1), alive.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
        let player = thread::Builder::new().name(format!("nchf-bench-{thread}")).spawn(move || {
            let _alive = alive;
            runtime.block_on(play_connections(&plan, connections, streams))
        });
        players.push(player.map_err(Error::Start)?);
    }
    drop(alive);

    // Ends with the measured time or when all threads have ended before that, whichever is first.
    let _ended = all_ended.recv_timeout(plan.stop_at.saturating_duration_since(Instant::now()));
    let elapsed = began.elapsed();
    let after = cpu::Reading::take(&args.pid)?;
    let mut tally = Tally::default();
    for player in players {
        tally.add(&player.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    Ok((tally, elapsed, after))
}

async fn play_connections(plan: &Arc<Plan>, connections: usize, streams: usize) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut consumers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let link = Arc::new(Link::new(plan.target.authority.clone()));
        for _ in 0..streams {
            consumers.spawn(Consumer::new(Arc::clone(plan), Arc::clone(&link), Arc::clone(&tally)).play());
        }
    }
    while let Some(ended) = consumers.join_next().await {
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    }
    std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner))
}
