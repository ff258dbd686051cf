//! What a consumer sends, and what it expects back.
//!
//! The bodies are those of an SMF with one PDU session and two rating groups of the demo plan: 10, which costs money, and
//! 40, which does not; about 1.8 kB each. Those of events are an SMSF's, for rating group 30. They are texts with slots
//! instead of serialized structs, so that the generator spends its time on the network and shares no mistake with the
//! parser it measures.

use std::borrow::Cow;

use hyper::StatusCode;
use serde::Deserialize;

use super::link::{Answer, Fault};
use super::session::Exchange;
use crate::charging::time::Timestamp;

pub(super) const CHARGING_DATA: &str = "/nchf-convergedcharging/v3/chargingdata";

/// The rating groups of the messages of a session.
pub(super) const RATING_GROUPS: [u32; 2] = [10, 40];
/// The rating group of an event.
pub(super) const EVENT_RATING_GROUP: u32 = 30;

/// Asked for in each Create and Update: one block of the demo plan's price.
const REQUESTED_OCTETS: u64 = 1_048_576;
/// Reported in each Update and Release: small, so that the demo balances last for millions of messages.
const USED_OCTETS: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Update,
    Release,
    Event,
    /// Any of the others once more, to the octet.
    Copy,
}

impl Operation {
    pub(super) const ALL: [Self; 5] = [Self::Create, Self::Update, Self::Release, Self::Event, Self::Copy];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Release => "release",
            Self::Event => "event",
            Self::Copy => "copy",
        }
    }

    pub(super) fn ends_session(self) -> bool {
        matches!(self, Self::Release | Self::Event)
    }

    fn expected_status(self) -> StatusCode {
        match self {
            Self::Create | Self::Event => StatusCode::CREATED,
            Self::Update | Self::Copy => StatusCode::OK,
            Self::Release => StatusCode::NO_CONTENT,
        }
    }

    fn asks(self) -> bool {
        self != Self::Release
    }

    fn reports(self) -> bool {
        self != Self::Create
    }
}

/// PDU sessions that a device may have at once, by their ids.
const PDU_SESSIONS: u64 = 15;

/// Subscribers with consecutive IMSIs.
#[derive(Clone, Debug)]
pub(super) struct Subscribers {
    first: u64,
    digits: usize,
    count: u64,
}

impl Subscribers {
    pub(super) fn new(first_supi: &str, count: u64) -> Option<Self> {
        let digits = first_supi.strip_prefix("imsi-")?;
        let usable = (5..=15).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        let first: u64 = if usable { digits.parse().ok()? } else { return None };
        let last = first.checked_add(count.checked_sub(1)?)?;
        (last.to_string().len() <= digits.len()).then_some(Self { first, digits: digits.len(), count })
    }

    /// Sessions that may be open at once.
    pub(super) fn sessions_max(&self) -> u64 {
        self.count.saturating_mul(PDU_SESSIONS)
    }

    pub(super) fn supis(&self) -> impl Iterator<Item = String> + use<> {
        let Self { first, digits, count } = *self;
        (first..first + count).map(move |imsi| format!("imsi-{imsi:0digits$}"))
    }

