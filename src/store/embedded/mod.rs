//! The embedded store: one file of redb in a directory of this process.
//!
//! For one instance without anything beside it. No other process can open the directory, so there is no second instance
//! and no failover; whoever needs those uses Redis, with the same contract.
//!
//! Start reading in `writer`, the one thread that writes, and `tables`, what stands where. `view` is what readers see,
//! `queue` what waits to be written, `open` how a file becomes a store.
//!
//! Invariants beyond the contract's:
//!
//! - Nothing is answered, and nothing shown to a reader, before it is as durable as the settings say.
//! - After an error of the disk the store is over: the state in memory may differ from the file's, and only a new start
//!   reads the file again. What was in flight is answered with [`Applied::Unknown`], everything after it is refused.
//!   The library does not end its process; whoever runs the store waits for [`EmbeddedStore::failed`] and does, with a
//!   status that makes a supervisor start it again.
//! - Dropping the last clone finishes what was accepted, makes it durable and gives the file free.
//!
//! Reads run where they are called, on the worker. A load of account and session takes about two microseconds when
//! the pages are in the engine's cache; handing it to another thread and back would alone take five times as long. A
//! miss reads from the disk and holds up its worker for that long, so the cache should hold the open sessions (see
//! [`Settings::cache_bytes`]).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

mod open;
mod queue;
mod tables;
mod view;
mod writer;

#[cfg(test)]
mod tests;

use view::View;
use writer::{Answer, Job, Task};

use super::{
    AccountKey, Applied, Commit, Document, Due, Durability, Error, Identity, Indexed, JournalKey, List, Load, OutboxId,
    Page, Partition, Queue, ReferenceKind, Snapshot, Store, Version, Work,
};
use crate::charging::ids::ChargingDataRef;
use crate::charging::time::{Span, Timestamp};
use crate::clock::Clock;

/// Outbox entries that one job of the writer removes at most: about a millisecond of its time.
const ACKNOWLEDGED_AT_ONCE_MAX: usize = 1000;

/// Where the store is and how it behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Holds the one file `nchf.redb`; created when missing. No other process may have it open.
    pub directory: PathBuf,
    /// `Fsync` answers when the disk has it. `Memory` answers earlier, and a killed process may lose what was answered
    /// in its last 100 ms; what is left is still whole commits in their order. `Replicated` is refused.
    pub durability: Durability,
    /// Memory for pages of the file, in bytes; default 256 MiB. Half of it may hold pages that wait to be written. If
    /// it is smaller than what open sessions and their accounts fill, requests wait for the disk; about 3 KiB for each
    /// open session are enough.
    pub cache_bytes: usize,
    /// How long a write may take before its caller is told `Unavailable`; default 5 s. It may still happen afterwards.
    /// A value below the pauses that the disk makes turns each of them into errors.
    pub deadline: Duration,
}

impl Settings {
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durability: Durability::Fsync,
            cache_bytes: 256 * 1024 * 1024,
            deadline: Duration::from_secs(5),
        }
    }
}

/// One file, shared by all clones and their threads.
#[derive(Clone)]
pub struct EmbeddedStore(Arc<Opened>);

struct Opened {
    identity: Identity,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    shared: Arc<Shared>,
    leases: Mutex<HashMap<Box<str>, Lease>>,
    /// `None` only while it is being joined.
    writer: Option<JoinHandle<()>>,
}

/// Kept in memory: only this process can open the store, and a lease is forgotten without harm.
struct Lease {
    owner: Box<str>,
    until: Timestamp,
}

/// What readers, committers and the writer have in common.
struct Shared {
    queue: queue::Queue<Job>,
    /// `None` once the store has stopped.
    view: RwLock<Option<Arc<View>>>,
    /// Why the store has stopped by itself.
    failure: watch::Sender<Option<Box<str>>>,
}

impl Shared {
    fn show(&self, view: View) {
        let before = self.view.write().expect(UNPOISONED).replace(Arc::new(view));
        // Freed outside the lock, here or by the last reader that still uses it.
        drop(before);
    }

    fn hide(&self) {
        let before = self.view.write().expect(UNPOISONED).take();
        drop(before);
    }

    /// Nothing is read or accepted from here on.
    fn fail(&self, reason: Box<str>) {
        self.hide();
        self.queue.close();
        self.failure.send_replace(Some(reason));
        // What still waits is answered by being dropped.
        self.queue.take(&mut Vec::new(), Duration::ZERO);
    }

    fn unavailable(&self, applied: Applied) -> Error {
        let reason = self.failure.borrow();
        Error::unavailable(applied, reason.as_deref().unwrap_or("the embedded store has stopped"))
    }
}

const UNPOISONED: &str = "nobody panics while holding this lock: it guards one pointer";

impl EmbeddedStore {
    /// Opens the directory, or makes a new store in it. Blocks: about three seconds for each GiB that has to be
    /// verified, which is the whole file after a crash, and at every start while it is small.
    pub fn open(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        open::directory(settings, clock)
    }

    /// Whether there is a store in a directory, which [`EmbeddedStore::open`] would else make.
    pub fn is_in(directory: &Path) -> bool {
        open::file(directory).is_file()
    }

