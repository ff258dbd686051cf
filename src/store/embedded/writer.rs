//! The one thread that writes.
//!
//! It takes everything that waits, applies it commit by commit inside one transaction of the engine, makes that durable
//! with one fsync, shows it to the readers and only then answers. While it waits for the disk the next group gathers by
//! itself, so there is no timer that fills groups: a lone commit is on its way at once, and a thousand share an fsync.
//!
//! Each commit is checked against what the commits before it in the group have left, so a group gives the same results
//! as if each had come alone. A conflict waits for the fsync too: it carries documents that the group has just written,
//! and nobody may see what a crash could still take back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, ReadableTable, WriteTransaction};
use tokio::sync::oneshot;

use super::queue::Taken;
use super::tables::{
    self, AccountRow, EXPIRES_INDEX, EXPIRES_SESSION, IndexRow, Lazy, Listed, SessionRow, Tables, account_key, damaged,
};
use super::view::{View, read_account, read_due, read_session};
use super::{Shared, open};
use crate::charging::ids::ChargingDataRef;
use crate::charging::time::{Span, Timestamp};
use crate::clock::Clock;
use crate::store::{
    AccountKey, Commit, Due, Durability, Error, IndexWrite, Listing, Partition, Queue, ReferenceKind, SessionWrite,
    Snapshot, TimerWrite, Version,
};

/// How often an idle writer looks whether something has expired.
const IDLE: Duration = Duration::from_secs(1);

/// With [`Durability::Memory`], the age at which an answered commit is on its way to the disk. The fsync itself takes
/// a few milliseconds; together they stay below the 100 ms that a killed process may lose.
pub(super) const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// Expiry entries that one group visits at least, and those it visits for each of its jobs: more than a commit adds,
/// so that the table drains faster than it fills, and few enough (some microseconds each) that nobody waits for it.
const PURGE_MIN: usize = 256;
const PURGE_PER_JOB: usize = 4;

/// Sequence numbers set aside with one write. What a stop leaves over is never used; 2^64 outlast any use.
pub(super) const SEQUENCE_BLOCK: u64 = 1 << 20;

/// What the writer is asked for, and whom to tell.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) answer: oneshot::Sender<Answer>,
}

pub(super) enum Task {
    Commit(Commit),
    Claim { partition: Partition, now: Timestamp, lease_until: Timestamp, limit: usize },
    Acknowledge { partition: Partition, queue: Queue, sequences: Vec<u64> },
    Retire { account: AccountKey, key: ChargingDataRef, entry: Option<Bytes>, lives_for: Span },
    DropIndexes { account: AccountKey, key: ChargingDataRef },
    PutReference { kind: ReferenceKind, id: Box<str>, expected: Version, document: Option<Bytes> },
}

/// Only a claim answers with anything.
pub(super) type Answer = Result<Vec<Due>, Error>;
const DONE: Answer = Ok(Vec::new());

/// Numbers of journal and outbox entries: growing, never given twice, not even after a restart.
pub(super) struct Sequence {
    pub(super) next: u64,
    pub(super) limit: u64,
}

