//! How a directory becomes a store: the file, its lock, its checks and its identity.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend};
use tokio::sync::watch;

use super::queue::{Queue, WAITING_MAX};
use super::tables::{self, FORMAT, Tables, damaged};
use super::view::View;
use super::writer::{SEQUENCE_BLOCK, Sequence, Writer};
use super::{EmbeddedStore, Settings, Shared};
use crate::clock::Clock;
use crate::store::partition::PARTITIONS;
use crate::store::{Applied, Durability, Error, Identity};

const FILE: &str = "nchf.redb";

/// Files up to this size are verified page by page whenever they are opened, so that damage is found before anything is
/// decided on it. It costs three seconds for a file of this size. Larger ones are verified only after a crash, when
/// the engine has to read all of it anyway.
const VERIFIED_MAX: u64 = 1 << 30;

pub(super) fn directory(settings: &Settings, clock: Arc<dyn Clock>) -> Result<EmbeddedStore, Error> {
    if settings.durability == Durability::Replicated {
        return Err(Error::unavailable(
            Applied::No,
            "an embedded store has no replicas: set store.durability to \"fsync\" or \"memory\", or use Redis",
        ));
    }
    let directory = &settings.directory;
    let refused = |doing: &str, error: io::Error| {
        Error::unavailable(Applied::No, format_args!("cannot {doing} {}: {error}", directory.display()))
    };
    create_directory(directory).map_err(|error| refused("create the store's directory", error))?;
    let path = file(directory);
    if !path.exists() {
        create_file(&path).map_err(|error| opening(error, directory))?;
        sync_directory(directory).map_err(|error| refused("sync", error))?;
    }
    let file = File::options().read(true).write(true).open(&path);
    let file = file.map_err(|error| refused("open the store in", error))?;
    let backend = FileBackend::new(file).map_err(|error| opening(error.into(), directory))?;
    backend_of(backend, settings, clock)
}

