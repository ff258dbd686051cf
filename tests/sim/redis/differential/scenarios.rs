//! What several servers do to each other: the same scenario with real servers and with the model tells the same facts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::tests::{LIBRARIES, words};
use super::super::*;
use super::Wire;
use super::commands::{Chance, Generator};
use super::real::{Program, Server};

/// A connection: of which server, and which of several.
pub type Connection = (usize, usize);

/// What the first server may suffer from.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    MemoryFull,
    FewReplicas,
}

/// Servers that a scenario plays with.
pub trait Side {
    fn ask(&mut self, connection: Connection, command: &[Bytes]) -> Reply;
    /// Waits until the replica has everything.
    fn follow(&mut self, replica: usize, master: usize);
    fn promote(&mut self, server: usize);
    fn pause(&mut self, server: usize);
    fn resume(&mut self, server: usize);
    fn kill_and_restart(&mut self, server: usize);
    fn set_trouble(&mut self, trouble: Trouble, is_on: bool);
    /// Names of its own that must not differ.
    fn neutral(&self, text: &str) -> String;

    fn say(&mut self, connection: Connection, command: &str) -> Reply {
        self.ask(connection, &words(command.split(' ')))
    }

    /// As text without what cannot be the same.
    fn told(&mut self, connection: Connection, command: &str) -> String {
        let reply = self.say(connection, command);
        self.neutral(&format!("{reply:?}"))
    }

    fn info(&mut self, server: usize) -> BTreeMap<String, String> {
        let Reply::Bulk(info) = self.say((server, 9), "INFO replication") else { panic!("no info") };
        let info = String::from_utf8(info.to_vec()).unwrap();
        let lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn offset(&mut self, server: usize) -> u64 {
        self.info(server)["master_repl_offset"].parse().unwrap()
    }
}

pub struct Real {
    pub servers: Vec<Server>,
    /// In a cluster.
    pub names: Vec<String>,
    wires: BTreeMap<Connection, Wire>,
}

impl Real {
    pub fn new(servers: Vec<Server>) -> Self {
        Self { servers, names: Vec::new(), wires: BTreeMap::new() }
    }

    fn alone(program: &Program, count: usize, options: &[&str]) -> Self {
        // Silent, so that offsets are those of what was asked for.
        let silent = ["--repl-ping-replica-period", "3600", "--repl-diskless-sync-delay", "0"];
        let options = [&silent[..], options].concat();
        Self::new((0..count).map(|_| Server::start(program.clone(), &options)).collect())
    }
}

pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "servers take their time")]
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Side for Real {
    fn ask(&mut self, connection: Connection, command: &[Bytes]) -> Reply {
        let port = self.servers[connection.0].port();
        let wire = self.wires.entry(connection).or_insert_with(|| Wire::to(port));
        wire.ask_all(&[command.to_vec()]).remove(0)
    }

    fn follow(&mut self, replica: usize, master: usize) {
        let port = self.servers[master].port();
        self.say((replica, 9), &format!("REPLICAOF 127.0.0.1 {port}"));
        wait_for("a replica", || {
            let info = self.info(replica);
            info["master_link_status"] == "up" && self.offset(replica) == self.offset(master)
        });
    }

    fn promote(&mut self, server: usize) {
        assert_eq!(self.say((server, 9), "REPLICAOF NO ONE"), Reply::OK);
    }

    fn pause(&mut self, server: usize) {
        self.servers[server].pause();
    }

    fn resume(&mut self, server: usize) {
        self.servers[server].resume();
    }

    fn kill_and_restart(&mut self, server: usize) {
        self.wires.retain(|(of, _), _| *of != server);
        self.servers[server].kill();
        self.servers[server].restart();
    }

    fn set_trouble(&mut self, trouble: Trouble, is_on: bool) {
        let name = match trouble {
            Trouble::MemoryFull => "maxmemory",
            Trouble::FewReplicas => "min-replicas-to-write",
        };
        assert_eq!(self.say((0, 9), &format!("CONFIG SET {name} {}", u8::from(is_on))), Reply::OK);
    }

    fn neutral(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (at, server) in self.servers.iter().enumerate() {
            text = text.replace(&format!("127.0.0.1:{}", server.port()), &format!("10.0.0.{}:6379", at + 1));
            // As CLUSTER SLOTS has it.
            let shown = |host: &str, port: u16| format!("Bulk(b\"{host}\"), Int({port})");
            text = text.replace(&shown("127.0.0.1", server.port()), &shown(&format!("10.0.0.{}", at + 1), 6379));
        }
        for (at, name) in self.names.iter().enumerate() {
            text = text.replace(name, &format!("{at:040x}"));
        }
        text
    }
}

