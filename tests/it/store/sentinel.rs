//! A master with two replicas and three sentinels: the store finds the master, and finds the next one when it is gone.

use std::time::Duration;

use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{Durability, Error, Store, Version};
use tokio::time::{Instant, sleep};

use super::place::*;
use super::server::{Program, Server};

/// A master that may be replaced.
pub struct Watched {
    /// The first one is the master at the beginning.
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
}

impl Watched {
    pub fn new(program: &Program, replicas: usize, sentinels: usize, options: &[&str]) -> Self {
        let master = Server::start(program.clone(), options);
        let port = master.port();
        let mut servers = vec![master];
        for _ in 0..replicas {
            let replica = Server::start(program.clone(), options);
            replica.ask(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
            servers.push(replica);
        }
        // Without waiting five seconds for a second replica before the first one is served.
        servers[0].ask(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        wait_for("the replicas", || {
            servers[1..]
                .iter()
                .all(|replica| replica.ask_text(&["INFO", "replication"]).contains("master_link_status:up"))
        });
        let quorum = sentinels / 2 + 1;
        let sentinels: Vec<_> = (0..sentinels).map(|_| Server::sentinel(program.clone(), port, quorum)).collect();
        let watched = Self { servers, sentinels };
        wait_for("the sentinels to know everyone", || {
            watched.sentinels.iter().all(|sentinel| {
                let known = sentinel.ask_map(&["SENTINEL", "MASTER", "main"]);
                known["num-slaves"] == replicas.to_string()
                    && known["num-other-sentinels"] == (watched.sentinels.len() - 1).to_string()
            })
        });
        watched
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    pub fn settings(&self) -> Settings {
        Settings {
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            durability: Durability::Memory,
            ..Settings::new(self.url())
        }
    }

    /// Waits until the replicas have everything that the master has.
    pub fn are_even(&self) {
        let offset = |server: &Server| {
            let info = server.ask_text(&["INFO", "replication"]);
            let lines = info.lines().map(str::to_owned);
            let mut offsets =
                lines.filter(|line| line.starts_with("slave_repl_offset:") || line.starts_with("master_repl_offset:"));
            offsets.next().and_then(|line| line.split_once(':')?.1.parse::<u64>().ok())
        };
        wait_for("the replicas to have everything", || {
            let has = offset(&self.servers[0]);
            self.servers[1..].iter().all(|replica| offset(replica) >= has)
        });
    }

    /// Waits until the sentinels have replaced the first server, and answers which one they chose.
    pub fn promoted(&self) -> &Server {
        let old = self.servers[0].port().to_string();
        let port = || self.sentinels[0].ask_map(&["SENTINEL", "MASTER", "main"])["port"].clone();
        wait_for("another master", || port() != old);
        let port = port();
        self.servers.iter().find(|server| server.port().to_string() == port).expect("one of ours")
    }
}

pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn hasty(watched: &Watched) -> Settings {
    let deadline = Duration::from_millis(400);
    Settings { deadline, connect_timeout: deadline, ..watched.settings() }
}

/// One account, written and waited for until it is answered.
async fn write_until_done(store: &RedisStore, version: u64) {
    let start = Instant::now();
    loop {
        let call = Instant::now();
        let answer = store.commit(&writes(account(7), Version(version), "account")).await;
        assert!(call.elapsed() < Duration::from_secs(1), "a call took {:?}", call.elapsed());
        match answer {
            Ok(()) => return,
            // It was done, and the answer lost.
            Err(Error::Conflict(Some(found))) if found.account == document(version + 1, "account") => return,
            Err(Error::Unavailable { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(30), "not served again");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn replaced(program: Program, fail: impl FnOnce(&mut Watched), heal: impl FnOnce(&mut Watched)) {
    let mut watched = Watched::new(&program, 2, 3, &[]);
    let store = RedisStore::open(hasty(&watched)).await.unwrap();
    write_until_done(&store, 0).await;
    watched.are_even();
    fail(&mut watched);
    write_until_done(&store, 1).await;
    // Whoever comes now finds the same master.
    let promoted = watched.promoted().url();
    let direct = RedisStore::open(Settings { url: promoted, ..hasty(&watched) }).await.unwrap();
    assert_eq!(load(&direct, account(7), None).await.account, document(2, "account"));
    // The old one comes back, as a master for a moment.
    heal(&mut watched);
    write_until_done(&RedisStore::open(hasty(&watched)).await.unwrap(), 2).await;
    write_until_done(&store, 3).await;
    assert_eq!(load(&direct, account(7), None).await.account, document(4, "account"));
    store.ready().await.unwrap();
}

#[tokio::test]
async fn a_killed_master_is_replaced() {
    replaced(Program::redis(), |watched| watched.servers[0].kill(), |watched| watched.servers[0].restart()).await;
}

#[tokio::test]
async fn a_paused_master_is_replaced() {
    replaced(Program::redis(), |watched| watched.servers[0].pause(), |watched| watched.servers[0].resume()).await;
}

#[tokio::test]
async fn a_master_that_was_made_a_replica_is_left_at_once() {
    let watched = Watched::new(&super::valkey!(), 2, 3, &[]);
    let store = RedisStore::open(hasty(&watched)).await.unwrap();
    write_until_done(&store, 0).await;
    watched.sentinels[0].ask(&["SENTINEL", "FAILOVER", "main"]);
    let promoted = watched.promoted().url();
    write_until_done(&store, 1).await;
    let direct = RedisStore::open(Settings { url: promoted, ..hasty(&watched) }).await.unwrap();
    assert_eq!(load(&direct, account(7), None).await.account, document(2, "account"));
}

#[tokio::test]
async fn one_sentinel_of_three_is_enough_and_an_unknown_name_is_said() {
    let mut watched = Watched::new(&Program::redis(), 1, 3, &[]);
    watched.sentinels[0].kill();
    watched.sentinels[1].pause();
    let patient =
        Settings { deadline: Duration::from_secs(2), connect_timeout: Duration::from_secs(1), ..hasty(&watched) };
    let store = RedisStore::open(patient.clone()).await.unwrap();
    write_until_done(&store, 0).await;
    let url = patient.url.replace("/main", "/other");
    let error = RedisStore::open(Settings { url, ..patient.clone() }).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("no sentinel knows the master other"), "{error}");
    let url = format!("{}/main", watched.servers[1].url().replace("redis://", "redis+sentinel://"));
    let error = RedisStore::open(Settings { url, ..patient }).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("SENTINEL"), "{error}");
}
