//! All of the simulated world, and one run of it from its seed to the auditor's verdict. One thread, and a clock that
//! stands still while anybody has something to do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use nchf::app::App;
use nchf::charging::ids::AccountId;
use nchf::clock::Clock as _;
use nchf::network::Network;
use nchf::store::{Durability, Partition, redis};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::auditor::{Auditor, Found, PRICES, millionths};
use super::chance::Chance;
use super::consumer::{Consumer, supi};
use super::disk::{Loss, Shared as Disk};
use super::instance::{Door, Instance, ROUNDS, WallClock, consumer_address};
use super::mutant::Mutant;
use super::network::{Dial, Life, Lines, switchboard};
use super::options::Options;
use super::store::Store;

pub struct World {
    pub options: Options,
    pub chance: Chance,
    pub mutant: Mutant,
    pub dials: mpsc::UnboundedSender<Dial>,
    pub lines: Lines,
    pub store: Store,
    pub disks: Vec<Disk>,
    pub auditor: RefCell<Auditor>,
    start: Instant,
    instances: RefCell<Vec<Option<Instance>>>,
    died: Vec<Notify>,
    lives: Cell<u64>,
    consumers: RefCell<Vec<Rc<Consumer>>>,
    wires: RefCell<Chance>,
    is_faulty: Cell<bool>,
    is_over: Cell<bool>,
}

/// How a run went.
#[derive(Default)]
pub struct Verdict {
    pub violations: Vec<String>,
    /// A hash of everything that was seen.
    pub trace: u64,
    pub answers: u64,
    pub retransmissions: u64,
    /// Starts of instances.
    pub lives: u64,
    pub records: usize,
}

/// One run. The same arguments give the same verdict.
pub fn run(seed: u64, mutant: Mutant) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let (dials, dialed) = mpsc::unbounded_channel();
        let world = Rc::new(World::new(seed, mutant, dials));
        spawn_local(switchboard(Rc::clone(&world), dialed));
        spawn_local(Rc::clone(&world).replicate());
        world.live().await
    })
}

impl World {
    fn new(seed: u64, mutant: Mutant, dials: mpsc::UnboundedSender<Dial>) -> Self {
        let (options, chance) = (Options::of(seed), Chance::new(seed));
        let is_talkative = std::env::var_os("NCHF_SIM_SEED").is_some();
        let mut of_consumers = chance.stream("consumers", 0);
        let consumers = (0..options.consumers)
            .map(|number| {
                let account = of_consumers.below(options.accounts);
                Rc::new(Consumer::new(number, account, &mut of_consumers))
            })
            .collect();
        let disks: Vec<Disk> = (0..options.instances).map(|_| Disk::default()).collect();
        for (number, disk) in (1..).zip(&disks) {
            disk.disk().number = number;
            disk.disk().lies = mutant == Mutant::TrimBeforeSync;
        }
        Self {
            store: Store::new(&options, chance.stream("store", 0), mutant),
            mutant,
            dials,
            lines: Lines::default(),
            auditor: RefCell::new(Auditor::new(is_talkative)),
            start: Instant::now(),
            instances: RefCell::new((0..options.instances).map(|_| None).collect()),
            died: (0..options.instances).map(|_| Notify::new()).collect(),
            lives: Cell::new(0),
            consumers: RefCell::new(consumers),
            wires: RefCell::new(chance.stream("wires", 0)),
            is_faulty: Cell::new(false),
            is_over: Cell::new(false),
            disks,
            chance,
            options,
        }
    }

    // --- time and chance ---------------------------------------------------------------------------------------------

