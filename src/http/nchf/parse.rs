//! From bytes to a charging request that the core can decide: everything missing or wrong is found in one go, and named
//! by JSON pointers. Strict on what charging needs; all else is kept as it came.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::civil;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use super::fingerprint::{self, TooDeep};
use super::wire::member::{Fault, Member, Others, Value};
use super::wire::request::{
    MultipleUnitUsage, NfIdentification, PduContainerInformation, PduSessionChargingInformation, Request, Trigger,
    Units, UsedUnitContainer,
};
use crate::charging::command::{
    self, Block, Indicator, Invocation, OneTime, QuotaKey, REPORTS, TriggerCategory, UnitUsage,
};
use crate::charging::ids::{RatingGroup, SubscriberId};
use crate::charging::session::{Consumer, Service};
use crate::charging::text::Text;
use crate::charging::time::Timestamp;
use crate::charging::units;
use crate::http::problem::{InvalidParam, ProblemDetails};

/// A request that can be decided.
#[derive(Debug)]
pub struct Parsed {
    /// It is large, and goes through several hands.
    pub invocation: Box<Invocation>,
    pub one_time: Option<OneTime>,
}

const PDU_SESSION: &str = "pDUSessionChargingInformation";

/// Read when they are asked for: an Update is about the payer and the PDU session of its session, whatever it says.
impl Parsed {
    /// Identifiers under which the payer may be provisioned, the likeliest first. Slice and management charging name a
    /// tenant or a consumer of management services instead of a subscriber.
    pub fn identities(&self) -> Vec<Text> {
        if let Some(subscriber) = &self.invocation.subscriber {
            return vec![subscriber.as_str().into()];
        }
        let named = ["tenantIdentifier", "mnSConsumerIdentifier"].into_iter();
        let named = named.filter_map(|name| self.block::<Cow<'_, str>>(name));
        named.filter(|text| text.len() <= IDENTITY_MAX).map(Into::into).collect()
    }

    /// The PDU session that the request is about.
    pub fn pdu_session(&self) -> Option<u32> {
        let charging = self.block::<PduSessionChargingInformation<'_>>(PDU_SESSION)?;
        is(is(charging.pdu_session_information)?.pdu_session_id)
    }

    fn block<'s, T: Value<'s>>(&'s self, name: &str) -> Option<T> {
        let block = self.invocation.blocks.iter().find(|block| &*block.name == name)?;
        is(serde_json::from_str(&block.json).ok()?)
    }
}

/// Longest identifier of a subscriber, in bytes; NAIs go up to 253 characters.
const IDENTITY_MAX: usize = 256;
/// Longest `notifyUri`, in bytes.
const URI_MAX: usize = 2048;
/// Longest other text that decides something: names, UPF ids, time stamps.
const TEXT_MAX: usize = 512;

/// Reads a `ChargingDataRequest` of either service. `idempotency_key` is that of `3gpp-Sbi-Request-Info`.
///
/// # Errors
///
/// A 400 problem that names every missing and every wrong member.
pub fn charging_data_request(
    body: &[u8],
    service: Service,
    idempotency_key: Option<&str>,
) -> Result<Parsed, ProblemDetails> {
    // One look at the whole body is cheaper than one at each text in it. What is no text is read all the same, because
    // that says where it is none.
    let read = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str::<Member<Request<'_>>>(text),
        Err(_) => serde_json::from_slice(body),
    };
    let request = match read {
        Ok(Member::Is(request)) => request,
        Ok(Member::Absent | Member::Wrong(_)) => {
            let problem = ProblemDetails::invalid_format(vec![InvalidParam::new("", "expected an object")]);
            return Err(problem);
        }
        Err(error) => {
            // The position says where; the text of the error could repeat what was sent.
            let place =
                format!("not readable as JSON of this protocol at line {}, column {}", error.line(), error.column());
            return Err(ProblemDetails::invalid_format(Vec::new()).with_detail(place));
        }
    };
    let mut check = Check::default();
    let parsed = check.request(request, service, idempotency_key);
    match parsed {
        Some(parsed) if check.is_clean() => Ok(parsed),
        _ => Err(check.problem()),
    }
}

