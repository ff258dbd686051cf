//! What a master writes for its replicas and for its disk, and how far each of them has it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;

use super::keyspace::{Change, Keyspace};
use super::script::Library;
use super::{AppendFsync, ServerId, Settings, command, resp};

/// Lengths of what servers write of their own accord.
pub const PING: u64 = 14;
pub const GETACK: u64 = 37;
const SELECT: u64 = 23;
const TRANSACTION: u64 = 15 + 14;

/// So much of its stream a server keeps for replicas that come back.
const BACKLOG: u64 = 1024 * 1024;

/// How often a replica says of its own accord how far it is.
const ACKNOWLEDGED_EVERY_MS: u64 = 1000;

/// After so long without a word a replica is given up.
const REPLICA_TIMEOUT_MS: u64 = 60_000;

/// A stream of changes: a name, and an offset that grows with each byte of it.
pub struct History {
    pub name: Box<str>,
    /// The history before, and the first offset of it that is not part of this one.
    pub before: Box<str>,
    pub left_before_at: Option<u64>,
    pub offset: u64,
    /// Whether anything is written: nobody does it where there never was a replica.
    is_kept: bool,
    /// The replicas know which database is meant.
    has_selected: bool,
    log: VecDeque<Logged>,
    /// Where the log begins.
    log_start: u64,
}

/// Changes that are one to the replicas, and the offset behind them.
#[derive(Clone)]
pub struct Logged {
    pub end: u64,
    pub changes: Rc<[Change]>,
    /// Replicas say at once that they have it.
    pub asks_back: bool,
}

const NO_NAME: &str = "0000000000000000000000000000000000000000";

impl History {
    /// One that nobody has heard of.
    pub fn begin(keys: &mut Keyspace, is_kept: bool) -> Self {
        Self {
            name: new_name(keys),
            before: NO_NAME.into(),
            left_before_at: None,
            offset: 0,
            is_kept,
            has_selected: false,
            log: VecDeque::new(),
            log_start: 0,
        }
    }

    pub fn append(&mut self, changes: &Rc<[Change]>) {
        if !self.is_kept {
            return;
        }
        let mut length = changes.iter().map(length_of).sum::<u64>();
        if changes.len() > 1 {
            length += TRANSACTION;
        }
        if !std::mem::replace(&mut self.has_selected, true) {
            length += SELECT;
        }
        self.push(Logged { end: self.offset + length, changes: changes.clone(), asks_back: false });
    }

    /// Something that changes nothing.
    pub fn append_bytes(&mut self, length: u64) {
        if self.is_kept {
            self.push(Logged { end: self.offset + length, changes: Rc::new([]), asks_back: length == GETACK });
        }
    }

    pub fn push(&mut self, logged: Logged) {
        self.offset = logged.end;
        self.log.push_back(logged);
        while self.log.front().is_some_and(|first| first.end + BACKLOG < self.offset) {
            self.log_start = self.log.pop_front().map_or(self.log_start, |first| first.end);
        }
    }

    /// What comes after an offset, if it is still there.
    pub fn after(&self, offset: u64) -> Option<impl Iterator<Item = &Logged>> {
        let from = self.log.partition_point(|logged| logged.end <= offset);
        (offset >= self.log_start && offset <= self.offset).then(|| self.log.range(from..))
    }

    /// Whether a replica that is as far as `other` can go on from there.
    pub fn continues(&self, other: &Self) -> bool {
        let is_ours = other.name == self.name
            || (other.name == self.before && self.left_before_at.is_some_and(|at| other.offset < at));
        is_ours && self.after(other.offset).is_some()
    }

    /// A replica goes on with the history of its master, of which it has everything up to its offset.
    pub fn join(&mut self, master: &Self) {
        if self.name != master.name {
            self.before = std::mem::replace(&mut self.name, master.name.clone());
            self.left_before_at = Some(self.offset + 1);
        }
    }

    /// A replica begins anew with all that its master has.
    pub fn copy(&mut self, master: &mut Self) {
        master.has_selected = false;
        self.name = master.name.clone();
        (self.before, self.left_before_at) = (NO_NAME.into(), None);
        (self.offset, self.log_start) = (master.offset, master.offset);
        self.log.clear();
    }

    /// A replica becomes a master.
    pub fn leave(&mut self, keys: &mut Keyspace) {
        self.before = std::mem::replace(&mut self.name, new_name(keys));
        self.left_before_at = Some(self.offset + 1);
        self.has_selected = false;
    }
}

fn new_name(keys: &mut Keyspace) -> Box<str> {
    (0..40).map(|_| char::from(b"0123456789abcdef"[keys.draw(16)])).collect::<String>().into()
}

fn length_of(change: &Change) -> u64 {
    match change {
        Change::Command(words) => resp::length_of(words),
        // About what a dump takes.
        Change::Restored(key, _) => 200 + key.len() as u64,
        Change::Loaded(_, length) => *length,
    }
}

