//! Brings a store to the current format, and refuses one that this program does not understand.
//!
//! The steps and the rule for rolling upgrades are in `migrations-redis/`. A step is a library of functions; applying
//! it again changes nothing, so the lock only spares work. Whoever comes first also writes what never changes: the
//! partition count, and the store's identity.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};

use super::connect::Links;
use super::node::Node;
use super::ready::not_ready;
use super::reply::{array, optional_bytes, text};
use super::{Settings, keys};
use crate::store::partition::{KeyedHash, PARTITIONS};
use crate::store::{Error, Identity};

/// One file of `migrations-redis/`.
struct Migration {
    number: u32,
    name: &'static str,
    /// The newest migration that a program must know to work on the store afterwards.
    needs: u32,
    source: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "commit_function",
        needs: 1,
        source: include_str!("../../../migrations-redis/0001_commit_function.lua"),
    },
    // A program that knows only the first would not find the open sessions whose index entries lie on shelves.
    Migration {
        number: 2,
        name: "packed_index",
        needs: 2,
        source: include_str!("../../../migrations-redis/0002_packed_index.lua"),
    },
    Migration {
        number: 3,
        name: "one_list",
        needs: 2,
        source: include_str!("../../../migrations-redis/0003_one_list.lua"),
    },
];

/// The libraries that this program calls.
const LIBRARIES: &[&str] = &["nchf_1", "nchf_3"];

/// The lock outlives a step many times, and a dead holder not for long.
const LOCK_MILLIS: u64 = 10_000;
const LOCK_POLL: Duration = Duration::from_millis(50);
const LOCK_POLLS_MAX: u32 = 300;

/// Where a store stands with one migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `NNNN_name`, as the file.
    pub name: Box<str>,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Applied,
    Pending,
    /// Applied with other content than this program's file has.
    Differs,
    /// Applied by a newer program; this one can work with it.
    Unknown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Differs => "applied with other content than this program has",
            Self::Unknown => "applied by a newer program",
        })
    }
}

/// For the operator: a store's migrations, without opening it.
pub struct Migrations {
    links: Links,
}

impl Migrations {
    /// Connects when it is asked something; belongs to the runtime it is called on.
    pub fn of(settings: &Settings) -> Result<Self, Error> {
        Ok(Self { links: Links::new(settings)? })
    }

    /// Changes nothing.
    pub async fn status(&self) -> Result<Vec<Status>, Error> {
        Ok(Recorded::read(&self.links).await?.status())
    }

    /// Applies what is pending and answers its names; safe to call again, and from two places at once.
    pub async fn up(&self) -> Result<Vec<Box<str>>, Error> {
        up(&self.links).await
    }

    /// Compares what was applied, and the code that Redis runs, with this program's files. Changes nothing.
    pub async fn verify(&self) -> Result<(), Error> {
        let recorded = Recorded::read(&self.links).await?;
        recorded.refuse_foreign()?;
        if let Some(pending) = recorded.status().into_iter().find(|status| status.state == State::Pending) {
            return Err(pending_error(&pending.name));
        }
        let (masters, _) = self.links.masters_now().await?;
        for (node, library) in each_library(&masters) {
            let code = library_code(&self.links, node, library).await?.ok_or_else(|| missing_error(library))?;
            let file = newest_source(library);
            if file.is_some_and(|source| source.trim_end() != code.trim_end()) {
                return Err(Error::corrupt(format!(
                    "the library {library} in Redis is not the one of migrations-redis: run `nchf migrate up` after \
                     finding out who changed it"
                )));
            }
        }
        Ok(())
    }
}

/// Checks the store and, if `migrate` is on, brings it to the current format. Answers its identity.
pub async fn admit(links: &Links, migrate: bool) -> Result<Identity, Error> {
    let recorded = Recorded::read(links).await?;
    recorded.refuse_foreign()?;
    let pending = recorded.status().into_iter().find(|status| status.state == State::Pending);
    match (pending, migrate) {
        (Some(_), true) => drop(up(links).await?),
        (Some(pending), false) => return Err(pending_error(&pending.name)),
        (None, _) => ensure_functions(links, migrate).await?,
    }
    identity(links).await
}

