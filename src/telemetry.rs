//! What an instance tells about itself: metrics and logs. No label and no log line names a subscriber.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

use crate::charging::decision::ResultCode;
use crate::charging::time::Timestamp;
use crate::config::{Log, LogFormat};

/// Counters of one instance. Label values come from closed lists, so that their number is bounded.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from the request's arrival to its answer.
    pub latency: Family<OperationLabel, Histogram, fn() -> Histogram>,
    /// Requests that were let in by nobody and read by nobody.
    pub refusals: Family<RefusalLabels, Counter>,
    /// Requests in work, lately.
    pub in_flight: Gauge,
    pub results: Family<ResultLabel, Counter>,
    pub replays: Family<OperationLabel, Counter>,
    pub conflicts: Counter,
    pub store_errors: Family<StoreErrorLabel, Counter>,
    pub store_losses: Counter,
    /// Seconds by which timers are performed late.
    pub timer_lag: Histogram,
    pub notifications: Family<NotificationLabels, Counter>,
    pub index_drift: Counter,
    pub cdrs: Counter,
    pub cdr_files: Counter,
    /// Attempts to write records that failed.
    pub cdr_errors: Counter,
    /// Looks at all partitions.
    pub rounds: Counter,
    /// What waited at the last look.
    pub outbox_entries: Family<QueueLabel, Gauge>,
    /// Seconds that the oldest of it had waited, lately.
    pub outbox_age: Family<QueueLabel, Gauge<f64, AtomicU64>>,
    /// As the last whole sweep counted them.
    pub open_sessions: Gauge,
    /// What open sessions held then: money in the currency's unit, everything else in its own.
    pub reserved: Family<UnitLabel, Gauge<f64, AtomicU64>>,
    /// Seconds since the last message of the session that then held something for the longest.
    pub reservation_age: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub operation: &'static str,
    pub status: u16,
    pub cause: &'static str,
}

/// Which limit was reached, for a request of which class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    pub limit: &'static str,
    pub class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OperationLabel {
    pub operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    pub result_code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NotificationLabels {
    pub notification: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabel {
    pub queue: &'static str,
}

/// A currency, or `octets`, `seconds`, `events`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UnitLabel {
    pub unit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreErrorLabel {
    pub kind: &'static str,
}

/// From a look at the partitions to a lease of a claim.
const LAG_BUCKETS: [f64; 8] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// From a quarter of a millisecond, which is a request on an idle machine, to beyond every deadline.
const LATENCY_BUCKETS: [f64; 12] = [0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            refusals: Family::default(),
            in_flight: Gauge::default(),
            results: Family::default(),
            replays: Family::default(),
            conflicts: Counter::default(),
            store_errors: Family::default(),
            store_losses: Counter::default(),
            timer_lag: Histogram::new(LAG_BUCKETS),
            notifications: Family::default(),
            index_drift: Counter::default(),
            cdrs: Counter::default(),
            cdr_files: Counter::default(),
            cdr_errors: Counter::default(),
            rounds: Counter::default(),
            outbox_entries: Family::default(),
            outbox_age: Family::default(),
            open_sessions: Gauge::default(),
            reserved: Family::default(),
            reservation_age: Gauge::default(),
        }
    }
}

/// What nearly every charging request of an operation counts, found once: to find a metric by its labels takes a lock that
/// all workers share.
#[derive(Clone, Debug)]
pub struct Usual {
    /// The status of a request that was done.
    pub status: u16,
    /// Requests answered with it.
    pub answered: Counter,
    /// Of all requests of the operation, whatever was answered.
    pub latency: Histogram,
    /// Of rating groups.
    pub successes: Counter,
}

impl Metrics {
    pub fn usual(&self, operation: &'static str, status: u16) -> Usual {
        let result_code = ResultCode::Success.as_str();
        Usual {
            status,
            answered: self.requests.get_or_create_owned(&RequestLabels { operation, status, cause: "" }),
            latency: self.latency.get_or_create_owned(&OperationLabel { operation }),
            successes: self.results.get_or_create_owned(&ResultLabel { result_code }),
        }
    }