/// An instant as real senders write it: RFC 3339, also without a zone (then UTC), with any number of fractional digits,
/// and with offsets such as `+0100`.
pub fn date_time(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.into());
    }
    let local: civil::DateTime = text.parse().ok()?;
    Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

/// Where a member stands in the body.
#[derive(Clone, Copy)]
enum Place<'p> {
    Body,
    Member(&'p Place<'p>, &'p str),
    Element(&'p Place<'p>, usize),
}

impl<'p> Place<'p> {
    fn member(&'p self, name: &'p str) -> Self {
        Self::Member(self, name)
    }

    fn element(&'p self, at: usize) -> Self {
        Self::Element(self, at)
    }

    fn write(&self, pointer: &mut String) {
        match self {
            Self::Body => {}
            Self::Member(parent, name) => {
                parent.write(pointer);
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            Self::Element(parent, at) => {
                parent.write(pointer);
                // Writing to a string does not fail.
                let _ = write!(pointer, "/{at}");
            }
        }
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.write(&mut pointer);
        pointer
    }
}

/// Collects what is missing and what is wrong.
#[derive(Default)]
struct Check {
    format: Vec<InvalidParam>,
    missing: Vec<InvalidParam>,
    incorrect: Vec<InvalidParam>,
    optional_incorrect: Vec<InvalidParam>,
}

impl Check {
    fn is_clean(&self) -> bool {
        self.format.is_empty()
            && self.missing.is_empty()
            && self.incorrect.is_empty()
            && self.optional_incorrect.is_empty()
    }

    /// The cause is that of the gravest finding; all findings are listed.
    fn problem(self) -> ProblemDetails {
        let Self { format, missing, incorrect, optional_incorrect } = self;
        let problem = if !format.is_empty() {
            ProblemDetails::invalid_format
        } else if !missing.is_empty() {
            ProblemDetails::missing
        } else if !incorrect.is_empty() {
            ProblemDetails::incorrect
        } else {
            ProblemDetails::optional_incorrect
        };
        problem([format, missing, incorrect, optional_incorrect].into_iter().flatten().collect())
    }

    fn required<T>(&mut self, place: Place<'_>, member: Member<T>) -> Option<T> {
        match member {
            Member::Is(value) => Some(value),
            Member::Absent => {
                self.missing.push(InvalidParam::new(place.pointer(), "required"));
                None
            }
            Member::Wrong(fault) => {
                self.wrong(place, fault, true);
                None
            }
        }
    }

    fn optional<T>(&mut self, place: Place<'_>, member: Member<T>) -> Option<T> {
        match member {
            Member::Is(value) => Some(value),
            Member::Absent => None,
            Member::Wrong(fault) => {
                self.wrong(place, fault, false);
                None
            }
        }
    }

    fn wrong(&mut self, place: Place<'_>, fault: Fault, is_mandatory: bool) {
        let pointer = place.pointer();
        match fault {
            Fault::Type(expected) => self.format.push(InvalidParam::new(pointer, format!("expected {expected}"))),
            Fault::TooMany => self.format.push(InvalidParam::new(pointer, "too many elements")),
            Fault::Range(range) if is_mandatory => self.incorrect.push(InvalidParam::new(pointer, range)),
            Fault::Range(range) => self.optional_incorrect.push(InvalidParam::new(pointer, range)),
        }
    }

    fn incorrect(&mut self, place: Place<'_>, reason: &'static str) {
        self.incorrect.push(InvalidParam::new(place.pointer(), reason));
    }

    fn optional_incorrect(&mut self, place: Place<'_>, reason: &'static str) {
        self.optional_incorrect.push(InvalidParam::new(place.pointer(), reason));
    }

