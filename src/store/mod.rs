//! Where everything lives between two messages: the contract that every store keeps.
//!
//! A store moves bytes and compares versions. It never knows a price, a subscriber or a rule; what the bytes
//! mean is written in [`record`]. All that must change together lives in one partition (see [`partition`]) and is
//! changed by one [`Commit`]: account, charging sessions, their timer entries, journals, outbox and index entries.
//!
//! Invariants that every implementation keeps, and that the conformance suite (`tests/it/store/`) checks on each:
//!
//! - A commit happens as a whole or not at all, and only if every version is the one that was read.
//! - A document's version starts at 1 and grows by one with every write, an account's by the steps that a write holds;
//!   `Version::ABSENT` (0) means "not there".
//! - `load` reads account, session and index entries of one partition as one consistent snapshot.
//! - Journals and the two outboxes only grow, in the order of the commits, until they are retired or acknowledged.
//! - An id of an outbox is given once: whoever remembers the last one that was dealt with has missed nothing after it.
//! - After `Ok` from `commit` the change survives what the configured durability says it survives.
//! - Every call ends within the configured deadline; dropping its future never leaves half a commit.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::charging::ids::ChargingDataRef;
use crate::charging::time::{Span, Timestamp};

pub mod embedded;
pub mod memory;
pub mod partition;
pub mod record;
pub mod redis;

pub use partition::{AccountKey, IndexKey, Partition, RefCodec};

/// Counts the writes of one document; 0 when it does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    pub const ABSENT: Self = Self(0);

    /// Of what was read, absence being a version too.
    #[must_use]
    pub fn of(document: Option<&Document>) -> Self {
        document.map_or(Self::ABSENT, |document| document.version)
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where something was read: one history of writes, as a number. Of two servers that both took themselves for the master
/// each may have given the same version to another content. So a change is made only where that was read which it
/// follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin(pub u64);

impl Origin {
    /// Of a store that has one history, and of what follows from nothing that was read.
    pub const ANY: Self = Self(0);

    /// Whether what was read at one of them is what is there at the other, if the versions are the same.
    #[must_use]
    pub fn fits(self, other: Self) -> bool {
        self == other || self == Self::ANY || other == Self::ANY
    }
}

/// A document as read: opaque bytes and the version to name when writing it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub version: Version,
    pub bytes: Bytes,
}

/// What to read before a decision. All of it lives in the partition of `account`.
#[derive(Clone, Debug)]
pub struct Load {
    pub account: AccountKey,
    pub session: Option<ChargingDataRef>,
    pub index: Vec<IndexKey>,
}

/// What was read, absence being a value. `index` answers `Load::index`, entry by entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub account: Option<Document>,
    pub session: Option<Document>,
    pub index: Vec<Option<Bytes>>,
    pub origin: Origin,
}

/// One atomic change of one partition.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Where that was read which it follows from. Anywhere else it is a conflict, whatever the versions are.
    pub origin: Origin,
    pub account: AccountKey,
    /// Checked even when the account is not written.
    pub account_expected: Version,
    /// By how much a new document of the account raises its version: how many changes, decided one after the other, it
    /// holds. At least 1.
    pub account_steps: u64,
    /// The account's new document, `None` to leave it as it is. It never expires.
    pub account_document: Option<Bytes>,
    /// Appended to the account's own journal.
    pub account_journal: Option<Bytes>,
    /// Usually one; two when a session supersedes another.
    pub sessions: Vec<SessionWrite>,
    /// Appended to the partition's outboxes, each in this order.
    pub outbox: Vec<(Queue, Bytes)>,
    pub index: Vec<IndexWrite>,
}

impl Commit {
    /// One that expects the account and changes nothing; the rest is added to it.
    #[must_use]
    pub const fn unchanged(origin: Origin, account: AccountKey, expected: Version) -> Self {
        Self {
            origin,
            account,
            account_expected: expected,
            account_steps: 1,
            account_document: None,
            account_journal: None,
            sessions: Vec::new(),
            outbox: Vec::new(),
            index: Vec::new(),
        }
    }

