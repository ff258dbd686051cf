//! What a request says, as a number: equal for two spellings of the same content, so that a repeated request is
//! recognised however its members are ordered and spaced.
//!
//! The hashes are stored and compared by other instances and versions: their keys and their order are fixed.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use crate::charging::command::{Block, Container, Fingerprint, Invocation, Trigger};

/// Levels of arrays and objects inside one another; what is deeper is refused.
pub const DEPTH_MAX: u8 = 64;

/// The JSON is nested deeper than [`DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

/// Everything the request says but `retransmissionIndicator`.
pub fn fingerprint(invocation: &Invocation) -> Fingerprint {
    let mut content = SipHasher13::new();
    (invocation.number, &invocation.subscriber, &invocation.consumer).hash(&mut content);
    (&invocation.notify_uri, invocation.features).hash(&mut content);
    hash_triggers(&invocation.triggers, &mut content);
    for usage in &invocation.usages {
        (&usage.key, &usage.requested, usage.containers.len()).hash(&mut content);
        for container in &usage.containers {
            hash_container(container, &mut content);
        }
        // Few have any, and all others keep the hashes that were stored before these counted.
        if !usage.others.is_empty() {
            hash_blocks(&usage.others, &mut content);
        }
    }
    hash_blocks(&invocation.blocks, &mut content);

    let mut exact = content;
    invocation.timestamp.hash(&mut exact);
    for container in invocation.usages.iter().flat_map(|usage| &usage.containers) {
        container.closed_at.hash(&mut exact);
    }
    Fingerprint { content: content.finish(), exact: exact.finish() }
}

fn hash_container(container: &Container, into: &mut SipHasher13) {
    (container.local_sequence_number, &container.units, container.service_id).hash(into);
    container.indicator.as_ref().map(|indicator| indicator.as_str()).hash(into);
    hash_triggers(&container.triggers, into);
    hash_blocks(&container.others, into);
}

fn hash_triggers(triggers: &[Trigger], into: &mut SipHasher13) {
    triggers.len().hash(into);
    for trigger in triggers {
        (&trigger.name, trigger.category.as_str()).hash(into);
        hash_blocks(&trigger.others, into);
    }
}

/// A sum, because the order of members means nothing.
fn hash_blocks(blocks: &[Block], into: &mut SipHasher13) {
    let sum = blocks.iter().fold(0u64, |sum, block| sum.wrapping_add(pair(hash_text(&block.name), block.hash)));
    sum.hash(into);
}

