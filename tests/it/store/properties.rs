//! What every store promises. Each property is given a fresh place and stands alone.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::time::{Span, Timestamp};
use nchf::store::{
    AccountKey, Commit, Due, Error, IndexKey, IndexWrite, Indexed, JournalKey, List, Listing, Load, OutboxId, Page,
    Partition, Queue, ReferenceKind, SessionWrite, Store, TimerWrite, Version, Work,
};

use super::place::*;

const ABSENT: Version = Version::ABSENT;

pub async fn a_new_store_is_empty(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let snapshot =
        store.load(&Load { account: account(7), session: Some(key.clone()), index: vec![IndexKey(1)] }).await.unwrap();
    assert_eq!((snapshot.account, snapshot.session, snapshot.index), (None, None, vec![None]));
    assert_eq!(store.sessions(account(7), std::slice::from_ref(&key)).await.unwrap(), [None]);
    assert!(session_journal(&*store, account(7), &key).await.is_empty());
    assert!(store.journal(&JournalKey::Account(account(7))).await.unwrap().is_empty());
    assert!(timers(&*store, Partition(7)).await.is_empty());
    assert!(store.claim(Partition(7), at(0), at(1), 10).await.unwrap().is_empty());
    for queue in QUEUES {
        assert!(sent(&*store, Partition(7), queue).await.is_empty());
    }
    let all: Vec<Partition> = Partition::all().collect();
    assert!(store.look(&all, at(1_000_000_000)).await.unwrap().is_empty());
    assert_eq!(store.indexes(account(7), &key).await.unwrap(), Indexed::default());
    assert!(scanned(&*store, 10).await.is_empty());
    assert_eq!(store.reference(ReferenceKind::TariffPlan, "none").await.unwrap(), None);
    for list in [
        List::References(ReferenceKind::Subscriber),
        List::OpenSessions(Partition(7)),
        List::ClosedSessions(Partition(7)),
        List::OpenSessionsOf(account(7)),
        List::ClosedSessionsOf(account(7)),
    ] {
        assert!(listed(&*store, &list, 10).await.is_empty(), "{list:?}");
    }
}

pub async fn what_was_committed_is_loaded(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let commit = Commit {
        sessions: vec![session_write(&key, ABSENT, "session")],
        index: vec![index_write(1, "entry", None)],
        ..writes(account(7), ABSENT, "account")
    };
    store.commit(&commit).await.unwrap();
    let again = place.open().await;
    let snapshot = again
        .load(&Load { account: account(7), session: Some(key), index: vec![IndexKey(1), IndexKey(2)] })
        .await
        .unwrap();
    assert_eq!(snapshot.account, document(1, "account"));
    assert_eq!(snapshot.session, document(1, "session"));
    assert_eq!(snapshot.index, [Some(Bytes::from("entry")), None]);
}

pub async fn documents_may_hold_any_bytes(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let every_byte: Bytes = (0..=u8::MAX).cycle().take(70_000).collect();
    let line_ends = Bytes::from("\r\n$-1\r\n\0");
    for (version, bytes) in [Bytes::new(), every_byte, line_ends].into_iter().enumerate() {
        let expected = Version(version as u64);
        let commit = Commit {
            account_document: Some(bytes.clone()),
            account_journal: Some(bytes.clone()),
            sessions: vec![SessionWrite {
                document: bytes.clone(),
                journal: Some(bytes.clone()),
                ..session_write(&key, expected, "")
            }],
            outbox: QUEUES.map(|queue| (queue, bytes.clone())).to_vec(),
            index: vec![IndexWrite { value: bytes.clone(), ..index_write(1, "", None) }],
            ..leaves(account(7), expected)
        };
        store.commit(&commit).await.unwrap();
        let snapshot = load(&*store, account(7), Some(&key)).await;
        assert_eq!(snapshot.account.unwrap().bytes, bytes);
        assert_eq!(snapshot.session.unwrap().bytes, bytes);
        assert_eq!(load_index(&*store, account(7), &[1]).await, [Some(bytes.clone())]);
        assert_eq!(session_journal(&*store, account(7), &key).await.last(), Some(&bytes));
        assert_eq!(store.journal(&JournalKey::Account(account(7))).await.unwrap().last(), Some(&bytes));
        for queue in QUEUES {
            assert_eq!(sent(&*store, Partition(7), queue).await.last(), Some(&bytes));
        }
    }
}

pub async fn versions_start_at_one_and_grow_by_one(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    for version in 0..300 {
        let write = session_write(&key, Version(version), "session");
        let commit = Commit { sessions: vec![write], ..writes(account(7), Version(version), "account") };
        store.commit(&commit).await.unwrap();
        let snapshot = load(&*store, account(7), Some(&key)).await;
        assert_eq!(snapshot.account, document(version + 1, "account"));
        assert_eq!(snapshot.session, document(version + 1, "session"));
    }
}

pub async fn an_account_grows_by_the_steps_of_a_commit(place: &dyn Place) {
    let store = place.open().await;
    let commit = |expected, account_steps| Commit { account_steps, ..writes(account(7), Version(expected), "account") };
    store.commit(&commit(0, 3)).await.unwrap();
    assert_eq!(load(&*store, account(7), None).await.account, document(3, "account"));
    conflict(&*store, &commit(1, 1)).await;
    store.commit(&commit(3, 2)).await.unwrap();
    assert_eq!(load(&*store, account(7), None).await.account, document(5, "account"));
    let untouched = Commit { account_document: None, ..commit(5, 2) };
    store.commit(&untouched).await.unwrap();
    assert_eq!(load(&*store, account(7), None).await.account, document(5, "account"));
}

pub async fn an_account_may_be_left_as_it_is(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let first = Commit { sessions: vec![session_write(&key, ABSENT, "one")], ..leaves(account(7), ABSENT) };
    store.commit(&first).await.unwrap();
    assert_eq!(load(&*store, account(7), None).await.account, None);
    store.commit(&writes(account(7), ABSENT, "account")).await.unwrap();
    let second = Commit { sessions: vec![session_write(&key, Version(1), "two")], ..leaves(account(7), Version(1)) };
    store.commit(&second).await.unwrap();
    let snapshot = load(&*store, account(7), Some(&key)).await;
    assert_eq!((snapshot.account, snapshot.session), (document(1, "account"), document(2, "two")));
}

pub async fn accounts_of_one_partition_do_not_see_each_other(place: &dyn Place) {
    let store = place.open().await;
    let (here, there) = (account(7), account(7 + 1024));
    assert_eq!(here.partition(), there.partition());
    store.commit(&changes_everything(&*store, here, ABSENT, [ABSENT; 2])).await.unwrap();
    store.commit(&changes_everything(&*store, there, ABSENT, [ABSENT; 2])).await.unwrap();
    store.commit(&writes(here, Version(1), "again")).await.unwrap();
    assert_eq!(load(&*store, here, None).await.account, document(2, "again"));
    assert_eq!(load(&*store, there, None).await.account, document(1, "changed"));
    assert_eq!(session_journal(&*store, here, &session(&*store, here, 1)).await.len(), 1);
    assert_eq!(store.journal(&JournalKey::Account(there)).await.unwrap().len(), 1);
    let open_there = [session(&*store, there, 1).to_string()];
    assert_eq!(listed(&*store, &List::OpenSessionsOf(there), 10).await, open_there);
}

pub async fn an_account_version_that_was_not_read_changes_nothing(place: &dyn Place) {
    let store = place.open().await;
    let too_new = changes_everything(&*store, account(7), Version(1), [ABSENT; 2]);
    refused(&*store, &too_new).await;
    store.commit(&changes_everything(&*store, account(7), ABSENT, [ABSENT; 2])).await.unwrap();
    for version in [0, 2, 1 << 40, u64::MAX - 1] {
        refused(&*store, &changes_everything(&*store, account(7), Version(version), [Version(1); 2])).await;
        // Checked even when it is not written.
        let reads = Commit {
            account_document: None,
            ..changes_everything(&*store, account(7), Version(version), [Version(1); 2])
        };
        refused(&*store, &reads).await;
    }
}