/// Redis may have been emptied, or exchanged for another, while this program ran.
pub async fn still_ours(links: &Links, identity: &Identity) -> Result<(), Error> {
    let secret =
        optional_bytes(links.aside(keys::slot_of(keys::FORMAT), cmd("HGET").arg(keys::FORMAT).arg("secret")).await?)?;
    match secret {
        Some(secret) if secret[..] == identity.secret => Ok(()),
        Some(_) => Err(not_ready("this Redis holds another store than the one that was opened: restart to use it")),
        None => Err(not_ready(
            "Redis lost the store's format, and probably everything else: restore it, or restart to begin anew",
        )),
    }
}

/// Functions live apart from keys, and a restored dump or FUNCTION FLUSH may have left them behind.
pub async fn ensure_functions(links: &Links, migrate: bool) -> Result<(), Error> {
    let (masters, _) = links.masters_now().await?;
    for (node, library) in each_library(&masters) {
        if library_code(links, node, library).await?.is_some() {
            continue;
        }
        match newest_source(library) {
            Some(source) if migrate => load(links, node, source).await?,
            _ => return Err(missing_error(library)),
        }
    }
    Ok(())
}

async fn up(links: &Links) -> Result<Vec<Box<str>>, Error> {
    let token = uuid::Uuid::new_v4().to_string();
    lock(links, &token).await?;
    let applied = apply_pending(links).await;
    // If this fails the lock expires by itself.
    let _ = unlock(links, &token).await;
    applied
}

async fn apply_pending(links: &Links) -> Result<Vec<Box<str>>, Error> {
    let recorded = Recorded::read(links).await?;
    recorded.refuse_foreign()?;
    write_format(links).await?;
    let mut applied = Vec::new();
    for migration in MIGRATIONS.iter().filter(|migration| recorded.find(migration.number).is_none()) {
        for node in links.masters_now().await?.0 {
            load(links, &node, migration.source).await?;
        }
        let record = cmd("HSET").arg(keys::MIGRATIONS).arg(migration.number).arg(migration.record()).take();
        links.aside(keys::slot_of(keys::MIGRATIONS), &record).await?;
        applied.push(migration.file_name().into());
    }
    ensure_functions(links, true).await?;
    Ok(applied)
}

/// Each field is written by whoever comes first and never again.
async fn write_format(links: &Links) -> Result<(), Error> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| not_ready(format!("no random numbers for a new store: {error}")))?;
    let instance_id = uuid::Uuid::new_v4().to_string();
    let slot = keys::slot_of(keys::FORMAT);
    let set = |field: &str, value: &[u8]| cmd("HSETNX").arg(keys::FORMAT).arg(field).arg(value).take();
    links.aside(slot, &set("partitions", PARTITIONS.to_string().as_bytes())).await?;
    links.aside(slot, &set("secret", &secret)).await?;
    links.aside(slot, &set("instance_id", instance_id.as_bytes())).await?;
    Ok(())
}

async fn identity(links: &Links) -> Result<Identity, Error> {
    let damaged =
        || Error::corrupt(format!("the store's identity in {} is incomplete: restore that key", keys::FORMAT));
    let mut found = array(
        links
            .aside(keys::slot_of(keys::FORMAT), cmd("HMGET").arg(keys::FORMAT).arg("secret").arg("instance_id"))
            .await?,
    )?
    .into_iter();
    let secret = found.next().map(optional_bytes).transpose()?.flatten().ok_or_else(damaged)?;
    let instance_id = found.next().map(optional_bytes).transpose()?.flatten().ok_or_else(damaged)?;
    Ok(Identity {
        secret: secret[..].try_into().map_err(|_| damaged())?,
        instance_id: String::from_utf8(instance_id.to_vec()).map_err(|_| damaged())?.into(),
    })
}

