//! Writes closed records into files: each record in one published file, the numbers of each recording network function
//! without gaps, through the death of an instance at any step.
//!
//! The truth about what is on its way is one document, [`ExportState`]; the truth about what is out is the directory.
//! An exporter takes entries of the outboxes into its open file (one compare-and-set gives them their numbers), appends
//! the records, and when the file is full announces it, publishes it, acknowledges its entries, and forgets it. After a
//! crash each file is found in one of these stages and brought on from there. A file whose writer is gone and that was
//! not announced is taken over by another exporter, with its numbers.
//!
//! Records wait in their outboxes until they fill a file, or the oldest of them is as old as a file may be; then they are
//! taken, written and published in one go. So a file is under way for seconds only, and the state stays small however
//! many records there are.
//!
//! Everything blocking runs on a thread of its own. Nothing here is on the path of a request.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::export_state::{ExportState, File, Segment, Stage, Taken};
use super::{Waiting, together};
use crate::app::App;
use crate::cdr_file::directory::{self, Directory, FileNumber};
use crate::cdr_file::files::{Files, Place};
use crate::cdr_file::ts32297::Closure;
use crate::cdr_file::{Encoded, Record, TooLong};
use crate::charging::cdr::Cdr;
use crate::charging::decision::Outgoing;
use crate::charging::ids::ChargingDataRef;
use crate::charging::journal::{Entry, Published};
use crate::charging::time::{Span, Timestamp};
use crate::store::{self, OutboxId, Partition, Queue, ReferenceKind, Version, record};

/// Entries of one partition taken in one go, and of all partitions: the records of these are in memory together.
const TAKEN_AT_ONCE: usize = 100;
const BATCH: u64 = 1000;

/// Calls to the store under way at once: for so many partitions, and for so many records of each.
const PARTITIONS_AT_ONCE: usize = 8;
const RECORDS_AT_ONCE: usize = 8;

/// Octets of a record as long as none was written.
const OCTETS_AT_FIRST: u64 = 2048;

/// Times that a change of the state is tried again because another exporter was faster.
const ATTEMPTS: u32 = 16;

/// The journal of a session that goes on after a part of its record is out lives until the rest is: for ever, as far
/// as any session is concerned.
const WHILE_OPEN: Span = Span::from_secs(u32::MAX);

const STATE: &str = "export";

/// The exporter of one directory, or who waits for it: the directory is one process's at a time, and whoever finds it
/// taken takes it over when that process is gone.
pub struct Records<P: Place = PathBuf> {
    app: App,
    place: P,
    settings: directory::Settings,
    times: Times,
    exporter: Option<Exporter<P>>,
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

impl<P: Place> Records<P> {
    /// # Errors
    ///
    /// When nobody could write there; not when somebody else does.
    pub fn new(app: App, place: P, settings: directory::Settings, times: Times) -> Result<Self, Error> {
        let mut records = Self { app, place, settings, times, exporter: None };
        records.exporter = records.try_open()?;
        Ok(records)
    }

    fn try_open(&self) -> Result<Option<Exporter<P>>, Error> {
        let directory = Directory::at(&self.place, self.settings.clone())?;
        Ok(directory.map(|directory| Exporter {
            app: self.app.clone(),
            writer: directory.writer(),
            directory: Arc::new(Mutex::new(directory)),
            settings: self.settings.clone(),
            times: self.times,
            complete: None,
            waiting_since: Some(Timestamp::from_millis(0)),
            octets_each: OCTETS_AT_FIRST,
        }))
    }

    pub(super) fn count_failure(&self) {
        self.app.shared.metrics.cdr_errors.inc();
    }

