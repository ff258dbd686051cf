//! The model against the servers that it stands for: the same commands, the same answers, the same data.
//!
//! A sequence of commands has a seed. One that fails prints it, and the command; `NCHF_SIM_SEED` runs it alone.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;

use super::tests::{LIBRARIES, words};
use super::*;

mod clusters;
pub mod commands;
#[path = "../../it/store/server.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod real;
mod scenarios;

use self::commands::{Chance, Generator, Word};
use self::real::{Program, Server};

/// Sequences for each server, and commands in each.
const SEQUENCES: u64 = 150;
const COMMANDS: usize = 1200;
/// So many travel together.
const BATCH: usize = 40;

/// A connection to a real server that shows everything as it comes.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    at: usize,
}

impl Wire {
    pub fn to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        Self { stream, received: Vec::new(), at: 0 }
    }

    pub fn ask_all(&mut self, commands: &[Vec<Bytes>]) -> Vec<Reply> {
        let mut out = Vec::new();
        for command in commands {
            Reply::Array(command.iter().cloned().map(Reply::Bulk).collect()).write_to(&mut out);
        }
        self.stream.write_all(&out).unwrap();
        commands.iter().map(|_| self.reply()).collect()
    }

    pub fn ask(&mut self, command: &str) -> Reply {
        self.ask_all(&[words(command.split(' '))]).remove(0)
    }

    fn reply(&mut self) -> Reply {
        let line = self.line();
        let text = || String::from_utf8_lossy(&line[1..]).into_owned();
        let number = || text().parse::<i64>().unwrap();
        match line[0] {
            b'+' => Reply::Status(text().into()),
            b'-' => Reply::Error(text().into()),
            b':' => Reply::Int(number()),
            b'$' if number() < 0 => Reply::Nil,
            b'*' if number() < 0 => Reply::NilArray,
            b'$' => Reply::Bulk(self.bytes(number() as usize)),
            b'*' => Reply::Array((0..number()).map(|_| self.reply()).collect()),
            other => panic!("an answer of kind {}", char::from(other)),
        }
    }

    fn line(&mut self) -> Vec<u8> {
        let mut looked = self.at;
        loop {
            if let Some(end) = self.received[looked..].windows(2).position(|two| two == b"\r\n") {
                let line = self.received[self.at..looked + end].to_vec();
                self.at = looked + end + 2;
                return line;
            }
            looked = self.received.len().saturating_sub(1).max(self.at);
            self.receive();
        }
    }

    fn bytes(&mut self, length: usize) -> Bytes {
        while self.received.len() < self.at + length + 2 {
            self.receive();
        }
        let bytes = Bytes::copy_from_slice(&self.received[self.at..self.at + length]);
        self.at += length + 2;
        bytes
    }

    fn receive(&mut self) {
        let mut piece = [0; 65536];
        let length = self.stream.read(&mut piece).unwrap();
        assert!(length > 0, "the server closed the connection");
        self.received.extend_from_slice(&piece[..length]);
    }

    /// The server's clock.
    pub fn now_ms(&mut self) -> u64 {
        let Reply::Array(time) = self.ask("TIME") else { panic!("no time") };
        let part = |reply: &Reply| match reply {
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).parse::<u64>().unwrap(),
            other => panic!("{other:?}"),
        };
        part(&time[0]) * 1000 + part(&time[1]) / 1000
    }
}

/// What cannot be the same is made so: ids that follow the clock, and what is left to chance.
fn comparable(command: &[Bytes], reply: &Reply) -> Reply {
    let name = command[0].to_ascii_lowercase();
    match (&name[..], reply) {
        (b"zrandmember", Reply::Array(members)) => Reply::Int(members.len() as i64),
        (b"zrandmember", Reply::Bulk(_)) => Reply::text("a member"),
        (b"hgetall", Reply::Array(parts)) => {
            let mut pairs: Vec<_> = parts.chunks(2).map(|pair| format!("{pair:?}")).collect();
            pairs.sort();
            Reply::texts(pairs.iter().map(String::as_str))
        }
        (b"scan", Reply::Array(parts)) if parts.len() == 2 => {
            let Reply::Array(keys) = &parts[1] else { return reply.clone() };
            // Where a page ends and another begins is for each server to say.
            if command[1] != "0" || command.last().is_none_or(|count| count != "1000") {
                return Reply::text("a page");
            }
            let mut keys = keys.clone();
            keys.sort_by_key(|key| format!("{key:?}"));
            Reply::Array(vec![parts[0].clone(), Reply::Array(keys)])
        }
        // A library lists its functions in any order.
        (b"function", reply) => sorted(reply),
        // A script's name is a digest that the model does not make.
        (b"eval", Reply::Error(text)) => match text.split_once(" script: ").zip(text.split_once(", on @")) {
            Some(((before, _), (_, behind))) => Reply::error(format!("{before} script: script, on @{behind}")),
            None => reply.clone(),
        },
        _ => without_ids(reply),
    }
}