    fn request(&mut self, request: Request<'_>, service: Service, idempotency_key: Option<&str>) -> Option<Parsed> {
        let body = Place::Body;
        let number = self.required(body.member("invocationSequenceNumber"), request.invocation_sequence_number);
        let timestamp = self.required(body.member("invocationTimeStamp"), request.invocation_time_stamp);
        let invoked_at = timestamp.as_deref().and_then(|text| {
            let at = date_time(text).filter(|_| text.len() <= TEXT_MAX);
            if at.is_none() {
                self.incorrect(body.member("invocationTimeStamp"), "expected a date and time of RFC 3339");
            }
            at
        });
        let consumer = self.consumer(&body, &request.others);
        let subscriber = self.subscriber(&body, request.subscriber_identifier);
        let notify_uri = self.notify_uri(&body, request.notify_uri);
        let features = self.features(&body, request.supported_features);
        let retransmission = self.optional(body.member("retransmissionIndicator"), request.retransmission_indicator);
        let one_time = self.one_time(&body, request.one_time_event, request.one_time_event_type);
        let triggers = self.triggers(&body, request.triggers);
        let usages = self.usages(&body, request.multiple_unit_usage);
        if service == Service::OfflineOnly {
            self.mandatory_pdu_session(&body, &request.others);
        }
        self.service_blocks(&body, &request.others);
        let mut blocks = self.blocks(&body, request.others);
        for (name, member) in REPORTS.iter().filter_map(|report| report.split_once('/')) {
            let at = blocks.iter().position(|block| &*block.name == name && block.json.contains(member));
            if let Some((rest, reports)) = at.and_then(|at| without_reports(&blocks[at], member)) {
                blocks.retain(|block| &*block.name != name);
                blocks.push(rest);
                blocks.extend(reports);
            }
        }

        let mut invocation = Box::new(Invocation {
            number: number?,
            invoked_at: invoked_at?,
            timestamp: timestamp?.into(),
            retransmission: retransmission.unwrap_or(false),
            fingerprint: command::Fingerprint { content: 0, exact: 0 },
            idempotency: idempotency_key.map(hash_key),
            subscriber,
            consumer: consumer?,
            notify_uri,
            features,
            triggers,
            usages,
            blocks,
        });
        invocation.fingerprint = fingerprint::fingerprint(&invocation);
        Some(Parsed { invocation, one_time })
    }

    fn consumer(&mut self, body: &Place<'_>, others: &Others<'_>) -> Option<Consumer> {
        let place = body.member("nfConsumerIdentification");
        let member = read_other::<NfIdentification<'_>>(others, "nfConsumerIdentification");
        let identification = self.required(place, member)?;
        let functionality = self.required(place.member("nodeFunctionality"), identification.node_functionality);
        let name = self.text(place.member("nFName"), identification.name);
        let ipv4 = self.text(place.member("nFIPv4Address"), identification.ipv4);
        let ipv6 = self.text(place.member("nFIPv6Address"), identification.ipv6);
        let fqdn = self.text(place.member("nFFqdn"), identification.fqdn);
        let functionality = functionality?;
        if functionality.len() > TEXT_MAX {
            self.incorrect(place.member("nodeFunctionality"), "too long");
        }
        Some(Consumer { functionality: functionality.into(), name, address: ipv4.or(ipv6).or(fqdn) })
    }

    /// A text that decides something: neither endless nor with control characters.
    fn text(&mut self, place: Place<'_>, member: Member<Cow<'_, str>>) -> Option<Text> {
        let text = self.optional(place, member)?;
        if text.len() > TEXT_MAX || has_control_characters(&text) {
            self.optional_incorrect(place, "expected at most 512 bytes without control characters");
            return None;
        }
        Some(text.into())
    }

    fn subscriber(&mut self, body: &Place<'_>, member: Member<Cow<'_, str>>) -> Option<SubscriberId> {
        let place = body.member("subscriberIdentifier");
        let text = self.optional(place, member)?;
        if text.is_empty() || text.len() > IDENTITY_MAX || has_control_characters(&text) {
            self.incorrect(place, "expected 1 to 256 bytes without control characters");
            return None;
        }
        Some(SubscriberId::new(text))
    }