    pub(super) fn of_session(&self, session: u64) -> Subscriber {
        let imsi = self.first + session % self.count;
        // A subscriber that comes round again opens its next PDU session: two open sessions with one id would be a
        // restart of the consumer.
        Subscriber { imsi, digits: self.digits, pdu_session: 1 + session / self.count % PDU_SESSIONS }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber {
    imsi: u64,
    digits: usize,
    pdu_session: u64,
}

pub(super) struct Message<'a> {
    pub(super) operation: Operation,
    pub(super) number: u32,
    pub(super) session: u64,
    /// Since when the session has been what its blocks say.
    pub(super) began: Timestamp,
    pub(super) subscriber: Subscriber,
    pub(super) now: Timestamp,
    pub(super) notify_uri: &'a str,
}

impl Message<'_> {
    pub(super) fn render(&self) -> String {
        let Subscriber { imsi, digits, pdu_session } = self.subscriber;
        let now = self.now.rfc3339();
        let mut body = String::with_capacity(2048);
        let template = if self.operation == Operation::Event { EVENT } else { BODY };
        fill(&mut body, template, |body, slot| match slot {
            "supi" => body.push_str(&format!("imsi-{imsi:0digits$}")),
            "now" => body.push_str(&now),
            "began" => body.push_str(&self.began.rfc3339()),
            "number" => body.push_str(&self.number.to_string()),
            "notify_uri" => body.push_str(self.notify_uri),
            "charging_id" => body.push_str(&(self.session % u64::from(u32::MAX)).to_string()),
            "pdu_session" => body.push_str(&pdu_session.to_string()),
            "usage" => {
                for (nth, rating_group) in RATING_GROUPS.into_iter().enumerate() {
                    if nth > 0 {
                        body.push(',');
                    }
                    self.render_usage(body, rating_group, &now);
                }
            }
            other => unreachable!("no slot {other}"),
        });
        body
    }

