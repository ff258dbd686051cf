//! What happens when Redis fails: every call ends in time and says what may have happened, and it heals by itself.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nchf::store;
use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{AccountKey, Applied, Commit, Error, JournalKey, Reading, Store, Version};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::place::*;
use super::redis::settings;
use super::server::Server;

const DEADLINE: Duration = Duration::from_millis(400);
/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_millis(600);

fn hasty(server: &Server) -> Settings {
    Settings { deadline: DEADLINE, connect_timeout: DEADLINE, ..settings(server) }
}

/// Commits numbered operations one after another, resolving every unknown outcome by the version.
pub struct Writer {
    store: Rc<RedisStore>,
    account: AccountKey,
    pub done: u64,
    pub unknown: u64,
    pub refused: u64,
    /// The longest that any call took.
    longest: Duration,
}

impl Writer {
    fn new(store: &Rc<RedisStore>, number: u64) -> Self {
        let store = store.clone();
        Self { store, account: account(number), done: 0, unknown: 0, refused: 0, longest: Duration::ZERO }
    }

    async fn run_while(mut self, on: Rc<Cell<bool>>) -> Self {
        while on.get() {
            self.step().await;
        }
        self
    }

    /// Submits the next operation once; afterwards it is known to be done, or not.
    async fn step(&mut self) {
        let entry = Bytes::copy_from_slice(&self.done.to_be_bytes());
        let commit = Commit {
            account_document: Some(entry.clone()),
            account_journal: Some(entry),
            ..leaves(self.account, Version(self.done))
        };
        let store = self.store.clone();
        match self.timed(store.commit(&commit)).await {
            Ok(()) => self.done += 1,
            Err(Error::Unavailable { applied: Applied::No, .. }) => {
                self.refused += 1;
                sleep(Duration::from_millis(5)).await;
            }
            Err(Error::Unavailable { applied: Applied::Unknown, .. }) => {
                self.unknown += 1;
                self.resolve().await;
            }
            Err(error) => panic!("operation {}: {error:?}", self.done),
        }
    }

    /// Submits the same operation again until the answer is known: a conflict with our own document means it was done.
    async fn resolve(&mut self) {
        let version = loop {
            let store = self.store.clone();
            match self.timed(store.commit(&leaves(self.account, Version(u64::MAX - 1)))).await {
                Err(Error::Conflict(Some(current))) => {
                    let account_version = current.account.map_or(Version::ABSENT, |found| found.version);
                    // It may be the word of a master that was replaced.
                    let read =
                        Reading { origin: current.origin, account: self.account, account_version, session: None };
                    if self.timed(store.confirm(&read)).await.is_ok() {
                        break account_version.0;
                    }
                }
                Err(Error::Unavailable { .. }) => {}
                other => panic!("{other:?}"),
            }
            self.refused += 1;
            sleep(Duration::from_millis(5)).await;
        };
        assert!(version == self.done || version == self.done + 1, "{version} after operation {}", self.done);
        self.done = version;
    }

    async fn timed<T>(&mut self, call: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let answer = timeout(Duration::from_secs(20), call).await.expect("every call ends");
        self.longest = self.longest.max(start.elapsed());
        answer
    }

    /// Each operation left exactly one entry, in order.
    async fn check(&self) {
        let entries = self.store.journal(&JournalKey::Account(self.account)).await.unwrap();
        let expected: Vec<Bytes> = (0..self.done).map(|number| Bytes::copy_from_slice(&number.to_be_bytes())).collect();
        assert_eq!(entries, expected);
        assert!(self.longest < DEADLINE + SLACK, "a call took {:?}", self.longest);
    }
}

/// Eight writers at once, each on its account.
pub struct Traffic {
    on: Rc<Cell<bool>>,
    writers: Vec<JoinHandle<Writer>>,
}

impl Traffic {
    pub fn on(store: &Rc<RedisStore>) -> Self {
        Self::between(store, 0..8)
    }

    pub fn between(store: &Rc<RedisStore>, accounts: Range<u64>) -> Self {
        let on = Rc::new(Cell::new(true));
        let writers = accounts.map(|number| spawn_local(Writer::new(store, number).run_while(on.clone()))).collect();
        Self { on, writers }
    }

    /// Lets them end, and checks what each left.
    pub async fn end(self) -> Vec<Writer> {
        self.on.set(false);
        let mut ended = Vec::new();
        for writer in self.writers {
            let writer = writer.await.unwrap();
            writer.check().await;
            ended.push(writer);
        }
        ended
    }
}

