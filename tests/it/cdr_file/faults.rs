//! Crashes and failures at every operation on files: published files together hold every record once, in order, and
//! their numbers have no gap.
//!
//! The file system is simulated. What was not made durable is lost in a crash, wholly, partly or not at all; an exporter
//! plays its part of the contract and is restarted until all records are out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use nchf::cdr_file::Format;
use nchf::cdr_file::directory::{Directory, Error, FileNumber};
use nchf::cdr_file::files::Files;
use nchf::cdr_file::ts32297::{Closure, FILE_HEADER_LENGTH};
use nchf::charging::time::Timestamp;
use serde_json::Value;

use super::{cdr, record, settings};

const RECORDS: u32 = 5;
/// Records of a file.
const BATCH: u32 = 2;

/// What a disk and the system's memory hold.
#[derive(Clone, Default)]
struct Disk {
    names: BTreeMap<String, usize>,
    inodes: Vec<Inode>,
    /// Changes of names since they were last made durable.
    pending: Vec<Change>,
    durable_names: BTreeMap<String, usize>,
    /// Files that mediation took, as they were then.
    collected: BTreeMap<String, Vec<u8>>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    is_down: bool,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing answers from this operation on, which may still have had its effect.
    Crash { effective: bool },
    /// The one operation fails; of a write, half is done.
    Fails(io::ErrorKind),
}

/// What a crash does to what was not durable.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// The process was killed: the system still has everything.
    Nothing,
    Everything,
    /// Each change by the toss of a coin, of bytes any beginning.
    Some(u64),
}

impl Disk {
    fn restart(&mut self, loss: Loss) {
        let mut coins = match loss {
            Loss::Some(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            Loss::Nothing | Loss::Everything => 0,
        };
        let mut toss = || {
            coins ^= coins << 13;
            coins ^= coins >> 7;
            coins ^= coins << 17;
            coins
        };
        if loss != Loss::Nothing {
            let mut names = self.durable_names.clone();
            for change in std::mem::take(&mut self.pending) {
                if loss == Loss::Everything || toss() % 2 == 0 {
                    continue;
                }
                change.apply(&mut names);
            }
            for inode in &mut self.inodes {
                let kept = inode.bytes.iter().zip(&inode.durable).take_while(|(one, other)| one == other).count();
                let fresh = inode.bytes.len().max(inode.durable.len()) - kept;
                let reaches = if loss == Loss::Everything { 0 } else { toss() as usize % (fresh + 1) };
                let is_as_synced = inode.bytes == inode.durable || reaches == 0;
                inode.bytes = if is_as_synced {
                    inode.durable.clone()
                } else {
                    inode.bytes.iter().copied().take(kept + reaches).collect()
                };
                inode.durable = inode.bytes.clone();
            }
            self.durable_names = names.clone();
            self.names = names;
        }
        self.fault = None;
        self.is_down = false;
    }

    /// Mediation takes every file that has its name.
    fn collect(&mut self) {
        let visible: Vec<String> = self.names.keys().filter(|name| !name.starts_with('.')).cloned().collect();
        for name in visible {
            let bytes = self.inodes[self.names[&name]].bytes.clone();
            let before = self.collected.insert(name.clone(), bytes.clone());
            assert!(before.is_none_or(|before| before == bytes), "{name} was published twice, and differs");
            let change = Change::Unlink(name);
            change.apply(&mut self.names);
            self.pending.push(change);
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Unlink(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

/// A process's hold on the disk.
#[derive(Clone)]
struct Simulated(Rc<RefCell<Disk>>);

impl Simulated {
    /// Counts an operation and meets its fate; `effect` is told whether only half of it shall happen.
    fn operate<T>(&self, effect: impl FnOnce(&mut Disk, bool) -> T) -> io::Result<T> {
        let disk = &mut *self.0.borrow_mut();
        if disk.is_down {
            return Err(io::Error::other("the machine is down"));
        }
        let fault = disk.fault.filter(|(at, _)| *at == disk.operations).map(|(_, fault)| fault);
        disk.operations += 1;
        match fault {
            None => Ok(effect(disk, false)),
            Some(Fault::Fails(kind)) => {
                disk.fault = None;
                if kind != io::ErrorKind::PermissionDenied {
                    effect(disk, true);
                }
                Err(kind.into())
            }
            Some(Fault::Crash { effective }) => {
                disk.is_down = true;
                if effective {
                    effect(disk, false);
                }
                Err(io::Error::other("the machine went down"))
            }
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.operate(|disk, fails| {
            if !fails {
                change.apply(&mut disk.names);
                disk.pending.push(change);
            }
        })
    }
}

impl Files for Simulated {
    type File = usize;

    fn create(&mut self, name: &str) -> io::Result<usize> {
        let inode = self.operate(|disk, _| {
            disk.inodes.push(Inode::default());
            disk.inodes.len() - 1
        })?;
        self.change(Change::Link(name.to_owned(), inode))?;
        Ok(inode)
    }

    fn write(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.operate(|disk, fails| {
            let written = if fails { bytes.len() / 2 } else { bytes.len() };
            disk.inodes[*file].bytes.extend_from_slice(&bytes[..written]);
        })
    }

    fn overwrite(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.operate(|disk, fails| {
            let written = if fails { bytes.len() / 2 } else { bytes.len() };
            disk.inodes[*file].bytes[..written].copy_from_slice(&bytes[..written]);
        })
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        self.operate(|disk, fails| {
            let inode = &mut disk.inodes[*file];
            // A sync that fails may have lost what it was to keep, and the next one will not say so.
            if fails {
                inode.bytes = inode.durable.clone();
            } else {
                inode.durable = inode.bytes.clone();
            }
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        assert!(self.0.borrow().is_down || self.0.borrow().names.contains_key(from), "{from} is not there");
        self.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(Change::Unlink(name.to_owned()))
    }

    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.operate(|disk, _| disk.names.get(name).map(|inode| disk.inodes[*inode].bytes.clone()))
    }

    fn names(&mut self) -> io::Result<Vec<String>> {
        self.operate(|disk, _| disk.names.keys().cloned().collect())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.operate(|disk, fails| {
            if !fails {
                disk.pending.clear();
                disk.durable_names = disk.names.clone();
            }
        })
    }
}

/// What the exporter keeps in the store: how far records are out, and which of them the file of a number will hold.
#[derive(Default)]
struct Exporter {
    out: u32,
    batch: Option<(FileNumber, u32)>,
    attempts: u32,
}

impl Exporter {
    /// Until all records are out, or the machine is down.
    fn run(&mut self, files: &Simulated) {
        let formats = [Format::Jsonl, Format::Ber];
        let mut directory = None;
        while self.out < RECORDS && !files.0.borrow().is_down {
            self.attempts += 1;
            assert!(self.attempts < 50, "no end in sight");
            let directory = match &mut directory {
                Some(directory) => directory,
                none => match Directory::on(files.clone(), settings(&formats)) {
                    Ok(opened) => none.insert(opened),
                    Err(_) => continue,
                },
            };
            let _ = self.batch(directory);
        }
    }

    fn batch(&mut self, directory: &mut Directory<Simulated>) -> Result<(), Error> {
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
    let files = Simulated(Rc::new(RefCell::new(Disk { fault, ..Disk::default() })));
    let mut exporter = Exporter::default();
    let mut restarts = 0;
    while exporter.out < RECORDS {
        exporter.run(&files);
        let disk = &mut *files.0.borrow_mut();
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
    let disk = &mut *files.0.borrow_mut();
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
