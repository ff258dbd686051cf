//! Delivers what consumers have to be told, and does what follows from their answers.
//!
//! An entry stays in its partition's outbox until a consumer has taken it, or it is not worth another attempt. How often
//! it was tried is remembered by the instance that tries; another one that takes over starts to count anew, within the
//! same time limit, which counts from the decision to notify. A consumer may be told twice, which asks nothing more of
//! it. A consumer that does not answer keeps nobody else waiting: each entry is tried in a task of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::app::App;
use crate::charging::decision::{Notification, NotificationKind, Outgoing};
use crate::charging::maintain::Maintenance;
use crate::charging::session::ChargingSession;
use crate::charging::time::{Span, Timestamp};
use crate::notify::retry::{Jitter, Retry, RetryPolicy};
use crate::notify::{self, Call, Notifier, Outcome};
use crate::store::{self, AccountKey, List, OutboxId, Partition, Queue, record};
use crate::telemetry::NotificationLabels;
use crate::transact::Failure;

/// How long a partition's notifications are one instance's.
const LEASE: Span = Span::from_secs(10);

/// Entries read in one go, and of one partition in one round: those behind it wait for the next round.
const PAGE: usize = 200;
const PAGES_MAX: usize = 20;

/// Entries tried at once by one instance.
const UNDER_WAY_MAX: usize = 1024;

/// When an entry that cannot be read is looked at again: somebody may have mended it, or brought a newer program.
const UNREADABLE_FOR: Span = Span::from_secs(60);

pub struct Notifications {
    notifier: Arc<Notifier>,
    policy: RetryPolicy,
    /// Names this instance in leases.
    owner: String,
    attempts: Attempts,
    permits: Arc<Semaphore>,
}

/// What was tried and did not end yet.
#[derive(Clone, Default)]
struct Attempts(Arc<Mutex<HashMap<(Partition, OutboxId), Attempt>>>);

#[derive(Clone, Copy, Debug)]
struct Attempt {
    count: u32,
    /// `None` while it is under way.
    next: Option<Timestamp>,
}

impl Notifications {
    pub fn new(notifier: Notifier, policy: RetryPolicy) -> Self {
        Self {
            notifier: Arc::new(notifier),
            policy,
            owner: Uuid::new_v4().to_string(),
            attempts: Attempts::default(),
            permits: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
        }
    }

    /// Begins an attempt for each entry of a partition whose time has come.
    pub async fn deliver(&self, app: &App, partition: Partition) -> Result<(), store::Error> {
        if !app.store.lease(&format!("notifications/{}", partition.0), &self.owner, LEASE).await? {
            return Ok(());
        }
        let mut after: Option<OutboxId> = None;
        for _ in 0..PAGES_MAX {
            let entries = app.store.outbox(partition, Queue::Notifications, after.as_ref(), PAGE).await?;
            let Some((last, _)) = entries.last() else { break };
            after = Some(last.clone());
            for (id, bytes) in entries {
                let Some(count) = self.attempts.begin(partition, &id, app.shared.clock.now()) else { continue };
                let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                    self.attempts.again(partition, &id, count, app.shared.clock.now());
                    return Ok(());
                };
                match record::decode(&bytes) {
                    Ok(outgoing) => self.spawn(app.clone(), Entry { partition, id, outgoing, count }, permit),
                    Err(error) => {
                        let (partition_number, entry) = (partition.0, &*id.0);
                        tracing::error!(partition = partition_number, entry, %error, "a notification cannot be read");
                        self.attempts.again(partition, &id, count, app.shared.clock.now().after(UNREADABLE_FOR));
                    }
                }
            }
        }
        Ok(())
    }

    fn spawn(&self, app: App, entry: Entry, permit: OwnedSemaphorePermit) {
        let (notifier, policy, attempts) = (Arc::clone(&self.notifier), self.policy.clone(), self.attempts.clone());
        tokio::spawn(async move {
            let _under_way = permit;
            let Entry { partition, id, outgoing, count } = entry;
            let now = app.shared.clock.now();
            match work_off(&app, &notifier, &policy, &outgoing, count).await {
                Ok(Next::Done) => {
                    let id = std::slice::from_ref(&id);
                    match app.store.acknowledge(partition, Queue::Notifications, id).await {
                        Ok(()) => attempts.end(partition, &id[0]),
                        // What is done again asks nothing more of anybody.
                        Err(_) => attempts.again(partition, &id[0], count, now),
                    }
                }
                Ok(Next::At(at)) => attempts.again(partition, &id, count, at),
                Ok(Next::Postponed(at)) => attempts.again(partition, &id, count.saturating_sub(1), at),
                // The store is away: another round finds the entry again.
                Err(_) => attempts.again(partition, &id, count.saturating_sub(1), now),
            }
        });
    }
}

struct Entry {
    partition: Partition,
    id: OutboxId,
    outgoing: Outgoing,
    count: u32,
}

