//! The directory of one writer, where files of records appear whole, once and in order.
//!
//! A file is written under a hidden name. To publish it, its records are made durable, then the *intent* to publish it
//! is (its number and its names, in the writer's own small file), then it gets its name. So after any crash the two
//! names tell what happened:
//!
//! - The number was not intended: the hidden file is discarded, and its records come again from the outbox.
//! - It was intended and the hidden file is there: it gets its name now.
//! - It was intended and no hidden file is there: it was published, and mediation may have collected it since.
//!
//! Therefore [`Directory::is_published`] answers for every number there ever was, numbers neither repeat nor skip, and
//! whoever numbers a batch before it is closed can tell later whether it got out. Recovery is the same whether a
//! process ended or an operation failed: after an error nothing of the file under way is kept, the next call recovers
//! first, and the same records are appended again.
//!
//! What mediation took between the renaming and its becoming durable is published again, under the same name, when the
//! machine loses power in between: no file system can rule that out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::{Files, Folder, Place};
use super::ts32297::{self, Closure, FILE_HEADER_LENGTH, FileHeader};
use super::{Encoded, Format, Record, TooLong};
use crate::charging::time::{Span, Timestamp};

/// Number of a file, from 1 on. Files of one number in several formats hold the same records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileNumber(pub u32);

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// In names of files: who wrote them.
    pub node_id: Box<str>,
    /// At least one.
    pub formats: Vec<Format>,
    /// When a file is full, whichever comes first.
    pub lives_for: Span,
    pub bytes_max: u64,
    pub records_max: u32,
}

/// Why records could not be written. In each case they can be appended again later, and nothing half done is visible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: another process writes records here; give each instance a directory of its own (cdr_dir)", .0.display())]
    Locked(PathBuf),
    #[error(
        "{WRITER} in the directory of records says {found:?}: restore it from a backup, or move the directory away"
    )]
    Damaged { found: String },
    #[error("a file {0} is in the directory of records already: move it away")]
    Occupied(String),
    #[error("{doing} {what}: {reason}; {}", advice(.reason))]
    Io { doing: &'static str, what: String, reason: io::Error },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "free some space there: records wait in the store until then"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "let the program write there: records wait in the store until then"
        }
        _ => "look after the disk: records wait in the store until it works again",
    }
}

/// A file that got out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub number: FileNumber,
    /// Its names, one for each format.
    pub files: Vec<String>,
}

/// The writer's own file: who it is, and what it last meant to publish.
const WRITER: &str = ".writer";
const WRITER_NEW: &str = ".writer.new";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Intent {
    writer: Uuid,
    /// 0 before the first file.
    number: FileNumber,
    files: Vec<String>,
}

/// See the module's text. Every operation blocks.
#[derive(Debug)]
pub struct Directory<F: Files = Folder> {
    files: F,
    settings: Settings,
    /// Carried out, unless something failed since.
    intent: Intent,
    is_in_doubt: bool,
    open: Option<Open<F::File>>,
}

/// The file under way, in each format.
#[derive(Debug)]
struct Open<File> {
    number: FileNumber,
    opened_at: Timestamp,
    appended_at: Timestamp,
    records: u32,
    parts: Vec<Part<File>>,
}

#[derive(Debug)]
struct Part<File> {
    format: Format,
    file: File,
    /// Not handed to the file yet.
    buffer: Vec<u8>,
    /// With what is in the buffer.
    length: u64,
}

/// Enough for some dozens of records: a call to the system for each would cost more than the record.
const BUFFER: usize = 128 * 1024;

impl Directory {
    /// Makes the directory where it is missing, locks it, and brings it to rest.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another process writes there.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, Error> {
        Self::at(&path.to_owned(), settings)?.ok_or_else(|| Error::Locked(path.to_owned()))
    }
}

impl<F: Files> Directory<F> {
    /// As [`Directory::open`]; `None` when another process writes there.
    pub fn at(place: &impl Place<Folder = F>, settings: Settings) -> Result<Option<Self>, Error> {
        let folder = attempt("opening", &place.name(), place.open())?;
        folder.map(|folder| Self::on(folder, settings)).transpose()
    }

    /// On files that nobody else writes.
    pub fn on(mut files: F, settings: Settings) -> Result<Self, Error> {
        let intent = recover(&mut files)?;
        Ok(Self { files, settings, intent, is_in_doubt: false, open: None })
    }

    /// Stays the same as long as the directory does.
    pub fn writer(&self) -> Uuid {
        self.intent.writer
    }

    /// The number of the file that records are appended to now, or will be.
    ///
    /// # Errors
    ///
    /// As [`Directory::append`].
    pub fn number(&mut self) -> Result<FileNumber, Error> {
        self.settle()?;
        Ok(FileNumber(self.intent.number.0 + 1))
    }

    /// Whether the file of that number got out.
    ///
    /// # Errors
    ///
    /// Only while it cannot be known, because something failed and does so still.
    pub fn is_published(&mut self, number: FileNumber) -> Result<bool, Error> {
        self.settle()?;
        Ok((1..=self.intent.number.0).contains(&number.0))
    }

