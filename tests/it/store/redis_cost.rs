//! What a charging request costs Redis. To be run by hand, on a machine that does nothing else:
//! `cargo test --release --test it -- --ignored --nocapture --test-threads 1 costs`

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::time::Span;
use nchf::floor::SIZES;
use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{
    AccountKey, Commit, Durability, Listing, Load, Partition, RefCodec, SessionWrite, Store, TimerWrite, Version,
};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

use super::place::{QUEUES, at, leaves};
use super::server::Server;

pub async fn open(server: &Server) -> Rc<RedisStore> {
    let settings = Settings { durability: Durability::Memory, ..Settings::new(server.url()) };
    Rc::new(RedisStore::open(Settings { deadline: Duration::from_secs(10), ..settings }).await.unwrap())
}

/// Bytes that do not compress, as real documents hardly do.
fn filled(length: usize) -> Bytes {
    (0..length).map(|at| (at.wrapping_mul(167) >> 3) as u8).collect()
}

fn key(store: &RedisStore, account: AccountKey) -> ChargingDataRef {
    let random: Vec<u8> = account.0.to_be_bytes().into_iter().chain([1; 4]).collect();
    RefCodec::new(store.identity().secret).mint(account, random.try_into().unwrap())
}

/// The usual update: account and session written, one entry in the journal, everything else kept.
fn update(store: &RedisStore, account: AccountKey, version: u64) -> Commit {
    let session = SessionWrite {
        key: key(store, account),
        expected: Version(version),
        document: filled(SIZES.session),
        lives_for: Span::from_secs(7 * 86_400),
        timer: TimerWrite::Keep,
        listing: Listing::Keep,
        journal: Some(filled(SIZES.entry)),
    };
    Commit {
        account_document: Some(filled(SIZES.account)),
        sessions: vec![session],
        ..leaves(account, Version(version))
    }
}

#[test]
#[ignore = "measures; needs a quiet machine"]
fn costs_of_a_load_and_a_commit() {
    for concurrency in [1, 32, 256] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, measure_updates(concurrency));
    }
}

async fn measure_updates(concurrency: u64) {
    const UPDATES: u64 = 100_000;
    const ACCOUNTS_EACH: u64 = 32;
    let server = Server::redis(&[]);
    let store = open(&server).await;
    let (redis_before, here_before, start) = (redis_cpu(&server), own_cpu(), Instant::now());
    let writers: Vec<_> = (0..concurrency)
        .map(|writer| {
            let store = store.clone();
            spawn_local(async move {
                for number in 0..UPDATES / concurrency {
                    let account = AccountKey(writer * ACCOUNTS_EACH + number % ACCOUNTS_EACH);
                    let load = Load { account, session: Some(key(&store, account)), index: Vec::new() };
                    let version = store.load(&load).await.unwrap().session.map_or(0, |found| found.version.0);
                    store.commit(&update(&store, account, version)).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let elapsed = start.elapsed().as_secs_f64();
    let each = |seconds: f64| seconds * 1e6 / UPDATES as f64;
    println!(
        "{concurrency:4} at once: {:7.0} updates/s; CPU per update: Redis {:5.1} µs, here {:5.1} µs; inside Redis: load \
         {:.1} µs, commit {:.1} µs",
        UPDATES as f64 / elapsed,
        each(redis_cpu(&server) - redis_before),
        each(own_cpu() - here_before),
        server.commandstats("mget", "usec_per_call").unwrap(),
        server.commandstats("fcall", "usec_per_call").unwrap(),
    );
}

#[test]
#[ignore = "measures; needs a quiet machine"]
fn costs_of_the_workers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, measure_workers());
}

async fn measure_workers() {
    const SESSIONS: u64 = 20_000;
    let server = Server::redis(&[]);
    let store = open(&server).await;
    look(&server, &store, "nothing").await;
    for Partition(number) in Partition::all() {
        let of = AccountKey(u64::from(number));
        let mut commit = Commit { account_document: None, ..update(&store, of, 0) };
        commit.sessions[0].timer = TimerWrite::At(at(1_000_000));
        commit.outbox = QUEUES.map(|queue| (queue, filled(50))).to_vec();
        store.commit(&commit).await.unwrap();
        for queue in QUEUES {
            let (id, _) = store.outbox(of.partition(), queue, None, 1).await.unwrap().remove(0);
            store.acknowledge(of.partition(), queue, &[id]).await.unwrap();
        }
    }
    look(&server, &store, "a timer that is not due and emptied outboxes").await;

    // One after another, each with the sweep of some closed sessions of its partition.
    let of = |number: u64| AccountKey((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for number in 0..SESSIONS {
        let mut commit = Commit { account_document: None, ..update(&store, of(number), 0) };
        commit.sessions[0].listing = Listing::Closed(at(0));
        store.commit(&commit).await.unwrap();
    }
    let before = redis_cpu(&server);
    for number in 0..SESSIONS {
        let key = key(&store, of(number));
        store.retire(of(number), &key, Some(filled(50)), Span::from_secs(3600)).await.unwrap();
    }
    println!("a retirement: Redis {:.1} µs", (redis_cpu(&server) - before) * 1e6 / SESSIONS as f64);

    let (before, mut cursor, mut pages) = (redis_cpu(&server), None::<Box<str>>, 0);
    loop {
        let page = store.scan(cursor.as_deref(), 1000).await.unwrap();
        pages += 1;
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let keys = server.ask_number(&["DBSIZE"]);
    println!("a scan of {keys} keys in {pages} pages: Redis {:.0} µs", (redis_cpu(&server) - before) * 1e6);
}

async fn look(server: &Server, store: &RedisStore, holding: &str) {
    const LOOKS: u32 = 100;
    let all: Vec<Partition> = Partition::all().collect();
    let (redis_before, here_before) = (redis_cpu(server), own_cpu());
    for _ in 0..LOOKS {
        assert!(store.look(&all, at(0)).await.unwrap().is_empty());
    }
    let each = |seconds: f64| seconds * 1e6 / f64::from(LOOKS);
    println!(
        "a look at 1024 partitions with {holding}: Redis {:.0} µs, here {:.0} µs",
        each(redis_cpu(server) - redis_before),
        each(own_cpu() - here_before),
    );
}

fn redis_cpu(server: &Server) -> f64 {
    field(server, "cpu", "used_cpu_user_main_thread") + field(server, "cpu", "used_cpu_sys_main_thread")
}

pub fn field(server: &Server, section: &str, name: &str) -> f64 {
    let info = server.ask_text(&["INFO", section]);
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.parse().unwrap()
}

/// Seconds that this thread has run.
fn own_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
