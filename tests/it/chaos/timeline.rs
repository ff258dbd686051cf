//! What happened when: faults, and what was answered meanwhile. Times are milliseconds since the beginning.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

/// What is done to instances and to servers of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    Freeze,
    Restart,
    RedisKill,
    RedisFreeze,
    RedisPause,
    RedisPauseWrites,
    RedisFull,
    RedisCut,
    ReplicaKill,
    FailoverKill,
    FailoverFreeze,
    Failover,
    Slots,
    Upgrade,
}

/// Each fault, its name for whoever chooses, and what it is.
const FAULTS: &[(Fault, &str, &str)] = &[
    (Fault::Kill, "kill", "an instance is killed and started again"),
    (Fault::Freeze, "freeze", "an instance is stopped in its tracks, and goes on"),
    (Fault::Restart, "restart", "an instance is asked to end, and started again"),
    (Fault::RedisKill, "redis-kill", "a master is killed, and started again before anybody replaces it"),
    (Fault::RedisFreeze, "redis-freeze", "a master is stopped in its tracks, and goes on"),
    (Fault::RedisPause, "redis-pause", "CLIENT PAUSE ALL on a master"),
    (Fault::RedisPauseWrites, "redis-pause-writes", "CLIENT PAUSE WRITE on a master"),
    (Fault::RedisFull, "redis-full", "no memory is left on any master"),
    (Fault::RedisCut, "redis-cut", "all connections of clients are cut, several times"),
    (Fault::ReplicaKill, "replica-kill", "a replica is killed, and started again"),
    (Fault::FailoverKill, "failover-kill", "a master is killed, replaced, and comes back as a replica"),
    (Fault::FailoverFreeze, "failover-freeze", "a master is frozen until it is replaced, and goes on"),
    (Fault::Failover, "failover", "a master is replaced at the operator's word"),
    (Fault::Slots, "slots", "slots with keys move to another master"),
    (Fault::Upgrade, "upgrade", "a newer program loads its functions beside those of this one, which are loaded anew"),
];

impl Fault {
    pub fn all() -> impl Iterator<Item = Self> {
        FAULTS.iter().map(|(fault, ..)| *fault)
    }

