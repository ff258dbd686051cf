//! What a consumer sends, and what it expects back.
//!
//! The bodies are those of an SMF with one PDU session and two rating groups of the demo plan: 10, which costs money, and
//! 40, which does not. About 1.8 kB each. They are texts with slots instead of serialized structs, so that the generator
//! spends its time on the network and shares no mistake with the parser it measures.

use hyper::StatusCode;
use serde::Deserialize;

use crate::charging::time::Timestamp;

/// The rating groups of every message.
const RATING_GROUPS: [u32; 2] = [10, 40];

/// Asked for in each Create and Update: one block of the demo plan's price.
const REQUESTED_OCTETS: u64 = 1_048_576;
/// Reported in each Update and Release: small, so that the demo balances last for millions of messages.
const USED_OCTETS: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Update,
    Release,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Release => "release",
        }
    }

    pub(super) fn expected_status(self) -> StatusCode {
        match self {
            Self::Create => StatusCode::CREATED,
            Self::Update => StatusCode::OK,
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

    pub(super) fn of_session(&self, session: u64) -> Subscriber {
        let imsi = self.first + session % self.count;
        // A subscriber that comes round again opens its next PDU session: two open sessions with one id would be a
        // restart of the consumer. The ids 1 to 15 are those a device may use.
        Subscriber { imsi, digits: self.digits, pdu_session: 1 + session / self.count % 15 }
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
    pub(super) subscriber: Subscriber,
    pub(super) now: Timestamp,
    pub(super) notify_uri: &'a str,
}

impl Message<'_> {
    pub(super) fn render(&self) -> String {
        let Subscriber { imsi, digits, pdu_session } = self.subscriber;
        let now = jiff::Timestamp::from_millisecond(self.now.millis()).unwrap_or_default().to_string();
        let mut body = String::with_capacity(2048);
        fill(&mut body, BODY, |body, slot| match slot {
            "supi" => body.push_str(&format!("imsi-{imsi:0digits$}")),
            "now" => body.push_str(&now),
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
    r#""ncgi":{"plmnId":{"mcc":"001","mnc":"01"},"nrCellId":"000000010"},"ueLocationTimestamp":"$now$"}},"#,
    r#""pduSessionInformation":{"networkSlicingInfo":{"sNSSAI":{"sst":1,"sd":"010203"}},"#,
    r#""pduSessionID":$pdu_session$,"pduType":"IPV4","sscMode":"SSC_MODE_1","hPlmnId":{"mcc":"001","mnc":"01"},"#,
    r#""ratType":"NR","dnnId":"internet","chargingCharacteristics":"0800","#,
    r#""startTime":"$now$","#,
    r#""pduAddress":{"pduIPv4Address":"10.45.0.2","iPv4dynamicAddressFlag":true},"#,
    r#""authorizedSessionAMBR":{"uplink":"1000 Mbps","downlink":"1000 Mbps"}}}}"#,
);

const CONTAINER: &str = concat!(
    r#","usedUnitContainer":[{"localSequenceNumber":$number$,"quotaManagementIndicator":"ONLINE_CHARGING","#,
    r#""triggers":[{"triggerType":"$trigger$","triggerCategory":"IMMEDIATE_REPORT"}],"triggerTimestamp":"$now$","#,
    r#""totalVolume":$total$,"uplinkVolume":$up$,"downlinkVolume":$down$}]"#,
);

// ---- Answers ----

/// How an answer with the right status can still be wrong.
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
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    invocation_sequence_number: u32,
    #[serde(default)]
    multiple_unit_information: Vec<UnitInformation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnitInformation {
    rating_group: u32,
    /// Absent means success.
    result_code: Option<String>,
}

/// Whether the answer to a Create or Update is the one expected: the same number, and success for each rating group.
pub(super) fn check(body: &[u8], number: u32) -> Result<(), Wrong> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| Wrong::Unreadable)?;
    if answer.invocation_sequence_number != number {
        return Err(Wrong::Number);
    }
    for rating_group in RATING_GROUPS {
        let mut units = answer.multiple_unit_information.iter();
        let unit = units.find(|unit| unit.rating_group == rating_group).ok_or(Wrong::Unanswered(rating_group))?;
        if let Some(code) = unit.result_code.as_deref().filter(|code| *code != "SUCCESS") {
            return Err(Wrong::Refused { rating_group, code: code.to_owned() });
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
        assert_eq!(update["invocationTimeStamp"], "2026-01-01T00:00:00Z");
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
    fn wrong_answers_are_told_apart() {
        let answer = |number: u32, code: &str| {
            format!(
                r#"{{"invocationSequenceNumber":{number},"multipleUnitInformation":[
                    {{"ratingGroup":10,"resultCode":"{code}"}},{{"ratingGroup":40}}]}}"#
            )
        };
        assert_eq!(check(answer(3, "SUCCESS").as_bytes(), 3), Ok(()));
        assert_eq!(check(answer(2, "SUCCESS").as_bytes(), 3), Err(Wrong::Number));
        let refused = Wrong::Refused { rating_group: 10, code: "RATING_FAILED".to_owned() };
        assert_eq!(check(answer(3, "RATING_FAILED").as_bytes(), 3), Err(refused));
        assert_eq!(check(br#"{"invocationSequenceNumber":3}"#, 3), Err(Wrong::Unanswered(10)));
        assert_eq!(check(b"ok", 3), Err(Wrong::Unreadable));
    }
}
