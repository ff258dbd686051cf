//! What only this store promises: its file, its disk, its groups. What all stores promise is in `tests/it/store`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};
use tempfile::TempDir;

use super::*;
use crate::charging::time::Span;
use crate::clock::{ManualClock, SystemClock};
use crate::store::{IndexKey, IndexWrite, Listing, Origin, SessionWrite, TimerWrite};

mod disk;
mod measure;

use disk::Disk;
use writer::FLUSH_AFTER;

fn start() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

fn account(number: u64) -> AccountKey {
    AccountKey(number)
}

fn session() -> ChargingDataRef {
    ChargingDataRef::new("0123456789abcdef0123456789abcdef01234567")
}

/// Writes the account, its one session and an entry of everything else. `version` is the one that both have so far.
fn update(account: AccountKey, version: u64) -> Commit {
    let text = |what: &str| Bytes::from(format!("{what} of {account}, version {}", version + 1));
    Commit {
        origin: Origin::ANY,
        account,
        account_expected: Version(version),
        account_steps: 1,
        account_document: Some(text("account")),
        account_journal: Some(text("account entry")),
        sessions: vec![SessionWrite {
            key: session(),
            expected: Version(version),
            document: text("session"),
            lives_for: Span::from_secs(3600),
            timer: if version == 0 { TimerWrite::At(start()) } else { TimerWrite::Keep },
            listing: if version == 0 { Listing::Open(start()) } else { Listing::Keep },
            journal: Some(text("session entry")),
        }],
        outbox: vec![(Queue::Records, text("outbox"))],
        index: vec![IndexWrite { key: IndexKey(7), value: text("index"), lives_for: Some(Span::from_secs(60)) }],
    }
}

/// The version that account and session have; checks that nothing else says otherwise.
async fn version(store: &EmbeddedStore, account: AccountKey) -> u64 {
    let load = Load { account, session: Some(session()), index: vec![IndexKey(7)] };
    let found = store.load(&load).await.unwrap();
    let version = found.account.as_ref().map_or(0, |document| document.version.0);
    let written = version.checked_sub(1).map(|before| update(account, before));
    let document = |bytes: Bytes| Document { version: Version(version), bytes };
    assert_eq!(found.account, written.as_ref().and_then(|commit| commit.account_document.clone()).map(document));
    assert_eq!(found.session, written.as_ref().map(|commit| document(commit.sessions[0].document.clone())));
    assert_eq!(found.index, [written.as_ref().map(|commit| commit.index[0].value.clone())]);

    let all: Vec<Commit> = (0..version).map(|before| update(account, before)).collect();
    let entries: Vec<Bytes> = all.iter().filter_map(|commit| commit.account_journal.clone()).collect();
    assert_eq!(store.journal(&JournalKey::Account(account)).await.unwrap(), entries);
    let entries: Vec<Bytes> = all.iter().filter_map(|commit| commit.sessions[0].journal.clone()).collect();
    assert_eq!(store.journal(&JournalKey::Session(account, session())).await.unwrap(), entries);
    let outbox = store.outbox(account.partition(), Queue::Records, None, 1000).await.unwrap();
    let entries: Vec<Bytes> = all.iter().map(|commit| commit.outbox[0].1.clone()).collect();
    assert_eq!(outbox.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(), entries);
    let listed = store.list(&List::OpenSessionsOf(account), None, 10).await.unwrap().items;
    let due = store.due(account.partition(), start(), 10).await.unwrap();
    let times = usize::from(version > 0);
    assert_eq!((listed.len(), due.len()), (times, times));
    version
}

fn open(directory: &TempDir, clock: &ManualClock) -> EmbeddedStore {
    EmbeddedStore::open(&Settings::at(directory.path()), Arc::new(clock.clone())).unwrap()
}

fn open_disk(disk: &Disk, durability: Durability) -> Result<EmbeddedStore, Error> {
    let settings = Settings { durability, cache_bytes: 1 << 20, ..Settings::at("nowhere") };
    open::backend_of(disk.clone(), &settings, Arc::new(ManualClock::at(start())))
}

