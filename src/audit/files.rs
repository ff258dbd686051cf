//! Record files, line by line: what is in a directory, and what each record says of itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ber;
use super::report::{Report, Rule, Subject};
use crate::charging::ids::ChargingDataRef;
use crate::charging::money::{Amount, BalanceUnit};
use crate::charging::time::{Span, Timestamp};

/// What an audit wants to know of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    pub session: ChargingDataRef,
    /// Its place among the session's records, from 0.
    pub part: u32,
    pub charged: i64,
    pub recording_nf: Box<str>,
    pub number: Option<u32>,
    pub cause: u32,
    /// `None` where the format does not tell it readily.
    pub closed_at: Option<Timestamp>,
}

/// Why a file, or what follows in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{0}")]
    Content(String),
    #[error("{0}")]
    Io(io::Error),
}

impl Unreadable {
    pub fn new(what: impl Into<String>) -> Self {
        Self::Content(what.into())
    }
}

impl Line {
    pub fn new(
        id: &str,
        reference: &str,
        charged: &str,
        recording_nf: &str,
        number: Option<u32>,
        cause: u32,
        closed_at: Option<Timestamp>,
    ) -> Result<Self, Unreadable> {
        let (session, part) =
            id.rsplit_once('-').ok_or_else(|| Unreadable::new(format!("{id:?} is no record's id")))?;
        let part = part.parse().map_err(|_| Unreadable::new(format!("{id:?} is no record's id")))?;
        if session != reference {
            return Err(Unreadable::new(format!("record {id} says that it is of session {reference}")));
        }
        let charged = Amount::parse(BalanceUnit::Money, charged);
        let charged = charged.ok_or_else(|| Unreadable::new(format!("record {id} charges no amount")))?.steps();
        let (session, recording_nf) = (ChargingDataRef::new(session), recording_nf.into());
        Ok(Self { session, part, charged, recording_nf, number, cause, closed_at })
    }
}

/// A record in JSON. Whatever else it holds is skipped, however it is nested.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    id: String,
    #[serde(rename = "ref")]
    reference: String,
    charged: String,
    #[serde(rename = "recordingNetworkFunctionID")]
    recording_nf: String,
    local_record_sequence_number: Option<u32>,
    cause_for_rec_closing: u32,
    record_opening_time: String,
    duration: u32,
}

fn json_line(text: &[u8]) -> Result<Line, Unreadable> {
    let json: Json = serde_json::from_slice(text).map_err(|error| Unreadable::new(error.to_string()))?;
    let opened_at: jiff::Timestamp =
        json.record_opening_time.parse().map_err(|_| Unreadable::new("its recordOpeningTime is no time"))?;
    let closed_at = Timestamp::from(opened_at).after(Span::from_secs(json.duration));
    let Json { id, reference, charged, recording_nf, local_record_sequence_number: number, .. } = &json;
    Line::new(id, reference, charged, recording_nf, *number, json.cause_for_rec_closing, Some(closed_at))
}

/// One file in each format that it is there in.
#[derive(Debug, Default)]
struct Formats {
    jsonl: Option<PathBuf>,
    ber: Option<PathBuf>,
}

/// Longer ones are no records.
const LINE_MAX: u64 = 64 * 1024 * 1024;

/// Gives each record in the files of a directory to `take`, once, with the file's path.
pub fn read_directory(
    path: &Path,
    report: &mut Report,
    mut take: impl FnMut(&Path, Line, &mut Report),
) -> io::Result<()> {
    let mut files: BTreeMap<PathBuf, Formats> = BTreeMap::new();
    for entry in path.read_dir()? {
        let file = entry?.path();
        let stem = file.with_extension("");
        let is_hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") if !is_hidden => files.entry(stem).or_default().jsonl = Some(file),
            Some("ber") if !is_hidden => files.entry(stem).or_default().ber = Some(file),
            Some(_) | None => {}
        }
    }
    for Formats { jsonl, ber } in files.into_values() {
        let mut nothing = |_: &Path, _: Line, _: &mut Report| {};
        match (jsonl, ber) {
            (Some(jsonl), Some(ber)) => {
                // The records of a file are taken once; in its other format they are only compared.
                let one = read_file(&jsonl, json_lines, report, &mut take)?;
                let other = read_file(&ber, ber_records, report, &mut nothing)?;
                if let (Some(one), Some(other)) = (one, other)
                    && one != other
                {
                    let subject = Subject::File(ber.display().to_string());
                    let of = "its records, beside those of the same file as JSON";
                    report.violated(Rule::File, subject, of, one.describe(), other.describe());
                }
            }
            (Some(jsonl), None) => {
                read_file(&jsonl, json_lines, report, &mut take)?;
            }
            (None, Some(ber)) => {
                read_file(&ber, ber_records, report, &mut take)?;
            }
            (None, None) => {}
        }
    }
    Ok(())
}

