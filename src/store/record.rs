//! Documents as bytes: a format number, what the document says, and a checksum over both.
//!
//! Sessions and journal entries, of which there are most, have the compact form; everything else is MessagePack with
//! structs as arrays, which sessions and entries were written in once, and are read in for good. So are documents from
//! before there was a checksum.
//!
//! The checksum is there because a flipped bit of a document may well decode, to other amounts. With it, such a document
//! is `Corrupt`, and only whoever needs it is refused. It says nothing about where a document lies, nor how new it is:
//! those are the key's and the version's, and a store's.
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

// Any two of the numbers differ in two bits or more, so that a flipped bit makes no format another one.
/// Without a checksum.
const MESSAGE_PACK: u8 = 1;
/// Without a checksum; of sessions and journal entries alone.
const COMPACT: u8 = 2;
const SEALED_COMPACT: u8 = 4;
const SEALED_MESSAGE_PACK: u8 = 7;

/// How the body of a document is written.
enum Form {
    MessagePack,
    Compact,
}

/// A session is read with [`decode_session`], a journal with [`JournalReader`].
///
/// `Corrupt` never comes back from bytes that [`encode`] of this or an older version wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    match opened(bytes)? {
        (Form::MessagePack, body) => from_message_pack(body),
        (Form::Compact, _) => Err(Error::corrupt("a session or an entry of a journal where another document was due")),
    }
}

pub fn encode<T: Serialize>(document: &T) -> Bytes {
    // The document of an account has some 40, that of a tariff plan some hundred.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(SEALED_MESSAGE_PACK);
    rmp_serde::encode::write(&mut bytes, document).expect("our documents hold nothing MessagePack cannot");
    sealed(bytes)
}

/// The session whose document lies under `reference`.
pub fn decode_session(reference: &ChargingDataRef, bytes: &[u8]) -> Result<Box<ChargingSession>, Error> {
    let session = match opened(bytes) {
        Ok((Form::Compact, body)) => compact::read_session(reference, body).map(Box::new).map_err(Error::from),
        Ok((Form::MessagePack, body)) => from_message_pack(body).map(Box::new),
        Err(error) => Err(error),
    };
    session.map_err(|error| error.about(&format!("session {reference}")))
}

pub fn encode_session(session: &ChargingSession) -> Bytes {
    // That of two rating groups has some 350.
    let mut bytes = Vec::with_capacity(512);
    bytes.push(SEALED_COMPACT);
    sealed(compact::write_session(session, bytes))
}

/// Reads a journal, which must be from its beginning: entries speak of quotas that others before them introduced.
#[derive(Clone, Debug, Default)]
pub struct JournalReader {
    quotas: Vec<QuotaKey>,
}

impl JournalReader {
    /// The next entry.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Entry, Error> {
        match opened(bytes)? {
            (Form::Compact, body) => compact::read_entry(body, &mut self.quotas).map_err(Error::from),
            (Form::MessagePack, body) => {
                let entry: Entry = from_message_pack(body)?;
                self.quotas.extend(entry.event.invocation().into_iter().flat_map(|request| &request.quotas).cloned());
                Ok(entry)
            }
        }
    }
}

/// All of a journal.
pub fn decode_journal(entries: &[Bytes]) -> Result<Vec<Entry>, Error> {
    let mut reader = JournalReader::default();
    let numbered = (1..).zip(entries);
    let entry = |(number, bytes): (usize, &Bytes)| {
        reader.decode(bytes).map_err(|error| error.about(&format!("entry {number} of the journal")))
    };
    numbered.map(entry).collect()
}

/// An entry of the journal of a session that has `quotas` now; none of an account's own journal.
pub fn encode_entry(entry: &Entry, quotas: &[Quota]) -> Bytes {
    // That of an update with two rating groups has some 130.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(SEALED_COMPACT);
    sealed(compact::write_entry(entry, quotas, bytes))
}

/// The bytes with their checksum behind them: CRC-32, which finds any four flipped bits in documents of up to 370 octets,
/// three in any of ours, and whatever is damaged within 32 bits in a row.
fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let checksum = crc32fast::hash(&bytes);
    // In the order of its own bits, so that bits in a row may lie across the seam.
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Bytes::from(bytes)
}

/// A document's form and its body, which is as it was written where there is a checksum to tell.
fn opened(bytes: &[u8]) -> Result<(Form, &[u8]), Error> {
    let (format, body) = bytes.split_first().ok_or_else(|| Error::corrupt("empty document"))?;
    match *format {
        SEALED_COMPACT => Ok((Form::Compact, unsealed(bytes)?)),
        SEALED_MESSAGE_PACK => Ok((Form::MessagePack, unsealed(bytes)?)),
        COMPACT => Ok((Form::Compact, body)),
        MESSAGE_PACK => Ok((Form::MessagePack, body)),
        unknown => Err(Error::corrupt(format!(
            "document format {unknown}, which this program does not know: use a newer version of it, unless it is damage"
        ))),
    }
}

fn unsealed(bytes: &[u8]) -> Result<&[u8], Error> {
    let intact =
        bytes.split_last_chunk().filter(|(body, checksum)| crc32fast::hash(body) == u32::from_le_bytes(**checksum));
    let body = intact.and_then(|(body, _)| body.get(1..));
    body.ok_or_else(|| Error::corrupt("damaged: the document is not what its checksum was made of"))
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
    fn a_document_of_before_the_checksum_is_read() {
        let document = New { amount: 7, note: Some("x".into()) };
        let sealed = encode(&document);
        let mut before = sealed[..sealed.len() - 4].to_vec();
        before[0] = MESSAGE_PACK;
        assert_eq!(decode::<New>(&before).unwrap(), document);
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed_and_no_cut() {
        let good = encode(&New { amount: u64::MAX, note: Some("x".into()) });
        for at in 0..good.len() {
            let cut = decode::<New>(&good[..at]).unwrap_err();
            assert!(matches!(cut, Error::Corrupt(_)), "{cut}");
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                let error = decode::<New>(&bad).unwrap_err().to_string();
                assert!(error.contains(if at == 0 { "document format" } else { "damaged" }), "{at} {bit}: {error}");
            }
        }
    }

    #[test]
    fn no_flipped_bit_makes_a_format_another_one() {
        let formats = [MESSAGE_PACK, COMPACT, SEALED_COMPACT, SEALED_MESSAGE_PACK];
        for one in formats {
            assert!(formats.iter().all(|other| one == *other || (one ^ other).count_ones() > 1), "{one}");
        }
    }

    #[test]
    fn damaged_bytes_of_before_the_checksum_never_panic() {
        let sealed = encode(&New { amount: u64::MAX, note: Some("x".into()) });
        let mut good = sealed[..sealed.len() - 4].to_vec();
        good[0] = MESSAGE_PACK;
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let _ = decode::<New>(&bad);
                let _ = decode::<New>(&bad[..at]);
            }
        }
    }
}
