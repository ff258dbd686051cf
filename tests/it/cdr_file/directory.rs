//! The directory on a real file system: names, locks, full disks, and a writer that is killed again and again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nchf::cdr_file::Format;
use nchf::cdr_file::directory::{Directory, Error, FileNumber, Published};
use nchf::cdr_file::ts32297::Closure;
use nchf::cdr_file::{Encoded, Record, ber};
use nchf::charging::time::{Span, Timestamp};
use serde_json::Value;

use super::{OPENED_AT, block, cdr, record, settings};

const BOTH: [Format; 2] = [Format::Jsonl, Format::Ber];

fn encoded(directory: &Directory, sequence: u32) -> Encoded {
    let cdr = cdr();
    directory.encode(&Record { local_sequence_number: Some(sequence), ..record(&cdr) }).unwrap()
}

/// Names that mediation sees, in order.
fn visible(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_when_it_is_closed_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/cdr");
    let mut directory = Directory::open(&path, settings(&BOTH)).unwrap();
    let writer = directory.writer();
    assert_eq!(directory.close(OPENED_AT, Closure::Normal).unwrap(), None);
    for sequence in 1..=2 {
        directory.append(OPENED_AT, &encoded(&directory, sequence)).unwrap();
    }
    assert!(visible(&path).is_empty() && !directory.is_published(FileNumber(1)).unwrap());
    let names = ["nchf_-_1.20260115_-_1101+0000.jsonl", "nchf_-_1.20260115_-_1101+0000.ber"];
    let published = directory.close(OPENED_AT.after(Span::from_secs(60)), Closure::Manual).unwrap().unwrap();
    assert_eq!(published, Published { number: FileNumber(1), files: names.map(str::to_owned).to_vec() });
    assert_eq!(visible(&path), [names[1], names[0]]);
    let lines = fs::read_to_string(path.join(names[0])).unwrap();
    assert_eq!(lines.lines().count(), 2);
    let octets = fs::read(path.join(names[1])).unwrap();
    assert_eq!(octets[..4], (octets.len() as u32).to_be_bytes());
    assert_eq!((&octets[18..22], octets[26]), (&[0, 0, 0, 2][..], 4));
    assert_eq!(octets[54 + 5..54 + 8], [0xbf, 0x81, 0x48]);

    drop(directory);
    let mut directory = Directory::open(&path, settings(&[Format::Jsonl])).unwrap();
    assert_eq!((directory.writer(), directory.number().unwrap()), (writer, FileNumber(2)));
    assert_eq!(directory.last().unwrap(), Some(published));
    assert!(directory.is_published(FileNumber(1)).unwrap() && !directory.is_published(FileNumber(2)).unwrap());
}

#[test]
fn a_second_writer_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let first = Directory::open(folder.path(), settings(&BOTH)).unwrap();
    let second = Directory::open(folder.path(), settings(&BOTH));
    assert!(matches!(&second, Err(Error::Locked(path)) if path == folder.path()), "{second:?}");
    drop(first);
    Directory::open(folder.path(), settings(&BOTH)).unwrap();
}

#[test]
fn a_file_is_full_by_records_by_length_or_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let mut limits = settings(&BOTH);
    limits.records_max = 3;
    limits.bytes_max = 1_000_000;
    let mut directory = Directory::open(folder.path(), limits.clone()).unwrap();
    assert_eq!(directory.is_full(Timestamp::LATEST), None);
    for (sequence, full) in [(1, None), (2, None), (3, Some(Closure::Records))] {
        directory.append(OPENED_AT, &encoded(&directory, sequence)).unwrap();
        assert_eq!(directory.is_full(OPENED_AT), full);
    }
    directory.close(OPENED_AT, Closure::Records).unwrap();
    directory.append(OPENED_AT, &encoded(&directory, 4)).unwrap();
    assert_eq!(directory.is_full(OPENED_AT.after(Span::from_millis(899_999))), None);
    assert_eq!(directory.is_full(OPENED_AT.after(Span::from_secs(900))), Some(Closure::Age));
    drop(directory);
    limits.bytes_max = 500;
    let mut directory = Directory::open(folder.path(), limits).unwrap();
    directory.append(OPENED_AT, &encoded(&directory, 4)).unwrap();
    assert_eq!(directory.is_full(OPENED_AT), Some(Closure::Size));
}

#[test]
fn a_record_that_no_file_can_hold_says_its_length_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = Directory::open(folder.path(), settings(&BOTH)).unwrap();
    let of_length = |filler: usize| {
        let mut cdr = cdr();
        cdr.blocks.push(block("tenantIdentifier", &format!("\"{}\"", "t".repeat(filler))));
        cdr
    };
    let rest = ber::encode(&record(&of_length(60_000))).len() - 60_000;
    let (longest, too_long) = (of_length(65_535 - rest), of_length(65_536 - rest));
    assert_eq!(directory.encode(&record(&too_long)).unwrap_err().octets, 65_536);
    directory.append(OPENED_AT, &directory.encode(&record(&longest)).unwrap()).unwrap();
    directory.close(OPENED_AT, Closure::Normal).unwrap();
    let octets = fs::read(folder.path().join("nchf_-_1.20260115_-_1100+0000.ber")).unwrap();
    assert_eq!((octets.len(), &octets[54..56]), (54 + 5 + 65_535, &[0xff, 0xff][..]));
}

