//! Whether the moves of an account lead from nothing to what its balances hold.
//!
//! Each move says what its balance held before and after. Put in the order of the commits, the moves of a balance form
//! a chain: it begins at zero, each link begins where the one before ended, and the last one ends at the amount in the
//! account's document. A chain that is broken has lost a move, gained one, or changed one.
//!
//! A journal ends some time after its record is published, and then its moves are missing for a good reason. So a
//! break counts as violation only where no journal can have ended: where no version of the account is unaccounted for
//! in between, or where the move before it is younger than a journal must become. What is left is a [`Lost`], for which
//! the record files may stand in.

use std::collections::{BTreeMap, BTreeSet};

use super::reading::Reading;
use super::report::{Report, Rule, Subject};
use super::sum::Sum;
use crate::charging::ids::{BalanceId, ChargingDataRef};
use crate::charging::journal::{Entry, Event, Move, MoveKind};
use crate::charging::money::BalanceUnit;
use crate::charging::session::ClosingCause;
use crate::charging::time::Timestamp;

/// Money that moved by entries of journals that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// By how much the breaks of the chains went down, over all money of the account.
    pub debited: i128,
    pub breaks: u32,
}

/// `ended_before` is the time before which an entry must have been made for its journal to have ended.
pub fn check(reading: &Reading, ended_before: Timestamp, report: &mut Report) -> Lost {
    if reading.is_damaged {
        let subject = Subject::Account(reading.name.clone());
        report.not_proven(subject, "its balances: something that they follow from cannot be read");
        return Lost::default();
    }
    check_reserved(reading, report);
    let commits = Commits::of(reading);
    commits.check_versions(reading, report);
    let mut chains =
        Chains { commits: &commits, reading, ended_before, report, ends: BTreeMap::new(), lost: Lost::default() };
    for step in &commits.steps {
        chains.follow(step);
    }
    chains.end()
}

/// The account's commits, as far as journals tell of them.
struct Commits<'a> {
    /// In the order in which they happened.
    steps: Vec<Step<'a>>,
    /// Versions that a journal's entry stands for, and when they were written.
    known: BTreeMap<u64, Timestamp>,
    /// Entries with moves, by version.
    moved: BTreeMap<u64, Vec<(Origin<'a>, &'a Entry)>>,
}

/// A move, and where it was found.
struct Step<'a> {
    version: u64,
    origin: Origin<'a>,
    change: &'a Move,
}

/// The session whose journal it is; `None` for the account's own.
type Origin<'a> = Option<&'a ChargingDataRef>;

impl<'a> Commits<'a> {
    fn of(reading: &'a Reading) -> Self {
        let mut commits = Self { steps: Vec::new(), known: BTreeMap::new(), moved: BTreeMap::new() };
        let own = reading.journal.iter().map(|entry| (None, entry));
        let of_sessions = (reading.sessions.iter())
            .flat_map(|session| session.journal.iter().map(|entry| (Some(&session.reference), entry)));
        let mut ranked = Vec::new();
        for (origin, entry) in own.chain(of_sessions) {
            // Other entries may stand for a commit that has left the account as it was.
            if !entry.moves.is_empty() || always_writes_the_account(&entry.event) {
                commits.known.insert(entry.account_version, entry.at);
            }
            if !entry.moves.is_empty() {
                commits.moved.entry(entry.account_version).or_default().push((origin, entry));
            }
            let opens = matches!(entry.event, Event::Opened { .. });
            let first = entry.moves.iter().take_while(|change| takes_what_has_expired(change)).count();
            for (at, change) in entry.moves.iter().enumerate() {
                // Where one commit wrote two journals: first the balances that had expired, which stands with the
                // session that opens; then the closing of the old session; then the rest.
                let rank = match opens {
                    true if at < first => 0,
                    true => 2,
                    false => 1,
                };
                ranked.push((rank, Step { version: entry.account_version, origin, change }));
            }
        }
        ranked.sort_by_key(|(rank, step)| (step.version, *rank));
        commits.steps = ranked.into_iter().map(|(_, step)| step).collect();
        commits
    }

