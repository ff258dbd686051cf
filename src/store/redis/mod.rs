//! A store on Redis 7.0 or later, or Valkey 8 or later: one function call changes a partition, so that it happens as a
//! whole or not at all.
//!
//! A request costs two round trips, both over connections that all requests of the worker share: one `MGET` to load
//! (of a Create a transaction, for the sake of its index entry), one `FCALL` to commit (see `steps` and
//! `migrations-redis/`). Redis compares versions and keeps bytes; everything that needs a thought was decided before. A
//! commit is sent once: when its answer is lost it says so, and submitting the same operation again resolves it, because
//! the versions tell whether it happened.
//!
//! Start reading with `keys` for what lies where, then `connect` for how it is reached.

mod address;
mod cluster;
mod connect;
mod failure;
mod history;
mod keys;
mod lane;
mod migrate;
mod node;
mod ready;
mod reply;
mod sentinel;
mod steps;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value, cmd};

pub use self::address::Topology;
use self::connect::Links;
pub use self::history::Histories;
pub use self::migrate::{Migrations, State, Status};
use self::node::{Node, Said};
use self::reply::Scored;
use self::steps::Steps;
use super::{
    AccountKey, Commit, Document, Due, Durability, Error, Identity, Indexed, JournalKey, List, Load, Origin, OutboxId,
    Page, Partition, Queue, Reading, RefCodec, ReferenceKind, Snapshot, Store, Version, Work,
};
use crate::charging::ids::ChargingDataRef;
use crate::charging::time::{Span, Timestamp};
use crate::network::Network;
use crate::tls;

/// Most that one call asks Redis for, whatever the caller's limit: it serves one command at a time, and others wait.
const ANSWER_MAX: usize = 1000;

/// Partitions that one round trip looks at: some 200 short commands, which hold nobody up.
const LOOK_MAX: usize = 64;

/// How often a change that compares something of its own is tried while others keep changing that.
const ATTEMPTS_MAX: u32 = 16;

/// Closed sessions that each retirement looks at, to find those whose journal has ended: as many of the oldest, where
/// most of them are, and as many anywhere, so that some that are kept for longer do not hide the others. More than the
/// one that it adds, so that the ended ones remain a small part.
const SWEPT: usize = 4;

/// How to reach a Redis and what to ask of it.
#[derive(Clone)]
pub struct Settings {
    /// Of a form that [`Topology::of`] knows.
    pub url: String,
    /// Within this time every call ends. Too small and a slow disk fails requests; too large and consumers give up
    /// first. Default 1 s.
    pub deadline: Duration,
    /// How long an attempt to connect may take. Default 500 ms.
    pub connect_timeout: Duration,
    pub durability: Durability,
    /// The number of all replicas of a master, for [`Durability::Replicated`]: with fewer, the one that is promoted may
    /// be the one that was not waited for. Default 0.
    pub replicas: u32,
    /// What was answered before each promotion, and whether it is still there. Shared by all stores of an instance.
    pub histories: Arc<Histories>,
    /// Connections that the requests of one worker share. Default 1: more only help where one core of Redis is not the
    /// limit.
    pub hot_connections: usize,
    /// Whether opening the store brings it to the current format.
    pub migrate: bool,
    /// PEM file of the authorities whose certificates the servers may show, where the URL asks for TLS; the system's
    /// where `None`.
    pub ca: Option<PathBuf>,
    /// What servers are shown that ask who comes.
    pub identity: Option<tls::Identity>,
    /// In the place of the system's; then servers are found by their IP addresses only.
    pub network: Option<Arc<dyn Network>>,
}

impl Settings {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            deadline: Duration::from_secs(1),
            connect_timeout: Duration::from_millis(500),
            durability: Durability::Fsync,
            replicas: 0,
            histories: Arc::default(),
            hot_connections: 1,
            migrate: true,
            ca: None,
            identity: None,
            network: None,
        }
    }
}

/// Without the address, which may hold a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("deadline", &self.deadline)
            .field("connect_timeout", &self.connect_timeout)
            .field("durability", &self.durability)
            .field("replicas", &self.replicas)
            .field("hot_connections", &self.hot_connections)
            .field("migrate", &self.migrate)
            .finish_non_exhaustive()
    }
}

/// See the module. Opened once for each worker, and used on the runtime that opened it.
pub struct RedisStore {
    links: Links,
    identity: Identity,
    refs: RefCodec,
    durability: Durability,
    migrate: bool,
}

