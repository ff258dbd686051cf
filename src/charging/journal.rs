//! The journal: one entry for each commit, appended to the session's journal (or the account's own, for credits).
//! CDR, ledger, "why was I charged" and audit are all readings of journals; nothing else remembers the past.

use serde::{Deserialize, Serialize, Serializer};

use super::account::Balance;
use super::cdr::CauseForRecordClosing;
use super::command::{Block, Container, QuotaKey, Trigger};
use super::decision::Answer;
use super::ids::{AccountId, BalanceId, RatingGroup, SubscriberId, TariffPlanId};
use super::lists::SharedList;
use super::money::{Amount, BalanceUnit};
use super::session::{ClosingCause, Consumer, Service};
use super::text::Text;
use super::time::Timestamp;

/// What one commit did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Timestamp,
    /// The account's version after the commit: orders the entries of all journals of one account. Where one commit
    /// wrote two, a session was closed for another one to open, and the closing came first.
    pub account_version: u64,
    pub event: Event,
    pub moves: Vec<Move>,
    /// The records that close with the entry, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closings: Vec<Closing>,
}

/// Where and why a record closes. What the entry holds besides its containers belongs to the last record that it
/// is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    pub cause: CauseForRecordClosing,
    /// How many of the entry's containers, in their order and repeated ones included, are in it or in records before
    /// it. `None` is all, and everything else that the entry holds.
    pub containers: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The first entry of every session's journal.
    #[serde(rename = "o")]
    Opened { header: Box<Header>, invocation: Box<Invoked> },
    #[serde(rename = "u")]
    Updated(Box<Invoked>),
    #[serde(rename = "r")]
    Released(Box<Invoked>),
    /// Usage that came too late to change a grant: out of order, or after the session was closed.
    #[serde(rename = "l")]
    Late { invocation: Box<Invoked>, after_closing: bool },
    /// Closed without a Release.
    #[serde(rename = "c")]
    Closed(ClosingCause),
    /// What time or an operator did between two messages.
    #[serde(rename = "m")]
    Maintained {
        /// Quotas whose validity had passed without a report.
        expired: Vec<QuotaKey>,
        told: Option<Told>,
    },
    /// A record of the session has been written to a file.
    #[serde(rename = "f")]
    Published(Published),
    /// A top-up; in the account's own journal.
    #[serde(rename = "p")]
    Credited { reference: Text },
}

impl Entry {
    /// For a session's journal, once a record stands in a file. It moves nothing, so it has no place among the
    /// account's commits.
    pub fn published(at: Timestamp, published: Published) -> Self {
        let event = Event::Published(published);
        Self { at, account_version: 0, event, moves: Vec::new(), closings: Vec::new() }
    }

    /// The payer's plan, where the entry opens a session.
    pub fn plan(&self) -> Option<&TariffPlanId> {
        self.event.header().and_then(|header| header.plan.as_ref())
    }
}

impl Event {
    /// What stays the same for the session that it opens.
    pub fn header(&self) -> Option<&Header> {
        match self {
            Self::Opened { header, .. } => Some(header),
            Self::Updated(_)
            | Self::Released(_)
            | Self::Late { .. }
            | Self::Closed(_)
            | Self::Maintained { .. }
            | Self::Published(_)
            | Self::Credited { .. } => None,
        }
    }

    /// The request that caused it, if one did.
    pub fn invocation(&self) -> Option<&Invoked> {
        match self {
            Self::Opened { invocation, .. }
            | Self::Updated(invocation)
            | Self::Released(invocation)
            | Self::Late { invocation, .. } => Some(invocation),
            Self::Closed(_) | Self::Maintained { .. } | Self::Published(_) | Self::Credited { .. } => None,
        }
    }
}

/// What a consumer is told between its messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Idle for too long: asked to report everything.
    #[serde(rename = "p")]
    Probe,
    /// Asked to report these rating groups, and to ask for quota anew; none named is the whole session.
    #[serde(rename = "r")]
    Reauthorize(Vec<RatingGroup>),
    /// Told to end.
    #[serde(rename = "a")]
    Abort(AbortReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortReason {
    #[serde(rename = "o")]
    Operator,
    #[serde(rename = "b")]
    SubscriberBlocked,
    #[serde(rename = "d")]
    SubscriberDeleted,
}

impl AbortReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::SubscriberBlocked => "subscriber blocked",
            Self::SubscriberDeleted => "subscriber deleted",
        }
    }
}

/// Where a record was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The record's place among the session's, from 0.
    pub part: u32,
    /// TS 32.298 `localRecordSequenceNumber`, without gaps for each recording network function.
    pub local_record_sequence_number: u32,
    /// The file's name, without its directory.
    pub file: Text,
}

/// What stays the same for a whole session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub subscriber: Option<SubscriberId>,
    pub account: Option<AccountId>,
    /// Of the account.
    pub currency: Option<Text>,
    pub plan: Option<TariffPlanId>,
    pub consumer: Consumer,
    pub service: Service,
    pub one_time: bool,
}

