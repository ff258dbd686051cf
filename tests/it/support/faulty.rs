//! Makes a store fail, or stand still, at a call of one's choice, and keeps what it was asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use nchf::clock::ManualClock;
use nchf::store::memory::MemoryStore;
use nchf::store::{AccountKey, Applied, Commit, Error, Load, Snapshot, Store};
use tokio::sync::{Notify, watch};

use super::behind::{Behind, Meddler};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is not performed, and says so.
    Refused,
    /// It is performed, and its answer is lost.
    AnswerLost,
    /// It is performed before whoever asked is woken again.
    FrozenAfter,
    /// It is performed when whoever asked is woken again.
    FrozenBefore,
}

pub struct Faulty {
    /// Calls left until it happens; `None` when nothing will.
    armed: Mutex<Option<(u32, Trouble)>>,
    /// Calls of others are not counted.
    pub counts: AtomicBool,
    /// Told when somebody is frozen.
    pub frozen: Notify,
    /// Wakes who is frozen.
    pub wake: Notify,
    /// Whose loads wait until they are let go.
    pub held: watch::Sender<Held>,
    /// What passes through it.
    pub traffic: Mutex<Traffic>,
}

/// Loads with their answers, and commits.
#[derive(Default)]
pub struct Traffic {
    pub loads: Vec<(Load, Snapshot)>,
    pub commits: Vec<Commit>,
}

#[derive(Clone, Copy, Debug)]
pub enum Held {
    Nobody,
    Everybody,
    One(AccountKey),
}

impl Held {
    fn holds(self, account: AccountKey) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::One(held) => held == account,
        }
    }
}

impl Default for Faulty {
    fn default() -> Self {
        Self {
            armed: Mutex::default(),
            counts: AtomicBool::new(false),
            frozen: Notify::new(),
            wake: Notify::new(),
            held: watch::Sender::new(Held::Nobody),
            traffic: Mutex::default(),
        }
    }
}

impl Faulty {
    /// Before a store in memory whose time is this clock's.
    pub fn before_memory(clock: &ManualClock) -> Arc<Behind<Self>> {
        Arc::new(Self::before(MemoryStore::new(Arc::new(clock.clone()))))
    }

    pub fn before(store: impl Store) -> Behind<Self> {
        Behind::new(Self::default(), Arc::new(store))
    }

    /// Something happens to the call after `calls` others that are counted.
    pub fn arm(&self, calls: u32, trouble: Trouble) {
        *self.armed.lock().unwrap() = Some((calls, trouble));
    }

    /// Whether it had not happened yet.
    pub fn disarm(&self) -> bool {
        self.armed.lock().unwrap().take().is_some()
    }

    async fn freeze(&self) {
        self.frozen.notify_one();
        self.wake.notified().await;
    }
}

/// Calls of an exporter of records meet trouble, and loads may be held.
#[async_trait]
impl Meddler for Faulty {
    async fn load(&self, store: &dyn Store, load: &Load) -> Result<Snapshot, Error> {
        let let_go = self.held.subscribe().wait_for(|held| !held.holds(load.account)).await.is_ok();
        assert!(let_go, "the sender lives as long as this");
        let snapshot = store.load(load).await?;
        self.traffic.lock().unwrap().loads.push((load.clone(), snapshot.clone()));
        Ok(snapshot)
    }

    async fn commit(&self, store: &dyn Store, commit: &Commit) -> Result<(), Error> {
        self.traffic.lock().unwrap().commits.push(commit.clone());
        store.commit(commit).await
    }

    async fn meet<T: Send>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let trouble = {
            let mut armed = self.armed.lock().unwrap();
            match *armed {
                _ if !self.counts.load(Ordering::Relaxed) => None,
                Some((0, trouble)) => {
                    *armed = None;
                    Some(trouble)
                }
                Some((calls, trouble)) => {
                    *armed = Some((calls - 1, trouble));
                    None
                }
                None => None,
            }
        };
        match trouble {
            None => call.await,
            Some(Trouble::Refused) => Err(Error::unavailable(Applied::No, "refused")),
            Some(Trouble::AnswerLost) => {
                call.await?;
                Err(Error::unavailable(Applied::Unknown, "its answer is lost"))
            }
            Some(Trouble::FrozenAfter) => {
                let answer = call.await;
                self.freeze().await;
                answer
            }
            Some(Trouble::FrozenBefore) => {
                self.freeze().await;
                call.await
            }
        }
    }
}
