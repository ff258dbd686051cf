//! Charging data records (TS 32.298 5.1.5), read from a session's journal: nothing else is kept for them.

use serde::{Deserialize, Serialize};

use super::command::{Block, Container, QuotaKey, Trigger};
use super::ids::ChargingDataRef;
use super::journal::{Entry, Event, Header, MoveKind, Published, Reported};
use super::money::{Amount, BalanceUnit};
use super::time::{Span, Timestamp};

/// One closed record of a charging session or event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cdr {
    pub reference: ChargingDataRef,
    /// Its place among the session's records, from 0, supplementary ones of late usage included.
    pub part: u32,
    /// TS 32.298 `recordSequenceNumber`, from 1; `None` as long as no record of the session was split.
    pub sequence_number: Option<u32>,
    pub header: Header,
    /// When the Create, or what closed the record before, was received; of a supplementary record, when its usage was.
    pub opened_at: Timestamp,
    pub closed_at: Timestamp,
    pub cause: CauseForRecordClosing,
    /// `None` when no message is known to be lost.
    pub incomplete: Option<Incomplete>,
    /// Of the session level, as the requests gave them.
    pub triggers: Vec<Trigger>,
    /// In the order in which the quotas first reported.
    pub usage: Vec<QuotaUsage>,
    /// The request's other members, each as it was last.
    pub blocks: Vec<Block>,
    /// What members of them reported, in the order in which it came ([`super::command::REPORTS`]).
    pub reports: Vec<Block>,
    /// Money debited for what the record reports. What one request cost stands in the last of the records that its
    /// usage is in.
    pub charged: Amount,
    /// Where it stands in a file already.
    pub published: Option<Published>,
}

/// TS 32.298 `incompleteCDRIndication`: whether a message of each kind was lost, `None` where nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete {
    pub initial_lost: Option<bool>,
    pub update_lost: Option<bool>,
    pub termination_lost: Option<bool>,
}

/// One `listOfMultipleUnitUsage` item: every container that was reported, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUsage {
    pub key: QuotaKey,
    pub containers: Vec<Container>,
    /// The item's other members, as they were last.
    pub others: Vec<Block>,
}

/// TS 32.298 `CauseForRecClosing`, those that happen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum CauseForRecordClosing {
    NormalRelease,
    AbnormalRelease,
    /// The consumer's limit of the session's volume, or ours of the record's length.
    VolumeLimit,
    /// The consumer's limit of the session's time, or ours of the record's.
    TimeLimit,
    ServingNodeChange,
    MaxChangesInChargingConditions,
    ManagementIntervention,
    RatChange,
    UeTimezoneChange,
    PlmnChange,
}

impl CauseForRecordClosing {
    const ALL: [Self; 10] = [
        Self::NormalRelease,
        Self::AbnormalRelease,
        Self::VolumeLimit,
        Self::TimeLimit,
        Self::ServingNodeChange,
        Self::MaxChangesInChargingConditions,
        Self::ManagementIntervention,
        Self::RatChange,
        Self::UeTimezoneChange,
        Self::PlmnChange,
    ];

    pub const fn code(self) -> u8 {
        match self {
            Self::NormalRelease => 0,
            Self::AbnormalRelease => 4,
            Self::VolumeLimit => 16,
            Self::TimeLimit => 17,
            Self::ServingNodeChange => 18,
            Self::MaxChangesInChargingConditions => 19,
            Self::ManagementIntervention => 20,
            Self::RatChange => 22,
            Self::UeTimezoneChange => 23,
            Self::PlmnChange => 24,
        }
    }
}

impl From<CauseForRecordClosing> for u8 {
    fn from(cause: CauseForRecordClosing) -> Self {
        cause.code()
    }
}

impl TryFrom<u8> for CauseForRecordClosing {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|cause| cause.code() == code);
        known.ok_or_else(|| format!("no cause for closing a record: {code}"))
    }
}

impl Cdr {
    /// Unique over all records, the same whenever it is made.
    pub fn id(&self) -> String {
        format!("{}-{}", self.reference, self.part)
    }

    pub fn duration(&self) -> Span {
        self.closed_at.since(self.opened_at)
    }

