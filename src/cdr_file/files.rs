//! The few operations on files that [`super::directory`] is made of, and the folder that performs them.
//!
//! A trait, so that tests can fail or end each operation and lose what was not made durable.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// One folder. What was written or renamed may be lost in a crash until the matching `sync` has answered.
pub trait Files {
    type File;

    /// An empty file, whatever was there under the name.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;
    /// At its end.
    fn write(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Over its first bytes.
    fn overwrite(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// `None` when there is no such file.
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;
    fn names(&mut self) -> io::Result<Vec<String>>;
    /// Makes creations, renames and removals durable.
    fn sync_names(&mut self) -> io::Result<()>;

    /// A name that no other folder has, for one that is new.
    fn new_name(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// Where a folder is, which is one process's at a time.
pub trait Place: Send + Sync + 'static {
    type Folder: Files<File: Send> + Send + 'static;

    /// Whether operations there wait for a disk, and must hold up nobody else meanwhile.
    const WAITS_FOR_DISK: bool;

    /// `None` when another process has it.
    fn open(&self) -> io::Result<Option<Self::Folder>>;

    /// For whoever reads about an error.
    fn name(&self) -> String;
}

impl Place for PathBuf {
    type Folder = Folder;

    const WAITS_FOR_DISK: bool = true;

    fn open(&self) -> io::Result<Option<Folder>> {
        Folder::open(self)
    }

    fn name(&self) -> String {
        self.display().to_string()
    }
}

/// A folder of the file system, locked against other processes for as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Records name subscribers: the owner writes, a group may collect, nobody else looks.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

const LOCK: &str = ".lock";

impl Folder {
    /// Makes the folder where it is missing, and locks it; `None` when another process has.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        make(path)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The folder and those above it, each durable in the one that holds it.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        Some(_) | None => Path::new("."),
    };
    make(above)?;
    match fs::DirBuilder::new().mode(FOLDER_MODE).create(path) {
        // Another process was faster; who of the two writes, the lock decides.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }?;
    File::open(above)?.sync_all()
}

impl Files for Folder {
    type File = File;

    fn create(&mut self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(self.path.join(name))
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn overwrite(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, 0)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn names(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // Names that are no text are none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
