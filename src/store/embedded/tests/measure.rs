//! How fast it is. Not a test: run it where the store shall run, with
//! `cargo test --release --lib store::embedded::tests::measure -- --ignored --nocapture --test-threads 1`.

use std::fs;
use std::time::Instant;

use super::*;

const ACCOUNTS: u64 = 20_000;

/// A usual update: documents of 500 bytes, a journal entry of 300.
fn usual(number: u64, version: u64) -> Commit {
    let mut commit = update(spread(number), version);
    commit.account_document = Some(Bytes::from(vec![1; 500]));
    commit.account_journal = None;
    commit.sessions[0].document = Bytes::from(vec![2; 500]);
    commit.sessions[0].journal = Some(Bytes::from(vec![3; 300]));
    if version > 0 {
        commit.outbox.clear();
        commit.index.clear();
    }
    commit
}

/// Account keys are hashes, so they are spread over all partitions.
fn spread(number: u64) -> AccountKey {
    AccountKey((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Processor time of this process so far, user and system.
fn processor_time() -> (Duration, Duration) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the name: the state, then numbers; utime and stime are the twelfth and thirteenth, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| Duration::from_millis(fields[field].parse::<u64>().unwrap() * 10);
    (ticks(11), ticks(12))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn instant() -> Instant {
    Instant::now()
}

fn filled(directory: &TempDir, durability: Durability) -> EmbeddedStore {
    let settings = Settings { durability, ..Settings::at(directory.path()) };
    let store = EmbeddedStore::open(&settings, Arc::new(SystemClock)).unwrap();
    runtime().block_on(async {
        let mut creates = tokio::task::JoinSet::new();
        for number in 0..ACCOUNTS {
            let store = store.clone();
            creates.spawn(async move { store.commit(&usual(number, 0)).await.unwrap() });
        }
        creates.join_all().await;
    });
    store
}

#[test]
#[ignore = "a measurement"]
fn commits_per_second() {
    for durability in [Durability::Fsync, Durability::Memory] {
        for in_flight in [1, 2, 8, 32, 256] {
            let directory = TempDir::new_in(".").unwrap();
            let store = filled(&directory, durability);
            let (before, begun) = (processor_time(), instant());
            // Two workers, as two cores have; each its own accounts, so that nothing conflicts.
            let workers: u64 = if in_flight == 1 { 1 } else { 2 };
            let threads = (0..workers).map(|worker| {
                let store = store.clone();
                std::thread::spawn(move || runtime().block_on(work(store, worker, workers, in_flight / workers, begun)))
            });
            let done: u64 = threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum();
            let (elapsed, after) = (begun.elapsed(), processor_time());
            let each = |time: Duration| time.as_secs_f64() * 1e6 / done as f64;
            println!(
                "{durability:?}, {in_flight} in flight: {:.0} updates/s, µs of processor per update: {:.1} user, {:.1} system",
                done as f64 / elapsed.as_secs_f64(),
                each(after.0 - before.0),
                each(after.1 - before.1),
            );
        }
    }
}

/// Keeps `in_flight` updates going for three seconds, each a load and a commit; answers how many there were.
async fn work(store: EmbeddedStore, worker: u64, workers: u64, in_flight: u64, begun: Instant) -> u64 {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..in_flight {
        let store = store.clone();
        tasks.spawn(async move {
            let lane = worker * in_flight + task;
            let lanes = workers * in_flight;
            let mut random = lane + 1;
            let mut done = 0;
            while begun.elapsed() < Duration::from_secs(3) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let number = ((random >> 33) % (ACCOUNTS / lanes)) * lanes + lane;
                let load = Load { account: spread(number), session: Some(session()), index: Vec::new() };
                let version = store.load(&load).await.unwrap().account.unwrap().version.0;
                store.commit(&usual(number, version)).await.unwrap();
                done += 1;
            }
            done
        });
    }
    tasks.join_all().await.into_iter().sum()
}

#[test]
#[ignore = "a measurement"]
fn microseconds_per_load() {
    let directory = TempDir::new_in(".").unwrap();
    let store = filled(&directory, Durability::Memory);
    runtime().block_on(async {
        for round in 0..3 {
            let begun = instant();
            for number in 0..ACCOUNTS {
                let number = number * 7919 % ACCOUNTS;
                let load = Load { account: spread(number), session: Some(session()), index: Vec::new() };
                assert!(store.load(&load).await.unwrap().session.is_some());
            }
            println!(
                "round {round}: {:.2} µs per load of account and session",
                begun.elapsed().as_secs_f64() * 1e6 / ACCOUNTS as f64
            );
        }
        let begun = instant();
        for _ in 0..1000 {
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        }
        println!("{:.2} µs to another thread and back", begun.elapsed().as_secs_f64() * 1e6 / 1000.0);
    });
}

#[test]
#[ignore = "a measurement"]
fn a_look_at_all_partitions() {
    const LOOKS: u32 = 200;
    let directory = TempDir::new_in(".").unwrap();
    let store = filled(&directory, Durability::Memory);
    let all: Vec<Partition> = Partition::all().collect();
    runtime().block_on(async {
        for now in [Timestamp::default(), start()] {
            let begun = instant();
            let mut work = 0;
            for _ in 0..LOOKS {
                work = store.look(&all, now).await.unwrap().iter().filter(|work| work.due).count();
            }
            println!("{work} of 1024 due: {:?} for a look at all", begun.elapsed() / LOOKS);
        }
    });
}
