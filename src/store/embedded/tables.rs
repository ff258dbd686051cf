//! The tables, their keys and their rows.
//!
//! A commit costs what it touches: every page that it changes is copied, summed and written. So one table holds an
//! account beside its sessions, and whatever a commit has to know about a session (where its timer entry stands, where
//! it is listed, where its journal ends) stands in front of its document, so that changing one never searches another
//! table. The usual update changes one page of [`DOCUMENTS`] and its share of the last page of [`JOURNAL`].
//!
//! All numbers in keys are big-endian, so that the order of the bytes is the order of the numbers. The first bytes of
//! every key but a journal's are its partition, or an [`account_key`], which begins with its partition: so whatever
//! belongs to a partition or to an account is one range. What is written here is a stored format; a change needs a new
//! [`FORMAT`]. Format 1 had no journals that end and one outbox for both kinds of entries; it is read as it is, and a
//! store that was opened once has format 2.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::charging::ids::ChargingDataRef;
use crate::charging::time::Timestamp;
use crate::store::partition::PARTITIONS;
use crate::store::{AccountKey, IndexKey, OutboxId, Partition, Queue, ReferenceKind, Version};

/// The format this program writes. It reads every format from 1 to this one.
pub(super) const FORMAT: u32 = 2;

/// What the store knows about itself: the names below.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const META_FORMAT: &str = "format";
pub(super) const META_PARTITIONS: &str = "partitions";
pub(super) const META_SECRET: &str = "secret";
pub(super) const META_INSTANCE: &str = "instance";
/// Every sequence number below this one may have been given away.
pub(super) const META_SEQUENCE: &str = "sequence";
/// No deleted reference had a greater version; missing until one was deleted.
pub(super) const META_DELETED: &str = "deleted";

/// [`account_key`] → [`AccountRow`] and document; [`session_key`] → [`SessionRow`] and document.
pub(super) const DOCUMENTS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("documents");

/// Sequence number → the number of the entry before it in the same journal, 0 for the first, and the entry.
///
/// All journals share this one table, each a chain whose end its row knows. New entries of all sessions so share the
/// last page, where a key of session and number would change another page for each entry: that costs twice the
/// processor time and twice the bytes written per commit. Reading a journal costs one look-up per entry, and only
/// records, ledgers and audits read journals.
pub(super) const JOURNAL: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("journal");

/// Partition, time, reference → the account. One entry per session at most; its row knows the time.
pub(super) const TIMERS: TableDefinition<'static, &[u8], u64> = TableDefinition::new("timers");

/// [`account_key`], time of opening, reference: the open sessions of an account, and those of a partition.
pub(super) const OPEN: TableDefinition<'static, &[u8], ()> = TableDefinition::new("open");
/// [`account_key`], time of closing, reference.
pub(super) const CLOSED_OF_ACCOUNT: TableDefinition<'static, &[u8], ()> = TableDefinition::new("closed_of_account");
/// Partition, time of closing, reference.
pub(super) const CLOSED: TableDefinition<'static, &[u8], ()> = TableDefinition::new("closed");

/// Partition, sequence number → the entry.
pub(super) const RECORDS: TableDefinition<'static, &[u8; 10], &[u8]> = TableDefinition::new("outbox");
/// As [`RECORDS`].
pub(super) const NOTIFICATIONS: TableDefinition<'static, &[u8; 10], &[u8]> = TableDefinition::new("notifications");

pub(super) const fn outbox(queue: Queue) -> TableDefinition<'static, &'static [u8; 10], &'static [u8]> {
    match queue {
        Queue::Records => RECORDS,
        Queue::Notifications => NOTIFICATIONS,
    }
}

/// Partition, index key → [`IndexRow`] and value.
pub(super) const INDEX: TableDefinition<'static, &[u8; 18], &[u8]> = TableDefinition::new("index");

/// Time, then [`EXPIRES_SESSION`] and a session's key, or [`EXPIRES_INDEX`] and an index entry's.
///
/// One entry for whatever has a time to live, at or before its end: a renewed document keeps its early entry, and the
/// purge that finds the document still alive moves the entry to the end it has then. So renewing costs nothing here and
/// nothing piles up.
pub(super) const EXPIRIES: TableDefinition<'static, &[u8], ()> = TableDefinition::new("expiries");
pub(super) const EXPIRES_SESSION: u8 = 1;
pub(super) const EXPIRES_INDEX: u8 = 2;

