//! Records in files, beside those that the journals tell of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::files::Line;
use super::numbers::Numbers;
use super::report::{Report, Rule, Subject};
use super::session::{Closed, Records};
use super::sum::Sum;
use crate::charging::ids::ChargingDataRef;
use crate::charging::time::Timestamp;
use crate::store::{AccountKey, RefCodec};

/// What was seen in files, while they are read.
pub struct Seen<'a> {
    refs: &'a RefCodec,
    ended_before: Timestamp,
    /// What the journals tell.
    sessions: &'a HashMap<ChargingDataRef, Records>,
    /// How often each of their records was in a file.
    times: HashMap<&'a ChargingDataRef, Vec<u32>>,
    numbers: BTreeMap<Box<str>, Numbers>,
    /// By account, records whose journals have ended.
    pub ended: HashMap<AccountKey, Ended>,
    /// Session and part of those.
    once: HashSet<(ChargingDataRef, u32)>,
    /// Records that no journal tells of, as far as it was read. It may have grown since.
    pub strangers: Vec<(String, Line)>,
}

/// The records of one account whose journals have ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    pub charged: i128,
    pub records: u64,
}

impl<'a> Seen<'a> {
    pub fn new(refs: &'a RefCodec, ended_before: Timestamp, sessions: &'a HashMap<ChargingDataRef, Records>) -> Self {
        Self {
            refs,
            ended_before,
            sessions,
            times: HashMap::new(),
            numbers: BTreeMap::new(),
            ended: HashMap::new(),
            once: HashSet::new(),
            strangers: Vec::new(),
        }
    }

    pub fn take(&mut self, path: &Path, line: Line, report: &mut Report) {
        report.counts.records += 1;
        let file = path.display().to_string();
        match line.number {
            Some(number) => {
                let numbers = self.numbers.entry(line.recording_nf.clone()).or_default();
                if !numbers.insert(number) {
                    let of = format!("records with number {number}, the last of them in {file}");
                    let subject = Subject::RecordingNf(line.recording_nf.to_string());
                    report.violated(Rule::Sequence, subject, of, 1, "more");
                }
            }
            None => {
                let of = format!("the number of record {}-{}", line.session, line.part);
                report.violated(Rule::Sequence, Subject::File(file.clone()), of, "one", "none");
            }
        }
        match self.sessions.get_key_value(&line.session) {
            Some((session, Records::Known(closed))) => {
                match usize::try_from(line.part).ok().and_then(|at| closed.get(at)) {
                    Some(expected) => {
                        compare(expected, &line, report);
                        let times = self.times.entry(session).or_insert_with(|| vec![0; closed.len()]);
                        if let Some(times) = usize::try_from(line.part).ok().and_then(|at| times.get_mut(at)) {
                            *times += 1;
                            if *times > 1 {
                                repeated(&line, &file, report);
                            }
                        }
                    }
                    None => self.strangers.push((file, line)),
                }
            }
            Some((_, Records::Unread)) => {}
            Some((_, Records::Ended)) => self.take_ended(&file, line, report),
            None => match self.refs.account_of(line.session.as_str()) {
                None => {
                    let of = format!("the session of a record in {file}");
                    let subject = Subject::Session(line.session.to_string());
                    report.violated(Rule::Record, subject, of, "one of this store", "one that was not made here");
                }
                // Its journal must be there; perhaps it was opened after its account was looked at.
                Some(_) if line.closed_at.is_some_and(|at| at > self.ended_before) => self.strangers.push((file, line)),
                Some(_) => self.take_ended(&file, line, report),
            },
        }
    }

    fn take_ended(&mut self, file: &str, line: Line, report: &mut Report) {
        let Some(account) = self.refs.account_of(line.session.as_str()) else { return };
        if !self.once.insert((line.session.clone(), line.part)) {
            return repeated(&line, file, report);
        }
        let ended = self.ended.entry(account).or_default();
        ended.charged += i128::from(line.charged);
        ended.records += 1;
    }

    /// What can be said when all files have been read.
    pub fn finish(&self, report: &mut Report) {
        for (recording_nf, numbers) in &self.numbers {
            let subject = || Subject::RecordingNf(recording_nf.to_string());
            let Some((first, last)) = numbers.bounds() else { continue };
            for (from, to) in numbers.holes() {
                let missing = if from == to { format!("no {from}") } else { format!("none from {from} to {to}") };
                let of = "the numbers of its records";
                report.violated(Rule::Sequence, subject(), of, format_args!("all from {first} to {last}"), missing);
            }
            if first > 0 {
                report.not_proven(subject(), format!("records before number {first}: they are in no file given"));
            }
        }
        let mut elsewhere = 0;
        for (session, records) in self.sessions {
            let Records::Known(closed) = records else { continue };
            for (at, record) in closed.iter().enumerate() {
                let is_seen = self.times.get(session).and_then(|times| times.get(at)).is_some_and(|times| *times > 0);
                match record.number {
                    Some(number) if !is_seen && self.must_be_given(number) => {
                        let of = format!("records {session}-{}, which its journal says was published", record.part);
                        report.violated(Rule::Record, Subject::Session(session.to_string()), of, 1, 0);
                    }
                    Some(_) if !is_seen => elsewhere += 1,
                    Some(_) | None => {}
                }
            }
        }
        if elsewhere > 0 {
            let why = format!("{elsewhere} published records: their numbers are beyond those in the files given");
            report.not_proven(Subject::Store, why);
        }
    }

    /// The journal does not tell the recording function, so where there are several, a number that one of them has seen
    /// says nothing.
    fn must_be_given(&self, number: u32) -> bool {
        let is_only = self.numbers.len() == 1;
        self.numbers.values().any(|numbers| numbers.encloses(number) && (is_only || !numbers.contains(number)))
    }
}

/// A record in a file beside what its journal says of it.
pub fn compare(expected: &Closed, line: &Line, report: &mut Report) {
    let subject = || Subject::Session(line.session.to_string());
    if expected.charged != i128::from(line.charged) {
        let of = format!("money charged in record {}, by its journal and in its file", line.part);
        let [expected, found] = [expected.charged, i128::from(line.charged)].map(Sum::money);
        report.violated(Rule::Charged, subject(), of, expected, found);
    }
    if u32::from(expected.cause) != line.cause {
        let of = format!("the cause for closing record {}, by its journal and in its file", line.part);
        report.violated(Rule::Record, subject(), of, expected.cause, line.cause);
    }
    if let (Some(expected), Some(found)) = (expected.number, line.number)
        && expected != found
    {
        let of = format!("the number of record {}, by its journal and in its file", line.part);
        report.violated(Rule::Record, subject(), of, expected, found);
    }
}

pub fn unknown(file: &str, line: &Line, report: &mut Report) {
    let of = format!("closed records in its journal that record {} in {file} is one of", line.part);
    report.violated(Rule::Record, Subject::Session(line.session.to_string()), of, 1, 0);
}

fn repeated(line: &Line, file: &str, report: &mut Report) {
    let of = format!("times that record {} is in files, the last time in {file}", line.part);
    report.violated(Rule::Record, Subject::Session(line.session.to_string()), of, 1, "more");
}
