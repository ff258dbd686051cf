//! Reads of a file of TS 32.297 as much as an audit needs: the header, the frames, and a few fields of each `CHFRecord`
//! (TS 32.298). Written from the standards and not from the encoder, which would only agree with itself.

use std::io::{self, Read};

use serde::Deserialize;

use super::files::{Line, Unreadable};

/// What the header of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the file, in octets; `None` when it has outgrown the field.
    pub length: Option<u64>,
    pub records: u32,
}

/// TS 32.297 6.1.1: lengths of file and header, releases, times, number of records, all big-endian.
pub fn header(reader: &mut impl Read) -> Result<Header, Unreadable> {
    const FIXED: usize = 22;
    let mut fixed = [0; FIXED];
    read(reader, &mut fixed)?;
    let number = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let rest = u64::from(number(4)).checked_sub(FIXED as u64);
    let rest =
        rest.filter(|rest| *rest <= 4096).ok_or_else(|| Unreadable::new("its header has an impossible length"))?;
    let skipped = io::copy(&mut reader.take(rest), &mut io::sink()).map_err(Unreadable::Io)?;
    if skipped < rest {
        return Err(Unreadable::new("it ends within its header"));
    }
    let length = Some(number(0)).filter(|length| *length != u32::MAX).map(u64::from);
    Ok(Header { length, records: number(18) })
}

/// The next record's octets; `None` at the end of the file.
pub fn record(reader: &mut impl Read) -> Result<Option<Vec<u8>>, Unreadable> {
    const LATER_RELEASE: u8 = 7;
    let mut first = [0; 1];
    if reader.read(&mut first).map_err(Unreadable::Io)? == 0 {
        return Ok(None);
    }
    let mut rest = [0; 3];
    read(reader, &mut rest)?;
    let [low, release, _] = rest;
    // TS 32.297 6.1.2.1: releases after 9 are told in one octet more.
    if release >> 5 == LATER_RELEASE {
        read(reader, &mut [0; 1])?;
    }
    let mut octets = vec![0; usize::from(u16::from_be_bytes([first[0], low]))];
    read(reader, &mut octets)?;
    Ok(Some(octets))
}

fn read(reader: &mut impl Read, into: &mut [u8]) -> Result<(), Unreadable> {
    reader.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Unreadable::new("it ends within a record"),
        _ => Unreadable::Io(error),
    })
}

/// What our extension of a record says.
#[derive(Deserialize)]
struct Extension {
    id: String,
    charged: String,
}

pub fn line(octets: &[u8]) -> Result<Line, Unreadable> {
    const CHARGING_FUNCTION_RECORD: u32 = 200;
    let missing = |what: &str| Unreadable::new(format!("a record says nothing of its {what}"));
    let (tag, record, _) = value(octets).ok_or_else(|| Unreadable::new("a record is no BER"))?;
    if tag != CHARGING_FUNCTION_RECORD {
        return Err(Unreadable::new("a record is none of a charging function"));
    }
    let fields = values(record).ok_or_else(|| Unreadable::new("a record is no BER"))?;
    let field = |wanted: u32| fields.iter().find(|(tag, _)| *tag == wanted).map(|(_, content)| *content);
    let text = |tag: u32| field(tag).and_then(|content| std::str::from_utf8(content).ok());
    let extension = field(12).and_then(extension).ok_or_else(|| missing("id and charge"))?;
    Line::new(
        &extension.id,
        text(16).ok_or_else(|| missing("session"))?,
        &extension.charged,
        text(1).ok_or_else(|| missing("recording function"))?,
        field(11).and_then(integer),
        field(9).and_then(integer).ok_or_else(|| missing("cause"))?,
        None,
    )
}

/// ManagementExtensions: of each, an identifier and under tag 2 its information, which is an octet string of JSON.
fn extension(content: &[u8]) -> Option<Extension> {
    let (_, one, _) = value(content)?;
    let information = values(one)?.into_iter().find(|(tag, _)| *tag == 2)?.1;
    let (_, json, _) = value(information)?;
    serde_json::from_slice(json).ok()
}

fn integer(content: &[u8]) -> Option<u32> {
    let number = content.iter().try_fold(0u64, |number, octet| number.checked_mul(256)?.checked_add(u64::from(*octet)));
    u32::try_from(number?).ok()
}

/// All values in a constructed one, by the numbers of their tags.
fn values(mut octets: &[u8]) -> Option<Vec<(u32, &[u8])>> {
    let mut found = Vec::new();
    while !octets.is_empty() {
        let (tag, content, rest) = value(octets)?;
        found.push((tag, content));
        octets = rest;
    }
    Some(found)
}

/// The number of the first value's tag, its content, and what follows (X.690 8.1, definite lengths).
fn value(octets: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (first, mut rest) = octets.split_first()?;
    let mut tag = u32::from(first & 0x1f);
    if tag == 0x1f {
        tag = 0;
        loop {
            let (octet, after) = rest.split_first()?;
            tag = tag.checked_mul(128)? | u32::from(octet & 0x7f);
            rest = after;
            if octet & 0x80 == 0 {
                break;
            }
        }
    }
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if *first & 0x80 != 0 {
        let (octets, after) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(octets, _)| octets.len() <= 4)?;
        length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ber_is_refused_and_never_a_panic() {
        for octets in
            [&[][..], &[0xbf], &[0xbf, 0x81], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x80], &[0x30, 3, 1]]
        {
            assert!(line(octets).is_err(), "{octets:?}");
        }
    }

    #[test]
    fn long_tags_and_lengths_are_read() {
        let octets = [&[0xbf, 0x81, 0x48, 0x81, 0x80][..], &[7; 128]].concat();
        assert_eq!(value(&octets), Some((200, &[7; 128][..], &[][..])));
    }

    #[test]
    fn a_file_that_ends_early_is_unreadable() {
        assert!(header(&mut &[0; 10][..]).is_err());
        assert!(record(&mut &[0, 5, 0xe8, 0x34, 8, 1][..]).is_err());
        assert!(matches!(record(&mut &[][..]), Ok(None)));
    }
}