enum Next {
    /// The entry has had its effect, or will never have one.
    Done,
    At(Timestamp),
    /// As `At`, and this attempt does not count.
    Postponed(Timestamp),
}

async fn work_off(
    app: &App,
    notifier: &Notifier,
    policy: &RetryPolicy,
    outgoing: &Outgoing,
    count: u32,
) -> Result<Next, Failure> {
    match outgoing {
        Outgoing::Notify(notification) => notify(app, notifier, policy, notification, count).await,
        Outgoing::Credited { account } => {
            if let Ok(account) = u64::from_str_radix(account, 16) {
                app.reauthorize_those_who_ran_out(AccountKey(account)).await?;
            }
            Ok(Next::Done)
        }
        // In the other queue; here it would stay for ever.
        Outgoing::Record { .. } => Ok(Next::Done),
    }
}

async fn notify(
    app: &App,
    notifier: &Notifier,
    policy: &RetryPolicy,
    notification: &Notification,
    count: u32,
) -> Result<Next, Failure> {
    let Notification { session: reference, kind, decided_at } = notification;
    let Some(session) = app.session(reference).await? else { return Ok(Next::Done) };
    // What has ended needs no word any more.
    let Some(uri) = session.notify_uri.clone().filter(|_| !session.is_closed()) else {
        return Ok(Next::Done);
    };
    let message = match kind {
        NotificationKind::Reauthorize { groups } => notify::Notification::Reauthorize(groups.clone()),
        NotificationKind::Abort => notify::Notification::Abort,
    };
    let call =
        Call { notify_uri: &uri, notification: &message, follows_redirections: session.features & notify::ES3XX != 0 };
    let outcome = notifier.send(&call).await;
    count_outcome(app, kind, &outcome);
    let now = app.shared.clock.now();
    match outcome {
        Outcome::Delivered => Ok(Next::Done),
        Outcome::Gone => {
            app.maintain(reference, &Maintenance::ConsumerGone { notify_uri: uri }).await?;
            Ok(Next::Done)
        }
        Outcome::Moved { to, permanent } => {
            if permanent {
                app.maintain(reference, &Maintenance::Moved { from: uri, to: to.as_str().into() }).await?;
            }
            Ok(Next::Done)
        }
        Outcome::Kept => {
            tracing::warn!(charging.r#ref = %reference, "the consumer cannot report now; it is not asked again");
            Ok(Next::Done)
        }
        Outcome::Refused(why) => {
            tracing::warn!(charging.r#ref = %reference, %why, "the consumer's notifyUri may not be reached");
            Ok(Next::Done)
        }
        // No attempt was made, so none is counted.
        Outcome::Postponed { until } => Ok(Next::Postponed(until)),
        Outcome::Failed { reason, retry_after } => {
            let next = policy.next_attempt(count, *decided_at, now, Jitter::random(&*app.shared.random));
            Ok(match (next, retry_after) {
                (Retry::At(at), Some(pause)) => Next::At(at.max(now.after(pause))),
                (Retry::At(at), None) => Next::At(at),
                (Retry::GiveUp, _) => {
                    tracing::warn!(charging.r#ref = %reference, %reason, "a notification was given up");
                    Next::Done
                }
            })
        }
    }
}

fn count_outcome(app: &App, kind: &NotificationKind, outcome: &Outcome) {
    let notification = match kind {
        NotificationKind::Reauthorize { .. } => "reauthorization",
        NotificationKind::Abort => "abort",
    };
    let labels = NotificationLabels { notification, outcome: outcome.as_str() };
    app.shared.metrics.notifications.get_or_create(&labels).inc();
}

impl App {
    /// Asks the consumers of all sessions of an account that ran out to come back; each session once.
    async fn reauthorize_those_who_ran_out(&self, account: AccountKey) -> Result<(), Failure> {
        let cause = |session: &ChargingSession| {
            let groups = session.ran_out_groups();
            (!groups.is_empty()).then_some(Maintenance::Reauthorize { groups: Some(groups) })
        };
        self.maintain_each([List::OpenSessionsOf(account)], cause).await
    }
}

impl Attempts {
    fn map(&self) -> MutexGuard<'_, HashMap<(Partition, OutboxId), Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of this attempt, from 1; `None` when it is not time, or one is under way.
    fn begin(&self, partition: Partition, id: &OutboxId, now: Timestamp) -> Option<u32> {
        let mut map = self.map();
        let attempt = map.entry((partition, id.clone())).or_insert(Attempt { count: 0, next: Some(now) });
        attempt.next.filter(|next| *next <= now)?;
        *attempt = Attempt { count: attempt.count.saturating_add(1), next: None };
        Some(attempt.count)
    }

    fn again(&self, partition: Partition, id: &OutboxId, count: u32, at: Timestamp) {
        self.map().insert((partition, id.clone()), Attempt { count, next: Some(at) });
    }

    fn end(&self, partition: Partition, id: &OutboxId) {
        self.map().remove(&(partition, id.clone()));
    }
}
