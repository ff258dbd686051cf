//! Names of keys. Part of the stored format: the tests pin them.
//!
//! All keys of a partition carry its hash tag, so that one function call may change them together wherever they live.
//! A tag is the partition's number and a short suffix, chosen so that the tags fall evenly over the 16384 slots of a
//! Redis Cluster: partition `i` into the slots `16 i` to `16 i + 15`. No name holds an identity: accounts, subscribers
//! and index entries are named by keyed hashes.
//!
//! | key (`T` = tag)             | type       | holds                                                               |
//! |-----------------------------|------------|---------------------------------------------------------------------|
//! | `nchf{T}a:<account>`        | string     | account: version (8 bytes, big-endian), document                    |
//! | `nchf{T}s:<ref>`            | string, PX | charging session: version, document                                 |
//! | `nchf{T}j:<ref>`            | list       | the session's journal; has a PX once it is retired                  |
//! | `nchf{T}l:<account>`        | list       | the account's own journal                                           |
//! | `nchf{T}p:<shelf>`          | hash       | index entries that stay: by index key in 16 bytes                   |
//! | `nchf{T}i:<index key>`      | string, PX | index entry that ends                                               |
//! | `nchf{T}t`                  | sorted set | timers: reference by due time in milliseconds                       |
//! | `nchf{T}o:<shelf>`          | sorted set | open sessions: reference by account (see [`account_score`])         |
//! | `nchf{T}c`                  | sorted set | closed sessions: reference by time of closing                       |
//! | `nchf{T}k:<account>`        | sorted set | closed sessions of one account: reference by time of closing        |
//! | `nchf{T}x`                  | stream     | outbox of records, field `d`; it outlives its entries               |
//! | `nchf{T}y`                  | stream     | outbox of notifications, as the other                               |
//! | `nchf{T}w`                  | string     | nothing: written where replicas have to hear something              |
//! | `nchf{T}r:<kind>:<id>`      | string     | reference document: version, document; `T` by a hash of the id      |
//! | `nchf{T}n:<kind>`           | sorted set | the ids of these documents, all with score 0                        |
//! | `nchf{T}d:<kind>`           | string     | the greatest version among those that were deleted, as a document   |
//! | `nchf:lease:<what>`         | string, PX | its owner, as a document                                            |
//! | `nchf:format`               | hash       | partition count, secret, instance id; written once                  |
//! | `nchf:migrations`           | hash       | number → needed migration, checksum, name                           |
//! | `nchf:migrating`            | string, PX | held by whoever applies migrations                                  |
//!
//! One entry lists an open session for its account and for its partition: the entries of an account stand together,
//! because the account is their score. The partition's entries lie on [`SHELVES`] shelves in the order of the scores,
//! short enough for Redis to keep them packed (60 bytes an entry instead of 150) up to some two million open sessions.
//! The timers cannot serve as a listing: a session may have no timer, and entries move.
//!
//! So do the index entries of open sessions, by the highest bits of their keys, which are hashes (60 bytes instead of
//! 170). A field of a hash cannot end by itself: the entry of a session that has closed moves to a key of its own. An
//! entry on a shelf counts, whatever lies under that key.

use std::fmt::{self, Write};
use std::sync::LazyLock;

use crate::charging::ids::ChargingDataRef;
use crate::store::partition::PARTITIONS;
use crate::store::{AccountKey, IndexKey, Partition, Queue, ReferenceKind};

pub const FORMAT: &str = "nchf:format";
pub const MIGRATIONS: &str = "nchf:migrations";
pub const MIGRATING: &str = "nchf:migrating";

/// Finds all names that [`session`] makes, and some others (see [`session_in`]).
pub const SESSIONS: &str = "nchf{*}s:*";

/// Finds all names that [`account`] makes, and some others (see [`account_in`]).
pub const ACCOUNTS: &str = "nchf{*}a:*";

/// Number of homes of reference documents: enough to spread them over any cluster, few enough for a listing to ask all.
pub const REFERENCE_HOMES: u16 = 64;

/// Into how many sorted sets the open sessions of a partition are divided, and into how many hashes their index entries.
/// A power of two.
pub const SHELVES: u8 = 16;