    /// The record as it will stand in the files.
    ///
    /// # Errors
    ///
    /// Nothing has changed; no file can hold the record.
    pub fn encode(&self, record: &Record) -> Result<Encoded, TooLong> {
        Encoded::of(record, &self.settings.formats)
    }

    /// The file that got out last; `None` before the first.
    ///
    /// # Errors
    ///
    /// As [`Directory::is_published`].
    pub fn last(&mut self) -> Result<Option<Published>, Error> {
        self.settle()?;
        Ok(self.intent.published())
    }

    /// Appends a record, in each format, to the file under way, which it may open. Durable when the file is closed.
    ///
    /// # Errors
    ///
    /// Nothing of the file under way is kept: append all its records again.
    pub fn append(&mut self, now: Timestamp, record: &Encoded) -> Result<(), Error> {
        let number = self.number()?;
        let open = match self.open.take() {
            Some(open) => Ok(open),
            None => create(&mut self.files, number, &self.settings.formats, now),
        };
        let appended = open.and_then(|mut open| {
            open.append(&mut self.files, now, record)?;
            Ok(open)
        });
        self.is_in_doubt = appended.is_err();
        self.open = Some(appended?);
        Ok(())
    }

    /// Throws away the file under way: its records are somebody else's, or are to be appended afresh.
    ///
    /// # Errors
    ///
    /// The file is not kept all the same.
    pub fn abandon(&mut self) -> Result<(), Error> {
        self.is_in_doubt |= self.open.is_some();
        self.settle()
    }

    /// Records in the file under way.
    pub fn records(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| open.records)
    }

    /// Octets of the file under way, in its longest format.
    pub fn octets(&self) -> u64 {
        self.open.iter().flat_map(|open| &open.parts).map(|part| part.length).max().unwrap_or(0)
    }

    /// Whether the file under way should be closed now, and why.
    pub fn is_full(&self, now: Timestamp) -> Option<Closure> {
        let open = self.open.as_ref()?;
        if open.records >= self.settings.records_max {
            Some(Closure::Records)
        } else if self.octets() >= self.settings.bytes_max {
            Some(Closure::Size)
        } else if now >= open.opened_at.after(self.settings.lives_for) {
            Some(Closure::Age)
        } else {
            None
        }
    }

    /// Makes the file under way durable under its hidden name, so that little is left that can fail in
    /// [`Directory::close`]: whoever announces in between that a file will get out had better be right.
    ///
    /// # Errors
    ///
    /// As [`Directory::append`].
    pub fn seal(&mut self, closure: Closure) -> Result<(), Error> {
        self.settle()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        let finished = open.finish(&mut self.files, closure);
        self.is_in_doubt = finished.is_err();
        finished
    }

    /// Publishes the file under way; `None` when there is none, because nothing was appended.
    ///
    /// # Errors
    ///
    /// Ask [`Directory::is_published`] whether it got out all the same. If not, append all its records again.
    pub fn close(&mut self, now: Timestamp, closure: Closure) -> Result<Option<Published>, Error> {
        self.settle()?;
        let Some(open) = self.open.take() else { return Ok(None) };
        self.is_in_doubt = true;
        self.intent = self.publish(open, now, closure)?;
        self.is_in_doubt = false;
        Ok(self.intent.published())
    }

    fn publish(&mut self, mut open: Open<F::File>, now: Timestamp, closure: Closure) -> Result<Intent, Error> {
        open.finish(&mut self.files, closure)?;
        let name =
            |part: &Part<_>| ts32297::file_name(&self.settings.node_id, open.number, now, part.format.extension());
        let intent =
            Intent { writer: self.intent.writer, number: open.number, files: open.parts.iter().map(name).collect() };
        let names = attempt("listing", "the directory of records", self.files.names())?;
        if let Some(occupied) = intent.files.iter().find(|name| names.contains(name)) {
            return Err(Error::Occupied(occupied.clone()));
        }
        sync_names(&mut self.files)?;
        intend(&mut self.files, &intent)?;
        // From here on it will be published, now or by the next recovery.
        for part in &open.parts {
            give_name(&mut self.files, &intent, part.format)?;
        }
        sync_names(&mut self.files)?;
        Ok(intent)
    }

    /// After an error: finds out where things stand, as after a crash.
    fn settle(&mut self) -> Result<(), Error> {
        if self.is_in_doubt {
            self.open = None;
            self.intent = recover(&mut self.files)?;
            self.is_in_doubt = false;
        }
        Ok(())
    }
}

fn create<F: Files>(
    files: &mut F,
    number: FileNumber,
    formats: &[Format],
    now: Timestamp,
) -> Result<Open<F::File>, Error> {
    let mut parts = Vec::with_capacity(formats.len());
    for format in formats {
        let name = hidden_name(number, *format);
        let file = attempt("creating", &name, files.create(&name))?;
        // The place of a header is kept until it can be written.
        let buffer = if *format == Format::Ber { vec![0; FILE_HEADER_LENGTH] } else { Vec::new() };
        let length = buffer.len() as u64;
        parts.push(Part { format: *format, file, buffer, length });
    }
    Ok(Open { number, opened_at: now, appended_at: now, records: 0, parts })
}

