//! Charging data records (TS 32.298 5.1.5), read from a session's journal: nothing else is kept for them.

use super::command::{Block, Container, QuotaKey, Trigger};
use super::ids::ChargingDataRef;
use super::journal::{Entry, Event, Header, Invoked, MoveKind};
use super::money::{Amount, BalanceUnit};
use super::session::ClosingCause;
use super::time::{Span, Timestamp};

/// One closed record of a charging session or event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cdr {
    pub reference: ChargingDataRef,
    /// 0 for the session's own record, then one number for each supplementary record of late usage.
    pub part: u32,
    pub header: Header,
    pub opened_at: Timestamp,
    pub closed_at: Timestamp,
    pub cause: CauseForRecordClosing,
    /// Of the session level, as the requests gave them.
    pub triggers: Vec<Trigger>,
    /// In the order in which the quotas first reported.
    pub usage: Vec<QuotaUsage>,
    /// The request's other members, each as it was last.
    pub blocks: Vec<Block>,
    /// Money debited for what the record reports.
    pub charged: Amount,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseForRecordClosing {
    NormalRelease,
    AbnormalRelease,
}

impl CauseForRecordClosing {
    pub const fn code(self) -> u8 {
        match self {
            Self::NormalRelease => 0,
            Self::AbnormalRelease => 4,
        }
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

    /// All closed records that a session's journal tells of, in order; none while the session is open.
    pub fn of_journal(reference: &ChargingDataRef, entries: &[Entry]) -> Vec<Self> {
        let Some(Entry { at, event: Event::Opened { header, .. }, .. }) = entries.first() else { return Vec::new() };
        let mut records = Vec::new();
        let mut open = Open::new(*at);
        for entry in entries {
            open.add(entry);
            let cause = match &entry.event {
                Event::Opened { header, .. } if header.one_time => CauseForRecordClosing::NormalRelease,
                Event::Released(_) | Event::Late { after_closing: true, .. } => CauseForRecordClosing::NormalRelease,
                Event::Closed(ClosingCause::Released | ClosingCause::Event) => CauseForRecordClosing::NormalRelease,
                Event::Closed(ClosingCause::Superseded) => CauseForRecordClosing::AbnormalRelease,
                Event::Opened { .. } | Event::Updated(_) | Event::Late { .. } | Event::Credited { .. } => continue,
            };
            let part = u32::try_from(records.len()).unwrap_or(u32::MAX);
            records.push(open.close(reference, header, part, entry.at, cause));
            // What is known of the session stands in each of its records.
            open = Open { blocks: open.blocks, ..Open::new(entry.at) };
        }
        records
    }
}

/// A record while its entries are read.
struct Open {
    opened_at: Timestamp,
    triggers: Vec<Trigger>,
    usage: Vec<QuotaUsage>,
    blocks: Vec<Block>,
    charged: Amount,
}

impl Open {
    fn new(opened_at: Timestamp) -> Self {
        Self { opened_at, triggers: Vec::new(), usage: Vec::new(), blocks: Vec::new(), charged: Amount::ZERO }
    }

    fn add(&mut self, entry: &Entry) {
        let debits = entry.moves.iter().filter(|one| one.kind == MoveKind::Debit && one.unit == BalanceUnit::Money);
        for debit in debits {
            self.charged = self.charged.plus(debit.amount).unwrap_or(self.charged);
        }
        if let Some(invocation) = entry.event.invocation() {
            self.add_invocation(invocation);
        }
    }

    fn add_invocation(&mut self, invocation: &Invoked) {
        self.triggers.extend(invocation.triggers.iter().cloned());
        for block in &invocation.blocks {
            match self.blocks.iter_mut().find(|known| known.name == block.name) {
                Some(known) => *known = block.clone(),
                None => self.blocks.push(block.clone()),
            }
        }
        for reported in &invocation.usage {
            let is_new = |at: usize| reported.repeated.iter().all(|repeated| usize::from(*repeated) != at);
            let fresh =
                (reported.containers.iter().enumerate()).filter(|(at, _)| is_new(*at)).map(|(_, one)| one.clone());
            let others = reported.others.clone();
            match self.usage.iter_mut().find(|usage| usage.key == reported.key) {
                Some(usage) => {
                    usage.containers.extend(fresh);
                    usage.others = others;
                }
                None => {
                    self.usage.push(QuotaUsage { key: reported.key.clone(), containers: fresh.collect(), others });
                }
            }
        }
    }

    fn close(
        &mut self,
        reference: &ChargingDataRef,
        header: &Header,
        part: u32,
        closed_at: Timestamp,
        cause: CauseForRecordClosing,
    ) -> Cdr {
        Cdr {
            reference: reference.clone(),
            part,
            header: header.clone(),
            opened_at: self.opened_at,
            closed_at,
            cause,
            triggers: std::mem::take(&mut self.triggers),
            usage: std::mem::take(&mut self.usage),
            blocks: self.blocks.clone(),
            charged: self.charged,
        }
    }
}