pub async fn a_session_version_that_was_not_read_changes_nothing(place: &dyn Place) {
    let store = place.open().await;
    let only_first = |commit: Commit| Commit { sessions: commit.sessions[..1].to_vec(), ..commit };
    refused(&*store, &only_first(changes_everything(&*store, account(7), ABSENT, [Version(1); 2]))).await;
    store.commit(&changes_everything(&*store, account(7), ABSENT, [ABSENT; 2])).await.unwrap();
    for version in [0, 2, 1 << 40] {
        let commit = changes_everything(&*store, account(7), Version(1), [Version(version); 2]);
        refused(&*store, &only_first(commit)).await;
    }
}

pub async fn one_commit_writes_two_sessions(place: &dyn Place) {
    let store = place.open().await;
    store.commit(&changes_everything(&*store, account(7), ABSENT, [ABSENT; 2])).await.unwrap();
    let (first, second) = (session(&*store, account(7), 1), session(&*store, account(7), 2));
    let both = store.sessions(account(7), &[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(both, [document(1, "changed"), document(1, "changed")]);
    assert_eq!(listed(&*store, &List::OpenSessionsOf(account(7)), 10).await, [first.to_string()]);
    assert_eq!(listed(&*store, &List::ClosedSessionsOf(account(7)), 10).await, [second.to_string()]);
    assert_eq!(timers(&*store, Partition(7)).await, [Due { key: first, at: at(1) }]);
}

pub async fn one_wrong_session_of_two_changes_nothing(place: &dyn Place) {
    let store = place.open().await;
    refused(&*store, &changes_everything(&*store, account(7), ABSENT, [ABSENT, Version(1)])).await;
    store.commit(&changes_everything(&*store, account(7), ABSENT, [ABSENT; 2])).await.unwrap();
    for expected in [[1, 2], [1, 0], [2, 1], [0, 1]] {
        refused(&*store, &changes_everything(&*store, account(7), Version(1), expected.map(Version))).await;
    }
}

pub async fn a_conflict_carries_what_is_there_now(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let commit = |account_version, session_version| Commit {
        sessions: vec![session_write(&key, Version(session_version), "session")],
        ..writes(account(7), Version(account_version), "account")
    };
    let current = conflict(&*store, &commit(1, 0)).await.unwrap();
    assert_eq!((current.account, current.session), (None, None));
    store.commit(&commit(0, 0)).await.unwrap();
    for (account_version, session_version) in [(0, 1), (1, 0), (2, 2)] {
        let current = conflict(&*store, &commit(account_version, session_version)).await.unwrap();
        assert_eq!((current.account, current.session), (document(1, "account"), document(1, "session")));
    }
    let current = conflict(&*store, &writes(account(7), ABSENT, "account")).await.unwrap();
    assert_eq!((current.account, current.session), (document(1, "account"), None));
}

pub async fn of_concurrent_commits_one_wins_each_version(place: &dyn Place) {
    const WRITERS: usize = 8;
    const COMMITS: usize = 25;
    let store = place.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(increments(store.clone(), COMMITS));
    }
    let won: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    let versions: BTreeSet<u64> = won.iter().copied().collect();
    assert_eq!(won.len(), WRITERS * COMMITS);
    assert_eq!(versions.len(), won.len(), "two commits won the same version");
    let snapshot = load(&*store, account(7), None).await;
    let total = (WRITERS * COMMITS) as u64;
    assert_eq!(snapshot.account.map(|found| (found.version.0, count_in(&found.bytes))), Some((total, total)));
    assert_eq!(store.journal(&JournalKey::Account(account(7))).await.unwrap().len(), WRITERS * COMMITS);
}

/// Adds one to the count in the account's document, `times` times; answers the versions it wrote.
async fn increments(store: Arc<dyn Store>, times: usize) -> Vec<u64> {
    let mut won = Vec::new();
    while won.len() < times {
        let read = load(&*store, account(7), None).await.account;
        let (version, count) = read.map_or((ABSENT, 0), |found| (found.version, count_in(&found.bytes)));
        let next = Bytes::copy_from_slice(&(count + 1).to_be_bytes());
        let commit =
            Commit { account_document: Some(next.clone()), account_journal: Some(next), ..leaves(account(7), version) };
        match store.commit(&commit).await {
            Ok(()) => won.push(version.next().0),
            Err(Error::Conflict(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    won
}

fn count_in(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

pub async fn concurrent_loads_never_see_half_a_commit(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let (store_of_reader, key_of_reader) = (store.clone(), key.clone());
    let reader = tokio::spawn(async move {
        loop {
            let all = Load { account: account(7), session: Some(key_of_reader.clone()), index: vec![IndexKey(1)] };
            let snapshot = store_of_reader.load(&all).await.unwrap();
            let account = snapshot.account.map(|found| found.bytes);
            assert_eq!(account, snapshot.session.map(|found| found.bytes));
            assert_eq!(account, snapshot.index[0]);
            if account.is_some_and(|bytes| count_in(&bytes) == 199) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    for version in 0..200u64 {
        let bytes = Bytes::copy_from_slice(&version.to_be_bytes());
        let write = SessionWrite { document: bytes.clone(), ..session_write(&key, Version(version), "") };
        let commit = Commit {
            account_document: Some(bytes.clone()),
            sessions: vec![write],
            index: vec![IndexWrite { value: bytes, ..index_write(1, "", None) }],
            ..leaves(account(7), Version(version))
        };
        store.commit(&commit).await.unwrap();
    }
    reader.await.unwrap();
}

pub async fn a_dropped_commit_happens_as_a_whole_or_not_at_all(place: &dyn Place) {
    let store = place.open().await;
    for number in 0..20 {
        // Each in its own partition, dropped after so many polls.
        let key = account(number);
        let first = changes_everything(&*store, key, ABSENT, [ABSENT; 2]);
        poll_and_drop(store.commit(&first), number % 4).await;
        // It may have happened or not, or be on its way still: submitting it again settles which, and finds it once.
        store.ready().await.unwrap();
        match store.commit(&first).await {
            Ok(()) | Err(Error::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let expected = changes_everything(&*store, key, Version(1), [Version(1); 2]);
        store.commit(&expected).await.unwrap();
        assert_eq!(session_journal(&*store, key, &session(&*store, key, 1)).await.len(), 2);
        for queue in QUEUES {
            assert_eq!(sent(&*store, key.partition(), queue).await.len(), 2);
        }
    }
}

/// Polls `times` times, gives others their turn in between, and drops it.
async fn poll_and_drop(future: impl Future, times: u64) {
    let mut future = pin!(future);
    for _ in 0..times {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

pub async fn journals_append_in_the_order_of_the_commits(place: &dyn Place) {
    let store = place.open().await;
    let keys = [session(&*store, account(7), 1), session(&*store, account(7), 2)];
    for version in 0..50u64 {
        let entry = |name: &str| Some(Bytes::from(format!("{name} {version}")));
        let writes = keys.iter().zip(["first", "second"]).filter(|(_, name)| version % 2 == 0 || *name == "first");
        let commit = Commit {
            account_journal: (version % 5 == 0).then(|| entry("account")).flatten(),
            sessions: writes
                .map(|(key, name)| SessionWrite {
                    expected: Version(if name == "first" { version } else { version / 2 }),
                    journal: entry(name),
                    ..session_write(key, ABSENT, "session")
                })
                .collect(),
            ..leaves(account(7), ABSENT)
        };
        store.commit(&commit).await.unwrap();
    }
    let expected = |name: &str, step| (0..50).step_by(step).map(|at| Bytes::from(format!("{name} {at}"))).collect();
    let (first, second): (Vec<Bytes>, Vec<Bytes>) = (expected("first", 1), expected("second", 2));
    assert_eq!(session_journal(&*store, account(7), &keys[0]).await, first);
    assert_eq!(session_journal(&*store, account(7), &keys[1]).await, second);
    let of_account: Vec<Bytes> = expected("account", 5);
    assert_eq!(store.journal(&JournalKey::Account(account(7))).await.unwrap(), of_account);
}

pub async fn a_journal_outlives_its_session(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let write = SessionWrite {
        lives_for: Span::from_millis(100),
        journal: Some(Bytes::from("entry")),
        ..session_write(&key, ABSENT, "session")
    };
    store.commit(&Commit { sessions: vec![write], ..leaves(account(7), ABSENT) }).await.unwrap();
    place.pass(Span::from_millis(200)).await;
    assert_eq!(load(&*store, account(7), Some(&key)).await.session, None);
    assert_eq!(session_journal(&*store, account(7), &key).await, [Bytes::from("entry")]);
}

pub async fn each_write_renews_the_life_of_a_session(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let write = |version| SessionWrite {
        lives_for: Span::from_millis(1500),
        ..session_write(&key, Version(version), "session")
    };
    for version in 0..3 {
        store.commit(&Commit { sessions: vec![write(version)], ..leaves(account(7), ABSENT) }).await.unwrap();
        place.pass(Span::from_millis(800)).await;
        assert_eq!(load(&*store, account(7), Some(&key)).await.session, document(version + 1, "session"));
    }
    place.pass(Span::from_millis(800)).await;
    assert_eq!(load(&*store, account(7), Some(&key)).await.session, None);
}

pub async fn an_expired_session_is_absent_and_may_be_created_again(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let write = |version| Commit {
        sessions: vec![SessionWrite {
            lives_for: Span::from_millis(100),
            ..session_write(&key, Version(version), "session")
        }],
        ..leaves(account(7), ABSENT)
    };
    store.commit(&write(0)).await.unwrap();
    place.pass(Span::from_millis(200)).await;
    assert_eq!(store.sessions(account(7), std::slice::from_ref(&key)).await.unwrap(), [None]);
    conflict(&*store, &write(1)).await;
    let again = SessionWrite { lives_for: Span::from_secs(60), ..session_write(&key, ABSENT, "again") };
    store.commit(&Commit { sessions: vec![again], ..leaves(account(7), ABSENT) }).await.unwrap();
    assert_eq!(load(&*store, account(7), Some(&key)).await.session, document(1, "again"));
}

pub async fn an_index_entry_lives_as_long_as_it_was_last_told(place: &dyn Place) {
    let store = place.open().await;
    let brief = Some(Span::from_millis(300));
    let commit = |index| Commit { index, ..leaves(account(7), ABSENT) };
    let first = vec![index_write(1, "brief", brief), index_write(2, "ever", None), index_write(3, "brief", brief)];
    store.commit(&commit(first)).await.unwrap();
    // What lived for a while is kept for ever now, and the other way round.
    let second = vec![index_write(1, "ever", None), index_write(2, "brief", brief)];
    store.commit(&commit(second)).await.unwrap();
    let now = load_index(&*store, account(7), &[1, 2, 3]).await;
    assert_eq!(now, [Some(Bytes::from("ever")), Some(Bytes::from("brief")), Some(Bytes::from("brief"))]);
    place.pass(Span::from_millis(500)).await;
    assert_eq!(load_index(&*store, account(7), &[1, 2, 3]).await, [Some(Bytes::from("ever")), None, None]);
}

pub async fn index_entries_are_answered_in_the_order_they_were_asked(place: &dyn Place) {
    let store = place.open().await;
    let index =
        (0..20).map(|key| IndexWrite { value: Bytes::from(key.to_string()), ..index_write(u128::MAX - key, "", None) });
    store.commit(&Commit { index: index.collect(), ..leaves(account(7), ABSENT) }).await.unwrap();
    let asked = [3, 77, 0, 19, 3];
    let found = load_index(&*store, account(7), &asked.map(|key| u128::MAX - key)).await;
    let expected = asked.map(|key| (key < 20).then(|| Bytes::from(key.to_string())));
    assert_eq!(found, expected);
}

pub async fn a_timer_stands_until_it_is_set_or_removed(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let steps = [
        (TimerWrite::Keep, None),
        (TimerWrite::Remove, None),
        (TimerWrite::At(at(50)), Some(at(50))),
        (TimerWrite::Keep, Some(at(50))),
        (TimerWrite::At(at(90)), Some(at(90))),
        (TimerWrite::At(at(10)), Some(at(10))),
        (TimerWrite::Remove, None),
        (TimerWrite::Keep, None),
        (TimerWrite::At(at(20)), Some(at(20))),
    ];
    for (version, (timer, expected)) in (0..).zip(steps) {
        let write = SessionWrite { timer, ..session_write(&key, Version(version), "session") };
        store.commit(&Commit { sessions: vec![write], ..leaves(account(7), ABSENT) }).await.unwrap();
        let found: Vec<Timestamp> = timers(&*store, Partition(7)).await.into_iter().map(|due| due.at).collect();
        assert_eq!(found, Vec::from_iter(expected), "after {timer:?}");
    }
}

pub async fn due_sessions_come_earliest_first_and_limited(place: &dyn Place) {
    let store = place.open().await;
    let entries = arm(&*store, account(7), &[(1, 30), (2, 10), (3, 20), (4, 40)]).await;
    arm(&*store, account(8), &[(5, 5)]).await;
    let due = |from: usize, to: usize| [&entries[1], &entries[2], &entries[0], &entries[3]][from..to].to_vec();
    for (now, limit, expected) in
        [(9, 10, due(0, 0)), (10, 10, due(0, 1)), (29, 10, due(0, 2)), (30, 10, due(0, 3)), (99, 3, due(0, 3))]
    {
        let found = store.due(Partition(7), at(now), limit).await.unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "at {now}, at most {limit}");
    }
    assert_eq!(store.due(Partition(8), at(99), 10).await.unwrap().len(), 1);
}

pub async fn a_claim_hides_what_it_returns_until_the_lease_ends(place: &dyn Place) {
    let store = place.open().await;
    let entries = arm(&*store, account(7), &[(1, 10), (2, 20), (3, 30), (4, 1000)]).await;
    assert_eq!(store.claim(Partition(7), at(50), at(500), 2).await.unwrap(), entries[..2]);
    assert_eq!(store.claim(Partition(7), at(50), at(500), 10).await.unwrap(), entries[2..3]);
    assert!(store.claim(Partition(7), at(499), at(900), 10).await.unwrap().is_empty());
    // Nothing was removed: when the lease ends unused, they are due again.
    assert_eq!(timers(&*store, Partition(7)).await.len(), 4);
    let again = store.claim(Partition(7), at(500), at(900), 10).await.unwrap();
    assert_eq!(again.iter().map(|due| due.at).collect::<Vec<_>>(), [at(500); 3]);
}

pub async fn concurrent_claims_share_nothing(place: &dyn Place) {
    let store = place.open().await;
    let entries: Vec<(u8, i64)> = (0..100).map(|number| (number, i64::from(number))).collect();
    arm(&*store, account(7), &entries).await;
    let mut claimers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        claimers.spawn(async move {
            let mut claimed = Vec::new();
            loop {
                let some = store.claim(Partition(7), at(200), at(9000), 7).await.unwrap();
                if some.is_empty() {
                    return claimed;
                }
                claimed.extend(some.into_iter().map(|due| due.key.to_string()));
                tokio::task::yield_now().await;
            }
        });
    }
    let claimed: Vec<String> = claimers.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 100);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>().len(), 100);
}

pub async fn a_commit_after_a_claim_has_the_last_word_on_the_timer(place: &dyn Place) {
    let store = place.open().await;
    let entries = arm(&*store, account(7), &[(1, 10), (2, 10), (3, 10)]).await;
    store.claim(Partition(7), at(10), at(500), 10).await.unwrap();
    let writes = [TimerWrite::Remove, TimerWrite::At(at(70)), TimerWrite::Keep];
    let sessions = entries
        .iter()
        .zip(writes)
        .map(|(due, timer)| SessionWrite { timer, ..session_write(&due.key, Version(1), "session") });
    store.commit(&Commit { sessions: sessions.collect(), ..leaves(account(7), ABSENT) }).await.unwrap();
    let left: Vec<Timestamp> = timers(&*store, Partition(7)).await.into_iter().map(|due| due.at).collect();
    assert_eq!(left, [at(70), at(500)]);
}

pub async fn a_claimed_entry_may_be_moved_to_any_time(place: &dyn Place) {
    let store = place.open().await;
    let [entry] = &arm(&*store, account(7), &[(1, 10)]).await[..] else { unreachable!() };
    // Before the end of the lease, at it, and after it: the session turned out not to be due yet.
    for (version, moved_to) in (1..).zip([499, 500, 800, 20]) {
        assert_eq!(store.claim(Partition(7), at(1000), at(500), 10).await.unwrap().len(), 1);
        let timer = TimerWrite::At(at(moved_to));
        let write = SessionWrite { timer, ..session_write(&entry.key, Version(version), "session") };
        store.commit(&Commit { sessions: vec![write], ..leaves(account(7), ABSENT) }).await.unwrap();
        assert_eq!(timers(&*store, Partition(7)).await, [Due { key: entry.key.clone(), at: at(moved_to) }]);
        assert!(store.due(Partition(7), at(moved_to - 1), 10).await.unwrap().is_empty());
    }
}

pub async fn each_outbox_keeps_its_order(place: &dyn Place) {
    let store = place.open().await;
    let entries = |queue| (0..60).map(|number| Bytes::from(format!("{queue:?} {number}"))).collect::<Vec<Bytes>>();
    for three in entries(Queue::Records).chunks(3) {
        store.commit(&sends(account(7), Queue::Records, three)).await.unwrap();
    }
    // Both in one commit, in turns.
    let both = entries(Queue::Records).into_iter().zip(entries(Queue::Notifications));
    let both = both.flat_map(|(record, notification)| [(Queue::Notifications, notification), (Queue::Records, record)]);
    store.commit(&Commit { outbox: both.collect(), ..leaves(account(7), ABSENT) }).await.unwrap();
    store.commit(&sends(account(8), Queue::Records, &[Bytes::from("elsewhere")])).await.unwrap();

    let records = [entries(Queue::Records), entries(Queue::Records)].concat();
    for (queue, expected) in [(Queue::Records, records), (Queue::Notifications, entries(Queue::Notifications))] {
        let whole = store.outbox(Partition(7), queue, None, 1000).await.unwrap();
        assert!(whole.is_sorted_by(|a, b| a.0 < b.0), "ids grow");
        assert_eq!(whole.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), expected);
        for (from, limit) in [(0, 4), (0, 1000), (17, 1), (17, 1000), (58, 2), (expected.len() - 1, 10)] {
            let after = Some(&whole[from].0);
            let found = store.outbox(Partition(7), queue, after, limit).await.unwrap();
            let until = (from + 1 + limit).min(expected.len());
            assert_eq!(found, whole[from + 1..until], "{queue:?} after {from}, at most {limit}");
        }
        assert_eq!(store.outbox(Partition(7), queue, None, 4).await.unwrap(), whole[..4]);
    }
}

pub async fn outbox_entries_stay_until_they_are_acknowledged(place: &dyn Place) {
    let store = place.open().await;
    for queue in QUEUES {
        store.commit(&sends(account(7), queue, &["a", "b", "c", "d", "e"].map(Bytes::from))).await.unwrap();
    }
    for queue in QUEUES {
        let read = || store.outbox(Partition(7), queue, None, 10);
        let first = read().await.unwrap();
        assert_eq!(read().await.unwrap(), first, "reading takes nothing away");
        let ids: Vec<OutboxId> = first.iter().map(|(id, _)| id.clone()).collect();
        for _ in 0..2 {
            store.acknowledge(Partition(7), queue, &[ids[3].clone(), ids[1].clone()]).await.unwrap();
            store.acknowledge(Partition(7), queue, &[]).await.unwrap();
            store.acknowledge(Partition(8), queue, &ids).await.unwrap();
            assert_eq!(read().await.unwrap(), [0, 2, 4].map(|at| first[at].clone()));
            // A position outlives its entry.
            let later = store.outbox(Partition(7), queue, Some(&ids[1]), 10).await.unwrap();
            assert_eq!(later, [2, 4].map(|at| first[at].clone()));
        }
        store.acknowledge(Partition(7), queue, &[OutboxId("never given".into()), ids[0].clone()]).await.unwrap();
        assert_eq!(read().await.unwrap(), [2, 4].map(|at| first[at].clone()));
        let unreadable = store.outbox(Partition(7), queue, Some(&OutboxId("never given".into())), 10).await;
        assert!(matches!(unreadable, Err(Error::Corrupt(_))), "{unreadable:?}");
    }
}

pub async fn thousands_of_outbox_entries_are_acknowledged_at_once(place: &dyn Place) {
    let store = place.open().await;
    let entries: Vec<Bytes> = (0..2500).map(|number| Bytes::from(number.to_string())).collect();
    store.commit(&sends(account(7), Queue::Records, &entries)).await.unwrap();
    let mut all: Vec<(OutboxId, Bytes)> = Vec::new();
    loop {
        let after = all.last().map(|(id, _)| id.clone());
        let some = store.outbox(Partition(7), Queue::Records, after.as_ref(), 5000).await.unwrap();
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    assert_eq!(all.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), entries);
    let ids: Vec<OutboxId> = all.into_iter().map(|(id, _)| id).collect();
    store.acknowledge(Partition(7), Queue::Records, &ids[..2400]).await.unwrap();
    assert_eq!(sent(&*store, Partition(7), Queue::Records).await, entries[2400..]);
    store.acknowledge(Partition(7), Queue::Records, &ids).await.unwrap();
    assert!(sent(&*store, Partition(7), Queue::Records).await.is_empty());
}

pub async fn an_outbox_id_is_given_once(place: &dyn Place) {
    let mut last = QUEUES.map(|_| OutboxId("".into()));
    for round in 0..5 {
        // Opened anew, and empty.
        let store = place.open().await;
        for (queue, last) in QUEUES.into_iter().zip(&mut last) {
            store.commit(&sends(account(7), queue, &["a", "b"].map(Bytes::from))).await.unwrap();
            let found = store.outbox(Partition(7), queue, None, 10).await.unwrap();
            assert!(*last < found[0].0 && found[0].0 < found[1].0, "round {round}: {last:?}, then {found:?}");
            if round > 0 {
                assert_eq!(store.outbox(Partition(7), queue, Some(last), 10).await.unwrap(), found);
            }
            let ids = [0, 1].map(|at| found[at].0.clone());
            store.acknowledge(Partition(7), queue, &ids).await.unwrap();
            *last = ids[1].clone();
        }
    }
}

pub async fn a_look_finds_what_waits_and_nothing_else(place: &dyn Place) {
    let store = place.open().await;
    let all: Vec<Partition> = Partition::all().collect();
    let due = arm(&*store, account(3), &[(1, 10)]).await;
    arm(&*store, account(900), &[(1, 20)]).await;
    store.commit(&sends(account(900), Queue::Records, &[Bytes::from("a"), Bytes::from("b")])).await.unwrap();
    store.commit(&sends(account(64), Queue::Notifications, &[Bytes::from("a")])).await.unwrap();
    store.commit(&sends(account(1023), Queue::Records, &[Bytes::from("a")])).await.unwrap();
    let work =
        |partition, due, records, notifications| Work { partition: Partition(partition), due, records, notifications };
    let rest = [work(64, false, 0, 1), work(900, false, 2, 0), work(1023, false, 1, 0)];
    assert_eq!(store.look(&all, at(9)).await.unwrap(), rest);
    let now = store.look(&all, at(10)).await.unwrap();
    assert_eq!((now[0], &now[1..]), (work(3, true, 0, 0), &rest[..]));
    assert_eq!(store.look(&all, at(20)).await.unwrap()[2], work(900, true, 2, 0));

    // In the order they were asked for, and only those.
    let some = store.look(&[1023, 5, 3].map(Partition), at(10)).await.unwrap();
    assert_eq!(some, [work(1023, false, 1, 0), work(3, true, 0, 0)]);
    assert!(store.look(&[], at(10)).await.unwrap().is_empty());

    // What is claimed or acknowledged waits no more.
    assert_eq!(store.claim(Partition(3), at(10), at(500), 10).await.unwrap(), due);
    for partition in [900, 1023].map(Partition) {
        for (id, _) in store.outbox(partition, Queue::Records, None, 2).await.unwrap() {
            store.acknowledge(partition, Queue::Records, &[id]).await.unwrap();
        }
    }
    assert_eq!(store.look(&all, at(10)).await.unwrap(), [work(64, false, 0, 1)]);
}

pub async fn a_lease_is_for_whoever_comes_first(place: &dyn Place) {
    let store = place.open().await;
    let other = place.open().await;
    let long = Span::from_secs(60);
    assert!(store.lease("records/1", "a", long).await.unwrap());
    assert!(!other.lease("records/1", "b", long).await.unwrap());
    assert!(other.lease("records/2", "b", long).await.unwrap(), "another one is free");
    for _ in 0..3 {
        assert!(store.lease("records/1", "a", Span::from_millis(900)).await.unwrap(), "renewed, and shortened");
        place.pass(Span::from_millis(400)).await;
        assert!(!other.lease("records/1", "b", long).await.unwrap());
    }
    place.pass(Span::from_millis(1000)).await;
    assert!(other.lease("records/1", "b", long).await.unwrap(), "it has ended");
    assert!(!store.lease("records/1", "a", long).await.unwrap());
}

/// Everything that is left of a session after its record.
async fn left_of(store: &dyn Store, of: AccountKey, key: &ChargingDataRef) -> (Vec<Bytes>, usize) {
    let mut times = 0;
    for list in [List::ClosedSessions(of.partition()), List::ClosedSessionsOf(of)] {
        times += listed(store, &list, 10).await.iter().filter(|found| **found == key.as_str()).count();
    }
    (session_journal(store, of, key).await, times)
}

/// As `left_of`, once what goes lazily has gone.
async fn left_in_the_end(store: &dyn Store, of: AccountKey, key: &ChargingDataRef) -> (Vec<Bytes>, usize) {
    for _ in 0..300 {
        let left = left_of(store, of, key).await;
        if left.1 == 0 {
            return left;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    left_of(store, of, key).await
}

fn appends(key: &ChargingDataRef, expected: Version, entry: &'static str) -> Commit {
    let write = SessionWrite { journal: Some(Bytes::from(entry)), ..session_write(key, expected, "session") };
    Commit { sessions: vec![write], ..leaves(account(7), ABSENT) }
}

pub async fn a_retired_journal_ends_and_its_listings_with_it(place: &dyn Place) {
    let store = place.open().await;
    let keys = close(&*store, account(7), &[(1, 10), (2, 20), (3, 30)]).await;
    let entry = || vec![Bytes::from("session")];
    store.retire(account(7), &keys[0], Some(Bytes::from("published")), Span::from_millis(300)).await.unwrap();
    store.retire(account(7), &keys[1], None, Span::from_secs(60)).await.unwrap();
    let published = vec![Bytes::from("session"), Bytes::from("published")];
    assert_eq!(left_of(&*store, account(7), &keys[0]).await, (published, 2));
    assert_eq!(left_of(&*store, account(7), &keys[1]).await, (entry(), 2));
    place.pass(Span::from_millis(500)).await;
    assert_eq!(session_journal(&*store, account(7), &keys[0]).await, Vec::<Bytes>::new());
    assert_eq!(left_in_the_end(&*store, account(7), &keys[0]).await, (Vec::new(), 0));
    // One ends later, one was not retired, and a document lives for as long as it was told.
    assert_eq!(left_of(&*store, account(7), &keys[1]).await, (entry(), 2));
    assert_eq!(left_of(&*store, account(7), &keys[2]).await, (entry(), 2));
    assert_eq!(load(&*store, account(7), Some(&keys[0])).await.session, document(1, "session"));
}

pub async fn retiring_again_renews_the_journal(place: &dyn Place) {
    let store = place.open().await;
    let keys = close(&*store, account(7), &[(1, 10)]).await;
    for _ in 0..3 {
        store.retire(account(7), &keys[0], None, Span::from_millis(1500)).await.unwrap();
        place.pass(Span::from_millis(800)).await;
        assert_eq!(left_of(&*store, account(7), &keys[0]).await, (vec![Bytes::from("session")], 2));
    }
    place.pass(Span::from_millis(1000)).await;
    assert_eq!(left_in_the_end(&*store, account(7), &keys[0]).await, (Vec::new(), 0));
    // Nothing is there to be retired any more, and that is no error.
    store.retire(account(7), &keys[0], None, Span::from_millis(100)).await.unwrap();
    store.retire(account(7), &session(&*store, account(7), 9), None, Span::from_millis(100)).await.unwrap();
}

pub async fn late_usage_is_appended_to_a_retired_journal(place: &dyn Place) {
    let store = place.open().await;
    let keys = close(&*store, account(7), &[(1, 10)]).await;
    let key = &keys[0];
    let texts = |texts: &[&'static str]| texts.iter().copied().map(Bytes::from).collect::<Vec<_>>();
    store.retire(account(7), key, Some(Bytes::from("published")), Span::from_millis(900)).await.unwrap();
    store.commit(&appends(key, Version(1), "late")).await.unwrap();
    assert_eq!(left_of(&*store, account(7), key).await, (texts(&["session", "published", "late"]), 2));
    // Its supplementary record keeps the whole journal for longer.
    place.pass(Span::from_millis(500)).await;
    store.retire(account(7), key, Some(Bytes::from("published again")), Span::from_millis(900)).await.unwrap();
    place.pass(Span::from_millis(600)).await;
    let all = texts(&["session", "published", "late", "published again"]);
    assert_eq!(left_of(&*store, account(7), key).await, (all, 2));

    // Usage that comes after the end begins a new journal, which is kept until it is retired, too.
    place.pass(Span::from_millis(600)).await;
    store.commit(&appends(key, Version(2), "very late")).await.unwrap();
    assert_eq!(session_journal(&*store, account(7), key).await, texts(&["very late"]));
    store.retire(account(7), key, None, Span::from_millis(200)).await.unwrap();
    assert_eq!(session_journal(&*store, account(7), key).await, texts(&["very late"]));
    place.pass(Span::from_millis(400)).await;
    assert_eq!(left_in_the_end(&*store, account(7), key).await, (texts(&[]), 0));
    assert_eq!(load(&*store, account(7), Some(key)).await.session, document(3, "session"));
}

pub async fn pages_of_closed_sessions_are_whole_while_journals_end(place: &dyn Place) {
    let store = place.open().await;
    let moments: Vec<(u8, i64)> = (0..30).map(|number| (number, i64::from(number / 4))).collect();
    let keys = close(&*store, account(7), &moments).await;
    let (kept, ended): (Vec<_>, Vec<_>) = keys.into_iter().enumerate().partition(|(at, _)| at % 3 == 0);
    for (_, key) in &ended {
        store.retire(account(7), key, None, Span::from_millis(50)).await.unwrap();
    }
    place.pass(Span::from_millis(200)).await;
    for (_, key) in &ended {
        left_in_the_end(&*store, account(7), key).await;
    }
    let kept: BTreeSet<String> = kept.iter().map(|(_, key)| key.to_string()).collect();
    for limit in [1, 3, 4, 10, 100] {
        for list in [List::ClosedSessions(Partition(7)), List::ClosedSessionsOf(account(7))] {
            assert_eq!(once(listed(&*store, &list, limit).await), kept, "{list:?}, pages of {limit}");
        }
    }
}

/// All pages of a scan, which may repeat an item and be short.
async fn scanned(store: &dyn Store, limit: usize) -> BTreeSet<String> {
    all_pages(async |cursor| store.scan(cursor, limit).await.unwrap()).await
}

async fn all_pages(page: impl AsyncFn(Option<&str>) -> Page) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut cursor: Option<Box<str>> = None;
    for _ in 0..100_000 {
        let page = page(cursor.as_deref()).await;
        found.extend(page.items.into_iter().map(String::from));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return found,
        }
    }
    panic!("a scan without an end");
}

pub async fn a_scan_finds_every_session_by_its_document(place: &dyn Place) {
    let store = place.open().await;
    let mut expected = BTreeSet::new();
    for number in 0..40 {
        let of = account(number * 77);
        // Open ones, closed ones, some without any entry; beside everything else that a store holds.
        expected.extend(texts(&open(&*store, of, &[(1, 5)]).await));
        expected.extend(texts(&close(&*store, of, &[(2, 5)]).await));
        let key = session(&*store, of, 3);
        expected.insert(key.to_string());
        let write = SessionWrite { lives_for: Span::from_millis(2000), ..session_write(&key, ABSENT, "session") };
        let index = vec![index_write(1, "entry", None)];
        store.commit(&Commit { sessions: vec![write], index, ..writes(of, ABSENT, "account") }).await.unwrap();
    }
    put(&*store, ReferenceKind::TariffPlan, "x}s:y", 0, "no session").await;
    for limit in [1, 7, 100, 5000] {
        assert_eq!(scanned(&*store, limit).await, expected, "pages of {limit}");
    }
    // What has no document is not found, whatever still names it.
    place.pass(Span::from_millis(2500)).await;
    for number in 0..40 {
        expected.remove(session(&*store, account(number * 77), 3).as_str());
    }
    assert_eq!(scanned(&*store, 100).await, expected);
}

pub async fn a_scan_finds_every_account_by_its_document(place: &dyn Place) {
    let store = place.open().await;
    let mut expected = BTreeSet::new();
    for number in 0..40 {
        let of = account(number * 77);
        open(&*store, of, &[(1, 5)]).await;
        store.commit(&writes(of, ABSENT, "account")).await.unwrap();
        expected.insert(of.to_string());
        // Nobody's session, and a journal without a document, are no accounts.
        open(&*store, account(number * 77 + 1), &[(1, 5)]).await;
        let journal = Some(Bytes::from("entry"));
        let commit = Commit { account_journal: journal, ..leaves(account(number * 77 + 2), ABSENT) };
        store.commit(&commit).await.unwrap();
    }
    put(&*store, ReferenceKind::TariffPlan, "x}a:y", 0, "no account").await;
    for limit in [1, 7, 100, 5000] {
        let found = all_pages(async |cursor| store.accounts(cursor, limit).await.unwrap()).await;
        assert_eq!(found, expected, "pages of {limit}");
    }
    assert!(expected.iter().all(|key| AccountKey::parse(key).is_some()));
}

pub async fn indexes_tell_what_names_a_session(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let steps = [
        (TimerWrite::Keep, Listing::Keep, None, false),
        (TimerWrite::At(at(50)), Listing::Keep, Some(at(50)), false),
        (TimerWrite::Keep, Listing::Open(at(1)), Some(at(50)), true),
        (TimerWrite::Remove, Listing::Keep, None, true),
        (TimerWrite::At(Timestamp::from_millis(-5)), Listing::Keep, Some(Timestamp::from_millis(-5)), true),
        (TimerWrite::At(at(9)), Listing::Closed(at(2)), Some(at(9)), false),
    ];
    for (version, (timer, listing, expected, listed_open)) in (0..).zip(steps) {
        let write = SessionWrite { timer, listing, ..session_write(&key, Version(version), "session") };
        store.commit(&Commit { sessions: vec![write], ..leaves(account(7), ABSENT) }).await.unwrap();
        let indexed = store.indexes(account(7), &key).await.unwrap();
        assert_eq!(indexed, Indexed { timer: expected, listed_open }, "after {timer:?} and {listing:?}");
    }
    // A claim moves the entry.
    store.claim(Partition(7), at(9), at(500), 10).await.unwrap();
    assert_eq!(store.indexes(account(7), &key).await.unwrap().timer, Some(at(500)));
    assert_eq!(store.indexes(account(7), &session(&*store, account(7), 2)).await.unwrap(), Indexed::default());
}

pub async fn indexes_are_dropped_only_without_a_document(place: &dyn Place) {
    let store = place.open().await;
    let write = |number: u8, millis| SessionWrite {
        lives_for: Span::from_millis(millis),
        timer: TimerWrite::At(at(5)),
        listing: Listing::Open(at(1)),
        journal: Some(Bytes::from("entry")),
        ..session_write(&session(&*store, account(7), number), ABSENT, "session")
    };
    let sessions = vec![write(1, 100), write(2, 60_000)];
    store.commit(&Commit { sessions, ..leaves(account(7), ABSENT) }).await.unwrap();
    let [gone, there] = [1, 2].map(|number| session(&*store, account(7), number));
    place.pass(Span::from_millis(300)).await;
    let both = Indexed { timer: Some(at(5)), listed_open: true };
    for key in [&gone, &there] {
        assert_eq!(store.indexes(account(7), key).await.unwrap(), both);
    }
    assert!(!store.drop_indexes(account(7), &there).await.unwrap());
    assert_eq!(store.indexes(account(7), &there).await.unwrap(), both);
    for _ in 0..2 {
        assert!(store.drop_indexes(account(7), &gone).await.unwrap());
        assert_eq!(store.indexes(account(7), &gone).await.unwrap(), Indexed::default());
    }
    assert_eq!(timers(&*store, Partition(7)).await, [Due { key: there.clone(), at: at(5) }]);
    for list in [List::OpenSessions(Partition(7)), List::OpenSessionsOf(account(7))] {
        assert_eq!(listed(&*store, &list, 10).await, [there.to_string()]);
    }
    assert_eq!(session_journal(&*store, account(7), &gone).await, [Bytes::from("entry")], "its journal is kept");
    // It may come back.
    store.commit(&Commit { sessions: vec![write(1, 60_000)], ..leaves(account(7), ABSENT) }).await.unwrap();
    assert_eq!(store.indexes(account(7), &gone).await.unwrap(), both);
}

pub async fn a_dropped_index_never_takes_away_what_a_commit_writes(place: &dyn Place) {
    let store = place.open().await;
    for number in 0..40 {
        let key = session(&*store, account(7), number);
        let timer = TimerWrite::At(at(5));
        let write = SessionWrite { timer, ..session_write(&key, ABSENT, "session") };
        let commit = Commit { sessions: vec![write], ..leaves(account(7), ABSENT) };
        let (committed, dropped) = tokio::join!(store.commit(&commit), store.drop_indexes(account(7), &key));
        committed.unwrap();
        dropped.unwrap();
        assert_eq!(store.indexes(account(7), &key).await.unwrap().timer, Some(at(5)));
    }
}

pub async fn sessions_are_read_in_the_order_they_were_asked(place: &dyn Place) {
    let store = place.open().await;
    store.commit(&changes_everything(&*store, account(7), ABSENT, [ABSENT; 2])).await.unwrap();
    let keys = [3, 2, 1, 2].map(|number| session(&*store, account(7), number));
    let found = store.sessions(account(7), &keys).await.unwrap();
    assert_eq!(found, [None, document(1, "changed"), document(1, "changed"), document(1, "changed")]);
    assert!(store.sessions(account(7), &[]).await.unwrap().is_empty());
}

pub async fn a_session_is_listed_as_open_then_as_closed(place: &dyn Place) {
    let store = place.open().await;
    let key = session(&*store, account(7), 1);
    let lists = [
        List::OpenSessions(Partition(7)),
        List::OpenSessionsOf(account(7)),
        List::ClosedSessions(Partition(7)),
        List::ClosedSessionsOf(account(7)),
    ];
    let steps = [
        (Listing::Keep, [0, 0, 0, 0]),
        (Listing::Open(at(1)), [1, 1, 0, 0]),
        (Listing::Keep, [1, 1, 0, 0]),
        (Listing::Closed(at(2)), [0, 0, 1, 1]),
        (Listing::Keep, [0, 0, 1, 1]),
    ];
    for (version, (listing, expected)) in (0..).zip(steps) {
        let journal = Some(Bytes::from("entry"));
        let write = SessionWrite { listing, journal, ..session_write(&key, Version(version), "session") };
        store.commit(&Commit { sessions: vec![write], ..leaves(account(7), ABSENT) }).await.unwrap();
        for (list, times) in lists.iter().zip(expected) {
            let items = listed(&*store, list, 10).await;
            assert_eq!(items, vec![key.to_string(); times], "{list:?} after {listing:?}");
        }
    }
    assert!(listed(&*store, &List::OpenSessions(Partition(8)), 10).await.is_empty());
    assert!(listed(&*store, &List::ClosedSessionsOf(account(7 + 1024)), 10).await.is_empty());
}

pub async fn closed_sessions_are_listed_in_the_order_of_their_closing(place: &dyn Place) {
    let store = place.open().await;
    // Two accounts of one partition, closing in turns, the numbers in no order; one before 1970 for good measure.
    let here = close(&*store, account(7), &[(1, 50), (2, 20), (3, -1_900_000_000_000), (4, 9)]).await;
    let there = close(&*store, account(7 + 1024), &[(5, 30), (6, 8)]).await;
    let of_here = [&here[2], &here[3], &here[1], &here[0]].map(ToString::to_string);
    let of_both = [&here[2], &there[1], &here[3], &here[1], &there[0], &here[0]].map(ToString::to_string);
    for limit in [1, 2, 3, 10] {
        assert_eq!(listed(&*store, &List::ClosedSessionsOf(account(7)), limit).await, of_here);
        assert_eq!(listed(&*store, &List::ClosedSessions(Partition(7)), limit).await, of_both);
    }
}

pub async fn pages_of_sessions_hold_every_item_once(place: &dyn Place) {
    let store = place.open().await;
    // Many open and close in the same millisecond: a cursor needs more than the time.
    let moments: Vec<(u8, i64)> = (0..12).map(|number| (number, i64::from(number / 4))).collect();
    // Neighbours by their keys, and one as far from them as can be.
    for of in [account(7), account(7 + 1024), account(u64::MAX - 1016)] {
        assert_eq!(of.partition(), Partition(7));
        let open = open(&*store, of, &moments).await;
        let later: Vec<(u8, i64)> = moments.iter().map(|(number, at)| (number + 100, *at)).collect();
        let closed = close(&*store, of, &later).await;
        let (open, closed) = (texts(&open), texts(&closed));
        for limit in [1, 2, 3, 5, 12, 100] {
            assert_eq!(once(listed(&*store, &List::OpenSessionsOf(of), limit).await), open);
            assert_eq!(once(listed(&*store, &List::ClosedSessionsOf(of), limit).await), closed);
        }
    }
    for list in [List::OpenSessions(Partition(7)), List::ClosedSessions(Partition(7))] {
        let whole = listed(&*store, &list, 100).await;
        assert_eq!(once(whole.clone()).len(), 36);
        for limit in [1, 2, 3, 5, 24, 36] {
            assert_eq!(listed(&*store, &list, limit).await, whole, "the order is the same for every limit");
        }
    }
}

pub async fn pages_of_timers_hold_every_entry_once_in_the_order_of_time(place: &dyn Place) {
    let store = place.open().await;
    let mut expected = Vec::new();
    for number in 0..30 {
        // Some at one time, some before 1970, of two accounts of the partition; and some of another partition.
        let millis = i64::from(number / 4) * 1000 - 2000;
        let due = if number < 4 { Timestamp::from_millis(millis) } else { at(millis) };
        for of in [account(7), account(7 + 1024), account(8)] {
            let key = session(&*store, of, number);
            let write = SessionWrite { timer: TimerWrite::At(due), ..session_write(&key, ABSENT, "session") };
            store.commit(&Commit { sessions: vec![write], ..leaves(of, ABSENT) }).await.unwrap();
            if of != account(8) {
                expected.push((due, key.to_string()));
            }
        }
    }
    expected.sort();
    let expected: Vec<String> = expected.into_iter().map(|(_, key)| key).collect();
    for limit in [1, 2, 7, 60, 100] {
        assert_eq!(listed(&*store, &List::Timers(Partition(7)), limit).await, expected, "pages of {limit}");
    }
    assert!(listed(&*store, &List::Timers(Partition(9)), 10).await.is_empty());
}

pub async fn a_cursor_outlives_its_item(place: &dyn Place) {
    let store = place.open().await;
    let moments: Vec<(u8, i64)> = (0..6).map(|number| (number, 1)).collect();
    let keys = open(&*store, account(7), &moments).await;
    for list in [List::OpenSessions(Partition(7)), List::OpenSessionsOf(account(7))] {
        let before = listed(&*store, &list, 100).await;
        let page = store.list(&list, None, 2).await.unwrap();
        // The very item that the cursor stands on is closed meanwhile; the others are neither lost nor repeated.
        let gone = keys.iter().find(|key| *key.as_str() == *page.items[1]).unwrap();
        let write = SessionWrite { listing: Listing::Closed(at(9)), ..session_write(gone, Version(1), "closed") };
        store.commit(&Commit { sessions: vec![write], ..leaves(account(7), ABSENT) }).await.unwrap();
        let rest = store.list(&list, page.next.as_deref(), 100).await.unwrap();
        assert_eq!(rest.items.iter().map(ToString::to_string).collect::<Vec<_>>(), before[2..]);
        assert_eq!(rest.next, None);
    }
}

pub async fn a_reference_is_written_only_over_what_was_read(place: &dyn Place) {
    let store = place.open().await;
    let kind = ReferenceKind::TariffPlan;
    refused_reference(&*store, kind, "demo", Version(1)).await;
    put(&*store, kind, "demo", 0, "one").await;
    assert_eq!(store.reference(kind, "demo").await.unwrap(), document(1, "one"));
    put(&*store, kind, "demo", 1, "two").await;
    for version in [0, 1, 3] {
        refused_reference(&*store, kind, "demo", Version(version)).await;
    }
    assert_eq!(place.open().await.reference(kind, "demo").await.unwrap(), document(2, "two"));
}

pub async fn a_deleted_reference_may_be_created_again(place: &dyn Place) {
    let store = place.open().await;
    let kind = ReferenceKind::Subscriber;
    put(&*store, kind, "a", 0, "one").await;
    put(&*store, kind, "b", 0, "other").await;
    store.put_reference(kind, "a", Version(1), None).await.unwrap();
    assert_eq!(store.reference(kind, "a").await.unwrap(), None);
    assert_eq!(listed(&*store, &List::References(kind), 10).await, ["b"]);
    refused_reference(&*store, kind, "a", Version(1)).await;
    // Deleting what is not there, and was known not to be, changes nothing.
    store.put_reference(kind, "a", ABSENT, None).await.unwrap();
    put(&*store, kind, "a", 0, "again").await;
    assert_eq!(store.reference(kind, "a").await.unwrap().unwrap().bytes, "again");
    assert_eq!(listed(&*store, &List::References(kind), 10).await, ["a", "b"]);
}

pub async fn a_version_read_before_a_deletion_never_fits_again(place: &dyn Place) {
    let store = place.open().await;
    let kind = ReferenceKind::ExportState;
    let mut greatest = Version::ABSENT;
    // Deleted after more writes, and after fewer; beside it others come and go.
    for (round, writes) in [3, 1, 2, 5, 1].into_iter().enumerate() {
        let mut version = Version::ABSENT;
        for write in 0..writes {
            store.put_reference(kind, "7", version, Some(Bytes::from(format!("{round} {write}")))).await.unwrap();
            let written = store.reference(kind, "7").await.unwrap().unwrap().version;
            if write == 0 {
                assert!(written > greatest, "round {round}: {written:?} after {greatest:?}");
            } else {
                assert_eq!(written, version.next());
            }
            version = written;
            greatest = greatest.max(version);
            for stale in 1..version.0 {
                refused_reference(&*store, kind, "7", Version(stale)).await;
            }
        }
        store.put_reference(kind, "7", version, None).await.unwrap();
        refused_reference(&*store, kind, "7", version).await;
        put(&*store, kind, &format!("beside {round}"), 0, "other").await;
    }
}

pub async fn references_are_created_and_deleted_side_by_side(place: &dyn Place) {
    const WRITERS: usize = 8;
    let store = place.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let id = format!("writer {writer}");
            let mut greatest = Version::ABSENT;
            for _ in 0..20 {
                while let Err(error) =
                    store.put_reference(ReferenceKind::ExportState, &id, ABSENT, Some(Bytes::new())).await
                {
                    assert!(matches!(error, Error::Conflict(None)), "{error}");
                }
                let version = store.reference(ReferenceKind::ExportState, &id).await.unwrap().unwrap().version;
                assert!(version > greatest);
                greatest = version;
                while let Err(error) = store.put_reference(ReferenceKind::ExportState, &id, version, None).await {
                    assert!(matches!(error, Error::Conflict(None)), "{error}");
                }
            }
        });
    }
    writers.join_all().await;
    assert!(listed(&*store, &List::References(ReferenceKind::ExportState), 10).await.is_empty());
}

pub async fn kinds_of_references_are_apart(place: &dyn Place) {
    let store = place.open().await;
    let kinds = [
        (ReferenceKind::Subscriber, "subscriber"),
        (ReferenceKind::TariffPlan, "plan"),
        (ReferenceKind::TariffPlanVersion, "version"),
        (ReferenceKind::CatalogStamp, "stamp"),
        (ReferenceKind::ExportState, "export"),
    ];
    for (kind, text) in kinds {
        put(&*store, kind, "same", 0, text).await;
        put(&*store, kind, text, 0, text).await;
    }
    for (kind, text) in kinds {
        assert_eq!(store.reference(kind, "same").await.unwrap(), document(1, text));
        let mut expected = ["same", text];
        expected.sort_unstable();
        assert_eq!(listed(&*store, &List::References(kind), 1).await, expected);
    }
}

pub async fn pages_of_references_are_in_the_order_of_their_bytes(place: &dyn Place) {
    let store = place.open().await;
    let kind = ReferenceKind::TariffPlanVersion;
    let mut ids: Vec<String> = (0..40).map(|number| format!("plan@{number}")).collect();
    ids.extend(["Plan", "plan", "plan@", "pl\u{e4}n", "[a]", "(b)", "-", "+", "~", "a b", "{c}"].map(String::from));
    for id in &ids {
        put(&*store, kind, id, 0, "document").await;
    }
    ids.sort_unstable();
    for limit in [1, 2, 3, 50, 51, 100] {
        assert_eq!(listed(&*store, &List::References(kind), limit).await, ids, "pages of {limit}");
    }
    let page = store.list(&List::References(kind), None, 5).await.unwrap();
    store.put_reference(kind, &page.items[4], Version(1), None).await.unwrap();
    let rest = store.list(&List::References(kind), page.next.as_deref(), 100).await.unwrap();
    assert_eq!(rest.items.iter().map(ToString::to_string).collect::<Vec<_>>(), ids[5..]);
}

pub async fn everyone_sees_the_same_identity(place: &dyn Place) {
    let (first, second) = (place.open().await, place.open().await);
    assert_eq!(first.identity().secret, second.identity().secret);
    assert_eq!(first.identity().instance_id, second.identity().instance_id);
    let dashes: Vec<usize> = first.identity().instance_id.match_indices('-').map(|(at, _)| at).collect();
    assert_eq!((first.identity().instance_id.len(), dashes), (36, vec![8, 13, 18, 23]));
}

pub async fn a_fresh_store_is_ready(place: &dyn Place) {
    place.open().await.ready().await.unwrap();
}

/// The commit is a conflict and leaves no trace.
async fn refused(store: &dyn Store, commit: &Commit) {
    let before = seen(store, commit.account).await;
    conflict(store, commit).await;
    assert_eq!(seen(store, commit.account).await, before);
}

async fn refused_reference(store: &dyn Store, kind: ReferenceKind, id: &str, expected: Version) {
    let before = store.reference(kind, id).await.unwrap();
    for document in [Some(Bytes::from("refused")), None] {
        let answer = store.put_reference(kind, id, expected, document).await;
        assert!(matches!(answer, Err(Error::Conflict(None))), "{answer:?}");
    }
    assert_eq!(store.reference(kind, id).await.unwrap(), before);
}

fn index_write(key: u128, value: &'static str, lives_for: Option<Span>) -> IndexWrite {
    IndexWrite { key: IndexKey(key), value: Bytes::from(value), lives_for }
}

/// Creates sessions (number, due at) with their timer entries.
async fn arm(store: &dyn Store, of: AccountKey, entries: &[(u8, i64)]) -> Vec<Due> {
    create(store, of, entries, |moment| (TimerWrite::At(moment), Listing::Keep), None).await;
    entries.iter().map(|(number, moment)| Due { key: session(store, of, *number), at: at(*moment) }).collect()
}

async fn open(store: &dyn Store, of: AccountKey, entries: &[(u8, i64)]) -> Vec<ChargingDataRef> {
    create(store, of, entries, |moment| (TimerWrite::Keep, Listing::Open(moment)), None).await
}

async fn close(store: &dyn Store, of: AccountKey, entries: &[(u8, i64)]) -> Vec<ChargingDataRef> {
    create(store, of, entries, |moment| (TimerWrite::Keep, Listing::Closed(moment)), Some(Bytes::from("session"))).await
}

async fn create(
    store: &dyn Store,
    of: AccountKey,
    entries: &[(u8, i64)],
    how: impl Fn(Timestamp) -> (TimerWrite, Listing),
    journal: Option<Bytes>,
) -> Vec<ChargingDataRef> {
    let mut keys = Vec::new();
    for (number, moment) in entries {
        let key = session(store, of, *number);
        let (timer, listing) = how(at(*moment));
        let write = SessionWrite { timer, listing, journal: journal.clone(), ..session_write(&key, ABSENT, "session") };
        store.commit(&Commit { sessions: vec![write], ..leaves(of, ABSENT) }).await.unwrap();
        keys.push(key);
    }
    keys
}

fn texts(keys: &[ChargingDataRef]) -> BTreeSet<String> {
    keys.iter().map(ToString::to_string).collect()
}

/// The items as a set, none of them twice.
fn once(items: Vec<String>) -> BTreeSet<String> {
    let set: BTreeSet<String> = items.iter().cloned().collect();
    assert_eq!(set.len(), items.len(), "an item came twice: {items:?}");
    set
}
