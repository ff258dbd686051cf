//! The servers of the store, and what is done to them. Everything here blocks.

use std::time::Duration;

use super::timeline::{Fault, Timeline};
use super::watch::{Asked, Whom};
use crate::processes::Random;
use crate::store::cluster::{Clustered, id, move_slots, slots_of};
use crate::store::sentinel::{REPLICATED, Watched, wait_for};
use crate::store::server::{Program, Server};

pub enum Stores {
    Single(Server),
    /// A master, two replicas, three sentinels.
    Watched(Watched),
    /// Three masters with a replica each.
    Clustered(Clustered),
}

/// So that a server that is killed has everything when it comes back.
const KEPT: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

const FUNCTIONS: &str = include_str!("../../../migrations-redis/0003_one_list.lua");

impl Stores {
    pub fn start(topology: &str, program: &Program) -> Self {
        let replicated: Vec<_> = KEPT.iter().chain(REPLICATED).copied().collect();
        match topology {
            "single" => Self::Single(Server::start(program.clone(), &KEPT)),
            "sentinel" => Self::Watched(Watched::new(program, 2, 3, &replicated)),
            "cluster" => Self::Clustered(Clustered::new(program, true, &replicated)),
            other => panic!("there is no topology {other}: single, sentinel or cluster"),
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Single(server) => server.url(),
            Self::Watched(watched) => watched.url(),
            Self::Clustered(clustered) => clustered.settings().url,
        }
    }

    /// Whom to ask whether the store could serve.
    pub fn whom(&self) -> Whom {
        // Of slots in the middle of what each of three masters has: those at the beginning move.
        const KEYS: [&str; 3] = ["probe:40", "probe:3", "probe:18"];
        let asked = |(shard, server): (usize, &Server)| Asked { port: server.port(), shard, key: KEYS[shard] };
        let (servers, sentinels, replicas) = match self {
            Self::Single(server) => (vec![asked((0, server))], Vec::new(), 0),
            Self::Watched(watched) => {
                let servers = watched.servers.iter().map(|server| asked((0, server))).collect();
                (servers, watched.sentinels.iter().map(Server::port).collect(), 2)
            }
            Self::Clustered(Clustered { masters, replicas, .. }) => {
                let servers = masters.iter().enumerate().chain(replicas.iter().enumerate()).map(asked).collect();
                (servers, Vec::new(), 1)
            }
        };
        Whom { servers, sentinels, replicas }
    }

