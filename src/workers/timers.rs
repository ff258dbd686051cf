//! Sessions that are due: claimed by moving their entries to the end of a lease, performed by an ordinary commit that
//! moves or removes the entry. An instance that dies in between delays its claims by the lease and no more.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::task::JoinSet;

use crate::app::App;
use crate::charging::maintain::Maintenance;
use crate::charging::time::Span;
use crate::store::{self, Due, Partition};
use crate::transact::Failure;

/// How long a claim holds: far longer than a commit takes, and not long for a timer to be late.
const LEASE: Span = Span::from_secs(15);

/// Entries claimed in one go.
const CLAIMED_AT_ONCE: usize = 256;

/// Partitions worked on at once, and commits under way in each: enough to keep a store busy that answers in a
/// millisecond, and not so many that requests wait behind them.
const PARTITIONS_AT_ONCE: usize = 8;
const UNDER_WAY_MAX: usize = 8;

/// Performs what is due in these partitions.
pub async fn fire(app: &App, partitions: Vec<Partition>) -> Result<(), store::Error> {
    let fired: Vec<_> = partitions.into_iter().map(|partition| fire_in(app, partition)).collect();
    stream::iter(fired).buffer_unordered(PARTITIONS_AT_ONCE).try_collect().await
}

async fn fire_in(app: &App, partition: Partition) -> Result<(), store::Error> {
    loop {
        let now = app.shared.clock.now();
        let claimed = app.store.claim(partition, now, now.after(LEASE), CLAIMED_AT_ONCE).await?;
        let is_all = claimed.len() < CLAIMED_AT_ONCE;
        let mut under_way = JoinSet::new();
        for due in claimed {
            app.shared.metrics.timer_lag.observe(super::seconds(now.since(due.at)));
            if under_way.len() == UNDER_WAY_MAX {
                finish(under_way.join_next().await)?;
            }
            let app = app.clone();
            under_way.spawn(async move { perform(&app, due).await });
        }
        while let Some(done) = under_way.join_next().await {
            finish(Some(done))?;
        }
        if is_all {
            return Ok(());
        }
    }
}

async fn perform(app: &App, due: Due) -> Result<(), store::Error> {
    match app.maintain(&due.key, &Maintenance::Due).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            // A message came first, or there is no session any more: then its entries go too.
            if let Some(account) = app.shared.refs.account_of(due.key.as_str()) {
                app.store.drop_indexes(account, &due.key).await?;
            }
            Ok(())
        }
        Err(Failure::Store(error @ store::Error::Corrupt(_))) => {
            // Nobody else's timer waits for it. It is looked at again when the lease has ended.
            tracing::error!(charging.r#ref = %due.key, %error, "a session that is due cannot be read");
            Ok(())
        }
        Err(Failure::Store(error)) => Err(error),
        // Done again when the lease has ended.
        Err(Failure::Contended | Failure::Crowded | Failure::Rejected(_)) => Ok(()),
    }
}

fn finish(done: Option<Result<Result<(), store::Error>, tokio::task::JoinError>>) -> Result<(), store::Error> {
    match done {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => {
            tracing::error!(%error, "a timer's work ended early; it is done again when the lease has ended");
            Ok(())
        }
        None => Ok(()),
    }
}