/// How many slots a cluster divides the keys into.
pub const SLOTS: u16 = 16384;
const SLOTS_PER_PARTITION: u16 = SLOTS / PARTITIONS;

/// Where a cluster keeps a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u16);

/// By the tag of the key, if it has one, else by all of it.
pub fn slot_of(key: &str) -> Slot {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    Slot(crc16(0, tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % SLOTS)
}

/// Of all keys of the partition.
pub fn slot(partition: Partition) -> Slot {
    Slot(crc16(0, tag(partition).as_bytes()) % SLOTS)
}

pub fn account(key: AccountKey) -> String {
    of(key.partition(), format_args!("a:{key}"))
}

/// The account whose document has this name; `None` for a name of anything else.
pub fn account_in(name: &str) -> Option<&str> {
    let (_, rest) = name.strip_prefix("nchf{")?.split_once('}')?;
    rest.strip_prefix("a:")
}

pub fn session(partition: Partition, key: &ChargingDataRef) -> String {
    of(partition, format_args!("s:{key}"))
}

/// The session whose document has this name; `None` for a name of anything else.
pub fn session_in(name: &str) -> Option<&str> {
    let (_, rest) = name.strip_prefix("nchf{")?.split_once('}')?;
    rest.strip_prefix("s:")
}

pub fn session_journal(partition: Partition, key: &ChargingDataRef) -> String {
    of(partition, format_args!("j:{key}"))
}

pub fn account_journal(key: AccountKey) -> String {
    of(key.partition(), format_args!("l:{key}"))
}

pub fn index(partition: Partition, key: IndexKey) -> String {
    of(partition, format_args!("i:{key}"))
}

/// Where an index entry stands that stays.
pub fn index_shelf(partition: Partition, key: IndexKey) -> String {
    of(partition, format_args!("p:{:x}", key.0 >> (u128::BITS - SHELVES.ilog2())))
}

/// Which one it is there.
pub fn index_field(key: IndexKey) -> [u8; 16] {
    key.0.to_be_bytes()
}

pub fn timers(partition: Partition) -> String {
    of(partition, format_args!("t"))
}

/// `shelf` is below [`SHELVES`].
pub fn open(partition: Partition, shelf: u8) -> String {
    of(partition, format_args!("o:{shelf:x}"))
}

pub fn open_of(key: AccountKey) -> String {
    open(key.partition(), shelf(account_score(key)))
}

/// Where a score belongs: the shelves divide the scores from the smallest to the largest.
pub fn shelf(account_score: i64) -> u8 {
    let from_zero = account_score.saturating_add(SCORE_OFFSET).clamp(0, 2 * SCORE_OFFSET - 1);
    (from_zero / (2 * SCORE_OFFSET / i64::from(SHELVES))) as u8
}

pub fn closed(partition: Partition) -> String {
    of(partition, format_args!("c"))
}

pub fn closed_of(key: AccountKey) -> String {
    of(key.partition(), format_args!("k:{key}"))
}

pub fn outbox(partition: Partition, queue: Queue) -> String {
    let name = match queue {
        Queue::Records => 'x',
        Queue::Notifications => 'y',
    };
    of(partition, format_args!("{name}"))
}

/// As [`touched`], beside [`FORMAT`].
pub const FORMAT_TOUCHED: &str = "nchf{nchf:format}w";

pub fn touched(partition: Partition) -> String {
    of(partition, format_args!("w"))
}

/// As [`touched`], beside a reference.
pub fn touched_beside(id: &str) -> String {
    touched(reference_home(id))
}

pub fn lease(what: &str) -> String {
    format!("nchf:lease:{what}")
}

pub fn reference(kind: ReferenceKind, id: &str) -> String {
    of(reference_home(id), format_args!("r:{}:{id}", kind_name(kind)))
}

/// The ids that live in the same home as `id`.
pub fn references_beside(kind: ReferenceKind, id: &str) -> String {
    references(kind, reference_home(id))
}

/// What the deleted documents that lived in the same home as `id` have left.
pub fn deleted_beside(kind: ReferenceKind, id: &str) -> String {
    of(reference_home(id), format_args!("d:{}", kind_name(kind)))
}

/// Where all ids of a kind are found.
pub fn all_references(kind: ReferenceKind) -> impl Iterator<Item = String> {
    (0..REFERENCE_HOMES).map(move |home| references(kind, reference_home_at(home)))
}

/// The score of an account's open sessions: its key without the bits that all accounts of its partition share, moved
/// to where a double still tells every integer from the next (2^53 on either side of zero).
pub fn account_score(key: AccountKey) -> i64 {
    (key.0 / u64::from(PARTITIONS)).cast_signed() - SCORE_OFFSET
}

const SCORE_OFFSET: i64 = 1 << 53;

fn references(kind: ReferenceKind, home: Partition) -> String {
    of(home, format_args!("n:{}", kind_name(kind)))
}

fn reference_home(id: &str) -> Partition {
    reference_home_at(crc16(0, id.as_bytes()) % REFERENCE_HOMES)
}

/// Every sixteenth partition lends its tag.
fn reference_home_at(home: u16) -> Partition {
    Partition(home * (PARTITIONS / REFERENCE_HOMES))
}

fn kind_name(kind: ReferenceKind) -> &'static str {
    match kind {
        ReferenceKind::Subscriber => "subscriber",
        ReferenceKind::TariffPlan => "plan",
        ReferenceKind::TariffPlanVersion => "plan-version",
        ReferenceKind::CatalogStamp => "plan-stamp",
        ReferenceKind::ExportState => "export",
    }
}