#[test]
fn what_is_in_the_way_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = Directory::open(folder.path(), settings(&[Format::Jsonl])).unwrap();
    let name = "nchf_-_1.20260115_-_1100+0000.jsonl";
    fs::write(folder.path().join(name), "other").unwrap();
    directory.append(OPENED_AT, &encoded(&directory, 1)).unwrap();
    let error = directory.close(OPENED_AT, Closure::Normal).unwrap_err();
    assert!(error.to_string().contains(name) && error.to_string().contains("move it away"), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "other");
    fs::remove_file(folder.path().join(name)).unwrap();
    directory.append(OPENED_AT, &encoded(&directory, 1)).unwrap();
    assert_eq!(directory.close(OPENED_AT, Closure::Normal).unwrap().unwrap().number, FileNumber(1));
    drop(directory);
    fs::write(folder.path().join(".writer"), "{}").unwrap();
    let error = Directory::open(folder.path(), settings(&[Format::Jsonl])).unwrap_err();
    assert!(error.to_string().contains(".writer") && error.to_string().contains("backup"), "{error}");
}

/// A file system of one megabyte, unmounted at the end; `None` where mounting is not allowed.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(folder.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_nothing_is_lost_and_it_goes_on_when_there_is_room() {
    let Some(small) = Small::mount() else { return eprintln!("no file system can be mounted: nothing was filled") };
    let path = small.0.path().join("cdr");
    let mut directory = Directory::open(&path, settings(&BOTH)).unwrap();
    let (mut out, mut failures) = (0, 0);
    let mut collected = Vec::new();
    while out < 3000 {
        let sequence = |offset: u32| out + offset + 1;
        let write = |directory: &mut Directory| -> Result<(), Error> {
            for offset in 0..500 {
                let record = encoded(directory, sequence(offset));
                directory.append(OPENED_AT, &record)?;
            }
            directory.close(OPENED_AT, Closure::Normal).map(drop)
        };
        match write(&mut directory) {
            Ok(()) => out += 500,
            Err(error) => {
                failures += 1;
                let full = matches!(&error, Error::Io { reason, .. } if reason.kind() == io::ErrorKind::StorageFull);
                assert!(full && error.to_string().contains("free some space"), "{error}");
                // Room is made by mediation, which takes what is whole.
                for name in visible(&path) {
                    collected.push((name.clone(), fs::read(path.join(&name)).unwrap()));
                    fs::remove_file(path.join(name)).unwrap();
                }
            }
        }
    }
    assert!(failures > 0);
    collected.extend(visible(&path).into_iter().map(|name| (name.clone(), fs::read(path.join(name)).unwrap())));
    assert_eq!(sequences(collected), (1..=3000).collect::<Vec<u64>>());
}

/// Of all records in lines, in the order of their files.
fn sequences(files: Vec<(String, Vec<u8>)>) -> Vec<u64> {
    let mut by_number = BTreeMap::new();
    for (name, bytes) in files.into_iter().filter(|(name, _)| name.ends_with(".jsonl")) {
        let number: u32 = name.split(['_', '.']).find_map(|part| part.parse().ok()).unwrap();
        let sequence =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["localRecordSequenceNumber"].as_u64().unwrap();
        let lines: Vec<u64> = String::from_utf8(bytes).unwrap().lines().map(sequence).collect();
        assert!(by_number.insert(number, lines).is_none(), "{name} was published twice");
    }
    assert!(by_number.keys().copied().eq(1..=by_number.len() as u32), "{:?}", by_number.keys());
    by_number.into_values().flatten().collect()
}

/// Says in which folder the killed writer writes. Set for the child alone.
const CHILD: &str = "NCHF_TEST_CDR_CHILD";
const TOTAL: u32 = 4000;

/// The child: an exporter that keeps what it knows in a file, as the real one does in the store.
#[test]
fn writer_that_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = Path::new(&folder);
    let known = folder.join("known");
    let know = |number: u32, last: u32, out: u32| {
        fs::write(folder.join("known.new"), format!("{number} {last} {out}")).unwrap();
        fs::rename(folder.join("known.new"), &known).unwrap();
    };
    let mut directory = Directory::open(&folder.join("cdr"), settings(&BOTH)).unwrap();
    let text = fs::read_to_string(&known).unwrap_or_else(|_| "0 0 0".to_owned());
    let [number, last, mut out] =
        <[u32; 3]>::try_from(text.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<u32>>()).unwrap();
    if directory.is_published(FileNumber(number)).unwrap() {
        out = last;
    }
    while out < TOTAL {
        let last = TOTAL.min(out + 1 + out % 7);
        for sequence in out + 1..=last {
            let record = encoded(&directory, sequence);
            directory.append(OPENED_AT, &record).unwrap();
        }
        know(directory.number().unwrap().0, last, out);
        let published = directory.close(OPENED_AT, Closure::Normal).unwrap().unwrap();
        out = last;
        know(published.number.0, last, out);
    }
}

#[test]
fn a_writer_killed_at_any_moment_publishes_every_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut kills = 0;
    for round in 0u64.. {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cdr_file::directory::writer_that_is_killed"])
            .env(CHILD, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // From the very start to somewhere in the middle of the work; the last ones run to the end.
        std::thread::sleep(Duration::from_millis(if round < 40 {
            5 + round * 7 % 90
        } else {
            60_000.min(round * 100)
        }));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 5, "killed only {kills} times");
    let path = folder.path().join("cdr");
    let files = visible(&path).into_iter().map(|name| (name.clone(), fs::read(path.join(name)).unwrap())).collect();
    assert_eq!(sequences(files), (1..=u64::from(TOTAL)).collect::<Vec<u64>>());
}
