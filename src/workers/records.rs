//! Writes closed records into files: each record in one published file, the numbers of each recording network function
//! without gaps, through the death of an instance at any step.
//!
//! The truth about what is on its way is one document, [`ExportState`]; the truth about what is out is the directory.
//! An exporter takes entries of the outboxes into its open file (one compare-and-set gives them their numbers), appends
//! the records, and when the file is full announces it, publishes it, acknowledges its entries, and forgets it. After a
//! crash each file is found in one of these stages and brought on from there. A file whose writer is gone and that was
//! not announced is taken over by another exporter, with its numbers.
//!
//! Everything blocking runs on a thread of its own. Nothing here is on the path of a request.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::export_state::{ExportState, File, Segment, Stage, Taken};
use crate::app::App;
use crate::cdr_file::directory::{self, Directory, FileNumber};
use crate::cdr_file::ts32297::Closure;
use crate::cdr_file::{Record, TooLong};
use crate::charging::cdr::Cdr;
use crate::charging::decision::Outgoing;
use crate::charging::ids::ChargingDataRef;
use crate::charging::journal::{Entry, Published};
use crate::charging::time::Span;
use crate::store::{self, OutboxId, Partition, Queue, ReferenceKind, Version, record};

/// Entries of one partition taken in one go.
const TAKEN_AT_ONCE: usize = 200;

/// Entries of all partitions taken in one go: what one change of the state pays for.
const ENTRIES_PER_ROUND: usize = 4000;

/// Times that a change of the state is tried again because another exporter was faster.
const ATTEMPTS: u32 = 16;

/// The journal of a session that goes on after a part of its record is out lives until the rest is: for ever, as far
/// as any session is concerned.
const WHILE_OPEN: Span = Span::from_secs(u32::MAX);

const STATE: &str = "export";

/// The exporter of one directory, or who waits for it: the directory is one process's at a time, and whoever finds it
/// taken takes it over when that process is gone.
pub struct Records {
    app: App,
    path: PathBuf,
    settings: directory::Settings,
    times: Times,
    exporter: Option<Exporter>,
}

/// What an operator decides about time.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long journals are kept after their records are published.
    pub retention: Span,
    /// How long a directory counts as attended to after its exporter has last shown itself.
    pub attended: Span,
}

/// Why the exporter stopped in the middle. Nothing is lost: the next round goes on from what is there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Directory(#[from] directory::Error),
}

impl Records {
    /// # Errors
    ///
    /// When nobody could write there; not when somebody else does.
    pub fn new(app: App, path: PathBuf, settings: directory::Settings, times: Times) -> Result<Self, Error> {
        let mut records = Self { app, path, settings, times, exporter: None };
        records.exporter = records.try_open()?;
        Ok(records)
    }

