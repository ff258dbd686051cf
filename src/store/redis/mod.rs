//! A store on Redis 7.0 or later, or Valkey 8 or later: one function call changes a partition, so that it happens as a
//! whole or not at all.
//!
//! A request costs two round trips, both over connections that all requests of the worker share: one `MGET` to load,
//! one `FCALL` to commit (see `steps` and `migrations-redis/`). Redis compares versions and keeps bytes; everything
//! that needs a thought was decided before. A commit is sent once: when its answer is lost it says so, and submitting
//! the same operation again resolves it, because the versions tell whether it happened.
//!
//! Start reading with `keys` for what lies where, then `connect` for how it is reached.

mod connect;
mod keys;
mod migrate;
mod ready;
mod reply;
mod steps;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Value, cmd};

use self::connect::Links;
pub use self::migrate::{Migrations, State, Status};
use self::reply::Scored;
use self::steps::Steps;
use super::{
    AccountKey, Commit, Document, Due, Durability, Error, Identity, JournalKey, List, Load, OutboxId, Page, Partition,
    ReferenceKind, Snapshot, Store, Version,
};
use crate::charging::ids::ChargingDataRef;
use crate::charging::time::Timestamp;

/// Most that one call asks Redis for, whatever the caller's limit: it serves one command at a time, and others wait.
const ANSWER_MAX: usize = 1000;

/// How to reach a Redis and what to ask of it.
#[derive(Clone)]
pub struct Settings {
    /// `redis://[user:password@]host[:port][/database]`.
    pub url: String,
    /// Within this time every call ends. Too small and a slow disk fails requests; too large and consumers give up
    /// first. Default 1 s.
    pub deadline: Duration,
    /// How long an attempt to connect may take. Default 500 ms.
    pub connect_timeout: Duration,
    pub durability: Durability,
    /// Connections that the requests of one worker share. Default 1: more only help where one core of Redis is not the
    /// limit.
    pub hot_connections: usize,
    /// Whether opening the store brings it to the current format.
    pub migrate: bool,
}

impl Settings {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            deadline: Duration::from_secs(1),
            connect_timeout: Duration::from_millis(500),
            durability: Durability::Fsync,
            hot_connections: 1,
            migrate: true,
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
            .field("hot_connections", &self.hot_connections)
            .field("migrate", &self.migrate)
            .finish_non_exhaustive()
    }
}

/// See the module. Opened once for each worker, and used on the runtime that opened it.
pub struct RedisStore {
    links: Links,
    identity: Identity,
    durability: Durability,
    migrate: bool,
}