/// Kind, id → version and document.
pub(super) const REFERENCES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("references");

/// The tables of one write transaction, each opened when it is first used: a usual group of commits opens two.
pub(super) struct Tables<'t> {
    pub(super) meta: Lazy<'t, &'static str, &'static [u8]>,
    pub(super) documents: Lazy<'t, &'static [u8], &'static [u8]>,
    pub(super) journal: Lazy<'t, u64, &'static [u8]>,
    pub(super) timers: Lazy<'t, &'static [u8], u64>,
    pub(super) open: Lazy<'t, &'static [u8], ()>,
    pub(super) closed_of_account: Lazy<'t, &'static [u8], ()>,
    pub(super) closed: Lazy<'t, &'static [u8], ()>,
    pub(super) records: Lazy<'t, &'static [u8; 10], &'static [u8]>,
    pub(super) notifications: Lazy<'t, &'static [u8; 10], &'static [u8]>,
    pub(super) index: Lazy<'t, &'static [u8; 18], &'static [u8]>,
    pub(super) expiries: Lazy<'t, &'static [u8], ()>,
    pub(super) references: Lazy<'t, &'static [u8], &'static [u8]>,
}

impl<'t> Tables<'t> {
    pub(super) fn of(transaction: &'t WriteTransaction) -> Self {
        Self {
            meta: Lazy::new(transaction, META),
            documents: Lazy::new(transaction, DOCUMENTS),
            journal: Lazy::new(transaction, JOURNAL),
            timers: Lazy::new(transaction, TIMERS),
            open: Lazy::new(transaction, OPEN),
            closed_of_account: Lazy::new(transaction, CLOSED_OF_ACCOUNT),
            closed: Lazy::new(transaction, CLOSED),
            records: Lazy::new(transaction, RECORDS),
            notifications: Lazy::new(transaction, NOTIFICATIONS),
            index: Lazy::new(transaction, INDEX),
            expiries: Lazy::new(transaction, EXPIRIES),
            references: Lazy::new(transaction, REFERENCES),
        }
    }

    /// Creates what is missing, so that no reader ever finds a table that is not there.
    pub(super) fn create(mut self) -> Result<(), redb::Error> {
        self.meta.table()?;
        self.documents.table()?;
        self.journal.table()?;
        self.timers.table()?;
        self.open.table()?;
        self.closed_of_account.table()?;
        self.closed.table()?;
        self.records.table()?;
        self.notifications.table()?;
        self.index.table()?;
        self.expiries.table()?;
        self.references.table()?;
        Ok(())
    }

    pub(super) fn outbox(
        &mut self,
        queue: Queue,
    ) -> Result<&mut Table<'t, &'static [u8; 10], &'static [u8]>, redb::Error> {
        match queue {
            Queue::Records => self.records.table(),
            Queue::Notifications => self.notifications.table(),
        }
    }
}

pub(super) struct Lazy<'t, K: redb::Key + 'static, V: redb::Value + 'static> {
    transaction: &'t WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'t, K, V>>,
}

impl<'t, K: redb::Key + 'static, V: redb::Value + 'static> Lazy<'t, K, V> {
    fn new(transaction: &'t WriteTransaction, definition: TableDefinition<'static, K, V>) -> Self {
        Self { transaction, definition, table: None }
    }

    pub(super) fn table(&mut self) -> Result<&mut Table<'t, K, V>, redb::Error> {
        if self.table.is_none() {
            self.table = Some(self.transaction.open_table(self.definition)?);
        }
        Ok(self.table.as_mut().expect("opened above"))
    }
}

/// The account's key with the bits of its partition first.
pub(super) fn account_key(account: AccountKey) -> [u8; 8] {
    account.0.rotate_right(PARTITION_BITS).to_be_bytes()
}

/// The account whose key [`account_key`] made, or a longer key that begins with it.
pub(super) fn account_of(key: &[u8]) -> Result<AccountKey, redb::Error> {
    let (account, _) = key.split_first_chunk().ok_or_else(|| damaged("a key too short for an account's"))?;
    Ok(AccountKey(u64::from_be_bytes(*account).rotate_left(PARTITION_BITS)))
}

