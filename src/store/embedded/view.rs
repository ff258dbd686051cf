//! The last committed state, as readers see it.
//!
//! The writer makes a view of each group it has made durable and puts it in the place of the one before. Readers share
//! it: beginning a transaction and opening its tables costs about as much as the look-ups themselves, and is so paid
//! once per group instead of once per request. A view in use keeps only the pages that the groups after it replaced.

use std::ops::Bound;

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable};

use super::tables::{
    self, AccountRow, CLOSED, CLOSED_OF_ACCOUNT, IndexRow, Listed, OPEN, SessionRow, account_key, damaged,
};
use crate::charging::ids::ChargingDataRef;
use crate::charging::time::Timestamp;
use crate::store::{
    AccountKey, COUNTED_MAX, Document, Due, Indexed, JournalKey, List, Load, Origin, OutboxId, Page, Partition, Queue,
    ReferenceKind, Snapshot, Version, Work,
};

pub(super) struct View {
    documents: ReadOnlyTable<&'static [u8], &'static [u8]>,
    index: ReadOnlyTable<&'static [u8; 18], &'static [u8]>,
    references: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// Opens the tables that no charging request reads.
    pub(super) transaction: ReadTransaction,
}

impl View {
    pub(super) fn of(database: &Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_read()?;
        Ok(Self {
            documents: transaction.open_table(tables::DOCUMENTS)?,
            index: transaction.open_table(tables::INDEX)?,
            references: transaction.open_table(tables::REFERENCES)?,
            transaction,
        })
    }

    pub(super) fn load(&self, load: &Load, now: Timestamp) -> Result<Snapshot, redb::Error> {
        let account = read_account(&self.documents, &account_key(load.account))?;
        let session = match &load.session {
            Some(session) => read_session(&self.documents, &tables::session_key(load.account, session), now)?,
            None => None,
        };
        let mut index = Vec::with_capacity(load.index.len());
        for key in &load.index {
            index.push(match self.index.get(&tables::index_key(load.account.partition(), *key))? {
                Some(found) => {
                    let (row, value) = IndexRow::read(found.value())?;
                    row.is_alive_at(now).then(|| Bytes::copy_from_slice(value))
                }
                None => None,
            });
        }
        Ok(Snapshot { account, session, index, origin: Origin::ANY })
    }

    pub(super) fn sessions(
        &self,
        account: AccountKey,
        keys: &[ChargingDataRef],
        now: Timestamp,
    ) -> Result<Vec<Option<Document>>, redb::Error> {
        keys.iter().map(|key| read_session(&self.documents, &tables::session_key(account, key), now)).collect()
    }

    pub(super) fn journal(&self, key: &JournalKey, now: Timestamp) -> Result<Vec<Bytes>, redb::Error> {
        let last = match key {
            JournalKey::Account(account) => match self.documents.get(&account_key(*account)[..])? {
                Some(found) => AccountRow::read(found.value())?.0.journal,
                None => 0,
            },
            JournalKey::Session(account, session) => {
                self.session_row(*account, session)?.map_or(0, |row| row.journal_at(now))
            }
        };
        tables::read_journal(&self.transaction.open_table(tables::JOURNAL)?, last)
    }

    pub(super) fn due(&self, partition: Partition, now: Timestamp, limit: usize) -> Result<Vec<Due>, redb::Error> {
        let due = read_due(&self.transaction.open_table(tables::TIMERS)?, partition, now, limit)?;
        Ok(due.into_iter().map(|(due, _)| due).collect())
    }