/// Why it cannot be opened.
fn refusal(directory: &TempDir) -> Error {
    EmbeddedStore::open(&Settings::at(directory.path()), Arc::new(SystemClock)).map(drop).unwrap_err()
}

#[tokio::test]
async fn a_closed_store_opens_at_once_with_everything_it_acknowledged() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    let identity = store.identity().clone();
    let mut last_outbox = None;
    for before in 0..20 {
        store.commit(&update(account(1), before)).await.unwrap();
        last_outbox = store.outbox(account(1).partition(), Queue::Records, None, 100).await.unwrap().pop();
    }
    drop(store);
    let store = open(&directory, &clock);
    assert_eq!(version(&store, account(1)).await, 20);
    assert_eq!(store.identity().secret, identity.secret);
    assert_eq!(store.identity().instance_id, identity.instance_id);
    store.commit(&update(account(1), 20)).await.unwrap();
    let newest = store.outbox(account(1).partition(), Queue::Records, None, 100).await.unwrap().pop();
    assert!(last_outbox.unwrap().0 < newest.unwrap().0, "ids grow across a restart");
}

#[tokio::test]
async fn dropping_the_store_finishes_what_it_accepted() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    for number in 0..50 {
        let commit = update(account(number), 0);
        // Polled once, which hands it to the writer, and never again.
        tokio::select! {
            biased;
            _ = store.commit(&commit) => {}
            () = std::future::ready(()) => {}
        }
    }
    drop(store);
    let store = open(&directory, &clock);
    for number in 0..50 {
        assert_eq!(version(&store, account(number)).await, 1);
    }
}

#[test]
fn a_directory_that_is_in_use_is_refused() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    let refusal = refusal(&directory).to_string();
    assert!(refusal.contains("open in another process"), "{refusal}");
    drop(store);
    open(&directory, &clock);
}

#[test]
fn missing_directories_are_created() {
    let directory = TempDir::new().unwrap();
    let settings = Settings::at(directory.path().join("some").join("where"));
    EmbeddedStore::open(&settings, Arc::new(SystemClock)).unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let refusal = EmbeddedStore::open(&Settings::at(&file), Arc::new(SystemClock)).map(drop).unwrap_err();
    assert!(matches!(refusal, Error::Unavailable { applied: Applied::No, .. }), "{refusal}");
}

#[test]
fn replicas_are_refused_before_anything_is_created() {
    let directory = TempDir::new().unwrap();
    let settings = Settings { durability: Durability::Replicated, ..Settings::at(directory.path().join("new")) };
    let refusal = EmbeddedStore::open(&settings, Arc::new(SystemClock)).map(drop).unwrap_err();
    assert!(refusal.to_string().contains("no replicas"), "{refusal}");
    assert!(!settings.directory.exists());
}