    fn try_open(&self) -> Result<Option<Exporter>, Error> {
        match Directory::open(&self.path, self.settings.clone()) {
            Ok(directory) => Ok(Some(Exporter {
                app: self.app.clone(),
                writer: directory.writer(),
                directory: Arc::new(Mutex::new(directory)),
                times: self.times,
                complete: None,
            })),
            Err(directory::Error::Locked(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Brings everything on by a step. `waiting` are partitions whose outbox of records is not empty.
    pub async fn step(&mut self, waiting: &[Partition]) -> Result<(), Error> {
        if self.exporter.is_none() {
            self.exporter = self.try_open()?;
        }
        match &mut self.exporter {
            Some(exporter) => exporter.step(waiting).await,
            None => Ok(()),
        }
    }

    /// Publishes what there is, whether or not it fills a file: before the end of the program.
    pub async fn close(&mut self) -> Result<(), Error> {
        match &mut self.exporter {
            Some(exporter) => exporter.close().await,
            None => Ok(()),
        }
    }
}

struct Exporter {
    app: App,
    directory: Arc<Mutex<Directory>>,
    writer: Uuid,
    times: Times,
    /// The file in the state whose records are all in the directory's file under way.
    complete: Option<u32>,
}

impl Exporter {
    async fn step(&mut self, waiting: &[Partition]) -> Result<(), Error> {
        self.attend(self.writer).await?;
        let state = self.state().await?.0;
        self.bring_on(&state).await?;
        if !waiting.is_empty() {
            self.take(waiting).await?;
        }
        self.publish_if_full().await
    }

    /// Whether nobody else attends to the directory. A lease is the writer's and not its process's: the directory's lock
    /// leaves no more than one, and the next one after a crash attends at once.
    async fn attend(&self, directory: Uuid) -> Result<bool, store::Error> {
        let what = format!("records/{directory}");
        self.app.store.lease(&what, &self.writer.to_string(), self.times.attended).await
    }

    async fn close(&mut self) -> Result<(), Error> {
        match self.complete {
            Some(number) => self.publish(number, Closure::Manual).await,
            None => Ok(()),
        }
    }

    /// Files that a crash, of this process or another, has left somewhere on their way.
    async fn bring_on(&mut self, state: &ExportState) -> Result<(), Error> {
        let is_lost = |number| state.file(self.writer, number).is_none();
        if self.complete.is_some_and(is_lost) {
            // Taken over while this process was away: what was written here must not get out.
            self.complete = None;
            self.on_directory(|directory| directory.abandon()).await?;
        }
        for file in state.files() {
            let is_mine = file.writer == self.writer;
            match file.stage {
                Stage::Open if is_mine && self.complete != Some(file.number) => self.write_again(file).await?,
                Stage::Publishing if is_mine => self.publish_again(file).await?,
                Stage::Published => self.acknowledge(file).await?,
                Stage::Open if !is_mine && self.complete.is_none() => self.take_over(file).await?,
                // Mine and complete; or another's, who alone knows whether it is out.
                Stage::Open | Stage::Publishing => {}
            }
        }
        Ok(())
    }

    /// The records of an open file are in nothing that lasts: they are appended once more.
    async fn write_again(&mut self, file: &File) -> Result<(), Error> {
        let number = self.on_directory(|directory| directory.number()).await?.0;
        if number != file.number {
            let moved = |state: &mut ExportState| {
                state.hand_over((self.writer, file.number), (self.writer, number)).then_some(())
            };
            if self.change(moved).await?.is_none() {
                return Ok(());
            }
        }
        self.append_afresh(file).await?;
        self.complete = Some(number);
        Ok(())
    }

    /// What the file under way holds may be a part of it.
    async fn append_afresh(&self, file: &File) -> Result<(), Error> {
        self.on_directory(|directory| directory.abandon()).await?;
        self.append_all(&file.segments, &file.recording_nf).await
    }

    /// Announced, and then something happened.
    async fn publish_again(&mut self, file: &File) -> Result<(), Error> {
        let number = FileNumber(file.number);
        if !self.on_directory(move |directory| directory.is_published(number)).await? {
            self.append_afresh(file).await?;
            let now = self.app.shared.clock.now();
            self.on_directory(move |directory| directory.close(now, Closure::Manual)).await?;
        }
        self.complete = None;
        self.has_published(file.number).await
    }

    /// A file of a directory that nobody attends to any more, and that never got out.
    async fn take_over(&mut self, file: &File) -> Result<(), Error> {
        if !self.attend(file.writer).await? {
            return Ok(());
        }
        let number = self.on_directory(|directory| directory.number()).await?.0;
        let taken =
            |state: &mut ExportState| state.hand_over((file.writer, file.number), (self.writer, number)).then_some(());
        if self.change(taken).await?.is_some() {
            tracing::warn!(writer = %file.writer, file = file.number, "records of an exporter that is gone are taken over");
            self.append_afresh(file).await?;
            self.complete = Some(number);
        }
        Ok(())
    }

    /// Takes what waits, as far as a round goes.
    async fn take(&mut self, waiting: &[Partition]) -> Result<(), Error> {
        let state = self.state().await?.0;
        let mut taken = Vec::new();
        let mut entries_left = ENTRIES_PER_ROUND;
        for partition in waiting {
            if entries_left == 0 {
                break;
            }
            let after = state.taken_upto(*partition).cloned();
            let limit = TAKEN_AT_ONCE.min(entries_left);
            let entries = self.app.store.outbox(*partition, Queue::Records, after.as_ref(), limit).await?;
            let Some((upto, _)) = entries.last() else { continue };
            let records = self.records_of(&entries).await?.len();
            entries_left -= entries.len();
            taken.push(Taken {
                partition: *partition,
                after,
                upto: upto.clone(),
                records: u32::try_from(records).unwrap_or(u32::MAX),
            });
        }
        if taken.is_empty() {
            return Ok(());
        }
        let number = self.on_directory(|directory| directory.number()).await?.0;
        let recording_nf = self.app.shared.instance_id.clone();
        let writer = self.writer;
        // Until all of it is appended, the file is not complete: an error below has it written again. That includes a
        // change whose answer was lost, which may have put more into the file than anybody here knows.
        let was_complete = self.complete.take();
        let continues = was_complete.is_some();
        let take = |now: &mut ExportState| {
            let is_as_seen = now.forgotten() == state.forgotten() && now.file(writer, number).is_some() == continues;
            if is_as_seen { now.take(writer, number, &recording_nf, &taken) } else { None }
        };
        let Some(segments) = self.change(take).await? else {
            // Somebody else took some of them first; the next round sees what is left.
            self.complete = was_complete;
            return Ok(());
        };
        if !continues {
            // What may be under way is of a file that was taken over after an error here.
            self.on_directory(|directory| directory.abandon()).await?;
        }
        self.append_all(&segments, &recording_nf).await?;
        self.complete = Some(number);
        Ok(())
    }

    async fn append_all(&self, segments: &[Segment], recording_nf: &str) -> Result<(), Error> {
        for segment in segments {
            let entries = self.entries_of(segment).await?;
            let mut encoded = Vec::with_capacity(entries.len());
            for (at, cdr) in self.records_of(&entries).await?.iter().enumerate() {
                let number = segment.first_number.wrapping_add(u32::try_from(at).unwrap_or(u32::MAX));
                encoded.push(self.encode(cdr, recording_nf, number));
            }
            let now = self.app.shared.clock.now();
            self.on_directory(move |directory| encoded.iter().try_for_each(|record| directory.append(now, record)))
                .await?;
        }
        Ok(())
    }

    /// The core splits records long before; one that is too long all the same is written without the blocks that were
    /// kept verbatim, and said so, rather than leave a gap in the numbers.
    fn encode(&self, cdr: &Cdr, recording_nf: &str, number: u32) -> crate::cdr_file::Encoded {
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let encode = |cdr: &Cdr| directory.encode(&Record { cdr, recording_nf, local_sequence_number: Some(number) });
        encode(cdr).unwrap_or_else(|TooLong { octets }| {
            tracing::error!(charging.r#ref = %cdr.reference, octets, "a record is too long; its blocks are left out");
            let mut short = cdr.clone();
            short.blocks.clear();
            short.reports.clear();
            short.usage.iter_mut().flat_map(|usage| &mut usage.containers).for_each(|one| one.others.clear());
            encode(&short).unwrap_or_default()
        })
    }

    async fn publish_if_full(&mut self) -> Result<(), Error> {
        let now = self.app.shared.clock.now();
        let closure = self.on_directory(move |directory| Ok(directory.is_full(now))).await?;
        match (self.complete, closure) {
            (Some(number), Some(closure)) => self.publish(number, closure).await,
            _ => Ok(()),
        }
    }

    async fn publish(&mut self, number: u32, closure: Closure) -> Result<(), Error> {
        self.complete = None;
        let writer = self.writer;
        if self.change(|state| state.announce(writer, number).then_some(())).await?.is_none() {
            // Taken over while this process was away: what was written here must not get out.
            return self.on_directory(|directory| directory.abandon()).await;
        }
        let now = self.app.shared.clock.now();
        self.on_directory(move |directory| directory.close(now, closure)).await?;
        self.app.shared.metrics.cdr_files.inc();
        self.has_published(number).await
    }

    async fn has_published(&mut self, number: u32) -> Result<(), Error> {
        let writer = self.writer;
        self.change(|state| state.published(writer, number).then_some(())).await?;
        let state = self.state().await?.0;
        match state.file(writer, number) {
            Some(file) => self.acknowledge(file).await,
            None => Ok(()),
        }
    }

    /// The records are out: their journals may end, their entries go, the file is forgotten. Repeating it is harmless.
    async fn acknowledge(&self, file: &File) -> Result<(), Error> {
        for segment in &file.segments {
            let entries = self.entries_of(segment).await?;
            let partition = Partition(segment.partition);
            let mut number = segment.first_number;
            for (_, bytes) in &entries {
                if let Some((session, part)) = closed_record(bytes)? {
                    let published = Published {
                        part,
                        local_record_sequence_number: number,
                        file: format!("{}/{}", file.writer, file.number).into(),
                    };
                    if self.retire(&session, published).await? {
                        number = number.wrapping_add(1);
                        self.app.shared.metrics.cdrs.inc();
                    }
                }
            }
            let ids: Vec<OutboxId> = entries.into_iter().map(|(id, _)| id).collect();
            self.app.store.acknowledge(partition, Queue::Records, &ids).await?;
        }
        let (writer, number) = (file.writer, file.number);
        self.change(|state| state.forget(writer, number).then_some(())).await?;
        Ok(())
    }

    /// Notes in the journal where the record is, and lets the journal end. Answers whether there is such a record.
    async fn retire(&self, session: &ChargingDataRef, published: Published) -> Result<bool, Error> {
        let Some(account) = self.app.shared.refs.account_of(session.as_str()) else { return Ok(false) };
        let journal = self.app.session_journal(account, session).await?;
        let Some(cdr) = Cdr::part(session, &journal, published.part) else { return Ok(false) };
        if cdr.published.is_none() {
            let is_closed = self.app.session(session).await?.is_none_or(|session| session.is_closed());
            let entry = record::encode(&Entry::published(self.app.shared.clock.now(), published));
            let lives_for = if is_closed { self.times.retention } else { WHILE_OPEN };
            self.app.store.retire(account, session, Some(entry), lives_for).await?;
        }
        Ok(true)
    }

    async fn entries_of(&self, segment: &Segment) -> Result<Vec<(OutboxId, bytes::Bytes)>, Error> {
        let partition = Partition(segment.partition);
        let mut found = Vec::new();
        let mut after = segment.after.clone();
        loop {
            let page = self.app.store.outbox(partition, Queue::Records, after.as_ref(), TAKEN_AT_ONCE).await?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            after = Some(last.clone());
            for (id, bytes) in page {
                // The last one may be acknowledged already, and then what comes after it is not of this segment.
                if id > segment.upto {
                    return Ok(found);
                }
                let is_last = id == segment.upto;
                found.push((id, bytes));
                if is_last {
                    return Ok(found);
                }
            }
        }
    }

    /// The records that entries speak of, in their order.
    async fn records_of(&self, entries: &[(OutboxId, bytes::Bytes)]) -> Result<Vec<Cdr>, Error> {
        let mut records = Vec::with_capacity(entries.len());
        for (_, bytes) in entries {
            let Some((session, part)) = closed_record(bytes)? else { continue };
            let Some(account) = self.app.shared.refs.account_of(session.as_str()) else { continue };
            let journal = self.app.session_journal(account, &session).await?;
            records.extend(Cdr::part(&session, &journal, part));
        }
        Ok(records)
    }

    async fn state(&self) -> Result<(ExportState, Version), store::Error> {
        match self.app.store.reference(ReferenceKind::ExportState, STATE).await? {
            Some(document) => Ok((record::decode(&document.bytes)?, document.version)),
            None => Ok((ExportState::default(), Version::ABSENT)),
        }
    }

    /// Changes the state, if `change` finds something to change in it.
    async fn change<T>(&self, change: impl Fn(&mut ExportState) -> Option<T>) -> Result<Option<T>, store::Error> {
        for _ in 0..ATTEMPTS {
            let (mut state, version) = self.state().await?;
            let Some(changed) = change(&mut state) else { return Ok(None) };
            let document = record::encode(&state);
            match self.app.store.put_reference(ReferenceKind::ExportState, STATE, version, Some(document)).await {
                Ok(()) => return Ok(Some(changed)),
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(store::Error::Conflict(None))
    }

    async fn on_directory<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Directory) -> Result<T, directory::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let directory = Arc::clone(&self.directory);
        let done =
            tokio::task::spawn_blocking(move || work(&mut directory.lock().unwrap_or_else(PoisonError::into_inner)));
        match done.await {
            Ok(outcome) => Ok(outcome?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

fn closed_record(bytes: &[u8]) -> Result<Option<(ChargingDataRef, u32)>, store::Error> {
    Ok(match record::decode(bytes)? {
        Outgoing::Record { session, part } => Some((session, part)),
        Outgoing::Notify(_) | Outgoing::Credited { .. } => None,
    })
}
