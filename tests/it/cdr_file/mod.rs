//! Records as they leave the program: JSON lines, BER, and files that survive whatever happens.

mod ber;
mod bodies;
mod directory;
mod faults;
mod json;
mod ts32297;

use nchf::cdr_file::Format;
use nchf::cdr_file::Record;
use nchf::cdr_file::directory::Settings;
use nchf::charging::cdr::{CauseForRecordClosing, Cdr, QuotaUsage};
use nchf::charging::command::{Block, Container, QuotaKey};
use nchf::charging::ids::{AccountId, ChargingDataRef, RatingGroup, SubscriberId, TariffPlanId};
use nchf::charging::journal::Header;
use nchf::charging::money::Amount;
use nchf::charging::session::{Consumer, Service};
use nchf::charging::time::{Span, Timestamp};
use nchf::charging::units::Units;

/// NF instance id of the charging function in these tests.
const NF: &str = "6a1c0e52-7f0b-4a7e-9f3e-0d2c5b1a4e88";

/// 2026-01-15T11:00:00Z.
const OPENED_AT: Timestamp = Timestamp::from_secs(1_768_474_800);

/// An hour of a PDU session with one container of a MiB.
fn cdr() -> Cdr {
    let volume = Units { total_volume: Some(1_048_576), ..Units::default() };
    let key = QuotaKey { rating_group: RatingGroup(10), upf: None, multihomed: None, mb_upf: None };
    Cdr {
        reference: ChargingDataRef::new("6y19q3vvkagteh9tp1p15dzsmsf3c4xwgyp9hm2d"),
        part: 0,
        sequence_number: None,
        header: Header {
            subscriber: Some(SubscriberId::new("imsi-001010000000001")),
            account: Some(AccountId::new("demo-0001")),
            currency: Some("EUR".into()),
            plan: Some(TariffPlanId::new("demo")),
            consumer: Consumer { functionality: "SMF".into(), name: None, address: None },
            service: Service::Converged,
            one_time: false,
        },
        opened_at: OPENED_AT,
        closed_at: OPENED_AT.after(Span::from_secs(3600)),
        cause: CauseForRecordClosing::NormalRelease,
        incomplete: None,
        triggers: Vec::new(),
        usage: vec![QuotaUsage { key, containers: vec![Container::of_units(volume)], others: Vec::new() }],
        blocks: Vec::new(),
        reports: Vec::new(),
        charged: Amount::new(50_000),
        published: None,
    }
}

fn record(cdr: &Cdr) -> Record<'_> {
    Record { cdr, recording_nf: NF, local_sequence_number: Some(7) }
}

fn block(name: &str, json: &str) -> Block {
    Block { name: name.into(), json: json.into(), hash: 0 }
}

fn settings(formats: &[Format]) -> Settings {
    Settings {
        node_id: "nchf".into(),
        formats: formats.to_vec(),
        lives_for: Span::from_secs(900),
        bytes_max: 1 << 26,
        records_max: 100_000,
    }
}
