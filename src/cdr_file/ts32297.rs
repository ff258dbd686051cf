//! What TS 32.297 puts around records: the header of a file, the header of each record, and the file's name.
//!
//! All numbers are big-endian. Times are written in UTC: an instance has no place of its own.

use jiff::tz::TimeZone;

use super::directory::FileNumber;
use crate::charging::cdr::Cdr;
use crate::charging::time::Timestamp;

/// The release of TS 32.298 that the records follow: 18.8. Its three bits say "later than 9", an octet after the fixed
/// part says how much later than 10.
const RELEASE_AND_VERSION: u8 = (7 << 5) | 8;
const RELEASE_EXTENSION: u8 = 18 - 10;

pub const FILE_HEADER_LENGTH: usize = 54;
pub const RECORD_HEADER_LENGTH: usize = 5;

/// Why a file was closed (TS 32.297 6.1.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closure {
    /// Nothing had to be waited for: the program ends, or its settings changed.
    Normal,
    Size,
    Age,
    Records,
    /// An operator asked for it.
    Manual,
}

impl Closure {
    const fn code(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Size => 1,
            Self::Age => 2,
            Self::Records => 3,
            Self::Manual => 4,
        }
    }
}

/// What the header says of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileHeader {
    /// With this header.
    pub length: u64,
    pub opened_at: Timestamp,
    /// When the last record was appended.
    pub appended_at: Timestamp,
    pub records: u32,
    pub number: FileNumber,
    pub closure: Closure,
}

impl FileHeader {
    pub fn octets(&self) -> [u8; FILE_HEADER_LENGTH] {
        let mut octets = [0; FILE_HEADER_LENGTH];
        let parts: [&[u8]; 14] = [
            // All ones say that a number has outgrown the field.
            &u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes(),
            &(FILE_HEADER_LENGTH as u32).to_be_bytes(),
            // The highest and the lowest release of the file's records.
            &[RELEASE_AND_VERSION, RELEASE_AND_VERSION],
            &packed_time(self.opened_at).to_be_bytes(),
            &packed_time(self.appended_at).to_be_bytes(),
            &self.records.to_be_bytes(),
            &self.number.0.to_be_bytes(),
            &[self.closure.code()],
            // The node's address. Instances come and go, so a file names its writer by the node id in its name.
            &[0xff; 20],
            // Lost records: none, because a record stays in the store until a file with it is published.
            &[0],
            // Neither routeing filter nor private extension.
            &[0, 0],
            &[0, 0],
            &[RELEASE_EXTENSION],
            &[RELEASE_EXTENSION],
        ];
        let mut rest = octets.as_mut_slice();
        for part in parts {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        octets
    }
}

/// Month, day, hour, minute, and the offset from UTC with its sign, in 4, 5, 5, 6, 1, 5 and 6 bits.
fn packed_time(at: Timestamp) -> u32 {
    const NO_OFFSET: u32 = 1 << 11;
    let at = at.in_zone(&TimeZone::UTC);
    let part = |value: i8| u32::from(value.unsigned_abs());
    part(at.month()) << 28 | part(at.day()) << 23 | part(at.hour()) << 18 | part(at.minute()) << 12 | NO_OFFSET
}

/// What stands before a record of `length` octets.
pub fn record_header(length: u16, specification: Specification) -> [u8; RECORD_HEADER_LENGTH] {
    const BER: u8 = 1 << 5;
    let [high, low] = length.to_be_bytes();
    [high, low, RELEASE_AND_VERSION, BER | specification.number(), RELEASE_EXTENSION]
}

/// The specification that a record's service follows: tells mediation which part of a record to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specification {
    /// Data connectivity; also for services that TS 32.297 has no number for.
    Ts32255,
    Ts32254,
    Ts32256,
    Ts28201,
    Ts28202,
    Ts32257,
    Ts32260,
    Ts32270,
    Ts32274,
    Ts32275,
    Ts32277,
    Ts32282,
}

impl Specification {
    const fn number(self) -> u8 {
        match self {
            Self::Ts32260 => 9,
            Self::Ts32270 => 10,
            Self::Ts32275 => 14,
            Self::Ts32274 => 15,
            Self::Ts32277 => 16,
            Self::Ts32255 => 20,
            Self::Ts32254 => 21,
            Self::Ts32256 => 22,
            Self::Ts28201 => 23,
            Self::Ts28202 => 24,
            Self::Ts32257 => 25,
            Self::Ts32282 => 26,
        }
    }

    /// By the block that describes the record's service. A call has the blocks of two specifications, and is a call.
    pub fn of(cdr: &Cdr) -> Self {
        let by_block = [
            ("sMSChargingInformation", Self::Ts32274),
            ("mMSChargingInformation", Self::Ts32270),
            ("iMSChargingInformation", Self::Ts32260),
            ("mMTelChargingInformation", Self::Ts32275),
            ("pDUSessionChargingInformation", Self::Ts32255),
            ("roamingQBCInformation", Self::Ts32255),
            ("nEFChargingInformation", Self::Ts32254),
            ("registrationChargingInformation", Self::Ts32256),
            ("n2ConnectionChargingInformation", Self::Ts32256),
            ("locationReportingChargingInformation", Self::Ts32256),
            ("nSPAChargingInformation", Self::Ts28201),
            ("nSMChargingInformation", Self::Ts28202),
            ("edgeInfrastructureUsageChargingInformation", Self::Ts32257),
            ("eASDeploymentChargingInformation", Self::Ts32257),
            ("directEdgeEnablingServiceChargingInformation", Self::Ts32257),
            ("exposedEdgeEnablingServiceChargingInformation", Self::Ts32257),
            ("proSeChargingInformation", Self::Ts32277),
            ("tSNChargingInformation", Self::Ts32282),
        ];
        let has = |name: &str| cdr.blocks.iter().any(|block| &*block.name == name);
        by_block.into_iter().find(|(name, _)| has(name)).map_or(Self::Ts32255, |(_, specification)| specification)
    }
}

/// `NodeID_-_RC.YYYYMMDD_-_HHMM±hhmm.extension`: who wrote it, its number, and when it was closed.
pub fn file_name(node_id: &str, number: FileNumber, closed_at: Timestamp, extension: &str) -> String {
    let closed_at = closed_at.in_zone(&TimeZone::UTC).strftime("%Y%m%d_-_%H%M+0000");
    format!("{node_id}_-_{}.{closed_at}.{extension}", number.0)
}