/// A request as recorded: what was reported, what it said besides, what was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoked {
    pub number: u32,
    /// The consumer's own time stamp, as it was written.
    pub timestamp: Text,
    /// Of the session, as the request gave them.
    pub triggers: Vec<Trigger>,
    pub usage: Vec<Reported>,
    /// Members of the request that are new or changed since the session's last entry, and what it reports besides
    /// containers (`Block::is_report`), verbatim.
    pub blocks: Vec<Block>,
    pub answer: Answer,
    /// Quotas that no request of the session had named before, in the order of their positions, which the answers
    /// speak of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaKey>,
}

/// One `multipleUnitUsage` item's containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    pub key: QuotaKey,
    pub containers: SharedList<Container>,
    /// Positions in `containers` that had been reported before, and were not charged again.
    pub repeated: Vec<u16>,
    /// The item's other members, verbatim.
    pub others: Vec<Block>,
}

/// One change of one balance, or of what is reserved of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "StoredMove<BalanceId>")]
pub struct Move {
    pub kind: MoveKind,
    pub balance: BalanceId,
    pub unit: BalanceUnit,
    /// Never negative: the kind says the direction.
    pub amount: Amount,
    /// The balance's amount; equal before and after a change of its reservation.
    pub before: Amount,
    pub after: Amount,
    pub rating_group: Option<RatingGroup>,
    /// Units of service that this amount pays for.
    pub units: Option<u64>,
    /// Version of the session's plan that set the price.
    pub plan_version: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveKind {
    #[serde(rename = "c")]
    Credit,
    #[serde(rename = "r")]
    Reserve,
    #[serde(rename = "d")]
    Debit,
    #[serde(rename = "g")]
    Release,
    /// By time. Of a balance, what was there and not held is gone; of a reservation, which names its rating group, what
    /// was held is free again.
    #[serde(rename = "x")]
    Expire,
    #[serde(rename = "a")]
    Adjust,
}

impl MoveKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Reserve => "reserve",
            Self::Debit => "debit",
            Self::Release => "release",
            Self::Expire => "expire",
            Self::Adjust => "adjust",
        }
    }
}

/// A move as it is written: `before` only where kind and amount do not tell it.
#[derive(Serialize, Deserialize)]
struct StoredMove<B> {
    kind: MoveKind,
    balance: B,
    unit: BalanceUnit,
    amount: Amount,
    before: Option<Amount>,
    after: Amount,
    rating_group: Option<RatingGroup>,
    units: Option<u64>,
    plan_version: Option<u32>,
}

impl Serialize for Move {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { kind, ref balance, unit, amount, before, after, rating_group, units, plan_version } = *self;
        let before = Some(before).filter(|before| kind.before(amount, after) != Some(*before));
        let stored = StoredMove { kind, balance, unit, amount, before, after, rating_group, units, plan_version };
        stored.serialize(serializer)
    }
}

impl From<StoredMove<BalanceId>> for Move {
    fn from(stored: StoredMove<BalanceId>) -> Self {
        let StoredMove { kind, balance, unit, amount, before, after, rating_group, units, plan_version } = stored;
        // One of the two is there in all that was written.
        let before = before.or(kind.before(amount, after)).unwrap_or(after);
        Self { kind, balance, unit, amount, before, after, rating_group, units, plan_version }
    }
}

impl MoveKind {
    /// The balance before a move, where the kind says the direction.
    pub(super) fn before(self, amount: Amount, after: Amount) -> Option<Amount> {
        match self {
            Self::Credit => after.minus(amount),
            Self::Debit | Self::Expire => after.plus(amount),
            Self::Reserve | Self::Release => Some(after),
            Self::Adjust => None,
        }
    }
}

impl Move {
    /// A change of `balance`, which is given as it is afterwards.
    pub fn of(kind: MoveKind, balance: &Balance, amount: Amount, before: Amount) -> Self {
        Self {
            kind,
            balance: balance.id.clone(),
            unit: balance.unit,
            amount,
            before,
            after: balance.amount,
            rating_group: None,
            units: None,
            plan_version: None,
        }
    }

    /// Says what a move was for.
    #[must_use]
    pub fn for_usage(mut self, rating_group: RatingGroup, units: Option<u64>, plan_version: Option<u32>) -> Self {
        self.rating_group = Some(rating_group);
        self.units = units;
        self.plan_version = plan_version;
        self
    }

    /// Joins neighbours that take from the same balance.
    pub fn merged(moves: Vec<Self>) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::with_capacity(moves.len());
        for next in moves {
            match merged.last_mut() {
                Some(last) if last.kind == next.kind && last.balance == next.balance => {
                    last.amount = last.amount.plus(next.amount).unwrap_or(last.amount);
                    last.after = next.after;
                }
                _ => merged.push(next),
            }
        }
        merged
    }
}