    /// Brings everything on by a step.
    pub async fn step(&mut self, waiting: &Waiting) -> Result<(), Error> {
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
        let Some(exporter) = &mut self.exporter else { return Ok(()) };
        let all: Vec<_> = Partition::all().collect();
        let found = self.app.store.look(&all, self.app.shared.clock.now()).await?;
        let waiting = found.iter().map(|work| (work.partition, work.records)).filter(|(_, records)| *records > 0);
        exporter.export(waiting.collect(), Closure::Manual).await.map(drop)
    }
}

struct Exporter<P: Place> {
    app: App,
    directory: Arc<Mutex<Directory<P::Folder>>>,
    writer: Uuid,
    settings: directory::Settings,
    times: Times,
    /// The file in the state whose records are all in the directory's file under way.
    complete: Option<u32>,
    /// Since when records wait. Before the first look it is for ever, so that an instance that never lives as long as a
    /// file publishes all the same.
    waiting_since: Option<Timestamp>,
    /// Octets of a record in the longest format, as they were in the last file.
    octets_each: u64,
}

impl<P: Place> Exporter<P> {
    async fn step(&mut self, waiting: &Waiting) -> Result<(), Error> {
        self.attend(self.writer).await?;
        let state = self.state().await?.0;
        self.bring_on(&state).await?;
        if let Some(number) = self.complete {
            self.publish(number, Closure::Manual).await?;
        }
        if let Some(closure) = self.is_time(waiting) {
            let is_all = self.export(waiting.iter().copied().collect(), closure).await?;
            self.waiting_since = self.waiting_since.filter(|_| !is_all);
        }
        Ok(())
    }

    /// Whether what waits is to come out now, and why.
    fn is_time(&mut self, waiting: &Waiting) -> Option<Closure> {
        let records = waiting.iter().map(|(_, records)| records).sum::<u64>();
        if records == 0 {
            self.waiting_since = None;
            return None;
        }
        let now = self.app.shared.clock.now();
        let since = *self.waiting_since.get_or_insert(now);
        if records >= u64::from(self.settings.records_max) {
            Some(Closure::Records)
        } else if records.saturating_mul(self.octets_each) >= self.settings.bytes_max {
            Some(Closure::Size)
        } else {
            (now >= since.after(self.settings.lives_for)).then_some(Closure::Age)
        }
    }

    /// Whether nobody else attends to the directory. A lease is the writer's and not its process's: the directory's lock
    /// leaves no more than one, and the next one after a crash attends at once.
    async fn attend(&self, directory: Uuid) -> Result<bool, store::Error> {
        let what = format!("records/{directory}");
        self.app.store.lease(&what, &self.writer.to_string(), self.times.attended).await
    }

    /// Takes what waits into files and publishes each; `closure` is why the last one is closed. `false` when another
    /// exporter came in between: the next step finds out what that means for the file under way, and goes on.
    async fn export(&mut self, mut waiting: VecDeque<(Partition, u64)>, closure: Closure) -> Result<bool, Error> {
        while !waiting.is_empty() {
            self.attend(self.writer).await?;
            if !self.take(&mut waiting).await? {
                return Ok(false);
            }
            let now = self.app.shared.clock.now();
            let full = self.on_directory(move |directory| Ok(directory.is_full(now))).await?;
            if let (Some(number), Some(full)) = (self.complete, full) {
                self.publish(number, full).await?;
            }
        }
        if let Some(number) = self.complete {
            self.publish(number, closure).await?;
        }
        Ok(true)
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

    /// Takes some of what waits into the file under way, no more than fits into it. `false` when another exporter was
    /// there first, and nothing is taken.
    async fn take(&mut self, waiting: &mut VecDeque<(Partition, u64)>) -> Result<bool, Error> {
        let (number, records, octets) =
            self.on_directory(|directory| Ok((directory.number()?.0, directory.records(), directory.octets()))).await?;
        let fits = self.settings.bytes_max.saturating_sub(octets) / self.octets_each;
        let fits = fits.min(u64::from(self.settings.records_max.saturating_sub(records))).clamp(1, BATCH);
        let state = self.state().await?.0;
        let after = |partition| (partition, state.taken_upto(partition).cloned());
        let batch = batch(waiting, fits).into_iter().map(|(partition, limit)| (after(partition), limit));
        let next = batch.map(|((partition, after), limit)| self.next_of(partition, after, limit));
        let found: Vec<_> = together(next, PARTITIONS_AT_ONCE).await?;
        let (taken, records): (Vec<_>, Vec<_>) = found.into_iter().flatten().unzip();
        if taken.is_empty() {
            return Ok(true);
        }
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
            self.complete = was_complete;
            return Ok(false);
        };
        if !continues {
            // What may be under way is of a file that was taken over after an error here.
            self.on_directory(|directory| directory.abandon()).await?;
        }
        let first_numbers = segments.iter().map(|segment| segment.first_number);
        self.append(first_numbers.zip(records).collect(), &recording_nf).await?;
        self.complete = Some(number);
        let (records, octets) = self.on_directory(|directory| Ok((directory.records(), directory.octets()))).await?;
        self.octets_each = octets.checked_div(u64::from(records)).unwrap_or(self.octets_each).max(1);
        Ok(true)
    }