    fn check_versions(&self, reading: &Reading, report: &mut Report) {
        let written = reading.version.0;
        for (version, entries) in &self.moved {
            let subject = || subject_of(entries.first().and_then(|(origin, _)| *origin), reading);
            if *version > written {
                let of = "the account's version in an entry with moves";
                report.violated(Rule::Journal, subject(), of, format_args!("at most {written}"), version);
            }
            let is_superseding = match entries.as_slice() {
                [(_, one), (_, other)] => {
                    is_superseded(&one.event, &other.event) || is_superseded(&other.event, &one.event)
                }
                _ => false,
            };
            if entries.len() > 1 && !is_superseding {
                let of = format!("entries with moves for version {version} of account {}", reading.name);
                report.violated(Rule::Journal, subject(), of, 1, entries.len());
            }
        }
    }

    /// Whether a journal that has ended may hold moves of a version between two others, both left out.
    fn may_be_lost(&self, after: u64, before: u64, ended_before: Timestamp) -> bool {
        let last_before = self.known.range(..=after).next_back();
        let mut written_at = last_before.map_or(Timestamp::default(), |(_, at)| *at);
        let mut expected = after.saturating_add(1);
        for (version, at) in self.known.range(expected..before.max(expected)) {
            if *version > expected {
                break;
            }
            written_at = *at;
            expected = version.saturating_add(1);
        }
        expected < before && written_at <= ended_before
    }
}

fn always_writes_the_account(event: &Event) -> bool {
    match event {
        Event::Opened { header, .. } => header.account.is_some(),
        Event::Credited { .. } => true,
        Event::Updated(_)
        | Event::Released(_)
        | Event::Late { .. }
        | Event::Closed(_)
        | Event::Maintained { .. }
        | Event::Published(_) => false,
    }
}

fn is_superseded(old: &Event, new: &Event) -> bool {
    matches!(old, Event::Closed(ClosingCause::Superseded)) && matches!(new, Event::Opened { .. })
}

/// Of a balance; what expires of a reservation names its rating group.
fn takes_what_has_expired(change: &Move) -> bool {
    change.kind == MoveKind::Expire && change.rating_group.is_none()
}

fn subject_of(origin: Origin<'_>, reading: &Reading) -> Subject {
    match origin {
        Some(reference) => Subject::Session(reference.to_string()),
        None => Subject::Account(reading.name.clone()),
    }
}

/// The chains while they are followed.
struct Chains<'a> {
    commits: &'a Commits<'a>,
    reading: &'a Reading,
    ended_before: Timestamp,
    report: &'a mut Report,
    ends: BTreeMap<&'a BalanceId, End>,
    lost: Lost,
}

/// Where the chain of a balance has got to.
#[derive(Clone, Copy)]
struct End {
    held: Sum,
    version: u64,
}

impl<'a> Chains<'a> {
    fn follow(&mut self, step: &Step<'a>) {
        let Move { kind, balance, unit, amount, before, after, .. } = step.change;
        let [amount, before, after] = [amount, before, after].map(|steps| Sum::of(*steps, *unit));
        let leads_to = match kind {
            MoveKind::Credit => before.steps + amount.steps,
            MoveKind::Debit => before.steps - amount.steps,
            MoveKind::Expire if takes_what_has_expired(step.change) => before.steps - amount.steps,
            MoveKind::Reserve | MoveKind::Release | MoveKind::Expire => before.steps,
            MoveKind::Adjust if after.steps < before.steps => before.steps - amount.steps,
            MoveKind::Adjust => before.steps + amount.steps,
        };
        if leads_to != after.steps || amount.steps < 0 {
            let of = format!("balance {balance} after a {} of {amount} at version {}", kind.as_str(), step.version);
            let expected = Sum { steps: leads_to, unit: *unit };
            self.report.violated(Rule::Amount, subject_of(step.origin, self.reading), of, expected, after);
        }
        let end = self.ends.get(balance).copied().unwrap_or(End { held: Sum { steps: 0, unit: *unit }, version: 0 });
        if end.held.steps != before.steps {
            let from = step.origin.map_or_else(String::new, |reference| format!(" of session {reference}"));
            let of = format!("balance {balance} before the {}{from} at version {}", kind.as_str(), step.version);
            self.broken(of, end, before, step.version);
        }
        self.ends.insert(balance, End { held: after, version: step.version });
    }

