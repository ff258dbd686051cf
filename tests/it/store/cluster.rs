//! Clusters of real servers: slots that move under load, masters that join, die and are replaced.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nchf::charging::time::Span;
use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{Applied, Durability, Error, Load, Partition, Queue, SessionWrite, Store, TimerWrite, Version};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::place::*;
use super::redis_faults::Traffic;
use super::sentinel::{REPLICATED, wait_for};
use super::server::{Program, Server, free_port};

pub struct Clustered {
    program: Program,
    options: Vec<&'static str>,
    /// Those that have slots from the beginning.
    pub masters: Vec<Server>,
    /// Each of the master at the same place.
    pub replicas: Vec<Server>,
    bus_ports: Vec<u16>,
}

const MASTERS: u16 = 3;
const SLOTS: u16 = 16384;

impl Clustered {
    pub fn new(program: &Program, replicas: bool, options: &[&'static str]) -> Self {
        let mut clustered = Self {
            program: program.clone(),
            options: options.to_vec(),
            masters: Vec::new(),
            replicas: Vec::new(),
            bus_ports: Vec::new(),
        };
        for number in 0..MASTERS {
            let master = clustered.start();
            let first = number * (SLOTS / MASTERS);
            let last = if number + 1 == MASTERS { SLOTS - 1 } else { first + SLOTS / MASTERS - 1 };
            master.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            master.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            clustered.join(&master);
            clustered.masters.push(master);
        }
        for _ in 0..if replicas { MASTERS } else { 0 } {
            let replica = clustered.start();
            clustered.join(&replica);
            clustered.replicas.push(replica);
        }
        clustered.is_whole();
        for (replica, master) in clustered.replicas.iter().zip(&clustered.masters) {
            replica.ask(&["CLUSTER", "REPLICATE", &id(master)]);
        }
        wait_for("the replicas", || {
            let up = |replica: &Server| replica.ask_text(&["INFO", "replication"]).contains("master_link_status:up");
            clustered.replicas.iter().all(up)
        });
        wait_for("the replicas to be good ones", || {
            let good = |master: &Server| {
                !options.contains(&"--min-replicas-to-write")
                    || master.ask_text(&["INFO", "replication"]).contains("min_slaves_good_slaves:1")
            };
            clustered.masters.iter().all(good)
        });
        clustered
    }

    /// A server that belongs to no cluster yet.
    pub fn start(&mut self) -> Server {
        let bus = free_port();
        self.bus_ports.push(bus);
        let bus = bus.to_string();
        let mut options = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
        options.extend(["--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0"]);
        // However long it takes until it is elected.
        options.extend(["--cluster-replica-validity-factor", "0"]);
        options.extend(&self.options);
        Server::start(self.program.clone(), &options)
    }

    /// Introduces the server that was started last to the first one.
    pub fn join(&self, server: &Server) {
        if let Some(first) = self.masters.first() {
            let (port, bus) = (first.port().to_string(), self.bus_ports[0].to_string());
            server.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.masters.iter().chain(&self.replicas)
    }

    /// Waits until everyone knows everyone and all slots are served.
    pub fn is_whole(&self) {
        let known = format!("cluster_known_nodes:{}\r", self.bus_ports.len());
        wait_for("the cluster", || {
            self.servers().all(|server| {
                let info = server.ask_text(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&known)
            })
        });
    }

    pub fn empty(&self) {
        self.masters.iter().for_each(Server::empty);
    }

    pub fn settings(&self) -> Settings {
        // One that is there and one that is not.
        let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", self.masters[1].port());
        Settings {
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            durability: Durability::Memory,
            ..Settings::new(url)
        }
    }
}

pub fn id(server: &Server) -> String {
    server.ask_text(&["CLUSTER", "MYID"])
}

/// Moves slots as `redis-cli` does, one after another and their keys one by one.
pub fn move_slots(from: &Server, to: &Server, others: &[&Server], slots: &BTreeSet<i64>) {
    let (from_id, to_id, port) = (id(from), id(to), to.port().to_string());
    for slot in slots {
        let slot = slot.to_string();
        to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        // Long enough for someone to come by while some keys are here and some are there.
        loop {
            let keys: Vec<String> =
                redis::from_redis_value(from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"])).unwrap();
            let Some(key) = keys.first() else { break };
            from.ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
            std::thread::sleep(Duration::from_millis(15));
        }
        for server in [to, from].iter().chain(others) {
            server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
    }
}

pub fn slots_of(server: &Server) -> BTreeSet<i64> {
    server.keys().iter().map(|key| server.ask_number(&["CLUSTER", "KEYSLOT", key])).collect()
}

#[tokio::test]
async fn slots_move_under_load_to_a_master_that_joins() {
    LocalSet::new().run_until(moved_under_load()).await;
}

async fn moved_under_load() {
    let mut clustered = Clustered::new(&Program::redis(), false, &[]);
    let store = Rc::new(RedisStore::open(clustered.settings()).await.unwrap());
    // Knows the cluster as it is now, and nothing of what comes.
    let stale = RedisStore::open(clustered.settings()).await.unwrap();
    let key = session(&stale, account(1), 1);
    let mut commit = writes(account(1), Version::ABSENT, "account");
    commit.sessions =
        vec![SessionWrite { timer: TimerWrite::At(at(0)), ..session_write(&key, Version::ABSENT, "session") }];
    stale.commit(&commit).await.unwrap();
    let timers: Vec<Partition> = [Partition(1)].into();
    let others = RedisStore::open(clustered.settings()).await.unwrap();
    let all: Vec<Partition> = Partition::all().collect();

    let joined = clustered.start();
    clustered.join(&joined);
    clustered.is_whole();
    wait_for("the new master to serve", || joined.ask_text(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    let traffic = Traffic::between(&store, 10..18);
    sleep(Duration::from_millis(100)).await;
    let moving = tokio::task::spawn_blocking(move || {
        let slots = slots_of(&clustered.masters[0]);
        assert!(slots.len() > 8, "{slots:?}");
        let others: Vec<_> = clustered.masters[1..].iter().collect();
        move_slots(&clustered.masters[0], &joined, &others, &slots);
        (clustered, joined, slots)
    });
    let (clustered, joined, slots) = moving.await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let writers = traffic.end().await;
    assert!(
        writers.iter().all(|writer| writer.done > 0 && writer.refused + writer.unknown == 0),
        "not served meanwhile"
    );
    assert!(slots_of(&joined).is_superset(&slots));

    // The whole of the store is seen by who is told where things are, and by who has to find out.
    for store in [&stale, &others] {
        let found: Vec<Partition> = store.look(&all, at(1)).await.unwrap().iter().map(|work| work.partition).collect();
        assert_eq!(found, timers);
        assert_eq!(load(store, account(1), Some(&key)).await.session, document(1, "session"));
    }
    stale.ready().await.unwrap();
    drop(clustered);
}

#[tokio::test]
async fn a_slot_that_is_halfway_serves_what_it_can() {
    let clustered = Clustered::new(&Program::redis(), false, &[]);
    let hasty = Settings { deadline: Duration::from_millis(300), ..clustered.settings() };
    let store = RedisStore::open(clustered.settings()).await.unwrap();
    let hasty = RedisStore::open(hasty).await.unwrap();
    let of = account(7);
    store.commit(&changes_everything(&store, of, Version::ABSENT, [Version::ABSENT; 2])).await.unwrap();
    let (from, to) = (&clustered.masters[0], &clustered.masters[1]);
    let keys: Vec<String> = from.keys().into_iter().filter(|key| key.starts_with("nchf{7")).collect();
    let slot = from.ask_number(&["CLUSTER", "KEYSLOT", &keys[0]]).to_string();
    to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
    from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    let (first, rest) = keys.split_at(keys.len() / 2);
    for key in first {
        from.ask(&["MIGRATE", "127.0.0.1", &to.port().to_string(), key, "0", "5000"]);
    }
    // Single keys are found on either side. A change of several is refused, and nothing of it is made.
    let indexed = store.indexes(of, &session(&store, of, 1)).await.unwrap();
    assert!(indexed.timer.is_some() && indexed.listed_open);
    let answer = hasty.commit(&changes_everything(&hasty, of, Version(1), [Version(1); 2])).await;
    assert!(matches!(answer, Err(Error::Unavailable { applied: Applied::No, .. })), "{answer:?}");
    for key in rest {
        from.ask(&["MIGRATE", "127.0.0.1", &to.port().to_string(), key, "0", "5000"]);
    }
    // All is there, and nobody knows yet: whoever asks here is sent there.
    store.retire(of, &session(&store, of, 2), Some(Bytes::from("published")), Span::from_secs(60)).await.unwrap();
    store.commit(&changes_everything(&store, of, Version(1), [Version(1); 2])).await.unwrap();
    for server in [to, from] {
        server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    }
    assert_eq!(load(&store, of, None).await.account, document(2, "changed"));
    let journal = session_journal(&store, of, &session(&store, of, 2)).await;
    assert_eq!(journal, ["changed", "published", "changed"].map(Bytes::from));
    assert_eq!(sent(&store, of.partition(), Queue::Records).await.len(), 2);
    assert!(from.keys().iter().all(|key| !key.starts_with("nchf{7")), "nothing came back");
}

#[tokio::test]
async fn valkey_moves_slots_at_once_under_load() {
    let program = super::valkey!();
    LocalSet::new().run_until(moved_at_once(program)).await;
}

async fn moved_at_once(program: Program) {
    let clustered = Clustered::new(&program, false, &[]);
    let store = Rc::new(RedisStore::open(clustered.settings()).await.unwrap());
    let traffic = Traffic::between(&store, 10..18);
    sleep(Duration::from_millis(100)).await;
    let (from, to) = (&clustered.masters[0], &clustered.masters[1]);
    from.ask(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "400", "NODE", &id(to)]);
    let start = Instant::now();
    while slots_of(from).iter().any(|slot| *slot <= 400) {
        assert!(start.elapsed() < Duration::from_secs(20), "the slots did not move");
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(100)).await;
    let writers = traffic.end().await;
    assert!(
        writers.iter().all(|writer| writer.done > 0 && writer.refused + writer.unknown == 0),
        "not served meanwhile"
    );
}

#[tokio::test]
async fn nothing_that_the_replicas_have_is_lost_with_a_master() {
    for program in Program::all() {
        LocalSet::new().run_until(killed_under_load(program)).await;
    }
}

async fn killed_under_load(program: Program) {
    let mut clustered = Clustered::new(&program, true, REPLICATED);
    let deadline = Duration::from_millis(400);
    let settings = Settings {
        deadline,
        connect_timeout: deadline,
        durability: Durability::Replicated,
        replicas: 1,
        ..clustered.settings()
    };
    let patient = Settings { deadline: Duration::from_secs(5), ..settings.clone() };
    RedisStore::open(patient).await.unwrap().ready().await.unwrap();
    let store = Rc::new(RedisStore::open(settings.clone()).await.unwrap());
    // Some on each master.
    let traffic = Traffic::between(&store, 10..14);
    let elsewhere = Traffic::between(&store, 900..904);
    sleep(Duration::from_millis(300)).await;
    clustered.masters[0].kill();
    let healed = tokio::task::spawn_blocking(move || {
        wait_for("the replica to be promoted", || {
            clustered.replicas[0].ask_text(&["INFO", "replication"]).contains("role:master")
        });
        // Its own replica, without which nothing is answered.
        clustered.masters[0].restart();
        clustered.is_whole();
        clustered
    });
    let clustered = healed.await.unwrap();
    let start = Instant::now();
    let mut version = Version::ABSENT;
    while store.commit(&writes(account(20), version, "served")).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "not served again");
        sleep(Duration::from_millis(20)).await;
        version = store
            .load(&Load { account: account(20), session: None, index: Vec::new() })
            .await
            .map_or(version, |found| found.account.map_or(Version::ABSENT, |found| found.version));
    }
    let writers = traffic.end().await;
    assert!(writers.iter().all(|writer| writer.refused + writer.unknown > 0), "nobody noticed");
    elsewhere.end().await;
    assert_eq!(settings.histories.take_losses(), 0);
    drop(clustered);
}

#[tokio::test]
async fn a_cluster_that_is_not_whole_refuses_in_time_and_is_served_again() {
    let mut clustered = Clustered::new(&Program::redis(), false, &["--appendonly", "yes", "--appendfsync", "always"]);
    let deadline = Duration::from_millis(400);
    let settings = Settings { deadline, connect_timeout: deadline, ..clustered.settings() };
    let store = RedisStore::open(clustered.settings()).await.unwrap();
    let hasty = RedisStore::open(settings).await.unwrap();
    store.commit(&writes(account(7), Version::ABSENT, "account")).await.unwrap();
    clustered.masters[2].kill();
    wait_for("the cluster to notice", || {
        clustered.masters[0].ask_text(&["CLUSTER", "INFO"]).contains("cluster_state:fail")
    });
    for number in [7, 1000] {
        let start = Instant::now();
        let answer = hasty.commit(&writes(account(number), Version(1), "account")).await;
        assert!(matches!(answer, Err(Error::Unavailable { applied: Applied::No, .. })), "{answer:?}");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    assert!(hasty.ready().await.is_err());
    clustered.masters[2].restart();
    clustered.is_whole();
    store.commit(&writes(account(7), Version(1), "account")).await.unwrap();
    store.commit(&writes(account(1000), Version::ABSENT, "account")).await.unwrap();
    store.ready().await.unwrap();
}
