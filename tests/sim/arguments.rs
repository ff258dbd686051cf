//! Calls of the Redis functions with arguments of any kind, over keys of any type: a call that fails, or that finds
//! another version, has written nothing.
//!
//! Calls of the commit function are of the form that `store/redis/steps.rs` gives them, each key written once and every
//! type checked but that of the first write: what is no list of steps at all, the function does not judge.

use bytes::Bytes;

use super::chance::Chance;
use super::redis::tests::{LIBRARIES, living, versioned};
use super::redis::{Deployment, Flavour, Outcome, Reply, ServerId, Session, Settings, Topology};

const KEYS: u64 = 8;
const CALLS: usize = 3000;

/// Never changes, so that nothing ends by itself.
const NOW: u64 = 1_768_474_800_000;

struct World {
    of: Deployment,
    session: Session,
    chance: Chance,
}

#[derive(Debug, Default)]
struct Counts {
    done: usize,
    refused: usize,
    conflicts: usize,
}

#[test]
fn a_call_that_is_refused_has_written_nothing() {
    for (flavour, seed) in [(Flavour::Redis70, 1), (Flavour::Valkey9, 2)] {
        let mut world = World::new(flavour, seed);
        let mut counts = Counts::default();
        for number in 0..CALLS {
            world.put_something();
            let call = match number % 4 {
                0 => world.claim(),
                1 => world.page(),
                _ => world.commit(),
            };
            let before = world.of.state_digest(ServerId(0));
            let reply = world.ask(call.clone());
            let is_as_before = world.of.state_digest(ServerId(0)) == before;
            match reply {
                Reply::Error(error) => {
                    assert!(is_as_before, "seed {seed}: {error} after a write: {call:?}");
                    counts.refused += 1;
                }
                Reply::Array(current) if call[1] == "nchf_commit_3" => {
                    assert!(is_as_before, "seed {seed}: {current:?} after a write: {call:?}");
                    counts.conflicts += 1;
                }
                _ => counts.done += 1,
            }
        }
        let Counts { done, refused, conflicts } = counts;
        assert!(done.min(refused).min(conflicts) > CALLS / 20, "all three happen: {counts:?}");
        assert_eq!(world.of.unmodelled(), [""; 0]);
    }
}

impl World {
    fn new(flavour: Flavour, seed: u64) -> Self {
        let mut of = Deployment::new(Settings::new(Topology::Standalone, flavour));
        let session = of.connect(ServerId(0)).unwrap();
        let mut world = Self { of, session, chance: Chance::new(seed) };
        for (name, source) in LIBRARIES {
            assert_eq!(world.ask(["FUNCTION", "LOAD", source].map(Bytes::from).into()), Reply::text(name));
        }
        world
    }

    fn ask(&mut self, command: Vec<Bytes>) -> Reply {
        match self.of.execute(&mut self.session, command, NOW) {
            Outcome::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// A key is given another type now and then.
    fn put_something(&mut self) {
        let key = self.key();
        let command: &[&str] = match self.chance.below(8) {
            0 => &["SET", "\0\0\0\0\0\0\0\x01document"],
            1 => &["SET", "short"],
            2 => &["RPUSH", "entry"],
            3 => &["ZADD", "5", "member"],
            4 => &["XADD", "*", "d", "entry"],
            5 => &["HSET", "field", "value"],
            6 => &["DEL"],
            _ => return,
        };
        let delete = ["DEL", &key].map(|word| Bytes::copy_from_slice(word.as_bytes()));
        self.ask(delete.into());
        let words = [command[0], &key].into_iter().chain(command[1..].iter().copied());
        self.ask(words.map(|word| Bytes::copy_from_slice(word.as_bytes())).collect());
    }

    fn key(&mut self) -> String {
        format!("{{a}}{}", self.chance.below(KEYS))
    }

    /// Some of the keys, each once.
    fn some_keys(&mut self, most: u64) -> Vec<String> {
        let mut keys: Vec<_> = (0..KEYS).map(|number| format!("{{a}}{number}")).collect();
        let count = self.chance.between(1, most);
        while keys.len() as u64 > count {
            let at = self.chance.below(keys.len() as u64) as usize;
            keys.swap_remove(at);
        }
        keys
    }

    fn commit(&mut self) -> Vec<Bytes> {
        const VERSIONS: [&[u8]; 4] = [b"", b"\0\0\0\0\0\0\0\x01", b"\0\0\0\0\0\0\0\x02", b"document"];
        const LIVES: [i64; 4] = [1, 1000, 86_400_000, i64::MAX / 2];
        const SCORES: [i64; 5] = [0, -1, 1_768_474_800_000, i64::MAX, i64::MIN];
        let keys = self.some_keys(5);
        let (mut checks, mut writes, mut values) = (Vec::new(), Vec::new(), Vec::<Bytes>::new());
        for at in 1..=u8::try_from(keys.len()).unwrap() {
            let step = |letter: u8| [letter, 0, at];
            let number = |number: &i64| Bytes::from(number.to_string());
            let letter = *self.chance.one_of(b"SPDAZMXHTvv");
            let check = match letter {
                b'A' => Some(b'l'),
                b'Z' | b'M' => Some(b'z'),
                b'X' => Some(b'x'),
                b'H' | b'T' => Some(b'h'),
                _ => None,
            };
            if let Some(check) = check.filter(|_| !writes.is_empty()) {
                checks.extend(step(check));
            }
            if check.is_none() && (letter == b'v' || self.chance.permille(300)) {
                checks.extend(versioned([0, at], self.chance.one_of::<&[u8]>(&VERSIONS)));
            }
            if letter == b'v' {
                continue;
            }
            match letter {
                b'P' => writes.extend(living([0, at], &self.chance.one_of(&LIVES).to_string())),
                _ => writes.extend(step(letter)),
            }
            let value = Bytes::from_static(b"\0\0\0\0\0\0\0\x02another");
            match letter {
                b'S' | b'P' | b'A' | b'X' => values.push(value),
                b'Z' => values.extend([number(self.chance.one_of(&SCORES)), "member".into()]),
                b'M' => values.push("member".into()),
                b'H' => values.extend(["field".into(), value]),
                b'T' => values.push("field".into()),
                _ => {}
            }
        }
        let head = ["FCALL", "nchf_commit_3"].map(Bytes::from);
        let count = Bytes::from(keys.len().to_string());
        let keys = keys.into_iter().map(Bytes::from);
        let mut call: Vec<_> = head.into_iter().chain([count]).chain(keys).collect();
        call.push([checks, writes].concat().into());
        call.extend(values);
        call
    }

    fn claim(&mut self) -> Vec<Bytes> {
        let mut call = ["FCALL", "nchf_claim_1", "1"].map(Bytes::from).to_vec();
        call.push(self.key().into());
        call.extend([self.word(), self.word(), self.word()]);
        call
    }

    fn page(&mut self) -> Vec<Bytes> {
        let mut call = ["FCALL_RO", "nchf_page_1", "1"].map(Bytes::from).to_vec();
        call.push(self.key().into());
        call.extend([self.word(), self.word(), self.word()]);
        call
    }

    fn word(&mut self) -> Bytes {
        const WORDS: [&str; 12] = ["0", "1", "7", "100", "-1", "-inf", "+inf", "nan", "1e999", "member", "(5", ""];
        Bytes::from_static(self.chance.one_of(&WORDS).as_bytes())
    }
}
