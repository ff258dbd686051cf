//! A charging session: all that is known of it between two messages.

use serde::{Deserialize, Serialize};

use super::account::Reservation;
use super::cdr::CauseForRecordClosing;
use super::command::{Block, Indicator, QuotaKey};
use super::decide::Rules;
use super::decision::{Answer, ResultCode};
use super::ids::{AccountId, ChargingDataRef, RatingGroup, SubscriberId, TariffPlanId};
use super::lists::Few;
use super::money::Amount;
use super::tariff::{FinalUnit, Price};
use super::text::Text;
use super::time::{Span, Timestamp};
use super::units::UnitKind;

/// Our state behind a `ChargingDataRef`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargingSession {
    pub reference: ChargingDataRef,
    pub state: SessionState,
    pub service: Service,
    /// `None` when nobody is charged: usage is only recorded.
    pub payer: Option<Payer>,
    pub consumer: Consumer,
    pub notify_uri: Option<Text>,
    /// Negotiated features as a bit mask, feature 1 lowest.
    pub features: u64,
    pub opened_at: Timestamp,
    pub updated_at: Timestamp,
    /// The Create's number.
    pub first_number: u32,
    pub numbering: Numbering,
    pub remembered: Vec<Remembered>,
    pub containers: ContainerMemory,
    pub quotas: Vec<Quota>,
    pub meters: Vec<Meter>,
    /// Marks of the blocks recorded last, to record only what changes: 48 bits of their hashes, and their lengths.
    pub blocks: Vec<(Text, u64)>,
    /// Money charged so far.
    pub charged: Amount,
    /// Where the store's timer entry stands; `None` when there is none.
    pub timer_at: Option<Timestamp>,
    /// Index key of consumer, subscriber and PDU session, as two halves.
    pub pdu_session_key: Option<(u64, u64)>,
    pub record: RecordSoFar,
}

/// The record that a session collects for now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSoFar {
    /// How many records of the session have closed.
    pub part: u32,
    /// `None` is the session's own opening.
    pub opened_at: Option<Timestamp>,
    /// Octets collected besides the blocks, as `parts` estimates them.
    pub octets: u32,
}

/// Which of the two charging services the session was opened through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    #[serde(rename = "c")]
    Converged,
    /// Nchf_OfflineOnlyCharging (TS 32.291 6.2): usage is recorded, no quota is managed, no money moves.
    #[serde(rename = "o")]
    OfflineOnly,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    #[serde(rename = "a")]
    Active,
    /// Idle for too long and asked to report.
    #[serde(rename = "p")]
    Probing { since: Timestamp },
    /// Told to end: usage is charged, nothing is granted.
    #[serde(rename = "b")]
    Aborting { since: Timestamp },
    /// The tombstone: answers repeated requests and takes late usage.
    #[serde(rename = "c")]
    Closed { at: Timestamp, cause: ClosingCause },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClosingCause {
    #[serde(rename = "r")]
    Released,
    /// A one-time event: there never was a session.
    #[serde(rename = "e")]
    Event,
    /// The consumer opened another session for the same PDU session.
    #[serde(rename = "s")]
    Superseded,
    /// Idle for too long, and the question whether it still lives was not answered or could not be asked.
    #[serde(rename = "i")]
    Idle,
    /// Told to end, and no Release came.
    #[serde(rename = "u")]
    AbortUnanswered,
    /// Ended by the operator, and the consumer could not be told.
    #[serde(rename = "a")]
    Aborted,
    /// The consumer no longer knows the session.
    #[serde(rename = "g")]
    ConsumerGone,
}

impl ClosingCause {
    /// What its record says of it.
    pub const fn of_record(self) -> CauseForRecordClosing {
        match self {
            Self::Released | Self::Event => CauseForRecordClosing::NormalRelease,
            Self::Aborted => CauseForRecordClosing::ManagementIntervention,
            Self::Superseded | Self::Idle | Self::AbortUnanswered | Self::ConsumerGone => {
                CauseForRecordClosing::AbnormalRelease
            }
        }
    }

    /// It is certain that no Release came where one had to come.
    pub const fn lost_the_release(self) -> bool {
        match self {
            Self::Released | Self::Event | Self::Aborted => false,
            Self::Superseded | Self::Idle | Self::AbortUnanswered | Self::ConsumerGone => true,
        }
    }
}