/// What the store says about itself.
struct Recorded {
    partitions: Option<Box<str>>,
    /// Number, needed migration, checksum, name.
    migrations: Vec<(u32, u32, Box<str>, Box<str>)>,
}

impl Recorded {
    async fn read(links: &Links) -> Result<Self, Error> {
        let partitions = optional_text(
            links.aside(keys::slot_of(keys::FORMAT), cmd("HGET").arg(keys::FORMAT).arg("partitions")).await?,
        )?;
        let mut fields =
            array(links.aside(keys::slot_of(keys::MIGRATIONS), cmd("HGETALL").arg(keys::MIGRATIONS)).await?)?
                .into_iter();
        let mut migrations = Vec::new();
        while let (Some(number), Some(record)) = (fields.next(), fields.next()) {
            let (number, record) = (text(number)?, text(record)?);
            migrations.push(parse_record(&number, &record).ok_or_else(|| {
                Error::corrupt(format!(
                    "{} holds {number} = {record}, which is no migration's record",
                    keys::MIGRATIONS
                ))
            })?);
        }
        migrations.sort_unstable();
        Ok(Self { partitions, migrations })
    }

    fn find(&self, number: u32) -> Option<&(u32, u32, Box<str>, Box<str>)> {
        self.migrations.iter().find(|(found, ..)| *found == number)
    }

    /// A store that this program must not touch.
    fn refuse_foreign(&self) -> Result<(), Error> {
        let expected = PARTITIONS.to_string();
        if let Some(partitions) = self.partitions.as_deref().filter(|found| *found != expected) {
            return Err(Error::corrupt(format!(
                "the store was made with {partitions} partitions and this program uses {expected}: it is another \
                 program's store, or damaged"
            )));
        }
        let known = MIGRATIONS.last().map_or(0, |newest| newest.number);
        if let Some((_, needs, _, name)) = self.migrations.iter().rev().find(|(_, needs, ..)| *needs > known) {
            return Err(Error::corrupt(format!(
                "the store is newer than this program: since migration {name} it needs one that knows migration \
                 {needs:04}, and this one knows up to {known:04}; use a newer version"
            )));
        }
        if let Some(different) = self.status().into_iter().find(|status| status.state == State::Differs) {
            return Err(Error::corrupt(format!(
                "migration {} was applied with other content than this program has: a released file was edited",
                different.name
            )));
        }
        Ok(())
    }

    fn status(&self) -> Vec<Status> {
        let known = MIGRATIONS.iter().map(|migration| Status {
            name: migration.file_name().into(),
            state: match self.find(migration.number) {
                None => State::Pending,
                Some((_, _, checksum, _)) if **checksum == *migration.checksum() => State::Applied,
                Some(_) => State::Differs,
            },
        });
        let newest = MIGRATIONS.last().map_or(0, |newest| newest.number);
        let newer = self.migrations.iter().filter(|(number, ..)| *number > newest);
        let unknown = newer
            .map(|(number, _, _, name)| Status { name: format!("{number:04}_{name}").into(), state: State::Unknown });
        known.chain(unknown).collect()
    }
}

impl Migration {
    fn file_name(&self) -> String {
        format!("{:04}_{}", self.number, self.name)
    }

    fn checksum(&self) -> String {
        let hash = KeyedHash::new(&[0; 16], "migration").part(self.source.as_bytes());
        format!("{:032x}", hash.finish128())
    }

    fn record(&self) -> String {
        format!("{} {} {}", self.needs, self.checksum(), self.name)
    }
}

fn parse_record(number: &str, record: &str) -> Option<(u32, u32, Box<str>, Box<str>)> {
    let mut parts = record.splitn(3, ' ');
    let (needs, checksum, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some((number.parse().ok()?, needs.parse().ok()?, checksum.into(), name.into()))
}

/// The newest file that loads this library.
fn newest_source(library: &str) -> Option<&'static str> {
    let first_line = format!("#!lua name={library}\n");
    MIGRATIONS.iter().rev().map(|migration| migration.source).find(|source| source.starts_with(&first_line))
}