/// The first key of a partition in a table keyed by account; also the first key behind the partition before it.
/// `None` behind the last one.
pub(super) fn first_of(partition: u16) -> Option<[u8; 8]> {
    (partition < PARTITIONS).then(|| (u64::from(partition) << (u64::BITS - PARTITION_BITS)).to_be_bytes())
}

const PARTITION_BITS: u32 = PARTITIONS.trailing_zeros();
const _: () = assert!(PARTITIONS.is_power_of_two(), "a partition is the low bits of an account's key");

pub(super) fn session_key(account: AccountKey, session: &ChargingDataRef) -> Vec<u8> {
    [&account_key(account), session.as_str().as_bytes()].concat()
}

/// `prefix` is an account's key or a partition's.
pub(super) fn listed_key(prefix: &[u8], at: Timestamp, session: &[u8]) -> Vec<u8> {
    [prefix, &at_key(at), session].concat()
}

pub(super) fn partition_key(partition: Partition) -> [u8; 2] {
    partition.0.to_be_bytes()
}

pub(super) fn outbox_key(partition: Partition, sequence: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&partition_key(partition));
    key[2..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// Sixteen hexadecimal digits, so that the ids' own order is the entries'.
pub(super) fn outbox_id(key: &[u8; 10]) -> OutboxId {
    let (_, sequence) = key.split_last_chunk::<8>().expect("ten bytes");
    OutboxId(format!("{:016x}", u64::from_be_bytes(*sequence)).into())
}

/// `None` for a text that [`outbox_id`] never made.
pub(super) fn outbox_sequence(id: &OutboxId) -> Option<u64> {
    u64::from_str_radix(&id.0, 16).ok().filter(|_| id.0.len() == 16)
}

pub(super) fn index_key(partition: Partition, key: IndexKey) -> [u8; 18] {
    let mut whole = [0; 18];
    whole[..2].copy_from_slice(&partition_key(partition));
    whole[2..].copy_from_slice(&key.0.to_be_bytes());
    whole
}

pub(super) fn expiry_key(at: Timestamp, kind: u8, key: &[u8]) -> Vec<u8> {
    [&at_key(at), &[kind][..], key].concat()
}

pub(super) fn reference_key(kind: ReferenceKind, id: &str) -> Vec<u8> {
    [&[kind_number(kind)], id.as_bytes()].concat()
}

pub(super) fn kind_number(kind: ReferenceKind) -> u8 {
    match kind {
        ReferenceKind::Subscriber => 1,
        ReferenceKind::TariffPlan => 2,
        ReferenceKind::TariffPlanVersion => 3,
        ReferenceKind::CatalogStamp => 4,
        ReferenceKind::ExportState => 5,
    }
}

/// The sign bit is turned over, so that times before 1970 sort first.
pub(super) fn at_key(at: Timestamp) -> [u8; 8] {
    (at.millis() ^ i64::MIN).to_be_bytes()
}

pub(super) fn at_of(key: [u8; 8]) -> Timestamp {
    Timestamp::from_millis(i64::from_be_bytes(key) ^ i64::MIN)
}

/// What stands in front of an account's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AccountRow {
    /// `Version::ABSENT` when there is no document behind this, only a journal.
    pub(super) version: Version,
    /// The last entry of the account's own journal, 0 for none.
    pub(super) journal: u64,
}

impl AccountRow {
    pub(super) const LEN: usize = 16;

    pub(super) fn write(self, out: &mut [u8]) {
        out[..8].copy_from_slice(&self.version.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.journal.to_be_bytes());
    }

    /// The row and the document behind it.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), redb::Error> {
        let mut reader = Reader(bytes);
        let row = Self { version: Version(reader.number()?), journal: reader.number()? };
        Ok((row, reader.0))
    }
}

/// What stands in front of a session's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionRow {
    /// `Version::ABSENT` when there is no document behind this any more, only a journal or entries elsewhere.
    pub(super) version: Version,
    /// The last entry of the session's journal, 0 for none.
    pub(super) journal: u64,
    /// From then on there is no document, whether or not it has been purged.
    pub(super) expires_at: Option<Timestamp>,
    /// Where the entry in [`EXPIRIES`] stands, at or before the ends of document and journal.
    pub(super) expiry_at: Option<Timestamp>,
    /// Where the entry in [`TIMERS`] stands.
    pub(super) timer_at: Option<Timestamp>,
    pub(super) listed: Listed,
    /// From then on there is no journal, and the session is not listed as closed, whether or not they have been purged.
    /// Only retired sessions have it, so it stands behind everything else and takes no room in the others.
    pub(super) journal_ends_at: Option<Timestamp>,
}