impl RedisStore {
    /// Connects, brings the store to the current format or checks that it is, and learns the identity.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        ready::refuse_replicated(settings.durability)?;
        let links = Links::new(&settings)?;
        let identity = migrate::admit(&links, settings.migrate).await?;
        Ok(Self { links, identity, durability: settings.durability, migrate: settings.migrate })
    }

    async fn check(&self) -> Result<(), Error> {
        migrate::still_ours(&self.links, &self.identity).await?;
        migrate::ensure_functions(&self.links, self.migrate).await?;
        ready::refuse_eviction(&self.links).await?;
        ready::require(&self.links, self.durability).await
    }

    /// What stands in a sorted set after a position: at most one more than `limit`, which tells whether there is more.
    async fn after(&self, key: String, position: Position<'_>, limit: usize) -> Result<Vec<Scored>, Error> {
        let mut page = cmd("FCALL");
        page.arg("nchf_page_1").arg(1).arg(key).arg(position.score).arg(position.member).arg(limit + 1);
        reply::scored(self.links.aside(&page).await?)
    }

    async fn list_closed(&self, key: String, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let Some(position) = position(cursor.unwrap_or(BEFORE_ALL)) else { return Ok(Page::default()) };
        Ok(page(self.after(key, position, limit).await?, limit))
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
        let start = cursor.map_or("-".to_owned(), |cursor| format!("({cursor}"));
        let mut ids = Vec::new();
        for key in keys::all_references(kind) {
            let mut range = cmd("ZRANGE");
            range.arg(key).arg(&start).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(limit + 1);
            for id in reply::array(self.links.aside(&range).await?)? {
                ids.push(reply::text(id)?);
            }
        }
        ids.sort_unstable();
        let more = ids.len() > limit;
        ids.truncate(limit);
        let next = if more { ids.last().cloned() } else { None };
        Ok(Page { items: ids, next })
    }

    /// The entries come in pieces, so that a long journal holds nobody up; it only grows, so the pieces fit.
    async fn read_list(&self, key: String) -> Result<Vec<Bytes>, Error> {
        let mut entries = Vec::new();
        loop {
            let mut range = cmd("LRANGE");
            range.arg(&key).arg(entries.len()).arg(entries.len() + ANSWER_MAX - 1);
            let piece = reply::array(self.links.aside(&range).await?)?;
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
        let mut get = cmd("MGET");
        get.arg(keys::account(load.account));
        if let Some(key) = &load.session {
            get.arg(keys::session(partition, key));
        }
        for key in &load.index {
            get.arg(keys::index(partition, *key));
        }
        let mut found = reply::array(self.links.read(&get).await?)?.into_iter();
        let mut next = || found.next().ok_or_else(|| Error::corrupt("Redis answered fewer values than keys"));
        Ok(Snapshot {
            account: reply::document(next()?)?,
            session: if load.session.is_some() { reply::document(next()?)? } else { None },
            index: load.index.iter().map(|_| reply::optional_bytes(next()?)).collect::<Result<_, _>>()?,
        })
    }

    async fn commit(&self, commit: &Commit) -> Result<(), Error> {
        match self.links.write(&Steps::of(commit).call()).await? {
            Value::Int(1) => Ok(()),
            current => {
                let mut current = reply::array(current)?.into_iter();
                let account = current.next().map_or(Ok(None), reply::document)?;
                let session = current.next().map_or(Ok(None), reply::document)?;
                Err(Error::Conflict(Some(Box::new(Snapshot { account, session, index: Vec::new() }))))
            }
        }
    }

    async fn sessions(&self, account: AccountKey, keys: &[ChargingDataRef]) -> Result<Vec<Option<Document>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = cmd("MGET");
        for key in keys {
            get.arg(keys::session(account.partition(), key));
        }
        reply::array(self.links.read(&get).await?)?.into_iter().map(reply::document).collect()
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<Bytes>, Error> {
        let key = match key {
            JournalKey::Session(account, key) => keys::session_journal(account.partition(), key),
            JournalKey::Account(account) => keys::account_journal(*account),
        };
        self.links.in_time(self.read_list(key)).await
    }

    async fn due(&self, partition: Partition, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        let mut range = cmd("ZRANGE");
        range.arg(keys::timers(partition)).arg("-inf").arg(now.millis()).arg("BYSCORE");
        range.arg("LIMIT").arg(0).arg(limit.min(ANSWER_MAX)).arg("WITHSCORES");
        reply::scored(self.links.read(&range).await?)?.into_iter().map(reply::due).collect()
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
        reply::scored(self.links.write(&claim).await?)?.into_iter().map(reply::due).collect()
    }

    async fn outbox(&self, partition: Partition, limit: usize) -> Result<Vec<(OutboxId, Bytes)>, Error> {
        let mut range = cmd("XRANGE");
        range.arg(keys::outbox(partition)).arg("-").arg("+").arg("COUNT").arg(limit.min(ANSWER_MAX));
        reply::array(self.links.read(&range).await?)?.into_iter().map(reply::outbox_entry).collect()
    }

    async fn acknowledge(&self, partition: Partition, id: &OutboxId) -> Result<(), Error> {
        // An id that this store never gave names nothing that could be removed.
        let Some((millis, sequence)) = reply::outbox_position(id) else { return Ok(()) };
        let mut delete = cmd("XDEL");
        delete.arg(keys::outbox(partition)).arg(format!("{millis}-{sequence}"));
        self.links.write(&delete).await.map(drop)
    }

    async fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, Error> {
        reply::document(self.links.read(cmd("GET").arg(keys::reference(kind, id))).await?)
    }

    async fn put_reference(
        &self,
        kind: ReferenceKind,
        id: &str,
        expected: Version,
        document: Option<Bytes>,
    ) -> Result<(), Error> {
        let mut steps = Steps::default();
        let at = steps.expect(keys::reference(kind, id), expected);
        match &document {
            Some(bytes) => {
                steps.add(keys::references_beside(kind, id), 0, id);
                steps.set(at, expected.next(), bytes);
            }
            None => {
                steps.remove(keys::references_beside(kind, id), id);
                steps.delete(at);
            }
        }
        match self.links.write(&steps.call()).await? {
            Value::Int(1) => Ok(()),
            _ => Err(Error::Conflict(None)),
        }
    }

    async fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let limit = limit.min(ANSWER_MAX);
        match list {
            List::References(kind) => self.links.in_time(self.list_references(*kind, cursor, limit)).await,
            List::OpenSessions(partition) => self.links.in_time(self.list_open(*partition, cursor, limit)).await,
            List::ClosedSessions(partition) => self.list_closed(keys::closed(*partition), cursor, limit).await,
            List::OpenSessionsOf(account) => self.list_open_of(*account, cursor, limit).await,
            List::ClosedSessionsOf(account) => self.list_closed(keys::closed_of(*account), cursor, limit).await,
        }
    }

    async fn ready(&self) -> Result<(), Error> {
        self.links.in_time(self.check()).await
    }
}