fn sorted(reply: &Reply) -> Reply {
    let Reply::Array(replies) = reply else { return reply.clone() };
    let mut replies: Vec<Reply> = replies.iter().map(sorted).collect();
    replies.sort_by_key(|reply| format!("{reply:?}"));
    Reply::Array(replies)
}

fn is_timed(id: &[u8]) -> bool {
    let mut parts = id.split(|byte| *byte == b'-');
    let is_time = parts.next().is_some_and(|time| time.len() == 13 && time.iter().all(u8::is_ascii_digit));
    is_time && parts.next().is_some() && parts.next().is_none()
}

fn without_ids(reply: &Reply) -> Reply {
    match reply {
        Reply::Bulk(bytes) if is_timed(bytes) => Reply::text("an id"),
        Reply::Array(replies) => Reply::Array(replies.iter().map(without_ids).collect()),
        other => other.clone(),
    }
}

/// Ids in an answer, in their order.
fn ids(reply: &Reply, found: &mut Vec<Bytes>) {
    match reply {
        Reply::Bulk(bytes) if is_timed(bytes) => found.push(bytes.clone()),
        Reply::Array(replies) => replies.iter().for_each(|reply| ids(reply, found)),
        _ => {}
    }
}

/// One sequence on both sides.
struct Pair<'s> {
    /// Where commands go, and where everything else does: a transaction may be open on the first one.
    real: Wire,
    aside: &'s mut Wire,
    model: Deployment,
    session: Session,
    generator: Generator,
    seed: u64,
    commits: Commits,
}

/// How commits ended: a test of commits that all end alike is none.
#[derive(Clone, Copy, Debug, Default)]
struct Commits {
    made: u64,
    conflicts: u64,
    errors: u64,
}

impl Commits {
    fn count(&mut self, command: &[Bytes], reply: &Reply) {
        if command.get(1).is_some_and(|function| function == "nchf_commit_3") {
            match reply {
                Reply::Int(1) => self.made += 1,
                Reply::Array(_) => self.conflicts += 1,
                _ => self.errors += 1,
            }
        }
    }
}

impl<'s> Pair<'s> {
    fn new(port: u16, aside: &'s mut Wire, flavour: Flavour, seed: u64) -> Self {
        assert_eq!(aside.ask("FLUSHALL"), Reply::OK);
        let mut model = Deployment::new(Settings { seed, ..Settings::new(Topology::Standalone, flavour) });
        let mut session = model.connect(ServerId(0)).unwrap();
        for (name, source) in LIBRARIES {
            let load = words(["FUNCTION", "LOAD", "REPLACE", source]);
            assert_eq!(aside.ask_all(std::slice::from_ref(&load)).remove(0), Reply::text(name));
            assert_eq!(model.execute(&mut session, load, 1), Outcome::Reply(Reply::text(name)));
        }
        Self {
            real: Wire::to(port),
            aside,
            model,
            session,
            generator: Generator::new(Chance::new(seed)),
            seed,
            commits: Commits::default(),
        }
    }

    fn run(&mut self) {
        for batch in 0..COMMANDS / BATCH {
            let commands: Vec<Vec<Word>> = std::iter::from_fn(|| Some(self.generator.command())).take(BATCH).collect();
            let now = self.aside.now_ms();
            let of_real: Vec<Vec<Bytes>> =
                commands.iter().map(|command| command.iter().map(|word| word.real.clone()).collect()).collect();
            let replies = self.real.ask_all(&of_real);
            for (at, (command, real)) in commands.iter().zip(replies).enumerate() {
                let of_model: Vec<Bytes> = command.iter().map(|word| word.model.clone()).collect();
                let model = match self.model.execute(&mut self.session, of_model.clone(), now) {
                    Outcome::Reply(reply) => reply,
                    other => panic!("{other:?}"),
                };
                assert_eq!(
                    comparable(&of_model, &model),
                    comparable(&of_model, &real),
                    "the model is left, the server right; seed {}, command {}: {:?}",
                    self.seed,
                    batch * BATCH + at,
                    of_real[at],
                );
                self.commits.count(&of_model, &real);
                self.remember(&of_model, &model, &real);
            }
        }
        let mut unmodelled = self.model.unmodelled();
        // These are unknown to servers as well.
        unmodelled.retain(|command| !matches!(*command, "NONSENSE" | "SENTINEL"));
        assert_eq!(unmodelled, [""; 0], "seed {}", self.seed);
        self.compare_data();
    }