/// Where a session is listed, and at what time there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Listed {
    #[default]
    Nowhere,
    Open(Timestamp),
    Closed(Timestamp),
}

impl SessionRow {
    const LEN: usize = 49;
    const RETIRED_LEN: usize = Self::LEN + 8;
    /// Beside the state of the listing in its byte: the journal's end stands behind it.
    const RETIRED: u8 = 4;

    pub(super) fn len(&self) -> usize {
        if self.journal_ends_at.is_some() { Self::RETIRED_LEN } else { Self::LEN }
    }

    pub(super) fn version_at(&self, now: Timestamp) -> Version {
        if self.expires_at.is_some_and(|end| end <= now) { Version::ABSENT } else { self.version }
    }

    pub(super) fn journal_has_ended(&self, now: Timestamp) -> bool {
        self.journal_ends_at.is_some_and(|end| end <= now)
    }

    /// The last entry of the journal that there is, 0 for none.
    pub(super) fn journal_at(&self, now: Timestamp) -> u64 {
        if self.journal_has_ended(now) { 0 } else { self.journal }
    }

    /// When something of it ends next.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        [self.expires_at, self.journal_ends_at].into_iter().flatten().min()
    }

    /// Whether anything but the document still needs the row.
    pub(super) fn is_needed(&self) -> bool {
        self.journal != 0 || self.timer_at.is_some() || self.listed != Listed::Nowhere
    }

    pub(super) fn write(&self, out: &mut [u8]) {
        let (state, listed_at) = match self.listed {
            Listed::Nowhere => (0, None),
            Listed::Open(at) => (1, Some(at)),
            Listed::Closed(at) => (2, Some(at)),
        };
        out[..8].copy_from_slice(&self.version.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.journal.to_be_bytes());
        out[16..24].copy_from_slice(&maybe(self.expires_at));
        out[24..32].copy_from_slice(&maybe(self.expiry_at));
        out[32..40].copy_from_slice(&maybe(self.timer_at));
        out[40..48].copy_from_slice(&maybe(listed_at));
        out[48] = state;
        if let Some(end) = self.journal_ends_at {
            out[48] |= Self::RETIRED;
            out[49..57].copy_from_slice(&end.millis().to_be_bytes());
        }
    }

    /// The row and the document behind it.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), redb::Error> {
        let mut reader = Reader(bytes);
        let mut row = Self {
            version: Version(reader.number()?),
            journal: reader.number()?,
            expires_at: reader.time()?,
            expiry_at: reader.time()?,
            timer_at: reader.time()?,
            listed: Listed::Nowhere,
            journal_ends_at: None,
        };
        let listed_at = reader.time()?;
        let state = reader.byte()?;
        row.listed = match (state & !Self::RETIRED, listed_at) {
            (0, None) => Listed::Nowhere,
            (1, Some(at)) => Listed::Open(at),
            (2, Some(at)) => Listed::Closed(at),
            _ => return Err(damaged(format!("a session's row is listed as {state}"))),
        };
        if state & Self::RETIRED != 0 {
            row.journal_ends_at = reader.time()?;
        }
        Ok((row, reader.0))
    }
}

/// What stands in front of an index entry's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct IndexRow {
    /// As in [`SessionRow`]; `None` keeps it for ever.
    pub(super) expires_at: Option<Timestamp>,
    pub(super) expiry_at: Option<Timestamp>,
}

impl IndexRow {
    pub(super) const LEN: usize = 16;

    pub(super) fn is_alive_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    pub(super) fn write(self, out: &mut [u8]) {
        out[..8].copy_from_slice(&maybe(self.expires_at));
        out[8..16].copy_from_slice(&maybe(self.expiry_at));
    }

    /// The row and the value behind it.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), redb::Error> {
        let mut reader = Reader(bytes);
        let row = Self { expires_at: reader.time()?, expiry_at: reader.time()? };
        Ok((row, reader.0))
    }
}