    /// The account's version once its new document is written.
    #[must_use]
    pub const fn account_version(&self) -> Version {
        Version(self.account_expected.0 + self.account_steps)
    }
}

/// What an answer was read from: which versions of which documents.
#[derive(Clone, Debug)]
pub struct Reading {
    pub origin: Origin,
    pub account: AccountKey,
    pub account_version: Version,
    /// A session of the account.
    pub session: Option<(ChargingDataRef, Version)>,
}

/// The part of a commit that concerns one charging session of the account.
#[derive(Clone, Debug)]
pub struct SessionWrite {
    pub key: ChargingDataRef,
    pub expected: Version,
    pub document: Bytes,
    /// The document's time to live, counted from this write.
    pub lives_for: Span,
    pub timer: TimerWrite,
    pub listing: Listing,
    /// Appended to the session's journal, which is kept for ever until [`Store::retire`] gives it an end. A journal
    /// that has one keeps it, whatever is appended; after it, what is appended begins a new journal that is kept for
    /// ever.
    pub journal: Option<Bytes>,
}

/// What a commit does to the session's one entry in the partition's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerWrite {
    /// The entry there is early enough: the usual case, which costs nothing.
    Keep,
    /// Sets the entry, earlier or later, whether or not there was one.
    At(Timestamp),
    Remove,
}

/// What a commit does to the listing of the account's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    Keep,
    /// Lists the session among the open ones of its account and partition. One that was closed is never opened again.
    Open(Timestamp),
    /// Lists the session among the closed ones of its account and partition, and no more among the open ones.
    Closed(Timestamp),
}

/// An index entry of the partition, such as the key that makes a Create idempotent. Written over what is there:
/// whoever writes it also writes the account, whose version guards it.
#[derive(Clone, Debug)]
pub struct IndexWrite {
    pub key: IndexKey,
    pub value: Bytes,
    /// `None` keeps it for ever.
    pub lives_for: Option<Span>,
}

/// Names one journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JournalKey {
    Session(AccountKey, ChargingDataRef),
    Account(AccountKey),
}

/// A session whose timer entry is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub key: ChargingDataRef,
    pub at: Timestamp,
}

/// One of the two outboxes of a partition. They are apart because a target that does not answer must not hold up the
/// other kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Records that can be written. A store from before there were two outboxes may hold notifications here, too.
    Records,
    /// What network functions have to be told.
    Notifications,
}

/// Position of an entry in one outbox of one partition. Later entries have greater ids, also after everything was
/// acknowledged and after a restart of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct OutboxId(pub Box<str>);

/// Up to here the entries of an outbox are counted by every store.
pub const COUNTED_MAX: usize = 10_000;

/// What waits in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub partition: Partition,
    /// Some session's timer entry is due.
    pub due: bool,
    /// Entries in the outbox of records; of many, a store may stop counting at [`COUNTED_MAX`].
    pub records: u64,
    /// Likewise, of notifications.
    pub notifications: u64,
}

impl Work {
    pub const fn is_any(&self) -> bool {
        self.due || self.records > 0 || self.notifications > 0
    }
}

/// Which entries of its partition name a session, to be compared with its document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indexed {
    pub timer: Option<Timestamp>,
    pub listed_open: bool,
}

/// Kinds of documents outside the partitions: few writes, read by every create.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReferenceKind {
    /// A subscriber, or an alias that names one; the id is a keyed hash of the identifier.
    Subscriber,
    /// The current version of a tariff plan; the id is the plan's.
    TariffPlan,
    /// One version of a tariff plan, never changed; the id is `plan@version`.
    TariffPlanVersion,
    /// Rewritten after every change of a tariff plan, so that reading this one tells whether any has changed; the id
    /// is `plans`.
    CatalogStamp,
    /// Which records are on their way into which file; the id is `export`.
    ExportState,
}

