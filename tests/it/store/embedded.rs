//! The place of the embedded store, and what a killed process leaves. Its broken disks are in `src/store/embedded`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use nchf::charging::time::{Span, Timestamp};
use nchf::clock::{ManualClock, SystemClock};
use nchf::store::embedded::{EmbeddedStore, Settings};
use nchf::store::{Commit, JournalKey, SessionWrite, Store, Version};
use tempfile::TempDir;

use super::place::{account, load, session, session_write, writes};

pub struct Place {
    clock: ManualClock,
    store: EmbeddedStore,
    /// Removed last.
    _directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let clock = ManualClock::at(Timestamp::from_secs(1_800_000_000));
        let directory = TempDir::new().unwrap();
        let store = EmbeddedStore::open(&Settings::at(directory.path()), Arc::new(clock.clone())).unwrap();
        Self { clock, store, _directory: directory }
    }
}

#[async_trait]
impl super::place::Place for Place {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn pass(&self, span: Span) {
        self.clock.advance(span);
    }
}

/// Names the directory to the process that is going to be killed.
const DIRECTORY: &str = "NCHF_TEST_KILLED_IN";
const ACCOUNTS: u64 = 64;
const ACKNOWLEDGED_MIN: usize = 2000;

#[tokio::test]
async fn a_killed_process_loses_nothing_it_acknowledged() {
    let directory = TempDir::new().unwrap();
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..3 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::embedded::commits_until_it_is_killed", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut count = 0;
        for line in lines.map_while(Result::ok) {
            let Some(said) = line.strip_prefix("acknowledged ") else { continue };
            let (number, version) = said.split_once(' ').unwrap();
            acknowledged.insert(number.parse().unwrap(), version.parse().unwrap());
            count += 1;
            if count == ACKNOWLEDGED_MIN {
                // What it has already said is still read to its end.
                process.kill().unwrap();
            }
        }
        assert!(!process.wait().unwrap().success(), "it was killed in the middle of its work");
        assert!(count >= ACKNOWLEDGED_MIN, "round {round}: {count}");

        let store = open(directory.path());
        for number in 0..ACCOUNTS {
            let known = acknowledged.get(&number).copied().unwrap_or_default();
            let found = version_of(&store, number).await.0;
            assert!(known <= found && found <= known + 1, "account {number}: {known} acknowledged, {found} found");
        }
    }
}

/// Does nothing in a usual run: it is the process that the test above starts and kills.
#[tokio::test]
async fn commits_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = open(OsStr::as_ref(&directory));
    let mut committers = tokio::task::JoinSet::new();
    for number in 0..ACCOUNTS {
        let store = store.clone();
        committers.spawn(async move {
            loop {
                let version = version_of(&store, number).await;
                let key = session(&store, account(number), 1);
                let entry = Some(Bytes::from(version.next().0.to_string()));
                let write = SessionWrite { journal: entry.clone(), ..session_write(&key, version, "session") };
                let commit = Commit {
                    sessions: vec![write],
                    account_journal: entry,
                    ..writes(account(number), version, "account")
                };
                store.commit(&commit).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {number} {}", version.next().0).unwrap();
                out.flush().unwrap();
            }
        });
    }
    committers.join_all().await;
}

fn open(directory: &Path) -> EmbeddedStore {
    EmbeddedStore::open(&Settings::at(directory), Arc::new(SystemClock)).unwrap()
}

/// The version of account and session; checks that both journals tell of it.
async fn version_of(store: &EmbeddedStore, number: u64) -> Version {
    let key = session(store, account(number), 1);
    let found = load(store, account(number), Some(&key)).await;
    let version = found.account.map_or(Version::ABSENT, |document| document.version);
    assert_eq!(found.session.map_or(Version::ABSENT, |document| document.version), version);
    let entries: Vec<Bytes> = (1..=version.0).map(|version| Bytes::from(version.to_string())).collect();
    assert_eq!(store.journal(&JournalKey::Account(account(number))).await.unwrap(), entries);
    assert_eq!(store.journal(&JournalKey::Session(account(number), key)).await.unwrap(), entries);
    version
}
