//! Whether a session's document, its journal, its timer entry and its listings tell the same; and which records its
//! journal tells of.

use std::collections::BTreeMap;

use super::reading::SessionReading;
use super::report::{Report, Rule, Subject};
use super::sum::Sum;
use crate::charging::ids::{BalanceId, RatingGroup};
use crate::charging::journal::{Entry, Event, MoveKind, Published};
use crate::charging::money::BalanceUnit;
use crate::charging::session::{ChargingSession, ClosingCause, SessionState};
use crate::charging::time::{Span, Timestamp};

/// How much later than it should a timer entry may stand: several leases of a claim.
const LEASE_MAX: Span = Span::from_secs(60);

/// A record that a journal says has closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its place among the session's, from 0.
    pub part: u32,
    pub charged: i128,
    /// TS 32.298 `causeForRecClosing`.
    pub cause: u8,
    /// Its number, once it is noted as published.
    pub number: Option<u32>,
}

/// What is known of a session's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// All of them, in order.
    Known(Vec<Closed>),
    /// The journal, or its beginning, has ended.
    Ended,
    /// The journal cannot be read, is not whole, or keeps changing.
    Unread,
}

/// When the audit began, and how old the entries of a journal are at least that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Timestamp,
    pub ended_before: Timestamp,
}

pub fn check(moment: Moment, reading: &SessionReading, report: &mut Report) -> Records {
    let subject = Subject::Session(reading.reference.to_string());
    if reading.is_damaged {
        report.not_proven(subject, "its records: its document or its journal cannot be read");
        return Records::Unread;
    }
    let mut check = Check { moment, reading, subject, report };
    check.timer();
    check.listing();
    if let Some(without) = check.without_journal() {
        return without;
    }
    check.order();
    check.closing();
    check.charged();
    check.held();
    Records::Known(check.records())
}

struct Check<'a> {
    moment: Moment,
    reading: &'a SessionReading,
    subject: Subject,
    report: &'a mut Report,
}

