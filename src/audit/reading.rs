//! One account with all its sessions and journals, as they were at one moment.
//!
//! Others may work on the store meanwhile, and no store reads all of this in one step. So the documents are read before
//! and after everything else, and only if their versions are still the same it is a reading of one moment: whatever
//! changes a journal, a timer entry or a listing writes a document in the same commit. (Claims of timers and notes of
//! published records do not; they are told apart where they matter.)

use std::collections::BTreeSet;

use super::report::{Report, Subject};
use super::survey::all;
use crate::charging::account::Account;
use crate::charging::ids::ChargingDataRef;
use crate::charging::journal::Entry;
use crate::charging::session::ChargingSession;
use crate::store::record::JournalReader;
use crate::store::{self, AccountKey, Document, Indexed, JournalKey, List, Load, Store, Version, record};

/// Readings of an account that keeps changing.
const ATTEMPTS: u32 = 5;

/// Documents and names asked for in one go.
const PAGE: usize = 200;

pub struct Reading {
    pub name: String,
    pub version: Version,
    /// `None` where there is no document.
    pub account: Option<Account>,
    pub journal: Vec<Entry>,
    pub sessions: Vec<SessionReading>,
    /// Something of it could not be read and is missing here.
    pub is_damaged: bool,
}

pub struct SessionReading {
    pub reference: ChargingDataRef,
    /// `None` where there is no document.
    pub session: Option<Box<ChargingSession>>,
    pub journal: Vec<Entry>,
    pub indexed: Indexed,
    pub listed_closed: bool,
    /// As of [`Reading`].
    pub is_damaged: bool,
}

/// Reads an account with the sessions that are known of it and those that its listings name. `None` if it changed at
/// each attempt. What cannot be read is reported.
pub async fn read(
    store: &dyn Store,
    key: AccountKey,
    known: &BTreeSet<ChargingDataRef>,
    report: &mut Report,
) -> Result<Option<Reading>, store::Error> {
    for _ in 0..ATTEMPTS {
        let mut found = Report::default();
        if let Some(reading) = attempt(store, key, known, &mut found).await? {
            report.add(found);
            return Ok(Some(reading));
        }
    }
    Ok(None)
}

async fn attempt(
    store: &dyn Store,
    key: AccountKey,
    known: &BTreeSet<ChargingDataRef>,
    report: &mut Report,
) -> Result<Option<Reading>, store::Error> {
    let document = account_document(store, key).await?;
    let open = all(async |cursor| store.list(&List::OpenSessionsOf(key), cursor, PAGE).await).await?;
    let closed = all(async |cursor| store.list(&List::ClosedSessionsOf(key), cursor, PAGE).await).await?;
    let listed = open.iter().chain(&closed).map(|reference| ChargingDataRef::new(reference.clone()));
    let references: Vec<ChargingDataRef> =
        known.iter().cloned().chain(listed).collect::<BTreeSet<_>>().into_iter().collect();
    let documents = session_documents(store, key, &references).await?;

    let mut reader = Reader { store, report, is_damaged: false };
    let account: Option<Account> = match &document {
        Some(document) => {
            reader.readable(Subject::Account(key.to_string()), "its document", record::decode(&document.bytes))
        }
        None => None,
    };
    let name = account.as_ref().map_or_else(|| key.to_string(), |account| account.id.as_str().to_owned());
    let journal = reader.journal(&JournalKey::Account(key), Subject::Account(name.clone())).await?;
    let mut is_damaged = reader.is_damaged;
    let mut sessions = Vec::with_capacity(references.len());
    for (reference, document) in references.iter().zip(&documents) {
        let subject = || Subject::Session(reference.to_string());
        reader.is_damaged = false;
        let session = match document {
            Some(document) => {
                let session = record::decode_session(reference, &document.bytes);
                reader.readable(subject(), "its document", session)
            }
            None => None,
        };
        let journal = reader.journal(&JournalKey::Session(key, reference.clone()), subject()).await?;
        let indexed = store.indexes(key, reference).await?;
        let listed_closed = closed.contains(reference.as_str());
        is_damaged |= reader.is_damaged;
        let is_damaged = reader.is_damaged;
        sessions.push(SessionReading {
            reference: reference.clone(),
            session,
            journal,
            indexed,
            listed_closed,
            is_damaged,
        });
    }

    let is_unchanged = Version::of(account_document(store, key).await?.as_ref()) == Version::of(document.as_ref())
        && versions(&session_documents(store, key, &references).await?) == versions(&documents);
    let version = Version::of(document.as_ref());
    Ok(is_unchanged.then_some(Reading { name, version, account, journal, sessions, is_damaged }))
}

struct Reader<'a> {
    store: &'a dyn Store,
    report: &'a mut Report,
    is_damaged: bool,
}

impl Reader<'_> {
    fn readable<T>(&mut self, subject: Subject, what: &str, decoded: Result<T, store::Error>) -> Option<T> {
        decoded.map_err(|error| self.found_unreadable(subject, what, error)).ok()
    }

    async fn journal(&mut self, key: &JournalKey, subject: Subject) -> Result<Vec<Entry>, store::Error> {
        let entries = match self.store.journal(key).await {
            Ok(entries) => entries,
            Err(error @ store::Error::Corrupt(_)) => {
                self.found_unreadable(subject, "its journal", error);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        self.report.counts.entries += entries.len() as u64;
        let mut reader = JournalReader::default();
        let numbered = entries.iter().enumerate();
        let decode = |(at, bytes): (usize, &bytes::Bytes)| {
            self.readable(subject.clone(), &format!("entry {at} of its journal"), reader.decode(bytes))
        };
        Ok(numbered.filter_map(decode).collect())
    }

    fn found_unreadable(&mut self, subject: Subject, what: &str, error: store::Error) {
        self.is_damaged = true;
        self.report.unreadable(subject, what, error);
    }
}

async fn account_document(store: &dyn Store, key: AccountKey) -> Result<Option<Document>, store::Error> {
    Ok(store.load(&Load { account: key, session: None, index: Vec::new() }).await?.account)
}

async fn session_documents(
    store: &dyn Store,
    key: AccountKey,
    references: &[ChargingDataRef],
) -> Result<Vec<Option<Document>>, store::Error> {
    let mut documents = Vec::with_capacity(references.len());
    for some in references.chunks(PAGE) {
        documents.extend(store.sessions(key, some).await?);
    }
    Ok(documents)
}

fn versions(documents: &[Option<Document>]) -> Vec<Version> {
    documents.iter().map(|document| Version::of(document.as_ref())).collect()
}