impl RedisStore {
    /// Connects, brings the store to the current format or checks that it is, and learns the identity.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        ready::refuse_promise(&settings)?;
        let links = Links::new(&settings)?;
        let identity = migrate::admit(&links, settings.migrate).await?;
        // The identity goes into references and key names: before that it must not be lost any more.
        ready::keep_identity(&links).await?;
        let refs = RefCodec::new(identity.secret);
        Ok(Self { links, identity, refs, durability: settings.durability, migrate: settings.migrate })
    }

    /// With index entries: one transaction, because they may lie in either of two places. `get` asks for the documents.
    async fn load_with_index(&self, load: &Load, mut get: redis::Cmd) -> Result<Snapshot, Error> {
        let partition = load.account.partition();
        for key in &load.index {
            get.arg(keys::index(partition, *key));
        }
        let mut all = redis::pipe();
        all.atomic().add_command(get);
        for key in &load.index {
            all.cmd("HGET").arg(keys::index_shelf(partition, *key)).arg(&keys::index_field(*key));
        }
        let Said { value, origin } = self.links.read_there(keys::slot(partition), &all).await?;
        let mut all = Found::of(value)?;
        let mut found = Found::of(all.next()?)?;
        let [account, session] = found.documents(load)?;
        let mut index = Vec::with_capacity(load.index.len());
        for _ in &load.index {
            let (ending, staying) = (reply::optional_bytes(found.next()?)?, reply::optional_bytes(all.next()?)?);
            index.push(staying.or(ending));
        }
        Ok(Snapshot { account, session, index, origin })
    }

    async fn check(&self) -> Result<(), Error> {
        migrate::still_ours(&self.links, &self.identity).await?;
        migrate::ensure_functions(&self.links, self.migrate).await?;
        ready::check(&self.links, self.durability).await
    }

    /// What stands in a sorted set after a position: at most one more than `limit`, which tells whether there is more.
    async fn after(&self, key: String, position: Position<'_>, limit: usize) -> Result<Vec<Scored>, Error> {
        let (mut page, slot) = (cmd("FCALL"), keys::slot_of(&key));
        page.arg("nchf_page_1").arg(1).arg(key).arg(position.score).arg(position.member).arg(limit + 1);
        reply::scored(self.links.aside(slot, &page).await?)
    }

    /// What the listing still holds of sessions whose journal has ended is left out, and removed in passing.
    async fn list_closed(
        &self,
        partition: Partition,
        key: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, Error> {
        let mut cursor: Option<Box<str>> = cursor.map(Into::into);
        let mut items = Vec::new();
        loop {
            let Some(position) = position(cursor.as_deref().unwrap_or(BEFORE_ALL)) else { return Ok(Page::default()) };
            let found = page(self.after(key.to_owned(), position, limit - items.len()).await?, limit - items.len());
            items.extend(self.kept(partition, found.items).await?);
            cursor = found.next;
            if items.len() == limit || cursor.is_none() {
                return Ok(Page { items, next: cursor });
            }
        }
    }

    /// Those of the closed sessions that have a journal; takes the others out of the listings. No step has to hold look
    /// and removal together: a journal that has ended never comes back, and one that begins anew need not be listed.
    async fn kept(&self, partition: Partition, sessions: Vec<Box<str>>) -> Result<Vec<Box<str>>, Error> {
        if sessions.is_empty() {
            return Ok(sessions);
        }
        let mut journals = redis::pipe();
        for session in &sessions {
            journals.cmd("EXISTS").arg(keys::session_journal(partition, &ChargingDataRef::new(session.clone())));
        }
        let exists = reply::array(self.links.aside(keys::slot(partition), &journals).await?)?;
        let (kept, ended): (Vec<_>, Vec<_>) =
            sessions.into_iter().zip(exists).partition(|(_, exists)| *exists != Value::Int(0));
        if !ended.is_empty() {
            let mut remove = redis::pipe();
            for (session, _) in &ended {
                remove.cmd("ZREM").arg(keys::closed(partition)).arg(&**session);
                if let Some(account) = self.refs.account_of(session) {
                    remove.cmd("ZREM").arg(keys::closed_of(account)).arg(&**session);
                }
            }
            self.links.aside(keys::slot(partition), &remove).await?;
        }
        Ok(kept.into_iter().map(|(session, _)| session).collect())
    }

    /// Looks at some of the closed sessions whether their journals have ended.
    async fn sweep_closed(&self, partition: Partition) -> Result<(), Error> {
        let closed = keys::closed(partition);
        let mut some = redis::pipe();
        some.cmd("ZRANGE").arg(&closed).arg(0).arg(SWEPT - 1);
        some.cmd("ZRANDMEMBER").arg(&closed).arg(SWEPT);
        let mut sessions = Vec::new();
        for found in reply::array(self.links.aside(keys::slot(partition), &some).await?)? {
            for session in reply::array(found)? {
                sessions.push(reply::text(session)?);
            }
        }
        sessions.sort_unstable();
        sessions.dedup();
        self.kept(partition, sessions).await.map(drop)
    }

    /// Writes or deletes a reference document, over whatever was deleted beside it meanwhile.
    async fn put(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<&[u8]>,
    ) -> Result<(), Error> {
        // Usually nothing was ever deleted beside it; if something was, the conflict tells.
        let (mut deleted, slot) = (Version::ABSENT, keys::slot_of(&keys::reference(kind, id)));
        for _ in 0..ATTEMPTS_MAX {
            let steps = Steps::of_reference(kind, id, expected, document, deleted);
            let current = match self.links.commit(slot, steps.call(), Origin::ANY).await?.value {
                Value::Int(1) => return Ok(()),
                current => reply::versions(current)?,
            };
            if current.first() != Some(&expected) {
                break;
            }
            deleted = current.get(1).copied().unwrap_or_default();
        }
        Err(Error::Conflict(None))
    }

    async fn take_lease(&self, what: &str, owner: &str, lives_for: Span) -> Result<bool, Error> {
        // Free, or else the conflict tells whose it is.
        let (mut found, slot) = (Version::ABSENT, keys::slot_of(&keys::lease(what)));
        for _ in 0..ATTEMPTS_MAX {
            let mut steps = Steps::default();
            let at = steps.expect(keys::lease(what), found);
            steps.set_for(at, found.next(), owner.as_bytes(), lives_for);
            let current = match self.links.write(slot, &steps.call()).await? {
                Value::Int(1) => return Ok(true),
                current => reply::array(current)?.into_iter().next().map_or(Ok(None), reply::document)?,
            };
            match current {
                Some(held) if held.bytes != owner.as_bytes() => return Ok(false),
                held => found = held.map_or(Version::ABSENT, |held| held.version),
            }
        }
        Ok(false)
    }

    /// Looks at partitions that one server has. In a cluster they may have moved apart: then at each for itself.
    async fn look_together(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Option<Work>>, Error> {
        let Some(first) = partitions.first() else { return Ok(Vec::new()) };
        let questions = waiting(partitions, now);
        if let Some(answers) = self.links.aside_together(keys::slot(*first), &questions).await? {
            return what_waits(partitions, answers);
        }
        let mut found = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let answers = self.links.aside(keys::slot(*partition), &waiting(&[*partition], now)).await?;
            found.extend(what_waits(&[*partition], answers)?);
        }
        Ok(found)
    }

    /// What stands in the names of keys, wherever they are.
    async fn scan_names(&self, names: Names, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        if self.links.is_cluster() {
            return self.scan_cluster(names, cursor, limit).await;
        }
        // A cursor that no page ever gave continues nothing.
        let Ok(cursor) = cursor.unwrap_or("0").parse::<u64>() else { return Ok(Page::default()) };
        let (masters, _) = self.links.masters()?;
        let (items, next) = self.scan_server(&masters[0], names, cursor, limit).await?;
        Ok(Page { items, next: (next != 0).then(|| next.to_string().into()) })
    }

    /// Server after server. A cursor names the state of the cluster that it began with, the server, and that server's own
    /// cursor. When slots have moved since, keys may have passed from the servers before it to those after or the other
    /// way: then it begins anew.
    async fn scan_cluster(&self, names: Names, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let (masters, state, at, of_server) = match cursor {
            None => {
                let (masters, state) = self.links.masters_now().await?;
                (masters, state, 0, 0)
            }
            Some(cursor) => {
                let Some((begun, at, of_server)) = scan_position(cursor) else { return Ok(Page::default()) };
                let (masters, state) = self.links.masters()?;
                let is_as_it_was = state == begun && at < masters.len();
                (masters, state, if is_as_it_was { at } else { 0 }, if is_as_it_was { of_server } else { 0 })
            }
        };
        let (items, of_server) = self.scan_server(&masters[at], names, of_server, limit).await?;
        let next = |state: u64, at: usize, of_server: u64| Some(format!("{state:x}.{at}.{of_server}").into());
        if of_server != 0 {
            return Ok(Page { items, next: next(state, at, of_server) });
        }
        if at + 1 < masters.len() {
            return Ok(Page { items, next: next(state, at + 1, 0) });
        }
        let (_, now) = self.links.masters_now().await?;
        Ok(Page { items, next: if now == state { None } else { next(now, 0, 0) } })
    }

    /// Some names of one server, and where to go on; 0 at the end.
    async fn scan_server(
        &self,
        node: &Node,
        names: Names,
        cursor: u64,
        limit: usize,
    ) -> Result<(Vec<Box<str>>, u64), Error> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(names.pattern).arg("COUNT").arg(limit.clamp(1, ANSWER_MAX));
        let mut found = reply::array(self.links.aside_at(node, &scan).await?)?.into_iter();
        let next = found.next().map(reply::text).transpose()?.and_then(|next| next.parse().ok()).unwrap_or_default();
        let mut items = Vec::new();
        for name in found.next().map_or(Ok(Vec::new()), reply::array)? {
            items.extend((names.item)(&reply::text(name)?).map(Box::from));
        }
        Ok((items, next))
    }

    /// Shelf by shelf, from the one where the cursor's account stands.
    async fn list_open(&self, partition: Partition, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let Some(position) = position(cursor.unwrap_or(BEFORE_ALL)) else { return Ok(Page::default()) };
        let mut entries = Vec::new();
        for shelf in keys::shelf(position.score())..keys::SHELVES {
            let missing = limit - entries.len();
            entries.extend(self.after(keys::open(partition, shelf), position, missing).await?);
            if entries.len() > limit {
                break;
            }
        }
        Ok(page(entries, limit))
    }

    async fn list_open_of(&self, account: AccountKey, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let score = keys::account_score(account);
        let before_all = format!("{score}:");
        let Some(position) = position(cursor.unwrap_or(&before_all)) else { return Ok(Page::default()) };
        let mut entries = self.after(keys::open_of(account), position, limit).await?;
        // The account's entries stand together, and those of the next one after them.
        entries.retain(|entry| entry.is_at(score));
        Ok(page(entries, limit))
    }

    async fn list_references(&self, kind: ReferenceKind, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let start = cursor.map_or_else(|| "-".to_owned(), |cursor| format!("({cursor}"));
        let mut ids = Vec::new();
        for key in keys::all_references(kind) {
            let (mut range, slot) = (cmd("ZRANGE"), keys::slot_of(&key));
            range.arg(key).arg(&start).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(limit + 1);
            for id in reply::array(self.links.aside(slot, &range).await?)? {
                ids.push(reply::text(id)?);
            }
        }
        ids.sort_unstable();
        let more = ids.len() > limit;
        ids.truncate(limit);
        let next = if more { ids.last().cloned() } else { None };
        Ok(Page { items: ids, next })
    }

    /// The entries come in pieces, so that a long journal holds nobody up; it only grows, so the pieces fit. Records
    /// follow from them and get numbers: what a failover loses, or a master that was replaced does not have, must not be
    /// taken for what there is.
    async fn read_list(&self, partition: Partition, key: String) -> Result<Vec<Bytes>, Error> {
        let mut entries = Vec::new();
        loop {
            let mut range = cmd("LRANGE");
            range.arg(&key).arg(entries.len()).arg(entries.len() + ANSWER_MAX - 1);
            let touch = Steps::touching(keys::touched(partition)).call();
            let piece = reply::array(self.links.covered(keys::slot(partition), range, touch).await?)?;
            let last = piece.len() < ANSWER_MAX;
            for entry in piece {
                entries.push(reply::bytes(entry)?);
            }
            if last {
                return Ok(entries);
            }
        }
    }
}