    /// Where notifications go: an absolute URI of a web server, and nothing beside.
    fn notify_uri(&mut self, body: &Place<'_>, member: Member<Cow<'_, str>>) -> Option<Text> {
        let place = body.member("notifyUri");
        let text = self.optional(place, member)?;
        let is_plain = text.len() <= URI_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let uri = text.parse::<axum::http::Uri>().ok().filter(|_| is_plain);
        let is_web = |uri: &axum::http::Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        };
        if !uri.as_ref().is_some_and(is_web) {
            self.optional_incorrect(place, "expected an absolute http or https URI without user and fragment");
            return None;
        }
        Some(text.into())
    }

    /// Feature 1 is the lowest bit; features above 64 are nobody's yet.
    fn features(&mut self, body: &Place<'_>, member: Member<Cow<'_, str>>) -> Option<u64> {
        let place = body.member("supportedFeatures");
        let text = self.optional(place, member)?;
        if text.len() > TEXT_MAX || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            self.optional_incorrect(place, "expected hexadecimal digits");
            return None;
        }
        let lowest = &text[text.len().saturating_sub(16)..];
        Some(u64::from_str_radix(lowest, 16).unwrap_or(0))
    }

    fn one_time(&mut self, body: &Place<'_>, flag: Member<bool>, kind: Member<Cow<'_, str>>) -> Option<OneTime> {
        let is_event = self.optional(body.member("oneTimeEvent"), flag).unwrap_or(false);
        let kind = self.optional(body.member("oneTimeEventType"), kind);
        is_event.then_some(match kind.as_deref() {
            Some("IEC") => OneTime::Immediate,
            Some("PEC") => OneTime::Post,
            _ => OneTime::Untyped,
        })
    }

    fn triggers(&mut self, parent: &Place<'_>, member: Member<Vec<Member<Trigger<'_>>>>) -> Vec<command::Trigger> {
        let list = parent.member("triggers");
        let elements = self.optional(list, member).unwrap_or_default();
        let mut triggers = Vec::with_capacity(elements.len());
        for (at, element) in elements.into_iter().enumerate() {
            let place = list.element(at);
            let Some(trigger) = self.required(place, element) else { continue };
            let name = self.text(place.member("triggerType"), trigger.trigger_type);
            let category = self.required(place.member("triggerCategory"), trigger.trigger_category);
            triggers.push(command::Trigger {
                name,
                category: match category.as_deref() {
                    Some("IMMEDIATE_REPORT") => TriggerCategory::Immediate,
                    Some("DEFERRED_REPORT") => TriggerCategory::Deferred,
                    other => TriggerCategory::Other(other.unwrap_or_default().into()),
                },
                others: self.blocks(&place, trigger.others),
            });
        }
        triggers
    }

    fn usages(&mut self, body: &Place<'_>, member: Member<Vec<Member<MultipleUnitUsage<'_>>>>) -> Vec<UnitUsage> {
        let list = body.member("multipleUnitUsage");
        let elements = self.optional(list, member).unwrap_or_default();
        let mut usages: Vec<UnitUsage> = Vec::with_capacity(elements.len());
        for (at, element) in elements.into_iter().enumerate() {
            let place = list.element(at);
            let Some(usage) = self.required(place, element) else { continue };
            let rating_group = self.required(place.member("ratingGroup"), usage.rating_group);
            let requested = self.optional(place.member("requestedUnit"), usage.requested_unit);
            let requested = requested.map(|units| self.units(&place.member("requestedUnit"), units));
            let containers = self.containers(&place, usage.used_unit_container);
            let upf = self.text(place.member("uPFID"), usage.upf_id);
            let mb_upf = self.text(place.member("mBUPFID"), usage.mb_upf_id);
            let mut others = usage.others;
            let multihomed = others.iter().position(|(name, _)| name == "multihomedPDUAddress");
            let multihomed = multihomed.map(|at| others.swap_remove(at).1);
            let multihomed = multihomed.and_then(|json| self.address(place.member("multihomedPDUAddress"), json));
            if let Some(rating_group) = rating_group {
                let key = QuotaKey { rating_group: RatingGroup(rating_group), upf, multihomed, mb_upf };
                let (containers, others) = (containers.into(), self.blocks(&place, others));
                usages.push(UnitUsage { key, requested, containers, others });
            }
        }
        usages
    }

    /// A member that tells quotas apart is the same member in each of its spellings.
    fn address(&mut self, place: Place<'_>, json: &RawValue) -> Option<Text> {
        if json.get() == "null" {
            return None;
        }
        let object =
            Some(json).filter(|json| json.get().starts_with('{') && fingerprint::hash_json(json.get()).is_ok());
        let address = object.and_then(one_spelling);
        if address.is_none() {
            self.wrong(place, Fault::Type("an object"), false);
        }
        address.map(Into::into)
    }

    fn units(&mut self, place: &Place<'_>, units: Units<'_>) -> units::Units {
        units::Units {
            time: self.optional(place.member("time"), units.time),
            total_volume: self.optional(place.member("totalVolume"), units.total_volume),
            uplink_volume: self.optional(place.member("uplinkVolume"), units.uplink_volume),
            downlink_volume: self.optional(place.member("downlinkVolume"), units.downlink_volume),
            service_specific_units: self.optional(place.member("serviceSpecificUnits"), units.service_specific_units),
        }
    }

    fn containers(
        &mut self,
        usage: &Place<'_>,
        member: Member<Vec<Member<UsedUnitContainer<'_>>>>,
    ) -> Vec<command::Container> {
        let list = usage.member("usedUnitContainer");
        let elements = self.optional(list, member).unwrap_or_default();
        let mut containers = Vec::with_capacity(elements.len());
        for (at, element) in elements.into_iter().enumerate() {
            let place = list.element(at);
            if let Some(container) = self.required(place, element) {
                containers.extend(self.container(&place, container));
            }
        }
        containers
    }

    fn container(&mut self, place: &Place<'_>, container: UsedUnitContainer<'_>) -> Option<command::Container> {
        let number = self.required(place.member("localSequenceNumber"), container.local_sequence_number);
        let indicator = self.text(place.member("quotaManagementIndicator"), container.quota_management_indicator);
        let closed_at = self.optional(place.member("triggerTimestamp"), container.trigger_timestamp);
        let closed_at = closed_at.and_then(|text| {
            let at = date_time(&text);
            if at.is_none() {
                self.optional_incorrect(place.member("triggerTimestamp"), "expected a date and time of RFC 3339");
            }
            at
        });
        let units = units::Units {
            time: self.optional(place.member("time"), container.time),
            total_volume: self.optional(place.member("totalVolume"), container.total_volume),
            uplink_volume: self.optional(place.member("uplinkVolume"), container.uplink_volume),
            downlink_volume: self.optional(place.member("downlinkVolume"), container.downlink_volume),
            service_specific_units: self
                .optional(place.member("serviceSpecificUnits"), container.service_specific_units),
        };
        let (first_usage, last_usage) = used_between(&container.others);
        Some(command::Container {
            indicator: indicator.map(|text| match &*text {
                "ONLINE_CHARGING" => Indicator::Online,
                "OFFLINE_CHARGING" => Indicator::Offline,
                "QUOTA_MANAGEMENT_SUSPENDED" => Indicator::Suspended,
                _ => Indicator::Other(text),
            }),
            units,
            triggers: self.triggers(place, container.triggers),
            closed_at,
            first_usage,
            last_usage,
            service_id: self.optional(place.member("serviceId"), container.service_id),
            others: self.blocks(place, container.others),
            local_sequence_number: number?,
        })
    }

    /// In the offline service the identity of a PDU session is mandatory (TS 32.291 6.2.6).
    fn mandatory_pdu_session(&mut self, body: &Place<'_>, others: &Others<'_>) {
        if let Member::Is(block) = read_other::<PduSessionChargingInformation<'_>>(others, PDU_SESSION)
            && block.pdu_session_information == Member::Absent
        {
            self.required::<()>(body.member(PDU_SESSION).member("pduSessionInformation"), Member::Absent);
        }
    }

    /// An exposed API is charged by its name (TS 32.254), so it must have one.
    fn service_blocks(&mut self, body: &Place<'_>, others: &Others<'_>) {
        let name = "nEFChargingInformation";
        if let Member::Is(block) = read_other::<Opaque<'_>>(others, name)
            && !block.0.iter().any(|(name, json)| name == "aPIName" && json.get() != "null")
        {
            self.required::<()>(body.member(name).member("aPIName"), Member::Absent);
        }
    }

    fn blocks(&mut self, parent: &Place<'_>, others: Others<'_>) -> Vec<Block> {
        let mut blocks = Vec::with_capacity(others.len());
        for (name, json) in others {
            match fingerprint::hash_json(json.get()) {
                Ok(hash) => blocks.push(Block { name: name.into(), json: json.get().into(), hash }),
                Err(TooDeep) => {
                    let pointer = parent.member(&name).pointer();
                    self.format.push(InvalidParam::new(pointer, "nested too deeply"));
                }
            }
        }
        blocks
    }
}

