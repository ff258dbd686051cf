//! Records in BER, read by decoders that know nothing of the encoder: a small one of this file for the structure, and
//! where the official ASN.1 and Python are at hand, two made from it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nchf::cdr_file::{Record, ber, json};
use nchf::charging::cdr::{Cdr, Incomplete};
use nchf::charging::ids::ChargingDataRef;
use serde_json::{Value, json};

use super::bodies::{Filler, spoil};
use super::{NF, block, cdr, record};
use crate::payloads;
use crate::support::{Answer, World, official};

/// The closed records of a body, through the services and the core.
async fn records_of(world: &World, body: &Value) -> Vec<Cdr> {
    let created = world.create(body).await;
    created.expect(201);
    released(world, &created, body).await
}

async fn released(world: &World, created: &Answer, body: &Value) -> Vec<Cdr> {
    let release = json!({
        "nfConsumerIdentification": body["nfConsumerIdentification"],
        "invocationTimeStamp": "2026-01-15T12:00:00Z",
        "invocationSequenceNumber": 2,
    });
    world.tick(60);
    // An event is over already.
    world.release(created, &release).await;
    let reference = ChargingDataRef::new(created.reference());
    let account = world.app.shared.refs.account_of(reference.as_str()).unwrap();
    world.app.cdrs(account, &reference).await.unwrap()
}

/// Every value of every enumeration, two in each turn, every alternative, every member.
const TURNS: usize = 42;

async fn full_records() -> Vec<Cdr> {
    let world = World::new().await;
    let mut records = Vec::new();
    for turn in 0..TURNS {
        let of_turn = records_of(&world, &Filler::new(turn).request()).await;
        // The blocks alone are more than a record usually collects, so each container and each report has a record. All
        // have the blocks.
        let reports = of_turn.iter().flat_map(|cdr| cdr.reports.clone()).collect();
        let with_usage = of_turn.into_iter().find(|cdr| !cdr.usage.is_empty());
        records.extend(with_usage.map(|cdr| Cdr { reports, ..cdr }));
    }
    assert_eq!(records.len(), TURNS);
    records
}

/// The same with values that are wrong, in blocks, containers and triggers.
fn spoiled(records: &[Cdr]) -> Vec<Cdr> {
    let mut coins = 0x2545_f491_4f6c_dd1d;
    let mut records = records.to_vec();
    for cdr in &mut records {
        for block in cdr.blocks.iter_mut().chain(&mut cdr.reports).chain(cdr.usage.iter_mut().flat_map(|usage| {
            let containers = usage.containers.iter_mut().flat_map(|container| &mut container.others);
            usage.others.iter_mut().chain(containers)
        })) {
            let mut value: Value = serde_json::from_str(&block.json).unwrap();
            spoil(&mut value, &mut coins);
            block.json = value.to_string().into();
        }
    }
    records
}

#[test]
fn a_record_is_these_octets() {
    let mut cdr = cdr();
    cdr.incomplete = Some(Incomplete { initial_lost: Some(false), update_lost: None, termination_lost: Some(true) });
    cdr.sequence_number = Some(2);
    cdr.blocks.push(block("tenantIdentifier", "\"t\""));
    cdr.blocks.push(block("newBlock", "{\"a\":[1]}"));
    let extension = br#"{"accountId":"demo-0001","charged":"0.050000","currency":"EUR","id":"6y19q3vvkagteh9tp1p15dzsmsf3c4xwgyp9hm2d-0","newBlock":{"a":[1]}}"#;
    let parts: [&[u8]; 19] = [
        b"\xbf\x81\x48\x82\x01\x4d",
        b"\x80\x02\x00\xc8",
        b"\x81\x246a1c0e52-7f0b-4a7e-9f3e-0d2c5b1a4e88",
        b"\xa2\x14\x80\x01\x01\x81\x0f001010000000001",
        b"\xa3\x03\x80\x01\x01",
        b"\xa5\x11\x30\x0f\x80\x01\x0a",
        b"\xa1\x0a\x30\x08\x84\x03\x10\x00\x00\x89\x01\x00",
        b"\x86\x09\x26\x01\x15\x11\x00\x00+\x00\x00",
        b"\x87\x02\x0e\x10",
        b"\x88\x01\x02",
        b"\x89\x01\x00",
        b"\x8b\x01\x07",
        b"\xac\x81\xa5\x30\x81\xa2\x06\x14",
        b"\x69\x81\xbe\x8e\xb7\x8a\xef\xd1\xe2\xb0\xff\x9a\xa5\xcb\xed\xf0\xe3\xf4\xbc\x55",
        b"\xa2\x81\x89\x04\x81\x86",
        extension,
        b"\x90\x286y19q3vvkagteh9tp1p15dzsmsf3c4xwgyp9hm2d",
        b"\xb6\x06\x80\x01\x00\x82\x01\xff",
        b"\x97\x01t",
    ];
    let octets = ber::encode(&record(&cdr));
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!(hex(&octets), hex(&parts.concat()));
}