/// What tells the records of one file from those of another, whatever format they are in.
#[derive(Default, PartialEq, Eq)]
struct Digest {
    records: u64,
    hash: u64,
}

impl Digest {
    fn add(&mut self, line: &Line) {
        let mut hasher = DefaultHasher::new();
        self.hash.hash(&mut hasher);
        Line { closed_at: None, ..line.clone() }.hash(&mut hasher);
        self.hash = hasher.finish();
        self.records += 1;
    }

    fn describe(&self) -> String {
        format!("{} records with digest {:016x}", self.records, self.hash)
    }
}

type Reading =
    fn(&mut BufReader<File>, &Path, &mut Report, &mut dyn FnMut(Line, &mut Report)) -> Result<(), Unreadable>;

/// `None` when it could not be read to its end.
fn read_file(
    path: &Path,
    read: Reading,
    report: &mut Report,
    take: &mut dyn FnMut(&Path, Line, &mut Report),
) -> io::Result<Option<Digest>> {
    let subject = || Subject::File(path.display().to_string());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.not_proven(subject(), "its records: it was taken away meanwhile");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    report.counts.files += 1;
    let mut digest = Digest::default();
    let mut add = |line: Line, report: &mut Report| {
        digest.add(&line);
        take(path, line, report);
    };
    match read(&mut BufReader::with_capacity(1 << 20, file), path, report, &mut add) {
        Ok(()) => Ok(Some(digest)),
        Err(Unreadable::Io(error)) => Err(error),
        Err(error) => {
            report.unreadable(subject(), "what follows in it", error);
            Ok(None)
        }
    }
}

fn json_lines(
    reader: &mut BufReader<File>,
    path: &Path,
    report: &mut Report,
    take: &mut dyn FnMut(Line, &mut Report),
) -> Result<(), Unreadable> {
    let mut text = Vec::new();
    for at in 1u64.. {
        text.clear();
        reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut text).map_err(Unreadable::Io)?;
        match text.pop() {
            None => break,
            Some(b'\n') => {}
            Some(_) => return Err(Unreadable::new(format!("line {at} has no end"))),
        }
        match json_line(&text) {
            Ok(line) => take(line, report),
            Err(error) => report.unreadable(Subject::File(path.display().to_string()), &format!("line {at}"), error),
        }
    }
    Ok(())
}

fn ber_records(
    reader: &mut BufReader<File>,
    path: &Path,
    report: &mut Report,
    take: &mut dyn FnMut(Line, &mut Report),
) -> Result<(), Unreadable> {
    let subject = || Subject::File(path.display().to_string());
    let header = ber::header(reader)?;
    let length = reader.get_ref().metadata().map_err(Unreadable::Io)?.len();
    if let Some(expected) = header.length
        && expected != length
    {
        report.violated(Rule::File, subject(), "its length, by its header and on the disk", expected, length);
    }
    let mut records = 0;
    while let Some(octets) = ber::record(reader)? {
        records += 1;
        match ber::line(&octets) {
            Ok(line) => take(line, report),
            Err(error) => report.unreadable(subject(), &format!("record {records}"), error),
        }
    }
    if header.records != records {
        report.violated(Rule::File, subject(), "its records, by its header and one by one", header.records, records);
    }
    Ok(())
}