    fn remember(&mut self, command: &[Bytes], model: &Reply, real: &Reply) {
        self.generator.forget_ended(command);
        // What one stream calls an entry may be another's name for another.
        let Some(stream) = command.get(1) else { return };
        let (mut of_model, mut of_real) = (Vec::new(), Vec::new());
        ids(model, &mut of_model);
        ids(real, &mut of_real);
        self.generator.saw_ids(stream, of_real.into_iter().zip(of_model));
    }

    /// Everything that either side has.
    fn compare_data(&mut self) {
        let now = self.aside.now_ms();
        let Reply::Array(keys) = self.aside.ask("KEYS *") else { panic!("no keys") };
        let mut real = BTreeMap::new();
        for key in keys {
            let Reply::Bulk(key) = key else { panic!("{key:?}") };
            let content = content(self.aside, &key);
            real.insert(key, content);
        }
        let model = self.model.contents(ServerId(0));
        let of_model: Vec<_> = model.keys().collect();
        assert_eq!(of_model, real.keys().collect::<Vec<_>>(), "keys; seed {}", self.seed);
        let flavour = self.generator.flavour(&self.model);
        for (key, entry) in model {
            let (content, ttl) = &real[&key];
            assert_eq!(without_ids(&shown(&entry, flavour)), without_ids(content), "{key:?}; seed {}", self.seed);
            let left = entry.expires_at.map_or(-1, |at| at - now as i64);
            assert!((left - ttl).abs() < 5000 && (left == -1) == (*ttl == -1), "{key:?}: {left} {ttl}");
        }
    }
}

/// What a key holds, and how long it lives.
fn content(real: &mut Wire, key: &Bytes) -> (Reply, i64) {
    let mut ask = |parts: &[&str]| {
        let command =
            parts.iter().map(|part| if *part == "KEY" { key.clone() } else { Bytes::from((*part).to_owned()) });
        real.ask_all(&[command.collect()]).remove(0)
    };
    let Reply::Int(ttl) = ask(&["PTTL", "KEY"]) else { panic!("no time to live") };
    let Reply::Status(kind) = ask(&["TYPE", "KEY"]) else { panic!("no type") };
    let content = match &*kind {
        "string" => ask(&["GET", "KEY"]),
        "list" => ask(&["LRANGE", "KEY", "0", "-1"]),
        "zset" => ask(&["ZRANGE", "KEY", "0", "-1", "WITHSCORES"]),
        "stream" => ask(&["XRANGE", "KEY", "-", "+"]),
        "hash" => comparable(&words(["HGETALL"]), &ask(&["HGETALL", "KEY"])),
        other => panic!("{key:?} is a {other}"),
    };
    (content, ttl)
}

/// The same of the model.
fn shown(entry: &Entry, flavour: Flavour) -> Reply {
    let bulk = |bytes: &Bytes| Reply::Bulk(bytes.clone());
    match &entry.object {
        Object::String(bytes) => bulk(bytes),
        Object::List(entries) => Reply::Array(entries.iter().map(bulk).collect()),
        Object::SortedSet(set) => {
            let pairs = sorted_set::with_scores(set, flavour).into_iter();
            Reply::Array(pairs.flat_map(|(member, score)| [member, score]).map(Reply::Bulk).collect())
        }
        Object::Hash(fields) => {
            let parts = fields.iter().flat_map(|(field, value)| [bulk(field), bulk(value)]).collect();
            comparable(&words(["HGETALL"]), &Reply::Array(parts))
        }
        Object::Stream(stream) => {
            let entries = stream.entries.iter();
            let entries = entries.map(|(id, pairs)| {
                Reply::Array(vec![Reply::Bulk(streams::written(*id)), Reply::Array(pairs.iter().map(bulk).collect())])
            });
            Reply::Array(entries.collect())
        }
    }
}

fn compare(program: Program, flavour: Flavour) {
    let server = Server::start(program, &[]);
    let mut aside = Wire::to(server.port());
    #[expect(clippy::disallowed_methods, reason = "a failure is run again by its seed")]
    let only = std::env::var("NCHF_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEQUENCES, |seed: u64| seed..seed + 1);
    let mut all = Commits::default();
    for seed in seeds.clone() {
        let mut pair = Pair::new(server.port(), &mut aside, flavour, seed);
        pair.run();
        let Commits { made, conflicts, errors } = pair.commits;
        all = Commits { made: all.made + made, conflicts: all.conflicts + conflicts, errors: all.errors + errors };
    }
    let Commits { made, conflicts, errors } = all;
    assert!(seeds.count() == 1 || made.min(conflicts).min(errors) > 3000, "{all:?}");
}

#[test]
fn the_model_answers_as_redis_does() {
    compare(Program::redis(), Flavour::Redis70);
}

#[test]
fn the_model_answers_as_valkey_does() {
    let Some(program) = Program::valkey() else { return };
    compare(program, Flavour::Valkey9);
}
