//! A request's body as what a charging data record is made of.

use nchf::cdr_file::{Record, ber, json};
use nchf::charging::cdr::Cdr;
use nchf::charging::session::{Operation, Service};
use nchf::http::nchf::parse::charging_data_request;
use serde_json::Value;
use serde_json::value::RawValue;

use super::tlv::Tlv;
use crate::scenarios::world::{Request, World};

/// Opens and releases a session with the same body, if it is one. Each record is a line of JSON and decodable BER, and
/// both name the session and what it cost.
pub fn record(body: &[u8]) {
    let Ok(parsed) = charging_data_request(body, Service::Converged, None) else { return };
    let mut world = World::demo();
    let mut create = Request::new(Operation::Create, parsed.invocation.number, world.now);
    create.subscriber = Some("bundle");
    create.one_time = parsed.one_time;
    create.pdu_session = parsed.pdu_session();
    create.invocation = *parsed.invocation;
    let Ok(done) = world.send(&create, None) else { return };
    if !world.sessions[&done.reference].is_closed() {
        let mut release = create.clone();
        release.operation = Operation::Release;
        release.invocation.number = create.invocation.number.wrapping_add(1);
        if world.send(&release, Some(&done.reference)).is_err() {
            return;
        }
    }
    let records = world.records(&done.reference);
    // An event that was refused has left nothing.
    assert!(records.is_empty() != world.journals.contains_key(&done.reference), "what is closed has a record");
    records.iter().for_each(leaves_whole);
}

fn leaves_whole(cdr: &Cdr) {
    const CHARGING_FUNCTION_RECORD: u32 = 200;
    let record = Record { cdr, recording_nf: "6a1c0e52-7f0b-4a7e-9f3e-0d2c5b1a4e88", local_sequence_number: Some(7) };

    let line = json::line(&record);
    assert!(!line.contains(['\n', '\r']), "a record in one line: {line}");
    let line: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(&line).unwrap();
    let of_line = |name: &str| line[name].get();
    assert_eq!(of_line("id"), Value::from(cdr.id()).to_string());
    assert_eq!(of_line("charged"), Value::from(cdr.charged.to_string()).to_string());

    let octets = ber::encode(&record);
    let all = Tlv::all(&octets);
    assert_eq!((all.len(), all[0].tag), (1, CHARGING_FUNCTION_RECORD));
    all[0].walk();
    let fields = Tlv::all(all[0].content);
    assert!(fields.is_sorted_by(|one, next| one.tag < next.tag), "fields stand in order, each once");
    assert_eq!(all[0].field(16).unwrap().content, cdr.reference.as_str().as_bytes());
    assert_eq!(extension(&all[0]), [cdr.id(), cdr.charged.to_string()]);
}

/// Id and charge in the management extension, under tag 2 of which an octet string has JSON.
fn extension(record: &Tlv<'_>) -> [String; 2] {
    let field = record.field(12).expect("a record has its extension");
    let one = Tlv::all(field.content).into_iter().next().unwrap();
    let information = one.field(2).unwrap();
    let text = Tlv::all(information.content).into_iter().next().unwrap();
    let members: Value = serde_json::from_slice(text.content).unwrap();
    ["id", "charged"].map(|name| members[name].as_str().unwrap().to_owned())
}
