//! Crashes and failures at every operation on files: published files together hold every record once, in order, and
//! their numbers have no gap.
//!
//! The file system is simulated. An exporter plays its part of the contract and is restarted until all records are out.

use std::collections::BTreeMap;
use std::io;

use nchf::cdr_file::Format;
use nchf::cdr_file::directory::{Directory, Error, FileNumber};
use nchf::cdr_file::ts32297::{Closure, FILE_HEADER_LENGTH};
use nchf::charging::time::Timestamp;
use serde_json::Value;

use super::{cdr, record, settings};
use crate::support::disk::{Fault, Held, Loss, Shared};

const RECORDS: u32 = 5;
/// Records of a file.
const BATCH: u32 = 2;

/// What the exporter keeps in the store: how far records are out, and which of them the file of a number will hold.
#[derive(Default)]
struct Exporter {
    out: u32,
    batch: Option<(FileNumber, u32)>,
    attempts: u32,
}

impl Exporter {
    /// Until all records are out, or the machine is down.
    fn run(&mut self, files: &Shared) {
        let formats = [Format::Jsonl, Format::Ber];
        let mut directory = None;
        while self.out < RECORDS && !files.disk().is_down {
            self.attempts += 1;
            assert!(self.attempts < 50, "no end in sight");
            let directory = match &mut directory {
                Some(directory) => directory,
                none => match Directory::on(files.hold(), settings(&formats)) {
                    Ok(opened) => none.insert(opened),
                    Err(_) => continue,
                },
            };
            let _ = self.batch(directory);
        }
    }

    fn batch(&mut self, directory: &mut Directory<Held>) -> Result<(), Error> {
        if let Some((number, last)) = self.batch {
            if directory.is_published(number)? {
                self.out = last;
            }
            self.batch = None;
            return Ok(());
        }
        let now = Timestamp::from_secs(1_768_474_800);
        let number = directory.number()?;
        let last = RECORDS.min(self.out + BATCH);
        for sequence in self.out + 1..=last {
            let cdr = cdr();
            let numbered = nchf::cdr_file::Record { local_sequence_number: Some(sequence), ..record(&cdr) };
            directory.append(now, &directory.encode(&numbered).unwrap())?;
        }
        directory.seal(Closure::Normal)?;
        self.batch = Some((number, last));
        let published = directory.close(now, Closure::Normal)?;
        assert_eq!(published.map(|published| published.number), Some(number));
        self.batch = None;
        self.out = last;
        Ok(())
    }
}

/// All of it: `fault` at one operation, restarts until everything is out, and then the count.
fn check(fault: Option<(usize, Fault)>, second: Option<usize>, [loss, then]: [Loss; 2], collects: bool) -> usize {
    let files = Shared::default();
    files.disk().fault = fault;
    let mut exporter = Exporter::default();
    let mut restarts = 0;
    while exporter.out < RECORDS {
        exporter.run(&files);
        let disk = &mut *files.disk();
        if disk.is_down {
            restarts += 1;
            assert!(restarts < 4);
            // What a killed process left behind may be lost when the power fails later.
            disk.restart(if restarts == 1 { loss } else { then });
            let again = second.filter(|_| restarts == 1);
            disk.fault = again.map(|after| (disk.operations + after, Fault::Crash { effective: after % 2 == 0 }));
        }
        if collects {
            disk.collect();
        }
    }
    let disk = &mut *files.disk();
    let operations = disk.operations;
    // What is published is published, even if the power fails now.
    disk.restart(Loss::Everything);
    disk.collect();
    holds_every_record_once(&disk.collected);
    operations
}

fn holds_every_record_once(files: &BTreeMap<String, Vec<u8>>) {
    let mut lines = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for (name, bytes) in files {
        let number: u32 = name.split(['_', '.']).find_map(|part| part.parse().ok()).unwrap();
        if name.ends_with(".jsonl") {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let sequence = |line: &str| -> u64 {
                serde_json::from_str::<Value>(line).unwrap()["localRecordSequenceNumber"].as_u64().unwrap()
            };
            lines.insert(number, text.lines().map(sequence).collect::<Vec<_>>());
        } else {
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(word(0) as usize, bytes.len(), "{name}");
            assert_eq!(word(22), number, "{name}");
            let mut rest = &bytes[FILE_HEADER_LENGTH..];
            let mut records = 0;
            while let [high, low, _, _, _, after @ ..] = rest {
                rest = &after[usize::from(u16::from_be_bytes([*high, *low]))..];
                records += 1;
            }
            assert!(rest.is_empty() && records == word(18), "{name}");
            counts.insert(number, records as usize);
        }
    }
    let all: Vec<u64> = lines.values().flatten().copied().collect();
    assert_eq!(all, (1..=u64::from(RECORDS)).collect::<Vec<_>>());
    assert_eq!(lines.keys().copied().collect::<Vec<_>>(), (1..=lines.len() as u32).collect::<Vec<_>>());
    assert_eq!(lines.into_iter().map(|(number, of)| (number, of.len())).collect::<BTreeMap<_, _>>(), counts);
}

const LOSSES: [Loss; 6] = [Loss::Nothing, Loss::Everything, Loss::Some(1), Loss::Some(2), Loss::Some(3), Loss::Some(4)];

#[test]
fn a_crash_at_any_operation_loses_no_record_and_repeats_none() {
    let operations = check(None, None, [Loss::Nothing; 2], false);
    assert!(operations > 60, "{operations}");
    for at in 0..operations {
        for loss in LOSSES {
            for effective in [false, true] {
                check(Some((at, Fault::Crash { effective })), None, [loss; 2], false);
            }
        }
    }
}

#[test]
fn a_crash_while_recovering_from_a_crash_changes_nothing_either() {
    let operations = check(None, None, [Loss::Nothing; 2], false);
    for at in 0..operations {
        for after in 0..12 {
            for loss in LOSSES {
                let crash = Some((at, Fault::Crash { effective: after % 3 == 0 }));
                check(crash, Some(after), [loss; 2], false);
                check(crash, Some(after), [Loss::Nothing, loss], false);
            }
        }
    }
}

#[test]
fn what_mediation_has_collected_is_not_published_again() {
    let operations = check(None, None, [Loss::Nothing; 2], true);
    for at in 0..operations {
        for loss in LOSSES {
            check(Some((at, Fault::Crash { effective: true })), None, [loss; 2], true);
        }
    }
}

#[test]
fn an_operation_that_fails_leaves_everything_to_be_done_again() {
    let operations = check(None, None, [Loss::Nothing; 2], false);
    for at in 0..operations {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other, io::ErrorKind::PermissionDenied] {
            check(Some((at, Fault::Fails(kind))), None, [Loss::Nothing; 2], at % 2 == 0);
        }
    }
}
