//! Short spellings of texts: words that many documents hold by number, and identifiers of a few kinds by what they
//! mean. Whatever has no short spelling that leads back to exactly the same text is written as it is.

use std::net::Ipv4Addr;

use smol_str::format_smolstr;
use uuid::Uuid;

use crate::charging::packed::TRIGGERS;
use crate::charging::text::Text;

/// Told apart by the numbers that stand in front of them. The numbers are stored.
pub const UUID: u64 = 0;
pub const IMSI: u64 = 1;
pub const IPV4: u64 = 2;
const FIRST_WORD: u64 = 8;
const FIRST_TRIGGER: u64 = 32;

/// From [`FIRST_WORD`] on, and fewer than there is room for before [`FIRST_TRIGGER`]. Words are added at the end, and
/// none is ever removed.
const WORDS: [&str; 12] = [
    "main",
    "SMF",
    "EUR",
    "nfConsumerIdentification",
    "pDUSessionChargingInformation",
    "roamingQBCInformation",
    "chargingId",
    "serviceSpecificationInfo",
    "sMSChargingInformation",
    "roamingQBCInformation/multipleQFIcontainer",
    "pDUSessionChargingInformation/rANSecondaryRATUsageReport",
    "pDUContainerInformation",
];

pub fn number_of(word: &str) -> Option<u64> {
    let mut all = (FIRST_WORD..).zip(&WORDS).chain((FIRST_TRIGGER..).zip(&TRIGGERS));
    all.find(|(_, known)| **known == word).map(|(number, _)| number)
}

pub fn word(number: u64) -> Option<&'static str> {
    let (words, at) = match number.checked_sub(FIRST_TRIGGER) {
        Some(at) => (&TRIGGERS[..], at),
        None => (&WORDS[..], number.checked_sub(FIRST_WORD)?),
    };
    words.get(usize::try_from(at).ok()?).copied()
}

/// In lower case and with hyphens, as [`Uuid`] is shown.
pub fn uuid(text: &str) -> Option<Uuid> {
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return None;
    }
    let uuid = Uuid::try_parse(text).ok()?;
    let same = *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text;
    same.then_some(uuid)
}

/// The fifteen digits of `imsi-` and an IMSI.
pub fn imsi(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("imsi-")?;
    let is_one = digits.len() == 15 && digits.bytes().all(|digit| digit.is_ascii_digit());
    if is_one { digits.parse().ok() } else { None }
}

pub fn of_imsi(digits: u64) -> Text {
    format_smolstr!("imsi-{digits:015}")
}

pub fn of_uuid(octets: [u8; 16]) -> Text {
    let uuid = Uuid::from_bytes(octets).hyphenated();
    (&*uuid.encode_lower(&mut Uuid::encode_buffer())).into()
}

pub fn of_ipv4(octets: [u8; 4]) -> Text {
    format_smolstr!("{}", Ipv4Addr::from(octets))
}

/// Only the usual spelling, without leading zeros, is one that the parser takes.
pub fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let may_be = text.len() <= "255.255.255.255".len() && text.starts_with(|first: char| first.is_ascii_digit());
    if may_be { text.parse().ok() } else { None }
}