impl Sequence {
    fn take(&mut self, meta: &mut Lazy<'_, &'static str, &'static [u8]>) -> Result<u64, redb::Error> {
        // Long before the block is used up: where a commit is answered before it is durable, a crash must not take back
        // that the numbers were set aside, when somebody may already have read an entry that has one of them.
        if self.limit - self.next <= SEQUENCE_BLOCK / 2 {
            self.limit += SEQUENCE_BLOCK;
            meta.table()?.insert(tables::META_SEQUENCE, &self.limit.to_be_bytes()[..])?;
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

pub(super) struct Writer {
    pub(super) database: Database,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) durability: Durability,
    pub(super) sequence: Sequence,
    /// No expiry entry is earlier; `None` when there is none at all.
    pub(super) next_expiry: Option<Timestamp>,
    /// The group at work, and the answers that wait for the disk, job by job.
    pub(super) jobs: Vec<Job>,
    pub(super) answers: Vec<Answer>,
    /// When answered commits that are not on the disk yet must get there; only with [`Durability::Memory`].
    pub(super) flush_at: Option<Instant>,
}

impl Writer {
    /// Returns when the queue is closed and everything accepted is durable, or at the first fault.
    pub(super) fn run(&mut self) -> Result<(), redb::Error> {
        loop {
            let nap = self.nap();
            let taken = self.shared.queue.take(&mut self.jobs, nap);
            let closed = taken == Taken::Closed;
            if taken == Taken::Jobs || self.purge_is_due() || self.flush_is_due(closed) {
                self.turn(closed)?;
            }
            if closed {
                return Ok(());
            }
        }
    }

    /// One group: apply, make durable, show, answer. After an error the group stays unanswered; it learns that its
    /// commits may or may not have happened when the writer is dropped.
    fn turn(&mut self, closing: bool) -> Result<(), redb::Error> {
        let flush = self.flush_is_due(closing);
        let durable = flush || self.durability != Durability::Memory;
        let mut transaction = self.database.begin_write()?;
        if !durable {
            transaction.set_durability(redb::Durability::None)?;
        }

        let purge = if self.purge_is_due() { PURGE_MIN + PURGE_PER_JOB * self.jobs.len() } else { 0 };
        let mut group = Group::new(&transaction, self.clock.now(), &mut self.sequence, self.next_expiry);
        for job in &self.jobs {
            self.answers.push(group.apply(&job.task)?);
        }
        group.purge(purge)?;
        self.next_expiry = group.next_expiry;

        // A group that changed nothing has seen nothing that was not answered or shown before.
        if group.changed || flush {
            drop(group);
            transaction.commit()?;
            self.flush_at = if durable { None } else { self.flush_at.or_else(|| Some(now() + FLUSH_AFTER)) };
            self.shared.show(View::of(&self.database)?);
        } else {
            drop(group);
            transaction.abort()?;
        }
        for (job, answer) in self.jobs.drain(..).zip(self.answers.drain(..)) {
            // Whoever asked may have gone away meanwhile, which changes nothing.
            let _ = job.answer.send(answer);
        }
        Ok(())
    }

    fn nap(&self) -> Duration {
        if self.purge_is_due() {
            return Duration::ZERO;
        }
        self.flush_at.map_or(IDLE, |at| at.saturating_duration_since(now()))
    }

    fn flush_is_due(&self, closing: bool) -> bool {
        self.flush_at.is_some_and(|at| closing || at <= now())
    }

    fn purge_is_due(&self) -> bool {
        self.next_expiry.is_some_and(|at| at <= self.clock.now())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long the disk may lag behind is a stretch of the machine's own time"
)]
fn now() -> Instant {
    Instant::now()
}

/// One transaction at work.
struct Group<'t, 's> {
    now: Timestamp,
    tables: Tables<'t>,
    sequence: &'s mut Sequence,
    next_expiry: Option<Timestamp>,
    changed: bool,
}

impl<'t, 's> Group<'t, 's> {
    fn new(
        transaction: &'t WriteTransaction,
        now: Timestamp,
        sequence: &'s mut Sequence,
        next_expiry: Option<Timestamp>,
    ) -> Self {
        Self { now, tables: Tables::of(transaction), sequence, next_expiry, changed: false }
    }

    fn apply(&mut self, task: &Task) -> Result<Answer, redb::Error> {
        match task {
            Task::Commit(commit) => self.commit(commit),
            Task::Claim { partition, now, lease_until, limit } => self.claim(*partition, *now, *lease_until, *limit),
            Task::Acknowledge { partition, queue, sequences } => self.acknowledge(*partition, *queue, sequences),
            Task::Retire { account, key, entry, lives_for } => self.retire(*account, key, entry.as_deref(), *lives_for),
            Task::DropIndexes { account, key } => self.drop_indexes(*account, key),
            Task::PutReference { kind, id, expected, document } => {
                self.put_reference(*kind, id, *expected, document.as_deref())
            }
        }
    }

    fn commit(&mut self, commit: &Commit) -> Result<Answer, redb::Error> {
        let account_key = account_key(commit.account);
        let documents = self.tables.documents.table()?;
        let mut account = match documents.get(&account_key[..])? {
            Some(found) => AccountRow::read(found.value())?.0,
            None => AccountRow::default(),
        };
        if account.version != commit.account_expected {
            return Ok(Err(self.conflict(commit)?));
        }
        let mut sessions = Vec::with_capacity(commit.sessions.len());
        for write in &commit.sessions {
            let key = tables::session_key(commit.account, &write.key);
            let row = match documents.get(&key[..])? {
                Some(found) => SessionRow::read(found.value())?.0,
                None => SessionRow::default(),
            };
            if row.version_at(self.now) != write.expected {
                return Ok(Err(self.conflict(commit)?));
            }
            sessions.push((key, row));
        }

        // From here on it succeeds.
        self.changed = true;
        if let Some(entry) = &commit.account_journal {
            account.journal = self.append(account.journal, entry)?;
        }
        match &commit.account_document {
            Some(document) => {
                account.version = commit.account_version();
                self.put_account(&account_key, account, document)?;
            }
            None if commit.account_journal.is_some() => {
                let documents = self.tables.documents.table()?;
                let document = match documents.get(&account_key[..])? {
                    Some(found) => AccountRow::read(found.value())?.1.to_vec(),
                    None => Vec::new(),
                };
                self.put_account(&account_key, account, &document)?;
            }
            None => {}
        }
        for (write, (key, row)) in commit.sessions.iter().zip(sessions) {
            self.write_session(commit, write, &key, row)?;
        }
        for write in &commit.index {
            self.write_index(commit.account.partition(), write)?;
        }
        for (queue, entry) in &commit.outbox {
            let sequence = self.sequence.take(&mut self.tables.meta)?;
            let key = tables::outbox_key(commit.account.partition(), sequence);
            self.tables.outbox(*queue)?.insert(&key, &entry[..])?;
        }
        Ok(DONE)
    }

    /// The current account and first session, as the next attempt has to read them.
    fn conflict(&mut self, commit: &Commit) -> Result<Error, redb::Error> {
        let documents = self.tables.documents.table()?;
        let account = read_account(documents, &account_key(commit.account))?;
        let session = match commit.sessions.first() {
            Some(write) => read_session(documents, &tables::session_key(commit.account, &write.key), self.now)?,
            None => None,
        };
        Ok(Error::Conflict(Some(Box::new(Snapshot { account, session, ..Snapshot::default() }))))
    }

    fn write_session(
        &mut self,
        commit: &Commit,
        write: &SessionWrite,
        key: &[u8],
        mut row: SessionRow,
    ) -> Result<(), redb::Error> {
        let session = write.key.as_str().as_bytes();
        let partition = tables::partition_key(commit.account.partition());
        row.version = write.expected.next();

        if row.journal_has_ended(self.now) {
            self.end_journal(key, &mut row)?;
        }
        if let Some(entry) = &write.journal {
            row.journal = self.append(row.journal, entry)?;
        }

        row.expires_at = Some(self.now.after(write.lives_for));
        self.expire_session(key, &mut row)?;

        let timer_at = match write.timer {
            TimerWrite::Keep => row.timer_at,
            TimerWrite::At(at) => Some(at),
            TimerWrite::Remove => None,
        };
        if timer_at != row.timer_at {
            let timers = self.tables.timers.table()?;
            if let Some(at) = row.timer_at {
                timers.remove(&tables::listed_key(&partition, at, session)[..])?;
            }
            if let Some(at) = timer_at {
                timers.insert(&tables::listed_key(&partition, at, session)[..], commit.account.0)?;
            }
            row.timer_at = timer_at;
        }

        let listed = match write.listing {
            Listing::Keep => row.listed,
            Listing::Open(at) => Listed::Open(at),
            Listing::Closed(at) => Listed::Closed(at),
        };
        if listed != row.listed {
            self.list(commit.account, session, row.listed, listed)?;
            row.listed = listed;
        }

        self.put_session(key, &row, &write.document)
    }

    fn list(&mut self, account: AccountKey, session: &[u8], before: Listed, after: Listed) -> Result<(), redb::Error> {
        let partition = tables::partition_key(account.partition());
        let account = account_key(account);
        match before {
            Listed::Nowhere => {}
            Listed::Open(at) => {
                self.tables.open.table()?.remove(&tables::listed_key(&account, at, session)[..])?;
            }
            Listed::Closed(at) => {
                let closed_of_account = self.tables.closed_of_account.table()?;
                closed_of_account.remove(&tables::listed_key(&account, at, session)[..])?;
                self.tables.closed.table()?.remove(&tables::listed_key(&partition, at, session)[..])?;
            }
        }
        match after {
            Listed::Nowhere => {}
            Listed::Open(at) => {
                self.tables.open.table()?.insert(&tables::listed_key(&account, at, session)[..], ())?;
            }
            Listed::Closed(at) => {
                let closed_of_account = self.tables.closed_of_account.table()?;
                closed_of_account.insert(&tables::listed_key(&account, at, session)[..], ())?;
                self.tables.closed.table()?.insert(&tables::listed_key(&partition, at, session)[..], ())?;
            }
        }
        Ok(())
    }

    fn write_index(&mut self, partition: Partition, write: &IndexWrite) -> Result<(), redb::Error> {
        let key = tables::index_key(partition, write.key);
        let mut row = match self.tables.index.table()?.get(&key)? {
            Some(found) => IndexRow::read(found.value())?.0,
            None => IndexRow::default(),
        };
        row.expires_at = write.lives_for.map(|span| self.now.after(span));
        if let Some(end) = row.expires_at
            && row.expiry_at.is_none_or(|entry| end < entry)
        {
            self.move_expiry(EXPIRES_INDEX, &key, row.expiry_at, Some(end))?;
            row.expiry_at = Some(end);
        }
        self.put_index(&key, row, &write.value)
    }

    /// Appends to the journal that ends at `before`; answers its new end.
    fn append(&mut self, before: u64, entry: &[u8]) -> Result<u64, redb::Error> {
        let sequence = self.sequence.take(&mut self.tables.meta)?;
        let mut place = self.tables.journal.table()?.insert_reserve(sequence, size_of::<u64>() + entry.len())?;
        place.as_mut()[..size_of::<u64>()].copy_from_slice(&before.to_be_bytes());
        place.as_mut()[size_of::<u64>()..].copy_from_slice(entry);
        Ok(sequence)
    }

    fn claim(
        &mut self,
        partition: Partition,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Answer, redb::Error> {
        let due = read_due(self.tables.timers.table()?, partition, now, limit)?;
        let mut claimed = Vec::with_capacity(due.len());
        let partition = tables::partition_key(partition);
        for (entry, account) in due {
            self.changed = true;
            let session = entry.key.as_str().as_bytes();
            let timers = self.tables.timers.table()?;
            timers.remove(&tables::listed_key(&partition, entry.at, session)[..])?;
            timers.insert(&tables::listed_key(&partition, lease_until, session)[..], account.0)?;

            let key = tables::session_key(account, &entry.key);
            let (mut row, document) = self.session(&key)?.ok_or_else(|| damaged("a timer entry without a session"))?;
            row.timer_at = Some(lease_until);
            self.put_session(&key, &row, &document)?;
            claimed.push(entry);
        }
        Ok(Ok(claimed))
    }

    fn acknowledge(&mut self, partition: Partition, queue: Queue, sequences: &[u64]) -> Result<Answer, redb::Error> {
        let outbox = self.tables.outbox(queue)?;
        let mut changed = false;
        for sequence in sequences {
            changed |= outbox.remove(&tables::outbox_key(partition, *sequence))?.is_some();
        }
        self.changed |= changed;
        Ok(DONE)
    }

    fn retire(
        &mut self,
        account: AccountKey,
        session: &ChargingDataRef,
        entry: Option<&[u8]>,
        lives_for: Span,
    ) -> Result<Answer, redb::Error> {
        let key = tables::session_key(account, session);
        let (mut row, document) = match self.session(&key)? {
            Some(found) => found,
            // Nothing of the session is left, not even a journal that could end.
            None if entry.is_none() => return Ok(DONE),
            None => (SessionRow::default(), Vec::new()),
        };
        self.changed = true;
        if row.journal_has_ended(self.now) {
            self.end_journal(&key, &mut row)?;
        }
        if let Some(entry) = entry {
            row.journal = self.append(row.journal, entry)?;
        }
        row.journal_ends_at = Some(self.now.after(lives_for));
        self.expire_session(&key, &mut row)?;
        self.put_session(&key, &row, &document)?;
        Ok(DONE)
    }

    /// Removes what has ended. All at once: a session's journal has some tens of entries, each of which costs what an
    /// append costs.
    fn end_journal(&mut self, key: &[u8], row: &mut SessionRow) -> Result<(), redb::Error> {
        let journal = self.tables.journal.table()?;
        while row.journal != 0 {
            let Some(found) = journal.remove(row.journal)? else {
                return Err(damaged(format!("journal entry {} is missing", row.journal)));
            };
            row.journal = tables::read_numbered(found.value())?.0;
        }
        row.journal_ends_at = None;
        if let Listed::Closed(_) = row.listed {
            let (_, session) = key.split_at(size_of::<AccountKey>());
            self.list(tables::account_of(key)?, session, row.listed, Listed::Nowhere)?;
            row.listed = Listed::Nowhere;
        }
        Ok(())
    }

    /// Answers a conflict when there is a document.
    fn drop_indexes(&mut self, account: AccountKey, session: &ChargingDataRef) -> Result<Answer, redb::Error> {
        let key = tables::session_key(account, session);
        let Some((before, _)) = self.session(&key)? else { return Ok(DONE) };
        let mut row = before;
        if row.version_at(self.now) != Version::ABSENT {
            return Ok(Err(Error::Conflict(None)));
        }
        if let Some(at) = row.timer_at.take() {
            let partition = tables::partition_key(account.partition());
            let timers = self.tables.timers.table()?;
            timers.remove(&tables::listed_key(&partition, at, session.as_str().as_bytes())[..])?;
        }
        if let Listed::Open(_) = row.listed {
            self.list(account, session.as_str().as_bytes(), row.listed, Listed::Nowhere)?;
            row.listed = Listed::Nowhere;
        }
        if row != before {
            self.changed = true;
            self.put_session_without_document(&key, row)?;
        }
        Ok(DONE)
    }

    fn put_reference(
        &mut self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<&[u8]>,
    ) -> Result<Answer, redb::Error> {
        let key = tables::reference_key(kind, id);
        let references = self.tables.references.table()?;
        let current = match references.get(&key[..])? {
            Some(found) => Version(tables::read_numbered(found.value())?.0),
            None => Version::ABSENT,
        };
        if current != expected {
            return Ok(Err(Error::Conflict(None)));
        }
        let meta = self.tables.meta.table()?;
        let deleted = match meta.get(tables::META_DELETED)? {
            Some(found) => Version(open::number(found.value())?),
            None => Version::ABSENT,
        };
        self.changed = true;
        match document {
            Some(document) => {
                // A new one begins above all that were ever deleted, so that no version stands for two contents.
                let last = if expected == Version::ABSENT { deleted } else { expected };
                references.insert(&key[..], &tables::write_numbered(last.next().0, document)[..])?;
            }
            None => {
                references.remove(&key[..])?;
                if deleted < expected {
                    meta.insert(tables::META_DELETED, &expected.0.to_be_bytes()[..])?;
                }
            }
        }
        Ok(DONE)
    }

    /// Visits at most `budget` entries that are due: what has expired goes, what was renewed gets a later entry.
    fn purge(&mut self, budget: usize) -> Result<(), redb::Error> {
        for _ in 0..budget {
            let expiries = self.tables.expiries.table()?;
            let Some(entry) = expiries.first()?.map(|(key, _)| key.value().to_vec()) else {
                self.next_expiry = None;
                return Ok(());
            };
            let Some((at, [kind, key @ ..])) = entry.split_first_chunk() else {
                return Err(damaged("an expiry entry ends too early"));
            };
            let at = tables::at_of(*at);
            if self.now < at {
                self.next_expiry = Some(at);
                return Ok(());
            }
            expiries.pop_first()?;
            self.changed = true;
            match *kind {
                EXPIRES_SESSION => self.purge_session(key)?,
                EXPIRES_INDEX => {
                    self.purge_index(key.try_into().map_err(|_| damaged("an index key of another size"))?)?
                }
                kind => return Err(damaged(format!("an expiry entry of kind {kind}"))),
            }
        }
        Ok(())
    }

    fn purge_session(&mut self, key: &[u8]) -> Result<(), redb::Error> {
        let (mut row, document) = self.session(key)?.ok_or_else(|| damaged("an expiry entry without a session"))?;
        row.expiry_at = None;
        if row.journal_has_ended(self.now) {
            self.end_journal(key, &mut row)?;
        }
        if row.version_at(self.now) == Version::ABSENT {
            row.expires_at = None;
            self.expire_session(key, &mut row)?;
            return self.put_session_without_document(key, row);
        }
        self.expire_session(key, &mut row)?;
        self.put_session(key, &row, &document)
    }

    /// Sees to it that the row's expiry entry is early enough.
    fn expire_session(&mut self, key: &[u8], row: &mut SessionRow) -> Result<(), redb::Error> {
        if let Some(end) = row.ends_at()
            && row.expiry_at.is_none_or(|entry| end < entry)
        {
            self.move_expiry(EXPIRES_SESSION, key, row.expiry_at, Some(end))?;
            row.expiry_at = Some(end);
        }
        Ok(())
    }

    fn purge_index(&mut self, key: &[u8; 18]) -> Result<(), redb::Error> {
        let index = self.tables.index.table()?;
        let (mut row, value) = match index.get(key)? {
            Some(found) => IndexRow::read(found.value()).map(|(row, value)| (row, value.to_vec()))?,
            None => return Err(damaged("an expiry entry without an index entry")),
        };
        if row.is_alive_at(self.now) {
            self.move_expiry(EXPIRES_INDEX, key, None, row.expires_at)?;
            row.expiry_at = row.expires_at;
            return self.put_index(key, row, &value);
        }
        index.remove(key)?;
        Ok(())
    }

    fn move_expiry(
        &mut self,
        kind: u8,
        key: &[u8],
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<(), redb::Error> {
        let expiries = self.tables.expiries.table()?;
        if let Some(from) = from {
            expiries.remove(&tables::expiry_key(from, kind, key)[..])?;
        }
        if let Some(to) = to {
            expiries.insert(&tables::expiry_key(to, kind, key)[..], ())?;
            self.next_expiry = Some(self.next_expiry.map_or(to, |next| next.min(to)));
        }
        Ok(())
    }

    fn session(&mut self, key: &[u8]) -> Result<Option<(SessionRow, Vec<u8>)>, redb::Error> {
        let documents = self.tables.documents.table()?;
        match documents.get(key)? {
            Some(found) => {
                let (row, document) = SessionRow::read(found.value())?;
                Ok(Some((row, document.to_vec())))
            }
            None => Ok(None),
        }
    }

    // Rows are written in place, so that a document is copied once: from the commit into its page.

    fn put_account(&mut self, key: &[u8], row: AccountRow, document: &[u8]) -> Result<(), redb::Error> {
        let documents = self.tables.documents.table()?;
        let mut place = documents.insert_reserve(key, AccountRow::LEN + document.len())?;
        row.write(place.as_mut());
        place.as_mut()[AccountRow::LEN..].copy_from_slice(document);
        Ok(())
    }

    fn put_session(&mut self, key: &[u8], row: &SessionRow, document: &[u8]) -> Result<(), redb::Error> {
        let documents = self.tables.documents.table()?;
        let mut place = documents.insert_reserve(key, row.len() + document.len())?;
        row.write(place.as_mut());
        place.as_mut()[row.len()..].copy_from_slice(document);
        Ok(())
    }

    /// Keeps the row of a session whose document has ended only as long as something else needs it.
    fn put_session_without_document(&mut self, key: &[u8], row: SessionRow) -> Result<(), redb::Error> {
        // Its expiry entry finds it again, if it has one.
        if row.is_needed() || row.expiry_at.is_some() {
            return self.put_session(key, &SessionRow { version: Version::ABSENT, ..row }, &[]);
        }
        self.tables.documents.table()?.remove(key)?;
        Ok(())
    }

    fn put_index(&mut self, key: &[u8; 18], row: IndexRow, value: &[u8]) -> Result<(), redb::Error> {
        let mut place = self.tables.index.table()?.insert_reserve(key, IndexRow::LEN + value.len())?;
        row.write(place.as_mut());
        place.as_mut()[IndexRow::LEN..].copy_from_slice(value);
        Ok(())
    }
}