/// Keys to be found by their names, and what of a name is asked for.
#[derive(Clone, Copy)]
struct Names {
    pattern: &'static str,
    item: fn(&str) -> Option<&str>,
}

/// State of the cluster, number of the server, cursor of the server; `None` for a text that no page ever gave.
fn scan_position(cursor: &str) -> Option<(u64, usize, u64)> {
    let mut parts = cursor.split('.');
    let (state, at, of_server) = (parts.next()?, parts.next()?, parts.next()?);
    Some((u64::from_str_radix(state, 16).ok()?, at.parse().ok()?, of_server.parse().ok()?))
}

/// What was found, in the order of the questions.
struct Found(std::vec::IntoIter<Value>);

impl Found {
    fn of(answer: Value) -> Result<Self, Error> {
        reply::array(answer).map(|found| Self(found.into_iter()))
    }

    fn next(&mut self) -> Result<Value, Error> {
        self.0.next().ok_or_else(|| Error::corrupt("Redis answered fewer values than keys"))
    }

    /// Those of account and session, if that was asked for.
    fn documents(&mut self, load: &Load) -> Result<[Option<Document>; 2], Error> {
        let account = reply::document(self.next()?)?;
        let session = if load.session.is_some() { reply::document(self.next()?)? } else { None };
        Ok([account, session])
    }
}

