//! Bytes as the body of a charging request.

use nchf::charging::command::{
    Block, Container, Indicator, Invocation, OneTime, QuotaKey, REPORTS, Trigger, UnitUsage,
};
use nchf::charging::session::Service;
use nchf::charging::units::Units;
use nchf::http::nchf::fingerprint::{fingerprint, hash_json};
use nchf::http::nchf::parse::{Parsed, charging_data_request};
use nchf::http::problem::ProblemDetails;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::respelled;

/// A body is accepted or refused with a problem that names members. What was accepted says the same when it is written
/// down and read again, and is the same request in another spelling.
pub fn request(body: &[u8]) {
    for service in [Service::Converged, Service::OfflineOnly] {
        let other = respelled(body).map(|text| charging_data_request(text.as_bytes(), service, None));
        match charging_data_request(body, service, None) {
            Ok(parsed) => {
                assert_eq!(fingerprint(&parsed.invocation), parsed.invocation.fingerprint);
                let other = other.expect("what is accepted is JSON").expect("and is accepted in another spelling");
                assert_eq!(parsed.invocation.fingerprint, other.invocation.fingerprint, "in another spelling");
                differs_from_others(body, service, &parsed);
                reads_back(body, service, &parsed);
            }
            Err(refusal) => {
                is_sound(&refusal);
                assert!(!matches!(other, Some(Ok(_))), "refused, and accepted in another spelling");
            }
        }
    }
    if let Ok(json) = std::str::from_utf8(body) {
        hashes_are_of_the_content(json);
    }
}

fn is_sound(refusal: &ProblemDetails) {
    const CAUSES: [&str; 4] =
        ["INVALID_MSG_FORMAT", "MANDATORY_IE_MISSING", "MANDATORY_IE_INCORRECT", "OPTIONAL_IE_INCORRECT"];
    assert_eq!(refusal.status().as_u16(), 400);
    assert!(CAUSES.contains(&refusal.known_cause()), "{refusal:?}");
    assert!(refusal.detail.is_some() || !refusal.invalid_params.is_empty(), "says what is wrong: {refusal:?}");
    for named in &refusal.invalid_params {
        assert!(named.param.is_empty() || named.param.starts_with('/'), "no pointer: {named:?}");
        assert!(named.reason.as_ref().is_some_and(|reason| !reason.is_empty()), "no reason: {named:?}");
    }
}

/// With another letter or digit somewhere it is another request, unless nothing that it says has changed.
fn differs_from_others(body: &[u8], service: Service, parsed: &Parsed) {
    const CHANGES_MAX: usize = 16;
    // What is not told apart, and what is made from the rest.
    let says = |parsed: &Parsed| {
        let Invocation { fingerprint, .. } = *parsed.invocation;
        let text = format!("{:?}", Invocation { retransmission: false, ..(*parsed.invocation).clone() });
        text.replace(&format!("{fingerprint:?}"), "")
    };
    let places: Vec<_> = (0..body.len()).filter(|at| body[*at].is_ascii_alphanumeric()).collect();
    for at in places.iter().step_by(places.len() / CHANGES_MAX + 1) {
        let mut changed = body.to_vec();
        changed[*at] = if body[*at] == b'7' { b'8' } else { b'7' };
        let Ok(other) = charging_data_request(&changed, service, None) else { continue };
        if says(&other) != says(parsed) {
            let text = String::from_utf8_lossy(&changed);
            assert_ne!(other.invocation.fingerprint, parsed.invocation.fingerprint, "{text}");
        }
    }
}

fn reads_back(body: &[u8], service: Service, parsed: &Parsed) {
    // A consumer may use a name that only we make; the text below cannot tell it from ours.
    let members: Result<std::collections::BTreeMap<String, &RawValue>, _> = serde_json::from_slice(body);
    if members.is_ok_and(|members| REPORTS.iter().any(|name| members.contains_key(*name))) {
        return;
    }
    let text = written(parsed);
    let again = charging_data_request(text.as_bytes(), service, None)
        .unwrap_or_else(|problem| panic!("refused when read again: {problem:?}\n{text}"));
    assert_eq!(format!("{parsed:?}"), format!("{again:?}"), "{text}");
}

/// A hash does not depend on the spelling, and depends on every digit.
fn hashes_are_of_the_content(json: &str) {
    const DIGITS_MAX: usize = 16;
    let Ok(json) = serde_json::from_str::<&RawValue>(json).map(RawValue::get) else { return };
    let Ok(hash) = hash_json(json) else { return };
    let other = respelled(json.as_bytes()).unwrap();
    assert_eq!(hash_json(&other), Ok(hash), "{other}");
    for (at, digit) in json.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).take(DIGITS_MAX) {
        let changed = format!("{}{}{}", &json[..at], if digit == b'7' { '8' } else { '7' }, &json[at + 1..]);
        // An escape may have become none.
        if serde_json::from_str::<&RawValue>(&changed).is_ok() {
            assert_ne!(hash_json(&changed), Ok(hash), "{changed}");
        }
    }
}