/// Every library on every server.
fn each_library(masters: &[Arc<Node>]) -> Vec<(&Node, &'static str)> {
    let mut each = Vec::new();
    for node in masters {
        for library in LIBRARIES {
            each.push((&**node, *library));
        }
    }
    each
}

/// The libraries that this program calls, as it has them.
pub fn sources() -> impl Iterator<Item = &'static str> {
    LIBRARIES.iter().filter_map(|library| newest_source(library))
}

async fn load(links: &Links, node: &Node, source: &str) -> Result<(), Error> {
    links.aside_at(node, cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(source)).await.map(drop)
}

async fn library_code(links: &Links, node: &Node, library: &str) -> Result<Option<Box<str>>, Error> {
    let list = cmd("FUNCTION").arg("LIST").arg("LIBRARYNAME").arg(library).arg("WITHCODE").take();
    let Some(found) = array(links.aside_at(node, &list).await?)?.into_iter().next() else { return Ok(None) };
    // A flat list of names and values.
    let mut parts = array(found)?.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if &*text(name)? == "library_code" {
            return text(value).map(Some);
        }
    }
    Err(Error::corrupt("Redis lists a library without its code"))
}

/// Waits for another instance that is at it.
async fn lock(links: &Links, token: &str) -> Result<(), Error> {
    let take = cmd("SET").arg(keys::MIGRATING).arg(token).arg("NX").arg("PX").arg(LOCK_MILLIS).take();
    for _ in 0..LOCK_POLLS_MAX {
        if links.aside(keys::slot_of(keys::MIGRATING), &take).await? != Value::Nil {
            return Ok(());
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    Err(not_ready(format!("another instance has been applying migrations for long: see the key {}", keys::MIGRATING)))
}

/// Only if it is still ours: it may have expired, and belong to another by now.
async fn unlock(links: &Links, token: &str) -> Result<(), Error> {
    const DELETE_OWN: &str = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0";
    let unlock = cmd("EVAL").arg(DELETE_OWN).arg(1).arg(keys::MIGRATING).arg(token).take();
    links.aside(keys::slot_of(keys::MIGRATING), &unlock).await.map(drop)
}

fn optional_text(value: Value) -> Result<Option<Box<str>>, Error> {
    match value {
        Value::Nil => Ok(None),
        value => text(value).map(Some),
    }
}

fn pending_error(name: &str) -> Error {
    not_ready(format!("migration {name} is not applied to this Redis: run `nchf migrate up`"))
}

fn missing_error(library: &str) -> Error {
    not_ready(format!("Redis lost the function library {library}: run `nchf migrate up`"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_embedded_and_numbered_in_a_row() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations-redis");
        let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = files.filter(|name| name.ends_with(".lua")).collect();
        let embedded: BTreeSet<String> = MIGRATIONS.iter().map(|one| format!("{}.lua", one.file_name())).collect();
        assert_eq!(files, embedded);
        assert!(MIGRATIONS.iter().map(|migration| migration.number).eq(1..=MIGRATIONS.len() as u32));
    }

    #[test]
    fn a_migration_needs_no_more_than_itself_and_never_less_than_before() {
        assert!(MIGRATIONS.iter().all(|migration| (1..=migration.number).contains(&migration.needs)));
        assert!(MIGRATIONS.is_sorted_by_key(|migration| migration.needs));
    }

    #[test]
    fn every_library_comes_from_a_file() {
        assert!(LIBRARIES.iter().all(|library| newest_source(library).is_some()));
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let (number, needs, checksum, name) = parse_record("1", &MIGRATIONS[0].record()).unwrap();
        assert_eq!((number, needs, &*name), (1, 1, "commit_function"));
        assert_eq!(*checksum, *MIGRATIONS[0].checksum());
        assert_eq!(parse_record("1", "1 2"), None);
    }
}