#[test]
fn another_format_or_partition_count_is_refused_by_name() {
    for (name, value, expected) in [
        (tables::META_FORMAT, &7_u32.to_be_bytes()[..], "it has format 7"),
        (tables::META_PARTITIONS, &512_u16.to_be_bytes()[..], "it has 512 partitions and this program 1024"),
        (tables::META_SECRET, &[1, 2, 3], "its secret is not 16 bytes"),
    ] {
        let directory = TempDir::new().unwrap();
        drop(open(&directory, &ManualClock::at(start())));
        let database = redb::Database::open(directory.path().join("nchf.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(tables::META).unwrap().insert(name, value).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let refusal = refusal(&directory);
        assert!(matches!(refusal, Error::Corrupt(_)), "{refusal}");
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("nchf.redb");
    fs::write(&path, "shopping list\n".repeat(1000)).unwrap();
    assert!(matches!(refusal(&directory), Error::Corrupt(_)));
    assert_eq!(fs::read(&path).unwrap(), "shopping list\n".repeat(1000).as_bytes());

    fs::remove_file(&path).unwrap();
    let foreign: TableDefinition<'_, u64, u64> = TableDefinition::new("foreign");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(foreign).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refusal = refusal(&directory).to_string();
    assert!(refusal.contains("it does not know its format"), "{refusal}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_whole_but_never_a_panic() {
    let disk = Disk::default();
    let store = open_disk(&disk, Durability::Fsync).unwrap();
    for number in 0..20 {
        store.commit(&update(account(number), 0)).await.unwrap();
    }
    drop(store);
    let whole = disk.synced();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(509) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        match open_disk(&Disk::holding(bytes), Durability::Fsync) {
            // A page that nothing uses.
            Ok(store) => {
                for number in 0..20 {
                    assert_eq!(version(&store, account(number)).await, 1, "byte {at}");
                }
            }
            Err(error) => {
                assert!(matches!(error, Error::Corrupt(_)), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 10, "{refused}");
    for length in (1..whole.len()).step_by(4999) {
        let cut = open_disk(&Disk::holding(whole[..length].to_vec()), Durability::Fsync).map(drop);
        assert!(matches!(cut, Err(Error::Corrupt(_))), "{length} bytes: {cut:?}");
    }
}

#[tokio::test]
async fn a_group_of_many_committers_is_as_if_each_had_come_alone() {
    const COMMITTERS: usize = 256;
    const ACCOUNTS: u64 = 32;
    const COMMITS: usize = 8;
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    let conflicts = Arc::new(AtomicUsize::new(0));
    let mut committers = tokio::task::JoinSet::new();
    for committer in 0..COMMITTERS {
        let (store, conflicts) = (store.clone(), conflicts.clone());
        committers.spawn(async move {
            let account = account(committer as u64 % ACCOUNTS);
            let mut known = 0;
            for _ in 0..COMMITS {
                while let Err(error) = store.commit(&update(account, known)).await {
                    let Error::Conflict(Some(current)) = error else { panic!("{error}") };
                    conflicts.fetch_add(1, Ordering::Relaxed);
                    // One consistent state, and never an older one than was known.
                    let found = current.account.unwrap();
                    assert_eq!(Some(found.version), current.session.map(|session| session.version));
                    assert!(known < found.version.0 || known == 0, "{known} {found:?}");
                    known = found.version.0;
                }
                known += 1;
            }
        });
    }
    committers.join_all().await;
    assert!(conflicts.load(Ordering::Relaxed) > COMMITTERS, "they got in each other's way");
    drop(store);
    let store = open(&directory, &clock);
    for number in 0..ACCOUNTS {
        assert_eq!(version(&store, account(number)).await, (COMMITTERS * COMMITS) as u64 / ACCOUNTS);
    }
}

#[tokio::test]
async fn nobody_learns_what_the_disk_does_not_have() {
    let disk = Disk::default();
    let store = open_disk(&disk, Durability::Fsync).unwrap();
    let syncs = disk.syncs();
    disk.let_pass(Some(0));
    let commit = |number: u64, before: u64| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&update(account(number), before)).await })
    };
    let first = commit(1, 0);
    until(|| disk.syncs() > syncs).await;
    // These two gather while the first waits for the disk; the second of them is a conflict only because of the other.
    let (second, conflicting) = (commit(2, 0), commit(2, 0));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(version(&store, account(1)).await, 0, "not shown before it is durable");
    disk.let_pass(Some(1));
    first.await.unwrap().unwrap();
    disk.fail_next_sync();
    disk.let_pass(None);
    for lost in [second.await.unwrap(), conflicting.await.unwrap()] {
        assert!(matches!(lost, Err(Error::Unavailable { applied: Applied::Unknown, .. })), "{lost:?}");
        let said = lost.unwrap_err().to_string();
        assert!(said.contains("the disk could not sync"), "{said}");
    }
}

#[tokio::test]
async fn a_group_that_changes_nothing_does_not_wait_for_the_disk() {
    let disk = Disk::default();
    let store = open_disk(&disk, Durability::Fsync).unwrap();
    store.commit(&update(account(1), 0)).await.unwrap();
    let syncs = disk.syncs();
    let conflict = store.commit(&update(account(1), 0)).await;
    assert!(matches!(conflict, Err(Error::Conflict(Some(_)))), "{conflict:?}");
    store.acknowledge(account(1).partition(), Queue::Records, &[OutboxId("0".repeat(16).into())]).await.unwrap();
    assert_eq!(disk.syncs(), syncs);
}

async fn until(mut happens: impl FnMut() -> bool) {
    while !happens() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn after_an_error_of_the_disk_the_store_is_over_and_says_so() {
    let disk = Disk::default();
    let store = open_disk(&disk, Durability::Fsync).unwrap();
    store.commit(&update(account(1), 0)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), store.failed()).await.is_err(), "well so far");
    disk.fail_next_sync();
    let lost = store.commit(&update(account(1), 1)).await;
    assert!(matches!(lost, Err(Error::Unavailable { applied: Applied::Unknown, .. })), "{lost:?}");
    let reason = store.failed().await;
    assert!(reason.contains("the disk could not sync"), "{reason}");
    for refused in [
        store.commit(&update(account(2), 0)).await,
        store.load(&Load { account: account(1), session: None, index: Vec::new() }).await.map(drop),
        store.ready().await,
    ] {
        assert!(matches!(refused, Err(Error::Unavailable { applied: Applied::No, .. })), "{refused:?}");
    }
    drop(store);
    let store = open_disk(&Disk::holding(disk.synced()), Durability::Fsync).unwrap();
    assert_eq!(version(&store, account(1)).await, 1);
}

/// Whatever the disk does, and whatever a power cut then leaves of what it had not synced: the store opens again and
/// has everything it has acknowledged, whole commits of what was in flight, and nothing else.
#[tokio::test]
async fn a_power_cut_at_any_operation_of_the_disk_keeps_what_was_acknowledged() {
    const ACCOUNTS: u64 = 3;
    for fails_at in 1.. {
        let disk = Disk::default();
        disk.fails_at(fails_at);
        let mut acknowledged = [0; ACCOUNTS as usize];
        let mut was_open = false;
        if let Ok(store) = open_disk(&disk, Durability::Fsync) {
            was_open = true;
            'working: for round in 0..6 {
                let commits = (0..ACCOUNTS).map(|number| {
                    let store = store.clone();
                    tokio::spawn(async move { store.commit(&update(account(number), round)).await })
                });
                for (number, commit) in commits.collect::<Vec<_>>().into_iter().enumerate() {
                    match commit.await.unwrap() {
                        Ok(()) => acknowledged[number] = round + 1,
                        Err(Error::Unavailable { .. }) if disk.has_failed() => break 'working,
                        Err(error) => panic!("operation {fails_at}, account {number}: {error}"),
                    }
                }
            }
        }
        let is_over = !disk.has_failed();
        for seed in 0..4 {
            let after = Disk::holding(disk.after_power_cut(seed));
            let store = match open_disk(&after, Durability::Fsync) {
                Ok(store) => store,
                // Half a new file, which has no name yet: see `open::create_file`.
                Err(_) if !was_open => continue,
                Err(error) => panic!("operation {fails_at}, seed {seed}: {error}"),
            };
            for (number, acknowledged) in (0..).zip(acknowledged) {
                let found = version(&store, account(number)).await;
                assert!(
                    found == acknowledged || found == acknowledged + 1,
                    "operation {fails_at}, seed {seed}, account {number}: {acknowledged} acknowledged, {found} found"
                );
                store.commit(&update(account(number), found)).await.unwrap();
            }
        }
        if is_over {
            assert!(fails_at > 50, "{fails_at}");
            return;
        }
    }
}

