//! Proves conservation over a store and its record files: whether what the documents say follows from the journals, and
//! what the files say follows from them too.
//!
//! It reads what the charging function has written and shares no rule of it: nothing here rates, reserves or settles,
//! and no bookkeeping is done by the core's code. What it knows are the shapes of documents and entries, and what must
//! hold between them, which is the list of [`Rule`]s. Nothing is written.
//!
//! Other instances may work on the store meanwhile: see [`reading`] for what is then true. What cannot be proven,
//! because a journal has ended or a file was collected, is said, and is neither a violation nor passed over.
//! Names of sessions and what their records must say are held in memory, everything else for one account at a time.
//!
//! Reading order: [`report`], then `account` (where money came from), `session` (what one session must fulfil),
//! `records` (files beside journals). `survey` and `reading` get it from the store, `files` and `ber` from the disk.

mod account;
mod ber;
mod files;
mod numbers;
mod reading;
mod records;
pub mod report;
mod session;
mod sum;
mod survey;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use account::Lost;
use files::Line;
use records::{Ended, Seen};
use report::Subject;
pub use report::{Report, Rule};
use session::{Closed, Moment, Records};
use sum::Sum;
use survey::Survey;

use crate::charging::ids::ChargingDataRef;
use crate::charging::journal::{Entry, Event};
use crate::charging::time::{Span, Timestamp};
use crate::store::{self, AccountKey, JournalKey, RefCodec, Store, record};

pub struct Settings {
    pub now: Timestamp,
    /// How long journals are kept after their records are published. If it was shorter once, journals may have ended
    /// that are taken for lost.
    pub retention: Span,
    /// Where record files are. One that is twice among them counts once.
    pub directories: Vec<PathBuf>,
}

/// Why there is no report. What cannot be read because it is damaged is a finding, and not this.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("cannot read the record files in {}: {error}", .path.display())]
    Files { path: PathBuf, error: io::Error },
}

/// Reads everything there is: some round trips for each session that has a document or a journal.
pub async fn audit(store: &dyn Store, settings: &Settings) -> Result<Report, Error> {
    let ended_before = settings.now.before(settings.retention);
    let mut audit = Audit {
        store,
        refs: RefCodec::new(store.identity().secret),
        moment: Moment { now: settings.now, ended_before },
        report: Report::default(),
        sessions: HashMap::new(),
        names: HashMap::new(),
        lost: HashMap::new(),
    };
    let survey = Survey::of(store, &audit.refs, &mut audit.report).await?;
    for (key, references) in &survey.accounts {
        audit.account(*key, references, &survey).await?;
    }
    audit.files(&settings.directories).await?;
    Ok(audit.report)
}

struct Audit<'a> {
    store: &'a dyn Store,
    refs: RefCodec,
    moment: Moment,
    report: Report,
    /// The records of every session, to be found in files.
    sessions: HashMap<ChargingDataRef, Records>,
    /// Of the accounts whose balances could be followed.
    names: HashMap<AccountKey, String>,
    lost: HashMap<AccountKey, Lost>,
}

