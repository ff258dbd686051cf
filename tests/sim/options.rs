//! What one run is like: its servers, its consumers, and how often what goes wrong. Most faults are off in most runs, so
//! that each meets the others in many combinations and none hides behind another.

use super::chance::Chance;
use super::redis::{Flavour, Topology};

/// Permilles are of what they speak of: of messages, of commands, of requests.
#[derive(Clone, Debug)]
pub struct Options {
    pub topology: Topology,
    pub flavour: Flavour,
    pub instances: usize,
    pub consumers: u64,
    pub operations: u64,
    pub accounts: u64,
    /// Requests and answers between consumers and instances.
    pub lost: u64,
    pub doubled: u64,
    pub late: u64,
    /// Streams that the consumer resets.
    pub cancelled: u64,
    /// Connections to Redis that break, before a command is performed or after.
    pub broken: u64,
    /// Commands that take longer than any deadline.
    pub stalled: u64,
    /// Seconds between two, on average; none where it is 0.
    pub crash_every: u64,
    pub freeze_every: u64,
    pub store_fault_every: u64,
    pub disk_fault_every: u64,
    /// Milliseconds by which the clocks of instances differ.
    pub skew: u64,
    /// Consumers that go away without a word, per operation.
    pub deserted: u64,
    /// After how long a record is closed and another one begun.
    pub record_open_secs: Option<u32>,
}

impl Options {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed).stream("options", 0);
        let topology = match chance.below(10) {
            0..=3 => Topology::Standalone,
            4..=7 => Topology::Sentinel { replicas: chance.between(1, 2) as usize, sentinels: 3 },
            _ => Topology::Cluster { masters: 3, replicas: 1 },
        };
        let flavour = *chance.one_of(&[Flavour::Redis70, Flavour::Valkey9]);
        // A fault that is on is on strongly or weakly.
        let mut sometimes = |of_ten: u64, weak: u64, strong: u64| match chance.below(10) {
            dice if dice >= of_ten => 0,
            dice if dice % 2 == 0 => weak,
            _ => strong,
        };
        Self {
            lost: sometimes(5, 20, 200),
            doubled: sometimes(6, 100, 1000),
            late: sometimes(4, 20, 150),
            cancelled: sometimes(3, 30, 200),
            broken: sometimes(4, 2, 30),
            stalled: sometimes(3, 1, 10),
            crash_every: sometimes(5, 20, 4),
            freeze_every: sometimes(3, 40, 15),
            store_fault_every: sometimes(7, 15, 5),
            disk_fault_every: sometimes(3, 30, 8),
            skew: sometimes(3, 50, 2000),
            deserted: sometimes(4, 10, 60),
            record_open_secs: (sometimes(3, 1, 1) > 0).then_some(20),
            topology,
            flavour,
            instances: chance.between(1, 3) as usize,
            consumers: chance.between(2, 6),
            operations: chance.between(4, 12),
            accounts: chance.between(1, 3),
        }
    }
}