/// Who pays for a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payer {
    pub subscriber: SubscriberId,
    /// What the Create called the subscriber, where that is not the provisioned identifier.
    pub named: Option<SubscriberId>,
    pub account: AccountId,
    pub plan: TariffPlanId,
    /// The version of the last grant: rates usage that no grant covers.
    pub plan_version: u32,
    pub final_unit: Option<FinalUnit>,
}

/// The calling network function (TS 32.291 `NFIdentification`), as far as it tells sessions apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Consumer {
    pub functionality: Text,
    #[serde(with = "super::packed::name")]
    pub name: Option<Text>,
    /// IPv4, IPv6 or FQDN, the first that is there.
    pub address: Option<Text>,
}

/// How a consumer numbers its requests; see `replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Numbering {
    /// No Update has come yet.
    #[serde(rename = "u")]
    Unknown,
    /// Each request has a number of its own. Ranges of the numbers seen, in order, both ends included.
    #[serde(rename = "s")]
    Sequenced(Vec<(u32, u32)>),
    /// Every request has the same number, so requests are told apart by their exact content. Marks of those whose
    /// answers are forgotten, the oldest first.
    #[serde(rename = "c")]
    Constant { forgotten: Vec<u64> },
}

/// An operation that was done, and what was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    pub operation: Operation,
    pub number: u32,
    /// Recognises copies; see `replay::mark`.
    pub mark: u64,
    pub idempotency: Option<u64>,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    #[serde(rename = "c")]
    Create,
    #[serde(rename = "u")]
    Update,
    #[serde(rename = "r")]
    Release,
}

impl Operation {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Release => "release",
        }
    }
}

/// Containers seen lately, for consumers whose container numbers grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMemory {
    /// Some number was larger than one of an earlier request: the consumer counts.
    pub grows: bool,
    /// Some number stood on two different containers: the numbers say nothing.
    pub unreliable: bool,
    /// The oldest first.
    pub seen: Vec<SeenContainer>,
}

/// What tells a container from another one of the same rating group and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenContainer {
    pub rating_group: RatingGroup,
    pub number: i64,
    /// Of its units and the time it was closed. Compared only where rating group and number are the same.
    pub hash: u32,
}

/// One quota of a session: what it was granted and what it used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub key: QuotaKey,
    pub grant: Option<Grant>,
    /// In the unit of the tariff; volume where there is none.
    pub used: u64,
    /// What the last request for quota was answered.
    pub last_code: Option<ResultCode>,
    /// The last grant was announced as the last one there is.
    pub final_unit: bool,
    /// The grant expired unreported: what is reported next was used under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// Units that the consumer may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub kind: UnitKind,
    pub granted: u64,
    pub used: u64,
    pub reserved: Vec<Reservation>,
    pub valid_until: Option<Timestamp>,
    /// Version of the plan that usage of this grant is rated with.
    pub plan_version: u32,
}

/// Cumulative usage of one rating group at one price: what makes started blocks exact however usage is split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    pub rating_group: RatingGroup,
    pub price: Price,
    pub used: u64,
}

/// Operations whose answers are kept. A consumer has one or two requests under way for a session at a time.
const REMEMBERED_MAX: usize = 4;
/// Operations of a consumer with one constant number that are recognised after their answers are forgotten.
const FORGOTTEN_MAX: usize = 32;
/// Containers remembered: more than a consumer that lost an answer merges into its next request.
const CONTAINERS_KEPT: usize = 8;
/// All containers of the latest request are remembered, up to this many; every session's document carries them.
const CONTAINERS_MAX: usize = 256;
/// The part of a block's mark that is its length; longer ones count as this.
const LENGTH_BITS: u64 = 0xFFFF;
/// Ranges of numbers; a consumer that leaves more gaps than this has its oldest ones taken as seen.
const RANGES_MAX: usize = 64;

impl ChargingSession {
    pub fn is_closed(&self) -> bool {
        matches!(self.state, SessionState::Closed { .. })
    }

    pub fn is_event(&self) -> bool {
        matches!(self.state, SessionState::Closed { cause: ClosingCause::Event, .. })
    }