/// Nearly all texts are plain, which is found by one look at all bytes, many at a time: so no early end.
fn has_control_characters(text: &str) -> bool {
    let is_odd = |byte: u8| byte.is_ascii_control() || !byte.is_ascii();
    text.bytes().fold(false, |found, byte| found | is_odd(byte)) && text.chars().any(char::is_control)
}

/// An object of which only the names of the members matter.
struct Opaque<'de>(Others<'de>);

impl<'de> Value<'de> for Opaque<'de> {
    const EXPECTED: &'static str = "an object";

    fn object<A: serde::de::MapAccess<'de>>(mut map: A) -> Result<Result<Self, Fault>, A::Error> {
        use super::wire::member::{Name, keep};

        let mut others = Others::new();
        while let Some(Name(name)) = map.next_key()? {
            keep(&mut others, name, &mut map)?;
        }
        Ok(Ok(Self(others)))
    }
}

/// Reads a member that is otherwise kept as it came. What cannot be read is as good as of a wrong type.
fn read_other<'de, T: Value<'de>>(others: &Others<'de>, name: &str) -> Member<T> {
    let Some((_, json)) = others.iter().find(|(known, _)| known == name) else { return Member::Absent };
    read_raw(json)
}

fn read_raw<'de, T: Value<'de>>(json: &'de RawValue) -> Member<T> {
    serde_json::from_str(json.get()).unwrap_or(Member::Wrong(Fault::Type(T::EXPECTED)))
}

