//! Values without parts: what of a JSON value an ASN.1 type can say.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::fmt::temporal::{Pieces, PiecesOffset};
use serde_json::Value;

use super::tlv::{self, Content};

#[derive(Clone, Debug)]
pub enum Leaf {
    /// Within a range, both ends included.
    Integer(i128, i128),
    Real,
    Boolean,
    /// Whether a text is this one.
    BooleanIs(&'static str),
    Flag,
    Utf8,
    Graphic,
    /// From so many to so many characters.
    Ia5(usize, usize),
    Utf8Json,
    Json,
    Octets,
    /// At least one octet; so many, where a number is given.
    Hex(Option<usize>),
    Tbcd,
    Address,
    Time,
    Zone,
    Plmn,
    Tmgi,
    Ip4,
    Ip6,
    Prefix,
}

/// What of a text is taken.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    pub after: Option<&'static str>,
    pub from: Option<&'static str>,
    pub without: Vec<&'static str>,
    pub until: Option<&'static str>,
}

impl Cut {
    fn apply<'t>(&self, mut text: &'t str) -> Option<&'t str> {
        if let Some(after) = self.after {
            text = text.strip_prefix(after)?;
        }
        if self.from.is_some_and(|from| !text.starts_with(from)) {
            return None;
        }
        text = self.without.iter().find_map(|without| text.strip_prefix(without)).unwrap_or(text);
        Some(self.until.and_then(|until| text.split_once(until)).map_or(text, |(before, _)| before))
    }
}

/// A text, or how a number or a truth is written.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Leaf {
    pub fn content(&self, cut: &Cut, value: &Value) -> Option<Content> {
        // A member that is null says nothing.
        if value.is_null() {
            return None;
        }
        let text = || cut.apply(&text(value)?).map(str::to_owned);
        let octets = |octets| Content::primitive(tlv::OCTET_STRING, octets);
        match self {
            Self::Integer(least, most) => {
                let number = integer(value).or_else(|| text()?.parse().ok())?;
                (*least..=*most).contains(&number).then(|| Content::integer(tlv::INTEGER, number))
            }
            Self::Real => value.as_f64().map(Content::real),
            Self::Boolean => value.as_bool().map(Content::boolean),
            Self::BooleanIs(expected) => value.as_str().map(|text| Content::boolean(text == *expected)),
            Self::Flag => (value == &Value::Bool(true)).then(|| Content::primitive(tlv::NULL, Vec::new())),
            Self::Utf8 => Some(Content::primitive(tlv::UTF8_STRING, text()?.into_bytes())),
            Self::Graphic => {
                let text = text().filter(|text| text.bytes().all(|byte| (0x20..0x7f).contains(&byte)))?;
                Some(Content::primitive(tlv::GRAPHIC_STRING, text.into_bytes()))
            }
            Self::Ia5(least, most) => {
                let text = text().filter(|text| text.is_ascii() && (*least..=*most).contains(&text.len()))?;
                Some(Content::primitive(tlv::IA5_STRING, text.into_bytes()))
            }
            Self::Utf8Json => Some(Content::primitive(tlv::UTF8_STRING, value.to_string().into_bytes())),
            Self::Json => Some(octets(value.to_string().into_bytes())),
            Self::Octets => Some(octets(text()?.into_bytes())),
            Self::Hex(length) => hex(&text()?, *length).map(octets),
            Self::Tbcd => tbcd(&text()?).map(octets),
            Self::Address => {
                // TS 29.002: no extension, an international number of the ISDN numbering plan.
                const INTERNATIONAL: u8 = 0x91;
                let text = text()?;
                let digits = tbcd(text.strip_prefix('+').unwrap_or(&text))?;
                Some(octets([&[INTERNATIONAL], &digits[..]].concat()))
            }
            Self::Time => time(value.as_str()?).map(|stamp| octets(stamp.to_vec())),
            Self::Zone => zone(value.as_str()?).map(|zone| octets(zone.to_vec())),
            Self::Plmn => plmn(value).map(|plmn| octets(plmn.to_vec())),
            Self::Tmgi => {
                let service = hex(value.get("mbsServiceId")?.as_str()?, Some(3))?;
                Some(octets([&service[..], &plmn(value.get("plmnId")?)?].concat()))
            }
            Self::Ip4 => {
                let text = text().filter(|text| text.parse::<Ipv4Addr>().is_ok())?;
                Some(Content::primitive(tlv::IA5_STRING, text.into_bytes()))
            }
            Self::Ip6 => prefix(text()?, None),
            Self::Prefix => {
                let address = value.get("pduIPv6AddresswithPrefix")?.as_str()?.to_owned();
                let length = value.get("pduAddressprefixlength").and_then(Value::as_u64);
                prefix(address, length.filter(|length| *length <= 128))
            }
        }
    }
}