    /// The next entries of a partition, with their records; those before the first one that cannot be read, which stays
    /// until somebody mends it and keeps back its partition alone.
    async fn next_of(
        &self,
        partition: Partition,
        after: Option<OutboxId>,
        limit: usize,
    ) -> Result<Option<(Taken, Vec<Cdr>)>, Error> {
        let mut entries = self.app.store.outbox(partition, Queue::Records, after.as_ref(), limit).await?;
        let records = loop {
            match self.records_of(&entries).await {
                Err(Error::Store(store::Error::Corrupt(_))) if entries.len() > 1 => entries.truncate(entries.len() / 2),
                Err(Error::Store(error @ store::Error::Corrupt(_))) => {
                    tracing::error!(partition = partition.0, %error, "a record cannot be made; those behind it wait");
                    return Ok(None);
                }
                records => break records?,
            }
        };
        let Some((upto, _)) = entries.last() else { return Ok(None) };
        let upto = upto.clone();
        let taken = Taken { partition, after, upto, records: u32::try_from(records.len()).unwrap_or(u32::MAX) };
        Ok(Some((taken, records)))
    }

    async fn append_all(&self, segments: &[Segment], recording_nf: &str) -> Result<(), Error> {
        for segment in segments {
            let entries = self.entries_of(segment).await?;
            let records = self.records_of(&entries).await?;
            self.append(vec![(segment.first_number, records)], recording_nf).await?;
        }
        Ok(())
    }

    /// Appends rows of records, each with the number of its first one.
    async fn append(&self, rows: Vec<(u32, Vec<Cdr>)>, recording_nf: &str) -> Result<(), Error> {
        let now = self.app.shared.clock.now();
        let recording_nf: Box<str> = recording_nf.into();
        let append = move |directory: &mut Directory<P::Folder>| {
            for (first_number, records) in &rows {
                for (at, cdr) in (0..).zip(records) {
                    let encoded = encode(directory, cdr, &recording_nf, first_number.wrapping_add(at));
                    directory.append(now, &encoded)?;
                }
            }
            Ok(())
        };
        self.on_directory(append).await
    }

    async fn publish(&mut self, number: u32, closure: Closure) -> Result<(), Error> {
        self.complete = None;
        // Once it is announced, nobody but this process may finish it; so a disk that is full had better say so before.
        self.on_directory(move |directory| directory.seal(closure)).await?;
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
        let segments = file.segments.iter().map(|segment| self.acknowledge_segment(file, segment));
        together(segments, PARTITIONS_AT_ONCE).await?;
        let (writer, number) = (file.writer, file.number);
        self.change(|state| state.forget(writer, number).then_some(())).await?;
        Ok(())
    }

    async fn acknowledge_segment(&self, file: &File, segment: &Segment) -> Result<(), Error> {
        let entries = self.entries_of(segment).await?;
        let mut closed = closed_records(&entries)?;
        let records = usize::try_from(segment.records).unwrap_or(usize::MAX);
        // Entries go after all that is to be noted is noted: where some are gone, the rest only has to follow them.
        if closed.len() < records {
            closed.clear();
        }
        // An entry whose journal was gone got no number.
        if closed.len() > records {
            let records = together(closed.iter().map(|one| self.record(one)), RECORDS_AT_ONCE).await?;
            let mut records = records.iter();
            closed.retain(|_| records.next().is_some_and(Option::is_some));
        }
        let name = format!("{}/{}", file.writer, file.number);
        let numbers = (0..).map(|at| segment.first_number.wrapping_add(at));
        let retired = numbers.zip(&closed).map(|(number, closed)| self.retire(closed, number, &name));
        together(retired, RECORDS_AT_ONCE).await?;
        self.app.shared.metrics.cdrs.inc_by(closed.len() as u64);
        let ids: Vec<OutboxId> = entries.into_iter().map(|(id, _)| id).collect();
        self.app.store.acknowledge(Partition(segment.partition), Queue::Records, &ids).await?;
        Ok(())
    }

