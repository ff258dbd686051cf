//! How large documents and journal entries are: each byte is written, replicated and kept for every request.

use std::fmt::Debug;

use nchf::charging::command::{Container, Indicator, Trigger, TriggerCategory, UnitUsage};
use nchf::charging::session::Operation;
use nchf::charging::time::{Span, Timestamp};
use nchf::charging::units::Units;
use nchf::store::record;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::world::{Request, World, consumer, key};

/// How much a consumer says.
#[derive(Clone, Copy)]
enum Detail {
    /// Names, quotas of one user plane function, and usage: nothing more.
    Terse,
    /// All that an SMF may say besides its verbatim blocks.
    Full,
}

/// Bytes of the session and of an Update's journal entry, after a Create and three Updates.
fn sizes(detail: Detail, groups: &[u32]) -> [usize; 2] {
    let mut world = World::demo();
    let mut reference = None;
    for number in 1..=4 {
        let operation = if number == 1 { Operation::Create } else { Operation::Update };
        let mut request = Request::new(operation, number, world.now);
        request.subscriber = (number == 1).then_some("bundle");
        request.invocation.timestamp = "2026-06-15T10:00:00Z".into();
        if let Detail::Full = detail {
            request.pdu_session = Some(5);
            let invocation = &mut request.invocation;
            invocation.consumer.name = Some("344f52e6-7290-4be8-bf72-3f1c13ac3fea".into());
            invocation.notify_uri = (number == 1).then(|| "http://10.20.30.40:8000/nsmf-callback/notify_1234".into());
            invocation.features = (number == 1).then_some(0x1C081);
        }
        for (place, group) in (0..).zip(groups) {
            let usage = usage(detail, *group, number, i64::from(number) * 2 + place);
            request.invocation.usages.push(usage);
        }
        reference = Some(world.send(&request, reference.as_ref()).unwrap().reference);
        world.now = world.now.after(Span::from_secs(600));
    }
    let session = &world.sessions[reference.as_ref().unwrap()];
    let entry = world.last_entries.last().unwrap();
    [record::encode_session(session).len(), record::encode_entry(entry, &session.quotas).len()]
}

fn usage(detail: Detail, group: u32, number: u32, container: i64) -> UnitUsage {
    let used = octets(8_388_608 + u64::from(number));
    let mut container = Container { local_sequence_number: container, ..Container::of_units(used) };
    let mut upf = None;
    if let Detail::Full = detail {
        upf = Some("0b1c3f62-7290-4be8-bf72-3f1c13ac3fea");
        container.indicator = Some(Indicator::Online);
        container.units.uplink_volume = Some(1_048_576);
        container.units.downlink_volume = Some(7_340_032 + u64::from(number));
        container.closed_at = Some(Timestamp::from_secs(1_780_000_000));
        container.triggers.push(Trigger {
            name: Some("QUOTA_THRESHOLD".into()),
            category: TriggerCategory::Immediate,
            others: Vec::new(),
        });
    }
    UnitUsage {
        key: key(group, upf),
        requested: Some(Units::default()),
        containers: if number == 1 { Vec::new() } else { vec![container] }.into(),
        others: Vec::new(),
    }
}

fn octets(total: u64) -> Units {
    Units { total_volume: Some(total), ..Units::default() }
}

/// Upper bounds, a few bytes above what is measured: whoever needs more says here how much.
#[test]
fn documents_stay_small() {
    for (detail, groups, session_max, entry_max) in [
        (Detail::Terse, &[10][..], 209, 99),
        (Detail::Terse, &[10, 90], 269, 194),
        (Detail::Full, &[10], 314, 119),
        (Detail::Full, &[10, 90], 374, 229),
    ] {
        let [session, entry] = sizes(detail, groups);
        println!("{groups:?}: session {session}, entry {entry}");
        assert!(session <= session_max && entry <= entry_max, "{groups:?}: session {session}, entry {entry}");
    }
}

/// The document's bytes in MessagePack, between format number and checksum, which must read as they were written.
fn written<T: Serialize + DeserializeOwned + PartialEq + Debug>(document: &T) -> usize {
    let bytes = record::encode(document);
    assert_eq!(record::decode::<T>(&bytes).unwrap(), *document);
    bytes.len() - 5
}

#[test]
fn uuids_and_names_of_triggers_have_short_spellings() {
    let uuid = "344f52e6-7290-4be8-bf72-3f1c13ac3fea";
    for (name, size) in [
        (uuid, 18),
        ("344F52E6-7290-4BE8-BF72-3F1C13AC3FEA", 38),
        ("344f52e672904be8bf723f1c13ac3fea", 34),
        ("smf1", 5),
        ("", 1),
    ] {
        let consumer = consumer(name);
        assert_eq!(written(&consumer), 1 + 4 + size + 1, "{name}");
        // Where people read, they read text.
        assert!(serde_json::to_string(&consumer).unwrap().contains(name));
    }
    for (name, size) in [(Some("QUOTA_THRESHOLD"), 1), (Some("HANDOVER_CANCEL"), 1), (Some("A_NEW_ONE"), 10), (None, 1)]
    {
        let trigger = Trigger { name: name.map(Into::into), category: TriggerCategory::Immediate, others: Vec::new() };
        assert_eq!(written(&trigger), 1 + size + 2 + 1, "{name:?}");
    }
    assert!(record::decode::<Trigger>(&[1, 0x93, 200, 0xa1, b'i', 0x90]).is_err(), "a number that means no trigger");
}

#[test]
fn units_are_written_up_to_the_last_that_is_named() {
    let time = Units { time: Some(7), ..Units::default() };
    let events = Units { service_specific_units: Some(u64::MAX), uplink_volume: Some(2), ..Units::default() };
    for (units, size) in [(Units::default(), 1), (octets(1), 2), (time, 5), (events, 14)] {
        assert_eq!(written(&units), size, "{units:?}");
    }
}