/// The one file of the store in a directory.
pub(super) fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Makes a whole new store under another name and gives it its own only then: the engine cannot open a file whose
/// making was interrupted. If somebody else was faster, theirs stays.
fn create_file(path: &Path) -> Result<(), redb::Error> {
    let unfinished = path.with_extension(format!("redb.{}", uuid::Uuid::new_v4()));
    let file = File::options().read(true).write(true).create_new(true).open(&unfinished)?;
    let database = Builder::new().create_with_backend(FileBackend::new(file)?)?;
    know_yourself(&database)?;
    database.close()?;
    match fs::hard_link(&unfinished, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    Ok(fs::remove_file(&unfinished)?)
}

/// As [`directory`], on whatever keeps the bytes.
pub(super) fn backend_of(
    backend: impl StorageBackend,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<EmbeddedStore, Error> {
    // The engine promises an error for damage that it verifies, and asserts on damage that it meets unprepared.
    let opened = catch_unwind(AssertUnwindSafe(|| opened(backend, settings, clock)));
    match opened {
        Ok(Ok((identity, writer))) => {
            EmbeddedStore::start(identity, writer.clock.clone(), settings.deadline, writer.shared.clone(), writer)
        }
        Ok(Err(error)) => Err(opening(error, &settings.directory)),
        Err(_) => Err(opening(damaged("it holds something that the engine never wrote"), &settings.directory)),
    }
}

fn opened(
    backend: impl StorageBackend,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<(Identity, Writer), redb::Error> {
    let is_small = backend.len()? <= VERIFIED_MAX;
    let database = Builder::new()
        .set_cache_size(settings.cache_bytes)
        .set_check_integrity_on_open(is_small)
        .create_with_backend(backend)?;
    let (identity, sequence) = know_yourself(&database)?;
    let first = database.begin_read()?.open_table(tables::EXPIRIES)?.first()?.map(|(key, _)| key.value().to_vec());
    let next_expiry = match first.as_deref().map(<[u8]>::split_first_chunk) {
        None => None,
        Some(Some((at, _))) => Some(tables::at_of(*at)),
        Some(None) => return Err(damaged("an expiry entry ends too early")),
    };
    let shared = Arc::new(Shared {
        queue: Queue::new(),
        view: RwLock::new(Some(Arc::new(View::of(&database)?))),
        failure: watch::Sender::new(None),
    });
    let writer = Writer {
        database,
        shared,
        clock,
        durability: settings.durability,
        sequence,
        next_expiry,
        jobs: Vec::with_capacity(WAITING_MAX),
        answers: Vec::with_capacity(WAITING_MAX),
        flush_at: None,
    };
    Ok((identity, writer))
}

/// Reads what the store says about itself, or writes it into a new one, and sets sequence numbers aside.
fn know_yourself(database: &Database) -> Result<(Identity, Sequence), redb::Error> {
    let transaction = database.begin_write()?;
    let is_new = transaction.list_tables()?.next().is_none();
    let identity = if is_new { new_identity()? } else { known_identity(&transaction)? };
    let next;
    {
        let mut meta = transaction.open_table(tables::META)?;
        next = match meta.get(tables::META_SEQUENCE)? {
            Some(limit) => number(limit.value())?,
            None => 1,
        };
        meta.insert(tables::META_FORMAT, &FORMAT.to_be_bytes()[..])?;
        meta.insert(tables::META_PARTITIONS, &PARTITIONS.to_be_bytes()[..])?;
        meta.insert(tables::META_SECRET, &identity.secret[..])?;
        meta.insert(tables::META_INSTANCE, identity.instance_id.as_bytes())?;
        meta.insert(tables::META_SEQUENCE, &(next + SEQUENCE_BLOCK).to_be_bytes()[..])?;
    }
    Tables::of(&transaction).create()?;
    transaction.commit()?;
    Ok((identity, Sequence { next, limit: next + SEQUENCE_BLOCK }))
}

fn new_identity() -> Result<Identity, redb::Error> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Identity { secret, instance_id: uuid::Uuid::new_v4().to_string().into() })
}

fn known_identity(transaction: &redb::WriteTransaction) -> Result<Identity, redb::Error> {
    let meta = transaction.open_table(tables::META)?;
    let value = |name: &str| -> Result<Vec<u8>, redb::Error> {
        let found = meta.get(name)?.ok_or_else(|| damaged(format!("it does not know its {name}")))?;
        Ok(found.value().to_vec())
    };
    let format = number(&value(tables::META_FORMAT)?)?;
    if !(1..=u64::from(FORMAT)).contains(&format) {
        return Err(damaged(format!(
            "it has format {format} and this program knows format {FORMAT}: use a newer version of it"
        )));
    }
    let partitions = number(&value(tables::META_PARTITIONS)?)?;
    if partitions != u64::from(PARTITIONS) {
        return Err(damaged(format!("it has {partitions} partitions and this program {PARTITIONS}")));
    }
    let secret = value(tables::META_SECRET)?.try_into().map_err(|_| damaged("its secret is not 16 bytes"))?;
    let instance_id = String::from_utf8(value(tables::META_INSTANCE)?).map_err(|_| damaged("its name is not text"))?;
    Ok(Identity { secret, instance_id: instance_id.into() })
}

/// A big-endian number of at most eight bytes.
pub(super) fn number(bytes: &[u8]) -> Result<u64, redb::Error> {
    if bytes.len() > 8 {
        return Err(damaged("a number of more than eight bytes"));
    }
    Ok(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

/// Creates what is missing of `directory`, each entry synced into its parent.
fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_directory(parent)?;
    fs::create_dir(directory)?;
    sync_directory(parent)
}

/// What is new in a directory is there after a power cut only if the directory itself was synced.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What went wrong while opening, in words for an operator.
fn opening(error: redb::Error, directory: &Path) -> Error {
    let directory = directory.display();
    match error {
        redb::Error::DatabaseAlreadyOpen => Error::unavailable(
            Applied::No,
            format_args!("the store in {directory} is open in another process: only one nchf can use it at a time"),
        ),
        redb::Error::UpgradeRequired(_) => {
            Error::corrupt(format_args!("the store in {directory} was written by an engine that is too old"))
        }
        // How the engine says that this is no file of its own, and that it ends too early.
        redb::Error::Io(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            Error::corrupt(format_args!("the store in {directory} is damaged or no store: {error}"))
        }
        redb::Error::Corrupted(what) => Error::corrupt(format_args!("the store in {directory}: {what}")),
        error => Error::unavailable(Applied::No, format_args!("cannot open the store in {directory}: {error}")),
    }
}

/// What went wrong later.
pub(super) fn error(error: redb::Error, applied: Applied) -> Error {
    match error {
        redb::Error::Corrupted(what) => Error::corrupt(format_args!("embedded store: {what}")),
        error => Error::unavailable(applied, format_args!("embedded store: {error}")),
    }
}
