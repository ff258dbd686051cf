//! What is out: the files that mediation would collect.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::instance::{hidden, names};

/// Where a record was found, beside its own members.
const FILE: &str = "file";

/// Where files of one writer are taken from, and where they are taken to.
pub struct Mediation {
    from: PathBuf,
    to: tempfile::TempDir,
}

impl Mediation {
    pub fn new(from: PathBuf) -> Self {
        Self { from, to: tempfile::tempdir().unwrap() }
    }

    /// Takes the files that are out, and answers how many there have been.
    pub fn collect(&self) -> usize {
        for name in names(&self.from).iter().filter(|name| !name.starts_with('.')) {
            let to = self.to.path().join(name);
            assert!(!to.exists(), "{name} is published again");
            std::fs::rename(self.from.join(name), to).unwrap();
        }
        names(self.to.path()).len()
    }

    /// All records of all files there have been.
    pub fn records(&self) -> Vec<Value> {
        self.collect();
        let mut numbers = Vec::new();
        let mut records = Vec::new();
        for name in names(self.to.path()) {
            let (number, format) = parts(&name);
            assert_eq!(format, "jsonl", "{name}");
            numbers.push(number);
            let text = std::fs::read_to_string(self.to.path().join(&name)).unwrap();
            assert!(text.ends_with('\n'), "{name} is cut off");
            let file = self.from.join(&name).display().to_string();
            let read = |line: &str| {
                let mut record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}"));
                record[FILE] = json!(file);
                record
            };
            records.extend(text.lines().map(read));
        }
        numbers.sort_unstable();
        let expected: Vec<u32> = (1..=u32::try_from(numbers.len()).unwrap()).collect();
        assert_eq!(numbers, expected, "files of {} are numbered from 1 on", self.from.display());
        records
    }
}

/// Number and format in a file's name.
fn parts(name: &str) -> (u32, String) {
    let numbered = name.strip_prefix("nchf_-_").unwrap_or_else(|| panic!("{name} is not to be seen"));
    let (number, rest) = numbered.split_once('.').unwrap();
    (number.parse().unwrap(), rest.rsplit_once('.').unwrap().1.to_owned())
}

/// Nothing is left of a file that did not get out.
pub fn assert_at_rest(directory: &Path) {
    assert_eq!(hidden(directory), [".lock", ".writer"]);
}

/// Each of the sessions is in one record, and nothing else is; the numbers of each recording network function count
/// from 0 on.
pub fn assert_each_once(records: &[Value], sessions: &BTreeSet<String>) {
    let mut numbers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for record in records {
        let recording = record["recordingNetworkFunctionID"].as_str().unwrap();
        numbers.entry(recording).or_default().push(record["localRecordSequenceNumber"].as_u64().unwrap());
        let place = format!("{} in {}", record["localRecordSequenceNumber"], record[FILE]);
        found.entry(record["ref"].as_str().unwrap()).or_default().push(place);
    }
    let more_than_once: Vec<_> = found.iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(more_than_once.is_empty(), "{} more than once: {more_than_once:#?}", more_than_once.len());
    let missing: Vec<_> = sessions.iter().filter(|session| !found.contains_key(session.as_str())).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), sessions.len());
    assert_eq!(found.len(), sessions.len(), "nobody knows the others");
    for (recording, mut numbers) in numbers {
        numbers.sort_unstable();
        let gap = numbers.iter().zip(0..).find(|(number, expected)| *number != expected);
        assert_eq!(gap, None, "{recording} has a gap, or a number twice");
    }
}