pub struct Model {
    pub deployment: Deployment,
    sessions: BTreeMap<Connection, Session>,
    pub now: u64,
}

impl Model {
    pub fn new(settings: Settings) -> Self {
        Self { deployment: Deployment::new(settings), sessions: BTreeMap::new(), now: 1_764_000_000_000 }
    }

    fn replicate_all(&mut self) {
        for server in self.deployment.servers() {
            self.deployment.replicate(server, None, self.now);
        }
    }
}

impl Side for Model {
    fn ask(&mut self, connection: Connection, command: &[Bytes]) -> Reply {
        self.now += 1;
        let at = ServerId(connection.0);
        let session = self.sessions.remove(&connection).filter(|session| self.deployment.is_open(session));
        let mut session = session.unwrap_or_else(|| self.deployment.connect(at).unwrap());
        let outcome = self.deployment.execute(&mut session, command.to_vec(), self.now);
        self.replicate_all();
        self.sessions.insert(connection, session);
        match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Wait { offset, .. } => Reply::Int(self.deployment.acknowledged(at, offset) as i64),
            Outcome::Closed => panic!("closed"),
        }
    }

    fn follow(&mut self, replica: usize, master: usize) {
        let (replica, master) = (ServerId(replica), ServerId(master));
        if self.deployment.role(replica) != Role::Replica(master) {
            self.deployment.demote(replica, self.now);
        }
        assert!(self.deployment.replicate(replica, None, self.now));
    }

    fn promote(&mut self, server: usize) {
        self.deployment.promote(ServerId(server), &[], self.now);
    }

    fn pause(&mut self, server: usize) {
        self.deployment.freeze(ServerId(server));
    }

    fn resume(&mut self, server: usize) {
        self.deployment.thaw(ServerId(server));
        self.replicate_all();
    }

    fn kill_and_restart(&mut self, server: usize) {
        self.deployment.crash(ServerId(server));
        self.deployment.restart(ServerId(server), self.now);
    }

    fn set_trouble(&mut self, trouble: Trouble, is_on: bool) {
        match trouble {
            Trouble::MemoryFull => self.deployment.set_memory_full(ServerId(0), is_on),
            Trouble::FewReplicas => self.deployment.set_min_replicas_to_write(ServerId(0), usize::from(is_on)),
        }
    }

    fn neutral(&self, text: &str) -> String {
        text.to_owned()
    }
}

/// Redis, and Valkey unless it is left out, at the same time.
pub fn on_both(check: impl Fn(Program, Flavour) + Sync) {
    let valkey = Program::valkey().map(|program| (program, Flavour::Valkey9));
    std::thread::scope(|scope| {
        for (program, flavour) in [Some((Program::redis(), Flavour::Redis70)), valkey].into_iter().flatten() {
            let check = &check;
            scope.spawn(move || check(program, flavour));
        }
    });
}

fn replicated(flavour: Flavour, appendfsync: AppendFsync) -> Model {
    let topology = Topology::Sentinel { replicas: 1, sentinels: 1 };
    Model::new(Settings { appendfsync, ..Settings::new(topology, flavour) })
}

fn load(side: &mut dyn Side, server: usize) {
    for (name, source) in LIBRARIES {
        assert_eq!(side.ask((server, 0), &words(["FUNCTION", "LOAD", source])), Reply::text(name));
    }
}

#[test]
fn streams_are_as_long_as_those_of_the_servers() {
    on_both(|program, flavour| {
        let (mut real, mut model) = (Real::alone(&program, 2, &[]), replicated(flavour, AppendFsync::Off));
        let mut generator = Generator::new(Chance::new(7));
        for side in [&mut real as &mut dyn Side, &mut model] {
            side.follow(1, 0);
            load(side, 0);
        }
        let mut before = [real.offset(0), model.offset(0)];
        for number in 0..2000 {
            let command = generator.command();
            let of_real: Vec<Bytes> = command.iter().map(|word| word.real.clone()).collect();
            if of_real[0] == "WAIT" {
                continue;
            }
            real.ask((0, 0), &of_real);
            model.ask((0, 0), &of_real);
            let after = [real.offset(0), model.offset(0)];
            let grown = |at: usize| after[at] - before[at];
            assert_eq!(grown(1), grown(0), "the model is left, the server right; {number}: {of_real:?}");
            before = after;
        }
    });
}

