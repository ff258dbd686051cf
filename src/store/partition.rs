//! Where things live: account keys, partitions, index keys, and references that name their own home.
//!
//! Everything here is derived with a hash keyed by the store's secret, so that no key name tells an identity and no
//! reference can be made up. The layout is part of the stored format: the tests pin it.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::charging::ids::{AccountId, ChargingDataRef};

/// Number of partitions. A constant of the stored format, checked when a store is opened.
pub const PARTITIONS: u16 = 1024;

/// An account's place: a keyed hash of its id. The partition is its low bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey(pub u64);

impl AccountKey {
    pub fn partition(self) -> Partition {
        Partition(u16::try_from(self.0 % u64::from(PARTITIONS)).expect("below PARTITIONS, which is a u16"))
    }

    /// Reads what the key is shown as; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let key = u64::from_str_radix(text, 16).ok().map(Self)?;
        (key.to_string() == text).then_some(key)
    }
}

/// Sixteen hexadecimal digits: what stands in key names.
impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the [`PARTITIONS`] homes of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u16);

impl Partition {
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..PARTITIONS).map(Self)
    }
}

/// Names an index entry inside a partition: a keyed hash of whatever it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexKey(pub u128);

/// Thirty-two hexadecimal digits.
impl fmt::Display for IndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A hash keyed with the store's secret: SipHash-2-4 with 128 bits, over parts that cannot run into each other.
pub struct KeyedHash(SipHasher24);

impl KeyedHash {
    /// `purpose` keeps hashes of different kinds apart.
    pub fn new(secret: &[u8; 16], purpose: &str) -> Self {
        Self(SipHasher24::new_with_key(secret)).part(purpose.as_bytes())
    }

    #[must_use]
    pub fn part(mut self, part: &[u8]) -> Self {
        self.add(part);
        self
    }

    pub fn add(&mut self, part: &[u8]) {
        self.0.write_u64(part.len() as u64);
        self.0.write(part);
    }

    pub fn finish128(&self) -> u128 {
        self.0.finish128().as_u128()
    }

    pub fn finish64(&self) -> u64 {
        let hash = self.0.finish128();
        hash.h1 ^ hash.h2
    }
}

/// Mints and reads references: 96 random bits, the account's key masked by a hash of them, and a 40-bit MAC, as 40
/// characters of lower-case base 32. So a reference leads to its account without a look-up, two references of one
/// account have nothing in common to see, and one that was not minted here is refused without touching the store.
#[derive(Clone)]
pub struct RefCodec {
    secret: [u8; 16],
}

const RANDOM: usize = 12;
const MASKED: usize = 8;
const MAC: usize = 5;
const LENGTH: usize = (RANDOM + MASKED + MAC) * 8 / 5;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// What each character stands for.
const VALUES: [Option<u8>; 256] = {
    let mut values = [None; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = Some(value as u8);
        value += 1;
    }
    values
};

impl RefCodec {
    pub fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    pub fn account_key(&self, id: &AccountId) -> AccountKey {
        AccountKey(KeyedHash::new(&self.secret, "account").part(id.as_str().as_bytes()).finish64())
    }

    pub fn index_key(&self, purpose: &str, parts: &[&[u8]]) -> IndexKey {
        let mut hash = KeyedHash::new(&self.secret, purpose);
        parts.iter().for_each(|part| hash.add(part));
        IndexKey(hash.finish128())
    }

    /// The key under which a subscriber's identifier (SUPI, GPSI or another) is stored.
    pub fn subscriber_key(&self, identifier: &str) -> String {
        self.index_key("subscriber", &[identifier.as_bytes()]).to_string()
    }

    /// A hash for another purpose, keyed with the store's secret.
    pub fn hash(&self, purpose: &str) -> KeyedHash {
        KeyedHash::new(&self.secret, purpose)
    }

    /// `random` is fresh for every session, or a keyed hash of what makes the session what it is.
    pub fn mint(&self, account: AccountKey, random: [u8; RANDOM]) -> ChargingDataRef {
        let mut raw = [0u8; RANDOM + MASKED + MAC];
        raw[..RANDOM].copy_from_slice(&random);
        let masked = account.0 ^ self.mask(&random);
        raw[RANDOM..RANDOM + MASKED].copy_from_slice(&masked.to_be_bytes());
        let mac = self.mac(&raw[..RANDOM + MASKED]);
        raw[RANDOM + MASKED..].copy_from_slice(&mac);
        ChargingDataRef::new(encode(&raw))
    }

