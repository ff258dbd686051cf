//! Commands by chance: most of them make sense, some almost.

use bytes::Bytes;

use super::super::tests::{living, versioned};
use super::{Deployment, Flavour};
use crate::splitmix::{SplitMix, mixed};

/// Numbers that look like chance and follow from a seed.
#[derive(Clone)]
pub struct Chance(SplitMix);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(SplitMix(mixed(seed)))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.0.number() % limit as u64) as usize
    }

    pub fn is_one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub fn pick<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.below(of.len())]
    }
}

/// A word, as the server is told it and as the model is: they differ in ids only.
#[derive(Clone, Debug)]
pub struct Word {
    pub real: Bytes,
    pub model: Bytes,
}

impl Word {
    fn same(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { real: bytes.clone(), model: bytes }
    }

    fn text(text: &str) -> Self {
        Self::same(text.to_owned())
    }
}

/// Words that are wrong in most places.
const ODD: &[&str] = &[
    "",
    "abc",
    "-1",
    "0",
    "1",
    "2",
    "01",
    "+1",
    "1.5",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1e400",
    "1e-400",
    "nan",
    "inf",
    "-inf",
    "(",
    "(5",
    "[",
    "[a",
    "(a",
    "-",
    "+",
    "*",
    "$",
    "1 ",
    "5-",
    "-5",
    "5-x",
    "0-0",
    "\u{fc}",
    "\0",
    "1\0",
    "WITHSCORES",
    "COUNT",
    "1e5",
    ".5",
    "5.",
    "1e",
];

pub struct Generator {
    pub chance: Chance,
    /// Ids that both sides gave to the same entry, with its stream.
    ids: Vec<(Bytes, Word)>,
    /// Commands that follow in any case.
    planned: Vec<Vec<Word>>,
}

impl Generator {
    pub fn new(chance: Chance) -> Self {
        Self { chance, ids: Vec::new(), planned: Vec::new() }
    }

    pub fn flavour(&self, of: &Deployment) -> Flavour {
        of.settings.flavour
    }

    pub fn saw_ids(&mut self, stream: &Bytes, pairs: impl Iterator<Item = (Bytes, Bytes)>) {
        self.ids.extend(pairs.map(|(real, model)| (stream.clone(), Word { real, model })));
        let surplus = self.ids.len().saturating_sub(40);
        self.ids.drain(..surplus);
    }

    /// A stream that ends and begins anew gives ids that it may have given before.
    pub fn forget_ended(&mut self, command: &[Bytes]) {
        let may_end = ["DEL", "SET", "PEXPIRE", "EVAL", "FCALL"];
        if may_end.iter().any(|name| command[0].eq_ignore_ascii_case(name.as_bytes())) {
            self.ids.retain(|(stream, _)| !command.contains(stream));
        }
    }

    pub fn command(&mut self) -> Vec<Word> {
        let command = self.next();
        let words: Vec<Bytes> = command.iter().map(|word| word.real.clone()).collect();
        self.forget_ended(&words);
        command
    }

    fn next(&mut self) -> Vec<Word> {
        if let Some(planned) = self.planned.pop() {
            return planned;
        }
        if self.chance.is_one_in(40) {
            // Backwards, because the last one is taken first.
            self.planned.push(vec![Word::text(self.chance.pick(&["EXEC", "EXEC", "EXEC", "DISCARD"]))]);
            for _ in 0..self.chance.below(5) {
                let command = self.single();
                // Answers that differ are known by their command, which an answer to EXEC does not name.
                if !["SCAN", "HGETALL", "ZRANDMEMBER", "EVAL", "FUNCTION"].iter().any(|name| command[0].real == name) {
                    self.planned.push(command);
                }
            }
            return vec![Word::text("MULTI")];
        }
        self.single()
    }

    fn single(&mut self) -> Vec<Word> {
        // A key that lives so shortly may be there on one side and gone on the other.
        std::iter::repeat_with(|| self.any()).find(|command| !has_short_life(command)).expect("most have none")
    }

    fn any(&mut self) -> Vec<Word> {
        let mut command = match self.chance.below(10) {
            0..4 => self.call(),
            _ => self.plain(),
        };
        // What waits might wait for ever, another database is another world, and settings are many.
        if self.chance.is_one_in(12) && !["WAIT", "SELECT", "CONFIG"].iter().any(|name| command[0].real == name) {
            self.damage(&mut command);
        }
        command
    }

