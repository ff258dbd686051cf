//! `nchf bench`: plays consumers (SMFs) against a charging function and measures it from outside.
//!
//! Sessions wait in a pool; each stream of each connection takes one, sends its next message, waits for the answer and
//! puts it back. In a closed loop a stream goes on at once; in an open loop (`--rate`) messages are due at fixed times,
//! and latency counts from then on. Every answer is checked; a wrong one is counted by kind and never measured as work
//! done. What is open after the measured time is released, so that a run leaves no reservations behind.
//!
//! It speaks HTTP/2 with prior knowledge to any Nchf_ConvergedCharging service and uses nothing of the charging core.
//! Start reading at [`run`]; `session` says what is sent, `pace` when, `consumer` sends it, `message` has the bodies and
//! the checks, `tally` counts, `report` tells. What the same requests cost without charging is measured with
//! [`crate::floor`].

mod args;
mod consumer;
mod link;
mod message;
mod pace;
mod plot;
mod process;
mod provision;
mod report;
mod session;
mod tally;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{io, thread};

use hyper::Uri;
use tokio::runtime::{self, Runtime};
use tokio::sync::Barrier;
use tokio::time::Instant;

pub use self::args::{Args, Scenario};
use self::consumer::Consumer;
use self::link::{Link, NoConnection, Target};
use self::message::{Message, Operation, Subscribers};
use self::pace::{Pace, Times};
use self::process::Reading;
use self::report::Circumstances;
pub use self::report::{CpuFigure, Figures, MemoryFigure, Moment, Report};
use self::session::{Pool, Script};
use self::tally::Tally;
use crate::charging::time::Timestamp;
use crate::tls::TlsError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{flag} {uri}: an http:// or https:// URL with a host is needed")]
    Target { flag: &'static str, uri: Uri },
    #[error("--first-subscriber {0}: imsi- and 5 to 15 digits are needed, with room for --subscribers after it")]
    Subscribers(String),
    #[error("--subscribers {subscribers}: {sessions} sessions at once need at least {needed}")]
    TooFewSubscribers { subscribers: u64, sessions: usize, needed: u64 },
    #[error(transparent)]
    Tls(TlsError),
    #[error("--pid {pid}")]
    Process { pid: u32, source: io::Error },
    #[error("cannot connect to {target}")]
    Connect { target: Uri, source: NoConnection },
    #[error("cannot start a thread: {0}")]
    Start(io::Error),
    #[error("{0}")]
    Failed(String),
    #[error("cannot write {path}")]
    Report { path: PathBuf, source: io::Error },
}

/// Measures for the time given, then writes the JSON file if one is named. Blocks the calling thread.
pub fn run(args: &Args) -> Result<Report, Error> {
    let subscribers = subscribers(args)?;
    let target = Target::new("--target", &args.target, args)?;
    if args.provision {
        provision::provision(args, &subscribers)?;
    }
    let report = Run::start(args, Plan::new(args, target, subscribers))?.measure()?;
    if let Some(path) = &args.json {
        report.write_json(path).map_err(|source| Error::Report { path: path.clone(), source })?;
    }
    Ok(report)
}

/// When the examples were sent.
pub const EXAMPLE_TIME: Timestamp = Timestamp::from_millis(1_768_474_800_000);

/// The body of a Create as it is played. Each session of the first 1000 has a subscriber of its own.
pub fn example_create(session: u64) -> String {
    example(Operation::Create, session, 0)
}

/// The body of an Update of the same session.
pub fn example_update(session: u64, number: u32) -> String {
    example(Operation::Update, session, number)
}

/// The body of its Release.
pub fn example_release(session: u64, number: u32) -> String {
    example(Operation::Release, session, number)
}

/// The body of a one-time event.
pub fn example_event(session: u64) -> String {
    example(Operation::Event, session, 0)
}

fn example(operation: Operation, session: u64, number: u32) -> String {
    let subscribers = Subscribers::new("imsi-001010000000001", 1000).expect("a row");
    let message = Message {
        operation,
        number,
        session,
        began: EXAMPLE_TIME,
        subscriber: subscribers.of_session(session),
        now: EXAMPLE_TIME,
        notify_uri: "http://127.0.0.1:9/notify",
    };
    message.render()
}

fn subscribers(args: &Args) -> Result<Subscribers, Error> {
    let (count, sessions) = (args.subscribers_in_row(), args.sessions_at_once());
    let subscribers = Subscribers::new(args.first_subscriber(), count)
        .ok_or_else(|| Error::Subscribers(args.first_subscriber().to_owned()))?;
    if subscribers.sessions_max() < sessions as u64 {
        let needed = (sessions as u64).div_ceil(subscribers.sessions_max() / count);
        return Err(Error::TooFewSubscribers { subscribers: count, sessions, needed });
    }
    Ok(subscribers)
}