#[tokio::test]
async fn in_memory_mode_what_was_answered_reaches_the_disk_soon_and_by_itself() {
    let disk = Disk::default();
    let store = open_disk(&disk, Durability::Memory).unwrap();
    let syncs = disk.syncs();
    for before in 0..20 {
        store.commit(&update(account(1), before)).await.unwrap();
    }
    assert!(disk.syncs() < syncs + 20, "not one for each");
    loop {
        let killed = open_disk(&Disk::holding(disk.synced()), Durability::Memory).unwrap();
        if version(&killed, account(1)).await == 20 {
            break;
        }
        tokio::time::sleep(FLUSH_AFTER).await;
    }
    // What is left after a close is everything.
    store.commit(&update(account(1), 20)).await.unwrap();
    drop(store);
    let closed = open_disk(&Disk::holding(disk.synced()), Durability::Memory).unwrap();
    assert_eq!(version(&closed, account(1)).await, 21);
}

/// How many rows there are: documents, index entries, expiry entries.
fn rows(store: &EmbeddedStore) -> (u64, u64, u64) {
    store
        .read(|view| {
            let documents = view.transaction.open_table(tables::DOCUMENTS)?.len()?;
            let index = view.transaction.open_table(tables::INDEX)?.len()?;
            Ok((documents, index, view.transaction.open_table(tables::EXPIRIES)?.len()?))
        })
        .unwrap()
}

