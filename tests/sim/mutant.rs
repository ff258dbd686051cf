//! Faults that nchf does not have, each put in on purpose: a simulator that does not notice them proves nothing.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use nchf::charging::account::Account;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::money::Amount;
use nchf::charging::session::ChargingSession;
use nchf::charging::time::{Span, Timestamp};
use nchf::store::redis::RedisStore;
use nchf::store::{
    AccountKey, Commit, Document, Due, Error, Identity, Indexed, JournalKey, List, Load, OutboxId, Page, Partition,
    Queue, Reading, ReferenceKind, Snapshot, Store, TimerWrite, Version, Work, record,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The program as it is.
    None,
    /// The function that commits compares no versions.
    NoVersionCheck,
    /// Answers are not kept in the session's document.
    NoReplayMemory,
    /// A timer's entry goes when it is claimed, and not when it is performed.
    RemovedAtClaim,
    /// Files are said to be durable and are not, so entries of the outbox go before their records are safe.
    TrimBeforeSync,
    /// Money is kept as a float of 32 bits.
    FloatMoney,
    /// Nobody waits for replicas.
    NoWait,
    /// What is answered again is not confirmed by replicas.
    NoConfirm,
    /// The documents of open sessions live for a minute.
    ShortLife,
    /// Sessions that are to be looked at later are forgotten.
    NoTimers,
    /// What a consumer has to be told, and which record is to be written, goes out only every other time.
    HalfAnOutbox,
    /// Every lease is everybody's.
    NoLease,
}

impl Mutant {
    /// Those that do harm. A lease only saves work: what must not happen twice is guarded by versions.
    pub const HARMFUL: [Self; 10] = [
        Self::NoVersionCheck,
        Self::NoReplayMemory,
        Self::RemovedAtClaim,
        Self::TrimBeforeSync,
        Self::FloatMoney,
        Self::NoWait,
        Self::NoConfirm,
        Self::ShortLife,
        Self::NoTimers,
        Self::HalfAnOutbox,
    ];

    /// The text of the functions, as this mutant loads it.
    pub fn function(self, source: &str) -> String {
        let change = |from: &str, to: &str| {
            assert!(source.contains(from), "the function has changed, and this mutant with it: {from}");
            source.replace(from, to)
        };
        match self {
            Self::NoVersionCheck => change("if call('GETRANGE', key, 0, 7) ~= args[arg] then", "if false then"),
            Self::RemovedAtClaim => change(
                "redis.call('ZADD', keys[1], unpack(leased))",
                "for at = 1, #due, 2 do redis.call('ZREM', keys[1], due[at]) end",
            ),
            _ => source.to_owned(),
        }
    }

    pub fn over(self, store: Arc<RedisStore>) -> Arc<dyn Store> {
        if self == Self::None { store } else { Arc::new(Mutated { mutant: self, store }) }
    }
}

struct Mutated {
    mutant: Mutant,
    store: Arc<RedisStore>,
}

impl Mutated {
    fn changed(&self, commit: &Commit) -> Commit {
        let mut commit = commit.clone();
        match self.mutant {
            Mutant::NoReplayMemory => {
                for write in &mut commit.sessions {
                    let mut session: ChargingSession = record::decode(&write.document).expect("what was encoded");
                    session.remembered.clear();
                    write.document = record::encode(&session);
                }
            }
            Mutant::FloatMoney => {
                if let Some(document) = &mut commit.account_document {
                    let mut account: Account = record::decode(document).expect("what was encoded");
                    for balance in &mut account.balances {
                        let euros = balance.amount.steps() as f32 / 1_000_000.0;
                        balance.amount = Amount::new((f64::from(euros) * 1_000_000.0) as i64);
                    }
                    *document = record::encode(&account);
                }
            }
            Mutant::ShortLife => {
                commit.sessions.iter_mut().for_each(|write| write.lives_for = Span::from_secs(60));
            }
            Mutant::NoTimers => {
                commit.sessions.iter_mut().for_each(|write| write.timer = TimerWrite::Keep);
            }
            Mutant::HalfAnOutbox => {
                let is_odd = commit.sessions.first().is_some_and(|write| write.document.len() % 2 == 1);
                if is_odd {
                    commit.outbox.clear();
                }
            }
            _ => {}
        }
        commit
    }
}

#[async_trait]
impl Store for Mutated {
    fn identity(&self) -> &Identity {
        self.store.identity()
    }

    async fn load(&self, load: &Load) -> Result<Snapshot, Error> {
        self.store.load(load).await
    }

    async fn commit(&self, commit: &Commit) -> Result<(), Error> {
        self.store.commit(&self.changed(commit)).await
    }

    async fn confirm(&self, read: &Reading) -> Result<(), Error> {
        if self.mutant == Mutant::NoConfirm { Ok(()) } else { self.store.confirm(read).await }
    }

    async fn sessions(&self, account: AccountKey, keys: &[ChargingDataRef]) -> Result<Vec<Option<Document>>, Error> {
        self.store.sessions(account, keys).await
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<Bytes>, Error> {
        self.store.journal(key).await
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
        self.store.outbox(partition, queue, after, limit).await
    }

    async fn acknowledge(&self, partition: Partition, queue: Queue, ids: &[OutboxId]) -> Result<(), Error> {
        self.store.acknowledge(partition, queue, ids).await
    }

    async fn retire(
        &self,
        account: AccountKey,
        key: &ChargingDataRef,
        entry: Option<Bytes>,
        lives_for: Span,
    ) -> Result<(), Error> {
        self.store.retire(account, key, entry, lives_for).await
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
        if self.mutant == Mutant::NoLease { Ok(true) } else { self.store.lease(what, owner, lives_for).await }
    }

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error> {
        self.store.reference(kind, id).await
    }

    async fn put_reference(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<Bytes>,
    ) -> Result<(), Error> {
        self.store.put_reference(kind, id, expected, document).await
    }

    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.store.list(list, cursor, limit).await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.store.ready().await
    }
}