    /// Waits until the store has stopped by itself, which it does at the first error of its disk, and says why. The
    /// process must end then. Never returns while the store is well.
    pub async fn failed(&self) -> Box<str> {
        let mut failure = self.0.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => unreachable!("the sender lives as long as `self`"),
        }
    }

    fn start(
        identity: Identity,
        clock: Arc<dyn Clock>,
        deadline: Duration,
        shared: Arc<Shared>,
        mut writer: writer::Writer,
    ) -> Result<Self, Error> {
        let running = shared.clone();
        let writer = std::thread::Builder::new()
            .name("nchf-store".into())
            .spawn(move || {
                // The engine asserts what it finds in its file, so a panic here is a fault like any other.
                let reason = match catch_unwind(AssertUnwindSafe(|| writer.run())) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => format!("embedded store: {error}"),
                    Err(_) => "embedded store: the thread that writes has panicked".to_owned(),
                };
                running.fail(reason.into());
                // Only now does the group that was at work learn of it, so that its answer can say why.
                drop(writer);
            })
            .map_err(|error| Error::unavailable(Applied::No, format_args!("no thread for the store: {error}")))?;
        Ok(Self(Arc::new(Opened { identity, clock, deadline, shared, leases: Mutex::default(), writer: Some(writer) })))
    }

    fn read<T>(&self, read: impl FnOnce(&View) -> Result<T, redb::Error>) -> Result<T, Error> {
        let view = self.0.shared.view.read().expect(UNPOISONED).clone();
        let Some(view) = view else { return Err(self.0.shared.unavailable(Applied::No)) };
        // A page that was damaged after the file was verified makes the engine assert in places. It has no state that
        // a panic could leave half changed: a view only reads.
        match catch_unwind(AssertUnwindSafe(|| read(&view))) {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(open::error(error, Applied::No)),
            Err(_) => Err(Error::corrupt("the embedded store's file holds something that the engine never wrote")),
        }
    }

    /// Hands the writer a job and waits for its answer.
    async fn write(&self, task: Task) -> Answer {
        let shared = &self.0.shared;
        let (answer, answered) = oneshot::channel();
        let mut applied = Applied::No;
        let asked = tokio::time::timeout(self.0.deadline, async {
            shared.queue.put(Job { task, answer }).await.map_err(|queue::Closed| shared.unavailable(Applied::No))?;
            applied = Applied::Unknown;
            answered.await.unwrap_or_else(|_| Err(shared.unavailable(Applied::Unknown)))
        })
        .await;
        asked.unwrap_or_else(|_| {
            let deadline = self.0.deadline;
            Err(Error::unavailable(applied, format_args!("no answer from the disk within {deadline:?}")))
        })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // The thread catches its own panics, so there is nothing to learn from this.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn identity(&self) -> &Identity {
        &self.0.identity
    }

    async fn load(&self, load: &Load) -> Result<Snapshot, Error> {
        self.read(|view| view.load(load, self.0.clock.now()))
    }

    async fn commit(&self, commit: &Commit) -> Result<(), Error> {
        self.write(Task::Commit(commit.clone())).await.map(drop)
    }

    async fn sessions(&self, account: AccountKey, keys: &[ChargingDataRef]) -> Result<Vec<Option<Document>>, Error> {
        self.read(|view| view.sessions(account, keys, self.0.clock.now()))
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<Bytes>, Error> {
        self.read(|view| view.journal(key, self.0.clock.now()))
    }

    async fn due(&self, partition: Partition, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        self.read(|view| view.due(partition, now, limit))
    }

    async fn claim(
        &self,
        partition: Partition,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, Error> {
        // Usually nothing is due, and a look costs a thousandth of asking the writer.
        if self.due(partition, now, 1).await?.is_empty() {
            return Ok(Vec::new());
        }
        self.write(Task::Claim { partition, now, lease_until, limit }).await
    }

    async fn look(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Work>, Error> {
        self.read(|view| view.look(partitions, now))
    }

    async fn outbox(
        &self,
        partition: Partition,
        queue: Queue,
        after: Option<&OutboxId>,
        limit: usize,
    ) -> Result<Vec<(OutboxId, Bytes)>, Error> {
        let after = match after {
            Some(id) => tables::outbox_sequence(id)
                .ok_or_else(|| Error::corrupt(format_args!("{} is no outbox id of an embedded store", id.0)))?,
            None => 0,
        };
        self.read(|view| view.outbox(partition, queue, after, limit))
    }

    async fn acknowledge(&self, partition: Partition, queue: Queue, ids: &[OutboxId]) -> Result<(), Error> {
        // An id that this store never gave names nothing that could be removed.
        let sequences: Vec<u64> = ids.iter().filter_map(tables::outbox_sequence).collect();
        for sequences in sequences.chunks(ACKNOWLEDGED_AT_ONCE_MAX) {
            self.write(Task::Acknowledge { partition, queue, sequences: sequences.to_vec() }).await?;
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
        self.write(Task::Retire { account, key: key.clone(), entry, lives_for }).await.map(drop)
    }

    async fn scan(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.read(|view| view.scan(cursor, limit, self.0.clock.now()))
    }

    async fn accounts(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.read(|view| view.accounts(cursor, limit))
    }

    async fn indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<Indexed, Error> {
        self.read(|view| view.indexes(account, key))
    }

    async fn drop_indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<bool, Error> {
        match self.write(Task::DropIndexes { account, key: key.clone() }).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn lease(&self, what: &str, owner: &str, lives_for: Span) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let mut leases = self.0.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.get(what).is_some_and(|lease| *lease.owner != *owner && now < lease.until) {
            return Ok(false);
        }
        leases.insert(what.into(), Lease { owner: owner.into(), until: now.after(lives_for) });
        Ok(true)
    }

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error> {
        self.read(|view| view.reference(kind, id))
    }

    async fn put_reference(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<Bytes>,
    ) -> Result<(), Error> {
        self.write(Task::PutReference { kind, id: id.into(), expected, document }).await.map(drop)
    }

    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.read(|view| view.list(list, cursor, limit))
    }

    async fn ready(&self) -> Result<(), Error> {
        self.read(|_| Ok(()))
    }
}