    /// The name stays: another command is another test.
    fn damage(&mut self, command: &mut Vec<Word>) {
        let sound = command.clone();
        self.damage_once(command);
        // How to skip less than nothing depends on how the server keeps the set.
        let mut pairs = command.windows(2);
        if pairs.any(|pair| pair[0].real.eq_ignore_ascii_case(b"LIMIT") && pair[1].real.starts_with(b"-")) {
            *command = sound;
        }
    }

    fn damage_once(&mut self, command: &mut Vec<Word>) {
        let at = 1 + self.chance.below(command.len());
        let is_even = command.get(1).is_some_and(|key| key.real.starts_with(b"n"));
        match self.chance.below(4) {
            0 => command.truncate(at),
            1 if !is_even => command.insert(at, self.odd()),
            2 if at < command.len() => drop(command.remove(at)),
            // Of scores that must be equal.
            _ if is_even => {}
            _ if at < command.len() => command[at] = self.odd(),
            _ => command.push(self.odd()),
        }
    }

    fn odd(&mut self) -> Word {
        Word::text(self.chance.pick(ODD))
    }

    fn key(&mut self, kinds: &[&str]) -> Word {
        let kind = if self.chance.is_one_in(8) {
            self.chance.pick(&["s", "l", "z", "h", "x", "y", "q"])
        } else {
            self.chance.pick(kinds)
        };
        Word::text(&format!("{kind}{}", self.chance.below(3)))
    }

    fn bytes(&mut self) -> Word {
        let length = match self.chance.below(8) {
            0 => 0,
            1 => 100 + self.chance.below(200),
            _ => 1 + self.chance.below(12),
        };
        let is_text = self.chance.is_one_in(2);
        let byte = |chance: &mut Chance| if is_text { b'a' + chance.below(26) as u8 } else { chance.below(256) as u8 };
        Word::same((0..length).map(|_| byte(&mut self.chance)).collect::<Vec<u8>>())
    }

    /// Few enough to be met again.
    fn member(&mut self) -> Word {
        if self.chance.is_one_in(12) { self.bytes() } else { Word::text(&format!("m{}", self.chance.below(12))) }
    }

    fn version(&mut self) -> Vec<u8> {
        (self.chance.below(4) as u64).to_be_bytes().to_vec()
    }

    fn document(&mut self) -> Word {
        let mut document = self.version();
        document.extend_from_slice(&self.bytes().real);
        Word::same(document)
    }

    fn score(&mut self) -> Word {
        let scores = [
            "0",
            "1",
            "-1",
            "5",
            "7",
            "1764000000000",
            "-9007199254740992",
            "9007199254740991",
            "1.5",
            "0.1",
            "1e20",
            "123456789012345678",
            "-inf",
            "inf",
            "1e-7",
            "3.141592653589793",
            "-2.5e-10",
        ];
        if self.chance.is_one_in(2) {
            return Word::text(&self.chance.below(20).to_string());
        }
        Word::text(self.chance.pick(&scores))
    }

    fn number(&mut self) -> Word {
        let number = self.chance.below(12) as i64 - 3;
        Word::text(&number.to_string())
    }

    fn limit_of_scores(&mut self) -> Word {
        match self.chance.below(6) {
            0 => Word::text("-inf"),
            1 => Word::text("+inf"),
            2 => Word::same([b"(", &self.score().real[..]].concat()),
            _ => self.score(),
        }
    }

    fn id(&mut self, of: &Word) -> Word {
        let known: Vec<_> = self.ids.iter().filter(|(stream, _)| *stream == of.real).collect();
        if !known.is_empty() && self.chance.is_one_in(2) {
            return known[self.chance.below(known.len())].1.clone();
        }
        Word::text(&format!("{}-{}", self.chance.below(60), self.chance.below(4)))
    }

    fn lived(&mut self) -> Word {
        Word::text(self.life())
    }

