//! What happens between messages: timers, notifications, records, and a sweep over what may have been lost.
//!
//! Nothing here is remembered by an instance. Work lies in the store's partitions; whichever instance is alive looks at
//! all of them about once a second and does what it finds. Claims and leases keep instances from doing the same work
//! twice; where twice would be wrong, versions see to it.
//!
//! Timers and notifications are done in the midst of a look; records and the sweep have a turn of their own after each,
//! so that a disk that hangs or a long walk holds up no timer.

pub mod export_state;
pub mod notifications;
pub mod records;
pub mod sweep;
pub mod timers;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use self::notifications::Notifications;
use self::records::Records;
use self::sweep::Sweep;
use crate::app::App;
use crate::cdr_file::files::Place;
use crate::charging::decision::Outgoing;
use crate::charging::time::{Span, Timestamp};
use crate::store::{self, Partition, Queue, Work, record};
use crate::telemetry::QueueLabel;

/// How often all partitions are looked at. A timer is late by this much at most, and by the time its turn takes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Partitions looked at in one call.
const LOOKED_AT_ONCE: usize = 64;

/// Ten seconds' worth.
const ROUNDS_BETWEEN_CHECKS: u32 = 20;

/// Pause after the store has failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// All workers of one instance.
pub struct Workers<P: Place = PathBuf> {
    pub app: App,
    pub notifications: Notifications,
    pub records: Records<P>,
}

/// Partitions whose outbox of records is not empty, with how many entries wait there.
pub type Waiting = Vec<(Partition, u64)>;

/// What a look has found in the outboxes.
#[derive(Default)]
struct Found {
    records: Waiting,
    notifications: Waiting,
}

impl<P: Place> Workers<P> {
    /// Works until told to stop. Being dropped in the midst of it loses nothing either.
    pub async fn run(self, stop: oneshot::Receiver<()>) {
        let Self { app, notifications, records } = self;
        let (found, waiting) = watch::channel(Waiting::new());
        tokio::join!(
            rounds(&app, &notifications, found, stop),
            export(records, waiting.clone()),
            sweep_on(&app, Sweep::default(), waiting),
        );
    }

    /// Everything once in some partitions, one after the other.
    pub async fn round(&mut self, partitions: &[Partition], sweep: &mut Sweep) -> Result<(), store::Error> {
        let found = round(&self.app, &self.notifications, partitions).await?;
        measure_age(&self.app, &found).await?;
        match self.records.step(&found.records).await {
            Err(records::Error::Directory(error)) => tracing::error!(%error, "records cannot be written"),
            Err(records::Error::Store(error)) => return Err(error),
            Ok(()) => {}
        }
        sweep.step(&self.app).await
    }
}

/// Looks again and again, and says what it found of records; ends when told to.
async fn rounds(
    app: &App,
    notifications: &Notifications,
    found: watch::Sender<Waiting>,
    mut stop: oneshot::Receiver<()>,
) {
    // Instances start their rounds at different places, so that they rarely meet.
    let mut partitions: Vec<_> = Partition::all().collect();
    let first = usize::from(app.shared.random.number() as u16) % partitions.len();
    partitions.rotate_left(first);
    let mut rounds = 0u32;
    loop {
        let is_time_to_check = rounds.is_multiple_of(ROUNDS_BETWEEN_CHECKS);
        if is_time_to_check {
            check_store(app).await;
        }
        rounds = rounds.wrapping_add(1);
        let next = Instant::now() + LOOK_EVERY;
        match round(app, notifications, &partitions).await {
            Ok(waiting) => {
                if is_time_to_check && let Err(error) = measure_age(app, &waiting).await {
                    tracing::warn!(%error, "what waits cannot be looked at");
                }
                found.send_replace(waiting.records);
            }
            Err(error) => {
                tracing::warn!(%error, "the workers cannot reach the store");
                sleep(AFTER_FAILURE).await;
            }
        }
        partitions.rotate_left(LOOKED_AT_ONCE);
        if timeout_at(next, &mut stop).await.is_ok() {
            return;
        }
    }
}

/// A check of the store also mends what it can: functions that Redis has lost are loaded again.
async fn check_store(app: &App) {
    if let Err(error) = app.store.ready().await {
        tracing::warn!(%error, "the store is not ready");
    }
}