/// A key of the partition.
fn of(partition: Partition, rest: fmt::Arguments<'_>) -> String {
    let mut name = String::with_capacity(USUAL_LENGTH);
    // Into memory, which takes everything.
    let _ = write!(name, "nchf{{{}}}{rest}", tag(partition));
    name
}

/// Room for the name of a session, so that it is not moved while it is written.
const USUAL_LENGTH: usize = 64;

fn tag(partition: Partition) -> &'static str {
    // Ids from elsewhere never get here: a partition is the remainder of a division by PARTITIONS.
    &TAGS[usize::from(partition.0 % PARTITIONS)]
}

static TAGS: LazyLock<Vec<Box<str>>> = LazyLock::new(|| Partition::all().map(find_tag).collect());

/// The first suffix of letters that puts the tag into the partition's slots: shorter ones first, then by alphabet.
fn find_tag(partition: Partition) -> Box<str> {
    const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    let number = partition.0.to_string();
    let start = crc16(0, number.as_bytes());
    for length in 1.. {
        for mut rest in 0..LETTERS.len().pow(length) {
            let mut suffix = vec![0; length as usize];
            for letter in suffix.iter_mut().rev() {
                *letter = LETTERS[rest % LETTERS.len()];
                rest /= LETTERS.len();
            }
            if crc16(start, &suffix) % SLOTS / SLOTS_PER_PARTITION == partition.0 {
                let suffix: String = suffix.into_iter().map(char::from).collect();
                return format!("{number}{suffix}").into();
            }
        }
    }
    unreachable!("some suffix falls into every slot")
}

