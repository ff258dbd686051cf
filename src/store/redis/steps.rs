//! A call of the commit function: which keys, what to check, what to write. The other side is
//! `migrations-redis/0003_one_list.lua`.
//!
//! Few arguments make a cheap call: what is checked and what is written stands in one short string, a letter and the
//! two-byte position of a key each, with the version that is expected or how long a document lives; and a document
//! travels with its version in front, as it is stored.

use std::io::Write;

use redis::{Cmd, RedisWrite, ToRedisArgs};
use smallvec::SmallVec;

use super::keys;
use crate::charging::time::Span;
use crate::store::{
    AccountKey, Commit, IndexWrite, Listing, Partition, Reading, ReferenceKind, SessionWrite, TimerWrite, Version,
};

/// Length of the version in front of each document.
pub const VERSION_LENGTH: usize = 8;

/// Position of a key in the call, from 1.
#[derive(Clone, Copy)]
pub struct KeyAt(u16);

/// Put together in any order; the function makes all checks before the first write.
#[derive(Default)]
pub struct Steps<'a> {
    keys: Vec<String>,
    checks: List,
    writes: List,
    values: Vec<Value<'a>>,
}

/// Room in place for what a usual commit checks, or writes.
type List = SmallVec<[u8; 32]>;

enum Value<'a> {
    Document(Version, &'a [u8]),
    Bytes(&'a [u8]),
    Field([u8; 16]),
    Number(i64),
}

impl<'a> Steps<'a> {
    /// The steps of a commit of one partition.
    pub fn of(commit: &'a Commit) -> Self {
        let partition = commit.account.partition();
        let mut steps = Self::default();
        let account = steps.expect(keys::account(commit.account), commit.account_expected);
        let sessions = commit.sessions.iter();
        let documents: Vec<_> =
            sessions.map(|write| (steps.expect(keys::session(partition, &write.key), write.expected), write)).collect();
        // Journals first: the usual commit writes one, and the first write needs no check of its own.
        for write in &commit.sessions {
            if let Some(entry) = &write.journal {
                steps.append(keys::session_journal(partition, &write.key), entry);
            }
        }
        if let Some(entry) = &commit.account_journal {
            steps.append(keys::account_journal(commit.account), entry);
        }
        if let Some(document) = &commit.account_document {
            steps.set(account, commit.account_version(), document);
        }
        for (at, write) in documents {
            steps.set_for(at, write.expected.next(), &write.document, write.lives_for);
            steps.schedule(commit.account, write);
        }
        for (queue, entry) in &commit.outbox {
            steps.send(keys::outbox(partition, *queue), entry);
        }
        for write in &commit.index {
            steps.index(partition, write);
        }
        steps
    }

    /// The steps that change nothing but tell the replicas something, if what was read is still there: `WAIT` only
    /// waits on a connection that wrote.
    pub fn confirming(read: &Reading) -> Self {
        let partition = read.account.partition();
        let mut steps = Self::default();
        steps.expect(keys::account(read.account), read.account_version);
        if let Some((session, version)) = &read.session {
            steps.expect(keys::session(partition, session), *version);
        }
        steps.put(keys::touched(partition), &[], None);
        steps
    }

    /// As [`Steps::confirming`], whatever is there.
    pub fn touching(key: String) -> Self {
        let mut steps = Self::default();
        steps.put(key, &[], None);
        steps
    }

    /// The steps that write a reference document (`Some`) or delete it. Conflicts tell its version, and `deleted` as it
    /// is where that was compared: the greatest version among the deleted ones of its home. A new document begins above
    /// it, so that no version ever stands for two contents.
    pub fn of_reference(
        kind: ReferenceKind,
        id: &'a str,
        expected: Version,
        document: Option<&'a [u8]>,
        deleted: Version,
    ) -> Self {
        let mut steps = Self::default();
        let at = steps.expect(keys::reference(kind, id), expected);
        match document {
            Some(document) => {
                let mut last = expected;
                if expected == Version::ABSENT {
                    steps.expect(keys::deleted_beside(kind, id), deleted);
                    last = deleted;
                }
                steps.add(keys::references_beside(kind, id), 0, id);
                steps.set(at, last.next(), document);
            }
            None => {
                if deleted < expected {
                    let deleted_at = steps.expect(keys::deleted_beside(kind, id), deleted);
                    steps.set(deleted_at, expected, &[]);
                }
                steps.remove(keys::references_beside(kind, id), id);
                steps.delete(at);
            }
        }
        steps
    }

    /// The document there must have this version. On a conflict, documents are answered in the order of these calls.
    pub fn expect(&mut self, key: String, version: Version) -> KeyAt {
        let at = self.key(key);
        match version {
            Version::ABSENT => step(&mut self.checks, b'n', at),
            Version(number) => {
                step(&mut self.checks, b'v', at);
                self.checks.extend_from_slice(&number.to_be_bytes());
            }
        }
        at
    }

    /// Writes the document for ever.
    pub fn set(&mut self, at: KeyAt, version: Version, document: &'a [u8]) {
        step(&mut self.writes, b'S', at);
        self.values.push(Value::Document(version, document));
    }

    pub fn set_for(&mut self, at: KeyAt, version: Version, document: &'a [u8], lives_for: Span) {
        self.living(at, lives_for);
        self.values.push(Value::Document(version, document));
    }

    pub fn delete(&mut self, at: KeyAt) {
        step(&mut self.writes, b'D', at);
    }

    /// Writes bytes without a version, over whatever is there.
    pub fn put(&mut self, key: String, bytes: &'a [u8], lives_for: Option<Span>) {
        let at = self.key(key);
        match lives_for {
            Some(lives_for) => self.living(at, lives_for),
            None => step(&mut self.writes, b'S', at),
        }
        self.values.push(Value::Bytes(bytes));
    }

    /// Appends to a list.
    pub fn append(&mut self, key: String, entry: &'a [u8]) {
        self.typed(b'l', b'A', key);
        self.values.push(Value::Bytes(entry));
    }

    /// Puts a member into a sorted set, or moves it there.
    pub fn add(&mut self, key: String, score: i64, member: &'a str) {
        self.typed(b'z', b'Z', key);
        self.values.extend([Value::Number(score), Value::Bytes(member.as_bytes())]);
    }

    pub fn remove(&mut self, key: String, member: &'a str) {
        self.typed(b'z', b'M', key);
        self.values.push(Value::Bytes(member.as_bytes()));
    }

    /// Puts a field into a hash, over what it holds.
    fn put_field(&mut self, key: String, field: [u8; 16], value: &'a [u8]) {
        self.typed(b'h', b'H', key);
        self.values.extend([Value::Field(field), Value::Bytes(value)]);
    }

    fn take_field(&mut self, key: String, field: [u8; 16]) {
        self.typed(b'h', b'T', key);
        self.values.push(Value::Field(field));
    }

    /// Appends to a stream.
    pub fn send(&mut self, key: String, entry: &'a [u8]) {
        self.typed(b'x', b'X', key);
        self.values.push(Value::Bytes(entry));
    }

    pub fn call(&self) -> Cmd {
        // What a usual commit takes: it is not moved while it is written.
        let mut cmd = Cmd::with_capacity(16, 1024);
        cmd.arg("FCALL").arg("nchf_commit_3").arg(self.keys.len());
        cmd.arg(&self.keys).arg([&*self.checks, &*self.writes].concat()).arg(&self.values);
        cmd
    }

    fn schedule(&mut self, account: AccountKey, write: &'a SessionWrite) {
        let partition = account.partition();
        let name = write.key.as_str();
        match write.timer {
            TimerWrite::Keep => {}
            TimerWrite::At(at) => self.add(keys::timers(partition), at.millis(), name),
            TimerWrite::Remove => self.remove(keys::timers(partition), name),
        }
        match write.listing {
            Listing::Keep => {}
            Listing::Open(_) => self.add(keys::open_of(account), keys::account_score(account), name),
            Listing::Closed(at) => {
                self.remove(keys::open_of(account), name);
                self.add(keys::closed(partition), at.millis(), name);
                self.add(keys::closed_of(account), at.millis(), name);
            }
        }
    }

    /// One that ends leaves the shelf. One that stays need not take away what lies under the key of its own: the shelf
    /// counts.
    fn index(&mut self, partition: Partition, write: &'a IndexWrite) {
        let (shelf, field) = (keys::index_shelf(partition, write.key), keys::index_field(write.key));
        match write.lives_for {
            None => self.put_field(shelf, field, &write.value),
            Some(_) => {
                self.take_field(shelf, field);
                self.put(keys::index(partition, write.key), &write.value, write.lives_for);
            }
        }
    }

    /// A write of something that lives for a while.
    fn living(&mut self, at: KeyAt, lives_for: Span) {
        step(&mut self.writes, b'P', at);
        let millis = life_millis(lives_for).to_string();
        self.writes.push(millis.len() as u8);
        self.writes.extend_from_slice(millis.as_bytes());
    }

    /// A write that fails on a key of another type. As the very first write it is its own check, which saves the usual
    /// commit one command; any other is checked beforehand, because by then something was written.
    fn typed(&mut self, check: u8, write: u8, key: String) {
        let at = self.key(key);
        if !self.writes.is_empty() {
            step(&mut self.checks, check, at);
        }
        step(&mut self.writes, write, at);
    }

    fn key(&mut self, key: String) -> KeyAt {
        self.keys.push(key);
        KeyAt(u16::try_from(self.keys.len()).expect("a commit touches a few keys for each of its sessions"))
    }
}

fn step(steps: &mut List, letter: u8, KeyAt(at): KeyAt) {
    let [high, low] = at.to_be_bytes();
    steps.extend_from_slice(&[letter, high, low]);
}

/// Redis refuses a life of nothing; a millisecond is the shortest it knows.
pub fn life_millis(span: Span) -> i64 {
    span.millis().max(1)
}

impl ToRedisArgs for Value<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self {
            Self::Document(version, bytes) => {
                // Into a buffer in memory, which takes everything.
                let mut arg = out.writer_for_next_arg();
                let _ = arg.write_all(&version.0.to_be_bytes());
                let _ = arg.write_all(bytes);
            }
            Self::Bytes(bytes) => out.write_arg(bytes),
            Self::Field(bytes) => out.write_arg(bytes),
            Self::Number(number) => out.write_arg_fmt(number),
        }
    }
}
