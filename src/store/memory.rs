//! A store in this process' memory: for tests and simulations, where time stands still until it is told to move.
//!
//! Everything is behind one lock that is never held across an await, so a commit is atomic because nobody can look.
//! Nothing survives the process. Whatever expires is invisible from that moment on, by the clock it was given, and is
//! overwritten in place; nothing sweeps it, because no test lives long enough to care.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    AccountKey, Commit, Document, Due, Error, Identity, IndexKey, Indexed, JournalKey, List, Listing, Load, Origin,
    OutboxId, Page, Partition, Queue, ReferenceKind, SessionWrite, Snapshot, Store, TimerWrite, Version, Work,
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
    references: HashMap<(ReferenceKind, Box<str>), Reference>,
    /// What, and whose it is.
    leases: HashMap<Box<str>, Expiring<Box<str>>>,
}

/// The last version there was, and what it holds; `None` once it is deleted.
struct Reference {
    version: Version,
    bytes: Option<Bytes>,
}

/// What one partition holds.
#[derive(Default)]
struct Home {
    accounts: HashMap<AccountKey, Document>,
    sessions: HashMap<ChargingDataRef, Expiring<Document>>,
    index: HashMap<IndexKey, Expiring<Bytes>>,
    journals: HashMap<JournalKey, Expiring<Vec<Bytes>>>,
    timers: HashMap<ChargingDataRef, Timestamp>,
    listed: HashMap<ChargingDataRef, (AccountKey, Listing)>,
    records: Outbox,
    notifications: Outbox,
}

#[derive(Default)]
struct Outbox {
    entries: BTreeMap<u64, Bytes>,
    /// Position of the newest entry there ever was, so that positions grow even across an empty outbox.
    last: u64,
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
        self.is_alive(now).then(|| self.value.clone())
    }
}