    fn render_usage(&self, body: &mut String, rating_group: u32, now: &str) {
        body.push_str(&format!(r#"{{"ratingGroup":{rating_group}"#));
        if self.operation.asks() {
            body.push_str(&format!(r#","requestedUnit":{{"totalVolume":{REQUESTED_OCTETS}}}"#));
        }
        if self.operation.reports() {
            fill(body, CONTAINER, |body, slot| match slot {
                "number" => body.push_str(&self.number.to_string()),
                "total" => body.push_str(&USED_OCTETS.to_string()),
                "up" => body.push_str(&(USED_OCTETS / 4).to_string()),
                "down" => body.push_str(&(USED_OCTETS - USED_OCTETS / 4).to_string()),
                "trigger" if self.operation == Operation::Release => body.push_str("FINAL"),
                "trigger" => body.push_str("QUOTA_THRESHOLD"),
                "now" => body.push_str(now),
                other => unreachable!("no slot {other}"),
            });
        }
        body.push_str(r#","uPFID":"7e8d3a52-0f4b-4a37-9d3c-5b1f6f0f9a01"}"#);
    }
}

/// Copies `template` and lets `slot` write what stands between dollar signs.
fn fill(out: &mut String, template: &str, mut slot: impl FnMut(&mut String, &str)) {
    for (nth, part) in template.split('$').enumerate() {
        if nth % 2 == 0 { out.push_str(part) } else { slot(out, part) }
    }
}

const BODY: &str = concat!(
    r#"{"subscriberIdentifier":"$supi$","#,
    r#""nfConsumerIdentification":{"nFName":"344f52e6-7290-4be8-bf72-3f1c13ac3fea","nFIPv4Address":"192.0.2.10","#,
    r#""nFPLMNID":{"mcc":"001","mnc":"01"},"nodeFunctionality":"SMF"},"#,
    r#""invocationTimeStamp":"$now$","invocationSequenceNumber":$number$,"notifyUri":"$notify_uri$","#,
    r#""multipleUnitUsage":[$usage$],"#,
    r#""pDUSessionChargingInformation":{"chargingId":$charging_id$,"#,
    r#""userInformation":{"servedPEI":"imeisv-4370816125816151","unauthenticatedFlag":false},"#,
    r#""userLocationinfo":{"nrLocation":{"tai":{"plmnId":{"mcc":"001","mnc":"01"},"tac":"000001"},"#,
    r#""ncgi":{"plmnId":{"mcc":"001","mnc":"01"},"nrCellId":"000000010"},"ueLocationTimestamp":"$began$"}},"#,
    r#""pduSessionInformation":{"networkSlicingInfo":{"sNSSAI":{"sst":1,"sd":"010203"}},"#,
    r#""pduSessionID":$pdu_session$,"pduType":"IPV4","sscMode":"SSC_MODE_1","hPlmnId":{"mcc":"001","mnc":"01"},"#,
    r#""ratType":"NR","dnnId":"internet","chargingCharacteristics":"0800","#,
    r#""startTime":"$began$","#,
    r#""pduAddress":{"pduIPv4Address":"10.45.0.2","iPv4dynamicAddressFlag":true},"#,
    r#""authorizedSessionAMBR":{"uplink":"1000 Mbps","downlink":"1000 Mbps"}}}}"#,
);

const CONTAINER: &str = concat!(
    r#","usedUnitContainer":[{"localSequenceNumber":$number$,"quotaManagementIndicator":"ONLINE_CHARGING","#,
    r#""triggers":[{"triggerType":"$trigger$","triggerCategory":"IMMEDIATE_REPORT"}],"triggerTimestamp":"$now$","#,
    r#""totalVolume":$total$,"uplinkVolume":$up$,"downlinkVolume":$down$}]"#,
);

const EVENT: &str = concat!(
    r#"{"subscriberIdentifier":"$supi$","#,
    r#""nfConsumerIdentification":{"nFName":"9f6a1c02-51de-4c0b-8a57-0c2f5a9b7e11","nFIPv4Address":"192.0.2.20","#,
    r#""nFPLMNID":{"mcc":"001","mnc":"01"},"nodeFunctionality":"SMSF"},"#,
    r#""invocationTimeStamp":"$now$","invocationSequenceNumber":$number$,"#,
    r#""oneTimeEvent":true,"oneTimeEventType":"IEC","#,
    r#""multipleUnitUsage":[{"ratingGroup":30,"requestedUnit":{"serviceSpecificUnits":1}}],"#,
    r#""sMSChargingInformation":{"originatorInfo":{"originatorSUPI":"$supi$"},"#,
    r#""recipientInfo":[{"recipientGPSI":"msisdn-32470999999"}],"sMMessageType":"SUBMISSION","#,
    r#""sMDataCodingScheme":0,"messageReference":"$charging_id$","messageSize":"140","#,
    r#""userLocationinfo":{"nrLocation":{"tai":{"plmnId":{"mcc":"001","mnc":"01"},"tac":"000001"},"#,
    r#""ncgi":{"plmnId":{"mcc":"001","mnc":"01"},"nrCellId":"000000010"}}},"#,
    r#""rATType":"NR","submissionTime":"$now$"}}"#,
);

// ---- Answers ----

/// How an answer can be wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("the answer is not a ChargingDataResponse")]
    Unreadable,
    #[error("the answer has another invocationSequenceNumber")]
    Number,
    #[error("rating group {0} is not answered")]
    Unanswered(u32),
    #[error("rating group {rating_group}: {code}")]
    Refused { rating_group: u32, code: String },
    #[error("rating group {0} is granted nothing")]
    NothingGranted(u32),
    #[error("the answer to the copy is another one")]
    Copy,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChargingDataResponse<'a> {
    invocation_sequence_number: u32,
    #[serde(borrow, default)]
    multiple_unit_information: Vec<UnitInformation<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnitInformation<'a> {
    rating_group: u32,
    /// Absent means success.
    #[serde(borrow)]
    result_code: Option<Cow<'a, str>>,
    granted_unit: Option<GrantedUnit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GrantedUnit {
    total_volume: Option<u64>,
    service_specific_units: Option<u64>,
}

/// Whether an answer is the one expected. Answers the path of what was created.
pub(super) fn check(answer: &Answer, operation: Operation, number: u32) -> Result<Option<Box<str>>, Fault> {
    check_status(answer, operation.expected_status())?;
    match operation {
        Operation::Create => check_body(&answer.body, number, &RATING_GROUPS)?,
        Operation::Event => check_body(&answer.body, number, &[EVENT_RATING_GROUP])?,
        Operation::Update | Operation::Copy => {
            check_body(&answer.body, number, &RATING_GROUPS)?;
            return Ok(None);
        }
        Operation::Release => return Ok(None),
    }
    Ok(Some(created(answer).ok_or(Fault::NoLocation)?.into()))
}

/// Whether the answer to a copy is the one to what it is a copy of.
pub(super) fn check_copy(answer: &Answer, of: &Exchange) -> Result<(), Fault> {
    check_status(answer, of.operation.expected_status())?;
    let is_same = answer.body == of.answer && (of.created.is_none() || created(answer) == of.created.as_deref());
    if is_same { Ok(()) } else { Err(Wrong::Copy.into()) }
}

fn check_status(answer: &Answer, expected: StatusCode) -> Result<(), Fault> {
    match answer.status {
        status if status == expected => Ok(()),
        _ if answer.is_refusal() => Err(Fault::Refused),
        status => Err(Fault::Status(status)),
    }
}

/// The path of a Location, from the service on: behind a proxy its host is another one.
fn created(answer: &Answer) -> Option<&str> {
    let location = answer.location()?;
    let path = location.find(CHARGING_DATA).map(|start| &location[start..])?;
    let reference = path.strip_prefix(CHARGING_DATA)?.strip_prefix('/')?;
    (!reference.is_empty()).then_some(path)
}

/// The same number, and a grant for each rating group.
fn check_body(body: &[u8], number: u32, rating_groups: &[u32]) -> Result<(), Wrong> {
    let answer: ChargingDataResponse<'_> = serde_json::from_slice(body).map_err(|_| Wrong::Unreadable)?;
    if answer.invocation_sequence_number != number {
        return Err(Wrong::Number);
    }
    for &rating_group in rating_groups {
        let mut units = answer.multiple_unit_information.iter();
        let unit = units.find(|unit| unit.rating_group == rating_group).ok_or(Wrong::Unanswered(rating_group))?;
        if let Some(code) = unit.result_code.as_deref().filter(|code| *code != "SUCCESS") {
            return Err(Wrong::Refused { rating_group, code: code.to_owned() });
        }
        let granted = unit.granted_unit.as_ref().and_then(|units| units.total_volume.or(units.service_specific_units));
        if granted.is_none_or(|granted| granted == 0) {
            return Err(Wrong::NothingGranted(rating_group));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(operation: Operation) -> serde_json::Value {
        let subscribers = Subscribers::new("imsi-001010000000001", 1000).unwrap();
        let message = Message {
            operation,
            number: 3,
            session: 1001,
            began: Timestamp::from_millis(1_767_225_500_000),
            subscriber: subscribers.of_session(1001),
            now: Timestamp::from_millis(1_767_225_600_000),
            notify_uri: "http://127.0.0.1:9/notify",
        };
        serde_json::from_str(&message.render()).unwrap()
    }

    #[test]
    fn messages_are_json_with_all_slots_filled() {
        let update = message(Operation::Update);
        assert_eq!(update["subscriberIdentifier"], "imsi-001010000000002");
        assert_eq!(update["invocationTimeStamp"], "2026-01-01T00:00:00.000Z");
        assert_eq!(update["invocationSequenceNumber"], 3);
        assert_eq!(update["multipleUnitUsage"][1]["ratingGroup"], 40);
        assert_eq!(update["multipleUnitUsage"][0]["usedUnitContainer"][0]["totalVolume"], 4096);
        assert_eq!(update["pDUSessionChargingInformation"]["pduSessionInformation"]["pduSessionID"], 2);
    }

    #[test]
    fn only_what_an_operation_carries_is_in_its_message() {
        let members = |operation| {
            let usage = message(operation)["multipleUnitUsage"][0].clone();
            (usage.get("requestedUnit").is_some(), usage.get("usedUnitContainer").is_some())
        };
        assert_eq!(members(Operation::Create), (true, false));
        assert_eq!(members(Operation::Update), (true, true));
        assert_eq!(members(Operation::Release), (false, true));
    }

    #[test]
    fn a_row_of_subscribers_must_fit_its_digits() {
        assert!(Subscribers::new("imsi-99990", 10).is_some());
        assert!(Subscribers::new("imsi-99990", 11).is_none());
        assert!(Subscribers::new("imsi-99990", 0).is_none());
        assert!(Subscribers::new("msisdn-32470000001", 1).is_none());
    }

    #[test]
    fn an_event_is_told_from_a_session() {
        let event = message(Operation::Event);
        assert_eq!((&event["oneTimeEvent"], &event["oneTimeEventType"]), (&true.into(), &"IEC".into()));
        assert_eq!(event["multipleUnitUsage"][0]["ratingGroup"], EVENT_RATING_GROUP);
    }

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_owned().into() }
    }

    fn body(number: u32, code: &str, granted: u64) -> String {
        format!(
            r#"{{"invocationSequenceNumber":{number},"multipleUnitInformation":[
                {{"ratingGroup":10,"resultCode":"{code}","grantedUnit":{{"totalVolume":{granted}}}}},
                {{"ratingGroup":40,"grantedUnit":{{"totalVolume":1}}}}]}}"#
        )
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let told = |status, body: &str| {
            let checked = check(&answer(status, &[], body), Operation::Update, 3);
            checked.map_or_else(|fault| fault.to_string(), |_| "right".to_owned())
        };
        assert_eq!(told(200, &body(3, "SUCCESS", 1)), "right");
        assert_eq!(told(200, &body(2, "SUCCESS", 1)), Wrong::Number.to_string());
        assert_eq!(told(200, &body(3, "RATING_FAILED", 1)), "rating group 10: RATING_FAILED");
        assert_eq!(told(200, &body(3, "SUCCESS", 0)), "rating group 10 is granted nothing");
        assert_eq!(told(200, r#"{"invocationSequenceNumber":3}"#), "rating group 10 is not answered");
        assert_eq!(told(200, "ok"), Wrong::Unreadable.to_string());
        assert_eq!(told(404, ""), "status 404 Not Found");
        assert_eq!(told(503, ""), "status 503 Service Unavailable");
        let refused = answer(503, &[("retry-after", "1")], "");
        assert!(matches!(check(&refused, Operation::Update, 3), Err(Fault::Refused)));
    }

    #[test]
    fn what_is_created_has_a_place() {
        let checked =
            |location| check(&answer(201, &[("location", location)], &body(0, "SUCCESS", 1)), Operation::Create, 0);
        let place = checked("http://elsewhere:1/nchf-convergedcharging/v3/chargingdata/abc").unwrap();
        assert_eq!(place.as_deref(), Some("/nchf-convergedcharging/v3/chargingdata/abc"));
        for without in ["", "http://elsewhere/abc", "http://elsewhere/nchf-convergedcharging/v3/chargingdata/"] {
            assert!(matches!(checked(without), Err(Fault::NoLocation)), "{without}");
        }
    }

    #[test]
    fn a_copy_gets_the_same_answer_or_is_wrong() {
        let at = [("location", "http://x/nchf-convergedcharging/v3/chargingdata/abc")];
        let of = Exchange {
            operation: Operation::Create,
            path: CHARGING_DATA.into(),
            request: "".into(),
            created: Some("/nchf-convergedcharging/v3/chargingdata/abc".into()),
            answer: "one".into(),
        };
        assert!(check_copy(&answer(201, &at, "one"), &of).is_ok());
        assert!(check_copy(&answer(201, &at, "two"), &of).is_err());
        assert!(check_copy(&answer(201, &[], "one"), &of).is_err());
        assert!(check_copy(&answer(200, &at, "one"), &of).is_err());
    }
}