    pub fn named(name: &str) -> Option<Self> {
        FAULTS.iter().find(|(_, named, _)| *named == name).map(|(fault, ..)| *fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(FAULTS.iter().find(|(fault, ..)| fault == self).map_or("", |(_, name, _)| name))
    }
}

#[derive(Clone, Copy)]
struct Happened {
    fault: Fault,
    began: u32,
    /// When there was another master, where it was replaced.
    replaced: Option<u32>,
    /// From here on nothing stands in the way of an answer: it runs again, replicas are there again.
    ended: u32,
}

pub struct Timeline {
    start: Instant,
    happened: Mutex<Vec<Happened>>,
    /// Of the fault that the stores suffer now.
    replaced: Mutex<Option<u32>>,
    /// Frozen instances, and since when.
    frozen: Mutex<BTreeMap<usize, u32>>,
    /// When something was answered that was asked for.
    answered: Mutex<Vec<u32>>,
    /// When each operation was first sent, and when it was answered.
    operations: Mutex<Vec<(u32, u32)>>,
}

/// What one kind of fault did to everybody.
#[derive(Default)]
pub struct Figures {
    pub count: usize,
    /// The longest, from when it began until it was over.
    pub lasted: u32,
    /// The longest time without any answer, during it or soon after.
    pub gap: u32,
    /// The longest time from another master to an answer.
    pub served_again: Option<u32>,
    /// How long after its end whatever had waited was answered: half of the times it took less, and the longest.
    pub recovered: [u32; 2],
}

/// So long after its end a silence counts as a fault's.
const AFTER: u32 = 2000;

impl Timeline {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            happened: Mutex::default(),
            replaced: Mutex::default(),
            frozen: Mutex::default(),
            answered: Mutex::default(),
            operations: Mutex::default(),
        }
    }

    pub fn now(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    /// It is over.
    pub fn note(&self, fault: Fault, began: u32) {
        lock(&self.happened).push(Happened { fault, began, replaced: None, ended: self.now() });
    }

    /// The same of a fault of the stores.
    pub fn note_of_stores(&self, fault: Fault, began: u32) {
        let replaced = lock(&self.replaced).take();
        lock(&self.happened).push(Happened { fault, began, replaced, ended: self.now() });
    }

    /// There is another master.
    pub fn replaced(&self) {
        *lock(&self.replaced) = Some(self.now());
    }

    pub fn froze(&self, instance: usize) {
        lock(&self.frozen).insert(instance, self.now());
    }

    pub fn thawed(&self, instance: usize) {
        if let Some(began) = lock(&self.frozen).remove(&instance) {
            self.note(Fault::Freeze, began);
        }
    }

    /// Whether some instance was frozen at any time since.
    pub fn was_frozen_since(&self, since: u32) -> bool {
        let happened = lock(&self.happened);
        !lock(&self.frozen).is_empty()
            || happened.iter().any(|happened| happened.fault == Fault::Freeze && happened.ended >= since)
    }

    pub fn answered(&self) {
        lock(&self.answered).push(self.now());
    }

    pub fn operated(&self, began: u32) {
        lock(&self.operations).push((began, self.now()));
    }

    /// Silences of at least so long: when each began and ended.
    pub fn gaps(&self, least: u32) -> Vec<(u32, u32)> {
        let mut answered = lock(&self.answered).clone();
        answered.sort_unstable();
        answered.windows(2).filter(|pair| pair[1] - pair[0] >= least).map(|pair| (pair[0], pair[1])).collect()
    }

    /// How long of this time some instance was frozen.
    pub fn frozen_between(&self, from: u32, to: u32) -> u32 {
        let happened = lock(&self.happened);
        let freezes = happened.iter().filter(|happened| happened.fault == Fault::Freeze);
        freezes.map(|freeze| freeze.ended.min(to).saturating_sub(freeze.began.max(from))).sum()
    }

    /// The longest time between two answers.
    pub fn worst_gap(&self) -> u32 {
        self.gap_between(0, u32::MAX)
    }

    /// The longest that an operation took.
    pub fn slowest(&self) -> u32 {
        lock(&self.operations).iter().map(|(began, ended)| ended - began).max().unwrap_or_default()
    }

    pub fn figures(&self) -> BTreeMap<Fault, Figures> {
        let happened = lock(&self.happened).clone();
        let mut figures = BTreeMap::<Fault, Figures>::new();
        let mut recovered = BTreeMap::<Fault, Vec<u32>>::new();
        for Happened { fault, began, replaced, ended } in happened {
            let of_fault = figures.entry(fault).or_default();
            of_fault.count += 1;
            of_fault.lasted = of_fault.lasted.max(ended - began);
            of_fault.gap = of_fault.gap.max(self.gap_between(began, ended + AFTER));
            let served_again = replaced.and_then(|replaced| self.first_answer_after(replaced));
            of_fault.served_again = of_fault.served_again.max(served_again);
            let operations = lock(&self.operations);
            let waiting = operations.iter().filter(|(sent, answered)| *sent <= ended && ended < *answered);
            let last = waiting.map(|(_, answered)| answered - ended).max();
            recovered.entry(fault).or_default().push(last.unwrap_or_default());
        }
        for (fault, mut times) in recovered {
            times.sort_unstable();
            let of_fault = figures.entry(fault).or_default();
            of_fault.recovered = [times[times.len() / 2], times[times.len() - 1]];
        }
        figures
    }

    /// How long after this moment.
    fn first_answer_after(&self, moment: u32) -> Option<u32> {
        lock(&self.answered).iter().filter_map(|answered| answered.checked_sub(moment)).min()
    }

    /// Of silences that touch this time.
    fn gap_between(&self, from: u32, to: u32) -> u32 {
        let mut answered = lock(&self.answered).clone();
        answered.sort_unstable();
        let touching = answered.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
        touching.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