    /// What an instance is told so that nothing may be lost.
    pub fn settings(&self) -> &'static str {
        match self {
            Self::Single(_) => "store.durability = 'fsync'\n",
            Self::Watched(_) => "store.durability = 'replicated'\nstore.replicas = 2\n",
            Self::Clustered(_) => "store.durability = 'replicated'\nstore.replicas = 1\n",
        }
    }

    /// What can be done to these.
    pub fn suffers(&self, fault: Fault) -> bool {
        match fault {
            Fault::Kill | Fault::Freeze | Fault::Restart => false,
            Fault::RedisFreeze
            | Fault::RedisPause
            | Fault::RedisPauseWrites
            | Fault::RedisFull
            | Fault::RedisCut
            | Fault::Upgrade => true,
            Fault::RedisKill => !matches!(self, Self::Watched(_)),
            Fault::ReplicaKill | Fault::FailoverKill | Fault::FailoverFreeze | Fault::Failover => {
                !matches!(self, Self::Single(_))
            }
            Fault::Slots => matches!(self, Self::Clustered(_)),
        }
    }

    /// Does it, undoes it, and waits until everything that durability needs is there.
    pub fn suffer(&mut self, fault: Fault, random: &mut Random, timeline: &Timeline) {
        let began = timeline.now();
        let shard = random.below(3) as usize;
        match fault {
            Fault::RedisKill => {
                let master = self.master(shard);
                master.kill();
                std::thread::sleep(random.millis(if matches!(self, Self::Single(_)) { 2000 } else { 300 }));
                self.restart_dead();
            }
            Fault::RedisFreeze => {
                let master = self.master(shard);
                master.pause();
                std::thread::sleep(Duration::from_millis(500) + random.millis(2500));
                master.resume();
            }
            Fault::RedisPause | Fault::RedisPauseWrites => {
                let kind = if fault == Fault::RedisPause { "ALL" } else { "WRITE" };
                let pause = Duration::from_millis(300) + random.millis(4000);
                self.master(shard).ask(&["CLIENT", "PAUSE", &pause.as_millis().to_string(), kind]);
                std::thread::sleep(pause);
            }
            Fault::RedisFull => {
                self.set_all("maxmemory", "1");
                std::thread::sleep(Duration::from_millis(300) + random.millis(1500));
                self.set_all("maxmemory", "0");
            }
            Fault::RedisCut => {
                for _ in 0..10 {
                    self.master(shard).ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                    std::thread::sleep(random.millis(60));
                }
            }
            Fault::ReplicaKill => {
                let replica = self.replica(shard).port();
                self.server(replica).kill();
                std::thread::sleep(random.millis(1000));
                self.restart_dead();
                self.make_a_replica(replica);
            }
            Fault::FailoverKill => {
                let old = self.master(shard).port();
                self.master(shard).kill();
                self.wait_for_another_master(shard, old, timeline);
                std::thread::sleep(random.millis(500));
                self.restart_dead();
                self.make_a_replica(old);
            }
            Fault::FailoverFreeze => {
                let old = self.master(shard).port();
                self.server(old).pause();
                self.wait_for_another_master(shard, old, timeline);
                std::thread::sleep(random.millis(1000));
                self.server(old).resume();
            }
            Fault::Failover => {
                let old = self.master(shard).port();
                match self {
                    Self::Watched(watched) => drop(watched.sentinels[shard].ask(&["SENTINEL", "FAILOVER", "main"])),
                    Self::Clustered(_) => drop(self.replica(shard).ask(&["CLUSTER", "FAILOVER"])),
                    Self::Single(_) => return,
                }
                self.wait_for_another_master(shard, old, timeline);
            }
            Fault::Slots => self.move_some_slots(shard, random),
            Fault::Upgrade => self.upgrade(),
            Fault::Kill | Fault::Freeze | Fault::Restart => return,
        }
        self.wait_until_whole();
        timeline.note_of_stores(fault, began);
    }

    /// All servers that hold data.
    fn servers(&mut self) -> Vec<&mut Server> {
        match self {
            Self::Single(server) => vec![server],
            Self::Watched(watched) => watched.servers.iter_mut().collect(),
            Self::Clustered(clustered) => clustered.masters.iter_mut().chain(&mut clustered.replicas).collect(),
        }
    }

    fn server(&mut self, port: u16) -> &mut Server {
        self.servers().into_iter().find(|server| server.port() == port).unwrap()
    }

    /// The servers that hold the same keys.
    fn shard(&mut self, shard: usize) -> Vec<&mut Server> {
        match self {
            Self::Clustered(clustered) => vec![&mut clustered.masters[shard], &mut clustered.replicas[shard]],
            _ => self.servers(),
        }
    }

    fn master(&mut self, shard: usize) -> &mut Server {
        let named = self.named_by_sentinels();
        let is_master =
            |server: &&mut Server| named.map_or_else(|| has_role(server, "master"), |port| server.port() == port);
        self.shard(shard).into_iter().find(is_master).expect("there is a master when all is whole")
    }

    fn replica(&mut self, shard: usize) -> &mut Server {
        self.shard(shard).into_iter().find(|server| has_role(server, "slave")).expect("there is a replica")
    }

    /// The master that all sentinels agree on.
    fn named_by_sentinels(&self) -> Option<u16> {
        let Self::Watched(watched) = self else { return None };
        let mut named: Vec<String> = watched
            .sentinels
            .iter()
            .map(|sentinel| sentinel.ask_map(&["SENTINEL", "MASTER", "main"])["port"].clone())
            .collect();
        named.dedup();
        if named.len() == 1 { named[0].parse().ok() } else { None }
    }

    fn wait_for_another_master(&mut self, shard: usize, old: u16, timeline: &Timeline) {
        wait_for("another master", || match self {
            Self::Clustered(_) => {
                self.shard(shard).into_iter().any(|server| server.port() != old && has_role(server, "master"))
            }
            _ => self.named_by_sentinels().is_some_and(|port| port != old && has_role(self.server(port), "master")),
        });
        timeline.replaced();
    }

    fn restart_dead(&mut self) {
        self.servers().into_iter().filter(|server| server.try_ask(&["PING"]).is_err()).for_each(Server::restart);
    }

    /// As its configuration would that the sentinels rewrite, or else the sentinels after ten seconds; servers of a cluster
    /// find out by themselves.
    fn make_a_replica(&mut self, port: u16) {
        if let Some(master) = self.named_by_sentinels().filter(|master| *master != port) {
            self.server(port).ask(&["REPLICAOF", "127.0.0.1", &master.to_string()]);
        }
    }

    fn set_all(&mut self, name: &str, value: &str) {
        for server in self.servers() {
            server.ask(&["CONFIG", "SET", name, value]);
        }
    }

    /// As the migration of a next release does that adds functions and takes none away.
    fn upgrade(&mut self) {
        let [today, next] = [FUNCTIONS.to_owned(), FUNCTIONS.replace("nchf_", "nchf_next_")];
        // `needs` is still ours, and a checksum that nobody can compare.
        let record = format!("2 {:032x} next", 7);
        let is_master = |server: &&mut Server| has_role(server, "master");
        for master in self.servers().into_iter().filter(is_master) {
            for source in [&next, &today] {
                // One that was replaced just now, and does not know yet, takes no functions either.
                wait_for("the functions", || master.try_ask(&["FUNCTION", "LOAD", "REPLACE", source]).is_ok());
            }
            // In a cluster all but one of them point at the one that has the key.
            let _noted = master.try_ask(&["HSET", "nchf:migrations", "4", &record]);
        }
    }

    fn move_some_slots(&mut self, from: usize, random: &mut Random) {
        let to = (from + 1 + random.below(2) as usize) % 3;
        let Self::Clustered(clustered) = self else { return };
        let is_master = |server: &&Server| has_role(server, "master");
        let masters: Vec<&Server> = (0..3)
            .filter_map(|shard| [&clustered.masters[shard], &clustered.replicas[shard]].into_iter().find(is_master))
            .collect();
        let slots = slots_of(masters[from]);
        let some = slots.into_iter().skip(random.below(8) as usize).step_by(3).take(4).collect();
        let others = [masters[3 - from - to]];
        let is_atomic = masters[from].try_ask(&["CLUSTER", "GETSLOTMIGRATIONS"]).is_ok();
        if !is_atomic {
            return move_slots(masters[from], masters[to], &others, &some);
        }
        for slot in some {
            let (slot, to) = (slot.to_string(), id(masters[to]));
            masters[from].ask(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &slot, &slot, "NODE", &to]);
            wait_for("the slot to move", || !slots_of(masters[from]).iter().any(|left| left.to_string() == slot));
        }
    }

    /// Masters serve, replicas follow them, and everybody agrees who is who.
    pub fn wait_until_whole(&mut self) {
        let replicas = match self {
            Self::Single(_) => return wait_for("the server", || self.servers()[0].try_ask(&["PING"]).is_ok()),
            Self::Watched(_) => 2,
            Self::Clustered(_) => 1,
        };
        let good = format!("min_slaves_good_slaves:{replicas}");
        wait_for("all replicas to follow", || {
            let named = match self {
                Self::Watched(_) => match self.named_by_sentinels() {
                    Some(port) => vec![port],
                    None => return false,
                },
                _ => Vec::new(),
            };
            let mut masters = 0;
            for server in self.servers() {
                let Ok(info) = server.try_ask(&["INFO", "replication"]) else { return false };
                let info: String = redis::from_redis_value(info).unwrap();
                if info.contains("role:master") {
                    masters += 1;
                    if !info.contains(&good) || !named.iter().all(|named| *named == server.port()) {
                        return false;
                    }
                } else if !info.contains("master_link_status:up") {
                    return false;
                }
            }
            masters == self.servers().len() / (replicas + 1)
        });
        if let Self::Clustered(clustered) = self {
            clustered.is_whole();
        }
    }
}

fn has_role(server: &Server, role: &str) -> bool {
    let Ok(info) = server.try_ask(&["INFO", "replication"]) else { return false };
    let info: String = redis::from_redis_value(info).unwrap();
    info.contains(&format!("role:{role}"))
}
