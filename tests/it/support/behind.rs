//! A store behind somebody who meddles with some of its calls.

use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::time::{Span, Timestamp};
use nchf::store::{
    AccountKey, Commit, Document, Due, Error, Identity, Indexed, JournalKey, List, Load, OutboxId, Page, Partition,
    Queue, Reading, ReferenceKind, Snapshot, Store, Version, Work,
};

/// Leaves alone what it does not say.
#[async_trait]
pub trait Meddler: Send + Sync + 'static {
    async fn load(&self, store: &dyn Store, load: &Load) -> Result<Snapshot, Error> {
        store.load(load).await
    }

    async fn commit(&self, store: &dyn Store, commit: &Commit) -> Result<(), Error> {
        store.commit(commit).await
    }

    async fn confirm(&self, store: &dyn Store, read: &Reading) -> Result<(), Error> {
        store.confirm(read).await
    }

    async fn lease(&self, store: &dyn Store, what: &str, owner: &str, lives_for: Span) -> Result<bool, Error> {
        self.meet(store.lease(what, owner, lives_for)).await
    }

    /// Any other call of an exporter of records.
    async fn meet<T: Send>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        call.await
    }
}

pub struct Behind<M> {
    meddler: M,
    store: Arc<dyn Store>,
}

impl<M> Behind<M> {
    pub fn new(meddler: M, store: Arc<dyn Store>) -> Self {
        Self { meddler, store }
    }
}

impl<M> Deref for Behind<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.meddler
    }
}

#[async_trait]
impl<M: Meddler> Store for Behind<M> {
    fn identity(&self) -> &Identity {
        self.store.identity()
    }

    async fn load(&self, load: &Load) -> Result<Snapshot, Error> {
        self.meddler.load(&*self.store, load).await
    }

    async fn commit(&self, commit: &Commit) -> Result<(), Error> {
        self.meddler.commit(&*self.store, commit).await
    }

    async fn confirm(&self, read: &Reading) -> Result<(), Error> {
        self.meddler.confirm(&*self.store, read).await
    }

    async fn sessions(&self, account: AccountKey, keys: &[ChargingDataRef]) -> Result<Vec<Option<Document>>, Error> {
        self.store.sessions(account, keys).await
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<Bytes>, Error> {
        self.meddler.meet(self.store.journal(key)).await
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
        self.meddler.meet(self.store.outbox(partition, queue, after, limit)).await
    }

    async fn acknowledge(&self, partition: Partition, queue: Queue, ids: &[OutboxId]) -> Result<(), Error> {
        self.meddler.meet(self.store.acknowledge(partition, queue, ids)).await
    }

    async fn retire(
        &self,
        account: AccountKey,
        key: &ChargingDataRef,
        entry: Option<Bytes>,
        lives_for: Span,
    ) -> Result<(), Error> {
        self.meddler.meet(self.store.retire(account, key, entry, lives_for)).await
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
        self.meddler.lease(&*self.store, what, owner, lives_for).await
    }

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error> {
        self.meddler.meet(self.store.reference(kind, id)).await
    }

    async fn put_reference(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<Bytes>,
    ) -> Result<(), Error> {
        self.meddler.meet(self.store.put_reference(kind, id, expected, document)).await
    }

    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.store.list(list, cursor, limit).await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.store.ready().await
    }
}