impl Audit<'_> {
    async fn account(
        &mut self,
        key: AccountKey,
        references: &BTreeSet<ChargingDataRef>,
        survey: &Survey,
    ) -> Result<(), store::Error> {
        let Some(reading) = reading::read(self.store, key, references, &mut self.report).await? else {
            let why = "it and its sessions: others were changing it at each attempt to read it";
            self.report.not_proven(Subject::Account(key.to_string()), why);
            self.sessions.extend(references.iter().map(|reference| (reference.clone(), Records::Unread)));
            return Ok(());
        };
        self.report.counts.accounts += u64::from(reading.account.is_some());
        self.report.counts.sessions += reading.sessions.len() as u64;
        let lost = account::check(&reading, self.moment.ended_before, &mut self.report);
        if !reading.is_damaged {
            self.names.insert(key, reading.name.clone());
            self.lost.insert(key, lost);
        }
        let mut missing = Vec::new();
        for one in &reading.sessions {
            let records = session::check(self.moment, one, &mut self.report);
            if let Records::Known(closed) = &records {
                let unpublished = closed.iter().filter(|record| record.number.is_none());
                let unseen = unpublished.map(|record| (one.reference.clone(), record.part));
                missing.extend(unseen.filter(|record| !survey.waiting.contains(record)));
            }
            self.sessions.insert(one.reference.clone(), records);
        }
        if !missing.is_empty() {
            self.look_again(key, missing).await?;
        }
        Ok(())
    }

    /// Closed records that were not waiting for a file when that was looked for: they may have closed, or been
    /// published, since.
    async fn look_again(
        &mut self,
        key: AccountKey,
        mut missing: Vec<(ChargingDataRef, u32)>,
    ) -> Result<(), store::Error> {
        let waiting = survey::waiting(self.store, key.partition(), &mut Report::default()).await?;
        missing.retain(|record| !waiting.contains(record));
        for (reference, part) in missing {
            // In this order: what leaves the outbox stands in the journal before.
            let closed = self.closed_records(key, &reference).await?;
            if !closed.iter().any(|record| record.part == part && record.number.is_some()) {
                let of = format!("files that record {part} is in or waits for");
                self.report.violated(Rule::Record, Subject::Session(reference.to_string()), of, 1, 0);
            }
        }
        Ok(())
    }

    /// As the journal is now; none if it is not whole.
    async fn closed_records(&self, key: AccountKey, reference: &ChargingDataRef) -> Result<Vec<Closed>, store::Error> {
        let journal = self.store.journal(&JournalKey::Session(key, reference.clone())).await?;
        let opens =
            |entries: &Vec<Entry>| matches!(entries.first().map(|entry| &entry.event), Some(Event::Opened { .. }));
        let whole = record::decode_journal(&journal).ok().filter(opens);
        Ok(whole.map_or_else(Vec::new, |entries| session::closed_records(&entries)))
    }

    async fn files(&mut self, directories: &[PathBuf]) -> Result<(), Error> {
        let (refs, sessions) = (self.refs.clone(), std::mem::take(&mut self.sessions));
        let mut seen = Seen::new(&refs, self.moment.ended_before, &sessions);
        for path in each_once(directories)? {
            files::read_directory(&path, &mut self.report, |file, line, report| seen.take(file, line, report))
                .map_err(|error| Error::Files { path, error })?;
        }
        seen.finish(&mut self.report);
        for (file, line) in std::mem::take(&mut seen.strangers) {
            self.stranger(&file, &line).await?;
        }
        self.ended(&seen.ended);
        Ok(())
    }

    /// A record that no journal told of when the journals were read.
    async fn stranger(&mut self, file: &str, line: &Line) -> Result<(), store::Error> {
        let Some(key) = self.refs.account_of(line.session.as_str()) else { return Ok(()) };
        let closed = self.closed_records(key, &line.session).await?;
        match closed.iter().find(|record| record.part == line.part) {
            Some(record) => records::compare(record, line, &mut self.report),
            None => records::unknown(file, line, &mut self.report),
        }
        Ok(())
    }

    /// Records stand in for the debits of journals that have ended.
    fn ended(&mut self, ended: &HashMap<AccountKey, Ended>) {
        let mut keys: Vec<&AccountKey> = self.names.keys().collect();
        keys.sort();
        for key in keys {
            let subject = Subject::Account(self.names[key].clone());
            let Lost { debited, breaks } = self.lost.get(key).cloned().unwrap_or_default();
            let Ended { charged, records } = ended.get(key).copied().unwrap_or_default();
            let [shown, told] = [debited, charged].map(Sum::money);
            if breaks > 0 && debited != charged {
                let why = format!(
                    "its money: {shown} went by journals that have ended, and {records} records in files tell of {told}"
                );
                self.report.not_proven(subject, why);
            } else if breaks == 0 && charged != 0 {
                let of = format!("money charged by {records} records in files that no journal tells of");
                self.report.violated(Rule::Charged, subject, of, shown, told);
            }
        }
    }
}

/// The directories, each once, however it is spelled.
fn each_once(directories: &[PathBuf]) -> Result<BTreeSet<PathBuf>, Error> {
    let real = |path: &PathBuf| Path::canonicalize(path).map_err(|error| Error::Files { path: path.clone(), error });
    directories.iter().map(real).collect()
}
