//! What the suite needs of a store: somewhere to open it, and a way to let time pass. And the builders its tests share.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::time::{Span, Timestamp};
use nchf::store::{
    AccountKey, Commit, Document, Due, Error, IndexKey, IndexWrite, JournalKey, List, Listing, Load, Origin, OutboxId,
    Partition, Queue, RefCodec, ReferenceKind, SessionWrite, Snapshot, Store, TimerWrite, Version,
};

/// Where one store lives.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens what is there; opening again opens the same.
    async fn open(&self) -> Arc<dyn Store>;

    /// Lets time pass for everything that lives for a while.
    async fn pass(&self, span: Span);
}

/// An account of partition `number % 1024`.
pub fn account(number: u64) -> AccountKey {
    AccountKey(number)
}

/// A reference as a real instance would mint it.
pub fn session(store: &dyn Store, account: AccountKey, number: u8) -> ChargingDataRef {
    RefCodec::new(store.identity().secret).mint(account, [number; 12])
}

pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + millis)
}

/// A commit that writes the account and nothing else.
pub fn writes(account: AccountKey, expected: Version, document: &'static str) -> Commit {
    Commit { account_document: Some(Bytes::from(document)), ..leaves(account, expected) }
}

/// A commit that expects the account and leaves it as it is.
pub fn leaves(account: AccountKey, expected: Version) -> Commit {
    Commit::unchanged(Origin::ANY, account, expected)
}

pub const QUEUES: [Queue; 2] = [Queue::Records, Queue::Notifications];

/// A commit that sends these to one outbox and changes nothing else.
pub fn sends(account: AccountKey, queue: Queue, entries: &[Bytes]) -> Commit {
    Commit { outbox: entries.iter().map(|entry| (queue, entry.clone())).collect(), ..leaves(account, Version::ABSENT) }
}

/// The entries of an outbox from its oldest, without their ids.
pub async fn sent(store: &dyn Store, partition: Partition, queue: Queue) -> Vec<Bytes> {
    let entries = store.outbox(partition, queue, None, 1000).await.unwrap();
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// A session's document and nothing else.
pub fn session_write(key: &ChargingDataRef, expected: Version, document: &'static str) -> SessionWrite {
    SessionWrite {
        key: key.clone(),
        expected,
        document: Bytes::from(document),
        lives_for: Span::from_secs(3600),
        timer: TimerWrite::Keep,
        listing: Listing::Keep,
        journal: None,
    }
}

/// A commit that changes everything a commit can change, for sessions 1 and 2 of the account.
pub fn changes_everything(
    store: &dyn Store,
    account: AccountKey,
    account_expected: Version,
    session_expected: [Version; 2],
) -> Commit {
    let of = |number: u8, timer, listing| SessionWrite {
        timer,
        listing,
        journal: Some(Bytes::from("changed")),
        ..session_write(&session(store, account, number), session_expected[usize::from(number) - 1], "changed")
    };
    Commit {
        account_journal: Some(Bytes::from("changed")),
        sessions: vec![
            of(1, TimerWrite::At(at(1)), Listing::Open(at(1))),
            of(2, TimerWrite::Remove, Listing::Closed(at(2))),
        ],
        outbox: QUEUES.map(|queue| (queue, Bytes::from("changed"))).to_vec(),
        index: vec![IndexWrite { key: IndexKey(1), value: Bytes::from("changed"), lives_for: None }],
        ..writes(account, account_expected, "changed")
    }
}

pub fn document(version: u64, text: &'static str) -> Option<Document> {
    Some(Document { version: Version(version), bytes: Bytes::from(text) })
}

pub async fn load(store: &dyn Store, account: AccountKey, session: Option<&ChargingDataRef>) -> Snapshot {
    store.load(&Load { account, session: session.cloned(), index: Vec::new() }).await.unwrap()
}

pub async fn load_index(store: &dyn Store, account: AccountKey, index: &[u128]) -> Vec<Option<Bytes>> {
    let index = index.iter().copied().map(IndexKey).collect();
    store.load(&Load { account, session: None, index }).await.unwrap().index
}

pub async fn session_journal(store: &dyn Store, account: AccountKey, key: &ChargingDataRef) -> Vec<Bytes> {
    store.journal(&JournalKey::Session(account, key.clone())).await.unwrap()
}

/// All timer entries of a partition.
pub async fn timers(store: &dyn Store, partition: Partition) -> Vec<Due> {
    store.due(partition, at(1_000_000_000), 1000).await.unwrap()
}

/// The whole listing, read in pages of `limit`. Checks that no page is longer and that only the last one ends it.
pub async fn listed(store: &dyn Store, list: &List, limit: usize) -> Vec<String> {
    let mut items = Vec::new();
    let mut cursor: Option<Box<str>> = None;
    loop {
        let page = store.list(list, cursor.as_deref(), limit).await.unwrap();
        assert!(page.items.len() <= limit, "{} items on a page of {limit}", page.items.len());
        assert!(page.next.is_none() || page.items.len() == limit, "a page in the middle is full");
        items.extend(page.items.into_iter().map(String::from));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return items,
        }
    }
}

/// Everything that a commit to `account` could change, for its sessions 1 to 3.
#[derive(Debug, PartialEq)]
pub struct Seen {
    account: Option<Document>,
    sessions: Vec<Option<Document>>,
    index: Vec<Option<Bytes>>,
    journals: Vec<Vec<Bytes>>,
    timers: Vec<Due>,
    outboxes: Vec<Vec<(OutboxId, Bytes)>>,
    lists: Vec<Vec<String>>,
}

pub async fn seen(store: &dyn Store, account: AccountKey) -> Seen {
    let partition = account.partition();
    let keys: Vec<ChargingDataRef> = (1..=3).map(|number| session(store, account, number)).collect();
    let mut journals = vec![store.journal(&JournalKey::Account(account)).await.unwrap()];
    for key in &keys {
        journals.push(session_journal(store, account, key).await);
    }
    let mut outboxes = Vec::new();
    for queue in QUEUES {
        outboxes.push(store.outbox(partition, queue, None, 100).await.unwrap());
    }
    let mut lists = Vec::new();
    for list in [
        List::OpenSessions(partition),
        List::ClosedSessions(partition),
        List::OpenSessionsOf(account),
        List::ClosedSessionsOf(account),
    ] {
        lists.push(listed(store, &list, 100).await);
    }
    Seen {
        account: load(store, account, None).await.account,
        sessions: store.sessions(account, &keys).await.unwrap(),
        index: load_index(store, account, &[1, 2, 3]).await,
        journals,
        timers: timers(store, partition).await,
        outboxes,
        lists,
    }
}

/// The snapshot that a refused commit must carry.
pub async fn conflict(store: &dyn Store, commit: &Commit) -> Option<Box<Snapshot>> {
    match store.commit(commit).await {
        Err(Error::Conflict(current)) => current,
        other => panic!("a conflict was expected, not {other:?}"),
    }
}

pub async fn put(store: &dyn Store, kind: ReferenceKind, id: &str, expected: u64, text: &'static str) {
    store.put_reference(kind, id, Version(expected), Some(Bytes::from(text))).await.unwrap();
}