    /// Keeps the answer of an operation for its replay. The Create's answer stays for good: its Location is the only
    /// way to the session for a consumer that lost it. So does the Release's: what it reported must not be taken for
    /// late usage.
    pub fn remember(&mut self, done: Remembered) {
        if let Numbering::Sequenced(seen) = &mut self.numbering
            && done.operation == Operation::Update
        {
            add_to_ranges(seen, done.number);
        }
        if self.remembered.len() >= REMEMBERED_MAX {
            let release = self.remembered.iter().position(|done| done.operation == Operation::Release);
            let oldest = self.remembered.remove(if release == Some(1) { 2 } else { 1 });
            if let Numbering::Constant { forgotten } = &mut self.numbering {
                if forgotten.len() >= FORGOTTEN_MAX {
                    forgotten.remove(0);
                }
                forgotten.push(oldest.mark);
            }
        }
        self.remembered.push(done);
    }

    /// The position of a quota, made when there is none.
    pub fn quota_at(&mut self, key: &QuotaKey) -> usize {
        self.quotas.iter().position(|quota| quota.key == *key).unwrap_or_else(|| {
            self.quotas.push(Quota {
                key: key.clone(),
                grant: None,
                used: 0,
                last_code: None,
                final_unit: false,
                expired: false,
            });
            self.quotas.len().saturating_sub(1)
        })
    }

    /// Takes note of a block; answers whether it is new or has changed.
    pub fn notes_change(&mut self, block: &Block) -> bool {
        let length = u64::try_from(block.json.len()).unwrap_or(u64::MAX).min(LENGTH_BITS);
        let mark = (block.hash & !LENGTH_BITS) | length;
        match self.blocks.iter_mut().find(|(name, _)| *name == block.name) {
            // Another spelling of the same content is no change.
            Some((_, known)) if (*known ^ mark) & !LENGTH_BITS == 0 => false,
            Some((_, known)) => {
                *known = mark;
                true
            }
            None => {
                self.blocks.push((block.name.clone(), mark));
                true
            }
        }
    }

    /// What is left of `octets_max` for containers, beside the blocks that stand in each record of the session. At
    /// least a quarter, so that large blocks do not make a record of every container.
    pub fn room_for_containers(&self, octets_max: u32) -> u32 {
        let sizes = self.blocks.iter().map(|(name, mark)| {
            u32::try_from(mark & LENGTH_BITS)
                .unwrap_or(u32::MAX)
                .saturating_add(u32::try_from(name.len()).unwrap_or(u32::MAX))
        });
        let blocks = sizes.fold(0, u32::saturating_add);
        octets_max.saturating_sub(blocks).max(octets_max / 4)
    }

    /// Usage so far at a price.
    pub fn metered(&self, rating_group: RatingGroup, price: Price) -> u64 {
        self.meters
            .iter()
            .find(|meter| meter.rating_group == rating_group && meter.price == price)
            .map_or(0, |meter| meter.used)
    }

    /// Counts usage at a price; a price of zero has no blocks to count.
    pub fn meter(&mut self, rating_group: RatingGroup, price: Price, units: u64) {
        if price.is_free() {
            return;
        }
        match self.meters.iter_mut().find(|meter| meter.rating_group == rating_group && meter.price == price) {
            Some(meter) => meter.used = meter.used.saturating_add(units),
            None => self.meters.push(Meter { rating_group, price, used: units }),
        }
    }

    /// When something must happen to the session if no message comes before; `None` when nothing ever must.
    pub fn due_at(&self, rules: &Rules) -> Option<Timestamp> {
        let patience = self.patience_ends(rules)?;
        let quotas = self.quotas.iter().filter_map(|quota| quota.expires_at(rules));
        Some(quotas.chain(self.record_full_at(rules)).fold(patience, Timestamp::min))
    }

    /// When the silence of the consumer has lasted too long.
    pub fn patience_ends(&self, rules: &Rules) -> Option<Timestamp> {
        match self.state {
            SessionState::Active => Some(self.updated_at.after(rules.supervision)),
            SessionState::Probing { since } => Some(since.after(rules.probe_guard)),
            SessionState::Aborting { since } => Some(since.after(rules.abort_guard)),
            SessionState::Closed { .. } => None,
        }
    }

    /// When the record has been open for as long as one may be.
    pub fn record_full_at(&self, rules: &Rules) -> Option<Timestamp> {
        Some(self.record.opened_at.unwrap_or(self.opened_at).after(rules.record_open_max?))
    }

    /// When the store drops the document, if nothing comes before.
    pub fn expires_at(&self, tombstone: Span, open: Span) -> Timestamp {
        match self.state {
            SessionState::Closed { at, .. } => at.after(tombstone),
            SessionState::Active | SessionState::Probing { .. } | SessionState::Aborting { .. } => {
                self.updated_at.after(open)
            }
        }
    }

