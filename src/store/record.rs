//! Documents as bytes: a format number, then MessagePack with structs as arrays.
//!
//! A field added later goes to the end of its struct with `#[serde(default)]`, so that old documents stay readable;
//! anything else needs a new format number here and a reader for the old one. Readers accept the previous format;
//! writers switch one release later.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;

/// The format this program writes.
const FORMAT: u8 = 1;

/// `Corrupt` never comes back from bytes that [`encode`] of this or an older version wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => rmp_serde::from_slice(body).map_err(Error::corrupt),
        Some((format, _)) => Err(Error::corrupt(format!(
            "document format {format}; this program reads format {FORMAT}: use a newer version of it"
        ))),
        None => Err(Error::corrupt("empty document")),
    }
}

pub fn encode<T: Serialize>(document: &T) -> Bytes {
    // The document of a session with two rating groups has some 750.
    let mut bytes = Vec::with_capacity(1024);
    bytes.push(FORMAT);
    rmp_serde::encode::write(&mut bytes, document).expect("our documents hold nothing MessagePack cannot");
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize)]
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