    fn broken(&mut self, of: String, end: End, found: Sum, before: u64) {
        let subject = Subject::Account(self.reading.name.clone());
        // Credits are in the account's own journal, which never ends, and everything else only takes away.
        let is_more = found.steps > end.held.steps;
        if is_more || !self.commits.may_be_lost(end.version, before, self.ended_before) {
            self.report.violated(Rule::Amount, subject, of, end.held, found);
        } else if found.unit == BalanceUnit::Money {
            self.lost.debited += end.held.steps - found.steps;
            self.lost.breaks += 1;
        } else {
            let expected = end.held;
            let why = format!("{of}: {expected} expected, {found} found, and journals that tell why have ended");
            self.report.not_proven(subject, why);
        }
    }

    /// Compares where the chains have got to with what the balances hold.
    fn end(mut self) -> Lost {
        let balances = || self.reading.account.iter().flat_map(|account| &account.balances);
        let ids: BTreeSet<&BalanceId> =
            self.ends.keys().copied().chain(balances().map(|balance| &balance.id)).collect();
        for id in ids {
            let balance = balances().find(|balance| balance.id == *id);
            let end = self.ends.get(id).copied();
            let unit =
                balance.map(|balance| balance.unit).or(end.map(|end| end.held.unit)).unwrap_or(BalanceUnit::Money);
            let held = balance.map_or(Sum { steps: 0, unit }, |balance| Sum::of(balance.amount, unit));
            let end = end.unwrap_or(End { held: Sum { steps: 0, unit }, version: 0 });
            if end.held.steps != held.steps {
                let of = format!("balance {id}, by its moves and by its document");
                self.broken(of, end, held, self.reading.version.0.saturating_add(1));
            }
        }
        self.lost
    }
}

/// What the balances show as reserved, beside what the sessions hold.
fn check_reserved(reading: &Reading, report: &mut Report) {
    let mut held: BTreeMap<&BalanceId, i128> = BTreeMap::new();
    for session in reading.sessions.iter().filter_map(|session| session.session.as_ref()) {
        for part in session.quotas.iter().filter_map(|quota| quota.grant.as_ref()).flat_map(|grant| &grant.reserved) {
            if session.is_closed() && !part.amount.is_zero() {
                let subject = Subject::Session(session.reference.to_string());
                let of = format!("what the closed session holds of balance {}", part.balance);
                report.violated(Rule::Reserved, subject, of, 0, Sum::of(part.amount, part.unit));
            } else {
                *held.entry(&part.balance).or_default() += i128::from(part.amount.steps());
            }
        }
    }
    let balances = || reading.account.iter().flat_map(|account| &account.balances);
    let ids: BTreeSet<&BalanceId> = held.keys().copied().chain(balances().map(|balance| &balance.id)).collect();
    for id in ids {
        let balance = balances().find(|balance| balance.id == *id);
        let unit = balance.map_or(BalanceUnit::Money, |balance| balance.unit);
        let shown = balance.map_or(Sum { steps: 0, unit }, |balance| Sum::of(balance.reserved, unit));
        let expected = Sum { steps: held.get(id).copied().unwrap_or_default(), unit };
        if expected.steps != shown.steps {
            let of = format!("reserved of balance {id}, by its open sessions and by its document");
            report.violated(Rule::Reserved, Subject::Account(reading.name.clone()), of, expected, shown);
        }
    }
}