/// What `list` can page through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    /// Ids of the documents of a kind, in the order of their bytes.
    References(ReferenceKind),
    /// References of the open sessions of one partition, in a stable order of the store's own.
    OpenSessions(Partition),
    /// References of the closed sessions of one partition whose journals are kept, in the order of their closing. One
    /// that closed without a journal, or whose journal had ended and began anew, may be missing.
    ClosedSessions(Partition),
    /// References of the open sessions of one account, in a stable order of the store's own.
    OpenSessionsOf(AccountKey),
    /// References of the closed sessions of one account whose journals are kept, in the order of their closing.
    ClosedSessionsOf(AccountKey),
    /// References of the sessions with a timer entry in one partition, those first that are due first. An entry that is
    /// moved meanwhile may be seen twice, or not at all.
    Timers(Partition),
}

/// One page of a listing. `next` continues it, even when its items are gone by then; `None` on the last page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<Box<str>>,
    pub next: Option<Box<str>>,
}

/// What the store keeps about itself, written once by whoever opens it first.
#[derive(Clone)]
pub struct Identity {
    /// Key of every hash in key names, references and fingerprints. Whoever knows it can forge references.
    pub secret: [u8; 16],
    /// The NF instance id of this store's installation, in the usual 8-4-4-4-12 form.
    pub instance_id: Box<str>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("instance_id", &self.instance_id).finish_non_exhaustive()
    }
}

/// What an answered commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The death of any instance, as long as the store lives. An embedded store dies with its instance and may lose
    /// the last 100 ms.
    Memory,
    /// A crash of the store or its machine.
    Fsync,
    /// The loss of the store's master, or its separation from everyone else.
    Replicated,
}

/// Why the store could not do it. Nothing here is the consumer's fault.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Some version was not the expected one; nothing was changed. Carries the current account and first session
    /// when the store could read them in the same step, so that a retry costs one round trip; its `index` is empty.
    #[error("a document changed since it was read")]
    Conflict(Option<Box<Snapshot>>),
    /// The store did not answer, or answered that it cannot serve now.
    #[error("store unavailable ({applied}): {reason}")]
    Unavailable { applied: Applied, reason: Box<str> },
    /// What is stored cannot be read: a newer format, or damage.
    #[error("unreadable: {0}")]
    Corrupt(Box<str>),
}

impl Error {
    pub fn unavailable(applied: Applied, reason: impl fmt::Display) -> Self {
        Self::Unavailable { applied, reason: reason.to_string().into() }
    }

    pub fn corrupt(reason: impl fmt::Display) -> Self {
        Self::Corrupt(reason.to_string().into())
    }

    /// The same, with a word on what it is about in front of the cause.
    pub fn about(self, what: &str) -> Self {
        let about = |reason: Box<str>| format!("{what}: {reason}").into();
        match self {
            Self::Unavailable { applied, reason } => Self::Unavailable { applied, reason: about(reason) },
            Self::Corrupt(reason) => Self::Corrupt(about(reason)),
            Self::Conflict(current) => Self::Conflict(current),
        }
    }

    /// The cause alone, for whoever starts a program: nothing was asked of the store yet that could be applied or not.
    pub fn into_reason(self) -> Box<str> {
        match self {
            Self::Unavailable { reason, .. } | Self::Corrupt(reason) => reason,
            Self::Conflict(_) => self.to_string().into(),
        }
    }
}

/// Whether a failed commit may have happened all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    No,
    /// Repeating the same operation resolves it: every decision recognises its own effect.
    Unknown,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "not applied",
            Self::Unknown => "may have been applied",
        })
    }
}

