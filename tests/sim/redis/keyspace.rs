//! The keys of one server with what they hold.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use bytes::Bytes;

use super::Flavour;
use super::resp::Reply;
use super::script::Library;
use super::sorted_set::SortedSet;
use crate::splitmix::SplitMix;

/// An error of a command: code and sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault(pub Cow<'static, str>);

pub type Answer = Result<Reply, Fault>;

impl Fault {
    pub const SYNTAX: Self = Self(Cow::Borrowed("ERR syntax error"));
    pub const NO_INTEGER: Self = Self(Cow::Borrowed("ERR value is not an integer or out of range"));
    pub const WRONG_TYPE: Self =
        Self(Cow::Borrowed("WRONGTYPE Operation against a key holding the wrong kind of value"));

    pub fn of(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }

    pub fn arity(command: &str) -> Self {
        Self(format!("ERR wrong number of arguments for '{command}' command").into())
    }

    /// The model does not know what the servers would do.
    pub fn unmodelled(what: &str) -> Self {
        Self(format!("{UNMODELLED} {what}").into())
    }
}

/// Begins the errors that no server gives.
pub const UNMODELLED: &str = "ERR not modelled:";

#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    String(Bytes),
    List(VecDeque<Bytes>),
    /// Fields in the order in which they came, as the servers keep small ones.
    Hash(Vec<(Bytes, Bytes)>),
    SortedSet(SortedSet),
    Stream(Stream),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    /// By time and sequence number.
    pub entries: BTreeMap<(u64, u64), Vec<Bytes>>,
    pub last_id: (u64, u64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub object: Object,
    /// Milliseconds.
    pub expires_at: Option<i64>,
}

/// What replicas, and the file on disk, have to hear of.
#[derive(Clone)]
pub enum Change {
    Command(Vec<Bytes>),
    /// A key that came from another server, as a whole.
    Restored(Bytes, Box<Entry>),
    /// A library, and how long the command was.
    Loaded(Rc<Library>, u64),
}

/// A key where a scan finds it: keys stand in the order of their hashes, so that the hash serves as cursor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    hash: u64,
    key: Bytes,
}

impl Name {
    fn of(key: &Bytes) -> Self {
        Self { hash: hash(key), key: key.clone() }
    }
}

/// Spread well enough for a scan, and never 0, which ends one.
fn hash(key: &[u8]) -> u64 {
    let mut hash = key.len() as u64 ^ 0x51_7c_c1_b7_27_22_0a_95;
    for piece in key.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..piece.len()].copy_from_slice(piece);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    // Small enough for every reader of a cursor.
    ((hash ^ (hash >> 29)) >> 1).max(1)
}

#[derive(Clone)]
pub struct Keyspace {
    entries: BTreeMap<Name, Entry>,
    pub flavour: Flavour,
    /// Milliseconds; the same for all of a command.
    pub now: i64,
    /// Whether expired keys are removed when they are met. A replica waits to be told, and hides them meanwhile.
    pub removes_expired: bool,
    /// Whether somebody has to hear of changes.
    pub keeps_changes: bool,
    pub changes: Vec<Change>,
    /// Changes whose author wants them heard of, kept or not.
    pub changed: u64,
    /// State of the numbers that stand for chance.
    pub chance: SplitMix,
}

