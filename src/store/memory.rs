//! A store in this process' memory: for tests and simulations, where time stands still until it is told to move.
//!
//! Everything is behind one lock that is never held across an await, so a commit is atomic because nobody can look.
//! Nothing survives the process. Whatever expires is invisible from that moment on, by the clock it was given, and is
//! overwritten in place; nothing sweeps it, because no test lives long enough to care.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    AccountKey, Commit, Document, Due, Error, Identity, IndexKey, JournalKey, List, Listing, Load, OutboxId, Page,
    Partition, ReferenceKind, SessionWrite, Snapshot, Store, TimerWrite, Version,
};
use crate::charging::ids::ChargingDataRef;
use crate::charging::time::{Span, Timestamp};
use crate::clock::Clock;

/// Fixed, so that a simulation puts the same account into the same partition in every run.
const SECRET: [u8; 16] = *b"kept in no store";
const INSTANCE_ID: &str = "00000000-0000-4000-8000-000000000000";

/// See the module. Share it with an `Arc`; each `new` is a place of its own.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    identity: Identity,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    homes: HashMap<Partition, Home>,
    references: HashMap<(ReferenceKind, Box<str>), Document>,
}

/// What one partition holds.
#[derive(Default)]
struct Home {
    accounts: HashMap<AccountKey, Document>,
    sessions: HashMap<ChargingDataRef, Expiring<Document>>,
    index: HashMap<IndexKey, Expiring<Bytes>>,
    journals: HashMap<JournalKey, Vec<Bytes>>,
    timers: HashMap<ChargingDataRef, Timestamp>,
    listed: HashMap<ChargingDataRef, (AccountKey, Listing)>,
    outbox: BTreeMap<u64, Bytes>,
    /// Position of the newest outbox entry there ever was, so that positions grow even across an empty outbox.
    outbox_last: u64,
}

struct Expiring<T> {
    value: T,
    /// `None` for ever.
    until: Option<Timestamp>,
}

impl<T: Clone> Expiring<T> {
    fn new(now: Timestamp, value: T, lives_for: Option<Span>) -> Self {
        Self { value, until: lives_for.map(|span| now.after(span)) }
    }

    fn at(&self, now: Timestamp) -> Option<T> {
        self.until.is_none_or(|until| now < until).then(|| self.value.clone())
    }
}