/// Rounded where there is a fraction: the types that have one in JSON and none in ASN.1 are statistics.
fn integer(value: &Value) -> Option<i128> {
    let Value::Number(number) = value else { return None };
    let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    // The cast is exact: whoever is larger than this has no fraction and no exact number either.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    whole.or_else(|| number.as_f64().filter(|float| float.abs() < EXACT).map(|float| float.round() as i128))
}

fn hex(text: &str, length: Option<usize>) -> Option<Vec<u8>> {
    let odd = if text.len().is_multiple_of(2) { "" } else { "0" };
    let digits = format!("{odd}{text}").chars().map(|c| c.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let octets: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    match length {
        None => (!octets.is_empty()).then_some(octets),
        Some(length) if octets.is_empty() || octets.len() > length => None,
        Some(length) => Some([vec![0; length - octets.len()], octets].concat()),
    }
}

/// Digits two by two, the first in the lower half, the last half filled with ones. At least the five of a network and
/// a subscriber, at most the sixteen of an IMEISV, which is also what an international number may have.
fn tbcd(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.chars().map(|c| c.to_digit(10)).collect::<Option<Vec<u32>>>()?;
    let pair = |pair: &[u32]| (pair.get(1).unwrap_or(&0xf) << 4 | pair[0]) as u8;
    (5..=16).contains(&digits.len()).then(|| digits.chunks(2).map(pair).collect())
}

/// Three octets with the digits of the country and the network, halves swapped (TS 24.008 10.5.1.3).
fn plmn(value: &Value) -> Option<[u8; 3]> {
    let digits = match value {
        Value::String(digits) => digits.clone(),
        _ => format!("{}{}", value.get("mcc")?.as_str()?, value.get("mnc")?.as_str()?),
    };
    let digits: Vec<u8> = digits.chars().map(|c| c.to_digit(10).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (country, network) = digits.split_at_checked(3)?;
    let third = match network {
        [_, _] => 0xf,
        [_, _, third] => *third,
        _ => return None,
    };
    Some([country[1] << 4 | country[0], third << 4 | country[2], network[1] << 4 | network[0]])
}

/// `YYMMDDhhmmss`, the sign, `hhmm` of the offset: two digits in an octet, but for the sign. The time stays in the zone
/// that its sender wrote it in.
fn time(text: &str) -> Option<[u8; 9]> {
    let pieces = Pieces::parse(text).ok()?;
    let (date, time) = (pieces.date(), pieces.time()?);
    let offset = match pieces.offset() {
        Some(PiecesOffset::Numeric(offset)) => offset.offset().seconds(),
        Some(_) | None => 0,
    };
    let bcd = |number: u32| (((number / 10 % 10) << 4) | (number % 10)) as u8;
    let part = |part: i8| bcd(u32::from(part.unsigned_abs()));
    let minutes = offset.unsigned_abs() / 60;
    Some([
        bcd(u32::from(date.year().unsigned_abs()) % 100),
        part(date.month()),
        part(date.day()),
        part(time.hour()),
        part(time.minute()),
        part(time.second()),
        if offset < 0 { b'-' } else { b'+' },
        bcd(minutes / 60),
        bcd(minutes % 60),
    ])
}

/// Quarters of an hour from UTC, halves swapped, with the sign among them (TS 23.040 9.2.3.11), and hours of daylight
/// saving: `-08:00+1` and the like (TS 29.571).
fn zone(text: &str) -> Option<[u8; 2]> {
    let sign = match text.get(..1)? {
        "+" => 0,
        "-" => 0x08,
        _ => return None,
    };
    let digits = |from: usize| text.get(from..from + 2)?.parse::<u8>().ok();
    let minutes_at = if text.get(3..4)? == ":" { 4 } else { 3 };
    let quarters =
        digits(1)?.checked_mul(4)?.checked_add(digits(minutes_at)? / 15).filter(|quarters| *quarters < 80)?;
    let saving = match text.get(minutes_at + 2..)? {
        "" | "+0" => 0,
        "+1" => 1,
        "+2" => 2,
        _ => return None,
    };
    Some([((quarters % 10) << 4) | sign | (quarters / 10), saving])
}

/// An IPv6 address with or without the length of its prefix.
fn prefix(mut address: String, length: Option<u64>) -> Option<Content> {
    if let Some(length) = length.filter(|_| !address.contains('/')) {
        address = format!("{address}/{length}");
    }
    let (bare, length) = address.split_once('/').unwrap_or((&address, "0"));
    const LENGTH_MAX: usize = 45;
    let fits = address.len() <= LENGTH_MAX
        && bare.parse::<Ipv6Addr>().is_ok()
        && length.parse::<u8>().is_ok_and(|length| length <= 128);
    fits.then(|| Content::primitive(tlv::IA5_STRING, address.into_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn octets(leaf: &Leaf, value: Value) -> Option<Vec<u8>> {
        leaf.content(&Cut::default(), &value).map(|content| content.octets)
    }

    #[test]
    fn a_time_keeps_the_zone_it_was_written_in() {
        for (text, octets) in [
            ("2026-01-15T11:00:05Z", Some([0x26, 0x01, 0x15, 0x11, 0x00, 0x05, b'+', 0x00, 0x00])),
            ("2026-11-24T23:59:59.999+05:30", Some([0x26, 0x11, 0x24, 0x23, 0x59, 0x59, b'+', 0x05, 0x30])),
            ("2009-12-31T00:00:00.123456789-09:45", Some([0x09, 0x12, 0x31, 0x00, 0x00, 0x00, b'-', 0x09, 0x45])),
            ("2026-01-15T11:00:05+0100", Some([0x26, 0x01, 0x15, 0x11, 0x00, 0x05, b'+', 0x01, 0x00])),
            ("2026-01-15T11:00:05", Some([0x26, 0x01, 0x15, 0x11, 0x00, 0x05, b'+', 0x00, 0x00])),
            ("2016-12-31T23:59:60Z", Some([0x16, 0x12, 0x31, 0x23, 0x59, 0x59, b'+', 0x00, 0x00])),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(time(text), octets, "{text}");
        }
    }

    #[test]
    fn a_time_zone_counts_quarters_of_an_hour() {
        for (text, octets) in [
            ("+01:00", Some([0x40, 0])),
            ("+05:30", Some([0x22, 0])),
            ("+10:00", Some([0x04, 0])),
            ("-08:00+1", Some([0x2b, 1])),
            ("-0345", Some([0x59, 0])),
            ("+14:00+2", Some([0x65, 2])),
            ("+20:00", None),
            ("+1", None),
            ("Z", None),
            ("+é:00", None),
            ("+01:00+3", None),
        ] {
            assert_eq!(zone(text), octets, "{text}");
        }
    }

    #[test]
    fn digits_are_swapped_and_filled_up() {
        for (network, octets) in [
            (json!({ "mcc": "001", "mnc": "01" }), Some([0x00, 0xf1, 0x10])),
            (json!({ "mcc": "310", "mnc": "410" }), Some([0x13, 0x00, 0x14])),
            (json!("20801"), Some([0x02, 0xf8, 0x10])),
            (json!({ "mcc": "310" }), None),
            (json!("é0801"), None),
            (json!("20"), None),
            (json!(20801), None),
        ] {
            assert_eq!(plmn(&network), octets, "{network}");
        }
        assert_eq!(tbcd("001010000000001"), Some(vec![0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xf1]));
        assert_eq!(tbcd("0010"), None);
        assert_eq!(tbcd("12345678901234567"), None);
        assert_eq!(octets(&Leaf::Address, json!("+32470000001")), Some(vec![0x91, 0x23, 0x74, 0x00, 0x00, 0x00, 0xf1]));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let id = Leaf::Integer(0, i128::from(u32::MAX));
        for (leaf, value, expected) in [
            (&id, json!(4_294_967_295_u64), Some(vec![0, 0xff, 0xff, 0xff, 0xff])),
            (&id, json!(4_294_967_296_u64), None),
            (&id, json!(-1), None),
            (&id, json!("17"), Some(vec![17])),
            (&id, json!(2.5), Some(vec![3])),
            (&id, json!(1e300), None),
            (&id, json!(true), None),
            (&Leaf::Boolean, json!("true"), None),
            (&Leaf::Flag, json!(false), None),
            (&Leaf::Ia5(1, 3), json!("abc"), Some(b"abc".to_vec())),
            (&Leaf::Ia5(1, 3), json!("abcd"), None),
            (&Leaf::Ia5(1, 3), json!("é"), None),
            (&Leaf::Ia5(1, 3), json!(""), None),
            (&Leaf::Graphic, json!("a\u{7}"), None),
            (&Leaf::Utf8, json!(null), None),
            (&Leaf::Utf8, json!({}), None),
            (&Leaf::Json, json!(null), None),
            (&Leaf::Hex(Some(3)), json!("0e10"), Some(vec![0, 0x0e, 0x10])),
            (&Leaf::Hex(Some(2)), json!("F0A"), Some(vec![0x0f, 0x0a])),
            (&Leaf::Hex(Some(3)), json!("00000001"), None),
            (&Leaf::Hex(None), json!("xy"), None),
            (&Leaf::Hex(None), json!(""), None),
            (&Leaf::Ip4, json!("10.0.0.1"), Some(b"10.0.0.1".to_vec())),
            (&Leaf::Ip4, json!("10.0.0.256"), None),
            (&Leaf::Ip6, json!("2001:db8::/56"), Some(b"2001:db8::/56".to_vec())),
            (&Leaf::Ip6, json!("2001:db8::/129"), None),
            (&Leaf::Tmgi, json!({ "mbsServiceId": "00000A", "plmnId": {} }), None),
        ] {
            assert_eq!(octets(leaf, value.clone()), expected, "{leaf:?} {value}");
        }
    }
}