    pub(super) fn look(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Work>, redb::Error> {
        let timers = self.transaction.open_table(tables::TIMERS)?;
        let records = self.transaction.open_table(tables::RECORDS)?;
        let notifications = self.transaction.open_table(tables::NOTIFICATIONS)?;
        let mut work = Vec::new();
        for partition in partitions.iter().copied() {
            let found = Work {
                partition,
                due: !read_due(&timers, partition, now, 1)?.is_empty(),
                records: waiting(&records, partition)?,
                notifications: waiting(&notifications, partition)?,
            };
            if found.is_any() {
                work.push(found);
            }
        }
        Ok(work)
    }

    pub(super) fn outbox(
        &self,
        partition: Partition,
        queue: Queue,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(OutboxId, Bytes)>, redb::Error> {
        let outbox = self.transaction.open_table(tables::outbox(queue))?;
        let mut entries = Vec::new();
        for found in entries_after(&outbox, partition, after)?.take(limit) {
            let (key, entry) = found?;
            entries.push((tables::outbox_id(key.value()), Bytes::copy_from_slice(entry.value())));
        }
        Ok(entries)
    }

    pub(super) fn scan(&self, cursor: Option<&str>, limit: usize, now: Timestamp) -> Result<Page, redb::Error> {
        self.walk(cursor, limit, |key, row| {
            // An account's key has nothing behind the account.
            let Some((_, session)) = key.split_first_chunk::<8>().filter(|(_, rest)| !rest.is_empty()) else {
                return Ok(None);
            };
            let is_there = SessionRow::read(row)?.0.version_at(now) != Version::ABSENT;
            Ok(if is_there { Some(text(session)?.into()) } else { None })
        })
    }

    pub(super) fn accounts(&self, cursor: Option<&str>, limit: usize) -> Result<Page, redb::Error> {
        self.walk(cursor, limit, |key, row| {
            let is_there = key.len() == 8 && AccountRow::read(row)?.0.version != Version::ABSENT;
            Ok(if is_there { Some(tables::account_of(key)?.to_string().into()) } else { None })
        })
    }

    /// What `item` finds in the documents' rows. A page looks through `limit` of them; a cursor is the last key that was
    /// looked at, in hexadecimal digits.
    fn walk(
        &self,
        cursor: Option<&str>,
        limit: usize,
        item: impl Fn(&[u8], &[u8]) -> Result<Option<Box<str>>, redb::Error>,
    ) -> Result<Page, redb::Error> {
        let first = match cursor.map(unhex) {
            None => Bound::Unbounded,
            Some(Some(last)) => Bound::Excluded(last),
            // A cursor that no page ever gave continues nothing.
            Some(None) => return Ok(Page::default()),
        };
        let mut rows = self.documents.range::<&[u8]>((first.as_ref().map(Vec::as_slice), Bound::Unbounded))?;
        let mut page = Page::default();
        let mut last = Vec::new();
        for found in rows.by_ref().take(limit.max(1)) {
            let (key, row) = found?;
            last.clear();
            last.extend_from_slice(key.value());
            page.items.extend(item(key.value(), row.value())?);
        }
        page.next = rows.next().transpose()?.map(|_| hex(&last).into());
        Ok(page)
    }

    pub(super) fn indexes(&self, account: AccountKey, session: &ChargingDataRef) -> Result<Indexed, redb::Error> {
        let row = self.session_row(account, session)?.unwrap_or_default();
        Ok(Indexed { timer: row.timer_at, listed_open: matches!(row.listed, Listed::Open(_)) })
    }

    fn session_row(&self, account: AccountKey, session: &ChargingDataRef) -> Result<Option<SessionRow>, redb::Error> {
        let found = self.documents.get(&tables::session_key(account, session)[..])?;
        found.map(|found| SessionRow::read(found.value()).map(|(row, _)| row)).transpose()
    }

    pub(super) fn reference(&self, kind: ReferenceKind, id: &str) -> Result<Option<Document>, redb::Error> {
        match self.references.get(&tables::reference_key(kind, id)[..])? {
            Some(found) => {
                let (version, bytes) = tables::read_numbered(found.value())?;
                Ok(Some(Document { version: Version(version), bytes: Bytes::copy_from_slice(bytes) }))
            }
            None => Ok(None),
        }
    }

    pub(super) fn list(&self, list: &List, cursor: Option<&str>, limit: usize) -> Result<Page, redb::Error> {
        match list {
            List::References(kind) => self.references(*kind, cursor, limit),
            List::OpenSessions(partition) => {
                let start = tables::first_of(partition.0).unwrap_or([u8::MAX; 8]).to_vec();
                let end = tables::first_of(partition.0 + 1).map(Vec::from);
                self.listed(self.transaction.open_table(OPEN)?, start, end, 8, cursor, limit)
            }
            List::ClosedSessions(partition) => {
                let prefix = tables::partition_key(*partition).to_vec();
                let end = after(&prefix);
                self.listed(self.transaction.open_table(CLOSED)?, prefix, end, 2, cursor, limit)
            }
            List::OpenSessionsOf(account) => {
                let prefix = account_key(*account).to_vec();
                let end = after(&prefix);
                self.listed(self.transaction.open_table(OPEN)?, prefix, end, 8, cursor, limit)
            }
            List::ClosedSessionsOf(account) => {
                let prefix = account_key(*account).to_vec();
                let end = after(&prefix);
                self.listed(self.transaction.open_table(CLOSED_OF_ACCOUNT)?, prefix, end, 8, cursor, limit)
            }
            List::Timers(partition) => {
                let prefix = tables::partition_key(*partition).to_vec();
                let end = after(&prefix);
                self.listed(self.transaction.open_table(tables::TIMERS)?, prefix, end, 2, cursor, limit)
            }
        }
    }

    fn references(&self, kind: ReferenceKind, cursor: Option<&str>, limit: usize) -> Result<Page, redb::Error> {
        let all = tables::reference_key(kind, "");
        let end = after(&all).map_or(Bound::Unbounded, Bound::Excluded);
        let first = match cursor {
            Some(cursor) => Bound::Excluded(tables::reference_key(kind, cursor)),
            None => Bound::Included(all),
        };
        let mut page = Page::default();
        for found in
            self.references.range::<&[u8]>((first.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice)))?
        {
            let (key, _) = found?;
            let id = text(&key.value()[1..])?;
            if page.items.len() == limit {
                page.next = page.items.last().cloned();
                break;
            }
            page.items.push(id.into());
        }
        Ok(page)
    }

    /// The references in the keys from `start` to before `end`, which have `prefix` bytes and a time before them. A
    /// cursor is the last key that was listed, in hexadecimal digits.
    fn listed<V: redb::Value + 'static>(
        &self,
        table: ReadOnlyTable<&'static [u8], V>,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        prefix: usize,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, redb::Error> {
        let first = match cursor.map(unhex) {
            None => Bound::Included(start),
            Some(Some(last)) if start <= last => Bound::Excluded(last),
            // A cursor that this listing never gave continues nothing.
            Some(_) => return Ok(Page::default()),
        };
        let first = first.as_ref().map(Vec::as_slice);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Page::default();
        let mut last = Vec::new();
        for found in table.range::<&[u8]>((first, end))? {
            let (key, _) = found?;
            if page.items.len() == limit {
                page.next = Some(hex(&last).into());
                break;
            }
            last.clear();
            last.extend_from_slice(key.value());
            page.items.push(text(last.get(prefix + 8..).unwrap_or_default())?.into());
        }
        Ok(page)
    }
}