    /// Rating groups that hold a grant, each once for each quota of it.
    pub fn granted_groups(&self) -> impl Iterator<Item = RatingGroup> + '_ {
        self.quotas.iter().filter(|quota| quota.grant.is_some()).map(|quota| quota.key.rating_group)
    }

    /// Some quota of the rating group holds a grant, or held one that expired before its usage was reported.
    pub fn holds_grant(&self, rating_group: RatingGroup) -> bool {
        let of_group = self.quotas.iter().filter(|quota| quota.key.rating_group == rating_group);
        of_group.into_iter().any(|quota| quota.grant.is_some() || quota.expired)
    }

    /// The rating groups with quotas, each once.
    pub fn rating_groups(&self) -> Vec<RatingGroup> {
        self.groups_where(|_| true)
    }

    /// The rating groups that a credit concerns: refused for want of it, or granted what was left of it.
    pub fn ran_out_groups(&self) -> Vec<RatingGroup> {
        self.groups_where(|quota| quota.final_unit || quota.last_code == Some(ResultCode::QuotaLimitReached))
    }

    fn groups_where(&self, is_one: impl Fn(&Quota) -> bool) -> Vec<RatingGroup> {
        let mut groups: Vec<_> =
            self.quotas.iter().filter(|quota| is_one(quota)).map(|quota| quota.key.rating_group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The versions of the payer's plan that a decision over this session may ask for.
    pub fn plan_versions(&self) -> impl Iterator<Item = (&TariffPlanId, u32)> {
        let grants = || self.quotas.iter().filter_map(|quota| quota.grant.as_ref());
        self.payer.iter().flat_map(move |payer| {
            let versions = grants().map(|grant| grant.plan_version).chain([payer.plan_version]);
            versions.map(|version| (&payer.plan, version))
        })
    }
}

impl Quota {
    /// When its grant counts as unused, unless a report comes before.
    pub fn expires_at(&self, rules: &Rules) -> Option<Timestamp> {
        Some(self.grant.as_ref()?.valid_until?.after(rules.validity_grace))
    }
}

impl RecordSoFar {
    /// Closes the record and opens the next; answers the closed one's place.
    pub fn close(&mut self, now: Timestamp) -> u32 {
        let part = self.part;
        self.part = part.saturating_add(1);
        self.opened_at = Some(now);
        part
    }
}

impl Numbering {
    pub fn has_seen(&self, number: u32) -> bool {
        match self {
            Self::Sequenced(ranges) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&number)),
            Self::Unknown | Self::Constant { .. } => false,
        }
    }

    /// A number after which larger ones came already.
    pub fn is_behind(&self, number: u32) -> bool {
        match self {
            Self::Sequenced(ranges) => ranges.last().is_some_and(|(_, last)| number < *last),
            Self::Unknown | Self::Constant { .. } => false,
        }
    }
}

fn add_to_ranges(ranges: &mut Vec<(u32, u32)>, number: u32) {
    let at = ranges.partition_point(|(first, _)| *first <= number);
    let joins_left =
        at.checked_sub(1).filter(|left| ranges.get(*left).is_some_and(|(_, last)| number <= last.saturating_add(1)));
    match joins_left {
        Some(left) => {
            if let Some((_, last)) = ranges.get_mut(left) {
                *last = (*last).max(number);
            }
            join(ranges, left);
        }
        None => {
            ranges.insert(at, (number, number));
            join(ranges, at);
        }
    }
    if ranges.len() > RANGES_MAX {
        let (first, _) = ranges.remove(0);
        if let Some((lowest, _)) = ranges.first_mut() {
            *lowest = first;
        }
    }
}

/// Merges the range at `at` with the next when they touch.
fn join(ranges: &mut Vec<(u32, u32)>, at: usize) {
    let next = at.saturating_add(1);
    if let (Some((_, last)), Some((first, _))) = (ranges.get(at).copied(), ranges.get(next).copied())
        && first <= last.saturating_add(1)
    {
        let (_, end) = ranges.remove(next);
        if let Some((_, last)) = ranges.get_mut(at) {
            *last = (*last).max(end);
        }
    }
}

impl ContainerMemory {
    /// Which containers were seen before.
    pub fn known(&self, containers: &[SeenContainer]) -> Few<bool> {
        containers.iter().map(|one| self.seen.contains(one)).collect()
    }

