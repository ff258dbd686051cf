//! What every request may reach: the composition root hands it out, nothing else is global.

use std::sync::{Arc, PoisonError, RwLock};

use crate::charging::decide::Rules;
use crate::charging::tariff::{Catalog, PlanInForce};
use crate::clock::Clock;
use crate::store::{AccountKey, RefCodec, Store};
use crate::telemetry::{Metrics, OncePerSecond};

/// One worker's view: its own handle on the store, and what all workers share. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub store: Arc<dyn Store>,
    pub shared: Arc<Shared>,
}

/// What the workers of one instance share. None of it grows with the number of open sessions.
pub struct Shared {
    pub clock: Arc<dyn Clock>,
    pub refs: RefCodec,
    pub rules: Rules,
    /// NF instance id: the recording network function of records.
    pub instance_id: Box<str>,
    pub metrics: Metrics,
    /// Paces the lines about a store that fails.
    pub store_failures: OncePerSecond,
    /// How long a request may work before it is answered with what is known by then, in milliseconds.
    pub deadline_ms: u32,
    catalog: RwLock<Arc<Catalog>>,
    turns: Turns,
}

impl Shared {
    pub fn new(clock: Arc<dyn Clock>, refs: RefCodec, rules: Rules, instance_id: Box<str>, deadline_ms: u32) -> Self {
        Self {
            clock,
            refs,
            rules,
            instance_id,
            metrics: Metrics::default(),
            store_failures: OncePerSecond::default(),
            deadline_ms,
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

    /// Waits until no other request of this instance works on an account that shares the turn.
    pub async fn turn(&self, account: AccountKey) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns.of(account).lock().await
    }
}

/// Lets the requests for one account go one after the other inside an instance, because together they would only
/// conflict. Exactness does not depend on it: the store's versions see to that, between instances too.
struct Turns(Box<[tokio::sync::Mutex<()>]>);

/// Enough that two of a few hundred requests under way rarely share a turn by chance; about half a megabyte.
const TURNS: usize = 16_384;

impl Default for Turns {
    fn default() -> Self {
        Self(std::iter::repeat_with(Default::default).take(TURNS).collect())
    }
}

impl Turns {
    fn of(&self, account: AccountKey) -> &tokio::sync::Mutex<()> {
        &self.0[(account.0 % self.0.len() as u64) as usize]
    }
}
