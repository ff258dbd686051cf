//! What an instance tells about itself: metrics and logs. No label and no log line names a subscriber.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Counters of one instance. Label values come from closed lists, so that their number is bounded.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub requests: Family<RequestLabels, Counter>,
    pub latency: Family<OperationLabel, Latency>,
    pub results: Family<ResultLabel, Counter>,
    pub replays: Family<OperationLabel, Counter>,
    pub conflicts: Counter,
    pub store_errors: Family<StoreErrorLabel, Counter>,
    pub in_flight: Gauge,
    pub connections: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub operation: &'static str,
    pub status: u16,
    pub cause: &'static str,
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
pub struct StoreErrorLabel {
    pub kind: &'static str,
}

/// Seconds from the request's arrival to its answer.
#[derive(Clone, Debug)]
pub struct Latency(pub Histogram);

/// From a quarter of a millisecond, which is a request on an idle machine, to beyond every deadline.
const LATENCY_BUCKETS: [f64; 12] = [0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0];

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new(LATENCY_BUCKETS))
    }
}