impl Check<'_> {
    fn violated(&mut self, rule: Rule, of: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) {
        self.report.violated(rule, self.subject.clone(), of, expected, found);
    }

    fn open_session(&self) -> Option<&ChargingSession> {
        self.reading.session.as_deref().filter(|session| !session.is_closed())
    }

    /// How it is called in findings.
    fn state(&self) -> &'static str {
        match &self.reading.session {
            None => "a session without a document",
            Some(session) if session.is_closed() => "a closed session",
            Some(_) => "an open session",
        }
    }

    fn timer(&mut self) {
        let found = self.reading.indexed.timer;
        let shown = found.map_or_else(|| "none".to_owned(), Timestamp::rfc3339);
        let of = format!("the timer entry of {}", self.state());
        match (self.open_session(), found) {
            (Some(session), None) => {
                let expected = session.timer_at.map_or_else(|| "one".to_owned(), Timestamp::rfc3339);
                self.violated(Rule::Timer, &of, expected, shown);
            }
            (None, Some(_)) => self.violated(Rule::Timer, &of, "none", shown),
            (Some(session), Some(at)) => {
                // A worker that finds an entry too early sets it again, and one that has claimed it has moved it on.
                let latest = session.timer_at.unwrap_or_default().max(self.moment.now.after(LEASE_MAX));
                if at > latest {
                    self.violated(Rule::Timer, &of, format!("at most {}", latest.rfc3339()), shown);
                }
            }
            (None, None) => {}
        }
    }

    fn listing(&mut self) {
        let is_open = self.open_session().is_some();
        let yes_or_no = |yes: bool| if yes { "yes" } else { "no" };
        if self.reading.indexed.listed_open != is_open {
            let of = format!("whether {} is listed as open", self.state());
            self.violated(Rule::Listing, &of, yes_or_no(is_open), yes_or_no(!is_open));
        }
        // Where the journal has ended, or began anew after its end, nothing has to lead to it.
        let has_journal = matches!(self.reading.journal.first(), Some(Entry { event: Event::Opened { .. }, .. }));
        let listed = self.reading.listed_closed;
        if (is_open && listed) || (!is_open && has_journal && !listed) {
            let of = format!("whether {} is listed as closed", self.state());
            self.violated(Rule::Listing, &of, yes_or_no(!is_open), yes_or_no(is_open));
        }
    }

    /// What is known where there is no journal from the session's opening on; `None` where there is one.
    fn without_journal(&mut self) -> Option<Records> {
        let may_have_ended = |at: Timestamp| at <= self.moment.ended_before;
        match (self.reading.journal.first().map(|entry| &entry.event), &self.reading.session) {
            (Some(Event::Opened { .. }), _) => None,
            // Named by a timer or a listing, which has been reported, and otherwise gone.
            (None, None) => Some(Records::Ended),
            (None, Some(session)) => {
                match session.state {
                    // An event that was refused happened nowhere.
                    SessionState::Closed { cause: ClosingCause::Event, .. } if is_blank(session) => {
                        Some(Records::Known(Vec::new()))
                    }
                    SessionState::Closed { at, .. } if may_have_ended(at) => {
                        self.report.not_proven(self.subject.clone(), "its records: its journal has ended");
                        Some(Records::Ended)
                    }
                    SessionState::Closed { .. }
                    | SessionState::Active
                    | SessionState::Probing { .. }
                    | SessionState::Aborting { .. } => {
                        let of = "entries in its journal, which cannot have ended";
                        self.violated(Rule::Journal, of, "at least 1", 0);
                        Some(Records::Unread)
                    }
                }
            }
            (Some(_), session) => {
                let is_late = |entry: &Entry| {
                    matches!(entry.event, Event::Late { after_closing: true, .. } | Event::Published(_))
                };
                let is_closed = session.as_deref().is_none_or(ChargingSession::is_closed);
                if is_closed && self.reading.journal.iter().all(is_late) {
                    let why = "its records: its journal has ended, and began anew with late usage";
                    self.report.not_proven(self.subject.clone(), why);
                    Some(Records::Ended)
                } else {
                    self.violated(Rule::Journal, "the first entry of its journal", "its opening", "another");
                    Some(Records::Unread)
                }
            }
        }
    }

    fn order(&mut self) {
        let (mut last, mut last_moved, mut has_ended) = (0, false, false);
        for (at, entry) in self.reading.journal.iter().enumerate() {
            if matches!(entry.event, Event::Published(_)) {
                continue;
            }
            let least = if last_moved { last + 1 } else { last };
            if entry.account_version < least {
                let of = format!("the account's version in entry {at} of its journal");
                self.violated(Rule::Journal, &of, format_args!("at least {least}"), entry.account_version);
            }
            (last, last_moved) = (entry.account_version, !entry.moves.is_empty());
            let is_in_place = match &entry.event {
                Event::Opened { .. } => at == 0,
                Event::Late { after_closing, .. } => *after_closing == has_ended,
                Event::Updated(_) | Event::Released(_) | Event::Closed(_) | Event::Maintained { .. } => !has_ended,
                Event::Published(_) => true,
                Event::Credited { .. } => false,
            };
            if !is_in_place {
                let of = format!("whether entry {at} of its journal fits what came before it");
                self.violated(Rule::Journal, &of, "yes", "no");
            }
            has_ended |= ends_session(&entry.event);
        }
    }

    fn closing(&mut self) {
        // What closes with all that the entry holds: before it, only the record's length may have cut it.
        let whole = |entry: &&Entry| entry.closings.iter().filter(|closing| closing.containers.is_none()).count();
        let journal = &self.reading.journal;
        let closing: usize = journal.iter().filter(|entry| ends_session(&entry.event)).map(|entry| whole(&entry)).sum();
        let expected = usize::from(self.open_session().is_none());
        if closing != expected {
            let of = format!("closing records of {}", self.state());
            self.violated(Rule::Closing, &of, expected, closing);
        }
        let late = |entry: &&Entry| matches!(entry.event, Event::Late { after_closing: true, .. });
        let late: Vec<usize> = journal.iter().filter(late).map(|entry| whole(&entry)).collect();
        for records in late.into_iter().filter(|records| *records != 1) {
            self.violated(Rule::Closing, "supplementary records of usage that came late", 1, records);
        }
        let closed: usize = journal.iter().map(|entry| entry.closings.len()).sum();
        if let Some(session) = &self.reading.session
            && usize::try_from(session.record.part) != Ok(closed)
        {
            self.violated(
                Rule::Closing,
                "its closed records, by its journal and by its document",
                closed,
                session.record.part,
            );
        }
    }

    fn charged(&mut self) {
        let debited = Sum::money(self.reading.journal.iter().map(money_debited).sum());
        if let Some(session) = &self.reading.session {
            let charged = Sum::of(session.charged, BalanceUnit::Money);
            if charged != debited {
                self.violated(Rule::Charged, "money charged, by its journal and by its document", debited, charged);
            }
        }
    }

    /// What was reserved is held, was given back, or was spent by a debit: which debits spent it no move says, so this
    /// is as exact as it can be.
    fn held(&mut self) {
        let mut flows: BTreeMap<(&BalanceId, Option<RatingGroup>), Flow> = BTreeMap::new();
        for change in self.reading.journal.iter().flat_map(|entry| &entry.moves) {
            let flow = flows.entry((&change.balance, change.rating_group)).or_default();
            let amount = i128::from(change.amount.steps());
            match change.kind {
                MoveKind::Reserve => flow.left += amount,
                MoveKind::Release => flow.left -= amount,
                MoveKind::Expire if change.rating_group.is_some() => flow.left -= amount,
                MoveKind::Debit => flow.debited += amount,
                MoveKind::Expire | MoveKind::Credit | MoveKind::Adjust => {}
            }
            flow.unit = change.unit;
        }
        for quota in self.reading.session.iter().flat_map(|session| &session.quotas) {
            for part in quota.grant.iter().flat_map(|grant| &grant.reserved) {
                let flow = flows.entry((&part.balance, Some(quota.key.rating_group))).or_default();
                flow.left -= i128::from(part.amount.steps());
                flow.unit = part.unit;
            }
        }
        for ((balance, group), Flow { left, debited, unit }) in flows {
            if left < 0 || left > debited {
                let group = group.map_or_else(String::new, |group| format!(" by rating group {}", group.0));
                let of = format!("reserved of balance {balance}{group}, and neither held nor given back but spent");
                let most = Sum { steps: debited, unit };
                self.violated(Rule::Reserved, &of, format_args!("0 to {most}"), Sum { steps: left, unit });
            }
        }
    }

    /// Says which numbers do not fit together.
    fn records(&mut self) -> Vec<Closed> {
        for Published { part, local_record_sequence_number: number, .. } in published(&self.reading.journal) {
            let closed = closed_records(&self.reading.journal);
            match usize::try_from(*part).ok().and_then(|at| closed.get(at)) {
                Some(Closed { number: known, .. }) if *known == Some(*number) => {}
                Some(Closed { number: known, .. }) => {
                    let of = format!("the number under which record {part} was published");
                    self.violated(Rule::Record, &of, known.unwrap_or_default(), number);
                }
                None => {
                    let of = format!("closed records, of which number {part} was published");
                    self.violated(Rule::Record, &of, format_args!("more than {part}"), closed.len());
                }
            }
        }
        closed_records(&self.reading.journal)
    }
}