/// Who waits for which replicas, after what.
fn waits(side: &mut dyn Side) -> Vec<String> {
    side.follow(1, 0);
    load(side, 0);
    side.say((0, 0), "SET k v");
    side.say((0, 0), "ZADD z 1 m");
    let mut facts = vec![side.told((0, 0), "WAIT 1 2000")];
    side.pause(1);
    let touch = words(["FCALL", "nchf_commit_3", "1", "w", "S\0\x01", ""]);
    let steps: &[(usize, &str)] = &[
        (1, ""),
        (0, "GET k"),
        (0, "SET k v"),
        (0, "GET k"),
        (1, "GET k"),
        (1, "FCALL_RO nchf_page_1 1 z 0 m 5"),
        (1, "RPUSH k wrong"),
        (1, "DEL nothing"),
        (1, "ZREM z nothing"),
        (1, "PING"),
        (2, "SET other v NX"),
        (3, "SET k v NX"),
        (3, "TOUCH"),
        (4, "MULTI/GET k/EXEC"),
        (4, "MULTI/SET k v/GET k/EXEC"),
        (5, "PEXPIRE k 100000000"),
        (6, "NONSENSE"),
        (6, "ZADD z 1 m"),
        (6, "HSET h f v"),
        (7, "HSETNX h f v"),
        (7, "HSET h f v"),
    ];
    for (connection, step) in steps {
        for command in step.split('/') {
            match command {
                "" => {}
                "TOUCH" => assert_eq!(side.ask((0, *connection), &touch), Reply::Int(1)),
                command => facts.push(side.told((0, *connection), command)),
            }
        }
        facts.push(format!("after {step}: {}", side.told((0, *connection), "WAIT 1 60")));
    }
    facts.push(side.told((0, 4), "WAIT 0 0"));
    side.resume(1);
    for connection in 0..8 {
        facts.push(side.told((0, connection), "WAIT 1 5000"));
    }
    facts.push(side.told((1, 0), "WAIT 1 60"));
    facts.push(side.told((1, 0), "SET k v"));
    facts.push(side.told((1, 0), "GET k"));
    facts.push(side.told((1, 0), "FCALL nchf_claim_1 1 z 1 2 3"));
    facts.push(side.told((1, 0), "FCALL_RO nchf_page_1 1 z 0 a 3"));
    facts.push(side.told((1, 0), "EVAL return(redis.call('SET',KEYS[1],'x')) 1 k"));
    facts.push(side.told((1, 0), "FUNCTION LOAD nothing"));
    facts
}

#[test]
fn waiting_is_answered_as_by_the_servers() {
    on_both(|program, flavour| {
        let of_real = waits(&mut Real::alone(&program, 2, &[]));
        let of_model = waits(&mut replicated(flavour, AppendFsync::Off));
        same(of_model, of_real);
    });
}