pub async fn serves(store: &RedisStore) -> Duration {
    let start = Instant::now();
    while load_fails(store).await {
        sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

async fn load_fails(store: &RedisStore) -> bool {
    let load = store::Load { account: account(999), session: None, index: Vec::new() };
    store.load(&load).await.is_err()
}

#[tokio::test]
async fn a_killed_redis_costs_time_and_no_operation() {
    let local = LocalSet::new();
    local.run_until(killed_under_load()).await;
}

async fn killed_under_load() {
    let mut server = Server::redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = Rc::new(RedisStore::open(hasty(&server)).await.unwrap());
    let traffic = Traffic::on(&store);
    for _ in 0..3 {
        sleep(Duration::from_millis(60)).await;
        server.kill();
        sleep(Duration::from_millis(300)).await;
        assert!(load_fails(&store).await);
        server.restart();
        let healed = serves(&store).await;
        assert!(healed < Duration::from_secs(1), "healed after {healed:?}");
    }
    let writers = traffic.end().await;
    assert!(writers.iter().all(|writer| writer.done > 0 && writer.refused + writer.unknown > 0), "nobody noticed");
}

#[tokio::test]
async fn cut_connections_leave_unknown_outcomes_that_versions_resolve() {
    let local = LocalSet::new();
    local.run_until(cut_under_load()).await;
}

async fn cut_under_load() {
    let server = Server::redis(&[]);
    let store = Rc::new(RedisStore::open(hasty(&server)).await.unwrap());
    let traffic = Traffic::on(&store);
    for _ in 0..30 {
        sleep(Duration::from_millis(15)).await;
        server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    let writers = traffic.end().await;
    assert!(writers.iter().any(|writer| writer.unknown > 0), "no connection was cut in time");
}

#[tokio::test]
async fn a_paused_redis_lets_calls_fail_in_time_and_is_served_again() {
    let server = Server::redis(&[]);
    let store = Rc::new(RedisStore::open(hasty(&server)).await.unwrap());
    let mut writer = Writer::new(&store, 7);
    writer.step().await;
    for _ in 0..2 {
        server.ask(&["CLIENT", "PAUSE", "1500", "ALL"]);
        let start = Instant::now();
        // Whatever it answers, it answers in time.
        for _ in 0..3 {
            assert!(load_fails(&store).await);
        }
        assert!(start.elapsed() < 3 * (DEADLINE + SLACK));
        sleep(Duration::from_millis(1500).saturating_sub(start.elapsed())).await;
        let healed = serves(&store).await;
        assert!(healed < Duration::from_secs(1), "healed after {healed:?}");
    }
    // Paused while a commit is on its way: the outcome is unknown, and was in fact made when the pause ended.
    server.ask(&["CLIENT", "PAUSE", "900", "WRITE"]);
    writer.step().await;
    assert_eq!(writer.unknown, 1);
    writer.step().await;
    writer.check().await;
}

#[tokio::test]
async fn a_refused_connection_is_refused_at_once() {
    let mut server = Server::redis(&[]);
    let store = RedisStore::open(hasty(&server)).await.unwrap();
    server.kill();
    load_fails(&store).await;
    let start = Instant::now();
    for _ in 0..1000 {
        let answer = store.commit(&writes(account(7), Version::ABSENT, "account")).await;
        assert!(matches!(answer, Err(Error::Unavailable { applied: Applied::No, .. })), "{answer:?}");
    }
    assert!(start.elapsed() < SLACK, "1000 refusals took {:?}", start.elapsed());
    assert!(matches!(store.ready().await, Err(Error::Unavailable { applied: Applied::No, .. })));
    assert!(matches!(
        RedisStore::open(hasty(&server)).await.map(drop),
        Err(Error::Unavailable { applied: Applied::No, .. })
    ));
}

#[tokio::test]
async fn what_redis_refuses_was_not_applied() {
    let server = Server::redis(&[]);
    let store = RedisStore::open(settings(&server)).await.unwrap();
    let cases: [[&[&str]; 2]; 4] = [
        [&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]],
        [&["CONFIG", "SET", "min-replicas-to-write", "1"], &["CONFIG", "SET", "min-replicas-to-write", "0"]],
        [&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]],
        [&["ACL", "SETUSER", "default", "-fcall"], &["ACL", "SETUSER", "default", "+fcall"]],
    ];
    for (version, [fail, heal]) in (0..).zip(cases) {
        server.ask(fail);
        let commit = writes(account(7), Version(version), "account");
        let answer = store.commit(&commit).await;
        assert!(matches!(answer, Err(Error::Unavailable { applied: Applied::No, .. })), "{fail:?}: {answer:?}");
        server.ask(heal);
        assert_eq!(load(&store, account(7), None).await.account.map_or(0, |found| found.version.0), version);
        store.commit(&commit).await.unwrap();
    }
}

#[tokio::test]
async fn a_busy_redis_is_told_from_a_silent_one() {
    let server = Server::redis(&["--busy-reply-threshold", "50"]);
    let store = RedisStore::open(settings(&server)).await.unwrap();
    let url = server.url();
    let blocker = std::thread::spawn(move || {
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let _: Result<(), _> = redis::cmd("EVAL").arg("while true do end").arg(0).query(&mut connection);
    });
    sleep(Duration::from_millis(500)).await;
    let answer = store.commit(&writes(account(7), Version::ABSENT, "account")).await;
    server.ask(&["SCRIPT", "KILL"]);
    blocker.join().unwrap();
    assert!(matches!(answer, Err(Error::Unavailable { applied: Applied::No, .. })), "{answer:?}");
    store.commit(&writes(account(7), Version::ABSENT, "account")).await.unwrap();
}

#[tokio::test]
async fn dropped_calls_leave_the_shared_connection_sound() {
    let server = Server::redis(&[]);
    let store = RedisStore::open(settings(&server)).await.unwrap();
    let mut version = 0;
    for round in 0..200 {
        let text = if round % 2 == 0 { "even" } else { "odd" };
        let commit = writes(account(7), Version(version), text);
        let _ = timeout(Duration::from_micros(round * 7), store.commit(&commit)).await;
        // An answer that nobody waited for must not be taken for that of the next call.
        let found = load(&store, account(7), None).await.account;
        version = found.as_ref().map_or(0, |found| found.version.0);
        assert!(found.is_none_or(|found| found.bytes == text || found.version.0 < version + 1));
        assert_eq!(store.sessions(account(7), &[session(&store, account(7), 1)]).await.unwrap(), [None]);
    }
    assert_eq!(server.ask_number(&["DBSIZE"]), 3, "format, migrations, account");
}
