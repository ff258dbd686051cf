//! Bytes as a document from a store.

use std::fmt::Debug;

use nchf::charging::account::Account;
use nchf::charging::command::Subscriber;
use nchf::charging::decision::Outgoing;
use nchf::charging::journal::Entry;
use nchf::charging::session::ChargingSession;
use nchf::charging::tariff::TariffPlan;
use nchf::store::record;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte says which kind of document follows. It cannot be read, or is written and read again as it was.
pub fn stored(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind {
        b'a' => reads_back::<Account>(bytes),
        b's' => reads_back::<ChargingSession>(bytes),
        b'e' => reads_back::<Entry>(bytes),
        b'o' => reads_back::<Outgoing>(bytes),
        b'u' => reads_back::<Subscriber>(bytes),
        b'p' => reads_back::<TariffPlan>(bytes),
        _ => {}
    }
}

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let document: T = match record::decode(bytes) {
        Ok(document) => document,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = record::encode(&document);
    let again: T = record::decode(&written).expect("what was encoded decodes");
    assert_eq!(document, again);
    assert_eq!(written, record::encode(&again));
}