/// CRC-16 as Redis Cluster defines it (XMODEM: polynomial 0x1021), continued from `crc`.
fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = (byte as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    bytes.iter().fold(crc, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_redis_cluster() {
        assert_eq!(crc16(0, b"123456789"), 0x31c3);
        assert_eq!(crc16(crc16(0, b"1234"), b"56789"), 0x31c3);
    }

    #[test]
    fn tags_fall_evenly_over_the_slots_of_a_cluster() {
        for partition in Partition::all() {
            let slot = crc16(0, tag(partition).as_bytes()) % SLOTS;
            assert_eq!(slot / 16, partition.0, "{}", tag(partition));
            assert!(tag(partition).len() <= 7, "{}", tag(partition));
        }
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!(["foo", "{foo}bar", "a{foo}{x}", "a{}foo"].map(|key| slot_of(key).0), [12182, 12182, 12182, 16292]);
        assert_eq!(slot_of(FORMAT), slot_of(FORMAT_TOUCHED));
        assert!(Partition::all().all(|partition| slot_of(&timers(partition)) == slot(partition)));
    }

    #[test]
    fn tags_are_part_of_the_stored_format() {
        let pinned = [0, 1, 678, 1023].map(|partition| tag(Partition(partition)));
        assert_eq!(pinned, ["0als", "1bxq", "678un", "1023asx"]);
    }

    #[test]
    fn names_are_part_of_the_stored_format() {
        let key = AccountKey(678 + 1024);
        let of = ChargingDataRef::new("0w3ge1r70w3ge1r70w3z5ej4fk8ty81htpa2ex8m");
        let names = [
            (account(key), "nchf{678un}a:00000000000006a6"),
            (session(key.partition(), &of), "nchf{678un}s:0w3ge1r70w3ge1r70w3z5ej4fk8ty81htpa2ex8m"),
            (session_journal(key.partition(), &of), "nchf{678un}j:0w3ge1r70w3ge1r70w3z5ej4fk8ty81htpa2ex8m"),
            (account_journal(key), "nchf{678un}l:00000000000006a6"),
            (index(key.partition(), IndexKey(10)), "nchf{678un}i:0000000000000000000000000000000a"),
            (index_shelf(key.partition(), IndexKey(10 | (0xab << 120))), "nchf{678un}p:a"),
            (timers(key.partition()), "nchf{678un}t"),
            (open_of(key), "nchf{678un}o:0"),
            (closed(key.partition()), "nchf{678un}c"),
            (closed_of(key), "nchf{678un}k:00000000000006a6"),
            (outbox(key.partition(), Queue::Records), "nchf{678un}x"),
            (outbox(key.partition(), Queue::Notifications), "nchf{678un}y"),
            (reference(ReferenceKind::TariffPlan, "demo"), "nchf{112rt}r:plan:demo"),
            (references_beside(ReferenceKind::TariffPlan, "demo"), "nchf{112rt}n:plan"),
            (deleted_beside(ReferenceKind::TariffPlan, "demo"), "nchf{112rt}d:plan"),
            (touched(key.partition()), "nchf{678un}w"),
            (lease("records/7"), "nchf:lease:records/7"),
        ];
        for (name, pinned) in names {
            assert_eq!(name, pinned);
        }
    }

    #[test]
    fn only_a_sessions_name_leads_to_a_session() {
        let of = ChargingDataRef::new("0w3ge1r70w3ge1r70w3z5ej4fk8ty81htpa2ex8m");
        assert_eq!(session_in(&session(Partition(678), &of)), Some(of.as_str()));
        let tricky = reference(ReferenceKind::TariffPlan, "x}s:y");
        for name in [session_journal(Partition(678), &of), timers(Partition(678)), tricky, String::new()] {
            assert_eq!(session_in(&name), None, "{name}");
        }
    }

    #[test]
    fn only_an_accounts_name_leads_to_an_account() {
        let name = account(AccountKey(678));
        assert_eq!(account_in(&name), Some("00000000000002a6"));
        let tricky = reference(ReferenceKind::TariffPlan, "x}a:y");
        for name in [account_journal(AccountKey(678)), timers(Partition(678)), tricky, String::new()] {
            assert_eq!(account_in(&name), None, "{name}");
        }
    }

    #[test]
    fn account_scores_are_exact_doubles_and_distinct() {
        for key in [0, 1024, u64::MAX, u64::MAX - 1024, 1 << 63] {
            let score = account_score(AccountKey(key));
            assert_eq!(score as f64 as i64, score);
            assert_ne!(score as f64, account_score(AccountKey(key ^ 1024)) as f64);
        }
    }

    #[test]
    fn shelves_are_filled_in_the_order_of_the_scores() {
        let of = |key| shelf(account_score(AccountKey(key)));
        assert_eq!([0, 1 << 60, (1 << 60) - 1, 1 << 63, u64::MAX].map(of), [0, 1, 0, 8, 15]);
        assert_eq!([i64::MIN, i64::MAX].map(shelf), [0, 15]);
    }

    #[test]
    fn reference_homes_are_spread_like_the_partitions() {
        let homes: Vec<u16> = (0..REFERENCE_HOMES).map(|home| reference_home_at(home).0).collect();
        assert_eq!((homes[0], homes[1], homes[63]), (0, 16, 1008));
        assert_eq!(all_references(ReferenceKind::Subscriber).count(), 64);
    }
}