/// A session that leaves nothing but its document, and an index entry.
fn short_lived(account: AccountKey, version: u64, secs: u32) -> Commit {
    let mut commit = update(account, version);
    commit.account_document = None;
    commit.account_expected = Version::ABSENT;
    commit.account_journal = None;
    commit.outbox.clear();
    commit.sessions[0].journal = None;
    commit.sessions[0].timer = TimerWrite::Keep;
    commit.sessions[0].listing = Listing::Keep;
    commit.sessions[0].lives_for = Span::from_secs(secs);
    commit.index[0].lives_for = Some(Span::from_secs(secs));
    commit
}

#[tokio::test]
async fn expired_documents_and_index_entries_are_purged() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    // More than one step of the purge.
    let commits: Vec<Commit> = (0..700).map(|number| short_lived(account(number), 0, 60)).collect();
    let mut committers = tokio::task::JoinSet::new();
    for commit in commits {
        let store = store.clone();
        committers.spawn(async move { store.commit(&commit).await.unwrap() });
    }
    committers.join_all().await;
    // This one has a journal, which is kept.
    store.commit(&update(account(1000), 0)).await.unwrap();
    assert_eq!(rows(&store), (702, 701, 1402));
    clock.advance(Span::from_secs(59));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(rows(&store), (702, 701, 1402), "a second before the end");
    clock.advance(Span::from_secs(1));
    until(|| rows(&store) == (2, 0, 1)).await;
    // After a restart the rest is still known to expire.
    drop(store);
    let store = open(&directory, &clock);
    clock.advance(Span::from_secs(3600));
    until(|| rows(&store) == (2, 0, 0)).await;
    let key = JournalKey::Session(account(1000), session());
    assert_eq!(store.journal(&key).await.unwrap().len(), 1);
    let load = Load { account: account(1000), session: Some(session()), index: Vec::new() };
    assert_eq!(store.load(&load).await.unwrap().session, None);
    // A document that comes back continues the journal.
    let mut again = update(account(1000), 1);
    again.sessions[0].expected = Version::ABSENT;
    store.commit(&again).await.unwrap();
    assert_eq!(store.journal(&key).await.unwrap().len(), 2);
}

/// How many journal entries there are, closed listings of both kinds, and rows of sessions and accounts.
fn left(store: &EmbeddedStore) -> (u64, u64, u64) {
    store
        .read(|view| {
            let journal = view.transaction.open_table(tables::JOURNAL)?.len()?;
            let closed = view.transaction.open_table(tables::CLOSED)?.len()?;
            let of_account = view.transaction.open_table(tables::CLOSED_OF_ACCOUNT)?.len()?;
            Ok((journal, closed + of_account, view.transaction.open_table(tables::DOCUMENTS)?.len()?))
        })
        .unwrap()
}

/// A session that is opened and closed in one commit and leaves nothing else; its document lives for so long.
fn closed_at_once(account: AccountKey, secs: u32) -> Commit {
    let mut commit = short_lived(account, 0, secs);
    commit.index.clear();
    commit.sessions[0].journal = Some(Bytes::from("closed"));
    commit.sessions[0].listing = Listing::Closed(start());
    commit
}