/// Those of bodies as real senders send them, where such are at hand.
async fn real_records() -> Vec<Cdr> {
    let bodies = payloads::bodies();
    let world = payloads::provisioned(&bodies).await;
    let mut records = Vec::new();
    for (_, body) in &bodies {
        let created = world.create(body).await;
        if created.status.is_success() {
            records.extend(released(&world, &created, body).await);
        }
    }
    records
}

#[tokio::test]
async fn every_record_is_whole_and_no_longer_than_its_line() {
    let full = full_records().await;
    for cdr in full.iter().chain(&spoiled(&full)).chain(&real_records().await) {
        let record = record(cdr);
        let octets = ber::encode(&record);
        assert_eq!(octets[..3], [0xbf, 0x81, 0x48]);
        assert_eq!(well_formed(&octets).unwrap_or_else(|why| panic!("{why}: {octets:02x?}")), 1);
        let line = json::line(&record);
        assert!(octets.len() <= line.len(), "{} octets for a line of {}", octets.len(), line.len());
    }
}

/// How many values there are; or what is wrong with them.
fn well_formed(mut octets: &[u8]) -> Result<usize, String> {
    let mut count = 0;
    while let [first, rest @ ..] = octets {
        let is_constructed = first & 0x20 != 0;
        let mut rest = rest;
        if first & 0x1f == 0x1f {
            let more = rest.iter().position(|octet| octet & 0x80 == 0).ok_or("a tag without an end")?;
            rest = &rest[more + 1..];
        }
        let [length, after @ ..] = rest else { return Err("no length".to_owned()) };
        let (length, after) = match usize::from(*length) {
            short @ 0..0x80 => (short, after),
            0x80 => return Err("an indefinite length".to_owned()),
            long => {
                let (digits, after) = after.split_at_checked(long - 0x80).ok_or("half a length")?;
                (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), after)
            }
        };
        let (content, after) = after.split_at_checked(length).ok_or("half a value")?;
        if is_constructed {
            well_formed(content)?;
        }
        octets = after;
        count += 1;
    }
    Ok(count)
}

#[tokio::test]
async fn independent_decoders_agree_with_the_json_of_every_record() {
    let full = full_records().await;
    let spoiled = spoiled(&full);
    let real = real_records().await;
    let all = || full.iter().chain(&spoiled).chain(&real);
    let Some(decoded) = decode(all()) else { return };
    for (cdr, decoded) in all().zip(&decoded) {
        assert!(decoded.get("error").is_none(), "{decoded}\n{}", json::line(&record(cdr)));
    }
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (cdr, decoded) in full.iter().zip(&decoded) {
        let mut readings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, value) in leaves(&decoded["chargingFunctionRecord"]) {
            for reading in readings_of(&value) {
                readings.entry(reading).or_default().insert(path.clone());
            }
        }
        for (path, value) in leaves(&json::tree(&record(cdr))).into_iter().filter(|(_, value)| is_telling(value)) {
            let found: BTreeSet<String> =
                spellings_of(&value).iter().filter_map(|spelling| readings.get(spelling)).flatten().cloned().collect();
            let known = places.entry(path).or_default();
            // Of all the places where one value is found by chance, those where others are found too are its own.
            let both: BTreeSet<String> = known.intersection(&found).cloned().collect();
            *known = if both.is_empty() { known.union(&found).cloned().collect() } else { both };
        }
    }
    insta::assert_snapshot!("members_and_their_fields", by_name(&places));
}

/// `block.member -> block.field`, once for all that are alike, where names differ or there is no field.
fn by_name(places: &BTreeMap<String, BTreeSet<String>>) -> String {
    let short = |path: &str| {
        let names: Vec<&str> = path.rsplitn(3, '.').collect();
        names.iter().take(2).rev().copied().collect::<Vec<_>>().join(".")
    };
    let mut lines: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, fields) in places {
        lines.entry(short(path)).or_default().extend(fields.iter().map(|field| short(field)));
    }
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let is_renamed =
        |(path, fields): &(&String, &BTreeSet<String>)| fields.iter().all(|field| last(field) != last(path));
    let line = |(path, fields): (&String, &BTreeSet<String>)| {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        format!("{path} -> {}", if fields.is_empty() { "nowhere".to_owned() } else { fields.join(", ") })
    };
    lines.iter().filter(is_renamed).map(line).collect::<Vec<_>>().join("\n")
}

/// A value that is not found anywhere by chance: not a word of an enumeration, not a small number.
fn is_telling(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            let is_long = |run: &str| run.len() >= 5 && run.bytes().any(|byte| byte.is_ascii_digit());
            text.split(|c: char| !c.is_ascii_hexdigit()).any(is_long)
        }
        Value::Number(number) => number.as_f64().is_some_and(|number| number >= 1e6),
        _ => false,
    }
}