    /// Notes in the journal where the record is, and lets the journal end. Noting it again says the same.
    async fn retire(&self, closed: &Closed, number: u32, file: &str) -> Result<(), Error> {
        let Closed { session, part, has_ended } = closed;
        let Some(account) = self.app.shared.refs.account_of(session.as_str()) else { return Ok(()) };
        let has_ended = *has_ended || self.app.session(session).await?.is_none_or(|session| session.is_closed());
        let lives_for = if has_ended { self.times.retention } else { WHILE_OPEN };
        let published = Published { part: *part, local_record_sequence_number: number, file: file.into() };
        let entry = record::encode_entry(&Entry::published(self.app.shared.clock.now(), published), &[]);
        self.app.store.retire(account, session, Some(entry), lives_for).await?;
        Ok(())
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
                // The last one may be acknowledged already, before a crash or by another exporter; what comes after it
                // is in another file or in none.
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
        let closed = closed_records(entries)?;
        let records = together(closed.iter().map(|one| self.record(one)), RECORDS_AT_ONCE).await?;
        Ok(records.into_iter().flatten().collect())
    }

    /// `None` when its journal has ended.
    async fn record(&self, closed: &Closed) -> Result<Option<Cdr>, store::Error> {
        let Some(account) = self.app.shared.refs.account_of(closed.session.as_str()) else { return Ok(None) };
        let journal = self.app.session_journal(account, &closed.session).await?;
        Ok(Cdr::part(&closed.session, &journal, closed.part))
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
        work: impl FnOnce(&mut Directory<P::Folder>) -> Result<T, directory::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let directory = Arc::clone(&self.directory);
        let work = move || work(&mut directory.lock().unwrap_or_else(PoisonError::into_inner));
        if !P::WAITS_FOR_DISK {
            return Ok(work()?);
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => Ok(outcome?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// A record that an entry of the outbox speaks of.
struct Closed {
    session: ChargingDataRef,
    part: u32,
    /// The session had ended when the record closed; else it may have since.
    has_ended: bool,
}

fn closed_records(entries: &[(OutboxId, bytes::Bytes)]) -> Result<Vec<Closed>, store::Error> {
    let mut closed = Vec::with_capacity(entries.len());
    for (_, bytes) in entries {
        match record::decode(bytes)? {
            Outgoing::Record { session, part, ended, .. } => closed.push(Closed { session, part, has_ended: ended }),
            Outgoing::Notify(_) | Outgoing::Credited { .. } => {}
        }
    }
    Ok(closed)
}

/// The next partitions, and how many entries to take of each: together no more than `fits`. What is not taken of the last
/// ones stays in front.
fn batch(waiting: &mut VecDeque<(Partition, u64)>, fits: u64) -> Vec<(Partition, usize)> {
    let mut batch = Vec::new();
    let mut left = fits;
    while left > 0
        && let Some((partition, records)) = waiting.pop_front()
    {
        let limit = records.min(left).min(TAKEN_AT_ONCE as u64);
        left -= limit;
        batch.push((partition, usize::try_from(limit).unwrap_or(TAKEN_AT_ONCE)));
        if records > limit {
            waiting.push_front((partition, records - limit));
            // Its next entries come after these.
            break;
        }
    }
    batch
}

/// The core splits records long before; one that is too long all the same is written without what was kept verbatim, and
/// said so, rather than leave a gap in the numbers.
fn encode(directory: &Directory<impl Files>, cdr: &Cdr, recording_nf: &str, number: u32) -> Encoded {
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