impl Keyspace {
    pub fn new(flavour: Flavour, chance: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            flavour,
            now: 0,
            removes_expired: true,
            keeps_changes: false,
            changes: Vec::new(),
            changed: 0,
            chance: SplitMix(chance),
        }
    }

    /// An empty one without use, to stand where another was taken from.
    pub fn vacant(&self) -> Self {
        Self::new(self.flavour, 0)
    }

    /// All keys of another server in place of its own.
    pub fn copy(&mut self, other: &Self) {
        self.entries = other.entries.clone();
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn find(&mut self, key: &Bytes) -> Option<&Entry> {
        let name = Name::of(key);
        self.is_there(&name).then(|| &self.entries[&name])
    }

    pub fn find_mut(&mut self, key: &Bytes) -> Option<&mut Entry> {
        let name = Name::of(key);
        if self.is_there(&name) { self.entries.get_mut(&name) } else { None }
    }

    pub fn contains(&mut self, key: &Bytes) -> bool {
        self.is_there(&Name::of(key))
    }

    /// Without removing what has expired.
    pub fn has(&self, key: &Bytes) -> bool {
        self.entries.get(&Name::of(key)).is_some_and(|entry| !entry.has_expired(self.now))
    }

    fn is_there(&mut self, name: &Name) -> bool {
        let Some(entry) = self.entries.get(name) else { return false };
        if !entry.has_expired(self.now) {
            return true;
        }
        if self.removes_expired {
            self.entries.remove(name);
            self.tell_removed(&name.key);
        }
        false
    }

    /// Replicas hear of a key that is gone by itself.
    pub fn tell_removed(&mut self, key: &Bytes) {
        let how: &[u8] = match self.flavour {
            Flavour::Redis70 => b"DEL",
            Flavour::Valkey9 => b"UNLINK",
        };
        self.tell(|| vec![Bytes::from_static(how), key.clone()]);
    }

    pub fn tell(&mut self, command: impl FnOnce() -> Vec<Bytes>) {
        self.changed += 1;
        if self.keeps_changes {
            self.changes.push(Change::Command(command()));
        }
    }

    pub fn tell_same(&mut self, command: &[Bytes]) {
        self.tell(|| command.to_vec());
    }

    pub fn tell_restored(&mut self, key: &Bytes, entry: &Entry) {
        self.changed += 1;
        if self.keeps_changes {
            self.changes.push(Change::Restored(key.clone(), Box::new(entry.clone())));
        }
    }

    pub fn put(&mut self, key: &Bytes, entry: Entry) {
        self.entries.insert(Name::of(key), entry);
    }

    /// The object there, made by `new` where there is none.
    pub fn find_or_put(&mut self, key: &Bytes, new: fn() -> Object) -> &mut Entry {
        let name = Name::of(key);
        self.is_there(&name);
        self.entries.entry(name).or_insert_with(|| Entry { object: new(), expires_at: None })
    }

    pub fn take(&mut self, key: &Bytes) -> Option<Entry> {
        let name = Name::of(key);
        if self.is_there(&name) { self.entries.remove(&name) } else { None }
    }

    /// Removes all that has expired, as servers do now and then. Only where [`Keyspace::removes_expired`].
    pub fn remove_expired(&mut self) {
        let expired = self.entries.iter().filter(|(_, entry)| entry.has_expired(self.now));
        let expired: Vec<_> = expired.map(|(name, _)| name.clone()).collect();
        for name in expired {
            self.is_there(&name);
        }
    }

    /// Keys from a place on in the order of a scan, and the place where that goes on; 0 at the end.
    pub fn scan(&mut self, cursor: u64, count: usize) -> (Vec<Bytes>, u64) {
        let start = Name { hash: cursor, key: Bytes::new() };
        let mut found = Vec::new();
        let mut next = 0;
        for (name, entry) in self.entries.range(start..) {
            // Keys of one hash stay together.
            if found.len() >= count && found.last().is_some_and(|(hash, _, _)| *hash != name.hash) {
                next = name.hash;
                break;
            }
            found.push((name.hash, name.key.clone(), entry.has_expired(self.now)));
        }
        let mut keys = Vec::with_capacity(found.len());
        for (_, key, has_expired) in found {
            if has_expired {
                self.contains(&key);
            } else {
                keys.push(key);
            }
        }
        (keys, next)
    }

    /// All keys with what they hold, sorted; what has expired and was not removed yet is among them.
    pub fn contents(&self) -> BTreeMap<Bytes, Entry> {
        self.entries.iter().map(|(name, entry)| (name.key.clone(), entry.clone())).collect()
    }

    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.entries.keys().map(|name| &name.key)
    }

    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, entry) in &self.entries {
            name.key.hash(&mut hasher);
            entry.digest(&mut hasher);
        }
        hasher.finish()
    }

    /// A number that the settings' seed decides.
    pub fn draw(&mut self, below: usize) -> usize {
        (self.chance.number() % below.max(1) as u64) as usize
    }
}

impl Entry {
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|at| at < now)
    }

    fn digest(&self, hasher: &mut DefaultHasher) {
        self.expires_at.hash(hasher);
        match &self.object {
            Object::String(bytes) => (0, bytes).hash(hasher),
            Object::List(entries) => (1, entries).hash(hasher),
            Object::Hash(fields) => (2, fields).hash(hasher),
            Object::SortedSet(set) => {
                3.hash(hasher);
                set.iter().for_each(|(score, member)| (score.to_bits(), member).hash(hasher));
            }
            Object::Stream(stream) => (4, &stream.entries, stream.last_id).hash(hasher),
        }
    }
}

/// What a key holds, if it is of the kind that a command works on.
impl Keyspace {
    pub fn string(&mut self, key: &Bytes) -> Result<Option<&Bytes>, Fault> {
        of_kind(self.find(key), |object| if let Object::String(bytes) = object { Some(bytes) } else { None })
    }

    pub fn list(&mut self, key: &Bytes) -> Result<Option<&VecDeque<Bytes>>, Fault> {
        of_kind(self.find(key), |object| if let Object::List(list) = object { Some(list) } else { None })
    }

    pub fn hash(&mut self, key: &Bytes) -> Result<Option<&Vec<(Bytes, Bytes)>>, Fault> {
        of_kind(self.find(key), |object| if let Object::Hash(fields) = object { Some(fields) } else { None })
    }

    pub fn sorted_set(&mut self, key: &Bytes) -> Result<Option<&SortedSet>, Fault> {
        of_kind(self.find(key), |object| if let Object::SortedSet(set) = object { Some(set) } else { None })
    }

    pub fn stream(&mut self, key: &Bytes) -> Result<Option<&Stream>, Fault> {
        of_kind(self.find(key), |object| if let Object::Stream(stream) = object { Some(stream) } else { None })
    }

    pub fn sorted_set_mut(&mut self, key: &Bytes) -> Result<Option<&mut SortedSet>, Fault> {
        match self.find_mut(key).map(|entry| &mut entry.object) {
            None => Ok(None),
            Some(Object::SortedSet(set)) => Ok(Some(set)),
            Some(_) => Err(Fault::WRONG_TYPE),
        }
    }

    pub fn stream_mut(&mut self, key: &Bytes) -> Result<Option<&mut Stream>, Fault> {
        match self.find_mut(key).map(|entry| &mut entry.object) {
            None => Ok(None),
            Some(Object::Stream(stream)) => Ok(Some(stream)),
            Some(_) => Err(Fault::WRONG_TYPE),
        }
    }
}

fn of_kind<T>(entry: Option<&Entry>, content: fn(&Object) -> Option<&T>) -> Result<Option<&T>, Fault> {
    entry.map(|entry| content(&entry.object).ok_or(Fault::WRONG_TYPE)).transpose()
}