impl<File> Open<File> {
    fn append<F: Files<File = File>>(&mut self, files: &mut F, now: Timestamp, record: &Encoded) -> Result<(), Error> {
        for part in &mut self.parts {
            let before = part.buffer.len();
            record.write_to(part.format, &mut part.buffer);
            part.length += (part.buffer.len() - before) as u64;
            if part.buffer.len() >= BUFFER {
                part.flush(files, self.number)?;
            }
        }
        self.records += 1;
        self.appended_at = now;
        Ok(())
    }

    /// All of it durable, but for the names.
    fn finish<F: Files<File = File>>(&mut self, files: &mut F, closure: Closure) -> Result<(), Error> {
        for part in &mut self.parts {
            part.flush(files, self.number)?;
            let name = hidden_name(self.number, part.format);
            if part.format == Format::Ber {
                let header = FileHeader {
                    length: part.length,
                    opened_at: self.opened_at,
                    appended_at: self.appended_at,
                    records: self.records,
                    number: self.number,
                    closure,
                };
                attempt("writing", &name, files.overwrite(&mut part.file, &header.octets()))?;
            }
            attempt("syncing", &name, files.sync(&mut part.file))?;
        }
        Ok(())
    }
}

impl<File> Part<File> {
    fn flush<F: Files<File = File>>(&mut self, files: &mut F, number: FileNumber) -> Result<(), Error> {
        let name = hidden_name(number, self.format);
        attempt("writing", &name, files.write(&mut self.file, &self.buffer))?;
        self.buffer.clear();
        Ok(())
    }
}

/// Brings the directory to rest by the rules of the module's text, and says what was published last.
fn recover<F: Files>(files: &mut F) -> Result<Intent, Error> {
    let intent = match attempt("reading", WRITER, files.read(WRITER))? {
        Some(bytes) => serde_json::from_slice(&bytes)
            .ok()
            .filter(Intent::is_sound)
            .ok_or_else(|| Error::Damaged { found: String::from_utf8_lossy(&bytes).into_owned() })?,
        None => {
            let first = Intent { writer: files.new_name(), number: FileNumber(0), files: Vec::new() };
            intend(files, &first)?;
            first
        }
    };
    // A process that ended may have left the intent visible and not yet durable.
    sync_names(files)?;
    for name in attempt("listing", "the directory of records", files.names())? {
        match hidden(&name) {
            Some((number, format)) if number == intent.number && intent.file(format).is_some() => {
                give_name(files, &intent, format)?;
            }
            Some(_) => attempt("removing", &name, files.remove(&name))?,
            None if name == WRITER_NEW => attempt("removing", &name, files.remove(&name))?,
            None => {}
        }
    }
    sync_names(files)?;
    Ok(intent)
}

impl Intent {
    /// Whether a writer can have meant it: another number follows, and the names are of files that mediation sees here.
    fn is_sound(&self) -> bool {
        let is_visible = |name: &String| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        self.number < FileNumber(u32::MAX) && self.files.iter().all(is_visible)
    }

    fn published(&self) -> Option<Published> {
        (self.number > FileNumber(0)).then(|| Published { number: self.number, files: self.files.clone() })
    }

    fn file(&self, format: Format) -> Option<&String> {
        let is_of =
            |name: &&String| name.rsplit_once('.').is_some_and(|(_, extension)| extension == format.extension());
        self.files.iter().find(is_of)
    }
}

/// Replaces the writer's file, durably.
fn intend<F: Files>(files: &mut F, intent: &Intent) -> Result<(), Error> {
    let bytes = serde_json::to_vec(intent).expect("numbers and texts have a form in JSON");
    let mut file = attempt("creating", WRITER_NEW, files.create(WRITER_NEW))?;
    attempt("writing", WRITER_NEW, files.write(&mut file, &bytes))?;
    attempt("syncing", WRITER_NEW, files.sync(&mut file))?;
    attempt("renaming", WRITER_NEW, files.rename(WRITER_NEW, WRITER))?;
    sync_names(files)
}

fn give_name<F: Files>(files: &mut F, intent: &Intent, format: Format) -> Result<(), Error> {
    let hidden = hidden_name(intent.number, format);
    let name = intent.file(format).unwrap_or(&hidden);
    attempt("renaming", &hidden, files.rename(&hidden, name))
}

fn sync_names<F: Files>(files: &mut F) -> Result<(), Error> {
    attempt("syncing", "the directory of records", files.sync_names())
}

fn attempt<T>(doing: &'static str, what: &str, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|reason| Error::Io { doing, what: what.to_owned(), reason })
}

fn hidden_name(number: FileNumber, format: Format) -> String {
    format!(".{number}.{}.open", format.extension())
}

fn hidden(name: &str) -> Option<(FileNumber, Format)> {
    let (number, extension) = name.strip_prefix('.')?.strip_suffix(".open")?.split_once('.')?;
    let format = Format::ALL.into_iter().find(|format| format.extension() == extension)?;
    let number = FileNumber(number.parse().ok()?);
    // Other spellings of the number are nobody's of ours.
    (hidden_name(number, format) == name).then_some((number, format))
}