pub(super) fn read_account(
    documents: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Document>, redb::Error> {
    let Some(found) = documents.get(key)? else { return Ok(None) };
    let (row, bytes) = AccountRow::read(found.value())?;
    Ok(document(row.version, bytes))
}

pub(super) fn read_session(
    documents: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
    now: Timestamp,
) -> Result<Option<Document>, redb::Error> {
    let Some(found) = documents.get(key)? else { return Ok(None) };
    let (row, bytes) = SessionRow::read(found.value())?;
    Ok(document(row.version_at(now), bytes))
}

fn document(version: Version, bytes: &[u8]) -> Option<Document> {
    (version != Version::ABSENT).then(|| Document { version, bytes: Bytes::copy_from_slice(bytes) })
}

/// What is due, and the account of each.
pub(super) fn read_due(
    timers: &impl ReadableTable<&'static [u8], u64>,
    partition: Partition,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(Due, AccountKey)>, redb::Error> {
    let start = tables::partition_key(partition);
    let mut due = Vec::new();
    for found in timers.range::<&[u8]>(&start[..]..)?.take(limit) {
        let (key, account) = found?;
        let Some((found_in, rest)) = key.value().split_first_chunk() else {
            return Err(damaged("a timer entry ends too early"));
        };
        let Some((at, session)) = rest.split_first_chunk() else {
            return Err(damaged("a timer entry ends too early"));
        };
        let at = tables::at_of(*at);
        if *found_in != start || now < at {
            break;
        }
        due.push((Due { key: ChargingDataRef::new(text(session)?), at }, AccountKey(account.value())));
    }
    Ok(due)
}

fn entries_after<'t>(
    outbox: &'t impl ReadableTable<&'static [u8; 10], &'static [u8]>,
    partition: Partition,
    after: u64,
) -> Result<redb::Range<'t, &'static [u8; 10], &'static [u8]>, redb::Error> {
    let (first, last) = (tables::outbox_key(partition, after), tables::outbox_key(partition, u64::MAX));
    Ok(outbox.range::<&[u8; 10]>((Bound::Excluded(&first), Bound::Included(&last)))?)
}

/// How many entries wait, as far as a look counts.
fn waiting(
    outbox: &impl ReadableTable<&'static [u8; 10], &'static [u8]>,
    partition: Partition,
) -> Result<u64, redb::Error> {
    let counted = entries_after(outbox, partition, 0)?.take(COUNTED_MAX);
    Ok(counted.count() as u64)
}

fn text(bytes: &[u8]) -> Result<&str, redb::Error> {
    std::str::from_utf8(bytes).map_err(|_| damaged("a key that holds text is not UTF-8"))
}

/// The first key behind all that begin with `prefix`; `None` when there is no such key.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

/// `None` for a text that [`hex`] never made.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks(2) {
        let [high, low] = pair else { return None };
        bytes.push((digit(*high)? << 4) | digit(*low)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_that_begin_with_it() {
        assert_eq!(after(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after(&[1, 255]), Some(vec![2]));
        assert_eq!(after(&[255, 255]), None);
    }

    #[test]
    fn a_cursor_reads_as_it_was_written_and_nothing_else_does() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        for text in ["0", "0g", "zz", "é"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }
}