/// Values without parts, with their paths, which leave out positions in lists.
fn leaves(tree: &Value) -> Vec<(String, Value)> {
    fn walk(path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, member)| {
                walk(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, member, found);
            }),
            Value::Array(items) => items.iter().for_each(|item| walk(path, item, found)),
            // JSON that is carried as text is looked into.
            leaf => match text_of(leaf).and_then(|text| serde_json::from_slice::<Value>(&text).ok()) {
                Some(tree @ Value::Object(_)) => walk(path, &tree, found),
                _ => found.push((path.to_owned(), leaf.clone())),
            },
        }
    }
    let mut found = Vec::new();
    walk("", tree, &mut found);
    found
}

/// What a decoded value may stand for.
fn readings_of(decoded: &Value) -> Vec<String> {
    let text = match decoded {
        Value::String(text) => text,
        other => return vec![other.to_string()],
    };
    let Some(octets) = octets_of(text) else {
        let bare = text.split('/').next().unwrap_or(text);
        return vec![text.clone(), text.to_lowercase(), bare.to_owned()];
    };
    // Halves swapped, and without the octet that says what kind of number it is.
    let digits = |octets: &[u8]| -> String {
        let halves = octets.iter().flat_map(|octet| [octet & 0xf, octet >> 4]).filter(|half| *half < 10);
        halves.map(|half| char::from(b'0' + half)).collect()
    };
    let mut readings = vec![text[2..].trim_start_matches('0').to_owned()];
    if octets.len() > 3 {
        readings.extend([digits(&octets), digits(&octets[1..])]);
    }
    readings.extend(String::from_utf8(octets.clone()));
    if let [year, month, day, hour, minute, second, sign @ (b'+' | b'-'), hours, minutes] = octets[..] {
        let (date, sign) = (format!("20{year:02x}-{month:02x}-{day:02x}"), char::from(sign));
        readings.push(format!("{date}T{hour:02x}:{minute:02x}:{second:02x}{sign}{hours:02x}:{minutes:02x}"));
    }
    // Of a group on a network, the group.
    if octets.len() == 6 {
        readings.push(text[2..8].trim_start_matches('0').to_owned());
    }
    readings
}

/// The octets that a decoded value is made of, where it is made of some.
fn text_of(leaf: &Value) -> Option<Vec<u8>> {
    let text = leaf.as_str()?;
    Some(octets_of(text).unwrap_or_else(|| text.as_bytes().to_vec()))
}

/// What hexadecimal digits after `0x` say.
fn octets_of(text: &str) -> Option<Vec<u8>> {
    let hex = text.strip_prefix("0x")?;
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

/// How a value of the JSON record may be written.
fn spellings_of(value: &Value) -> Vec<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let rounded = number.as_f64().filter(|float| float.fract() != 0.0).map(|float| float.round().to_string());
            return std::iter::once(number.to_string()).chain(rounded).collect();
        }
        other => return vec![other.to_string()],
    };
    let mut spellings = vec![text.trim_start_matches('0').to_lowercase(), text.replace('Z', "+00:00")];
    spellings.extend(text.split_once('-').map(|(_, rest)| rest.to_owned()));
    spellings.extend(text.split_once(".mnc").map(|(network, _)| network.to_owned()));
    spellings.push(text.replace(".000Z", "+00:00"));
    spellings.push(text);
    spellings
}

/// What two decoders of the official ASN.1 make of the records; `None` without it, or without Python.
fn decode<'a>(cdrs: impl Iterator<Item = &'a Cdr>) -> Option<Vec<Value>> {
    let asn1 = official::folder().map(|folder| folder.join("TS32298_V18.8.0_chf.asn")).filter(|file| file.is_file());
    let (Some(asn1), Some(python)) = (asn1, python()) else {
        eprintln!("no ASN.1 of TS 32.298 or no Python with asn1tools and pycrate: nothing was decoded");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/decode_chf_records.py");
    let mut child =
        Command::new(python).args([&script, &asn1]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: String = cdrs
        .map(|cdr| {
            let octets = ber::encode(&Record { cdr, recording_nf: NF, local_sequence_number: Some(4_294_967_295) });
            octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>() + "\n"
        })
        .collect();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A Python that has both decoders: the one at hand, or one of our own that pip can provide.
fn python() -> Option<PathBuf> {
    let has_decoders = |python: &Path| {
        let imports = ["-c", "import asn1tools, pycrate_asn1dir, pycrate_asn1c"];
        Command::new(python).args(imports).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let at_hand = PathBuf::from("python3");
    if has_decoders(&at_hand) {
        return Some(at_hand);
    }
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join("decoders");
    let python = own.join("bin/python");
    if has_decoders(&python) {
        return Some(python);
    }
    let succeeds = |command: &mut Command| command.stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    let made = succeeds(Command::new(&at_hand).args(["-m", "venv"]).arg(&own))
        && succeeds(Command::new(&python).args(["-m", "pip", "install", "-q", "asn1tools==0.169.0", "pycrate==0.8.1"]));
    (made && has_decoders(&python)).then_some(python)
}