pub fn same(of_model: Vec<String>, of_real: Vec<String>) {
    // A script's name is a digest that the model does not make.
    let without_digest = |fact: String| match fact.split_once(" script: ").zip(fact.split_once("on @")) {
        Some(((before, _), (_, behind))) => format!("{before} on @{behind}"),
        None => fact,
    };
    let pairs = of_model.into_iter().zip(of_real);
    let different = pairs.filter_map(|(model, real)| {
        let (model, real) = (without_digest(model), without_digest(real));
        (model != real).then(|| format!("the model:  {model}\nthe server: {real}"))
    });
    let different: Vec<_> = different.collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// What servers tell of their histories as they are promoted, demoted and started again.
fn histories(side: &mut dyn Side) -> Vec<String> {
    let mut facts = Vec::new();
    let mut names = Vec::<String>::new();
    side.follow(1, 0);
    let mut look = |side: &mut dyn Side, what: &str| {
        for server in [0, 1] {
            let info = side.info(server);
            let offset: i64 = info["master_repl_offset"].parse().unwrap();
            let second: i64 = info["second_repl_offset"].parse().unwrap();
            let mut number = |name: &str| {
                names.iter().position(|known| known == name).unwrap_or_else(|| {
                    names.push(name.to_owned());
                    names.len() - 1
                })
            };
            let (name, before) = (number(&info["master_replid"]), info["master_replid2"].clone());
            let before = if before.starts_with("0000") { "none".into() } else { number(&before).to_string() };
            let left_at = if second == -1 { "never".into() } else { format!("{} ago", offset + 1 - second) };
            let role = side.info(server)["role"].clone();
            let has = ["even", "late", "alone"].map(|key| side.told((server, 0), &format!("GET {key}")));
            facts.push(format!(
                "{what}: server {server} is {role}, history {name} after {before}, left {left_at}, has {has:?}"
            ));
        }
    };
    side.say((0, 0), "SET even v");
    side.say((0, 0), "WAIT 1 5000");
    look(side, "even");
    side.promote(1);
    look(side, "promoted");
    // Nothing is lost when the old one has no more than the new one had.
    side.say((1, 0), "SET late v");
    side.follow(0, 1);
    look(side, "followed");
    side.promote(0);
    side.say((1, 0), "SET alone v");
    side.say((0, 0), "SET even again");
    look(side, "apart");
    side.follow(1, 0);
    look(side, "followed with a loss");
    side.kill_and_restart(0);
    look_restarted(side, &mut facts);
    side.follow(1, 0);
    facts.push(side.told((1, 0), "GET even"));
    facts
}

fn look_restarted(side: &mut dyn Side, facts: &mut Vec<String>) {
    let info = side.info(0);
    facts.push(format!(
        "restarted: {} after {}, at {} and {}",
        info["role"], info["master_replid2"], info["master_repl_offset"], info["second_repl_offset"]
    ));
    facts.push(side.told((0, 0), "GET even"));
}

#[test]
fn histories_are_told_as_by_the_servers() {
    on_both(|program, flavour| {
        for (options, appendfsync) in [
            (&["--appendonly", "yes", "--appendfsync", "always"][..], AppendFsync::Always),
            (&[][..], AppendFsync::Off),
        ] {
            let of_real = histories(&mut Real::alone(&program, 2, options));
            let of_model = histories(&mut replicated(flavour, appendfsync));
            same(of_model, of_real);
        }
    });
}

/// What is refused, and in which words.
fn refusals(side: &mut dyn Side) -> Vec<String> {
    let mut facts = Vec::new();
    load(side, 0);
    side.say((0, 0), "SET k v");
    side.say((0, 0), "ZADD z 1 m");
    for trouble in [Trouble::MemoryFull, Trouble::FewReplicas] {
        side.set_trouble(trouble, true);
        for command in [
            "SET k v",
            "GET k",
            "DEL nothing",
            "ZREM z nothing",
            "ZADD z 2 m",
            "RPUSH l e",
            "HSET h f v",
            "XADD x * d v",
            "XDEL x 1-1",
            "PEXPIRE nothing 5",
            "FCALL nchf_claim_1 1 z 1 2 3",
            "FCALL nchf_page_1 1 z 1 m 3",
            "FCALL_RO nchf_page_1 1 z 1 m 3",
            "FCALL nothing 0",
            "EVAL return(redis.call('GET',KEYS[1])) 1 k",
            "EVAL return(redis.call('SET',KEYS[1],'v')) 1 k",
            "EVAL return(redis.call('DEL',KEYS[1])) 1 nothing",
            "MULTI",
            "GET k",
            "EXEC",
            "MULTI",
            "SET k v",
            "EXEC",
            "MULTI",
            "DEL nothing",
            "EXEC",
            "PING",
            "ROLE",
            "WAIT 0 0",
            "FUNCTION LOAD nothing",
        ] {
            facts.push(format!("{trouble:?}: {command}: {}", side.told((0, 0), command)));
        }
        // Queued before, refused together.
        side.set_trouble(trouble, false);
        side.say((0, 0), "MULTI");
        side.say((0, 0), "SET k v");
        side.set_trouble(trouble, true);
        facts.push(side.told((0, 0), "EXEC"));
        side.set_trouble(trouble, false);
        facts.push(side.told((0, 0), "SET k v"));
    }
    facts
}

#[test]
fn what_is_refused_is_refused_in_the_words_of_the_servers() {
    on_both(|program, flavour| {
        let of_real = refusals(&mut Real::alone(&program, 1, &[]));
        let of_model = refusals(&mut Model::new(Settings::new(Topology::Standalone, flavour)));
        same(of_model, of_real);
    });
}

/// Sections, settings and roles: every line of the model is one of the server, and says the same.
#[test]
fn servers_tell_of_themselves_as_the_model_does() {
    on_both(|program, flavour| {
        let mut real = Real::alone(&program, 2, &[]);
        let mut model = replicated(flavour, AppendFsync::Off);
        for side in [&mut real as &mut dyn Side, &mut model] {
            side.follow(1, 0);
            side.set_trouble(Trouble::FewReplicas, true);
            side.say((0, 0), "SET k v");
            side.say((0, 0), "WAIT 1 5000");
        }
        wait_for("the replica to be a good one", || real.info(0)["min_slaves_good_slaves"] == "1");
        // Names and places that are each side's own.
        let own = ["master_replid", "master_host", "master_port"];
        let lines = |side: &mut dyn Side, command: &str, server: usize| -> BTreeMap<String, String> {
            let Reply::Bulk(info) = side.say((server, 9), command) else { panic!("no info") };
            let info = String::from_utf8(info.to_vec()).unwrap();
            let lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        for (server, command) in
            [(0, "INFO replication"), (1, "INFO replication"), (0, "INFO memory"), (0, "INFO persistence")]
        {
            let (of_real, of_model) = (lines(&mut real, command, server), lines(&mut model, command, server));
            for (name, value) in &of_model {
                let found = of_real.get(name).unwrap_or_else(|| panic!("no {name} in {command}"));
                let is_own = own.contains(&name.as_str()) || name.contains("offset") || name.starts_with("slave0");
                assert!(is_own || value == found, "{command}: {name}:{value}, and the server has {found}");
            }
        }
        // Without numbers, which are offsets and ports.
        let shape = |side: &mut dyn Side, server: usize, command: &str| {
            let text = side
                .told((server, 0), command)
                .replace("127.0.0.1", "HOST")
                .replace("10.0.0.1", "HOST")
                .replace("10.0.0.2", "HOST");
            text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>()
        };
        for command in
            ["ROLE", "HELLO 2", "CONFIG GET maxmemory-policy", "CONFIG GET appendfsync", "CONFIG GET appendonly"]
        {
            for server in [0, 1] {
                assert_eq!(shape(&mut model, server, command), shape(&mut real, server, command), "{command}");
            }
        }
        for name in ["min-replicas-to-write", "min-replicas-max-lag"] {
            let command = format!("CONFIG GET {name}");
            assert_eq!(model.told((0, 0), &command), real.told((0, 0), &command));
        }
    });
}

#[test]
fn a_sentinel_tells_of_its_master_as_the_model_does() {
    on_both(|program, flavour| {
        let master = Server::start(program.clone(), &[]);
        let sentinel = Server::sentinel(program, master.port(), 1);
        let of_real = sentinel.ask_map(&["SENTINEL", "MASTER", "main"]);
        let mut model = Model::new(Settings::new(Topology::Sentinel { replicas: 0, sentinels: 1 }, flavour));
        let Reply::Array(parts) = model.say((1, 0), "SENTINEL MASTER main") else { panic!("no master") };
        let text = |reply: &Reply| match reply {
            Reply::Bulk(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        for pair in parts.chunks(2) {
            let (name, value) = (text(&pair[0]), text(&pair[1]));
            let is_own = ["ip", "port", "runid"].contains(&name.as_str());
            assert!(is_own || of_real[&name] == value, "{name} is {value}, and {} of the server", of_real[&name]);
        }
        let mut wire = Wire::to(sentinel.port());
        let address = "SENTINEL GET-MASTER-ADDR-BY-NAME";
        let other = format!("{address} other");
        for command in ["PING", "SENTINEL MASTER other", &other, "ROLE", "CLIENT SETINFO LIB-NAME redis-rs"] {
            assert_eq!(model.say((1, 0), command), wire.ask(command), "{command}");
        }
        assert_eq!(model.deployment.unmodelled(), [""; 0]);
    });
}