/// The records that have closed by a journal that is whole.
pub fn closed_records(journal: &[Entry]) -> Vec<Closed> {
    let mut closed = Vec::new();
    let mut open = 0;
    for entry in journal {
        let debited = money_debited(entry);
        let mut is_taken = false;
        for closing in &entry.closings {
            // What a request cost stands in the last of the records that it is in.
            if closing.containers.is_none() && !is_taken {
                open += debited;
                is_taken = true;
            }
            let part = u32::try_from(closed.len()).unwrap_or(u32::MAX);
            closed.push(Closed { part, charged: open, cause: closing.cause.code(), number: None });
            open = 0;
        }
        if !is_taken {
            open += debited;
        }
    }
    for Published { part, local_record_sequence_number: number, .. } in published(journal) {
        if let Some(record) = usize::try_from(*part).ok().and_then(|at| closed.get_mut(at)) {
            record.number.get_or_insert(*number);
        }
    }
    closed
}

fn published(journal: &[Entry]) -> impl Iterator<Item = &Published> {
    journal.iter().filter_map(|entry| match &entry.event {
        Event::Published(published) => Some(published),
        Event::Opened { .. }
        | Event::Updated(_)
        | Event::Released(_)
        | Event::Late { .. }
        | Event::Closed(_)
        | Event::Maintained { .. }
        | Event::Credited { .. } => None,
    })
}

/// What went into reservations of one balance for one rating group, and has not come back.
struct Flow {
    left: i128,
    debited: i128,
    unit: BalanceUnit,
}

impl Default for Flow {
    fn default() -> Self {
        Self { left: 0, debited: 0, unit: BalanceUnit::Money }
    }
}

fn money_debited(entry: &Entry) -> i128 {
    let debits = entry.moves.iter().filter(|one| one.kind == MoveKind::Debit && one.unit == BalanceUnit::Money);
    debits.map(|debit| i128::from(debit.amount.steps())).sum()
}

fn ends_session(event: &Event) -> bool {
    match event {
        Event::Opened { header, .. } => header.one_time,
        Event::Released(_) | Event::Closed(_) => true,
        Event::Updated(_)
        | Event::Late { .. }
        | Event::Maintained { .. }
        | Event::Published(_)
        | Event::Credited { .. } => false,
    }
}

/// No record of it has closed, and nothing was charged.
fn is_blank(session: &ChargingSession) -> bool {
    session.record.part == 0 && session.charged.is_zero()
}
