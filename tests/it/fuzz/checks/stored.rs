//! Bytes as a document from a store.

use std::fmt::Debug;

use nchf::charging::account::Account;
use nchf::charging::command::{QuotaKey, Subscriber};
use nchf::charging::decision::Outgoing;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::session::{ChargingSession, Quota};
use nchf::charging::tariff::TariffPlan;
use nchf::store::record::JournalReader;
use nchf::store::{self, record};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte says which kind of document follows. It cannot be read, or is written and read again as it was.
/// Sessions and entries have two forms: what is read in one is written in the other. What is written is found damaged
/// when a bit of it has flipped.
pub fn stored(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind {
        b'a' => reads_back::<Account>(bytes),
        b's' => session(bytes),
        b'e' => entry(bytes),
        b'o' => reads_back::<Outgoing>(bytes),
        b'u' => reads_back::<Subscriber>(bytes),
        b'p' => reads_back::<TariffPlan>(bytes),
        _ => {}
    }
}

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Some(document) = readable(record::decode::<T>(bytes)) else { return };
    let written = record::encode(&document);
    let again: T = record::decode(&written).expect("what was encoded decodes");
    assert_eq!(document, again);
    assert_eq!(written, record::encode(&again));
    finds_flipped_bits(&written, |bytes| record::decode::<T>(bytes).map(drop));
}

fn session(bytes: &[u8]) {
    let key = ChargingDataRef::new("0w3ge1r70w3ge1r70w3z5ej4fk8ty81htpa2ex8m");
    let Some(session) = readable(record::decode_session(&key, bytes)) else { return };
    let written = record::encode_session(&session);
    // The key says the reference, whatever an old document has said.
    let session = Box::new(ChargingSession { reference: key.clone(), ..*session });
    assert_eq!(record::decode_session(&key, &written).expect("what was encoded decodes"), session);
    assert_eq!(record::encode_session(&session), written);
    finds_flipped_bits(&written, |bytes| record::decode_session(&key, bytes).map(drop));
    assert_eq!(record::decode_session(&key, &record::encode(&*session)).expect("the old form"), session);
}

fn entry(bytes: &[u8]) {
    let decode = |bytes: &[u8]| JournalReader::default().decode(bytes);
    let Some(entry) = readable(decode(bytes)) else { return };
    // With quotas or without, which entries between may have introduced.
    let news = entry.event.invocation().into_iter().flat_map(|request| &request.quotas);
    let of_new = |key: &QuotaKey| {
        let key = key.clone();
        Quota { key, grant: None, used: 0, last_code: None, final_unit: false, expired: false }
    };
    for quotas in [Vec::new(), news.map(of_new).collect()] {
        let written = record::encode_entry(&entry, &quotas);
        assert_eq!(decode(&written).expect("what was encoded decodes"), entry);
        assert_eq!(record::encode_entry(&entry, &quotas), written);
        finds_flipped_bits(&written, |bytes| decode(bytes).map(drop));
    }
    assert_eq!(decode(&record::encode(&entry)).expect("the old form"), entry);
}

/// Some of its bits, others for a document of another length.
fn finds_flipped_bits(document: &[u8], decode: impl Fn(&[u8]) -> Result<(), store::Error>) {
    const TRIED: usize = 32;
    let bits = document.len() * 8;
    let mut damaged = document.to_vec();
    for bit in (document.len() % TRIED..bits).step_by(bits / TRIED + 1) {
        damaged[bit / 8] ^= 1 << (bit % 8);
        let found = decode(&damaged);
        assert!(matches!(found, Err(store::Error::Corrupt(_))), "bit {bit} of a document: {found:?}");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

fn readable<T>(document: Result<T, store::Error>) -> Option<T> {
    document.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}