impl MemoryStore {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let identity = Identity { secret: SECRET, instance_id: INSTANCE_ID.into() };
        Self { clock, identity, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere cannot leave it half changed: every change is checked first and infallible then.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn load(&self, load: &Load) -> Result<Snapshot, Error> {
        let now = self.clock.now();
        let mut kept = self.kept();
        let home = kept.home(load.account.partition());
        Ok(Snapshot {
            account: home.accounts.get(&load.account).cloned(),
            session: load.session.as_ref().and_then(|key| home.session(now, key)),
            index: load.index.iter().map(|key| home.index.get(key).and_then(|entry| entry.at(now))).collect(),
        })
    }

    async fn commit(&self, commit: &Commit) -> Result<(), Error> {
        let now = self.clock.now();
        let mut kept = self.kept();
        let home = kept.home(commit.account.partition());
        home.check(now, commit)?;
        // From here on it succeeds.
        home.apply(now, commit);
        Ok(())
    }

    async fn sessions(&self, account: AccountKey, keys: &[ChargingDataRef]) -> Result<Vec<Option<Document>>, Error> {
        let now = self.clock.now();
        let mut kept = self.kept();
        let home = kept.home(account.partition());
        Ok(keys.iter().map(|key| home.session(now, key)).collect())
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<Bytes>, Error> {
        let (JournalKey::Session(account, _) | JournalKey::Account(account)) = key;
        Ok(self.kept().home(account.partition()).journals.get(key).cloned().unwrap_or_default())
    }

    async fn due(&self, partition: Partition, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        Ok(self.kept().home(partition).due(now, limit))
    }

    async fn claim(
        &self,
        partition: Partition,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, Error> {
        let mut kept = self.kept();
        let home = kept.home(partition);
        let claimed = home.due(now, limit);
        home.timers.extend(claimed.iter().map(|due| (due.key.clone(), lease_until)));
        Ok(claimed)
    }

    async fn outbox(&self, partition: Partition, limit: usize) -> Result<Vec<(OutboxId, Bytes)>, Error> {
        let mut kept = self.kept();
        let entries = kept.home(partition).outbox.iter().take(limit);
        Ok(entries.map(|(at, bytes)| (outbox_id(*at), bytes.clone())).collect())
    }

    async fn acknowledge(&self, partition: Partition, id: &OutboxId) -> Result<(), Error> {
        if let Ok(at) = u64::from_str_radix(&id.0, 16) {
            self.kept().home(partition).outbox.remove(&at);
        }
        Ok(())
    }

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error> {
        Ok(self.kept().references.get(&(kind, id.into())).cloned())
    }

    async fn put_reference(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<Bytes>,
    ) -> Result<(), Error> {
        let mut kept = self.kept();
        let key = (kind, id.into());
        if version_of(kept.references.get(&key)) != expected {
            return Err(Error::Conflict(None));
        }
        match document {
            Some(bytes) => kept.references.insert(key, Document { version: expected.next(), bytes }),
            None => kept.references.remove(&key),
        };
        Ok(())
    }

    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let mut kept = self.kept();
        let all = match list {
            List::References(kind) => kept.references_of(*kind),
            List::OpenSessions(partition) => kept.home(*partition).listed(|_, listing| opened(listing)),
            List::ClosedSessions(partition) => kept.home(*partition).listed(|_, listing| closed(listing)),
            List::OpenSessionsOf(account) => {
                kept.home(account.partition()).listed(|of, listing| opened(listing).filter(|_| of == *account))
            }
            List::ClosedSessionsOf(account) => {
                kept.home(account.partition()).listed(|of, listing| closed(listing).filter(|_| of == *account))
            }
        };
        Ok(page(all, cursor, limit))
    }

    async fn ready(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl Kept {
    fn home(&mut self, partition: Partition) -> &mut Home {
        self.homes.entry(partition).or_default()
    }

    fn references_of(&self, kind: ReferenceKind) -> BTreeMap<String, Box<str>> {
        let ids = self.references.keys().filter(|(of, _)| *of == kind).map(|(_, id)| id);
        ids.map(|id| (id.to_string(), id.clone())).collect()
    }
}

impl Home {
    fn session(&self, now: Timestamp, key: &ChargingDataRef) -> Option<Document> {
        self.sessions.get(key).and_then(|document| document.at(now))
    }

    fn check(&self, now: Timestamp, commit: &Commit) -> Result<(), Error> {
        let account = self.accounts.get(&commit.account);
        let account_unchanged = version_of(account) == commit.account_expected;
        let mut sessions = commit.sessions.iter();
        if account_unchanged && sessions.all(|write| self.session_version(now, &write.key) == write.expected) {
            return Ok(());
        }
        Err(Error::Conflict(Some(Box::new(Snapshot {
            account: account.cloned(),
            session: commit.sessions.first().and_then(|write| self.session(now, &write.key)),
            index: Vec::new(),
        }))))
    }

    fn session_version(&self, now: Timestamp, key: &ChargingDataRef) -> Version {
        version_of(self.session(now, key).as_ref())
    }

    fn apply(&mut self, now: Timestamp, commit: &Commit) {
        if let Some(bytes) = commit.account_document.clone() {
            self.accounts.insert(commit.account, Document { version: commit.account_expected.next(), bytes });
        }
        if let Some(entry) = commit.account_journal.clone() {
            self.journals.entry(JournalKey::Account(commit.account)).or_default().push(entry);
        }
        for write in &commit.sessions {
            self.write_session(now, commit.account, write);
        }
        for entry in &commit.outbox {
            self.outbox_last += 1;
            self.outbox.insert(self.outbox_last, entry.clone());
        }
        for write in &commit.index {
            self.index.insert(write.key, Expiring::new(now, write.value.clone(), write.lives_for));
        }
    }

    fn write_session(&mut self, now: Timestamp, account: AccountKey, write: &SessionWrite) {
        let key = &write.key;
        let document = Document { version: write.expected.next(), bytes: write.document.clone() };
        self.sessions.insert(key.clone(), Expiring::new(now, document, Some(write.lives_for)));
        match write.timer {
            TimerWrite::Keep => {}
            TimerWrite::At(at) => drop(self.timers.insert(key.clone(), at)),
            TimerWrite::Remove => drop(self.timers.remove(key)),
        }
        if write.listing != Listing::Keep {
            self.listed.insert(key.clone(), (account, write.listing));
        }
        if let Some(entry) = write.journal.clone() {
            self.journals.entry(JournalKey::Session(account, key.clone())).or_default().push(entry);
        }
    }

    fn due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        let entries = self.timers.iter().filter(|(_, at)| **at <= now);
        let mut due: Vec<Due> = entries.map(|(key, at)| Due { key: key.clone(), at: *at }).collect();
        due.sort_unstable_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
        due.truncate(limit);
        due
    }

    /// The sessions for which `since` names a time, in the order of these times.
    fn listed(&self, since: impl Fn(AccountKey, Listing) -> Option<Timestamp>) -> BTreeMap<String, Box<str>> {
        let position = |at: Timestamp, key: &ChargingDataRef| format!("{:016x}.{key}", sortable(at));
        let of = |(key, (account, listing)): (&ChargingDataRef, &(AccountKey, Listing))| {
            since(*account, *listing).map(|at| (position(at, key), key.as_str().into()))
        };
        self.listed.iter().filter_map(of).collect()
    }
}

fn version_of(document: Option<&Document>) -> Version {
    document.map_or(Version::ABSENT, |document| document.version)
}

fn outbox_id(at: u64) -> OutboxId {
    OutboxId(format!("{at:016x}").into())
}

fn opened(listing: Listing) -> Option<Timestamp> {
    match listing {
        Listing::Open(at) => Some(at),
        Listing::Closed(_) | Listing::Keep => None,
    }
}

fn closed(listing: Listing) -> Option<Timestamp> {
    match listing {
        Listing::Closed(at) => Some(at),
        Listing::Open(_) | Listing::Keep => None,
    }
}

/// Times before 1970 are negative; with the sign bit turned over, their digits sort as they do.
fn sortable(at: Timestamp) -> u64 {
    at.millis().cast_unsigned() ^ (1 << 63)
}

/// What comes after the position `cursor`; the next cursor is the position of the last item given.
fn page(all: BTreeMap<String, Box<str>>, cursor: Option<&str>, limit: usize) -> Page {
    let mut rest = all.into_iter().filter(|(position, _)| cursor.is_none_or(|cursor| position.as_str() > cursor));
    let (positions, items): (Vec<String>, Vec<Box<str>>) = rest.by_ref().take(limit).unzip();
    let next = rest.next().and_then(|_| positions.into_iter().next_back()).map(Into::into);
    Page { items, next }
}
