//! Documents as bytes: a format number, then what it says.
//!
//! Sessions and journal entries, of which there are most, have the compact format; everything else is MessagePack with
//! structs as arrays, which sessions and entries were written in once, and are read in for good.
//!
//! A field added later goes to the end of its struct with `#[serde(default)]`, so that old documents stay readable (of the
//! compact form, see `charging::compact`); anything else needs a new format number here and a reader for the old one.
//! Readers accept the previous format; writers switch one release later: until then a new field is left out where it is
//! empty (`skip_serializing_if`), because a program that does not know it refuses the document rather than lose what it
//! holds.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::charging::command::QuotaKey;
use crate::charging::compact::{self, Unreadable};
use crate::charging::ids::ChargingDataRef;
use crate::charging::journal::Entry;
use crate::charging::session::{ChargingSession, Quota};

const MESSAGE_PACK: u8 = 1;
/// Of sessions and journal entries alone.
const COMPACT: u8 = 2;

/// A session is read with [`decode_session`], a journal with [`JournalReader`].
///
/// `Corrupt` never comes back from bytes that [`encode`] of this or an older version wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    match format(bytes)? {
        (MESSAGE_PACK, body) => from_message_pack(body),
        (format, _) => Err(unknown(format, MESSAGE_PACK)),
    }
}

pub fn encode<T: Serialize>(document: &T) -> Bytes {
    // The document of an account has some 40, that of a tariff plan some hundred.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(MESSAGE_PACK);
    rmp_serde::encode::write(&mut bytes, document).expect("our documents hold nothing MessagePack cannot");
    Bytes::from(bytes)
}

/// The session whose document lies under `reference`.
pub fn decode_session(reference: &ChargingDataRef, bytes: &[u8]) -> Result<ChargingSession, Error> {
    match format(bytes)? {
        (COMPACT, body) => compact::read_session(reference, body).map_err(Error::from),
        (MESSAGE_PACK, body) => from_message_pack(body),
        (format, _) => Err(unknown(format, COMPACT)),
    }
}

pub fn encode_session(session: &ChargingSession) -> Bytes {
    // That of two rating groups has some 350.
    let mut bytes = Vec::with_capacity(512);
    bytes.push(COMPACT);
    Bytes::from(compact::write_session(session, bytes))
}

/// Reads a journal, which must be from its beginning: entries speak of quotas that others before them introduced.
#[derive(Clone, Debug, Default)]
pub struct JournalReader {
    quotas: Vec<QuotaKey>,
}

impl JournalReader {
    /// The next entry.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Entry, Error> {
        match format(bytes)? {
            (COMPACT, body) => compact::read_entry(body, &mut self.quotas).map_err(Error::from),
            (MESSAGE_PACK, body) => {
                let entry: Entry = from_message_pack(body)?;
                self.quotas.extend(entry.event.invocation().into_iter().flat_map(|request| &request.quotas).cloned());
                Ok(entry)
            }
            (format, _) => Err(unknown(format, COMPACT)),
        }
    }
}

/// All of a journal.
pub fn decode_journal(entries: &[Bytes]) -> Result<Vec<Entry>, Error> {
    let mut reader = JournalReader::default();
    entries.iter().map(|bytes| reader.decode(bytes)).collect()
}

/// An entry of the journal of a session that has `quotas` now; none of an account's own journal.
pub fn encode_entry(entry: &Entry, quotas: &[Quota]) -> Bytes {
    // That of an update with two rating groups has some 130.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(COMPACT);
    Bytes::from(compact::write_entry(entry, quotas, bytes))
}

fn format(bytes: &[u8]) -> Result<(u8, &[u8]), Error> {
    bytes.split_first().map(|(format, body)| (*format, body)).ok_or_else(|| Error::corrupt("empty document"))
}

fn unknown(format: u8, newest: u8) -> Error {
    let what = "use a newer version of it";
    Error::corrupt(format!("document format {format}; this program reads formats up to {newest}: {what}"))
}

fn from_message_pack<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(body).map_err(|error| match error {
        rmp_serde::decode::Error::LengthMismatch(_) => Error::from(Unreadable::Newer),
        error => Error::corrupt(error),
    })
}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Damaged(why) => Self::corrupt(why),
            Unreadable::Newer => {
                Self::corrupt("a document with fields that this program does not know: use a newer version of it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Old {
        amount: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        amount: u64,
        #[serde(default)]
        note: Option<String>,
    }

    #[test]
    fn a_field_added_at_the_end_reads_as_its_default_from_an_old_document() {
        let old = encode(&Old { amount: 7 });
        assert_eq!(decode::<New>(&old).unwrap(), New { amount: 7, note: None });
    }

    /// What a release makes of [`Old`] that only prepares for the field: it writes what it was given, and gives none.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Prepared {
        amount: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }

    #[test]
    fn a_field_is_understood_and_kept_one_release_before_it_is_written() {
        // Nobody of the release before is given anything new.
        assert_eq!(encode(&Prepared { amount: 7, note: None }), encode(&Old { amount: 7 }));
        // What the release after writes comes back as it was.
        let new = encode(&New { amount: 7, note: Some("x".into()) });
        assert_eq!(encode(&decode::<Prepared>(&new).unwrap()), new);
    }

    #[test]
    fn a_field_that_this_program_does_not_know_is_refused_and_not_lost() {
        let new = encode(&New { amount: 7, note: Some("x".into()) });
        let error = decode::<Old>(&new).unwrap_err();
        assert!(error.to_string().contains("use a newer version"), "{error}");
    }

    #[test]
    fn an_unknown_format_is_refused_by_name() {
        let error = decode::<New>(&[99, 1, 2]).unwrap_err();
        assert!(error.to_string().contains("format 99"), "{error}");
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let good = encode(&New { amount: u64::MAX, note: Some("x".into()) });
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                let _ = decode::<New>(&bad);
                let _ = decode::<New>(&bad[..at]);
            }
        }
    }
}
