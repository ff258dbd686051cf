//! The program as processes that are killed, frozen, cut off from space and told nonsense, on a real Redis and on the
//! embedded store. Nothing here looks into a process: what counts is what it answers and which files it leaves.
//!
//! Deadlines are only ever reached by a failure. What is random follows from a seed, which a failure prints.

mod abandoned;
mod away;
mod full_disk;
pub mod instance;
mod killed;
mod memory;
pub mod network_function;
pub mod published;
mod two_writers;
mod wrong_consumers;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::splitmix::SplitMix;

/// The longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "this does not happen: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The same seed, the same moments.
pub struct Random(SplitMix);

impl Random {
    /// Of `NCHF_TEST_SEED`, else of a seed that is new each time.
    pub fn new() -> Self {
        let given = std::env::var_os("NCHF_TEST_SEED");
        let given = given.map(|seed| seed.to_str().and_then(|seed| seed.parse().ok()).expect("a number"));
        let seed = given.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
        // Shown when the test fails.
        println!("again with: NCHF_TEST_SEED={seed}");
        Self(SplitMix(seed))
    }

    /// One for somebody else, of a course of its own.
    pub fn another(&mut self) -> Self {
        Self(SplitMix(self.below(u64::MAX)))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.number() % bound
    }

    pub fn millis(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }
}
