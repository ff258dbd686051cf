//! What every request may reach: the composition root hands it out, nothing else is global.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use crate::charging::decide::Rules;
use crate::charging::tariff::{Catalog, PlanInForce};
use crate::charging::time::Span;
use crate::clock::Clock;
use crate::random::{Random, SystemRandom};
use crate::store::{AccountKey, RefCodec, Store};
use crate::telemetry::{Metrics, OncePerSecond};

/// One worker's view: its own handle on the store, and what all workers share. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub store: Arc<dyn Store>,
    pub shared: Arc<Shared>,
}

/// What one charging request may use.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// How long it may work before it is answered with what is known by then, in milliseconds.
    pub deadline_ms: u32,
    /// How many may wait for their turn at one account. All of them hold a place in the program meanwhile, which others
    /// need.
    pub waiting_per_account_max: u32,
}

/// What the workers of one instance share. None of it grows with the number of open sessions.
pub struct Shared {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub refs: RefCodec,
    pub rules: Rules,
    /// NF instance id: the recording network function of records.
    pub instance_id: Box<str>,
    pub metrics: Metrics,
    /// Paces the lines about a store that fails.
    pub store_failures: OncePerSecond,
    pub limits: RequestLimits,
    catalog: RwLock<Arc<Catalog>>,
    turns: Turns,
}

impl Shared {
    pub fn new(
        clock: Arc<dyn Clock>,
        refs: RefCodec,
        rules: Rules,
        instance_id: Box<str>,
        limits: RequestLimits,
    ) -> Self {
        Self {
            clock,
            random: Arc::new(SystemRandom),
            refs,
            rules,
            instance_id,
            metrics: Metrics::default(),
            store_failures: OncePerSecond::default(),
            limits,
            catalog: RwLock::default(),
            turns: Turns::default(),
        }
    }

    /// The tariff plans known to this instance.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a version of a plan; requests under way keep the catalog they began with.
    pub fn add_plan(&self, plan: PlanInForce) {
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut catalog).add(plan);
    }

    /// Waits until nobody else of this instance works on an account that shares the turn.
    pub async fn turn(&self, account: AccountKey) -> MutexGuard<'_, ()> {
        self.turns.of(account).lock.lock().await
    }

    /// As [`Shared::turn`], for one of many: `None` at once if as many as may be wait already, and later if it does not
    /// come in time.
    pub async fn turn_unless_crowded(&self, account: AccountKey, within: Span) -> Option<MutexGuard<'_, ()>> {
        let within = Duration::from_millis(u64::try_from(within.millis()).unwrap_or_default());
        let turn = self.turns.of(account).unless_crowded(self.limits.waiting_per_account_max);
        timeout(within, turn).await.ok().flatten()
    }
}

/// Lets the requests for one account go one after the other inside an instance, because together they would only
/// conflict. Exactness does not depend on it: the store's versions see to that, between instances too.
struct Turns(Box<[Turn]>);

#[derive(Default)]
struct Turn {
    lock: Mutex<()>,
    waiting: AtomicU32,
}

/// Enough that two of a few hundred requests under way rarely share a turn by chance; about half a megabyte.
const TURNS: usize = 16_384;

impl Default for Turns {
    fn default() -> Self {
        Self(std::iter::repeat_with(Default::default).take(TURNS).collect())
    }
}

impl Turns {
    fn of(&self, account: AccountKey) -> &Turn {
        &self.0[(account.0 % self.0.len() as u64) as usize]
    }
}

impl Turn {
    async fn unless_crowded(&self, waiting_max: u32) -> Option<MutexGuard<'_, ()>> {
        // The lock is fair: while somebody waits, this fails.
        if let Ok(turn) = self.lock.try_lock() {
            return Some(turn);
        }
        let _waiting = Waiting::begin(&self.waiting, waiting_max)?;
        Some(self.lock.lock().await)
    }
}

/// One of those who wait, until dropped.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicU32, max: u32) -> Option<Self> {
        let one_more = |waiting| (waiting < max).then_some(waiting + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn only_so_many_wait_for_one_turn() {
        let (turn, mut context) = (Turn::default(), Context::from_waker(Waker::noop()));
        let held = turn.lock.try_lock().unwrap();
        let mut first = pin!(turn.unless_crowded(2));
        assert!(first.as_mut().poll(&mut context).is_pending());
        {
            let mut second = pin!(turn.unless_crowded(2));
            assert!(second.as_mut().poll(&mut context).is_pending());
            assert!(matches!(pin!(turn.unless_crowded(2)).poll(&mut context), Poll::Ready(None)));
            assert!(pin!(turn.lock.lock()).poll(&mut context).is_pending());
        }
        // Who gave up makes room, and who comes later does not overtake.
        assert!(pin!(turn.unless_crowded(2)).poll(&mut context).is_pending());
        drop(held);
        assert!(pin!(turn.unless_crowded(2)).poll(&mut context).is_pending());
        assert!(matches!(first.poll(&mut context), Poll::Ready(Some(_))));
        assert_eq!(turn.waiting.load(Ordering::Relaxed), 0);
        assert!(matches!(pin!(turn.unless_crowded(0)).poll(&mut context), Poll::Ready(Some(_))));
    }
}
