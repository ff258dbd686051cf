//! What Redis keeps of a session, in octets of its memory: overhead of keys, sets and lists included. Printed by
//! `cargo test --release --test it -- --nocapture takes_little_memory`.
//!
//! What is written was written by the services for the load generator's requests, with other keys.

use bytes::Bytes;
use nchf::bench;
use nchf::charging::ids::ChargingDataRef;
use nchf::clock::ManualClock;
use nchf::config::Config;
use nchf::store::partition::PARTITIONS;
use nchf::store::redis::RedisStore;
use nchf::store::{AccountKey, Commit, IndexKey, Origin, RefCodec, Store, Version};
use serde_json::Value;
use tokio::task::LocalSet;

use super::place::leaves;
use super::redis_cost::{field, open};
use super::server::{Program, Server};
use crate::support::World;
use crate::support::faulty::Faulty;

/// As many to a partition as there are of a million: timers are kept in another way when there are few.
const SESSIONS_EACH: u64 = 1000;
const PARTITIONS_USED: u64 = 2;
const UPDATES: u32 = 10;

/// Octets that a session takes.
#[derive(Debug)]
struct Memory {
    /// Opened, and nothing reported: its document, its timer, and its entries in indexes.
    opened: f64,
    /// The same after its updates.
    updated: f64,
    /// The journal with its first entry.
    journal: f64,
    /// What each update adds to it.
    entry: f64,
}

#[test]
fn an_open_session_takes_little_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // With two rating groups on Redis, what is measured and a little more: whoever needs more says here how much.
    for program in Program::all() {
        let two_groups_max = if program == Program::redis() { 860.0 } else { 800.0 };
        let measured = async { [measure(&program, 1).await, measure(&program, 2).await] };
        let [one_group, two_groups] = LocalSet::new().block_on(&runtime, measured);
        println!("{program:?}\none rating group  {one_group:.0?}\ntwo rating groups {two_groups:.0?}");
        assert!(one_group.opened <= 800.0, "{one_group:?}");
        assert!(two_groups.entry <= 200.0, "{two_groups:?}");
        assert!(one_group.journal <= 1600.0 && two_groups.journal <= 1600.0, "{one_group:?}, {two_groups:?}");
        assert!(one_group.updated <= 800.0, "{one_group:?}");
        assert!(two_groups.updated <= two_groups_max, "{two_groups:?}");
    }
}

async fn measure(program: &Program, groups: usize) -> Memory {
    let commits = commits(groups).await;
    let server = Server::start(program.clone(), &[]);
    let store = open(&server).await;
    let used = || field(&server, "memory", "used_memory");
    let last = commits.last().unwrap();
    let documents = (last.account_document.clone(), last.sessions[0].document.clone());

    // The accounts are not measured, so they are there from the start and keep their lengths.
    write(
        &store,
        |version, key, _| Commit { account_document: documents.0.clone(), ..leaves(key, Version(version)) },
        0..1,
    )
    .await;
    let empty = used();
    let of_session = |number: u64, key: AccountKey, reference: &ChargingDataRef| {
        let mut commit = with_keys(&commits[number as usize], key, reference);
        commit.sessions[0].expected = Version(number);
        commit.sessions[0].journal = None;
        Commit { account_expected: Version(number + 1), account_document: documents.0.clone(), ..commit }
    };
    write(&store, of_session, 0..1).await;
    let opened = used();
    write(&store, of_session, 1..commits.len() as u64).await;
    let updated = used();
    // The journals by themselves, beside documents that no longer change.
    let of_journal = |number: u64, key: AccountKey, reference: &ChargingDataRef| {
        let mut commit = with_keys(last, key, reference);
        commit.sessions[0].expected = Version(commits.len() as u64 + number);
        commit.sessions[0].journal = commits[number as usize].sessions[0].journal.clone();
        Commit { account_expected: Version(1 + commits.len() as u64 + number), ..commit }
    };
    write(&store, of_journal, 0..1).await;
    let journal = used();
    write(&store, of_journal, 1..commits.len() as u64).await;
    let entries = used();

    let each = |octets: f64| octets / (SESSIONS_EACH * PARTITIONS_USED) as f64;
    Memory {
        opened: each(opened - empty),
        updated: each(updated - empty),
        journal: each(journal - updated),
        entry: each(entries - journal) / f64::from(UPDATES),
    }
}

/// What a Create with so many rating groups and its Updates commit.
async fn commits(groups: usize) -> Vec<Commit> {
    let clock = ManualClock::at(bench::EXAMPLE_TIME);
    let store = Faulty::before_memory(&clock);
    let world = World::over(store.clone(), clock, Config::default()).await;
    store.traffic.lock().unwrap().commits.clear();
    let body = |text: String| {
        let mut body: Value = serde_json::from_str(&text).unwrap();
        body["multipleUnitUsage"].as_array_mut().unwrap().truncate(groups);
        body
    };
    let created = world.create(&body(bench::example_create(0))).await;
    for number in 1..=UPDATES {
        world.tick(300);
        let answer = world.update(&created, &body(bench::example_update(0, number))).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }
    std::mem::take(&mut store.traffic.lock().unwrap().commits)
}

/// The same commit, of another account and session.
fn with_keys(commit: &Commit, account: AccountKey, reference: &ChargingDataRef) -> Commit {
    let mut commit = Commit { origin: Origin::ANY, account, ..commit.clone() };
    commit.sessions[0].key = reference.clone();
    for write in &mut commit.index {
        write.key = IndexKey(u128::from(account.0).wrapping_mul(0x9e37_79b9_7f4a_7c15_9e37_79b9_7f4a_7c15));
        write.value = Bytes::copy_from_slice(reference.as_str().as_bytes());
    }
    commit
}

/// Makes commits by their numbers for each of the sessions.
async fn write(
    store: &RedisStore,
    commit: impl Fn(u64, AccountKey, &ChargingDataRef) -> Commit,
    numbers: std::ops::Range<u64>,
) {
    let refs = RefCodec::new(store.identity().secret);
    for session in 0..SESSIONS_EACH * PARTITIONS_USED {
        let spread = (session / PARTITIONS_USED).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let partitions = u64::from(PARTITIONS);
        let account = AccountKey(spread / partitions * partitions + session % PARTITIONS_USED);
        let mut random = [0; 12];
        random[..8].copy_from_slice(&session.to_be_bytes());
        let reference = refs.mint(account, random);
        for number in numbers.clone() {
            store.commit(&commit(number, account, &reference)).await.unwrap();
        }
    }
}
