//! Octets in the making, and octets being read.

use super::words::{self, IMSI, IPV4, UUID};
use super::{Compact, Sparse};
use crate::charging::command::QuotaKey;
use crate::charging::ids::ChargingDataRef;
use crate::charging::session::Quota;
use crate::charging::text::Text;
use crate::charging::time::Timestamp;

/// Why bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Nothing that was ever written.
    Damaged(&'static str),
    /// They hold what this program does not know.
    Newer,
}

type Result<T> = std::result::Result<T, Unreadable>;

pub struct Writer<'a> {
    bytes: Vec<u8>,
    /// From when times count.
    since: Timestamp,
    /// Of the session whose journal is written, by their positions.
    quotas: &'a [Quota],
}

impl<'a> Writer<'a> {
    /// Goes on after `bytes`. `since` stands first, for all times after it.
    pub fn starting(bytes: Vec<u8>, since: Timestamp, quotas: &'a [Quota]) -> Self {
        let mut writer = Self { bytes, since, quotas };
        writer.signed(since.millis());
        writer
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Seven bits an octet, the lowest first; the highest bit says that more follow.
    pub fn number(&mut self, mut number: u64) {
        while let more @ 1.. = number >> 7 {
            self.bytes.push(low_octet(number) | 0x80);
            number = more;
        }
        self.bytes.push(low_octet(number));
    }

    /// Small ones of either sign take few octets.
    pub fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    pub fn time(&mut self, at: Timestamp) {
        self.difference(at.millis(), self.since.millis());
    }

    /// A number that is known to be near another one. It wraps around rather than end.
    pub fn difference(&mut self, number: i64, from: i64) {
        self.signed(number.wrapping_sub(from));
    }

    /// Which of some things are there.
    pub fn bits(&mut self, all: &[bool]) {
        self.number(all.iter().rev().fold(0, |bits, bit| (bits << 1) | u64::from(*bit)));
    }

    /// What its bit says to be there, if it is.
    pub fn sparse(&mut self, value: &impl Sparse) {
        if value.is_there() {
            value.write_there(self);
        }
    }

    /// All its bits say something.
    pub fn mark(&mut self, mark: u64) {
        self.bytes.extend_from_slice(&mark.to_be_bytes());
    }

    pub fn short_mark(&mut self, mark: u32) {
        self.bytes.extend_from_slice(&mark.to_be_bytes());
    }

    pub fn length(&mut self, length: usize) {
        self.number(u64::try_from(length).expect("a length fits into 64 bits"));
    }

    /// A quota by its position, from 1; in full after 0 where the session has no such quota.
    pub fn quota(&mut self, key: &QuotaKey) {
        match self.position(key) {
            Some(position) => self.length(position.saturating_add(1)),
            None => {
                self.number(0);
                key.write(self);
            }
        }
    }

    pub fn position(&self, key: &QuotaKey) -> Option<usize> {
        self.quotas.iter().position(|quota| quota.key == *key)
    }

    /// A text that may be one that many documents hold.
    pub fn word(&mut self, text: &str) {
        match words::number_of(text) {
            Some(number) => self.spelling(number),
            None => self.text(text),
        }
    }

    /// Its length, with the lowest bit 0; or the number of a short spelling, with the lowest bit 1.
    pub fn text(&mut self, text: &str) {
        if let Some(uuid) = words::uuid(text) {
            self.spelling(UUID);
            self.bytes.extend_from_slice(uuid.as_bytes());
        } else if let Some(digits) = words::imsi(text) {
            self.spelling(IMSI);
            self.number(digits);
        } else if let Some(address) = words::ipv4(text) {
            self.spelling(IPV4);
            self.bytes.extend_from_slice(&address.octets());
        } else {
            self.number(u64::try_from(text.len()).expect("a length fits into 64 bits") << 1);
            self.bytes.extend_from_slice(text.as_bytes());
        }
    }

    fn spelling(&mut self, number: u64) {
        self.number((number << 1) | 1);
    }
}

fn low_octet(number: u64) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}