    /// Milliseconds: more than a test takes, or such that are refused.
    fn life(&mut self) -> &'static str {
        self.chance.pick(&["100000000", "7000000000", "50000000", "0", "-5"])
    }

    fn several(&mut self, one: fn(&mut Self) -> Word) -> Vec<Word> {
        (0..=self.chance.below(3)).map(|_| one(self)).collect()
    }

    fn plain(&mut self) -> Vec<Word> {
        let text = Word::text;
        match self.chance.below(38) {
            0 => vec![text("GET"), self.key(&["s"])],
            1 => [vec![text("mget")], self.several(|of| of.key(&["s"]))].concat(),
            2 => vec![text("SET"), self.key(&["s"]), self.document()],
            3 => vec![text("SET"), self.key(&["s"]), self.document(), text("PX"), self.lived()],
            4 => vec![text("SET"), self.key(&["s"]), self.bytes(), text("NX"), text("PX"), self.lived()],
            5 => vec![text("Set"), self.key(&["s"]), self.bytes(), text(self.chance.pick(&["nx", "XX", "KEEPTTL"]))],
            6 => vec![text("GETRANGE"), self.key(&["s"]), self.number(), self.number()],
            7 => [vec![text("DEL")], self.several(|of| of.key(&["s", "l", "z", "h", "x", "y"]))].concat(),
            8 => [vec![text("EXISTS")], self.several(|of| of.key(&["s", "l", "z"]))].concat(),
            9 => vec![text("PEXPIRE"), self.key(&["s", "l", "z", "h", "x"]), self.lived()],
            10 => [vec![text("RPUSH"), self.key(&["l"])], self.several(Self::bytes)].concat(),
            11 => vec![text("LRANGE"), self.key(&["l"]), self.number(), self.number()],
            12 => vec![text("LLEN"), self.key(&["l"])],
            13 => vec![text("ZADD"), text(self.chance.pick(&["n0", "n1"])), text("0"), self.member()],
            14..16 => {
                let mut add = vec![text("ZADD"), self.key(&["z"])];
                if self.chance.is_one_in(4) {
                    add.push(text(self.chance.pick(&["NX", "XX", "CH", "GT", "lt"])));
                }
                for _ in 0..=self.chance.below(3) {
                    add.extend([self.score(), self.member()]);
                }
                add
            }
            16 => [vec![text("ZREM"), self.key(&["z"])], self.several(Self::member)].concat(),
            17 => vec![text("ZCARD"), self.key(&["z"])],
            18 => vec![text("ZSCORE"), self.key(&["z"]), self.member()],
            19 => vec![text("ZCOUNT"), self.key(&["z"]), self.limit_of_scores(), self.limit_of_scores()],
            20 => vec![text("ZRANDMEMBER"), self.key(&["z"]), text(self.chance.pick(&["0", "1", "4", "100"]))],
            21 => self.range(By::Place),
            22 => self.range(By::Score),
            23 => self.range(By::Name),
            24 => vec![text("HGET"), self.key(&["h"]), self.member()],
            25 => vec![text(self.chance.pick(&["HGETALL", "HLEN"])), self.key(&["h"])],
            26 => [vec![text("HMGET"), self.key(&["h"])], self.several(Self::member)].concat(),
            27 => [vec![text("HSET"), self.key(&["h"]), self.member(), self.bytes()], self.extra_pair()].concat(),
            28 if self.chance.is_one_in(2) => {
                [vec![text("HDEL"), self.key(&["h"])], self.several(Self::member)].concat()
            }
            28 => vec![text("HSETNX"), self.key(&["h"]), self.member(), self.bytes()],
            29 => vec![text("XADD"), self.key(&["x"]), text("*"), text("d"), self.bytes()],
            30 => {
                let stream = self.key(&["y"]);
                let id = self.id(&stream);
                [vec![text("XADD"), stream, id, text("d"), self.bytes()], self.extra_pair()].concat()
            }
            31 => vec![text("XLEN"), self.key(&["x", "y"])],
            32 => {
                let stream = self.key(&["x", "y"]);
                let ids: Vec<_> = (0..=self.chance.below(3)).map(|_| self.id(&stream)).collect();
                [vec![text("XDEL"), stream], ids].concat()
            }
            33 | 34 => self.entries(),
            35 => vec![text("SCAN"), text("0"), text("COUNT"), text("1000")],
            36 => vec![
                text("SCAN"),
                text("0"),
                text("MATCH"),
                text(self.chance.pick(&["z*", "*1", "?2", "*"])),
                text("COUNT"),
                text("1000"),
            ],
            _ => self.odd_jobs(),
        }
    }

    fn extra_pair(&mut self) -> Vec<Word> {
        if self.chance.is_one_in(3) { vec![self.member(), self.bytes()] } else { Vec::new() }
    }

    fn entries(&mut self) -> Vec<Word> {
        let stream = self.key(&["x", "y"]);
        let limit = |of: &mut Self| match of.chance.below(3) {
            0 => Word::text(of.chance.pick(&["-", "+", "5", "20"])),
            1 => of.id(&stream),
            _ => {
                let Word { real, model } = of.id(&stream);
                let excluded = |id: Bytes| Bytes::from([b"(", &id[..]].concat());
                Word { real: excluded(real), model: excluded(model) }
            }
        };
        let mut range = vec![Word::text("XRANGE"), stream.clone()];
        if self.chance.is_one_in(2) {
            range.extend([Word::text("-"), Word::text("+")]);
        } else {
            range.extend([limit(self), limit(self)]);
        }
        if self.chance.is_one_in(2) {
            range.extend([Word::text("COUNT"), self.number()]);
        }
        range
    }

    fn range(&mut self, by: By) -> Vec<Word> {
        let text = Word::text;
        // By name only where all scores are the same: otherwise it depends on how the server keeps the set.
        let key =
            if by != By::Name { self.key(&["z"]) } else { text(self.chance.pick(&["n0", "n1", "n0", "n1", "s0"])) };
        let mut range = vec![text("ZRANGE"), key];
        let mut options = Vec::new();
        match by {
            By::Place => range.extend([self.number(), self.number()]),
            By::Score => {
                range.extend([self.limit_of_scores(), self.limit_of_scores()]);
                options.push(vec![text("BYSCORE")]);
            }
            By::Name => {
                let limits = ["-", "+", "[m2", "(m2", "[m5", "(m50", "[a", "(z"];
                range.extend([text(self.chance.pick(&limits)), text(self.chance.pick(&limits))]);
                options.push(vec![text("BYLEX")]);
            }
        }
        if self.chance.is_one_in(2) {
            let skipped = self.chance.below(6).to_string();
            options.push(vec![text("LIMIT"), text(&skipped), self.number()]);
        }
        if self.chance.is_one_in(2) && by != By::Name {
            options.push(vec![text("WITHSCORES")]);
        }
        if self.chance.is_one_in(5) {
            options.push(vec![text("REV")]);
        }
        if self.chance.is_one_in(2) {
            options.reverse();
        }
        range.extend(options.into_iter().flatten());
        range
    }

    fn odd_jobs(&mut self) -> Vec<Word> {
        let commands: &[&str] = &[
            "PING",
            "PING hello",
            "EXEC",
            "DISCARD",
            "SELECT 0",
            "SELECT 99",
            "ASKING",
            "CLUSTER INFO",
            "CLUSTER SLOTS",
            "NONSENSE a b",
            "AUTH secret",
            "AUTH default secret",
            "CLIENT SETINFO LIB-NAME redis-rs",
            "SENTINEL MASTER main",
            "WAIT 0 5",
            "WAIT x 5",
            "WAIT 0 x",
            "WAIT 0 -1",
            "FUNCTION NONSENSE",
            "FUNCTION LIST LIBRARYNAME nothing",
            "FUNCTION LOAD nothing",
            "FUNCTION LIST",
            "FUNCTION LIST LIBRARYNAME nchf_1 WITHCODE",
            "FUNCTION LIST WITHCODE LIBRARYNAME nchf_1",
            "FCALL nothing 0",
            "FCALL nchf_claim_1 -1 a",
            "FCALL nchf_claim_1 x a",
            "FCALL nchf_claim_1 9 a",
            "FCALL_RO nchf_claim_1 1 z0 1 2 3",
            "ROLE",
            "CONFIG GET maxmemory-policy",
            "GET",
            "ZADD z0",
            "FCALL",
            "EVAL",
        ];
        let command = self.chance.pick(commands);
        command.split(' ').map(Word::text).collect()
    }

    fn call(&mut self) -> Vec<Word> {
        let text = Word::text;
        match self.chance.below(10) {
            0 => vec![
                text("FCALL"),
                text("nchf_claim_1"),
                text("1"),
                self.key(&["z"]),
                self.limit_of_scores(),
                self.score(),
                self.number(),
            ],
            1 => vec![
                text(self.chance.pick(&["FCALL", "FCALL_RO"])),
                text("nchf_page_1"),
                text("1"),
                self.key(&["z"]),
                self.score(),
                self.member(),
                self.number(),
            ],
            2 => self.eval(),
            _ => self.commit(),
        }
    }

    fn eval(&mut self) -> Vec<Word> {
        let scripts = [
            "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0",
            "return redis.pcall('LLEN', KEYS[1])",
            "return {1, 2.9, 'x', false, true, redis.call('GET', KEYS[1]), nil, 9}",
            "return redis.call('SET', KEYS[1], 0.1)",
            "redis.call('ZADD', KEYS[2], 1e17, 'big', 12345678901234567890, 'bigger', 2^53, 'exact') return ARGV",
            "redis.call('RPUSH', KEYS[2], 'kept') return redis.call('GET', KEYS[2])",
            "return redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')",
            "return redis.error_reply('MY error')",
            "return redis.error_reply('word')",
            "return redis.status_reply('fine')",
            "return nothing",
            "something = 1",
            "return redis.call('NONSENSE')",
            "return redis.call('GET')",
            "return redis.call('MULTI')",
            "return redis.call()",
            "return redis.call('GET', {})",
            "return #KEYS + #ARGV + tonumber(ARGV[1])",
            "return redis.call('EXISTS', unpack(KEYS))",
            "error('broken')",
        ];
        vec![
            Word::text("EVAL"),
            Word::text(self.chance.pick(&scripts)),
            Word::text("2"),
            self.key(&["s"]),
            self.key(&["z", "l"]),
            self.document(),
        ]
    }

    /// Mostly as the store would do it: checks first, then writes, each with what it needs.
    fn commit(&mut self) -> Vec<Word> {
        let keys: Vec<Word> =
            (0..=self.chance.below(6)).map(|_| self.key(&["s", "s", "l", "z", "h", "x", "x"])).collect();
        let (mut checks, mut writes, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (key, at) in keys.iter().zip(1_u16..) {
            let [high, low] =
                if self.chance.is_one_in(60) { [0, self.chance.below(9) as u8] } else { at.to_be_bytes() };
            let kind = if self.chance.is_one_in(25) { self.chance.below(256) as u8 } else { key.real[0] };
            match kind {
                b's' => {
                    let version = if self.chance.is_one_in(3) { Vec::new() } else { self.version() };
                    checks.extend(versioned([high, low], &version));
                    match self.chance.pick(&["S", "P", "D", ""]) {
                        "S" => {
                            writes.extend([b'S', high, low]);
                            values.push(self.document());
                        }
                        "P" => {
                            writes.extend(living([high, low], self.life()));
                            values.push(self.document());
                        }
                        "D" => writes.extend([b'D', high, low]),
                        _ => {}
                    }
                }
                b'l' => {
                    self.check(&mut checks, b'l', [high, low]);
                    writes.extend([b'A', high, low]);
                    values.push(self.bytes());
                }
                b'z' => {
                    self.check(&mut checks, b'z', [high, low]);
                    if self.chance.is_one_in(3) {
                        writes.extend([b'M', high, low]);
                    } else {
                        writes.extend([b'Z', high, low]);
                        values.push(Word::text(self.chance.pick(&[
                            "1764000000000",
                            "-9007199254740992",
                            "0",
                            "1e20",
                            "0.1",
                        ])));
                    }
                    values.push(self.member());
                }
                b'h' => {
                    self.check(&mut checks, b'h', [high, low]);
                    let puts = self.chance.is_one_in(2);
                    writes.extend([if puts { b'H' } else { b'T' }, high, low]);
                    values.push(self.member());
                    values.extend(puts.then(|| self.bytes()));
                }
                b'x' => {
                    self.check(&mut checks, b'x', [high, low]);
                    writes.extend([b'X', high, low]);
                    values.push(self.bytes());
                }
                other => {
                    let list = if self.chance.is_one_in(2) { &mut checks } else { &mut writes };
                    list.extend([other, high, low]);
                }
            }
        }
        if self.chance.is_one_in(40) {
            checks.pop();
        }
        if self.chance.is_one_in(40) {
            writes.pop();
        }
        let mut call = vec![Word::text("FCALL"), Word::text("nchf_commit_3"), Word::text(&keys.len().to_string())];
        call.extend(keys);
        call.push(Word::same([checks, writes].concat()));
        call.extend(values);
        call
    }

    /// As the store makes it: every key has one use, every write that could fail but the first has its check, and every
    /// value is one that its command takes. Only what lies under the keys may be anything.
    pub fn sound_commit(&mut self) -> Vec<Bytes> {
        let mut keys: Vec<&str> = vec!["s0", "s1", "l0", "l1", "z0", "z1", "x0", "y0", "h0", "q0", "q1"];
        let (mut checks, mut writes, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut used = Vec::new();
        for at in 1..=1 + self.chance.below(7) as u16 {
            let [high, low] = at.to_be_bytes();
            used.push(keys.remove(self.chance.below(keys.len())));
            let mut write = |letter: u8, check: Option<u8>| {
                if let Some(check) = check
                    && !writes.is_empty()
                {
                    checks.extend([check, high, low]);
                }
                writes.extend([letter, high, low]);
            };
            match self.chance.below(10) {
                0 => write(b'D', None),
                1 => {
                    write(b'S', None);
                    values.push(self.document().real);
                }
                2 => {
                    writes.extend(living([high, low], "100000000"));
                    values.push(self.document().real);
                }
                3 => {
                    write(b'A', Some(b'l'));
                    values.push(self.bytes().real);
                }
                4 => {
                    write(b'Z', Some(b'z'));
                    values.extend([self.score().real, self.member().real]);
                }
                5 => {
                    write(b'M', Some(b'z'));
                    values.push(self.member().real);
                }
                6 => {
                    write(b'X', Some(b'x'));
                    values.push(self.bytes().real);
                }
                7 => {
                    write(b'H', Some(b'h'));
                    values.extend([self.member().real, self.bytes().real]);
                }
                8 => {
                    write(b'T', Some(b'h'));
                    values.push(self.member().real);
                }
                _ => {
                    let version = if self.chance.is_one_in(2) { Vec::new() } else { self.version() };
                    checks.extend(versioned([high, low], &version));
                }
            }
        }
        let mut call = vec!["FCALL".into(), "nchf_commit_3".into(), used.len().to_string().into()];
        call.extend(used.into_iter().map(Bytes::from));
        call.push([checks, writes].concat().into());
        call.extend(values);
        call
    }

    /// Any words for one of the functions that look for themselves.
    pub fn wild_call(&mut self) -> Vec<Bytes> {
        let function = self.chance.pick(&["nchf_claim_1", "nchf_page_1"]);
        let mut call = vec![Word::text("FCALL"), Word::text(function), Word::text("1"), self.key(&["z"])];
        for _ in 0..self.chance.below(5) {
            let word = if self.chance.is_one_in(2) { self.odd() } else { self.limit_of_scores() };
            call.push(word);
        }
        call.into_iter().map(|word| word.real).collect()
    }

    /// Now and then there is none, and a write fails behind others.
    fn check(&mut self, checks: &mut Vec<u8>, letter: u8, at: [u8; 2]) {
        if !self.chance.is_one_in(4) {
            checks.push(letter);
            checks.extend(at);
        }
    }
}

/// Whether it may give a key less time than a test takes.
fn has_short_life(command: &[Word]) -> bool {
    let expires = ["PEXPIRE", "SET", "FCALL"].iter().any(|name| command[0].real.eq_ignore_ascii_case(name.as_bytes()));
    let numbers = command[1..].iter().filter_map(|word| std::str::from_utf8(&word.real).ok()?.parse::<f64>().ok());
    let is_commit = command.get(1).is_none_or(|name| name.real == "nchf_commit_3");
    // How many keys a call names is no time.
    let allowed = usize::from(is_commit);
    expires
        && (is_commit || command[0].real != "FCALL")
        && numbers.filter(|number| (0.5..1e6).contains(number)).count() > allowed
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    Place,
    Score,
    Name,
}
