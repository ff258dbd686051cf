//! What was written once is read for good: the documents of `tests/corpora/stored`, which programs with each of the
//! formats have written.

use nchf::charging::account::Account;
use nchf::charging::command::{QuotaKey, Subscriber};
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::session::Quota;
use nchf::charging::tariff::TariffPlan;
use nchf::store::record::{self, JournalReader};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The document, after the letter that says what it is.
fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/corpora/stored/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")).split_off(1)
}

#[test]
fn sessions_of_all_forms_read_as_the_same() {
    for name in ["session_bench", "session_ask", "session_upf", "session_pdu", "closed_used", "closed_roaming"] {
        let [before, compact, following] =
            [fixture(name), fixture(&format!("compact_{name}")), fixture(&format!("following_{name}"))];
        assert_eq!((before[0], compact[0], following[0]), (1, 2, 4), "{name}");
        let session = record::decode_session(&ChargingDataRef::new("in the document"), &before).unwrap();
        for later in [&compact, &following] {
            assert_eq!(record::decode_session(&session.reference, later).unwrap(), session, "{name}");
        }
        assert_eq!(record::encode_session(&session), following, "{name}");
    }
}

#[test]
fn journals_of_both_forms_read_as_the_same() {
    for names in [
        &["entry_bench_0", "entry_bench_1", "entry_bench_2"][..],
        &["entry_upf_0", "entry_upf_1"],
        &["entry_used_0", "entry_used_1"],
        &["entry_roaming_0", "entry_roaming_1"],
        &["entry_triggers_0", "entry_triggers_1"],
    ] {
        let (mut reader, mut other_reader, mut mixed_reader) =
            (JournalReader::default(), JournalReader::default(), JournalReader::default());
        let mut quotas = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let [before, now] = [fixture(name), fixture(&format!("compact_{name}"))];
            assert_eq!((before[0], now[0]), (1, 2), "{name}");
            let entry = reader.decode(&before).unwrap();
            assert_eq!(other_reader.decode(&now).unwrap(), entry, "{name}");
            // A journal may begin in one form and go on in the other.
            let mixed = if at == 0 { &before } else { &now };
            assert_eq!(mixed_reader.decode(mixed).unwrap(), entry, "{name}");
            quotas.extend(entry.event.invocation().unwrap().quotas.iter().map(unused));
            assert_eq!(body(4, &record::encode_entry(&entry, &quotas)), &now[1..], "{name}");
        }
    }
}

fn unused(key: &QuotaKey) -> Quota {
    Quota { key: key.clone(), grant: None, used: 0, last_code: None, final_unit: false, expired: false }
}

/// What stands between the format number and the checksum.
#[track_caller]
fn body(format: u8, document: &[u8]) -> &[u8] {
    assert_eq!(document[0], format);
    &document[1..document.len() - 4]
}

/// Their checksums were calculated by zlib.
#[test]
fn documents_with_a_checksum_are_written_as_they_were() {
    for name in ["session_bench", "closed_roaming"] {
        // From before containers were remembered by what they follow, and after.
        let [before, now] = [fixture(&format!("sealed_{name}")), fixture(&format!("following_{name}"))];
        for stored in [&before, &now] {
            let session = record::decode_session(&ChargingDataRef::new("any"), stored).unwrap();
            assert_eq!(record::encode_session(&session), now, "{name}");
        }
    }
    let (mut reader, mut quotas) = (JournalReader::default(), Vec::new());
    for name in ["sealed_entry_bench_0", "sealed_entry_bench_1", "sealed_entry_bench_2"] {
        let stored = fixture(name);
        let entry = reader.decode(&stored).unwrap();
        quotas.extend(entry.event.invocation().unwrap().quotas.iter().map(unused));
        assert_eq!(record::encode_entry(&entry, &quotas), stored, "{name}");
    }
    assert_written_alike::<Account>("account_held");
    assert_written_alike::<Subscriber>("subscriber_mother");
    assert_written_alike::<TariffPlan>("plan");
}

/// From before the checksum, and after.
#[track_caller]
fn assert_written_alike<T: Serialize + DeserializeOwned>(name: &str) {
    let [before, now] = [fixture(name), fixture(&format!("sealed_{name}"))];
    for stored in [&before, &now] {
        assert_eq!(record::encode(&record::decode::<T>(stored).unwrap()), now, "{name}");
    }
}

/// Every bit of each kind of document: whatever flips, nothing is read.
#[test]
fn a_flipped_bit_of_a_document_is_found() {
    for (name, is_read) in [
        ("account_held", (|bytes| record::decode::<Account>(bytes).is_ok()) as fn(&[u8]) -> bool),
        ("plan", |bytes| record::decode::<TariffPlan>(bytes).is_ok()),
        ("subscriber_mother", |bytes| record::decode::<Subscriber>(bytes).is_ok()),
        ("session_bench", |bytes| record::decode_session(&ChargingDataRef::new("any"), bytes).is_ok()),
        ("entry_bench_0", |bytes| JournalReader::default().decode(bytes).is_ok()),
    ] {
        let mut stored = fixture(&format!("sealed_{name}"));
        assert!(is_read(&stored), "{name}");
        for bit in 0..stored.len() * 8 {
            stored[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_read(&stored), "{name}: bit {bit}");
            stored[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
