//! Charging data records as they leave the program: as JSON, as BER (TS 32.298), and in files that appear whole or not
//! at all (TS 32.297).
//!
//! [`json`] is what a record says; [`ber`] is a reading of it by the table `ber/chf.records`, so that both formats tell
//! the same. [`directory`] keeps the promise that matters: what was appended and closed is published once, through
//! crashes, full disks and second writers. Nothing here knows a store, a request or a clock: the exporter takes records
//! from journals, says what time it is, and acknowledges what [`directory::Directory::is_published`].
//!
//! All I/O blocks; callers give it a thread of its own.

pub mod json;

use crate::charging::cdr::Cdr;

/// A record with what only the exporter knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub cdr: &'a Cdr,
    /// NF instance id of this charging function.
    pub recording_nf: &'a str,
    /// Its place among all records of that NF instance (TS 32.298 5.1.5.1.3); `None` while it has none.
    pub local_sequence_number: Option<u32>,
}

#[cfg(test)]
mod sample {
    use super::Record;
    use crate::charging::cdr::{CauseForRecordClosing, Cdr, QuotaUsage};
    use crate::charging::command::{Block, Container, QuotaKey};
    use crate::charging::ids::{AccountId, ChargingDataRef, RatingGroup, SubscriberId, TariffPlanId};
    use crate::charging::journal::Header;
    use crate::charging::money::Amount;
    use crate::charging::session::{Consumer, Service};
    use crate::charging::time::Timestamp;
    use crate::charging::units::Units;

    pub const NF: &str = "6a1c0e52-7f0b-4a7e-9f3e-0d2c5b1a4e88";

    pub fn cdr() -> Cdr {
        let volume = Units { total_volume: Some(1_048_576), ..Units::default() };
        let key = QuotaKey { rating_group: RatingGroup(10), upf: None, multihomed: None, mb_upf: None };
        Cdr {
            reference: ChargingDataRef::new("6y19q3vvkagteh9tp1p15dzsmsf3c4xwgyp9hm2d"),
            part: 0,
            header: Header {
                subscriber: Some(SubscriberId::new("imsi-001010000000001")),
                account: Some(AccountId::new("demo-0001")),
                currency: Some("EUR".into()),
                plan: Some(TariffPlanId::new("demo")),
                consumer: Consumer { functionality: "SMF".into(), name: None, address: None },
                service: Service::Converged,
                one_time: false,
            },
            opened_at: Timestamp::from_secs(1_768_474_800),
            closed_at: Timestamp::from_secs(1_768_478_400),
            cause: CauseForRecordClosing::NormalRelease,
            triggers: Vec::new(),
            usage: vec![QuotaUsage { key, containers: vec![Container::of_units(volume)], others: Vec::new() }],
            blocks: Vec::new(),
            charged: Amount::new(50_000),
        }
    }

    pub fn record(cdr: &Cdr) -> Record<'_> {
        Record { cdr, recording_nf: NF, local_sequence_number: Some(7) }
    }

    pub fn block(name: &str, json: &str) -> Block {
        Block { name: name.into(), json: json.into(), hash: 0 }
    }
}
