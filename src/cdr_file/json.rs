//! A record as one JSON object: the members of TS 32.298 in the spelling of TS 32.291, and what the operator's API
//! calls a record's own (`id`, `ref`, `supi`, `accountId`, `charged`, `currency`).
//!
//! What a consumer sent stands in it verbatim, even where it is a number no machine type holds or nested beyond reason:
//! it was accepted, so it is recorded. A consumer cannot name a member that the charging function states itself.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::Record;
use crate::charging::cdr::{Incomplete, QuotaUsage};
use crate::charging::command::{Block, Container, REPORTS, Trigger};
use crate::charging::ids::SubscriberId;
use crate::charging::money::BalanceUnit;
use crate::charging::time::Timestamp;
use crate::charging::units::Units;

/// `RecordType` of a charging function's record (TS 32.298 5.1.5.1.2).
const CHARGING_FUNCTION_RECORD: u8 = 200;

/// The record in one line, without the line's end.
pub fn line(record: &Record) -> String {
    Renderer { keeps: |_: &str| true }.record(record)
}

/// The record as a tree. Members that fit into no tree (see above) are left out of it.
pub fn tree(record: &Record) -> Value {
    let whole = serde_json::from_str(&line(record));
    whole.unwrap_or_else(|_| {
        // A member of a container stands six levels deep in the record.
        let fits = |json: &str| serde_json::from_str::<Value>(&format!("[[[[[[{json}]]]]]]")).is_ok();
        serde_json::from_str(&Renderer { keeps: fits }.record(record))
            .expect("what is left is ours, or was read a moment ago")
    })
}

struct Renderer<K> {
    /// Says of a text that was kept verbatim whether it goes in.
    keeps: K,
}

impl<K: Fn(&str) -> bool> Renderer<K> {
    fn record(&self, record: &Record) -> String {
        let cdr = record.cdr;
        let subscriber = cdr.header.subscriber.as_ref().map(SubscriberId::as_str);
        let mut object = Object::default();
        object.add("id", &cdr.id());
        object.add("ref", &cdr.reference.as_str());
        object.add_some("supi", subscriber.as_ref());
        object.add_some("accountId", cdr.header.account.as_ref().map(|account| account.as_str()).as_ref());
        object.add("charged", &cdr.charged.text(BalanceUnit::Money));
        object.add_some("currency", cdr.header.currency.as_ref());
        object.add("recordType", &CHARGING_FUNCTION_RECORD);
        object.add("recordingNetworkFunctionID", &record.recording_nf);
        object.add_some("localRecordSequenceNumber", record.local_sequence_number.as_ref());
        object.add_some("recordSequenceNumber", cdr.sequence_number.as_ref());
        object.add("chargingSessionIdentifier", &cdr.reference.as_str());
        object.add_some("subscriberIdentifier", subscriber.as_ref());
        object.add("recordOpeningTime", &cdr.opened_at.rfc3339());
        object.add("duration", &cdr.duration().secs());
        object.add("causeForRecClosing", &cdr.cause.code());
        if let Some(incomplete) = cdr.incomplete {
            object.add_json("incompleteCDRIndication", &self.incomplete(incomplete));
        }
        self.add_consumer(&mut object, record);
        object.add_list("triggers", &cdr.triggers, |trigger| self.trigger(trigger));
        object.add_list("listOfMultipleUnitUsage", &cdr.usage, |usage| self.usage(usage));
        object.names.extend(OWN.map(str::to_owned));
        self.add_verbatim(&mut object, &self.with_reports(&cdr.blocks, &cdr.reports));
        object.text()
    }