    /// All closed records that a session's journal tells of, in order.
    pub fn of_journal(reference: &ChargingDataRef, entries: &[Entry]) -> Vec<Self> {
        let Some(Entry { at, event: Event::Opened { header, .. }, .. }) = entries.first() else { return Vec::new() };
        let mut records: Vec<Self> = Vec::new();
        let mut open = Open::new(*at);
        let (mut has_ended, mut is_split) = (false, false);
        for entry in entries {
            if let Event::Published(published) = &entry.event {
                let at = usize::try_from(published.part).ok();
                if let Some(record) = at.and_then(|at| records.get_mut(at)) {
                    record.published = Some(published.clone());
                }
                continue;
            }
            if has_ended {
                // Usage that came late has a record of its own.
                open.opened_at = entry.at;
            }
            has_ended |= ends_session(&entry.event);
            open.note_blocks(entry);
            let mut from = Some(0);
            for closing in &entry.closings {
                open.add(entry, from.unwrap_or(0), closing.containers);
                from = closing.containers;
                is_split |= closing.containers.is_some() || !has_ended;
                let part = u32::try_from(records.len()).unwrap_or(u32::MAX);
                records.push(Self {
                    reference: reference.clone(),
                    part,
                    sequence_number: is_split.then(|| part.saturating_add(1)),
                    header: (**header).clone(),
                    opened_at: open.opened_at,
                    closed_at: entry.at,
                    cause: closing.cause,
                    incomplete: Incomplete::after(&entry.event),
                    triggers: std::mem::take(&mut open.triggers),
                    usage: std::mem::take(&mut open.usage),
                    blocks: open.blocks.clone(),
                    reports: std::mem::take(&mut open.reports),
                    charged: open.charged,
                    published: None,
                });
                // What is known of the session stands in each of its records.
                open = Open { blocks: open.blocks, ..Open::new(entry.at) };
            }
            if let Some(from) = from {
                open.add(entry, from, None);
            }
        }
        records
    }

    /// One record by its place; the same whatever the journal has grown by since it closed. `None` while it is open.
    pub fn part(reference: &ChargingDataRef, entries: &[Entry], part: u32) -> Option<Self> {
        Self::of_journal(reference, entries).into_iter().nth(usize::try_from(part).ok()?)
    }
}

impl Incomplete {
    /// Only what is certain: the Create came, or there would be no session, and no Release did. Nobody knows of the
    /// Updates that a consumer meant to send.
    fn after(event: &Event) -> Option<Self> {
        let Event::Closed(cause) = event else { return None };
        let lost = Self { initial_lost: Some(false), update_lost: None, termination_lost: Some(true) };
        cause.lost_the_release().then_some(lost)
    }
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

/// A record while its entries are read.
struct Open {
    opened_at: Timestamp,
    triggers: Vec<Trigger>,
    usage: Vec<QuotaUsage>,
    blocks: Vec<Block>,
    reports: Vec<Block>,
    charged: Amount,
}

impl Open {
    fn new(opened_at: Timestamp) -> Self {
        Self {
            opened_at,
            triggers: Vec::new(),
            usage: Vec::new(),
            blocks: Vec::new(),
            reports: Vec::new(),
            charged: Amount::ZERO,
        }
    }

    fn note_blocks(&mut self, entry: &Entry) {
        let blocks = entry.event.invocation().into_iter().flat_map(|invocation| &invocation.blocks);
        for block in blocks.filter(|block| !block.is_report()) {
            match self.blocks.iter_mut().find(|known| known.name == block.name) {
                Some(known) => *known = block.clone(),
                None => self.blocks.push(block.clone()),
            }
        }
    }

    /// Takes the entry's containers, and after them its reports, from `from` up to `until`; without an end, all that is
    /// left and what the entry holds besides.
    fn add(&mut self, entry: &Entry, from: u32, until: Option<u32>) {
        let invocation = entry.event.invocation();
        let usage = invocation.map_or(&[][..], |invocation| &invocation.usage);
        let mut position = 0u32;
        for reported in usage {
            for (at, container) in reported.containers.iter().enumerate() {
                let is_repeated = reported.repeated.iter().any(|repeated| usize::from(*repeated) == at);
                if position >= from && until.is_none_or(|until| position < until) && !is_repeated {
                    self.add_container(reported, container);
                }
                position = position.saturating_add(1);
            }
        }
        let blocks = invocation.map_or(&[][..], |invocation| &invocation.blocks);
        for report in blocks.iter().filter(|block| block.is_report()) {
            if position >= from && until.is_none_or(|until| position < until) {
                self.reports.push(report.clone());
            }
            position = position.saturating_add(1);
        }
        if until.is_some() {
            return;
        }
        self.triggers.extend(invocation.into_iter().flat_map(|invocation| &invocation.triggers).cloned());
        let debits = entry.moves.iter().filter(|one| one.kind == MoveKind::Debit && one.unit == BalanceUnit::Money);
        for debit in debits {
            self.charged = self.charged.plus(debit.amount).unwrap_or(self.charged);
        }
    }

    fn add_container(&mut self, reported: &Reported, container: &Container) {
        let others = reported.others.clone();
        match self.usage.iter_mut().find(|usage| usage.key == reported.key) {
            Some(usage) => {
                usage.containers.push(container.clone());
                usage.others = others;
            }
            None => {
                let containers = vec![container.clone()];
                self.usage.push(QuotaUsage { key: reported.key.clone(), containers, others });
            }
        }
    }
}