#[tokio::test]
async fn nothing_is_left_of_a_retired_session_whose_document_has_ended() {
    for (document_secs, journal_secs) in [(60, 600), (600, 60), (60, 60)] {
        let directory = TempDir::new().unwrap();
        let clock = ManualClock::at(start());
        let store = open(&directory, &clock);
        for number in 0..300 {
            store.commit(&closed_at_once(account(number), document_secs)).await.unwrap();
            let entry = (number % 2 == 0).then(|| Bytes::from("published"));
            store.retire(account(number), &session(), entry, Span::from_secs(journal_secs)).await.unwrap();
        }
        assert_eq!(left(&store), (450, 600, 300));
        clock.advance(Span::from_secs(60));
        let after_the_first = match (document_secs, journal_secs) {
            (60, 600) => (450, 600, 300),
            (600, 60) => (0, 0, 300),
            _ => (0, 0, 0),
        };
        until(|| left(&store) == after_the_first && rows(&store).2 == after_the_first.2).await;
        // What is left is still known to end after a restart.
        drop(store);
        let store = open(&directory, &clock);
        clock.advance(Span::from_secs(540));
        until(|| left(&store) == (0, 0, 0) && rows(&store) == (0, 0, 0)).await;
    }
}

#[tokio::test]
async fn a_renewed_retirement_has_one_expiry_entry() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    store.commit(&closed_at_once(account(1), 30)).await.unwrap();
    for _ in 0..20 {
        store.retire(account(1), &session(), None, Span::from_secs(60)).await.unwrap();
        clock.advance(Span::from_secs(10));
        assert_eq!(rows(&store), (1, 0, 1));
        assert_eq!(store.journal(&JournalKey::Session(account(1), session())).await.unwrap().len(), 1);
    }
    clock.advance(Span::from_secs(49));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(left(&store), (1, 2, 1), "a second before the end");
    clock.advance(Span::from_secs(1));
    until(|| left(&store) == (0, 0, 0) && rows(&store) == (0, 0, 0)).await;
}

#[tokio::test]
async fn an_ended_journal_that_was_not_purged_yet_is_not_continued() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    store.commit(&closed_at_once(account(1), 600)).await.unwrap();
    store.retire(account(1), &session(), None, Span::from_secs(60)).await.unwrap();
    clock.advance(Span::from_secs(60));
    // In the same group as the purge or before it, as it happens.
    let mut late = closed_at_once(account(1), 600);
    late.sessions[0].expected = Version(1);
    late.sessions[0].listing = Listing::Keep;
    late.sessions[0].journal = Some(Bytes::from("late"));
    store.commit(&late).await.unwrap();
    let key = JournalKey::Session(account(1), session());
    assert_eq!(store.journal(&key).await.unwrap(), ["late"]);
    until(|| left(&store) == (1, 0, 1)).await;
    clock.advance(Span::from_secs(7 * 86_400));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(store.journal(&key).await.unwrap(), ["late"], "kept until it is retired");
}