pub struct Reader<'a> {
    rest: &'a [u8],
    since: Timestamp,
    /// Whose document it is; of an entry, nobody asks.
    pub reference: Option<&'a ChargingDataRef>,
    /// Those that the journal has introduced so far, by their positions.
    pub quotas: Vec<QuotaKey>,
}

impl<'a> Reader<'a> {
    /// The other side of [`Writer::starting`].
    pub fn starting(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Self { rest: bytes, since: Timestamp::from_millis(0), reference: None, quotas: Vec::new() };
        reader.since = reader.time()?;
        Ok(reader)
    }

    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Nothing may be left: it would be lost.
    pub fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Unreadable::Newer) }
    }

    pub fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let [octet] = self.octets()?;
            let bits = u64::from(octet & 0x7F);
            let placed = bits << shift;
            if placed >> shift != bits {
                break;
            }
            number |= placed;
            if octet & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Unreadable::Damaged("a number has more than 64 bits"))
    }

    /// A number of a smaller type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T> {
        self.number()?.try_into().map_err(|_| Unreadable::Damaged("a number is too large"))
    }

    pub fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        let sign = (number & 1).cast_signed().wrapping_neg();
        Ok((number >> 1).cast_signed() ^ sign)
    }

    pub fn time(&mut self) -> Result<Timestamp> {
        self.difference(self.since.millis()).map(Timestamp::from_millis)
    }

    pub fn difference(&mut self, from: i64) -> Result<i64> {
        Ok(self.signed()?.wrapping_add(from))
    }

    /// `known` is how many things this program knows.
    pub fn bits(&mut self, known: u32) -> Result<There> {
        let bits = self.number()?;
        match bits.checked_shr(known).unwrap_or(0) {
            0 => Ok(There(bits)),
            _ => Err(Unreadable::Newer),
        }
    }

    pub fn mark(&mut self) -> Result<u64> {
        self.octets().map(u64::from_be_bytes)
    }

    pub fn short_mark(&mut self) -> Result<u32> {
        self.octets().map(u32::from_be_bytes)
    }

    /// Of a list whose items take at least an octet each, so that no more is made room for than there can be.
    pub fn length(&mut self) -> Result<usize> {
        let length: usize = self.small()?;
        if length <= self.rest.len() { Ok(length) } else { Err(Unreadable::Damaged("a list ends early")) }
    }

    pub fn quota(&mut self) -> Result<QuotaKey> {
        let Some(position) = self.number()?.checked_sub(1) else { return QuotaKey::read(self) };
        let known = usize::try_from(position).ok().and_then(|position| self.quotas.get(position));
        known.cloned().ok_or(Unreadable::Damaged("no entry before has introduced the quota"))
    }

    pub fn text(&mut self) -> Result<Text> {
        let head = self.number()?;
        if head & 1 == 0 {
            let length = usize::try_from(head >> 1).map_err(|_| Unreadable::Damaged("a text is too long"))?;
            let text = std::str::from_utf8(self.take(length)?);
            return text.map(Into::into).map_err(|_| Unreadable::Damaged("a text is not UTF-8"));
        }
        match head >> 1 {
            UUID => self.octets().map(words::of_uuid),
            IMSI => self.number().map(words::of_imsi),
            IPV4 => self.octets().map(words::of_ipv4),
            number => words::word(number).map(Into::into).ok_or(Unreadable::Newer),
        }
    }

    fn octets<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (octets, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*octets)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }
}

const ENDS_EARLY: Unreadable = Unreadable::Damaged("the bytes end early");

/// Which of some things are there, in their order.
pub struct There(u64);

impl There {
    pub fn next(&mut self) -> bool {
        let next = self.0 & 1 == 1;
        self.0 >>= 1;
        next
    }

    /// The next one, where it is there.
    pub fn read<T: Sparse>(&mut self, from: &mut Reader<'_>) -> Result<T> {
        if self.next() { T::read_there(from) } else { Ok(T::default()) }
    }
}
