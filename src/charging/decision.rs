//! What the core decides: the new state, what is written beside it, and the answer.

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::ids::{ChargingDataRef, RatingGroup};
use super::journal::Entry;
use super::lists::SharedList;
use super::session::ChargingSession;
use super::tariff::FinalUnit;
use super::text::Text;
use super::time::{Span, Timestamp};
use super::units::Units;

/// What a consumer is answered, and what changes with it.
#[derive(Clone, Debug)]
pub struct Decision {
    pub answer: Answer,
    /// The answer was given before and nothing changes; the session that it speaks of.
    pub replayed: Option<Box<ChargingSession>>,
    pub changes: Changes,
}

/// Everything that one decision changes, to be committed as a whole; empty when nothing does.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// `None` leaves the account as it is.
    pub account: Option<Account>,
    /// The first is the one that was asked about.
    pub sessions: Vec<SessionChange>,
    pub outbox: Vec<Outgoing>,
    pub index: Vec<IndexChange>,
}

impl Decision {
    /// The session that the answer speaks of, as it is after the decision.
    pub fn session(&self) -> &ChargingSession {
        let changed = self.changes.sessions.first().map(|change| &*change.session);
        self.replayed.as_deref().or(changed).expect("a decision replays an answer or changes a session")
    }
}

/// A session as it shall be stored, and the journal entry that tells how it came to that.
#[derive(Clone, Debug)]
pub struct SessionChange {
    pub session: Box<ChargingSession>,
    /// `None` for what leaves no record, such as an event that was refused.
    pub entry: Option<Entry>,
    pub timer: Timer,
    pub listing: Listed,
    pub lives_for: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    Keep,
    At(Timestamp),
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    Keep,
    Opened,
    Closed,
}

/// Work for others, delivered by whichever instance is alive. It waits in two queues, since records wait for a disk and
/// notifications for consumers: neither may hold up the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outgoing {
    /// In the queue of records. A record has closed: `part` counts the session's records from 0, and the journal tells
    /// exactly what that one holds, whatever is appended to it later. `ended`: the session had ended by then.
    /// Entries from before there were `ended` and `closed_at` have neither.
    #[serde(rename = "r")]
    Record {
        session: ChargingDataRef,
        part: u32,
        #[serde(default)]
        ended: bool,
        #[serde(default)]
        closed_at: Option<Timestamp>,
    },
    /// In the queue of notifications. The session's consumer is to be told something, at the session's `notify_uri`.
    #[serde(rename = "n")]
    Notify(Notification),
    /// In the queue of notifications, for it leads to them. Sessions of this account that ran out may ask again; the
    /// account's key in hexadecimal.
    #[serde(rename = "p")]
    Credited { account: Text },
}

/// What a consumer is to be told (TS 32.291 6.1.5). It may be told twice, which asks nothing more of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    pub session: ChargingDataRef,
    pub kind: NotificationKind,
    pub decided_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotificationKind {
    /// `REAUTHORIZATION`: report these rating groups and ask for quota again. None named: the whole session.
    #[serde(rename = "r")]
    Reauthorize { groups: Vec<RatingGroup> },
    /// `ABORT_CHARGING`: end the session.
    #[serde(rename = "a")]
    Abort,
}

/// An index key that leads to a session.
#[derive(Clone, Debug)]
pub struct IndexChange {
    pub key: u128,
    pub leads_to: ChargingDataRef,
    /// `None` keeps it until it is changed.
    pub lives_for: Option<Span>,
}

/// The answer to a charging request, as remembered for replays: rendering it is pure, so a replay is the same to the
/// byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub outcome: Outcome,
    pub at: Timestamp,
    pub number: u32,
    /// Negotiated features, when the request offered some.
    pub features: Option<u64>,
    pub results: SharedList<GroupResult>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    #[serde(rename = "c")]
    Created,
    #[serde(rename = "u")]
    Updated,
    #[serde(rename = "r")]
    Released,
    /// The session had ended; what was reported is charged all the same.
    #[serde(rename = "g")]
    Gone,
}

/// One `multipleUnitInformation` item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupResult {
    /// Position of the quota in the session, which keeps its quotas in place.
    pub quota: u16,
    pub code: ResultCode,
    pub granted: Option<Units>,
    pub validity_secs: Option<u32>,
    pub holding_secs: Option<u32>,
    /// What remains of the grant when the consumer shall report, in the unit granted.
    pub threshold: Option<u64>,
    pub tariff_change: Option<Timestamp>,
    pub final_unit: Option<FinalUnit>,
}

/// TS 32.291 `ResultCode`, those that a charging function of this release gives for a rating group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResultCode {
    #[serde(rename = "s")]
    Success,
    #[serde(rename = "d")]
    EndUserServiceDenied,
    #[serde(rename = "n")]
    QuotaManagementNotApplicable,
    #[serde(rename = "l")]
    QuotaLimitReached,
    #[serde(rename = "f")]
    RatingFailed,
    /// The tariff does not sell the service at this time of day.
    #[serde(rename = "r")]
    EndUserServiceRejected,
    /// As success, where the rating group was told before that quota is not managed.
    #[serde(rename = "m")]
    QuotaManagement,
}

impl ResultCode {
    /// The consumer may provide the service.
    pub const fn allows_use(self) -> bool {
        match self {
            Self::Success | Self::QuotaManagement | Self::QuotaManagementNotApplicable => true,
            Self::EndUserServiceDenied
            | Self::QuotaLimitReached
            | Self::RatingFailed
            | Self::EndUserServiceRejected => false,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::EndUserServiceDenied => "END_USER_SERVICE_DENIED",
            Self::QuotaManagementNotApplicable => "QUOTA_MANAGEMENT_NOT_APPLICABLE",
            Self::QuotaLimitReached => "QUOTA_LIMIT_REACHED",
            Self::RatingFailed => "RATING_FAILED",
            Self::EndUserServiceRejected => "END_USER_SERVICE_REJECTED",
            Self::QuotaManagement => "QUOTA_MANAGEMENT",
        }
    }
}

/// No to the whole request; nothing has changed. TS 32.291 6.1.7.3 and TS 29.500 5.2.7.2 name the causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The identity is not provisioned.
    UserUnknown,
    /// The subscriber is blocked.
    EndUserRequestDenied,
    /// Nothing in the request can be charged.
    NothingToCharge,
    /// The subscriber's account does not exist.
    NoAccount,
    /// The plan says that nothing in the request is subject to charging at all.
    ChargingNotApplicable,
    /// The request names another subscriber than the session's.
    SubscriberChanged,
    /// No such session.
    UnknownSession,
    /// The number was used by another request of this session.
    NumberReused,
    /// The number belongs to a request so old that its answer is forgotten. It is not charged again.
    NumberForgotten,
    /// The idempotency key was used by a request with other content.
    IdempotencyKeyReused,
    /// The session has as many quotas as it may.
    TooManyQuotas,
    /// Every rating group is out of credit, and the operator wants a Create refused then.
    QuotaLimitReached,
}