    /// Takes the containers of one request, in the order of their numbers, and says which were there before. They
    /// count as repeated only where the consumer's numbers grow: one that always sends the same number may well report
    /// the same usage twice and mean it.
    pub fn take(&mut self, containers: &[SeenContainer]) -> Few<bool> {
        let known = self.known(containers);
        for one in containers {
            let before = self.seen.iter().filter(|seen| seen.rating_group == one.rating_group);
            self.grows |= before.map(|seen| seen.number).max().is_some_and(|largest| one.number > largest);
        }
        for (one, known) in containers.iter().zip(&known) {
            if *known {
                continue;
            }
            self.unreliable |= self.seen.iter().any(|seen| seen.has_place_of(one));
            let kept = containers.len().clamp(CONTAINERS_KEPT, CONTAINERS_MAX);
            self.seen.drain(..self.seen.len().saturating_add(1).saturating_sub(kept));
            self.seen.push(*one);
        }
        let mut numbers: Few<_> = containers.iter().map(|one| (one.rating_group, one.number)).collect();
        numbers.sort_unstable();
        self.unreliable |= numbers.windows(2).any(|pair| matches!(pair, [one, next] if one == next));
        let trusted = self.grows && !self.unreliable;
        known.into_iter().map(|known| known && trusted).collect()
    }
}

impl SeenContainer {
    /// Both stand for the same container, whatever else they say of it.
    pub fn has_place_of(&self, other: &Self) -> bool {
        self.rating_group == other.rating_group && self.number == other.number
    }
}

impl Indicator {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Online => "ONLINE_CHARGING",
            Self::Offline => "OFFLINE_CHARGING",
            Self::Suspended => "QUOTA_MANAGEMENT_SUSPENDED",
            Self::Other(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(all: &[(u32, i64, u32)]) -> Vec<SeenContainer> {
        all.iter()
            .map(|(rating_group, number, hash)| SeenContainer {
                rating_group: RatingGroup(*rating_group),
                number: *number,
                hash: *hash,
            })
            .collect()
    }

    /// Each row: the requests' containers as (rating group, number, hash), then what the last one is told.
    #[test]
    fn a_container_counts_as_repeated_only_where_numbers_grow() {
        type Request = &'static [(u32, i64, u32)];
        let rows: &[(&str, &[Request], &[bool])] = &[
            ("merged retry", &[&[(10, 4, 1)], &[(10, 4, 1), (10, 5, 2)]], &[true, false]),
            ("same again under a new number", &[&[(10, 1, 1)], &[(10, 2, 2)], &[(10, 2, 2)]], &[true]),
            ("always number 0, identical usage", &[&[(10, 0, 1)], &[(10, 0, 1)]], &[false]),
            ("always number 0, other usage", &[&[(10, 0, 1)], &[(10, 0, 2)], &[(10, 0, 1)]], &[false]),
            (
                "numbers restart in each request",
                &[&[(10, 1, 1), (10, 2, 2)], &[(10, 1, 3), (10, 2, 2)]],
                &[false, false],
            ),
            ("twice the same in one request", &[&[(10, 0, 1)], &[(10, 1, 2), (10, 1, 2)], &[(10, 1, 2)]], &[false]),
            (
                "each rating group counts by itself",
                &[&[(10, 1, 1), (20, 1, 9)], &[(10, 1, 1), (10, 2, 2)]],
                &[true, false],
            ),
            ("older ones may come late", &[&[(10, 1, 1)], &[(10, 4, 4)], &[(10, 3, 3)], &[(10, 4, 4)]], &[true]),
        ];
        for (name, requests, told) in rows {
            let mut memory = ContainerMemory::default();
            let answers: Vec<_> = requests.iter().map(|request| memory.take(&containers(request))).collect();
            assert_eq!(&answers.last().unwrap()[..], *told, "{name}");
        }
    }

    #[test]
    fn ranges_of_numbers_stay_few() {
        let mut ranges = Vec::new();
        for number in [5, 7, 6, 1, 3, 2, 6, u32::MAX] {
            add_to_ranges(&mut ranges, number);
        }
        assert_eq!(ranges, [(1, 3), (5, 7), (u32::MAX, u32::MAX)]);
        for number in (100..400).step_by(2) {
            add_to_ranges(&mut ranges, number);
        }
        assert_eq!(ranges.len(), RANGES_MAX);
        assert!(Numbering::Sequenced(ranges).has_seen(4), "gaps that are given up count as seen");
    }
}