impl<T> Expiring<T> {
    fn is_alive(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
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
            origin: Origin::ANY,
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
        let now = self.clock.now();
        let mut kept = self.kept();
        let journal = kept.home(account.partition()).journals.get(key);
        Ok(journal.and_then(|journal| journal.at(now)).unwrap_or_default())
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

    async fn look(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Work>, Error> {
        let mut kept = self.kept();
        let work = partitions.iter().map(|partition| {
            let home = kept.home(*partition);
            Work {
                partition: *partition,
                due: home.timers.values().any(|at| *at <= now),
                records: home.records.entries.len() as u64,
                notifications: home.notifications.entries.len() as u64,
            }
        });
        Ok(work.filter(Work::is_any).collect())
    }

    async fn outbox(
        &self,
        partition: Partition,
        queue: Queue,
        after: Option<&OutboxId>,
        limit: usize,
    ) -> Result<Vec<(OutboxId, Bytes)>, Error> {
        let after = match after {
            Some(id) => position(id).ok_or_else(|| Error::corrupt("an outbox id that no store in memory gave"))?,
            None => 0,
        };
        let mut kept = self.kept();
        let later = kept.home(partition).outbox(queue).entries.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(later.take(limit).map(|(at, bytes)| (outbox_id(*at), bytes.clone())).collect())
    }

    async fn acknowledge(&self, partition: Partition, queue: Queue, ids: &[OutboxId]) -> Result<(), Error> {
        let mut kept = self.kept();
        let entries = &mut kept.home(partition).outbox(queue).entries;
        for at in ids.iter().filter_map(position) {
            entries.remove(&at);
        }
        Ok(())
    }

    async fn retire(
        &self,
        account: AccountKey,
        key: &ChargingDataRef,
        entry: Option<Bytes>,
        lives_for: Span,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let mut kept = self.kept();
        let journal = kept.home(account.partition()).session_journal(now, account, key);
        journal.value.extend(entry);
        journal.until = Some(now.after(lives_for));
        Ok(())
    }

    async fn scan(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let now = self.clock.now();
        let kept = self.kept();
        let sessions = kept.homes.values().flat_map(|home| &home.sessions);
        let alive = sessions.filter(|(_, document)| document.is_alive(now));
        let all = alive.map(|(key, _)| (key.to_string(), key.as_str().into())).collect();
        Ok(page(all, cursor, limit))
    }

    async fn accounts(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let kept = self.kept();
        let keys = kept.homes.values().flat_map(|home| home.accounts.keys().map(ToString::to_string));
        Ok(page(keys.map(|key| (key.clone(), key.into())).collect(), cursor, limit))
    }

    async fn indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<Indexed, Error> {
        let mut kept = self.kept();
        let home = kept.home(account.partition());
        let listed = home.listed.get(key).filter(|(of, _)| *of == account);
        Ok(Indexed {
            timer: home.timers.get(key).copied(),
            listed_open: listed.is_some_and(|(_, listing)| opened(*listing).is_some()),
        })
    }

    async fn drop_indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut kept = self.kept();
        let home = kept.home(account.partition());
        if home.session(now, key).is_some() {
            return Ok(false);
        }
        home.timers.remove(key);
        if home.listed.get(key).is_some_and(|(_, listing)| opened(*listing).is_some()) {
            home.listed.remove(key);
        }
        Ok(true)
    }

    async fn lease(&self, what: &str, owner: &str, lives_for: Span) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut kept = self.kept();
        let held = kept.leases.get(what).and_then(|lease| lease.at(now));
        if held.is_some_and(|held| *held != *owner) {
            return Ok(false);
        }
        kept.leases.insert(what.into(), Expiring::new(now, owner.into(), Some(lives_for)));
        Ok(true)
    }

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error> {
        Ok(self.kept().references.get(&(kind, id.into())).and_then(Reference::document))
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
        let before = kept.references.get(&key);
        if Version::of(before.and_then(Reference::document).as_ref()) != expected {
            return Err(Error::Conflict(None));
        }
        let last = before.map_or(Version::ABSENT, |before| before.version);
        match document {
            Some(bytes) => {
                kept.references.insert(key, Reference { version: last.next(), bytes: Some(bytes) });
            }
            None if expected == Version::ABSENT => {}
            None => {
                kept.references.insert(key, Reference { version: last, bytes: None });
            }
        }
        Ok(())
    }

    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let now = self.clock.now();
        let mut kept = self.kept();
        let all = match list {
            List::References(kind) => kept.references_of(*kind),
            List::OpenSessions(partition) => kept.home(*partition).listed(now, |_, listing| opened(listing)),
            List::ClosedSessions(partition) => kept.home(*partition).listed(now, |_, listing| closed(listing)),
            List::OpenSessionsOf(account) => {
                kept.home(account.partition()).listed(now, |of, listing| opened(listing).filter(|_| of == *account))
            }
            List::ClosedSessionsOf(account) => {
                kept.home(account.partition()).listed(now, |of, listing| closed(listing).filter(|_| of == *account))
            }
            List::Timers(partition) => {
                let timers = kept.home(*partition).timers.iter();
                timers.map(|(key, at)| (place_in_time(*at, key), key.as_str().into())).collect()
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
        let there = self.references.iter().filter(|(_, reference)| reference.bytes.is_some());
        let ids = there.filter(|((of, _), _)| *of == kind).map(|((_, id), _)| id);
        ids.map(|id| (id.to_string(), id.clone())).collect()
    }
}

impl Reference {
    fn document(&self) -> Option<Document> {
        self.bytes.clone().map(|bytes| Document { version: self.version, bytes })
    }
}

impl Home {
    fn session(&self, now: Timestamp, key: &ChargingDataRef) -> Option<Document> {
        self.sessions.get(key).and_then(|document| document.at(now))
    }