/// An object as text, its members in the order in which they were added.
#[derive(Default)]
struct Object(Vec<String>);

impl Object {
    fn raw(&mut self, name: &str, json: &str) {
        self.0.push(format!("{}:{json}", Value::from(name)));
    }

    fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.raw(name, &value.into().to_string());
    }

    fn add_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn list<T>(&mut self, name: &str, items: &[T], text: impl Fn(&T) -> String) {
        if !items.is_empty() {
            self.raw(name, &format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(",")));
        }
    }

    fn blocks(&mut self, blocks: &[Block]) {
        for block in blocks {
            self.raw(&block.name, &block.json);
        }
    }

    fn text(self) -> String {
        format!("{{{}}}", self.0.join(","))
    }
}

fn written(parsed: &Parsed) -> String {
    let Invocation {
        number,
        timestamp,
        retransmission,
        subscriber,
        notify_uri,
        features,
        triggers,
        usages,
        blocks,
        // Of these the consumer is also among the blocks, and the others are made from the rest.
        invoked_at: _,
        fingerprint: _,
        idempotency: _,
        consumer: _,
    } = &*parsed.invocation;
    let mut body = Object::default();
    body.add("invocationSequenceNumber", *number);
    body.add("invocationTimeStamp", &**timestamp);
    body.add("retransmissionIndicator", *retransmission);
    body.add_some("subscriberIdentifier", subscriber.as_ref().map(|subscriber| subscriber.as_str()));
    body.add_some("notifyUri", notify_uri.as_deref());
    body.add_some("supportedFeatures", features.map(|features| format!("{features:X}")));
    body.add_some("oneTimeEvent", parsed.one_time.map(|_| true));
    body.add_some(
        "oneTimeEventType",
        parsed.one_time.and_then(|kind| match kind {
            OneTime::Immediate => Some("IEC"),
            OneTime::Post => Some("PEC"),
            OneTime::Untyped => None,
        }),
    );
    body.list("triggers", triggers, trigger);
    body.list("multipleUnitUsage", usages, usage);
    for block in blocks.iter().filter(|block| !block.is_report()) {
        body.raw(&block.name, &with_reports(block, blocks));
    }
    body.text()
}

/// What one of its members reported goes back into a block.
fn with_reports(block: &Block, blocks: &[Block]) -> String {
    let report = REPORTS.iter().filter_map(|report| report.split_once('/')).find(|(name, _)| *name == &*block.name);
    let Some((name, member)) = report else { return block.json.to_string() };
    let full = format!("{name}/{member}");
    let items: Vec<_> = blocks.iter().filter(|one| *one.name == *full).map(|one| &*one.json).collect();
    if items.is_empty() {
        return block.json.to_string();
    }
    let rest = block.json.strip_suffix('}').expect("a block that reported is an object");
    let comma = if rest == "{" { "" } else { "," };
    format!("{rest}{comma}\"{member}\":[{}]}}", items.join(","))
}

fn trigger(trigger: &Trigger) -> String {
    let mut object = Object::default();
    object.add_some("triggerType", trigger.name.as_deref());
    object.add("triggerCategory", trigger.category.as_str());
    object.blocks(&trigger.others);
    object.text()
}

fn usage(usage: &UnitUsage) -> String {
    let QuotaKey { rating_group, upf, multihomed, mb_upf } = &usage.key;
    let mut object = Object::default();
    object.add("ratingGroup", rating_group.0);
    if let Some(requested) = &usage.requested {
        let mut asked = Object::default();
        units(requested, &mut asked);
        object.raw("requestedUnit", &asked.text());
    }
    object.list("usedUnitContainer", &usage.containers, container);
    object.add_some("uPFID", upf.as_deref());
    object.add_some("mBUPFID", mb_upf.as_deref());
    object.blocks(&usage.others);
    if let Some(address) = multihomed {
        object.raw("multihomedPDUAddress", address);
    }
    object.text()
}

fn container(container: &Container) -> String {
    let mut object = Object::default();
    object.add("localSequenceNumber", container.local_sequence_number);
    object.add_some(
        "quotaManagementIndicator",
        container.indicator.as_ref().map(|indicator| match indicator {
            Indicator::Online => "ONLINE_CHARGING",
            Indicator::Offline => "OFFLINE_CHARGING",
            Indicator::Suspended => "QUOTA_MANAGEMENT_SUSPENDED",
            Indicator::Other(text) => text,
        }),
    );
    units(&container.units, &mut object);
    object.list("triggers", &container.triggers, trigger);
    object.add_some("triggerTimestamp", container.closed_at.map(|at| at.rfc3339()));
    object.add_some("serviceId", container.service_id);
    object.blocks(&container.others);
    object.text()
}

fn units(units: &Units, into: &mut Object) {
    into.add_some("time", units.time);
    into.add_some("totalVolume", units.total_volume);
    into.add_some("uplinkVolume", units.uplink_volume);
    into.add_some("downlinkVolume", units.downlink_volume);
    into.add_some("serviceSpecificUnits", units.service_specific_units);
}
