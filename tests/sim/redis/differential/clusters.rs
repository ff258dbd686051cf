//! Slots that move between two masters: who answers, who points elsewhere, and what a script may touch.

use bytes::Bytes;

use super::super::cluster::slot_of;
use super::super::tests::{LIBRARIES, words};
use super::super::*;
use super::real::{Server, free_port};
use super::scenarios::{Model, Real, Side, on_both, same, wait_for};

/// How a slot moves.
trait Cluster: Side {
    fn begin(&mut self, slot: u16);
    fn move_key(&mut self, key: &str);
    fn end(&mut self, slot: u16);
}

fn real_cluster(program: &super::real::Program) -> Real {
    let start = || {
        let bus = free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus];
        (Server::start(program.clone(), &options), bus)
    };
    let ((first, _), (second, bus)) = (start(), start());
    first.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    second.ask(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    first.ask(&["CLUSTER", "SET-CONFIG-EPOCH", "1"]);
    second.ask(&["CLUSTER", "SET-CONFIG-EPOCH", "2"]);
    first.ask(&["CLUSTER", "MEET", "127.0.0.1", &second.port().to_string(), &bus]);
    let ids = [&first, &second].map(|server| server.ask_text(&["CLUSTER", "MYID"]));
    let mut real = Real::new(vec![first, second]);
    real.names = ids.to_vec();
    wait_for("the cluster", || {
        (0..2).all(|server| {
            let info = format!("{:?}", real.say((server, 9), "CLUSTER INFO"));
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
    });
    real
}

impl Cluster for Real {
    fn begin(&mut self, slot: u16) {
        let [from, to] = [0, 1].map(|server: usize| self.names[server].clone());
        assert_eq!(self.say((1, 9), &format!("CLUSTER SETSLOT {slot} IMPORTING {from}")), Reply::OK);
        assert_eq!(self.say((0, 9), &format!("CLUSTER SETSLOT {slot} MIGRATING {to}")), Reply::OK);
    }

    fn move_key(&mut self, key: &str) {
        let port = self.servers[1].port();
        assert_eq!(self.say((0, 9), &format!("MIGRATE 127.0.0.1 {port} {key} 0 1000 REPLACE")), Reply::OK);
    }

    fn end(&mut self, slot: u16) {
        let to = self.names[1].clone();
        for server in [1, 0] {
            assert_eq!(self.say((server, 9), &format!("CLUSTER SETSLOT {slot} NODE {to}")), Reply::OK);
        }
    }
}

impl Cluster for Model {
    fn begin(&mut self, slot: u16) {
        self.deployment.migrate_begin(slot, ServerId(0), ServerId(1));
    }

    fn move_key(&mut self, key: &str) {
        let key = Bytes::from(key.to_owned());
        assert!(self.deployment.migrate_key(&key, ServerId(0), ServerId(1), self.now));
    }

    fn end(&mut self, slot: u16) {
        self.deployment.migrate_end(slot, ServerId(0), ServerId(1));
    }
}

/// A tag in a slot of the first server, another one of it, and one of the second.
fn tags() -> [String; 3] {
    let in_slots = |slots: std::ops::Range<u16>, but: usize| {
        let mut tags = (0..).map(|number| format!("t{number}"));
        tags.by_ref().filter(|tag| slots.contains(&slot_of(tag.as_bytes()))).nth(but).unwrap()
    };
    [in_slots(0..8192, 0), in_slots(0..8192, 1), in_slots(8192..16384, 0)]
}

const COMMANDS: &[&str] = &[
    "GET {t}a",
    "GET {t}missing",
    "MGET {t}a {t}b",
    "MGET {t}a {t}missing",
    "MGET {t}missing {t}missing",
    "MGET {t}missing {t}lacking",
    "MGET {t}a {same}a",
    "MGET {t}a {other}a",
    "EXISTS {t}a {t}b {t}a",
    "SET {t}b v",
    "ZCOUNT {t}z -inf +inf",
    "FCALL nchf_claim_1 1 {t}z 1 2 3",
    "FCALL_RO nchf_page_1 1 {t}z 1 m 3",
    "FCALL nchf_page_1 1 {t}missing 1 m 3",
    "FCALL nothing 1 {t}a",
    "FCALL nothing 0",
    "EVAL return(redis.call('GET',KEYS[1])) 1 {t}a",
    "EVAL return(redis.call('MGET',KEYS[1],KEYS[2])) 2 {t}a {t}missing",
    "EVAL return(redis.call('GET','{t}a')) 0",
    "EVAL return(redis.call('GET','{same}a')) 1 {t}a",
    "EVAL return(redis.call('GET','{other}a')) 1 {t}a",
    "EVAL redis.call('GET','{t}a')return(redis.call('GET','{same}a')) 0",
    "EVAL redis.call('SET',KEYS[1],'kept')return(redis.call('GET','{other}a')) 1 {t}a",
    "EVAL redis.call('SET',KEYS[1],'kept')return(redis.call('GET','{same}a')) 1 {t}a",
    "EVAL return(redis.call('GET','{t}missing')) 1 {t}a",
    "MULTI",
    "GET {t}a",
    "EXEC",
    "MULTI",
    "GET {t}a",
    "GET {t}missing",
    "EXEC",
    "MULTI",
    "GET {t}a",
    "GET {same}a",
    "EXEC",
    "EXEC",
    "PING",
    "SELECT 0",
    "SELECT 1",
    "WAIT 0 0",
    "SCAN 0 MATCH nothing COUNT 1000",
    "CLUSTER KEYSLOT {t}a",
];

fn moves(side: &mut dyn Cluster) -> Vec<String> {
    let [t, same, other] = tags();
    let slot = slot_of(t.as_bytes());
    let spelt = |command: &str| {
        command
            .replace("{t}", &format!("{{{t}}}"))
            .replace("{same}", &format!("{{{same}}}"))
            .replace("{other}", &format!("{{{other}}}"))
    };
    let mut facts = Vec::new();
    for server in [0, 1] {
        for (name, source) in LIBRARIES {
            assert_eq!(side.ask((server, 0), &words(["FUNCTION", "LOAD", source])), Reply::text(name));
        }
        facts.push(side.told((server, 0), "CLUSTER SLOTS"));
    }
    let mut look = |side: &mut dyn Cluster, stage: &str| {
        for server in [0, 1] {
            for asking in [false, true] {
                for command in COMMANDS.iter().map(|command| spelt(command)) {
                    // Asked for once, it holds for a whole transaction.
                    if asking {
                        side.say((server, 0), "ASKING");
                    }
                    let told = side.told((server, 0), &command);
                    facts.push(format!("{stage}, server {server}, asking {asking}: {command}: {told}"));
                }
            }
        }
        facts.push(side.told((0, 0), "CLUSTER SLOTS"));
    };
    side.say((0, 0), &spelt("SET {t}a v"));
    side.say((0, 0), &spelt("SET {t}b v"));
    side.say((0, 0), &spelt("ZADD {t}z 1 m"));
    side.say((0, 0), &spelt("PEXPIRE {t}b 100000000"));
    look(side, "still");
    side.begin(slot);
    look(side, "begun");
    side.move_key(&spelt("{t}a"));
    look(side, "halfway");
    for key in ["{t}b", "{t}z"] {
        side.move_key(&spelt(key));
    }
    look(side, "all keys gone");
    side.end(slot);
    look(side, "moved");
    facts
}

#[test]
fn slots_move_as_between_real_servers() {
    on_both(|program, flavour| {
        let of_real = moves(&mut real_cluster(&program));
        let topology = Topology::Cluster { masters: 2, replicas: 0 };
        let of_model = moves(&mut Model::new(Settings::new(topology, flavour)));
        same(of_model, of_real);
    });
}
