//! What was written once is read for good: the documents of `tests/corpora/stored`, which programs with each of the two
//! formats have written.

use nchf::charging::command::QuotaKey;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::session::Quota;
use nchf::store::record::{self, JournalReader};

/// The document, after the letter that says what it is.
fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/corpora/stored/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")).split_off(1)
}

#[test]
fn sessions_of_both_formats_read_as_the_same() {
    for name in ["session_bench", "session_ask", "session_upf", "session_pdu", "closed_used", "closed_roaming"] {
        let [before, now] = [fixture(name), fixture(&format!("compact_{name}"))];
        assert_eq!((before[0], now[0]), (1, 2), "{name}");
        let session = record::decode_session(&ChargingDataRef::new("in the document"), &before).unwrap();
        assert_eq!(record::decode_session(&session.reference, &now).unwrap(), session, "{name}");
        assert_eq!(record::encode_session(&session), now, "{name}");
    }
}

#[test]
fn journals_of_both_formats_read_as_the_same() {
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
            // A journal may begin in one format and go on in the other.
            let mixed = if at == 0 { &before } else { &now };
            assert_eq!(mixed_reader.decode(mixed).unwrap(), entry, "{name}");
            quotas.extend(entry.event.invocation().unwrap().quotas.iter().map(unused));
            assert_eq!(record::encode_entry(&entry, &quotas), now, "{name}");
        }
    }
}

fn unused(key: &QuotaKey) -> Quota {
    Quota { key: key.clone(), grant: None, used: 0, last_code: None, final_unit: false, expired: false }
}