/// What all streams share.
struct Plan {
    scenario: Scenario,
    target: Target,
    subscribers: Subscribers,
    notify_uri: String,
    script: Arc<Script>,
    pace: Pace,
    progress: Progress,
    /// All streams have opened their sessions; then it is time.
    opened: Barrier,
    begun: Barrier,
    times: OnceLock<Times>,
    failure: OnceLock<String>,
}

/// What happens beside the measured time.
#[derive(Default)]
struct Progress {
    opened: AtomicU64,
    released: AtomicU64,
    left_open: AtomicU64,
}

impl Progress {
    fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn released(&self, is_done: bool) {
        if is_done { &self.released } else { &self.left_open }.fetch_add(1, Ordering::Relaxed);
    }
}

impl Plan {
    fn new(args: &Args, target: Target, subscribers: Subscribers) -> Self {
        let everyone = args.streams_in_all() + 1;
        Self {
            scenario: args.scenario,
            target,
            subscribers,
            notify_uri: args.notify_uri.to_string(),
            script: Arc::new(Script::new(args.scenario, args.updates, args.sessions.unwrap_or(u64::MAX))),
            pace: Pace::new(args.rate),
            progress: Progress::default(),
            opened: Barrier::new(everyone),
            begun: Barrier::new(everyone),
            times: OnceLock::new(),
            failure: OnceLock::new(),
        }
    }

    /// `None` until it has begun.
    fn times(&self) -> Option<Times> {
        self.times.get().copied()
    }

    fn fail(&self, reason: String) {
        // The first reason is as good as any.
        let _known = self.failure.set(reason);
    }

    fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }
}

/// The threads that play, and those who watch them.
struct Run<'a> {
    args: &'a Args,
    plan: Arc<Plan>,
    /// One for each thread.
    tallies: Vec<Arc<Mutex<Tally>>>,
    players: Vec<thread::JoinHandle<()>>,
    /// Ends with the last player.
    ended: mpsc::Receiver<()>,
    runtime: Runtime,
}