    /// All metrics under the prefix `nchf`, for one exposition.
    pub fn registry(&self) -> Registry {
        let Self { requests, latency, results, replays, conflicts, store_errors, .. } = self;
        let mut registry = Registry::with_prefix("nchf");
        registry.register("requests", "Charging requests answered, by operation, status and cause", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From a charging request's arrival to its answer, by operation",
            Unit::Seconds,
            latency.clone(),
        );
        registry.register(
            "refusals",
            "Charging requests refused before they were read, by the limit that was reached and their class",
            self.refusals.clone(),
        );
        registry.register("requests_in_flight", "Charging requests in work, once a second", self.in_flight.clone());
        registry.register("rating_group_results", "Results of rating groups, by result code", results.clone());
        registry.register("replays", "Requests that had been answered before, by operation", replays.clone());
        registry.register("conflicts", "Commits decided again because an account had changed", conflicts.clone());
        registry.register_with_unit(
            "timer_lag",
            "By how much timers are performed late",
            Unit::Seconds,
            self.timer_lag.clone(),
        );
        registry.register("notifications", "Attempts to notify consumers, by outcome", self.notifications.clone());
        registry.register(
            "index_drift",
            "Sessions that an index had lost and the sweep put back",
            self.index_drift.clone(),
        );
        registry.register("cdrs", "Records that are in published files", self.cdrs.clone());
        registry.register("cdr_files", "Published record files", self.cdr_files.clone());
        registry.register("cdr_errors", "Attempts to write records that failed", self.cdr_errors.clone());
        self.register_what_waits(&mut registry);
        registry.register(
            "store_losses",
            "Promotions of a replica after which answered changes are, or may be, gone; each worker counts its own",
            self.store_losses.clone(),
        );
        registry.register("store_errors", "Failures of the store, by kind", store_errors.clone());
        registry
    }

    /// What lies in the store; every instance that looks there says the same.
    fn register_what_waits(&self, registry: &mut Registry) {
        registry.register("worker_rounds", "Looks at everything that waits in the store", self.rounds.clone());
        registry.register(
            "outbox_entries",
            "Records and notifications that wait, as the last look found them",
            self.outbox_entries.clone(),
        );
        registry.register_with_unit(
            "outbox_age",
            "How long the oldest of them has waited",
            Unit::Seconds,
            self.outbox_age.clone(),
        );
        registry.register("open_sessions", "Open charging sessions, counted by the sweep", self.open_sessions.clone());
        registry.register(
            "reserved",
            "What open charging sessions hold, by currency or unit, counted by the sweep",
            self.reserved.clone(),
        );
        registry.register_with_unit(
            "reservation_age",
            "Since the last message of the session that has held something for the longest, by the sweep",
            Unit::Seconds,
            self.reservation_age.clone(),
        );
    }
}

/// Lets one line a second through: a store that is away fails every request, and one line says it.
#[derive(Debug, Default)]
pub struct OncePerSecond(AtomicI64);

impl OncePerSecond {
    pub fn is_due(&self, now: Timestamp) -> bool {
        let second = now.millis() / 1000;
        self.0.swap(second, Ordering::Relaxed) != second
    }
}

/// Sends the program's log to standard error, as text or as JSON. Set once, before anything is logged.
pub fn log_to_stderr(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| format!("log.filter = {}: {error}", log.filter))?;
    // Colours are for a person's terminal; in files and collectors they are noise between the words.
    let for_a_person = std::io::stderr().is_terminal();
    let to_stderr =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(for_a_person);
    let outcome = match log.format {
        LogFormat::Text => to_stderr.try_init(),
        LogFormat::Json => to_stderr.json().flatten_event(true).try_init(),
    };
    outcome.map_err(|error| error.to_string())?;
    // A panic's text may quote what was parsed; where it happened says enough.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a bug: the program panicked");
    }));
    Ok(())
}
