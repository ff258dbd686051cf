//! The instances, and what is done to them.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::timeline::{Fault, Timeline};
use crate::processes::instance::{Instance, Place, program};
use crate::processes::{PATIENCE, Random};
use crate::store::server::free_port;

pub struct Fleet {
    pub places: Vec<Place>,
    /// Each has its ports: where it charges, and where its operator's side is.
    pub ports: Vec<[u16; 2]>,
    instances: Vec<Mutex<Option<Instance>>>,
    timeline: Arc<Timeline>,
    upgrade: Option<Upgrade>,
    /// Starts of the other build.
    pub upgraded: AtomicU64,
    starts: AtomicU64,
    /// Starts that ended before anything was served: the store was away.
    pub failed_starts: AtomicU64,
    /// Lines in which an instance said that it failed, or that the store lost something.
    alarms: std::sync::Mutex<Vec<String>>,
    /// How often it said that something may be lost.
    pub untold: AtomicU64,
}

/// Another build takes the place of the first one: no instance has it in the first third of the time, each one that is
/// started has either of both in the second, and all have it in the last.
#[derive(Clone)]
pub struct Upgrade {
    pub to: OsString,
    pub third: Duration,
}

impl Upgrade {
    fn is_to_start(&self, now: Duration, start: u64) -> bool {
        now >= self.third * 2 || now >= self.third && start.is_multiple_of(2)
    }
}

/// What no instance may ever say.
const ALARMS: &[&str] = &["panicked", "changes that were answered are lost", "corrupt"];

/// What it has to say when a master was started again in its place: nobody can tell what that kept.
const UNTOLD: &str = "changes that were answered may be lost";

impl Fleet {
    pub async fn start(
        count: usize,
        store: &str,
        settings: &str,
        timeline: &Arc<Timeline>,
        upgrade: Option<Upgrade>,
    ) -> Arc<Self> {
        let ports: Vec<_> = (0..count).map(|_| [free_port(), free_port()]).collect();
        let fleet = Self {
            places: ports.iter().map(|ports| Place::at(*ports, store, settings)).collect(),
            ports,
            instances: (0..count).map(|_| Mutex::default()).collect(),
            timeline: Arc::clone(timeline),
            upgrade,
            upgraded: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            failed_starts: AtomicU64::new(0),
            alarms: std::sync::Mutex::default(),
            untold: AtomicU64::new(0),
        };
        for at in 0..count {
            *fleet.instances[at].lock().await = Some(fleet.start_one(at).await);
        }
        Arc::new(fleet)
    }

    /// Again and again, as whoever watches over services does.
    async fn start_one(&self, at: usize) -> Instance {
        let deadline = Instant::now() + PATIENCE;
        let (now, start) = (self.timeline.now().into(), self.starts.fetch_add(1, Ordering::Relaxed));
        let now = Duration::from_millis(now);
        let upgrade = self.upgrade.as_ref().filter(|upgrade| upgrade.is_to_start(now, start));
        self.upgraded.fetch_add(u64::from(upgrade.is_some()), Ordering::Relaxed);
        let program = upgrade.map_or_else(program, |upgrade| upgrade.to.clone());
        loop {
            match self.places[at].try_start_of(&program).await {
                Ok(instance) => return instance,
                Err(log) => assert!(Instant::now() < deadline, "it does not start: {log:#?}"),
            }
            self.failed_starts.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn suffer(&self, fault: Fault, random: &mut Random) {
        let first = usize::try_from(random.below(self.instances.len() as u64)).unwrap();
        let order = (first..self.instances.len()).chain(0..first);
        // Something may be done to it already.
        let free = order.filter_map(|at| Some((at, self.instances[at].try_lock().ok()?))).next();
        let Some((at, mut place)) = free else { return };
        let Some(mut instance) = place.take() else { return };
        let began = self.timeline.now();
        *place = Some(match fault {
            Fault::Freeze => {
                self.timeline.froze(at);
                instance.freeze();
                sleep(Duration::from_millis(300) + random.millis(4700)).await;
                instance.wake();
                self.timeline.thawed(at);
                instance
            }
            Fault::Restart => {
                self.listen(&instance);
                instance.stop().await;
                let instance = self.start_one(at).await;
                self.timeline.note(fault, began);
                instance
            }
            _ => {
                self.listen(&instance);
                instance.kill();
                let instance = self.start_one(at).await;
                self.timeline.note(fault, began);
                instance
            }
        });
    }

    fn listen(&self, instance: &Instance) {
        let heard = ALARMS.iter().flat_map(|words| instance.lines(words));
        self.alarms.lock().unwrap().extend(heard);
        self.untold.fetch_add(instance.says(UNTOLD) as u64, Ordering::Relaxed);
    }

    pub fn alarms(&self) -> Vec<String> {
        self.alarms.lock().unwrap().clone()
    }

    /// For the time of a question only: it must not be killed meanwhile.
    pub async fn with_first<T>(&self, ask: impl FnOnce(&Instance) -> T) -> T {
        ask(self.instances[0].lock().await.as_ref().unwrap())
    }

    pub async fn stop(&self) {
        for instance in &self.instances {
            if let Some(instance) = instance.lock().await.take() {
                self.listen(&instance);
                instance.stop().await;
            }
        }
    }
}
