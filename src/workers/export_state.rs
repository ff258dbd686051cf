//! Which records are on their way into which file: one document in the store, changed by compare-and-set only, so that
//! all exporters agree in one order.
//!
//! A closed record waits in its partition's outbox. An exporter takes the next ones of a partition into its open file
//! and gets numbers for them in the same step, so `localRecordSequenceNumber` has no gaps and no record is in two
//! files. A file is announced as being published before it gets its final name; from then on nobody may take it over,
//! because it may be out. Until then anybody may, when its writer is gone: a writer that wakes up late finds its file
//! gone when it announces it, and throws its bytes away.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::{OutboxId, Partition};

/// The whole state. Small: files that are under way, not records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportState {
    /// The next number of each recording NF (TS 32.298 `localRecordSequenceNumber`), by its instance id.
    next: BTreeMap<Box<str>, u32>,
    /// The last entry of each partition that is in some file. Ids of different stores sort differently, so the order
    /// of taking is kept and nothing is compared.
    taken: BTreeMap<u16, OutboxId>,
    files: Vec<File>,
    /// Files that were forgotten, and what was taken with them: who looked before that cannot tell any more whether what
    /// it saw is still to be taken.
    #[serde(default)]
    forgotten: u64,
}

/// A file that is not yet wholly acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub writer: Uuid,
    /// Of the writer's directory.
    pub number: u32,
    pub stage: Stage,
    pub recording_nf: Box<str>,
    /// In the order in which they were taken, which is the order of their numbers and of the records in the file.
    pub segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Records may come in; nothing of it is visible.
    #[serde(rename = "o")]
    Open,
    /// Complete and about to get its final name; only its writer knows whether it has.
    #[serde(rename = "p")]
    Publishing,
    /// Out. What is left is to acknowledge its entries.
    #[serde(rename = "d")]
    Published,
}

/// Outbox entries of one partition, and the numbers of their records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub partition: u16,
    /// The entry before the first one; `None` for the oldest.
    pub after: Option<OutboxId>,
    /// The last entry.
    pub upto: OutboxId,
    pub first_number: u32,
    pub records: u32,
}

/// Entries of one partition to be taken.
#[derive(Clone, Debug)]
pub struct Taken {
    pub partition: Partition,
    pub after: Option<OutboxId>,
    pub upto: OutboxId,
    pub records: u32,
}

impl ExportState {
    /// The last entry of a partition that is in a file already.
    pub fn taken_upto(&self, partition: Partition) -> Option<&OutboxId> {
        self.taken.get(&partition.0)
    }

    /// Puts entries into the writer's open file. Answers the segments with their numbers; `None`, and nothing changes,
    /// when entries of a partition have been taken by somebody else since they were read, or the file is not open.
    pub fn take(&mut self, writer: Uuid, number: u32, recording_nf: &str, taken: &[Taken]) -> Option<Vec<Segment>> {
        if taken.iter().any(|one| self.taken_upto(one.partition) != one.after.as_ref()) {
            return None;
        }
        if self.file(writer, number).is_some_and(|file| file.stage != Stage::Open) {
            return None;
        }
        let next = self.next.entry(recording_nf.into()).or_default();
        let mut segments = Vec::with_capacity(taken.len());
        for one in taken {
            segments.push(Segment {
                partition: one.partition.0,
                after: one.after.clone(),
                upto: one.upto.clone(),
                first_number: *next,
                records: one.records,
            });
            // TS 32.298: an integer of 32 bits, which starts again after its largest value.
            *next = next.wrapping_add(one.records);
            self.taken.insert(one.partition.0, one.upto.clone());
        }
        match self.files.iter_mut().find(|file| file.writer == writer && file.number == number) {
            Some(file) => file.segments.extend(segments.iter().cloned()),
            None => self.files.push(File {
                writer,
                number,
                stage: Stage::Open,
                recording_nf: recording_nf.into(),
                segments: segments.clone(),
            }),
        }
        Some(segments)
    }

    /// Announces that the file is about to get its final name. `false` when it is no longer this writer's.
    pub fn announce(&mut self, writer: Uuid, number: u32) -> bool {
        self.advance(writer, number, Stage::Open, Stage::Publishing)
    }

    pub fn published(&mut self, writer: Uuid, number: u32) -> bool {
        self.advance(writer, number, Stage::Publishing, Stage::Published)
    }

    fn advance(&mut self, writer: Uuid, number: u32, from: Stage, to: Stage) -> bool {
        let found = self.files.iter_mut().find(|file| file.writer == writer && file.number == number);
        let Some(file) = found.filter(|file| file.stage == from) else { return false };
        file.stage = to;
        true
    }

