//! What can be asked of the core. Everything is parsed already: a value here is valid because it exists.

use serde::{Deserialize, Serialize};

use super::ids::{AccountId, BalanceId, ChargingDataRef, RatingGroup, SubscriberId, TariffPlanId};
use super::lists::SharedList;
use super::money::{Amount, BalanceUnit};
use super::session::{ChargingSession, Consumer, Service};
use super::tariff::FinalUnit;
use super::text::Text;
use super::time::Timestamp;
use super::units::Units;

/// One request of a network function, whatever the operation.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub number: u32,
    pub invoked_at: Timestamp,
    /// `invocationTimeStamp` as it was written, for the record.
    pub timestamp: Text,
    pub retransmission: bool,
    pub fingerprint: Fingerprint,
    /// Hash of the idempotency key of `3gpp-Sbi-Request-Info` (TS 29.500 5.2.3.2), where one was sent.
    pub idempotency: Option<u64>,
    pub subscriber: Option<SubscriberId>,
    pub consumer: Consumer,
    pub notify_uri: Option<Text>,
    /// The offered features as a bit mask, feature 1 lowest; `None` when none were offered.
    pub features: Option<u64>,
    pub triggers: Vec<Trigger>,
    pub usages: Vec<UnitUsage>,
    /// All other members, verbatim.
    pub blocks: Vec<Block>,
}

/// Tells a repeated request from a new one. `retransmissionIndicator` counts in neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Without the time stamps of the request and of its containers.
    pub content: u64,
    /// With them.
    pub exact: u64,
}

/// The place of a quota in a session: the SMF meters each combination on its own (TS 32.255 5.2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaKey {
    pub rating_group: RatingGroup,
    #[serde(with = "super::packed::name")]
    pub upf: Option<Text>,
    /// `multihomedPDUAddress` as JSON, always in one spelling.
    pub multihomed: Option<Text>,
    #[serde(with = "super::packed::name")]
    pub mb_upf: Option<Text>,
}

/// One item of `multipleUnitUsage`.
#[derive(Clone, Debug)]
pub struct UnitUsage {
    pub key: QuotaKey,
    /// Present when quota management is wanted, whatever it names.
    pub requested: Option<Units>,
    pub containers: SharedList<Container>,
    /// All other members, verbatim.
    pub others: Vec<Block>,
}

/// One item of `usedUnitContainer`: usage since the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub local_sequence_number: i64,
    pub indicator: Option<Indicator>,
    pub units: Units,
    pub triggers: Vec<Trigger>,
    pub closed_at: Option<Timestamp>,
    pub first_usage: Option<Timestamp>,
    pub last_usage: Option<Timestamp>,
    pub service_id: Option<u32>,
    /// All other members (container information, event times, unknown ones), verbatim.
    pub others: Vec<Block>,
}

impl Container {
    /// Nothing but units.
    pub fn of_units(units: Units) -> Self {
        Self {
            local_sequence_number: 0,
            indicator: None,
            units,
            triggers: Vec::new(),
            closed_at: None,
            first_usage: None,
            last_usage: None,
            service_id: None,
            others: Vec::new(),
        }
    }

    pub fn has_trigger(&self, name: &str) -> bool {
        self.triggers.iter().any(|trigger| trigger.is(name))
    }
}

/// A member kept as it was written, for the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub name: Text,
    /// JSON text.
    pub json: Text,
    /// Of the content, whatever its spelling.
    pub hash: u64,
}

/// `quotaManagementIndicator`. An unknown value is kept and read as if there were none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Indicator {
    #[serde(rename = "1")]
    Online,
    #[serde(rename = "0")]
    Offline,
    #[serde(rename = "s")]
    Suspended,
    #[serde(rename = "x")]
    Other(Text),
}

/// Why a report was made. The enumeration is open, so the name is kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    #[serde(with = "super::packed::trigger")]
    pub name: Option<Text>,
    pub category: TriggerCategory,
    /// Limits and other members beside the type, verbatim.
    pub others: Vec<Block>,
}

/// `triggerCategory`; the enumeration is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerCategory {
    #[serde(rename = "i")]
    Immediate,
    #[serde(rename = "d")]
    Deferred,
    #[serde(rename = "x")]
    Other(Text),
}

impl TriggerCategory {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Immediate => "IMMEDIATE_REPORT",
            Self::Deferred => "DEFERRED_REPORT",
            Self::Other(text) => text,
        }
    }
}

impl Trigger {
    pub fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }
}

/// Event charging in one request (TS 32.290 5.3): nothing is reserved and no session stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OneTime {
    /// Before delivery: the requested units are debited, or refused.
    Immediate,
    /// After delivery: the used units are debited whatever is left.
    Post,
    /// Flagged as an event without saying which: what it names tells.
    Untyped,
}

/// Who is charged, as provisioned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriber {
    pub id: SubscriberId,
    pub gpsi: Option<Text>,
    /// Further identifiers under which requests may name the subscriber.
    pub identifiers: Vec<Text>,
    pub account: AccountId,
    pub plan: TariffPlanId,
    pub blocked: bool,
    /// Takes the place of the tariff's own final unit action.
    pub final_unit: Option<FinalUnit>,
}

/// Opens a session, or charges a one-time event.
#[derive(Clone, Debug)]
pub struct Create<'a> {
    pub invocation: &'a Invocation,
    pub one_time: Option<OneTime>,
    pub service: Service,
    /// `None` for a request that names nobody who is provisioned (emergency, tenants): recorded, never charged.
    pub subscriber: Option<Subscriber>,
    /// Made from what identifies the request, so a copy of it has the same one.
    pub reference: ChargingDataRef,
    /// The session that is there under `reference`: this request is a copy of the one that opened it.
    pub repeated: Option<Box<ChargingSession>>,
    /// Index key of consumer, subscriber and PDU session; opaque here. `None` without a PDU session.
    pub pdu_session: Option<u128>,
    /// The session that `pdu_session` led to.
    pub same_pdu_session: Option<Box<ChargingSession>>,
}

/// A top-up.
#[derive(Clone, Debug)]
pub struct Credit {
    pub balance: BalanceId,
    pub unit: Option<BalanceUnit>,
    /// Positive.
    pub amount: Amount,
    pub expires_at: Option<Timestamp>,
    pub priority: Option<u16>,
    /// The same reference credits once.
    pub reference: Text,
}

/// Members of blocks that tell what happened since the request before, as containers do; what stands beside them tells
/// how things are. Each of them is a block of its own, named by block and member: usage of QoS flows (TS 32.255 5.2.1.6)
/// and of a second radio access. They are recorded, and rated by nothing.
pub const REPORTS: [&str; 2] =
    ["roamingQBCInformation/multipleQFIcontainer", "pDUSessionChargingInformation/rANSecondaryRATUsageReport"];

impl Block {
    /// Whether it is one of [`REPORTS`], which add up in a record where other blocks are replaced.
    pub fn is_report(&self) -> bool {
        REPORTS.contains(&&*self.name)
    }

    /// Whether the member is one of the blocks that describe a service (`sMSChargingInformation` and the like).
    pub fn describes_a_service(&self) -> bool {
        self.name.ends_with("Information") || self.name.ends_with("Information'")
    }
}