    /// The account that a reference belongs to; `None` for anything that [`RefCodec::mint`] did not make.
    pub fn account_of(&self, text: &str) -> Option<AccountKey> {
        let raw = decode(text)?;
        let (body, mac) = raw.split_at(RANDOM + MASKED);
        // Compared without an early exit, so that timing tells nothing about how much of a guess was right.
        let different = self.mac(body).iter().zip(mac).fold(0u8, |sum, (a, b)| sum | (a ^ b));
        if different != 0 {
            return None;
        }
        let masked = u64::from_be_bytes(body[RANDOM..].try_into().expect("eight bytes"));
        Some(AccountKey(masked ^ self.mask(&body[..RANDOM])))
    }

    fn mask(&self, random: &[u8]) -> u64 {
        KeyedHash::new(&self.secret, "mask").part(random).finish64()
    }

    fn mac(&self, body: &[u8]) -> [u8; MAC] {
        let hash = KeyedHash::new(&self.secret, "mac").part(body).finish128().to_be_bytes();
        hash[..MAC].try_into().expect("a 128-bit hash has more bytes than the MAC")
    }
}

fn encode(raw: &[u8]) -> String {
    let mut text = String::with_capacity(LENGTH);
    for chunk in raw.chunks_exact(5) {
        let bits = chunk.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
        for at in (0..8).rev() {
            text.push(char::from(ALPHABET[((bits >> (at * 5)) & 31) as usize]));
        }
    }
    text
}

fn decode(text: &str) -> Option<[u8; RANDOM + MASKED + MAC]> {
    if text.len() != LENGTH {
        return None;
    }
    let mut raw = [0u8; RANDOM + MASKED + MAC];
    for (digits, bytes) in text.as_bytes().chunks_exact(8).zip(raw.chunks_exact_mut(5)) {
        let mut bits = 0u64;
        for digit in digits {
            bits = (bits << 5) | u64::from(VALUES[usize::from(*digit)]?);
        }
        bytes.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec() -> RefCodec {
        RefCodec::new(*b"0123456789abcdef")
    }

    #[test]
    fn a_reference_leads_back_to_its_account() {
        let key = codec().account_key(&AccountId::new("demo-0001"));
        let minted = codec().mint(key, [7; 12]);
        assert_eq!(minted.as_str().len(), 40);
        assert_eq!(codec().account_of(minted.as_str()), Some(key));
    }

    #[test]
    fn the_layout_is_part_of_the_stored_format() {
        let key = codec().account_key(&AccountId::new("demo-0001"));
        assert_eq!(key.to_string(), "0021112769bc86a6");
        assert_eq!(key.partition(), Partition(678));
        assert_eq!(codec().mint(key, [7; 12]).as_str(), "0w3ge1r70w3ge1r70w3z5ej4fk8ty81htpa2ex8m");
    }

    #[test]
    fn an_accounts_key_reads_as_it_is_shown_and_nothing_else_does() {
        for key in [0, 0x0021_1127_69bc_86a6, u64::MAX].map(AccountKey) {
            assert_eq!(AccountKey::parse(&key.to_string()), Some(key));
        }
        for text in ["", "0", "+021112769bc86a6", "0021112769BC86A6", "0021112769bc86a60", "x021112769bc86a6"] {
            assert_eq!(AccountKey::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn any_changed_character_makes_a_reference_worthless() {
        let minted = codec().mint(AccountKey(42), [9; 12]);
        for at in 0..LENGTH {
            let mut forged = minted.as_str().as_bytes().to_vec();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(codec().account_of(std::str::from_utf8(&forged).unwrap()), None, "position {at}");
        }
    }

    #[test]
    fn text_that_was_never_minted_is_refused() {
        for text in ["", "*", "{a}", "../../etc", "é", &"0".repeat(40), &"0".repeat(41), &"A".repeat(40), "a\r\nb"] {
            assert_eq!(codec().account_of(text), None, "{text:?}");
        }
    }
}