/// Without spaces, the members of objects by their names. `None` for a member that is named twice, or too many of them.
/// It must not be nested deeper than the fingerprint reads.
fn one_spelling(json: &RawValue) -> Option<String> {
    match json.get().as_bytes().first() {
        Some(b'{') => {
            let Opaque(mut members) = is(read_raw(json))?;
            members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            let member = |(name, json): &(Cow<'_, str>, &RawValue)| {
                Some(format!("{}:{}", serde_json::Value::from(&**name), one_spelling(json)?))
            };
            Some(format!("{{{}}}", members.iter().map(member).collect::<Option<Vec<_>>>()?.join(",")))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(json.get()).ok()?;
            let items = items.into_iter().map(one_spelling).collect::<Option<Vec<_>>>()?;
            Some(format!("[{}]", items.join(",")))
        }
        _ => Some(json.get().to_owned()),
    }
}

fn is<T>(member: Member<T>) -> Option<T> {
    match member {
        Member::Is(value) => Some(value),
        Member::Absent | Member::Wrong(_) => None,
    }
}

/// A block without what one of its members reports, and that as blocks of its own. `None` where there is no such member
/// or no object.
fn without_reports(block: &Block, member: &str) -> Option<(Block, Vec<Block>)> {
    let Ok(Member::Is(Opaque(mut others))) = serde_json::from_str::<Member<Opaque<'_>>>(&block.json) else {
        return None;
    };
    let at = others.iter().position(|(name, _)| name == member)?;
    let (_, reported) = others.remove(at);
    let items = match serde_json::from_str::<Option<Vec<&RawValue>>>(reported.get()) {
        Ok(items) => items.unwrap_or_default(),
        Err(_) => vec![reported],
    };
    let others = others.iter().map(|(name, json)| format!("{}:{}", serde_json::Value::from(&**name), json.get()));
    let rest = format!("{{{}}}", others.collect::<Vec<_>>().join(","));
    let part = |name: Text, json: &str| {
        let hash = fingerprint::hash_json(json).ok()?;
        Some(Block { name, json: json.into(), hash })
    };
    let name = format!("{}/{member}", block.name);
    let reports = items.iter().map(|item| part(name.as_str().into(), item.get())).collect::<Option<_>>()?;
    Some((part(block.name.clone(), &rest)?, reports))
}

