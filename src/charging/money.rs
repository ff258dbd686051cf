//! Value held by balances: integers only, checked, never a float.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::units::UnitKind;

/// Value in the smallest step of its unit: millionths of the currency for money; octets, seconds or events one by
/// one for everything else. About nine million millions of currency units fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amount(i64);

impl Amount {
    pub const ZERO: Self = Self(0);

    pub const fn new(steps: i64) -> Self {
        Self(steps)
    }

    /// `None` when it does not fit.
    pub fn of(steps: impl TryInto<i64>) -> Option<Self> {
        steps.try_into().ok().map(Self)
    }

    pub const fn steps(self) -> i64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    pub const fn plus(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(steps) => Some(Self(steps)),
            None => None,
        }
    }

    pub const fn minus(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(steps) => Some(Self(steps)),
            None => None,
        }
    }

    /// How many whole units of usage it is worth; zero when negative.
    pub const fn as_units(self) -> u64 {
        if self.0 < 0 { 0 } else { self.0.unsigned_abs() }
    }

    /// The decimal text of the operator's API: six places for money, none for anything else.
    pub fn text(self, unit: BalanceUnit) -> String {
        match unit {
            BalanceUnit::Money => self.to_string(),
            BalanceUnit::Octets | BalanceUnit::Seconds | BalanceUnit::Events => self.0.to_string(),
        }
    }

    /// Reads what [`Amount::text`] writes; fewer decimal places are fine, more than the unit has are not.
    pub fn parse(unit: BalanceUnit, text: &str) -> Option<Self> {
        let places = match unit {
            BalanceUnit::Money => 6,
            BalanceUnit::Octets | BalanceUnit::Seconds | BalanceUnit::Events => 0,
        };
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
            return None;
        }
        // Zeros beyond the places say nothing; "1073741824.000000" octets is a whole number.
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > places {
            return None;
        }
        let steps: i64 = format!("{whole}{fraction:0<places$}").parse().ok()?;
        Some(Self(if negative { steps.checked_neg()? } else { steps }))
    }
}

/// Money with its six places: `10.000000`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let steps = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:06}", steps / 1_000_000, steps % 1_000_000)
    }
}

/// What a balance holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BalanceUnit {
    #[serde(rename = "m")]
    Money,
    #[serde(rename = "o")]
    Octets,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "e")]
    Events,
}

impl BalanceUnit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Money => "money",
            Self::Octets => "octets",
            Self::Seconds => "seconds",
            Self::Events => "events",
        }
    }

    pub fn from_name(text: &str) -> Option<Self> {
        [Self::Money, Self::Octets, Self::Seconds, Self::Events].into_iter().find(|unit| unit.as_str() == text)
    }

    /// Whether usage of this kind can be paid with it one for one.
    pub const fn pays_for(self, kind: UnitKind) -> bool {
        matches!(
            (self, kind),
            (Self::Octets, UnitKind::Octets) | (Self::Seconds, UnitKind::Seconds) | (Self::Events, UnitKind::Events)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_and_print_exactly() {
        use BalanceUnit::{Money, Octets};
        for (unit, text, steps, printed) in [
            (Money, "10.000000", Some(10_000_000), "10.000000"),
            (Money, "0.000001", Some(1), "0.000001"),
            (Money, "-0.5", Some(-500_000), "-0.500000"),
            (Money, "7", Some(7_000_000), "7.000000"),
            (Money, "9223372036854.775807", Some(i64::MAX), "9223372036854.775807"),
            (Money, "9223372036854.775808", None, ""),
            (Money, "0.0000001", None, ""),
            (Money, "1.", None, ""),
            (Money, ".5", None, ""),
            (Money, "", None, ""),
            (Money, "-", None, ""),
            (Money, "1e3", None, ""),
            (Money, "+1", None, ""),
            (Money, " 1", None, ""),
            (Money, "1,5", None, ""),
            (Octets, "1073741824", Some(1_073_741_824), "1073741824"),
            (Octets, "1073741824.000000", Some(1_073_741_824), "1073741824"),
            (Octets, "0.5", None, ""),
        ] {
            let parsed = Amount::parse(unit, text);
            assert_eq!(parsed.map(Amount::steps), steps, "{text}");
            if let Some(amount) = parsed {
                assert_eq!(amount.text(unit), printed);
            }
        }
    }
}