#[tokio::test]
async fn a_file_of_format_1_is_read_and_becomes_one_of_format_2() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    store.commit(&update(account(1), 0)).await.unwrap();
    drop(store);
    let format = |write: Option<u32>| {
        let database = redb::Database::open(directory.path().join("nchf.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut found = Vec::new();
        {
            let mut meta = transaction.open_table(tables::META).unwrap();
            found.extend_from_slice(meta.get(tables::META_FORMAT).unwrap().unwrap().value());
            if let Some(format) = write {
                meta.insert(tables::META_FORMAT, &format.to_be_bytes()[..]).unwrap();
            }
        }
        if write.is_some() {
            assert!(transaction.delete_table(tables::NOTIFICATIONS).unwrap());
        }
        transaction.commit().unwrap();
        found
    };
    format(Some(1));
    let store = open(&directory, &clock);
    assert_eq!(version(&store, account(1)).await, 1);
    assert!(store.outbox(account(1).partition(), Queue::Notifications, None, 10).await.unwrap().is_empty());
    store.commit(&update(account(1), 1)).await.unwrap();
    drop(store);
    assert_eq!(format(None), 2_u32.to_be_bytes());
}

#[tokio::test]
async fn numbers_are_set_aside_long_before_they_are_given() {
    let disk = Disk::default();
    let store = open_disk(&disk, Durability::Memory).unwrap();
    store.commit(&update(account(1), 0)).await.unwrap();
    let set_aside = |store: &EmbeddedStore| {
        let found = store.read(|view| Ok(view.transaction.open_table(tables::META)?.get(tables::META_SEQUENCE)?));
        found.unwrap().map(|limit| open::number(limit.value()).unwrap()).unwrap()
    };
    let before = set_aside(&store);
    // Half a block of numbers, none of them kept.
    let entries = vec![(Queue::Records, Bytes::new()); 1 << 16];
    for version in 1..=8 {
        let mut commit = update(account(1), version);
        commit.outbox.clone_from(&entries);
        store.commit(&commit).await.unwrap();
        let ids: Vec<OutboxId> = {
            let found = store.outbox(account(1).partition(), Queue::Records, None, 1 << 17).await.unwrap();
            found.into_iter().map(|(id, _)| id).collect()
        };
        store.acknowledge(account(1).partition(), Queue::Records, &ids).await.unwrap();
    }
    assert_eq!(set_aside(&store), before + writer::SEQUENCE_BLOCK);
}

#[tokio::test]
async fn a_lease_lives_in_memory() {
    let disk = Disk::default();
    let store = open_disk(&disk, Durability::Fsync).unwrap();
    let syncs = disk.syncs();
    assert!(store.lease("records", "a", Span::from_secs(60)).await.unwrap());
    assert!(!store.lease("records", "b", Span::from_secs(60)).await.unwrap());
    assert_eq!(disk.syncs(), syncs);
    drop(store);
    let store = open_disk(&Disk::holding(disk.synced()), Durability::Fsync).unwrap();
    assert!(store.lease("records", "b", Span::from_secs(60)).await.unwrap(), "forgotten with its process");
}

#[tokio::test]
async fn a_renewed_document_has_one_expiry_entry_and_lives() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::at(start());
    let store = open(&directory, &clock);
    for before in 0..100 {
        store.commit(&short_lived(account(1), before, 60)).await.unwrap();
        clock.advance(Span::from_secs(10));
        assert_eq!(rows(&store), (1, 1, 2));
    }
    let load = Load { account: account(1), session: Some(session()), index: vec![IndexKey(7)] };
    let found = store.load(&load).await.unwrap();
    assert_eq!(found.session.map(|session| session.version), Some(Version(100)));
    assert!(found.index[0].is_some());
    // A shorter life moves the entry forward.
    store.commit(&short_lived(account(1), 100, 1)).await.unwrap();
    assert_eq!(rows(&store), (1, 1, 2));
    clock.advance(Span::from_secs(1));
    until(|| rows(&store) == (0, 0, 0)).await;
}

#[tokio::test]
async fn a_write_that_takes_too_long_is_unavailable_and_may_still_happen() {
    let disk = Disk::default();
    let settings = Settings { deadline: Duration::from_millis(20), ..Settings::at("nowhere") };
    let store = open::backend_of(disk.clone(), &settings, Arc::new(ManualClock::at(start()))).unwrap();
    disk.let_pass(Some(0));
    let late = store.commit(&update(account(1), 0)).await;
    assert!(matches!(late, Err(Error::Unavailable { applied: Applied::Unknown, .. })), "{late:?}");
    disk.let_pass(None);
    until(|| {
        store
            .read(|view| view.load(&Load { account: account(1), session: None, index: Vec::new() }, start()))
            .unwrap()
            .account
            .is_some()
    })
    .await;
    assert_eq!(version(&store, account(1)).await, 1);
}

#[tokio::test]
async fn a_cursor_of_another_listing_continues_nothing() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, &ManualClock::at(start()));
    store.commit(&update(account(1), 0)).await.unwrap();
    for cursor in ["", "nonsense", "00", "ffffffffffffffffffff"] {
        let page = store.list(&List::OpenSessionsOf(account(1)), Some(cursor), 10).await.unwrap();
        assert_eq!(page, Page::default(), "{cursor}");
    }
    let table = store.read(|view| Ok(view.transaction.open_table(tables::OPEN)?.first()?.is_some())).unwrap();
    assert!(table);
}