    /// Puts what members of blocks reported back into the blocks, as arrays.
    fn with_reports<'a>(&self, blocks: &'a [Block], reports: &[Block]) -> Cow<'a, [Block]> {
        let mut blocks = Cow::Borrowed(blocks);
        for (name, member) in REPORTS.iter().filter_map(|report| report.split_once('/')) {
            let of_member = |report: &&Block| report.name.split_once('/') == Some((name, member));
            let items = reports.iter().filter(of_member).map(|report| &*report.json);
            let items: Vec<&str> = items.filter(|json| (self.keeps)(json)).collect();
            if items.is_empty() {
                continue;
            }
            let blocks = blocks.to_mut();
            let at = blocks.iter().position(|block| &*block.name == name).unwrap_or_else(|| {
                blocks.push(Block { name: name.into(), json: "{}".into(), hash: 0 });
                blocks.len() - 1
            });
            // A later request may have said something else than an object.
            let json = blocks[at].json.trim();
            let rest = json.strip_suffix('}').filter(|rest| rest.starts_with('{')).unwrap_or("{").trim_end();
            let comma = if rest == "{" { "" } else { "," };
            blocks[at].json = format!("{rest}{comma}\"{member}\":[{}]}}", items.join(",")).into();
        }
        blocks
    }

    /// Who reported, as it said; at least which kind of function it is.
    fn add_consumer(&self, object: &mut Object, record: &Record) {
        let said = record.cdr.blocks.iter().find(|block| &*block.name == "nfConsumerIdentification");
        match said.filter(|block| (self.keeps)(&block.json)) {
            Some(block) => object.add_json("nFunctionConsumerInformation", &block.json),
            None => {
                let mut consumer = Object::default();
                consumer.add("nodeFunctionality", &record.cdr.header.consumer.functionality);
                object.add_json("nFunctionConsumerInformation", &consumer.text());
            }
        }
    }

    fn incomplete(&self, incomplete: Incomplete) -> String {
        let Incomplete { initial_lost, update_lost, termination_lost } = incomplete;
        let mut object = Object::default();
        object.add_some("initialLost", initial_lost.as_ref());
        object.add_some("updateLost", update_lost.as_ref());
        object.add_some("terminationLost", termination_lost.as_ref());
        object.text()
    }

    fn usage(&self, usage: &QuotaUsage) -> String {
        let mut object = Object::default();
        object.add("ratingGroup", &usage.key.rating_group.0);
        object.add_some("uPFID", usage.key.upf.as_ref());
        object.add_some("mBUPFID", usage.key.mb_upf.as_ref());
        if let Some(json) = usage.key.multihomed.as_deref().filter(|json| (self.keeps)(json)) {
            object.add_json("multihomedPDUAddress", json);
        }
        object.add_list("usedUnitContainers", &usage.containers, |container| self.container(container));
        self.add_verbatim(&mut object, &usage.others);
        object.text()
    }

    fn container(&self, container: &Container) -> String {
        let Units { time, total_volume, uplink_volume, downlink_volume, service_specific_units } = container.units;
        let mut object = Object::default();
        object.add("localSequenceNumber", &container.local_sequence_number);
        object.add_some("serviceId", container.service_id.as_ref());
        let indicator = container.indicator.as_ref().map(|indicator| indicator.as_str());
        object.add_some("quotaManagementIndicator", indicator.as_ref());
        object.add_some("time", time.as_ref());
        object.add_some("totalVolume", total_volume.as_ref());
        object.add_some("uplinkVolume", uplink_volume.as_ref());
        object.add_some("downlinkVolume", downlink_volume.as_ref());
        object.add_some("serviceSpecificUnits", service_specific_units.as_ref());
        object.add_list("triggers", &container.triggers, |trigger| self.trigger(trigger));
        object.add_some("triggerTimestamp", container.closed_at.map(Timestamp::rfc3339).as_ref());
        self.add_verbatim(&mut object, &container.others);
        object.text()
    }

    fn trigger(&self, trigger: &Trigger) -> String {
        let mut object = Object::default();
        object.add_some("triggerType", trigger.name.as_ref());
        object.add("triggerCategory", &trigger.category.as_str());
        self.add_verbatim(&mut object, &trigger.others);
        object.text()
    }

    /// Members as they came. A name that the object has already is one that is stated here: the consumer's is left out.
    fn add_verbatim(&self, object: &mut Object, blocks: &[Block]) {
        for block in blocks {
            if object.names.iter().all(|name| **name != *block.name) && (self.keeps)(&block.json) {
                object.add_json(&block.name, &block.json);
            }
        }
    }
}

/// Names that a record never takes from a consumer, whether it has the member or not; and the consumer's own name for
/// what stands under another one.
const OWN: [&str; 8] = [
    "supi",
    "accountId",
    "currency",
    "localRecordSequenceNumber",
    "recordSequenceNumber",
    "incompleteCDRIndication",
    "subscriberIdentifier",
    "nfConsumerIdentification",
];

/// An object while it is written.
#[derive(Default)]
struct Object {
    members: String,
    names: Vec<String>,
}

impl Object {
    fn add(&mut self, name: &str, value: &impl Serialize) {
        self.add_json(name, &serde_json::to_string(value).expect("texts and numbers have a form in JSON"));
    }

    fn add_some(&mut self, name: &str, value: Option<&impl Serialize>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Left out where there is nothing.
    fn add_list<T>(&mut self, name: &str, items: &[T], render: impl Fn(&T) -> String) {
        if !items.is_empty() {
            let items: Vec<String> = items.iter().map(render).collect();
            self.add_json(name, &format!("[{}]", items.join(",")));
        }
    }

    fn add_json(&mut self, name: &str, json: &str) {
        if !self.members.is_empty() {
            self.members.push(',');
        }
        self.members.push_str(&Value::from(name).to_string());
        self.members.push(':');
        // The end of a line stands only between the parts of a text, never inside a string, so a blank says the same.
        self.members.extend(json.chars().map(|c| if c == '\n' || c == '\r' { ' ' } else { c }));
        self.names.push(name.to_owned());
    }

    fn text(self) -> String {
        format!("{{{}}}", self.members)
    }
}