    /// Forgets a file whose entries are acknowledged. `false` when it was forgotten already.
    pub fn forget(&mut self, writer: Uuid, number: u32) -> bool {
        let before = self.files.len();
        self.files.retain(|file| !(file.writer == writer && file.number == number && file.stage == Stage::Published));
        let in_files: BTreeSet<u16> =
            self.files.iter().flat_map(|file| &file.segments).map(|segment| segment.partition).collect();
        self.taken.retain(|partition, _| in_files.contains(partition));
        let has_forgotten = self.files.len() < before;
        self.forgotten += u64::from(has_forgotten);
        has_forgotten
    }

    /// Grows with each file that is forgotten. Entries may be taken if this is what it was when they were read.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Gives a file that never got out to another writer's file, which must not exist yet. The numbers go with it.
    /// `false` when the file has been announced or is gone.
    pub fn hand_over(&mut self, from: (Uuid, u32), to: (Uuid, u32)) -> bool {
        if self.file(to.0, to.1).is_some() {
            return false;
        }
        let found = self.files.iter_mut().find(|file| (file.writer, file.number) == from);
        let Some(file) = found.filter(|file| file.stage == Stage::Open) else { return false };
        (file.writer, file.number) = to;
        true
    }

    pub fn file(&self, writer: Uuid, number: u32) -> Option<&File> {
        self.files.iter().find(|file| file.writer == writer && file.number == number)
    }

    pub fn files(&self) -> &[File] {
        &self.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn id(number: u32) -> OutboxId {
        OutboxId(format!("{number:04}").into())
    }

    fn taken(partition: u16, after: Option<u32>, upto: u32, records: u32) -> Taken {
        Taken { partition: Partition(partition), after: after.map(id), upto: id(upto), records }
    }

    #[test]
    fn numbers_have_no_gaps_whoever_takes_records() {
        let mut state = ExportState::default();
        let first = state.take(ONE, 1, "nf", &[taken(7, None, 3, 3), taken(9, None, 1, 1)]).unwrap();
        let second = state.take(OTHER, 1, "nf", &[taken(7, Some(3), 4, 2)]).unwrap();
        let third = state.take(ONE, 1, "another", &[taken(8, None, 1, 5)]).unwrap();
        let numbers =
            |segments: &[Segment]| segments.iter().map(|one| (one.first_number, one.records)).collect::<Vec<_>>();
        assert_eq!(numbers(&first), [(0, 3), (3, 1)]);
        assert_eq!(numbers(&second), [(4, 2)]);
        assert_eq!(numbers(&third), [(0, 5)]);
    }

    #[test]
    fn no_entry_is_taken_twice() {
        let mut state = ExportState::default();
        state.take(ONE, 1, "nf", &[taken(7, None, 3, 3)]).unwrap();
        let before = state.clone();
        assert_eq!(state.take(OTHER, 1, "nf", &[taken(8, None, 1, 1), taken(7, None, 4, 4)]), None);
        assert_eq!(state, before, "not a part of it either");
        assert!(state.take(OTHER, 1, "nf", &[taken(7, Some(3), 4, 1)]).is_some());
    }

    #[test]
    fn a_writer_that_lost_its_file_cannot_publish_it() {
        let mut state = ExportState::default();
        state.take(ONE, 1, "nf", &[taken(7, None, 3, 3)]).unwrap();
        assert!(state.hand_over((ONE, 1), (OTHER, 5)));
        assert!(!state.announce(ONE, 1));
        assert!(state.announce(OTHER, 5));
        assert_eq!(state.taken_upto(Partition(7)), Some(&id(3)));
        assert_eq!(state.file(OTHER, 5).unwrap().segments[0].first_number, 0, "the numbers went with it");
    }

    #[test]
    fn an_announced_file_stays_with_its_writer_until_it_is_acknowledged() {
        let mut state = ExportState::default();
        state.take(ONE, 1, "nf", &[taken(7, None, 3, 3)]).unwrap();
        assert!(state.announce(ONE, 1));
        assert!(!state.hand_over((ONE, 1), (OTHER, 1)));
        assert!(!state.forget(ONE, 1), "not before it is out");
        assert_eq!(state.take(ONE, 1, "nf", &[taken(7, Some(3), 4, 1)]), None, "and takes no more");
        assert!(state.published(ONE, 1));
        assert!(state.forget(ONE, 1));
        assert!(!state.forget(ONE, 1));
        assert_eq!(state.taken_upto(Partition(7)), None);
        assert_eq!(state.take(ONE, 2, "nf", &[taken(7, None, 5, 1)]).unwrap()[0].first_number, 3);
    }
}
