//! Charging data records as they leave the program: as JSON, as BER (TS 32.298), and in files that appear whole or not
//! at all (TS 32.297).
//!
//! [`json`] is what a record says; [`ber`] is a reading of it by the table `ber/chf.records`, so that both formats tell
//! the same. [`directory`] keeps the promise that matters: what was appended and closed is published once, through
//! crashes, full disks and second writers. Nothing here knows a store, a request or a clock: the exporter takes records
//! from journals, says what time it is, and acknowledges what [`directory::Directory::is_published`].
//!
//! All I/O blocks; callers give it a thread of its own.

pub mod ber;
pub mod directory;
pub mod files;
pub mod json;
pub mod ts32297;

use serde::{Deserialize, Serialize};

use crate::charging::cdr::Cdr;
use ts32297::Specification;

/// A record with what only the exporter knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub cdr: &'a Cdr,
    /// NF instance id of this charging function.
    pub recording_nf: &'a str,
    /// Its place among all records of that NF instance, without gaps (TS 32.298 5.1.5.1.3); `None` while it has none.
    pub local_sequence_number: Option<u32>,
}

/// What a file of records is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One object in a line.
    Jsonl,
    /// Files of TS 32.297 with records of TS 32.298 in BER.
    Ber,
}

impl Format {
    pub const ALL: [Self; 2] = [Self::Jsonl, Self::Ber];

    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Ber => "ber",
        }
    }
}

/// A record in every format that a [`directory::Directory`] writes.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    line: Option<String>,
    ber: Option<Ber>,
}

#[derive(Clone, Debug)]
struct Ber {
    specification: Specification,
    octets: Vec<u8>,
    /// Of the octets.
    length: u16,
}

/// No file can hold the record: the length of one has two octets (TS 32.297 6.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of {octets} octets cannot be written, at most 65535 can: split it before")]
pub struct TooLong {
    pub octets: usize,
}

impl Encoded {
    fn of(record: &Record, formats: &[Format]) -> Result<Self, TooLong> {
        let mut encoded = Self::default();
        for format in formats {
            match format {
                Format::Jsonl => encoded.line = Some(json::line(record)),
                Format::Ber => {
                    let octets = ber::encode(record);
                    let length = u16::try_from(octets.len()).map_err(|_| TooLong { octets: octets.len() })?;
                    encoded.ber = Some(Ber { specification: Specification::of(record.cdr), octets, length });
                }
            }
        }
        Ok(encoded)
    }

    /// As it stands in a file of that format; nothing, if it was not asked for.
    fn write_to(&self, format: Format, file: &mut Vec<u8>) {
        match format {
            Format::Jsonl => {
                if let Some(line) = &self.line {
                    file.extend_from_slice(line.as_bytes());
                    file.push(b'\n');
                }
            }
            Format::Ber => {
                if let Some(ber) = &self.ber {
                    file.extend_from_slice(&ts32297::record_header(ber.length, ber.specification));
                    file.extend_from_slice(&ber.octets);
                }
            }
        }
    }
}