    fn check(&self, now: Timestamp, commit: &Commit) -> Result<(), Error> {
        let account = self.accounts.get(&commit.account);
        let account_unchanged = Version::of(account) == commit.account_expected;
        let mut sessions = commit.sessions.iter();
        if account_unchanged && sessions.all(|write| self.session_version(now, &write.key) == write.expected) {
            return Ok(());
        }
        Err(Error::Conflict(Some(Box::new(Snapshot {
            account: account.cloned(),
            session: commit.sessions.first().and_then(|write| self.session(now, &write.key)),
            ..Snapshot::default()
        }))))
    }

    fn session_version(&self, now: Timestamp, key: &ChargingDataRef) -> Version {
        Version::of(self.session(now, key).as_ref())
    }

    fn apply(&mut self, now: Timestamp, commit: &Commit) {
        if let Some(bytes) = commit.account_document.clone() {
            self.accounts.insert(commit.account, Document { version: commit.account_version(), bytes });
        }
        if let Some(entry) = commit.account_journal.clone() {
            let journal = self.journals.entry(JournalKey::Account(commit.account));
            journal.or_insert_with(|| Expiring::new(now, Vec::new(), None)).value.push(entry);
        }
        for write in &commit.sessions {
            self.write_session(now, commit.account, write);
        }
        for (queue, entry) in &commit.outbox {
            let outbox = self.outbox(*queue);
            outbox.last += 1;
            outbox.entries.insert(outbox.last, entry.clone());
        }
        for write in &commit.index {
            self.index.insert(write.key, Expiring::new(now, write.value.clone(), write.lives_for));
        }
    }

    fn write_session(&mut self, now: Timestamp, account: AccountKey, write: &SessionWrite) {
        let key = &write.key;
        if let Some(entry) = write.journal.clone() {
            self.session_journal(now, account, key).value.push(entry);
        }
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
    }

    /// The journal as it is to be appended to: one that has ended begins anew, and was the last reason for the closed
    /// session to be listed.
    fn session_journal(
        &mut self,
        now: Timestamp,
        account: AccountKey,
        key: &ChargingDataRef,
    ) -> &mut Expiring<Vec<Bytes>> {
        if self.journal_has_ended(now, account, key) {
            self.journals.remove(&JournalKey::Session(account, key.clone()));
            if self.listed.get(key).is_some_and(|(_, listing)| closed(*listing).is_some()) {
                self.listed.remove(key);
            }
        }
        let journal = self.journals.entry(JournalKey::Session(account, key.clone()));
        journal.or_insert_with(|| Expiring::new(now, Vec::new(), None))
    }

    fn journal_has_ended(&self, now: Timestamp, account: AccountKey, key: &ChargingDataRef) -> bool {
        let journal = self.journals.get(&JournalKey::Session(account, key.clone()));
        journal.is_some_and(|journal| !journal.is_alive(now))
    }

    fn outbox(&mut self, queue: Queue) -> &mut Outbox {
        match queue {
            Queue::Records => &mut self.records,
            Queue::Notifications => &mut self.notifications,
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
    fn listed(
        &self,
        now: Timestamp,
        since: impl Fn(AccountKey, Listing) -> Option<Timestamp>,
    ) -> BTreeMap<String, Box<str>> {
        let of = |(key, (account, listing)): (&ChargingDataRef, &(AccountKey, Listing))| {
            let is_over = closed(*listing).is_some() && self.journal_has_ended(now, *account, key);
            let at = since(*account, *listing).filter(|_| !is_over)?;
            Some((place_in_time(at, key), key.as_str().into()))
        };
        self.listed.iter().filter_map(of).collect()
    }
}

fn outbox_id(at: u64) -> OutboxId {
    OutboxId(format!("{at:016x}").into())
}

/// `None` for a text that [`outbox_id`] never made.
fn position(id: &OutboxId) -> Option<u64> {
    u64::from_str_radix(&id.0, 16).ok().filter(|at| outbox_id(*at) == *id)
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

/// A position in a listing in the order of time.
fn place_in_time(at: Timestamp, key: &ChargingDataRef) -> String {
    format!("{:016x}.{key}", sortable(at))
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