    pub fn millis(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Of the store's servers.
    pub fn wall_millis(&self) -> u64 {
        self.clock(0).now().millis() as u64
    }

    fn clock(&self, ahead_millis: i64) -> WallClock {
        WallClock { start: self.start, ahead_millis }
    }

    pub fn wall_clock(&self, place: usize) -> WallClock {
        let skew = self.options.skew;
        let ahead = self.chance.stream("skew", place as u64).below(2 * skew + 1) as i64 - skew as i64;
        self.clock(ahead)
    }

    /// As consumers write it.
    pub fn date_time(&self) -> String {
        self.clock(0).now().rfc3339()
    }

    pub fn wire_chance(&self, permille: u64) -> bool {
        self.wires.borrow_mut().permille(permille)
    }

    pub fn is_faulty(&self) -> bool {
        self.is_faulty.get()
    }

    /// The time that something takes on a wire of this life.
    pub async fn travel(&self, life: Life) {
        let millis = self.wires.borrow_mut().below(4);
        sleep(Duration::from_millis(millis)).await;
        self.lines.released(life).await;
    }

    pub fn pause_between_rounds(&self, chance: &mut Chance) -> Duration {
        let usual = ROUNDS[usize::from(self.is_over.get())];
        usual / 2 + chance.millis(0, usual.as_millis() as u64)
    }

    // --- instances ----------------------------------------------------------------------------------------------------

    pub fn store_settings(&self, network: Arc<dyn Network>) -> redis::Settings {
        let durability = if self.store.replicas() > 0 { Durability::Replicated } else { Durability::Fsync };
        redis::Settings {
            durability,
            replicas: self.store.replicas(),
            network: Some(network),
            ..redis::Settings::new(self.store.url())
        }
    }

    fn new_life(&self) -> Life {
        self.lives.set(self.lives.get() + 1);
        Life(self.lives.get())
    }

    /// Starts the instance of a place again and again.
    async fn keep(self: Rc<Self>, place: usize) {
        let mut chance = self.chance.stream("keeper", place as u64);
        loop {
            let life = self.new_life();
            match Instance::start(&self, place, life).await {
                Ok(instance) => {
                    self.instances.borrow_mut()[place] = Some(instance);
                    self.died[place].notified().await;
                }
                Err(reason) => {
                    tracing::info!(place, reason, "an instance does not start");
                    self.lines.cut(life);
                    self.disks[place].disk().restart(Loss::Nothing);
                }
            }
            sleep(chance.millis(100, 4000)).await;
        }
    }

    /// Ends a life at once. What its processes had not made durable is lost when the machine goes down with it.
    pub fn kill(&self, life: Life) {
        let mut instances = self.instances.borrow_mut();
        let place = instances.iter().position(|one| one.as_ref().is_some_and(|one| one.life == life));
        self.lines.cut(life);
        let Some(place) = place else { return };
        let dead = instances[place].take();
        drop(instances);
        drop(dead);
        let mut wires = self.wires.borrow_mut();
        let loss = match wires.below(4) {
            0 => Loss::Everything,
            1 => Loss::Some(wires.number()),
            _ => Loss::Nothing,
        };
        drop(wires);
        self.disks[place].disk().restart(loss);
        self.died[place].notify_one();
    }

    /// Some instance that is alive, as a balancer finds it.
    pub fn pick(&self, chance: &mut Chance) -> Option<Door> {
        let instances = self.instances.borrow();
        let alive: Vec<&Instance> = instances.iter().flatten().collect();
        if alive.is_empty() {
            return None;
        }
        Some(chance.one_of(&alive).door())
    }

    /// An instance stands still for so long, or until it is killed.
    pub fn freeze(&self, life: Life, lasts: Duration) {
        let instances = self.instances.borrow();
        let Some(instance) = instances.iter().flatten().find(|one| one.life == life) else { return };
        let ice = instance.ice.clone();
        if ice.freeze() {
            // Whoever froze it may end before.
            spawn_local(async move {
                sleep(lasts).await;
                ice.thaw();
            });
        }
    }

    pub fn consumer_at(&self, address: SocketAddr) -> Option<Rc<Consumer>> {
        let consumers = self.consumers.borrow();
        (0..)
            .zip(consumers.iter())
            .find(|(number, _)| consumer_address(*number) == address)
            .map(|(_, one)| Rc::clone(one))
    }

    // --- one run ------------------------------------------------------------------------------------------------------

    async fn live(self: &Rc<Self>) -> Verdict {
        for place in 0..self.options.instances {
            spawn_local(Rc::clone(self).keep(place));
        }
        self.provision().await;

        self.is_faulty.set(true);
        let faults = super::faults::begin(self);
        let consumers = self.consumers.borrow().clone();
        for consumer in &consumers {
            spawn_local(Rc::clone(consumer).play(Rc::clone(self)));
        }
        while !consumers.iter().all(|consumer| consumer.is_done.get()) {
            sleep(Duration::from_secs(1)).await;
        }

        faults.iter().for_each(tokio::task::JoinHandle::abort);
        self.is_faulty.set(false);
        self.store.heal(self.wall_millis());
        self.disks.iter().for_each(|disk| disk.disk().fault = None);
        // What is still on its way arrives, and whoever is frozen goes on.
        sleep(Duration::from_secs(100)).await;
        self.is_over.set(true);
        let found = self.settle().await;
        self.auditor.borrow_mut().close(&found);
        if self.auditor.borrow().violations().is_empty() {
            self.once_more(&found).await;
        }
        self.verdict(&found)
    }

    fn verdict(&self, found: &Found) -> Verdict {
        let mut auditor = self.auditor.borrow_mut();
        let unknown = self.store.unmodelled();
        if !unknown.is_empty() {
            auditor.violated(format!("the model of Redis does not know {unknown:?}"));
        }
        Verdict {
            violations: auditor.violations().to_vec(),
            trace: auditor.trace(),
            answers: auditor.answers,
            retransmissions: auditor.retransmissions,
            lives: self.lives.get(),
            records: found.records.len(),
        }
    }

    /// What an operator asks for, again until it is done.
    pub async fn administer(&self, method: Method, path: &str, body: &Value) -> Value {
        let mut chance = self.chance.stream("operator", self.millis());
        for _ in 0..500 {
            if let Some(door) = self.pick(&mut chance) {
                let life = door.life;
                let answer = door.call(method.clone(), path, body).await;
                if answer.status < 300 && !self.lines.is_cut(life) {
                    return serde_json::from_slice(&answer.body).unwrap_or_default();
                }
                if answer.status < 500 && !self.lines.is_cut(life) {
                    let what = String::from_utf8_lossy(&answer.body).into_owned();
                    self.auditor.borrow_mut().violated(format!("{method} {path}: {} {what}", answer.status));
                    return Value::Null;
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
        self.auditor.borrow_mut().violated(format!("{method} {path} is not done in time"));
        Value::Null
    }

    async fn provision(&self) {
        let tariffs: Vec<Value> = PRICES
            .iter()
            .map(|price| {
                json!({
                    "ratingGroup": price.group,
                    "name": price.group.to_string(),
                    "price": { "amount": decimal(price.amount), "per": price.per, "unit": price.unit },
                    "defaultGrant": if price.unit == "events" { 1 } else { 10_000 },
                    "largestGrant": 1_000_000,
                })
            })
            .collect();
        let plan = json!({ "currency": "EUR", "timeZone": "Europe/Brussels", "tariffs": tariffs });
        self.administer(Method::PUT, "/admin/v1/tariff-plans/simulated", &plan).await;
        let mut chance = self.chance.stream("provision", 0);
        for account in 0..self.options.accounts {
            let settings = json!({ "currency": "EUR", "creditLimit": "0.000000" });
            self.administer(Method::PUT, &account_path(account), &settings).await;
            self.auditor.borrow_mut().open_account(account);
            let amount = chance.between(50_000, 2_000_000) as i64;
            self.credit(account, amount, "first").await;
            let subscriber =
                json!({ "accountId": account_id(account), "tariffPlanId": "simulated", "status": "active" });
            self.administer(Method::PUT, &format!("/admin/v1/subscribers/{}", supi(account)), &subscriber).await;
        }
    }

    pub async fn credit(&self, account: u64, amount: i64, reference: &str) {
        let body = json!({ "balanceId": "main", "amount": decimal(amount), "reference": reference });
        self.auditor.borrow_mut().deposited(account, amount);
        self.administer(Method::POST, &format!("{}/credits", account_path(account)), &body).await;
    }

    /// Waits until nothing waits for anything any more, and looks at what there is.
    async fn settle(&self) -> Found {
        for _ in 0..60 {
            sleep(Duration::from_secs(60)).await;
            self.collect();
            if self.is_quiet().await {
                break;
            }
        }
        if !self.is_quiet().await {
            let open = self.administer(Method::GET, "/admin/v1/charging-sessions?limit=500", &Value::Null).await;
            self.auditor.borrow_mut().violated(format!("there is no end; still open: {open}"));
        }
        self.collect();
        let mut found = Found { records: self.records(), ..Found::default() };
        for account in 0..self.options.accounts {
            let body = self.administer(Method::GET, &account_path(account), &Value::Null).await;
            let balances = body["balances"].as_array().cloned().unwrap_or_default();
            let main = balances.iter().find(|balance| balance["id"] == "main");
            if let Some(main) = main {
                found.accounts.insert(account, (millionths(&main["amount"]), millionths(&main["reserved"])));
            }
        }
        found
    }

    async fn is_quiet(&self) -> bool {
        for account in 0..self.options.accounts {
            let path = format!("/admin/v1/charging-sessions?limit=1&accountId={}", account_id(account));
            let open = self.administer(Method::GET, &path, &Value::Null).await;
            if open["items"].as_array().is_none_or(|items| !items.is_empty()) {
                return false;
            }
        }
        let app = self.instances.borrow().iter().flatten().next().map(|instance| instance.app.clone());
        let Some(app) = app else { return false };
        match app.store.look(&self.partitions(&app), app.shared.clock.now()).await {
            Ok(work) => work.iter().all(|work| work.records == 0 && work.notifications == 0),
            Err(_) => false,
        }
    }

    /// Mediation takes what is out.
    pub fn collect(&self) {
        self.disks.iter().for_each(|disk| disk.disk().collect());
    }

    fn records(&self) -> Vec<Value> {
        let mut records = Vec::new();
        for disk in &self.disks {
            let disk = disk.disk();
            let lines = disk.collected.values().flat_map(|bytes| bytes.split(|octet| *octet == b'\n'));
            let lines = lines.filter(|line| !line.is_empty());
            records.extend(lines.map(|line| serde_json::from_slice::<Value>(line).expect("a whole line")));
        }
        records
    }

    /// Every request that was ever sent comes once more, and changes nothing.
    async fn once_more(&self, before: &Found) {
        let consumers = self.consumers.borrow().clone();
        let mut chance = self.chance.stream("once more", 0);
        for consumer in consumers {
            let sent = consumer.sent.borrow().clone();
            for (operation, path, body) in sent {
                // What never had an answer may have been done or not: now it would be.
                if !self.auditor.borrow().is_settled(operation) {
                    continue;
                }
                let Some(door) = self.pick(&mut chance) else { continue };
                let answer = door.call(Method::POST, &path, &body).await;
                self.auditor.borrow_mut().answered(operation, &answer, self.millis());
            }
        }
        let after = self.settle().await;
        if after.accounts != before.accounts || after.records.len() != before.records.len() {
            let what = format!(
                "everything sent once more made {:?} and {} records of {:?} and {}",
                after.accounts,
                after.records.len(),
                before.accounts,
                before.records.len()
            );
            self.auditor.borrow_mut().violated(what);
        }
    }

    /// Replicas follow their masters, a little behind.
    async fn replicate(self: Rc<Self>) {
        while self.store.replicas() > 0 {
            self.store.wait_for_writes().await;
            let millis = self.wires.borrow_mut().between(1, 4);
            sleep(Duration::from_millis(millis)).await;
            self.store.replicate(self.wall_millis());
        }
    }

    /// Where the accounts are, and with them all there is.
    pub fn partitions(&self, app: &App) -> Vec<Partition> {
        let of = |account| app.shared.refs.account_key(&AccountId::new(account_id(account))).partition();
        let partitions: BTreeSet<_> = (0..self.options.accounts).map(|account| of(account).0).collect();
        partitions.into_iter().map(Partition).collect()
    }

    /// Those that are alive, by their places.
    pub fn alive(&self) -> Vec<(usize, Life)> {
        let instances = self.instances.borrow();
        instances.iter().enumerate().filter_map(|(place, one)| Some((place, one.as_ref()?.life))).collect()
    }
}

fn account_id(account: u64) -> String {
    format!("account-{account}")
}

fn account_path(account: u64) -> String {
    format!("/admin/v1/accounts/{}", account_id(account))
}

/// Millionths as a decimal string.
fn decimal(amount: i64) -> String {
    format!("{}.{:06}", amount / 1_000_000, amount % 1_000_000)
}