/// The number in front of a journal's entry (the one before it) or of a reference's document (its version).
pub(super) fn read_numbered(bytes: &[u8]) -> Result<(u64, &[u8]), redb::Error> {
    let mut reader = Reader(bytes);
    Ok((reader.number()?, reader.0))
}

pub(super) fn write_numbered(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), bytes].concat()
}

/// The entries of the journal that ends at `last`, in order. One look-up per entry.
pub(super) fn read_journal(
    journal: &impl ReadableTable<u64, &'static [u8]>,
    mut last: u64,
) -> Result<Vec<bytes::Bytes>, redb::Error> {
    let mut entries = Vec::new();
    while last != 0 {
        let Some(found) = journal.get(last)? else {
            return Err(damaged(format!("journal entry {last} is missing")));
        };
        let (before, entry) = read_numbered(found.value())?;
        if before >= last {
            return Err(damaged(format!("journal entry {last} follows {before}")));
        }
        entries.push(bytes::Bytes::copy_from_slice(entry));
        last = before;
    }
    entries.reverse();
    Ok(entries)
}

/// What was read cannot have been written by this program.
pub(super) fn damaged(what: impl Into<String>) -> redb::Error {
    redb::Error::Corrupted(what.into())
}

/// No timestamp is as late as this: they end with the year 9999.
const NEVER: i64 = i64::MAX;

fn maybe(at: Option<Timestamp>) -> [u8; 8] {
    at.map_or(NEVER, Timestamp::millis).to_be_bytes()
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], redb::Error> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or_else(|| damaged("a row ends too early"))?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn byte(&mut self) -> Result<u8, redb::Error> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, redb::Error> {
        self.chunk().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Result<Option<Timestamp>, redb::Error> {
        let millis = self.chunk().map(i64::from_be_bytes)?;
        Ok((millis != NEVER).then(|| Timestamp::from_millis(millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accounts_key_begins_with_its_partition() {
        for account in [AccountKey(0), AccountKey(1), AccountKey(1023), AccountKey(0x0021_1127_69bc_86a6)] {
            let key = account_key(account);
            let Partition(partition) = account.partition();
            assert!(first_of(partition).unwrap() <= key, "{account}");
            assert!(first_of(partition + 1).is_none_or(|end| key < end), "{account}");
            assert_eq!(account_of(&[&key[..], b"behind"].concat()).unwrap(), account);
        }
    }

    #[test]
    fn times_sort_as_their_bytes_do() {
        let times = [i64::MIN, -1, 0, 1, 1_790_000_000_000, i64::MAX].map(Timestamp::from_millis);
        let keys = times.map(at_key);
        assert!(keys.is_sorted());
        assert_eq!(keys.map(at_of), times);
    }

    #[test]
    fn rows_read_as_they_were_written() {
        let at = |secs| Some(Timestamp::from_secs(secs));
        let listings = [Listed::Nowhere, Listed::Open(Timestamp::from_secs(5)), Listed::Closed(Timestamp::default())];
        for (listed, journal_ends_at) in listings.into_iter().flat_map(|listed| [(listed, None), (listed, at(3))]) {
            let row = SessionRow {
                version: Version(7),
                journal: 9,
                expires_at: at(1),
                expiry_at: at(2),
                timer_at: None,
                listed,
                journal_ends_at,
            };
            let mut bytes = vec![0; row.len()];
            row.write(&mut bytes);
            bytes.extend_from_slice(b"document");
            assert_eq!(SessionRow::read(&bytes).unwrap(), (row, &b"document"[..]));
        }
    }

    #[test]
    fn a_short_row_is_damage_and_no_panic() {
        for len in 0..SessionRow::LEN {
            assert!(matches!(SessionRow::read(&vec![0xff; len]), Err(redb::Error::Corrupted(_))));
        }
        assert!(SessionRow::read(&[0xff; SessionRow::RETIRED_LEN]).is_err());
        let retired = SessionRow { journal_ends_at: Some(Timestamp::default()), ..SessionRow::default() };
        let mut bytes = vec![0; retired.len()];
        retired.write(&mut bytes);
        assert!(SessionRow::read(&bytes[..SessionRow::LEN]).is_err());
        assert!(AccountRow::read(&[0; 15]).is_err());
        assert!(IndexRow::read(&[0; 15]).is_err());
        assert!(read_numbered(&[0; 7]).is_err());
    }
}