/// A hash of a JSON text that does not depend on spaces or on the order of members. Strings and numbers count as they
/// are written. `json` is valid, as a `RawValue` is.
///
/// # Errors
///
/// `TooDeep` for what no network function sends.
pub fn hash_json(json: &str) -> Result<u64, TooDeep> {
    let mut reader = Reader { bytes: json.as_bytes(), at: 0 };
    reader.value(0)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: u8) -> Result<u64, TooDeep> {
        if depth == DEPTH_MAX {
            return Err(TooDeep);
        }
        Ok(match self.peek() {
            b'{' => {
                let mut sum = 1u64;
                self.at += 1;
                while self.peek() != b'}' {
                    let name = self.string();
                    self.skip(b':');
                    let value = self.value(depth + 1)?;
                    sum = sum.wrapping_add(pair(name, value));
                    self.skip(b',');
                }
                self.at += 1;
                pair(2, sum)
            }
            b'[' => {
                let mut chain = 3u64;
                self.at += 1;
                // Valid text has no closing brace here; the end of broken text looks like one.
                while !matches!(self.peek(), b']' | b'}') {
                    chain = pair(chain, self.value(depth + 1)?);
                    self.skip(b',');
                }
                self.at += 1;
                pair(4, chain)
            }
            b'"' => self.string(),
            _ => {
                let start = self.at;
                while self
                    .bytes
                    .get(self.at)
                    .is_some_and(|byte| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
                {
                    self.at += 1;
                }
                hash_text_bytes(5, &self.bytes[start..self.at])
            }
        })
    }

    /// The next byte that is no space; a closing bracket at the end, so that no loop runs on.
    fn peek(&mut self) -> u8 {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().unwrap_or(b'}')
    }

    fn skip(&mut self, byte: u8) {
        if self.peek() == byte {
            self.at += 1;
        }
    }

    fn string(&mut self) -> u64 {
        self.skip(b'"');
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        // Nearly all strings are short and have no escapes: their end is looked for in eight bytes at a time.
        let (mut hash, mut end) = (start(6), 0);
        while let Some(word) = rest[end..].first_chunk() {
            let word = u64::from_le_bytes(*word);
            let special = places(word, b'"') | places(word, b'\\');
            if special != 0 {
                let before = special.trailing_zeros() / 8;
                end += before as usize;
                if rest[end] == b'"' {
                    self.at += end + 1;
                    return hash_last(hash, word & !(u64::MAX << (8 * before)), end);
                }
                break;
            }
            hash = fold(hash ^ word, SEEDS[1]);
            end += 8;
        }
        while let Some(byte) = rest.get(end) {
            match byte {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let end = end.min(rest.len());
        self.at += end + 1;
        hash_text_bytes(6, &rest[..end])
    }
}

/// The highest bit of each byte that is this one; above the first such byte, of others too.
fn places(word: u64, byte: u8) -> u64 {
    const LOWEST: u64 = u64::MAX / 0xff;
    let differing = word ^ (LOWEST * u64::from(byte));
    differing.wrapping_sub(LOWEST) & !differing & (LOWEST << 7)
}

fn hash_text(text: &str) -> u64 {
    hash_text_bytes(6, text.as_bytes())
}

// Folded multiplication, a dozen times cheaper on short texts than a hash with a secret key. It tells what differs by
// chance, and whoever constructs two contents with one hash deceives nobody but itself: hashes are compared only within
// the session of one consumer.

fn hash_text_bytes(kind: u8, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(start(kind), |hash, word| fold(hash ^ u64::from_le_bytes(*word), SEEDS[1]));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    hash_last(hash, u64::from_le_bytes(last), bytes.len())
}

fn start(kind: u8) -> u64 {
    SEEDS[0] ^ u64::from(kind)
}

/// The bytes of a text after the last whole word, of which there are less than eight.
fn hash_last(hash: u64, last: u64, length: usize) -> u64 {
    fold(hash ^ last, SEEDS[2] ^ length as u64)
}

fn pair(a: u64, b: u64) -> u64 {
    fold(a ^ SEEDS[3], b ^ SEEDS[4])
}

/// Both halves of the product.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// Without a pattern: the first digits of pi after the point.
const SEEDS: [u64; 5] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89, 0x4528_21e6_38d0_1377];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_the_order_of_members_mean_nothing() {
        let one = r#"{"a":1,"b":[true,{"c":"x y"},null],"d":{}}"#;
        for same in [
            r#"{ "b" : [ true , { "c" : "x y" } , null ] , "d" : { } , "a" : 1 }"#,
            "{\"d\":{},\n\t\"a\":1,\"b\":[true,{\"c\":\"x y\"},null]}",
        ] {
            assert_eq!(hash_json(one), hash_json(same), "{same}");
        }
    }

    #[test]
    fn any_other_content_has_another_hash() {
        let texts = [
            "{}",
            "[]",
            "[[]]",
            "[{}]",
            "{\"a\":{}}",
            "{\"a\":[]}",
            "\"\"",
            "\"a\"",
            "\"1\"",
            "1",
            "10",
            "-1",
            "true",
            "null",
            "[1,2]",
            "[2,1]",
            "[12]",
            "[1,[2]]",
            "[[1],2]",
            "{\"a\":1}",
            "{\"a\":\"1\"}",
            "{\"b\":1}",
            "{\"a\":1,\"b\":2}",
            "{\"a\":2,\"b\":1}",
            "{\"a\":{\"b\":1}}",
            "{\"a\":{\"b\":{}}}",
            "\"a\\\"b\"",
            "\"a\\\\\"",
            "[\"a\",\"b\"]",
            "[\"ab\"]",
        ];
        for (at, one) in texts.iter().enumerate() {
            for other in &texts[at + 1..] {
                assert_ne!(hash_json(one), hash_json(other), "{one} {other}");
            }
        }
    }

    /// Hashes are stored: whichever way a text is looked through, it has the hash that it has always had.
    #[test]
    fn a_text_has_one_hash_however_long_and_whatever_is_escaped_in_it() {
        let escapes = ["", "\\\"", "\\\\", "\\u0041", "\\n", "\u{e9}\u{20ac}"];
        for (length, escape) in (0..40).flat_map(|length| escapes.map(|escape| (length, escape))) {
            for at in 0..=length {
                let text = format!("{}{escape}{}", &"abcdefghij".repeat(4)[..at], &"ABCDEFGHIJ".repeat(4)[at..length]);
                let (hash, json) = (hash_text(&text), format!("\"{text}\""));
                assert_eq!(hash_json(&json), Ok(hash), "{json}");
                // With more behind it, too.
                assert_eq!(
                    hash_json(&format!("{{{json}:1}}")),
                    Ok(pair(2, 1u64.wrapping_add(pair(hash, hash_text_bytes(5, b"1")))))
                );
            }
        }
        assert_eq!(hash_json(r#"{"a":[1,"\"b\\",null],"ueTimeZone":"+01:00"}"#), Ok(0x77ea_d59d_44fb_84fb));
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(hash_json(&nested(usize::from(DEPTH_MAX) - 1)).is_ok());
        assert_eq!(hash_json(&nested(100_000)), Err(TooDeep));
    }

    #[test]
    fn broken_text_ends_all_the_same() {
        for text in ["{", "[", "\"", "\"\\", "{\"a\"", "{\"a\":", "[1,", "", "}"] {
            let _ = hash_json(text);
        }
    }
}
