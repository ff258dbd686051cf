//! A master with two replicas and three sentinels: the store finds the master, and finds the next one when it is gone.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{Applied, Commit, Durability, Error, Load, Origin, Partition, Queue, Reading, Store, Version};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::place::*;
use super::redis_faults::Traffic;
use super::server::{Program, Server};

/// A master that may be replaced.
pub struct Watched {
    /// The first one is the master at the beginning.
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
}

impl Watched {
    pub fn new(program: &Program, replicas: usize, sentinels: usize, options: &[&str]) -> Self {
        // Without waiting five seconds for a second replica before the first one is served.
        let options: Vec<_> = options.iter().chain(&["--repl-diskless-sync-delay", "0"]).copied().collect();
        let master = Server::start(program.clone(), &options);
        let port = master.port();
        let mut servers = vec![master];
        for _ in 0..replicas {
            let replica = Server::start(program.clone(), &options);
            replica.ask(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
            servers.push(replica);
        }
        wait_for("the replicas", || {
            servers[1..]
                .iter()
                .all(|replica| replica.ask_text(&["INFO", "replication"]).contains("master_link_status:up"))
        });
        let asked_for = options.contains(&"--min-replicas-to-write");
        wait_for("the replicas to be good ones", || {
            let good = format!("min_slaves_good_slaves:{replicas}");
            !asked_for || servers[0].ask_text(&["INFO", "replication"]).contains(&good)
        });
        let quorum = sentinels / 2 + 1;
        let sentinels: Vec<_> = (0..sentinels).map(|_| Server::sentinel(program.clone(), port, quorum)).collect();
        let watched = Self { servers, sentinels };
        wait_for("the sentinels to know everyone", || {
            watched.sentinels.iter().all(|sentinel| {
                let known = sentinel.ask_map(&["SENTINEL", "MASTER", "main"]);
                known["num-slaves"] == replicas.to_string()
                    && known["num-other-sentinels"] == (watched.sentinels.len() - 1).to_string()
                    && following(sentinel) == replicas
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

    /// How long a server may be silent before the sentinels take it for lost.
    pub fn patience(&self, millis: &str) {
        for sentinel in &self.sentinels {
            sentinel.ask(&["SENTINEL", "SET", "main", "down-after-milliseconds", millis]);
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
        let named = || -> Vec<String> {
            let port = |sentinel: &Server| sentinel.ask_map(&["SENTINEL", "MASTER", "main"])["port"].clone();
            self.sentinels.iter().map(port).collect()
        };
        // All of them: one that comes back meanwhile must not be taken for the master that it was.
        wait_for("another master", || named().iter().all(|port| *port != old));
        let port = named().remove(0);
        self.servers.iter().find(|server| server.port().to_string() == port).expect("one of ours")
    }
}

/// How many replicas follow the master, by the word of a sentinel.
fn following(sentinel: &Server) -> usize {
    let replicas = sentinel.ask(&["SENTINEL", "REPLICAS", "main"]);
    let replicas: Vec<HashMap<String, String>> = redis::from_redis_value(replicas).unwrap();
    replicas.iter().filter(|replica| replica["master-link-status"] == "ok").count()
}

/// Servers ask each other every ten seconds, on a busy machine more than once in vain.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
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

/// Goal: nobody is sent to the old master by the sentinel that carries out a failover, which describes that one until all
/// replicas follow the new one. Method: there is no other sentinel, and a change is made meanwhile.
#[tokio::test]
async fn the_sentinel_that_replaces_a_master_leads_to_the_new_one_at_once() {
    for program in Program::all() {
        let watched = Watched::new(&program, 2, 1, &[]);
        let sentinel = &watched.sentinels[0];
        sentinel.ask(&["SENTINEL", "FAILOVER", "main"]);
        let old = watched.servers[0].port().to_string();
        let named = || -> Vec<String> {
            redis::from_redis_value(sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"])).unwrap()
        };
        wait_for("another master", || named()[1] != old);
        let store = RedisStore::open(hasty(&watched)).await.unwrap();
        write_until_done(&store, 0).await;
        let direct = Settings { url: watched.promoted().url(), ..hasty(&watched) };
        let direct = RedisStore::open(direct).await.unwrap();
        assert_eq!(load(&direct, account(7), None).await.account, document(1, "account"));
    }
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

pub const REPLICATED: &[&str] = &["--min-replicas-to-write", "1", "--min-replicas-max-lag", "5"];

fn replicated(watched: &Watched) -> Settings {
    Settings { durability: Durability::Replicated, replicas: 2, ..hasty(watched) }
}

/// Eight writers while the master fails; afterwards every operation that was answered is there, once.
async fn keeps_what_was_answered(program: Program, fail: impl FnOnce(&mut Watched), heal: impl FnOnce(&mut Watched)) {
    let mut watched = Watched::new(&program, 2, 3, REPLICATED);
    let settings = replicated(&watched);
    let store = Rc::new(RedisStore::open(settings.clone()).await.unwrap());
    store.ready().await.unwrap();
    let traffic = Traffic::on(&store);
    sleep(Duration::from_millis(300)).await;
    fail(&mut watched);
    let watched = tokio::task::spawn_blocking(move || {
        watched.promoted();
        watched
    });
    let mut watched = watched.await.unwrap();
    // Without the old master, and with it again.
    served_again(&store).await;
    heal(&mut watched);
    sleep(Duration::from_millis(500)).await;
    served_again(&store).await;
    sleep(Duration::from_millis(300)).await;
    let writers = traffic.end().await;
    assert!(writers.iter().all(|writer| writer.refused + writer.unknown > 0), "nobody noticed");
    assert_eq!(settings.histories.take_losses(), 0);
}

async fn served_again(store: &RedisStore) {
    let start = Instant::now();
    let version =
        || async { load(store, account(900), None).await.account.map_or(Version::ABSENT, |found| found.version) };
    loop {
        // The outcome is of no interest, and neither are loads that fail in between.
        let load = Load { account: account(900), session: None, index: Vec::new() };
        let found =
            store.load(&load).await.ok().map(|found| found.account.map_or(Version::ABSENT, |found| found.version));
        if let Some(version) = found
            && store.commit(&writes(account(900), version, "served")).await.is_ok()
        {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "not served again");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(version().await > Version::ABSENT);
}

#[tokio::test]
async fn nothing_that_the_replicas_have_is_lost_with_a_killed_master() {
    let kill = |watched: &mut Watched| watched.servers[0].kill();
    let heal = |watched: &mut Watched| {
        watched.servers[0].restart();
        // The sentinels would do it, after ten seconds.
        let port = watched.promoted().port().to_string();
        watched.servers[0].ask(&["REPLICAOF", "127.0.0.1", &port]);
    };
    LocalSet::new().run_until(keeps_what_was_answered(Program::redis(), kill, heal)).await;
}

#[tokio::test]
async fn nothing_that_the_replicas_have_is_lost_with_a_paused_master() {
    let (pause, heal) = (|w: &mut Watched| w.servers[0].pause(), |w: &mut Watched| w.servers[0].resume());
    LocalSet::new().run_until(keeps_what_was_answered(super::valkey!(), pause, heal)).await;
}

/// Goal: a change that waits for replicas that have gone over to another master is given up soon. Method: the deadline,
/// which it would wait for otherwise, is far away, and the old master cannot be told that it is one no more.
#[tokio::test]
async fn replicas_that_follow_another_master_are_not_waited_for_until_the_deadline() {
    let test = async {
        let watched = Watched::new(&Program::redis(), 2, 3, REPLICATED);
        let settings = Settings { deadline: Duration::from_secs(80), ..replicated(&watched) };
        let store = Rc::new(RedisStore::open(settings.clone()).await.unwrap());
        let _traffic = Traffic::on(&store);
        sleep(Duration::from_millis(300)).await;
        watched.servers[0].ask(&["ACL", "SETUSER", "default", "-slaveof", "-replicaof"]);
        watched.sentinels[0].ask(&["SENTINEL", "FAILOVER", "main"]);
        let watched = tokio::task::spawn_blocking(move || {
            watched.promoted();
            watched
        });
        let _watched = watched.await.unwrap();
        served_again(&store).await;
        assert_eq!(settings.histories.take_losses(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_a_replaced_master_says_is_no_ground_for_a_change() {
    for program in Program::all() {
        let watched = Watched::new(&program, 2, 3, REPLICATED);
        let patient = Settings { deadline: Duration::from_millis(1500), ..replicated(&watched) };
        let old = RedisStore::open(patient.clone()).await.unwrap();
        old.commit(&writes(account(7), Version::ABSENT, "account")).await.unwrap();
        // Connected, and asked nothing while it is away.
        assert_eq!(load(&old, account(7), None).await.account, document(1, "account"));
        watched.servers[0].pause();
        let promoted = watched.promoted();
        let at = |server: &Server| Settings {
            url: server.url(),
            durability: Durability::Memory,
            replicas: 0,
            ..patient.clone()
        };
        let new = RedisStore::open(at(promoted)).await.unwrap();
        new.commit(&writes(account(7), Version(1), "kept")).await.unwrap();
        watched.servers[0].resume();
        watched.servers[0].ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        let lost = RedisStore::open(at(&watched.servers[0])).await.unwrap();
        lost.commit(&writes(account(7), Version(1), "lost")).await.unwrap();

        // The same version, and another content.
        let read = load(&old, account(7), None).await;
        assert_eq!(read.account, document(2, "lost"));
        let origin = read.origin;
        let change = Commit { origin, ..writes(account(7), Version(2), "follows from what is lost") };
        let reading = Reading { origin, account: account(7), account_version: Version(2), session: None };
        for _ in 0..5 {
            let answers = [old.confirm(&reading).await, old.commit(&change).await];
            // Refused, or made where nothing is kept.
            assert!(answers.iter().all(Result::is_err), "{answers:?}");
        }
        assert_eq!(load(&new, account(7), None).await.account, document(2, "kept"));
        assert!(matches!(old.commit(&change).await, Err(Error::Conflict(None))));
        let read = load(&old, account(7), None).await;
        assert_eq!(read.account, document(2, "kept"), "where the changes are made is what is read");
    }
}

#[tokio::test]
async fn what_a_replica_does_not_have_is_not_answered_and_is_confirmed_when_it_does() {
    for program in Program::all() {
        let watched = Watched::new(&program, 2, 1, REPLICATED);
        watched.patience("60000");
        let settings = Settings { replicas: 2, durability: Durability::Replicated, ..watched.settings() };
        let store = RedisStore::open(Settings { deadline: Duration::from_millis(1500), ..settings }).await.unwrap();
        let reading = |version| Reading {
            origin: Origin::ANY,
            account: account(7),
            account_version: Version(version),
            session: None,
        };
        let outbox = vec![(Queue::Records, "a record".into())];
        store.commit(&Commit { outbox, ..writes(account(7), Version::ABSENT, "account") }).await.unwrap();
        let waiting = store.outbox(Partition(7), Queue::Records, None, 10).await.unwrap();
        let ids: Vec<_> = waiting.into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 1);
        watched.servers[2].pause();
        let answer = store.commit(&writes(account(7), Version(1), "account")).await;
        assert!(matches!(answer, Err(Error::Unavailable { applied: Applied::Unknown, .. })), "{answer:?}");
        // It was made: whoever finds it must not answer either. A connection that wrote nothing itself is told by newer
        // servers that all is well.
        assert_eq!(load(&store, account(7), None).await.account, document(2, "account"));
        let answer = store.confirm(&reading(2)).await;
        assert!(matches!(answer, Err(Error::Unavailable { applied: Applied::Unknown, .. })), "{answer:?}");
        let answer = store.outbox(Partition(7), Queue::Records, None, 10).await;
        assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
        // An entry that is gone here and comes back with a failover would be a record in two files. The second time there
        // is nothing to remove.
        for _ in 0..2 {
            let answer = store.acknowledge(Partition(7), Queue::Records, &ids).await;
            assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
        }
        watched.servers[2].resume();
        served_again(&store).await;
        store.confirm(&reading(2)).await.unwrap();
        store.acknowledge(Partition(7), Queue::Records, &ids).await.unwrap();
        assert!(store.outbox(Partition(7), Queue::Records, None, 10).await.unwrap().is_empty());
        assert!(matches!(store.confirm(&reading(1)).await, Err(Error::Conflict(Some(_)))));
    }
}

#[tokio::test]
async fn changes_made_at_once_wait_for_the_replicas_together() {
    let watched = Watched::new(&Program::redis(), 2, 1, REPLICATED);
    let settings = Settings { replicas: 2, durability: Durability::Replicated, ..watched.settings() };
    let store = Rc::new(RedisStore::open(settings).await.unwrap());
    store.commit(&writes(account(0), Version::ABSENT, "account")).await.unwrap();
    watched.servers[0].ask(&["CONFIG", "RESETSTAT"]);
    let local = LocalSet::new();
    let calls: Vec<_> = (1..=100)
        .map(|number| {
            let store = store.clone();
            let commit = writes(account(number), Version::ABSENT, "account");
            local.spawn_local(async move { store.commit(&commit).await.unwrap() })
        })
        .collect();
    local.await;
    for call in calls {
        call.await.unwrap();
    }
    let (changes, waits) = (watched.servers[0].calls_of("fcall"), watched.servers[0].calls_of("wait"));
    assert_eq!(changes, 100);
    assert!(waits <= 4, "{waits} waits");
}

#[tokio::test]
async fn a_loss_is_told() {
    let mut watched = Watched::new(&Program::redis(), 1, 3, &[]);
    let settings = hasty(&watched);
    let store = RedisStore::open(settings.clone()).await.unwrap();
    store.commit(&writes(account(7), Version::ABSENT, "account")).await.unwrap();
    watched.are_even();
    // The replica hears nothing of what is answered next, and then it is the master: nothing was promised.
    watched.servers[1].pause();
    watched.servers[0].ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    store.commit(&writes(account(7), Version(1), "account")).await.unwrap();
    watched.servers[0].kill();
    watched.servers[1].resume();
    served_again(&store).await;
    assert_eq!(load(&store, account(7), None).await.account, document(1, "account"));
    assert_eq!(settings.histories.take_losses(), 1);
}

#[tokio::test]
async fn replicas_are_counted_and_settings_demanded() {
    let mut watched = Watched::new(&Program::redis(), 2, 1, &[]);
    let with = |replicas| Settings { durability: Durability::Replicated, replicas, ..watched.settings() };
    let says = async |settings: Settings| {
        let ready = match RedisStore::open(settings).await {
            Ok(store) => store.ready().await,
            Err(error) => Err(error),
        };
        ready.map_err(|error| error.into_reason().to_string()).err().unwrap_or_default()
    };
    let master = &watched.servers[0];
    assert!(says(with(0)).await.contains("needs store.replicas"));
    assert!(says(with(1)).await.contains("2 replicas and store.replicas is 1"));
    assert!(says(with(2)).await.contains("min-replicas-to-write 0"));
    master.ask(&["CONFIG", "SET", "min-replicas-to-write", "1", "min-replicas-max-lag", "0"]);
    assert!(says(with(2)).await.contains("min-replicas-max-lag 0"));
    master.ask(&["CONFIG", "SET", "min-replicas-max-lag", "2"]);
    assert_eq!(says(with(2)).await, "");
    let settings = Settings { deadline: Duration::from_millis(500), ..with(2) };
    let store = RedisStore::open(settings).await.unwrap();
    watched.patience("60000");
    watched.servers[2].kill();
    wait_for("the master to notice", || {
        watched.servers[0].ask_text(&["INFO", "replication"]).contains("connected_slaves:1")
    });
    let error = store.ready().await.unwrap_err().to_string();
    assert!(error.contains("1 of 2 replicas"), "{error}");
    // Lost, and then it is no longer waited for; but some replica has to be there.
    watched.patience("300");
    served_again(&store).await;
    store.ready().await.unwrap();
    watched.servers[1].pause();
    let answer = store.commit(&writes(account(900), Version(9), "alone")).await;
    assert!(answer.is_err(), "{answer:?}");
    watched.servers[1].resume();
    let single =
        Settings { url: watched.servers[0].url(), replicas: 2, durability: Durability::Replicated, ..hasty(&watched) };
    assert!(says(single).await.contains("a single Redis cannot promise"));
}