/// A place that keeps partitions. See the module's invariants.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Read once at open; the same for every instance on this store.
    fn identity(&self) -> &Identity;

    /// One round trip.
    async fn load(&self, load: &Load) -> Result<Snapshot, Error>;

    /// One round trip. On `Unavailable` with `Applied::Unknown` it may or may not have happened.
    async fn commit(&self, commit: &Commit) -> Result<(), Error>;

    /// Before an answer is given from what was read, without a change of its own: after `Ok` that survives what the
    /// configured durability says, as what was committed does. Fails as `commit`: with `Conflict` when it is not what is
    /// there. Costs nothing where whatever can be read survives already; else one round trip, and the replicas'.
    async fn confirm(&self, read: &Reading) -> Result<(), Error> {
        let _survives_already = read;
        Ok(())
    }

    /// Documents of several sessions of one account, for listings; absent ones are `None`.
    async fn sessions(&self, account: AccountKey, keys: &[ChargingDataRef]) -> Result<Vec<Option<Document>>, Error>;

    /// The journal's entries in order; they survive what the configured durability says. Never on the path of a charging
    /// request.
    async fn journal(&self, key: &JournalKey) -> Result<Vec<Bytes>, Error>;

    /// Sessions whose entry is at or before `now`, earliest first, at most `limit`.
    async fn due(&self, partition: Partition, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error>;

    /// As `due`, and re-scores what it returns to `lease_until`, so that nobody else is given it before then.
    async fn claim(
        &self,
        partition: Partition,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, Error>;

    /// Which of these partitions have something to do, in the order given; the others are left out. Cheap enough to look
    /// at all partitions every second: one round trip for each 64 of them. What is written meanwhile may or may not be
    /// seen, so a partition that is left out is idle and no more.
    async fn look(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Work>, Error>;

    /// Entries of one outbox after `after`, or from the oldest, in order and at most `limit`; none only when there are
    /// none. They stay until acknowledged, and survive what the configured durability says. An id that no store of this kind ever gave is `Corrupt`.
    async fn outbox(
        &self,
        partition: Partition,
        queue: Queue,
        after: Option<&OutboxId>,
        limit: usize,
    ) -> Result<Vec<(OutboxId, Bytes)>, Error>;

    /// Removes any number of entries, and that survives what the configured durability says; removing them again changes
    /// nothing. When it fails some may be gone.
    async fn acknowledge(&self, partition: Partition, queue: Queue, ids: &[OutboxId]) -> Result<(), Error>;

    /// For a closed session whose record is published. Appends a last journal entry, if any, and lets the journal end
    /// after `lives_for`, counted from this call. With the journal go the session's closed listings; its document keeps
    /// its own life, and once both have ended nothing of the session is left.
    ///
    /// Repeating it renews the journal's life and changes nothing else, except that it appends the entry again. It
    /// checks no version: a commit before or after it, such as late usage, is not disturbed. On `Unavailable` with
    /// `Applied::Unknown` it may or may not have happened.
    async fn retire(
        &self,
        account: AccountKey,
        key: &ChargingDataRef,
        entry: Option<Bytes>,
        lives_for: Span,
    ) -> Result<(), Error>;

    /// References of the sessions that have a document, of the whole store and in no order, found by the documents
    /// themselves and not by any index. Each that exists from the first page to the last comes at least once. `limit`
    /// is about how much one page looks through: a page may be short or empty, and the last one is still the one
    /// without `next`.
    async fn scan(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error>;

    /// Keys of the accounts that have a document, as [`AccountKey::parse`] reads them; else as [`Store::scan`].
    async fn accounts(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error>;

    /// What names a session in its partition's timers and among its account's open sessions. An ordinary commit repairs
    /// what is missing or left over while there is a document.
    async fn indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<Indexed, Error>;

    /// Removes what [`Store::indexes`] shows of a session that has no document, in one step, so that it cannot take
    /// away what a commit has just written. Answers `false`, and changes nothing, when there is a document.
    async fn drop_indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<bool, Error>;

    /// True for whoever comes first, and for the same owner again, which renews it; false for everyone else until it has
    /// ended. A lease keeps instances from doing the same work twice and never guards anything: its owner may be paused
    /// while it ends, and a store may forget it. Whatever must not happen twice is guarded by versions.
    async fn lease(&self, what: &str, owner: &str, lives_for: Span) -> Result<bool, Error>;

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error>;

    /// Writes (`Some`) or deletes (`None`) if the version is still `expected`, else `Conflict(None)`. What is created
    /// again after a deletion continues above every version it ever had, so that a version that was read before the
    /// deletion never fits again.
    async fn put_reference(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<Bytes>,
    ) -> Result<(), Error>;

    /// At most `limit` items after `cursor`; items written meanwhile may or may not be seen.
    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error>;

    /// Reachable, its format known, its settings acceptable; else says what is wrong, in a sentence for an operator.
    async fn ready(&self) -> Result<(), Error>;
}
