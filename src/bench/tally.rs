//! What is counted while messages are answered.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::message::Operation;
use super::pace::Times;

/// Kinds of errors that are told apart. A charging function that invents a new one for every answer must not fill the
/// memory of its generator.
const ERROR_KINDS_MAX: usize = 64;

/// Parts that the measured time is divided into, to be drawn; of short runs each is a second.
const SLOTS_MAX: u64 = 60;

/// From here on the generator itself counts as late.
const LATE: Duration = Duration::from_millis(1);

/// What the streams of one thread counted.
#[derive(Clone)]
pub(super) struct Tally {
    pub(super) slot: Duration,
    pub(super) slots: Vec<Slot>,
    pub(super) answered: [Latencies; Operation::ALL.len()],
    /// Of an open loop: right answers from when the message was sent, not from when it was due.
    pub(super) from_sending: Latencies,
    pub(super) refused: Latencies,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) lag: Lag,
}

/// One part of the measured time: of an open loop what was due in it, of a closed one what was answered.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) latencies: Latencies,
    pub(super) refused: u64,
    pub(super) failed: u64,
}

/// How late messages were sent for which a stream was free.
#[derive(Clone, Copy, Default)]
pub(super) struct Lag {
    pub(super) messages: u64,
    pub(super) max: Duration,
}

/// What became of a message.
pub(super) enum Outcome {
    Answered(Operation),
    Refused,
    Failed(String),
}

impl Tally {
    pub(super) fn new(measured: Duration) -> Self {
        let secs = measured.as_secs().max(1);
        let slot_secs = secs.div_ceil(SLOTS_MAX);
        let slot = Slot { latencies: Latencies::coarse(), refused: 0, failed: 0 };
        Self {
            slot: Duration::from_secs(slot_secs),
            slots: vec![slot; secs.div_ceil(slot_secs) as usize],
            answered: std::array::from_fn(|_| Latencies::fine()),
            from_sending: Latencies::fine(),
            refused: Latencies::fine(),
            errors: BTreeMap::new(),
            lag: Lag::default(),
        }
    }

    /// Counts a message that was answered, or not, some time after it was due. `waited` is how long it took to find a
    /// stream.
    pub(super) fn count(
        &mut self,
        times: &Times,
        at: Instant,
        outcome: Outcome,
        latency: Duration,
        waited: Option<Duration>,
    ) {
        let slot = at.saturating_duration_since(times.measured_from).as_secs() / self.slot.as_secs();
        let last = self.slots.len() - 1;
        let slot = usize::try_from(slot).unwrap_or(last).min(last);
        match outcome {
            Outcome::Answered(operation) => {
                self.answered[operation as usize].record(latency);
                self.slots[slot].latencies.record(latency);
                if let Some(waited) = waited {
                    self.from_sending.record(latency.saturating_sub(waited));
                }
            }
            Outcome::Refused => {
                self.refused.record(latency);
                self.slots[slot].refused += 1;
            }
            Outcome::Failed(kind) => {
                self.count_error(kind, 1);
                self.slots[slot].failed += 1;
            }
        }
    }

    pub(super) fn lagged(&mut self, lag: Duration) {
        if lag >= LATE {
            self.lag.messages += 1;
        }
        self.lag.max = self.lag.max.max(lag);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (mine, others) in self.answered.iter_mut().zip(&other.answered) {
            mine.add(others);
        }
        self.from_sending.add(&other.from_sending);
        self.refused.add(&other.refused);
        for (mine, others) in self.slots.iter_mut().zip(&other.slots) {
            mine.latencies.add(&others.latencies);
            mine.refused += others.refused;
            mine.failed += others.failed;
        }
        for (kind, count) in &other.errors {
            self.count_error(kind.clone(), *count);
        }
        self.lag.messages += other.lag.messages;
        self.lag.max = self.lag.max.max(other.lag.max);
    }

    fn count_error(&mut self, kind: String, count: u64) {
        let full = self.errors.len() >= ERROR_KINDS_MAX && !self.errors.contains_key(&kind);
        let kind = if full { "other".to_owned() } else { kind };
        *self.errors.entry(kind).or_default() += count;
    }
}

/// Microseconds until the whole answer was there, up to a minute.
#[derive(Clone)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    /// Three digits exact.
    pub(super) fn fine() -> Self {
        Self::exact_to(3)
    }

    /// Two digits: enough to be drawn, and a tenth of the memory.
    fn coarse() -> Self {
        Self::exact_to(2)
    }

    fn exact_to(digits: u8) -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000, digits).expect("these bounds are valid"))
    }

    fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn at_quantile(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    pub(super) fn max(&self) -> u64 {
        self.0.max()
    }
}
