//! Tag, length, value: the octets of the basic encoding rules (X.690), always with definite lengths.

/// What goes between tag and length of its surroundings and the next value.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Tag of the type itself, which a context's tag takes the place of; `None` for a choice, whose alternatives have
    /// the tags, so that a context's tag goes around them (X.680 31.2.7).
    pub universal: Option<u8>,
    pub constructed: bool,
    pub octets: Vec<u8>,
}

pub const BOOLEAN: u8 = 1;
pub const INTEGER: u8 = 2;
pub const OCTET_STRING: u8 = 4;
pub const NULL: u8 = 5;
pub const OBJECT_IDENTIFIER: u8 = 6;
pub const REAL: u8 = 9;
pub const ENUMERATED: u8 = 10;
pub const UTF8_STRING: u8 = 12;
pub const SEQUENCE: u8 = 16;
pub const SET: u8 = 17;
pub const IA5_STRING: u8 = 22;
pub const GRAPHIC_STRING: u8 = 25;

const CONTEXT: u8 = 0x80;
const CONSTRUCTED: u8 = 0x20;
/// The first tag number that needs octets of its own.
const HIGH_TAG: u8 = 31;

impl Content {
    pub fn primitive(universal: u8, octets: Vec<u8>) -> Self {
        Self { universal: Some(universal), constructed: false, octets }
    }

    pub fn constructed(universal: u8, octets: Vec<u8>) -> Self {
        Self { universal: Some(universal), constructed: true, octets }
    }

    /// An alternative that was chosen, complete with its tag.
    pub fn choice(octets: Vec<u8>) -> Self {
        Self { universal: None, constructed: true, octets }
    }

    pub fn integer(universal: u8, number: i128) -> Self {
        let all = number.to_be_bytes();
        // The shortest form whose first bit is still the sign.
        let is_needed = |at: &usize| {
            let sign = if number < 0 { 0xff } else { 0 };
            all[*at] != sign || (all[at + 1] ^ sign) & 0x80 != 0
        };
        let from = (0..all.len() - 1).find(is_needed).unwrap_or(all.len() - 1);
        Self::primitive(universal, all[from..].to_vec())
    }

    pub fn boolean(value: bool) -> Self {
        Self::primitive(BOOLEAN, vec![if value { 0xff } else { 0 }])
    }

    /// X.690 8.5, base 2.
    pub fn real(value: f64) -> Self {
        const FRACTION: u32 = 52;
        const BIAS: i128 = 1023;
        if value == 0.0 {
            return Self::primitive(REAL, Vec::new());
        }
        let bits = value.to_bits();
        let sign = if bits >> 63 == 1 { 0x40 } else { 0 };
        let (exponent, fraction) = ((bits >> FRACTION) & 0x7ff, bits & ((1 << FRACTION) - 1));
        // Numbers too small for the usual form have no leading one.
        let (mantissa, exponent) = if exponent == 0 { (fraction, 1) } else { (fraction | 1 << FRACTION, exponent) };
        let zeros = mantissa.trailing_zeros();
        let exponent = i128::from(exponent) - BIAS - i128::from(FRACTION) + i128::from(zeros);
        let exponent = Self::integer(INTEGER, exponent).octets;
        let mantissa = (mantissa >> zeros).to_be_bytes();
        let mantissa = &mantissa[mantissa.iter().position(|octet| *octet != 0).unwrap_or(0)..];
        // One or two octets of exponent: a double's never needs more.
        let first = 0x80 | sign | (exponent.len() as u8 - 1);
        Self::primitive(REAL, [&[first], &exponent[..], mantissa].concat())
    }

    /// Under the tag of its context.
    pub fn write_tagged(&self, tag: u32, out: &mut Vec<u8>) {
        let form = if self.constructed { CONTEXT | CONSTRUCTED } else { CONTEXT };
        match u8::try_from(tag) {
            Ok(tag) if tag < HIGH_TAG => out.push(form | tag),
            Ok(_) | Err(_) => {
                out.push(form | HIGH_TAG);
                let groups = (u32::BITS - tag.leading_zeros()).div_ceil(7);
                for group in (0..groups).rev() {
                    let more = if group > 0 { 0x80 } else { 0 };
                    out.push(more | ((tag >> (7 * group)) & 0x7f) as u8);
                }
            }
        }
        write_length(self.octets.len(), out);
        out.extend_from_slice(&self.octets);
    }

    /// Under its own tag.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(universal) = self.universal {
            out.push(if self.constructed { CONSTRUCTED | universal } else { universal });
            write_length(self.octets.len(), out);
        }
        out.extend_from_slice(&self.octets);
    }
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(_) | Err(_) => {
            let all = length.to_be_bytes();
            let needed = &all[all.iter().position(|octet| *octet != 0).unwrap_or(0)..];
            out.push(0x80 | needed.len() as u8);
            out.extend_from_slice(needed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_as_short_as_they_can_be() {
        for (number, octets) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0, 0x80]),
            (200, &[0, 0xc8]),
            (-1, &[0xff]),
            (-128, &[0x80]),
            (-129, &[0xff, 0x7f]),
            (i128::from(u32::MAX), &[0, 0xff, 0xff, 0xff, 0xff]),
            (i128::from(u64::MAX), &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            assert_eq!(Content::integer(INTEGER, number).octets, octets, "{number}");
        }
    }

    #[test]
    fn tags_and_lengths_have_a_long_form() {
        let written = |tag, length| {
            let mut out = Vec::new();
            Content::primitive(OCTET_STRING, vec![7; length]).write_tagged(tag, &mut out);
            out.truncate(out.len() - length);
            out
        };
        assert_eq!(written(30, 127), [0x9e, 0x7f]);
        assert_eq!(written(31, 128), [0x9f, 0x1f, 0x81, 0x80]);
        assert_eq!(written(200, 256), [0x9f, 0x81, 0x48, 0x82, 1, 0]);
        assert_eq!(written(0, 0), [0x80, 0]);
    }

    #[test]
    fn reals_are_odd_mantissas_with_a_power_of_two() {
        for (value, octets) in [
            (0.0, &[][..]),
            (1.0, &[0x80, 0, 1]),
            (-0.5, &[0xc0, 0xff, 1]),
            (10.0, &[0x80, 1, 5]),
            (f64::MIN_POSITIVE, &[0x81, 0xfc, 0x02, 1]),
        ] {
            assert_eq!(Content::real(value).octets, octets, "{value}");
        }
    }
}
