//! What happens between messages: timers, notifications, records, and a sweep over what may have been lost.
//!
//! Nothing here is remembered by an instance. Work lies in the store's partitions; whichever instance is alive looks at
//! all of them about once a second and does what it finds. Claims and leases keep instances from doing the same work
//! twice; where twice would be wrong, versions see to it.

pub mod export_state;
pub mod notifications;
pub mod records;
pub mod sweep;
pub mod timers;

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::app::App;
use crate::store::{self, Partition, Work};

/// How often all partitions are looked at. A timer is late by this much at most, and by the time its turn takes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Partitions looked at in one call.
const LOOKED_AT_ONCE: usize = 64;

/// Ten seconds' worth.
const ROUNDS_BETWEEN_CHECKS: u32 = 20;

/// Pause after the store has failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// All workers of one instance.
pub struct Workers {
    pub app: App,
    pub notifications: notifications::Notifications,
    pub records: records::Records,
}

impl Workers {
    /// Works until told to stop. Being dropped in the midst of it loses nothing either.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut sweep = sweep::Sweep::default();
        // Instances start their rounds at different places, so that they rarely meet.
        let mut first = usize::from(any_number());
        let mut rounds = 0u32;
        loop {
            if rounds.is_multiple_of(ROUNDS_BETWEEN_CHECKS) {
                self.check_store().await;
            }
            rounds = rounds.wrapping_add(1);
            let next = Instant::now() + LOOK_EVERY;
            if let Err(error) = self.round(first, &mut sweep).await {
                tracing::warn!(%error, "the workers cannot reach the store");
                sleep(AFTER_FAILURE).await;
            }
            first = first.wrapping_add(LOOKED_AT_ONCE);
            let told_to_stop = timeout_at(next, &mut stop).await.is_ok();
            if told_to_stop {
                // What is in a file that is not out yet would only come out after the next start.
                if let Err(error) = self.records.close().await {
                    tracing::warn!(%error, "the last records are published after the next start");
                }
                return;
            }
        }
    }

    /// A check of the store also mends what it can: functions that Redis has lost are loaded again.
    async fn check_store(&self) {
        if let Err(error) = self.app.store.ready().await {
            tracing::warn!(%error, "the store is not ready");
        }
    }

    /// Looks at all partitions once and does what it finds; goes on with the sweep.
    pub async fn round(&mut self, first: usize, sweep: &mut sweep::Sweep) -> Result<(), store::Error> {
        let mut partitions: Vec<_> = Partition::all().collect();
        let length = partitions.len();
        partitions.rotate_left(first % length);
        let mut waiting = Vec::new();
        for some in partitions.chunks(LOOKED_AT_ONCE) {
            for Work { partition, due, notifications, records } in
                self.app.store.look(some, self.app.shared.clock.now()).await?
            {
                if due {
                    timers::fire(&self.app, partition).await?;
                }
                if notifications {
                    self.notifications.deliver(&self.app, partition).await?;
                }
                if records {
                    waiting.push(partition);
                }
            }
        }
        match self.records.step(&waiting).await {
            // A full disk holds up records and nothing else.
            Err(records::Error::Directory(error)) => tracing::error!(%error, "records cannot be written"),
            Err(records::Error::Store(error)) => return Err(error),
            Ok(()) => {}
        }
        sweep.step(&self.app).await
    }
}

fn any_number() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness instances start at the same place and meet more often, which the claims bear.
    let _ = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}
