//! A store in memory that fails, or stands still, at a call of one's choice, and that keeps what it was asked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::time::{Span, Timestamp};
use nchf::store::memory::MemoryStore;
use nchf::store::{
    AccountKey, Applied, Commit, Document, Due, Error, Identity, Indexed, JournalKey, List, Load, OutboxId, Page,
    Partition, Queue, ReferenceKind, Snapshot, Store, Version, Work,
};
use tokio::sync::{Notify, watch};

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
    store: MemoryStore,
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

impl Faulty {
    pub fn new(store: MemoryStore) -> Self {
        Self {
            store,
            armed: Mutex::default(),
            counts: AtomicBool::new(false),
            frozen: Notify::new(),
            wake: Notify::new(),
            held: watch::Sender::new(Held::Nobody),
            traffic: Mutex::default(),
        }
    }

    /// Something happens to the call after `calls` others that are counted.
    pub fn arm(&self, calls: u32, trouble: Trouble) {
        *self.armed.lock().unwrap() = Some((calls, trouble));
    }

    /// Whether it had not happened yet.
    pub fn disarm(&self) -> bool {
        self.armed.lock().unwrap().take().is_some()
    }

    async fn meet<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
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

    async fn freeze(&self) {
        self.frozen.notify_one();
        self.wake.notified().await;
    }
}

/// Calls of an exporter of records meet trouble, and loads may be held; all others are passed on.
#[async_trait]
impl Store for Faulty {
    fn identity(&self) -> &Identity {
        self.store.identity()
    }

    async fn load(&self, load: &Load) -> Result<Snapshot, Error> {
        let let_go = self.held.subscribe().wait_for(|held| !held.holds(load.account)).await.is_ok();
        assert!(let_go, "the sender lives as long as this");
        let snapshot = self.store.load(load).await?;
        self.traffic.lock().unwrap().loads.push((load.clone(), snapshot.clone()));
        Ok(snapshot)
    }

    async fn commit(&self, commit: &Commit) -> Result<(), Error> {
        self.traffic.lock().unwrap().commits.push(commit.clone());
        self.store.commit(commit).await
    }

    async fn sessions(&self, account: AccountKey, keys: &[ChargingDataRef]) -> Result<Vec<Option<Document>>, Error> {
        self.store.sessions(account, keys).await
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<Bytes>, Error> {
        self.meet(self.store.journal(key)).await
    }

    async fn due(&self, partition: Partition, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        self.store.due(partition, now, limit).await
    }

    async fn claim(
        &self,
        partition: Partition,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, Error> {
        self.store.claim(partition, now, lease_until, limit).await
    }

    async fn look(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Work>, Error> {
        self.store.look(partitions, now).await
    }

    async fn outbox(
        &self,
        partition: Partition,
        queue: Queue,
        after: Option<&OutboxId>,
        limit: usize,
    ) -> Result<Vec<(OutboxId, Bytes)>, Error> {
        self.meet(self.store.outbox(partition, queue, after, limit)).await
    }

    async fn acknowledge(&self, partition: Partition, queue: Queue, ids: &[OutboxId]) -> Result<(), Error> {
        self.meet(self.store.acknowledge(partition, queue, ids)).await
    }

    async fn retire(
        &self,
        account: AccountKey,
        key: &ChargingDataRef,
        entry: Option<Bytes>,
        lives_for: Span,
    ) -> Result<(), Error> {
        self.meet(self.store.retire(account, key, entry, lives_for)).await
    }

    async fn scan(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.store.scan(cursor, limit).await
    }

    async fn accounts(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.store.accounts(cursor, limit).await
    }

    async fn indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<Indexed, Error> {
        self.store.indexes(account, key).await
    }

    async fn drop_indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<bool, Error> {
        self.store.drop_indexes(account, key).await
    }

    async fn lease(&self, what: &str, owner: &str, lives_for: Span) -> Result<bool, Error> {
        self.meet(self.store.lease(what, owner, lives_for)).await
    }

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error> {
        self.meet(self.store.reference(kind, id)).await
    }

    async fn put_reference(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<Bytes>,
    ) -> Result<(), Error> {
        self.meet(self.store.put_reference(kind, id, expected, document)).await
    }

    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.store.list(list, cursor, limit).await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.store.ready().await
    }
}