/// Three questions for each partition.
fn waiting(partitions: &[Partition], now: Timestamp) -> redis::Pipeline {
    let mut waiting = redis::Pipeline::with_capacity(3 * partitions.len());
    for partition in partitions {
        waiting.cmd("ZCOUNT").arg(keys::timers(*partition)).arg("-inf").arg(now.millis());
        waiting.cmd("XLEN").arg(keys::outbox(*partition, Queue::Records));
        waiting.cmd("XLEN").arg(keys::outbox(*partition, Queue::Notifications));
    }
    waiting
}

/// The answers to [`waiting`].
fn what_waits(partitions: &[Partition], answers: Value) -> Result<Vec<Option<Work>>, Error> {
    let answers = reply::array(answers)?;
    let mut found = Vec::with_capacity(partitions.len());
    for (partition, waiting) in partitions.iter().zip(answers.chunks(3)) {
        let [due, records, notifications] = waiting else { continue };
        let [due, records, notifications] = [reply::count(due)?, reply::count(records)?, reply::count(notifications)?];
        let work = Work { partition: *partition, due: due > 0, records, notifications };
        found.push(work.is_any().then_some(work));
    }
    Ok(found)
}

/// What a call of the commit function answered: 1, or the documents that are there instead.
fn made_or_conflict(Said { value, origin }: Said) -> Result<(), Error> {
    match value {
        Value::Int(1) => Ok(()),
        current => {
            let mut current = reply::array(current)?.into_iter();
            let account = current.next().map_or(Ok(None), reply::document)?;
            let session = current.next().map_or(Ok(None), reply::document)?;
            Err(Error::Conflict(Some(Box::new(Snapshot { account, session, origin, ..Snapshot::default() }))))
        }
    }
}

