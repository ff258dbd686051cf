//! Numbers as the servers read and write them.

use std::borrow::Cow;

use bytes::Bytes;

use super::Flavour;

/// A whole number, strictly: no sign but a minus, no zeros in front, nothing around it.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut number = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        number = number.checked_mul(10)?;
        number = if is_negative { number.checked_sub(digit)? } else { number.checked_add(digit)? };
    }
    Some(number)
}

/// Half of the id of an entry in a stream, which may have a plus, spaces and zeros in front.
pub fn id_part(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    unsigned(text.strip_prefix(b"+").unwrap_or(text))
}

fn unsigned(digits: &[u8]) -> Option<u64> {
    let is_number = digits.iter().all(u8::is_ascii_digit) && !digits.is_empty();
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// Up to the first zero byte, where texts of C end.
pub fn until_zero(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A word as it stands in an error.
pub fn quoted(word: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(until_zero(word))
}

/// A cursor, as C reads numbers: with a sign or without, and nothing at all is zero.
pub fn cursor(text: &[u8]) -> Option<u64> {
    let text = until_zero(text);
    let (is_negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let number = unsigned(digits)?;
    Some(if is_negative { number.wrapping_neg() } else { number })
}

/// A score that is given. What is no number at all, or too large or too small to be one, is none.
pub fn score(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    if number.is_nan() {
        return None;
    }
    let has_digit = |text: &[u8]| text.iter().any(u8::is_ascii_digit);
    let is_out_of_range = has_digit(text) && (number.is_infinite() || (number == 0.0 && !is_zero(text)));
    (!is_out_of_range).then_some(number)
}

/// Whether a text that reads as zero says so.
fn is_zero(text: &[u8]) -> bool {
    let mantissa = text.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
    !mantissa.iter().any(|byte| matches!(byte, b'1'..=b'9'))
}

/// The end of a range of scores, and whether it is left out of the range. Read as a text of C: it ends at a zero byte,
/// and nothing at all is zero.
pub fn score_limit(text: &[u8]) -> Option<(f64, bool)> {
    let text = until_zero(text);
    let (text, is_excluded) = match text {
        [b'(', rest @ ..] => (rest, true),
        text => (text, false),
    };
    let text = text.trim_ascii_start();
    if text.is_empty() {
        return Some((0.0, is_excluded));
    }
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some((number, is_excluded))
}

/// A score, or a number of a script that becomes an argument of a command.
pub fn written(flavour: Flavour, number: f64) -> Bytes {
    if number.is_nan() {
        return Bytes::from_static(b"nan");
    }
    if number.is_infinite() {
        return Bytes::from_static(if number > 0.0 { b"inf" } else { b"-inf" });
    }
    if number.fract() == 0.0 && number.abs() < 1e15 && (number != 0.0 || number.is_sign_positive()) {
        return (number as i64).to_string().into();
    }
    let text = match flavour {
        Flavour::Redis70 => seventeen_digits(number),
        Flavour::Valkey9 => shortest(number),
    };
    text.into()
}

/// As C's `%.17g`.
pub fn seventeen_digits(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.into();
    }
    let (sign, digits, exponent) = decimal(&format!("{number:.16e}"));
    if !(-4..17).contains(&exponent) {
        let sign_of_exponent = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{}e{sign_of_exponent}{:02}", with_point(&digits, 1), exponent.unsigned_abs());
    }
    format!("{sign}{}", placed(&digits, exponent))
}

/// The fewest digits that read back as the same number, in the servers' own layout.
fn shortest(number: f64) -> String {
    // Whole numbers that fit are written as such, and so zero has no sign.
    if number.fract() == 0.0 && number.abs() < (i64::MAX / 2) as f64 {
        return (number as i64).to_string();
    }
    let (sign, digits, exponent) = decimal(&format!("{number:e}"));
    let count = digits.len() as i32;
    // Zeros behind the digits, or places of them behind the point.
    let shift = exponent - count + 1;
    let is_plain = (shift >= 0 && exponent.abs() < count + 7) || (shift < 0 && (shift > -7 || exponent.abs() < 4));
    if is_plain {
        return format!("{sign}{}", placed(&digits, exponent));
    }
    let sign_of_exponent = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{}e{sign_of_exponent}{}", with_point(&digits, 1), exponent.unsigned_abs())
}

/// Sign, digits without zeros at the end, and exponent of a number written like `-1.5e3`.
fn decimal(text: &str) -> (&'static str, String, i32) {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once('e').expect("written with an exponent");
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_end_matches('0');
    (sign, digits.into(), exponent.parse().expect("a number behind the e"))
}

fn with_point(digits: &str, at: usize) -> String {
    let (whole, fraction) = digits.split_at(at);
    if fraction.is_empty() { whole.into() } else { format!("{whole}.{fraction}") }
}

/// Digits written without an exponent, the first of them standing for ten to the power of `exponent`.
fn placed(digits: &str, exponent: i32) -> String {
    match usize::try_from(exponent) {
        Ok(exponent) if exponent + 1 >= digits.len() => format!("{digits:0<width$}", width = exponent + 1),
        Ok(exponent) => with_point(digits, exponent + 1),
        Err(_) => format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_written_as_each_server_writes_them() {
        let rows = [
            (0.1, "0.10000000000000001", "0.1"),
            (1e-7, "9.9999999999999995e-08", "1e-7"),
            (1.5, "1.5", "1.5"),
            (1e20, "1e+20", "1e+20"),
            (123_456_789_012_345_678.0, "1.2345678901234568e+17", "123456789012345680"),
            (-9_007_199_254_740_992.0, "-9007199254740992", "-9007199254740992"),
            (1e300, "1.0000000000000001e+300", "1e+300"),
            (3.0, "3", "3"),
            (f64::NEG_INFINITY, "-inf", "-inf"),
        ];
        for (number, redis, valkey) in rows {
            assert_eq!(written(Flavour::Redis70, number), redis);
            assert_eq!(written(Flavour::Valkey9, number), valkey);
        }
    }

    #[test]
    fn numbers_are_read_strictly() {
        let rows = [
            "0",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "-0",
            "+1",
            "01",
            " 1",
            "",
            "9223372036854775808",
        ];
        let read: Vec<_> = rows.iter().map(|text| integer(text.as_bytes())).collect();
        assert_eq!(read, [Some(0), Some(-1), Some(i64::MAX), Some(i64::MIN), None, None, None, None, None, None]);
    }
}
