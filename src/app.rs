//! What every request may reach: the composition root hands it out, nothing else is global.

use std::sync::{Arc, PoisonError, RwLock};

use crate::charging::decide::Rules;
use crate::charging::tariff::{Catalog, PlanInForce};
use crate::clock::Clock;
use crate::random::{Random, SystemRandom};
use crate::request::Standing;
use crate::store::{RefCodec, Store};
use crate::telemetry::{Metrics, OncePerSecond};
use crate::turns::Turns;

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
    pub turns: Turns<Standing>,
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
}