/// A position before any score that is ever written.
const BEFORE_ALL: &str = "-1e300:";

/// The first `limit` of the entries; the cursor is the position of the last of them.
fn page(mut entries: Vec<Scored>, limit: usize) -> Page {
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|last| format!("{}:{}", last.score, last.member).into());
    Page { items: entries.into_iter().map(|entry| entry.member).collect(), next }
}

/// A place in a sorted set, whether or not something stands there.
#[derive(Clone, Copy)]
struct Position<'a> {
    /// As Redis wrote it.
    score: &'a str,
    member: &'a str,
}

impl Position<'_> {
    fn score(self) -> i64 {
        self.score.parse::<f64>().map_or(i64::MIN, |score| score as i64)
    }
}

/// What a cursor names; `None` for a text that no page ever gave.
fn position(cursor: &str) -> Option<Position<'_>> {
    let (score, member) = cursor.split_once(':')?;
    score.parse::<f64>().ok().filter(|score| score.is_finite()).map(|_| Position { score, member })
}

#[async_trait]
impl Store for RedisStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn load(&self, load: &Load) -> Result<Snapshot, Error> {
        let partition = load.account.partition();
        // What usually is loaded: it is not moved while it is written.
        let mut get = Cmd::with_capacity(3, 128);
        get.arg("MGET").arg(keys::account(load.account));
        if let Some(key) = &load.session {
            get.arg(keys::session(partition, key));
        }
        if !load.index.is_empty() {
            return Box::pin(self.load_with_index(load, get)).await;
        }
        let Said { value, origin } = self.links.read_there(keys::slot(partition), &get).await?;
        let [account, session] = Found::of(value)?.documents(load)?;
        Ok(Snapshot { account, session, index: Vec::new(), origin })
    }

    async fn commit(&self, commit: &Commit) -> Result<(), Error> {
        let (slot, call) = (keys::slot(commit.account.partition()), Steps::of(commit).call());
        made_or_conflict(self.links.commit(slot, call, commit.origin).await?)
    }

    async fn confirm(&self, read: &Reading) -> Result<(), Error> {
        if self.links.replicas() == 0 {
            return Ok(());
        }
        let (slot, call) = (keys::slot(read.account.partition()), Steps::confirming(read).call());
        made_or_conflict(self.links.commit(slot, call, read.origin).await?)
    }

    async fn sessions(&self, account: AccountKey, keys: &[ChargingDataRef]) -> Result<Vec<Option<Document>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = cmd("MGET");
        for key in keys {
            get.arg(keys::session(account.partition(), key));
        }
        let found = self.links.read(keys::slot(account.partition()), &get).await?;
        reply::array(found)?.into_iter().map(reply::document).collect()
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<Bytes>, Error> {
        let (partition, key) = match key {
            JournalKey::Session(account, key) => (account.partition(), keys::session_journal(account.partition(), key)),
            JournalKey::Account(account) => (account.partition(), keys::account_journal(*account)),
        };
        self.links.in_time(self.read_list(partition, key)).await
    }

    async fn due(&self, partition: Partition, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        let mut range = cmd("ZRANGE");
        range.arg(keys::timers(partition)).arg("-inf").arg(now.millis()).arg("BYSCORE");
        range.arg("LIMIT").arg(0).arg(limit.min(ANSWER_MAX)).arg("WITHSCORES");
        reply::scored(self.links.read(keys::slot(partition), &range).await?)?.into_iter().map(reply::due).collect()
    }

    async fn claim(
        &self,
        partition: Partition,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, Error> {
        let mut claim = cmd("FCALL");
        claim.arg("nchf_claim_1").arg(1).arg(keys::timers(partition));
        claim.arg(now.millis()).arg(lease_until.millis()).arg(limit.min(ANSWER_MAX));
        reply::scored(self.links.write(keys::slot(partition), &claim).await?)?.into_iter().map(reply::due).collect()
    }

    async fn look(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Work>, Error> {
        let look = async {
            let mut work = Vec::new();
            for partitions in partitions.chunks(LOOK_MAX) {
                let slots: Vec<_> = partitions.iter().copied().map(keys::slot).collect();
                let mut found = vec![None; partitions.len()];
                for group in self.links.together(&slots) {
                    let some: Vec<Partition> = group.iter().map(|at| partitions[*at]).collect();
                    for (at, waits) in group.into_iter().zip(self.look_together(&some, now).await?) {
                        found[at] = waits;
                    }
                }
                work.extend(found.into_iter().flatten());
            }
            Ok(work)
        };
        self.links.in_time(look).await
    }

    async fn outbox(
        &self,
        partition: Partition,
        queue: Queue,
        after: Option<&OutboxId>,
        limit: usize,
    ) -> Result<Vec<(OutboxId, Bytes)>, Error> {
        let start = match after {
            Some(id) => {
                let id = reply::stream_id(id);
                format!("({}", id.ok_or_else(|| Error::corrupt("an outbox id that no store on Redis gave"))?)
            }
            None => "-".to_owned(),
        };
        let mut range = cmd("XRANGE");
        range.arg(keys::outbox(partition, queue)).arg(start).arg("+").arg("COUNT").arg(limit.min(ANSWER_MAX));
        let entries =
            self.links.covered(keys::slot(partition), range, Steps::touching(keys::touched(partition)).call()).await?;
        reply::array(entries)?.into_iter().map(reply::outbox_entry).collect()
    }

    async fn acknowledge(&self, partition: Partition, queue: Queue, ids: &[OutboxId]) -> Result<(), Error> {
        // An id that this store never gave names nothing that could be removed.
        let ids: Vec<String> = ids.iter().filter_map(reply::stream_id).collect();
        let acknowledge = async {
            for ids in ids.chunks(ANSWER_MAX) {
                let mut delete = cmd("XDEL");
                delete.arg(keys::outbox(partition, queue)).arg(ids);
                let touch = Steps::touching(keys::touched(partition)).call();
                self.links.covered(keys::slot(partition), delete, touch).await?;
            }
            Ok(())
        };
        self.links.written_in_time(acknowledge).await
    }

    async fn retire(
        &self,
        account: AccountKey,
        key: &ChargingDataRef,
        entry: Option<Bytes>,
        lives_for: Span,
    ) -> Result<(), Error> {
        let partition = account.partition();
        let journal = keys::session_journal(partition, key);
        let mut end = redis::pipe();
        end.atomic();
        if let Some(entry) = &entry {
            end.cmd("RPUSH").arg(&journal).arg(&entry[..]);
        }
        end.cmd("PEXPIRE").arg(&journal).arg(steps::life_millis(lives_for));
        // What is not swept now is swept by another retirement.
        let (ended, _) = tokio::join!(
            self.links.write(keys::slot(partition), &end),
            self.links.in_time(self.sweep_closed(partition))
        );
        ended.map(drop)
    }

    async fn scan(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.scan_names(Names { pattern: keys::SESSIONS, item: keys::session_in }, cursor, limit).await
    }

    async fn accounts(&self, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.scan_names(Names { pattern: keys::ACCOUNTS, item: keys::account_in }, cursor, limit).await
    }

    async fn indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<Indexed, Error> {
        let mut scores = redis::pipe();
        scores.cmd("ZSCORE").arg(keys::timers(account.partition())).arg(key.as_str());
        scores.cmd("ZSCORE").arg(keys::open_of(account)).arg(key.as_str());
        let mut scores = reply::array(self.links.read(keys::slot(account.partition()), &scores).await?)?.into_iter();
        let timer = match scores.next() {
            None | Some(Value::Nil) => None,
            Some(score) => Some(reply::time(&reply::text(score)?)?),
        };
        Ok(Indexed { timer, listed_open: scores.next().is_some_and(|score| score != Value::Nil) })
    }

    async fn drop_indexes(&self, account: AccountKey, key: &ChargingDataRef) -> Result<bool, Error> {
        let mut steps = Steps::default();
        steps.expect(keys::session(account.partition(), key), Version::ABSENT);
        steps.remove(keys::timers(account.partition()), key.as_str());
        steps.remove(keys::open_of(account), key.as_str());
        let slot = keys::slot(account.partition());
        Ok(self.links.write(slot, &steps.call()).await? == Value::Int(1))
    }

    async fn lease(&self, what: &str, owner: &str, lives_for: Span) -> Result<bool, Error> {
        self.links.written_in_time(self.take_lease(what, owner, lives_for)).await
    }

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error> {
        let key = keys::reference(kind, id);
        let (slot, mut get) = (keys::slot_of(&key), cmd("GET").arg(key).take());
        reply::document(match kind {
            // Files follow from it, and the next state of it: what a failover loses must not be read.
            ReferenceKind::ExportState => {
                let touch = Steps::touching(keys::touched_beside(id)).call();
                self.links.covered(slot, get.take(), touch).await?
            }
            _ => self.links.read(slot, &get).await?,
        })
    }

    async fn put_reference(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<Bytes>,
    ) -> Result<(), Error> {
        self.links.written_in_time(self.put(kind, id, expected, document.as_deref())).await
    }

    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let limit = limit.min(ANSWER_MAX);
        match list {
            List::References(kind) => self.links.in_time(self.list_references(*kind, cursor, limit)).await,
            List::OpenSessions(partition) => self.links.in_time(self.list_open(*partition, cursor, limit)).await,
            List::ClosedSessions(partition) => {
                let key = keys::closed(*partition);
                self.links.in_time(self.list_closed(*partition, &key, cursor, limit)).await
            }
            List::OpenSessionsOf(account) => self.list_open_of(*account, cursor, limit).await,
            List::ClosedSessionsOf(account) => {
                let key = keys::closed_of(*account);
                self.links.in_time(self.list_closed(account.partition(), &key, cursor, limit)).await
            }
            List::Timers(partition) => {
                let Some(position) = position(cursor.unwrap_or(BEFORE_ALL)) else { return Ok(Page::default()) };
                Ok(page(self.after(keys::timers(*partition), position, limit).await?, limit))
            }
        }
    }

    async fn ready(&self) -> Result<(), Error> {
        self.links.in_time(self.check()).await
    }
}
