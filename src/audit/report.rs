//! What an audit found, and how it is told: a line for each violation, then what could not be proven, then a summary.

use std::fmt;

use serde::Serialize;

/// What must hold. The name stands at the beginning of each violation's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Every document, journal entry, file and record can be read.
    Unreadable,
    /// A journal begins with its session's opening, and its entries follow each other as the account's versions do.
    Journal,
    /// Credits less debits are what a balance holds: its moves lead from zero to its amount, each from where the one
    /// before has left it.
    Amount,
    /// What a balance shows as reserved is what the grants of the open sessions hold, and what was reserved is still
    /// held, given back, or debited.
    Reserved,
    /// What records and sessions say was charged is what was debited.
    Charged,
    /// A closed session has one closing record, an open one has none, and late usage has records of its own.
    Closing,
    /// Every open session has a timer entry that is not too late, and nothing else has one.
    Timer,
    /// Every open session is listed as open, and every closed one as closed as long as its journal is kept.
    Listing,
    /// Every closed record is in one file, once, or waits for one; and every record in a file closed in a journal.
    Record,
    /// The numbers of the records of one recording network function have neither holes nor repetitions.
    Sequence,
    /// A file holds what its header says, and its formats hold the same.
    File,
}

impl Rule {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Journal => "journal",
            Self::Amount => "amount",
            Self::Reserved => "reserved",
            Self::Charged => "charged",
            Self::Closing => "closing",
            Self::Timer => "timer",
            Self::Listing => "listing",
            Self::Record => "record",
            Self::Sequence => "sequence",
            Self::File => "file",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The operator's name of it; its key where no document tells the name.
    Account(String),
    /// A `ChargingDataRef`.
    Session(String),
    File(String),
    Directory(String),
    /// A recording network function, by its instance id.
    RecordingNf(String),
    Store,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(name) => write!(f, "account {name}"),
            Self::Session(reference) => write!(f, "session {reference}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Directory(path) => write!(f, "directory {path}"),
            Self::RecordingNf(id) => write!(f, "recording function {id}"),
            Self::Store => f.write_str("the store"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub rule: Rule,
    pub subject: Subject,
    /// What the two figures are of.
    pub of: String,
    pub expected: String,
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, subject, of, expected, found } = self;
        write!(f, "{}: {subject}: {of}: expected {expected}, found {found}", rule.as_str())
    }
}

/// Something that neither holds nor fails, for all that can be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unproven {
    pub subject: Subject,
    pub why: String,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not proven: {}: {}", self.subject, self.why)
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub accounts: u64,
    pub sessions: u64,
    pub entries: u64,
    pub files: u64,
    pub records: u64,
    pub violations: u64,
    pub unproven: u64,
}

/// Findings told one by one; what is beyond is counted. A store whose every account is wrong has one cause, not a
/// million.
const TOLD_MAX: usize = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub violations: Vec<Violation>,
    pub unproven: Vec<Unproven>,
    pub counts: Counts,
}

impl Report {
    pub fn holds(&self) -> bool {
        self.counts.violations == 0
    }

    pub(super) fn violated(
        &mut self,
        rule: Rule,
        subject: Subject,
        of: impl Into<String>,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) {
        self.counts.violations += 1;
        if self.violations.len() < TOLD_MAX {
            let (expected, found) = (expected.to_string(), found.to_string());
            self.violations.push(Violation { rule, subject, of: of.into(), expected, found });
        }
    }

    pub(super) fn unreadable(&mut self, subject: Subject, what: &str, error: impl fmt::Display) {
        self.violated(Rule::Unreadable, subject, what, "something that can be read", error);
    }

    pub(super) fn not_proven(&mut self, subject: Subject, why: impl Into<String>) {
        self.counts.unproven += 1;
        if self.unproven.len() < TOLD_MAX {
            self.unproven.push(Unproven { subject, why: why.into() });
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self { violations, unproven, counts } = other;
        let room = |told: usize| TOLD_MAX.saturating_sub(told);
        self.violations.extend(violations.into_iter().take(room(self.violations.len())));
        self.unproven.extend(unproven.into_iter().take(room(self.unproven.len())));
        self.counts.accounts += counts.accounts;
        self.counts.sessions += counts.sessions;
        self.counts.entries += counts.entries;
        self.counts.files += counts.files;
        self.counts.records += counts.records;
        self.counts.violations += counts.violations;
        self.counts.unproven += counts.unproven;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))?;
        self.unproven.iter().try_for_each(|unproven| writeln!(f, "{unproven}"))?;
        let Counts { accounts, sessions, entries, files, records, violations, unproven } = self.counts;
        writeln!(
            f,
            "looked at {accounts} accounts, {sessions} sessions, {entries} journal entries, {records} records in \
             {files} files"
        )?;
        writeln!(f, "violations: {violations}, not proven: {unproven}")
    }
}