/// Looks at these partitions once, performs what is due and delivers what is to be told.
async fn round(app: &App, notifications: &Notifications, partitions: &[Partition]) -> Result<Found, store::Error> {
    let mut waiting = Found::default();
    for some in partitions.chunks(LOOKED_AT_ONCE) {
        let found = app.store.look(some, app.shared.clock.now()).await?;
        timers::fire(app, found.iter().filter(|work| work.due).map(|work| work.partition).collect()).await?;
        for Work { partition, notifications: to_tell, records, .. } in found {
            if to_tell > 0 {
                notifications.deliver(app, partition).await?;
                waiting.notifications.push((partition, to_tell));
            }
            if records > 0 {
                waiting.records.push((partition, records));
            }
        }
    }
    let metrics = &app.shared.metrics;
    metrics.rounds.inc();
    for (label, waiting) in waiting.queues() {
        let entries = waiting.iter().map(|(_, entries)| *entries).sum::<u64>();
        metrics.outbox_entries.get_or_create(&label).set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
    Ok(waiting)
}

impl Found {
    fn queues(&self) -> [(QueueLabel, &Waiting); 2] {
        let label = |queue| QueueLabel { queue };
        [(label("records"), &self.records), (label("notifications"), &self.notifications)]
    }
}

/// Finds the oldest entry of each outbox.
async fn measure_age(app: &App, found: &Found) -> Result<(), store::Error> {
    for (queue, (label, waiting)) in [Queue::Records, Queue::Notifications].into_iter().zip(found.queues()) {
        let oldest = waiting.iter().map(|(partition, _)| app.store.outbox(*partition, queue, None, 1));
        let mut since = None;
        for entries in together(oldest, LOOKED_AT_ONCE).await? {
            for (_, bytes) in entries {
                // What cannot be read says no time; whoever works it off says that it cannot be read.
                let written_at = record::decode(&bytes).ok().and_then(|outgoing| written_at(&outgoing));
                since = [since, written_at].into_iter().flatten().min();
            }
        }
        let now = app.shared.clock.now();
        let age = since.map_or(0.0, |since| seconds(now.since(since)));
        app.shared.metrics.outbox_age.get_or_create(&label).set(age);
    }
    Ok(())
}

/// When an entry was written, where it says so.
fn written_at(outgoing: &Outgoing) -> Option<Timestamp> {
    match outgoing {
        Outgoing::Record { closed_at, .. } => *closed_at,
        Outgoing::Notify(notification) => Some(notification.decided_at),
        Outgoing::Credited { .. } => None,
    }
}

/// Does calls to the store at once, `limit` of them; their answers come in the order of the calls.
async fn together<T, E>(
    calls: impl Iterator<Item = impl Future<Output = Result<T, E>>>,
    limit: usize,
) -> Result<Vec<T>, E> {
    let calls: Vec<_> = calls.collect();
    stream::iter(calls).buffered(limit).try_collect().await
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a metric")]
fn seconds(span: Span) -> f64 {
    span.millis() as f64 / 1000.0
}

/// Exports records after each look, and at the end what there is.
async fn export<P: Place>(mut records: Records<P>, mut waiting: watch::Receiver<Waiting>) {
    while waiting.changed().await.is_ok() {
        let waiting = waiting.borrow_and_update().clone();
        if let Err(error) = records.step(&waiting).await {
            // A full disk holds up records and nothing else.
            records.count_failure();
            tracing::error!(%error, "records cannot be written");
            sleep(AFTER_FAILURE).await;
        }
    }
    // What waits now would only come out after the next start.
    if let Err(error) = records.close().await {
        tracing::warn!(%error, "the last records are published after the next start");
    }
}

/// Goes on with the sweep after each look.
async fn sweep_on(app: &App, mut sweep: Sweep, mut looked: watch::Receiver<Waiting>) {
    while looked.changed().await.is_ok() {
        looked.mark_unchanged();
        if let Err(error) = sweep.step(app).await {
            tracing::warn!(%error, "the sweep cannot reach the store");
            sleep(AFTER_FAILURE).await;
        }
    }
}