/// Makes changes that another server has made.
pub fn apply(changes: &[Change], keys: &mut Keyspace, libraries: &mut BTreeMap<Bytes, Rc<Library>>) {
    // Nothing expires but by the master's word.
    let (now, removes, keeps) = (keys.now, keys.removes_expired, keys.keeps_changes);
    (keys.now, keys.removes_expired, keys.keeps_changes) = (i64::MIN, false, false);
    for change in changes {
        match change {
            Change::Command(words) => {
                let run = command::find(&words[0]).and_then(|command| command.run).expect("made by a command");
                let answer = run(keys, words);
                assert!(answer.is_ok(), "{words:?}: {answer:?}");
            }
            Change::Restored(key, entry) => keys.put(key, (**entry).clone()),
            Change::Loaded(library, _) => {
                libraries.insert(library.name.clone(), library.clone());
            }
        }
    }
    (keys.now, keys.removes_expired, keys.keeps_changes) = (now, removes, keeps);
}

/// How far a replica is, as its master has heard.
#[derive(Clone, Copy)]
pub struct Follower {
    pub acknowledged: u64,
    heard_at: u64,
}

impl Follower {
    pub fn lag_secs(&self, now: u64) -> u64 {
        (now / 1000).saturating_sub(self.heard_at / 1000)
    }
}

/// A master's replicas; of a replica, whether its master has it among these.
#[derive(Default)]
pub struct Followers {
    known: BTreeMap<ServerId, Follower>,
    /// Those that were heard of lately, as it was when the server last looked.
    pub good: usize,
    pub is_linked: bool,
}

impl Followers {
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (ServerId, &Follower)> {
        self.known.iter().map(|(id, follower)| (*id, follower))
    }

    pub fn has(&self, id: ServerId) -> bool {
        self.known.contains_key(&id)
    }

    pub fn clear(&mut self) {
        self.known.clear();
        self.good = 0;
    }

    pub fn drop_one(&mut self, id: ServerId) {
        self.known.remove(&id);
    }

    /// Whether a replica would speak up by itself.
    pub fn is_due(&self, id: ServerId, now: u64) -> bool {
        self.known.get(&id).is_none_or(|follower| now >= follower.heard_at + ACKNOWLEDGED_EVERY_MS)
    }

    pub fn heard(&mut self, id: ServerId, acknowledged: u64, now: u64, settings: &Settings) {
        let is_new = self.known.insert(id, Follower { acknowledged, heard_at: now }).is_none();
        if is_new {
            self.look(settings, now);
        }
    }

    /// Counts the good ones, and gives up those that are silent for long.
    pub fn look(&mut self, settings: &Settings, now: u64) {
        // Those that were there before anybody told the time.
        self.known.values_mut().filter(|follower| follower.heard_at == 0).for_each(|follower| follower.heard_at = now);
        self.known.retain(|_, follower| now < follower.heard_at + REPLICA_TIMEOUT_MS);
        let lag_max = settings.min_replicas_max_lag_secs;
        self.good = self.known.values().filter(|follower| follower.lag_secs(now) <= lag_max).count();
    }

    /// How many have everything up to an offset.
    pub fn with(&self, offset: u64) -> usize {
        self.known.values().filter(|follower| follower.acknowledged >= offset).count()
    }
}

/// What a server would come back with.
pub enum Disk {
    /// Nothing.
    Off,
    /// All that was ever answered.
    Even,
    /// What was written when the disk last said so, and what came since.
    Behind { keys: Box<Keyspace>, libraries: BTreeMap<Bytes, Rc<Library>>, since: Vec<Rc<[Change]>> },
}

impl Disk {
    pub fn new(policy: AppendFsync, keys: &Keyspace) -> Self {
        match policy {
            AppendFsync::Off => Self::Off,
            AppendFsync::Always => Self::Even,
            AppendFsync::Everysec | AppendFsync::No => {
                Self::Behind { keys: Box::new(keys.clone()), libraries: BTreeMap::new(), since: Vec::new() }
            }
        }
    }

    pub fn is_behind(&self) -> bool {
        matches!(self, Self::Behind { .. })
    }

    pub fn append(&mut self, changes: &Rc<[Change]>) {
        if let Self::Behind { since, .. } = self
            && !changes.is_empty()
        {
            since.push(changes.clone());
        }
    }

    pub fn fsync(&mut self) {
        if let Self::Behind { keys, libraries, since } = self {
            for changes in since.drain(..) {
                apply(&changes, keys, libraries);
            }
        }
    }

    /// After everything was replaced.
    pub fn rewrite(&mut self, all: &Keyspace, functions: &BTreeMap<Bytes, Rc<Library>>) {
        if let Self::Behind { keys, libraries, since } = self {
            **keys = all.clone();
            *libraries = functions.clone();
            since.clear();
        }
    }
}
