//! When messages are sent: as soon as a stream is free (closed loop), or at fixed times (open loop).
//!
//! In an open loop message `k` is due at `k / rate` seconds, whatever became of those before it. A message that finds
//! no stream free waits, and its latency counts from when it was due: so what a slow target does to those who would have
//! come meanwhile is measured and not left out. Waiting costs no memory, since a message is only its number.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// How often due messages are looked for at most. Half of it is what an open loop adds to latencies on average.
const TICK: Duration = Duration::from_micros(200);

/// How long after the end messages that were due before it are still sent.
const GRACE: Duration = Duration::from_millis(100);

/// When a run begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: Instant,
    /// Before this is the warm-up.
    pub(super) measured_from: Instant,
    pub(super) until: Instant,
}

impl Times {
    pub(super) fn from_now(warmup: Duration, measured: Duration) -> Self {
        let start = Instant::now();
        Self { start, measured_from: start + warmup, until: start + warmup + measured }
    }

    pub(super) fn measure(&self, at: Instant) -> bool {
        self.measured_from <= at && at < self.until
    }
}

pub(super) enum Pace {
    Closed,
    Open(OpenLoop),
}

pub(super) struct OpenLoop {
    per_sec: f64,
    times: OnceLock<Times>,
    /// One permit for each message that is due and not taken.
    due: Semaphore,
    /// Told when more may be due than were dealt.
    more: Notify,
    dealt: AtomicU64,
    taken: AtomicU64,
}

/// One message to be sent.
pub(super) struct Turn {
    /// From when on latency counts.
    pub(super) due: Instant,
    /// How late the generator was by itself: a stream was free when the message was due.
    pub(super) lag: Option<Duration>,
    /// Of an open loop: how long the message has waited for a stream, lag included.
    pub(super) waited: Option<Duration>,
}

impl Pace {
    pub(super) fn new(rate: Option<f64>) -> Self {
        rate.map_or(Self::Closed, |per_sec| Self::Open(OpenLoop::new(per_sec)))
    }

    /// Waits until the next message is due; `None` when the time is over.
    pub(super) async fn turn(&self, times: &Times) -> Option<Turn> {
        match self {
            Self::Closed => {
                let due = Instant::now();
                (due < times.until).then_some(Turn { due, lag: None, waited: None })
            }
            Self::Open(open) => open.turn().await,
        }
    }

    /// Releases messages as they become due, until the time is over. Blocks the calling thread.
    pub(super) fn run(&self, times: Times) {
        if let Self::Open(open) = self {
            open.run(times);
        }
    }

    /// Wakes the streams of an open loop for [`Pace::run`], until the time is over. To be run by each thread that plays:
    /// any of them does it for all.
    pub(super) async fn deal(&self) {
        if let Self::Open(open) = self {
            open.deal().await;
        }
    }

    /// Nothing is left to be sent, before the time is over.
    pub(super) fn stop(&self) {
        if let Self::Open(open) = self {
            open.stop();
        }
    }

    /// Messages of the measured time that were due and found no stream free until its end.
    pub(super) fn unsent(&self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open(open) => open.unsent(),
        }
    }
}

impl OpenLoop {
    fn new(per_sec: f64) -> Self {
        Self {
            per_sec,
            times: OnceLock::new(),
            due: Semaphore::new(0),
            more: Notify::new(),
            dealt: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    async fn turn(&self) -> Option<Turn> {
        let free_since = Instant::now();
        self.due.acquire().await.ok()?.forget();
        let due = self.due_at(self.taken.fetch_add(1, Ordering::Relaxed))?;
        let waited = due.elapsed();
        let lag = (free_since <= due).then_some(waited);
        Some(Turn { due, lag, waited: Some(waited) })
    }

    fn run(&self, times: Times) {
        let times = self.times.get_or_init(|| times);
        loop {
            let now = Instant::now();
            self.more.notify_one();
            if now >= times.until || self.due.is_closed() {
                break;
            }
            let next = self.due_at(self.due_before(now)).unwrap_or(times.until).min(times.until);
            thread::sleep(next.saturating_duration_since(now).max(TICK));
        }
        // What was due last shall have found its stream, if there is one.
        let until = Instant::now() + GRACE;
        while self.taken.load(Ordering::Relaxed) < self.due_before(times.until)
            && !self.due.is_closed()
            && Instant::now() < until
        {
            thread::sleep(TICK);
        }
        self.stop();
    }

    /// Gives streams their turns. It runs where they do, because to wake each of them from the thread that watches the
    /// time would be a system call for each message.
    async fn deal(&self) {
        while !self.due.is_closed() {
            self.more.notified().await;
            let due = self.due_before(Instant::now());
            let dealt = self.dealt.fetch_max(due, Ordering::Relaxed).min(due);
            self.due.add_permits(usize::try_from(due - dealt).unwrap_or(Semaphore::MAX_PERMITS));
        }
    }

    fn stop(&self) {
        self.due.close();
        self.more.notify_one();
    }

    fn due_at(&self, number: u64) -> Option<Instant> {
        Some(self.times.get()?.start + Duration::from_secs_f64(number as f64 / self.per_sec))
    }

    /// How many messages are due before a time, and before the end.
    fn due_before(&self, at: Instant) -> u64 {
        let Some(times) = self.times.get() else { return 0 };
        (at.min(times.until).saturating_duration_since(times.start).as_secs_f64() * self.per_sec).ceil() as u64
    }

    fn unsent(&self) -> u64 {
        let Some(times) = self.times.get() else { return 0 };
        let before = self.due_before(times.measured_from);
        let taken = self.taken.load(Ordering::Relaxed).max(before);
        self.due_before(times.until).saturating_sub(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_one_second(per_sec: f64) -> OpenLoop {
        let open = OpenLoop::new(per_sec);
        open.times.get_or_init(|| Times::from_now(Duration::ZERO, Duration::from_secs(1)));
        open
    }

    #[test]
    fn messages_are_due_at_fixed_times() {
        let open = of_one_second(4.0);
        let start = open.times.get().unwrap().start;
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(open.due_at(0), Some(start));
        assert_eq!(open.due_at(3), Some(after(750)));
        assert_eq!([0, 1, 250, 251, 1000].map(|millis| open.due_before(after(millis))), [0, 1, 1, 2, 4]);
    }

    #[test]
    fn what_nobody_takes_is_counted_without_the_warm_up() {
        let open = OpenLoop::new(1000.0);
        open.run(Times::from_now(Duration::from_millis(20), Duration::from_millis(30)));
        assert_eq!(open.unsent(), 30);
    }
}