/// How often memory is looked at and progress is shown.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl<'a> Run<'a> {
    fn start(args: &'a Args, plan: Plan) -> Result<Self, Error> {
        let plan = Arc::new(plan);
        let threads = args.threads.clamp(1, args.connections.max(1));
        let tally = Tally::new(Duration::from_secs(args.duration_secs));
        let (alive, ended) = mpsc::channel::<()>();
        let (mut tallies, mut players) = (Vec::new(), Vec::new());
        for thread in 0..threads {
            let part = Part {
                connections: (thread..args.connections.max(1)).step_by(threads).count(),
                streams: args.streams.max(1),
                sessions: (thread..args.sessions_at_once()).step_by(threads).count(),
                tally: Arc::new(Mutex::new(tally.clone())),
            };
            tallies.push(Arc::clone(&part.tally));
            let (plan, alive, runtime) = (Arc::clone(&plan), alive.clone(), single_threaded()?);
            let player = thread::Builder::new().name(format!("nchf-bench-{thread}")).spawn(move || {
                let _alive = alive;
                runtime.block_on(part.play(&plan));
            });
            players.push(player.map_err(Error::Start)?);
        }
        Ok(Self { args, plan, tallies, players, ended, runtime: single_threaded()? })
    }

    fn measure(self) -> Result<Report, Error> {
        let Self { args, plan, .. } = &self;
        self.wait_until_opened();
        if plan.has_failed() {
            return Err(self.give_up());
        }
        let (warmup, measured) = (Duration::from_secs(args.warmup_secs), Duration::from_secs(args.duration_secs));
        let times = *plan.times.get_or_init(|| Times::from_now(warmup, measured));
        let pacer = thread::Builder::new().name("nchf-bench-pace".to_owned()).spawn({
            let plan = Arc::clone(plan);
            move || plan.pace.run(times)
        });
        pacer.map_err(Error::Start)?;
        self.runtime.block_on(plan.begun.wait());

        self.wait_until(times.measured_from);
        let (began, before) = (Instant::now(), Reading::take(&args.pid)?);
        let mut readings = vec![Reading::take(&args.pid)?];
        let mut shown = Shown::default();
        while self.wait_until(times.until.min(Instant::now() + LOOK_EVERY)) {
            readings.push(Reading::take(&args.pid)?);
            self.show(|| shown.line(began.elapsed(), &self.tally()));
        }
        let (elapsed, after) = (began.elapsed(), Reading::take(&args.pid)?);
        readings.push(after);
        self.finish(elapsed, &before, &readings)
    }

    /// Shows how many sessions are open, until all are.
    fn wait_until_opened(&self) {
        let all = self.args.sessions_at_once();
        self.runtime.block_on(async {
            let mut opened = std::pin::pin!(self.plan.opened.wait());
            while tokio::time::timeout(LOOK_EVERY, opened.as_mut()).await.is_err() {
                let opened = self.plan.progress.opened.load(Ordering::Relaxed);
                self.show(|| format!("{opened} of {all} sessions are open"));
            }
        });
    }

    /// Plays nothing, so that what was opened is released.
    fn give_up(&self) -> Error {
        self.plan.times.get_or_init(|| Times::from_now(Duration::ZERO, Duration::ZERO));
        self.plan.pace.run(Times::from_now(Duration::ZERO, Duration::ZERO));
        self.runtime.block_on(self.plan.begun.wait());
        let _ended = self.ended.recv();
        Error::Failed(self.plan.failure.get().cloned().unwrap_or_default())
    }

    /// False when it is later than the end, or all have ended.
    fn wait_until(&self, at: Instant) -> bool {
        let waited = self.ended.recv_timeout(at.saturating_duration_since(Instant::now()));
        let is_time = self.plan.times().is_some_and(|times| Instant::now() < times.until);
        is_time && waited == Err(RecvTimeoutError::Timeout)
    }

    fn finish(self, elapsed: Duration, before: &Reading, readings: &[Reading]) -> Result<Report, Error> {
        let ended_early = self.plan.times().is_some_and(|times| Instant::now() < times.until);
        if ended_early {
            self.plan.pace.stop();
        }
        while self.ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let released = self.plan.progress.released.load(Ordering::Relaxed);
            self.show(|| format!("{released} sessions are released"));
        }
        let tally = self.tally();
        let Self { args, plan, players, .. } = self;
        let threads = players.len();
        for player in players {
            player.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let circumstances = Circumstances {
            scenario: args.scenario,
            rate_asked: args.rate,
            elapsed,
            unsent: if ended_early { 0 } else { plan.pace.unsent() },
            left_open: plan.progress.left_open.load(Ordering::Relaxed),
            threads,
            cpu: readings.last().map(|after| process::cpu_between(before, after)).unwrap_or_default(),
            memory: process::memory_over(readings),
        };
        Ok(Report::new(&tally, circumstances))
    }

    fn tally(&self) -> Tally {
        let mut sum = Tally::new(Duration::from_secs(self.args.duration_secs));
        for tally in &self.tallies {
            sum.add(&tally.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }

    fn show(&self, line: impl FnOnce() -> String) {
        if self.args.progress || io::stderr().is_terminal() {
            eprintln!("{}", line());
        }
    }
}

/// What was shown of the counts so far.
#[derive(Default)]
struct Shown {
    after: Duration,
    answered: u64,
}

impl Shown {
    fn line(&mut self, elapsed: Duration, tally: &Tally) -> String {
        let answered = tally.answered.iter().map(tally::Latencies::count).sum::<u64>();
        let rate = (answered - self.answered) as f64 / (elapsed - self.after).as_secs_f64();
        let current = elapsed.as_secs() / tally.slot.as_secs();
        let slot = tally.slots.get(current.saturating_sub(1) as usize);
        let p99 = slot.map_or(0, |slot| slot.latencies.at_quantile(0.99)) as f64 / 1000.0;
        let failed: u64 = tally.errors.values().sum();
        let refused = tally.refused.count();
        (self.after, self.answered) = (elapsed, answered);
        format!("{:>4} s {rate:>8.0}/s, p99 {p99:.1} ms, {refused} refused, {failed} errors", elapsed.as_secs())
    }
}

/// What one thread plays.
struct Part {
    connections: usize,
    streams: usize,
    sessions: usize,
    tally: Arc<Mutex<Tally>>,
}

impl Part {
    async fn play(self, plan: &Arc<Plan>) {
        let pool = Arc::new(Mutex::new(Pool::new(Arc::clone(&plan.script), self.sessions)));
        let mut consumers = tokio::task::JoinSet::new();
        // For as long as this thread plays.
        let pacer = Arc::clone(plan);
        tokio::spawn(async move { pacer.pace.deal().await });
        for _ in 0..self.connections {
            let link = Arc::new(Link::new(plan.target.clone()));
            for _ in 0..self.streams {
                let (plan, link) = (Arc::clone(plan), Arc::clone(&link));
                consumers.spawn(Consumer::new(plan, link, Arc::clone(&pool), Arc::clone(&self.tally)).run());
            }
        }
        while let Some(ended) = consumers.join_next().await {
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        }
    }
}

fn single_threaded() -> Result<Runtime, Error> {
    runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)
}