/// When a container's units were used, where it says so readably; the block itself is only informational.
fn used_between(others: &Others<'_>) -> (Option<Timestamp>, Option<Timestamp>) {
    match read_other::<PduContainerInformation<'_>>(others, "pDUContainerInformation") {
        Member::Is(information) => {
            let at = |member| is(member).and_then(|text: Cow<'_, str>| date_time(&text));
            (at(information.time_of_first_usage), at(information.time_of_last_usage))
        }
        Member::Absent | Member::Wrong(_) => (None, None),
    }
}

fn hash_key(key: &str) -> u64 {
    use std::hash::Hasher;
    // Stored, so the hash's own key is fixed.
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(key.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_another_spelling_is_the_same_quota() {
        let read = |address: &str| {
            let body = format!(
                r#"{{"invocationSequenceNumber":1,"invocationTimeStamp":"2026-01-01T00:00:00Z",
                "nfConsumerIdentification":{{"nodeFunctionality":"SMF"}},
                "multipleUnitUsage":[{{"ratingGroup":10,"multihomedPDUAddress":{address}}}]}}"#
            );
            let mut parsed = charging_data_request(body.as_bytes(), Service::Converged, None)?;
            Ok::<_, ProblemDetails>((parsed.invocation.usages.remove(0).key.multihomed, parsed.invocation.fingerprint))
        };
        let plain = read(r#"{"a":[1,{"x":1,"y":2}],"pduIPv4Address":"10.0.0.1"}"#).unwrap();
        assert_eq!(read(r#" { "pduIPv4Address" : "10.0.0.1", "\u0061": [1, { "y": 2, "x": 1 }] }"#).unwrap(), plain);
        assert_ne!(read(r#"{"a":[1,{"x":1,"y":2}],"pduIPv4Address":"10.0.0.2"}"#).unwrap(), plain);
        assert_eq!(read("null").unwrap().0, None);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        for wrong in ["7", "[]", r#"{"a":1,"a":2}"#, &deep] {
            let problem = read(wrong).unwrap_err();
            assert_eq!(problem.invalid_params[0].param, "/multipleUnitUsage/0/multihomedPDUAddress", "{wrong}");
        }
    }

    #[test]
    fn instants_are_read_as_real_senders_write_them() {
        let at = |text: &str| date_time(text).map(Timestamp::millis);
        for (text, millis) in [
            ("2026-01-01T00:00:00Z", Some(1_767_225_600_000)),
            ("2026-01-01T00:00:00.5Z", Some(1_767_225_600_500)),
            ("2026-01-01T08:00:00.123456789+08:00", Some(1_767_225_600_123)),
            ("2026-01-01T01:00:00+0100", Some(1_767_225_600_000)),
            ("2026-01-01T00:00:00", Some(1_767_225_600_000)),
            ("2026-01-01t00:00:00z", Some(1_767_225_600_000)),
            ("2026-01-01 00:00:00Z", Some(1_767_225_600_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_799_000)),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-01T00:00:00+99:99", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(at(text), millis, "{text}");
        }
    }
}
