//! The audit's own bookkeeping. Sums of 64-bit amounts in 128 bits: no store holds enough of them to overflow.

use std::fmt;

use crate::charging::money::{Amount, BalanceUnit};

/// A sum of amounts of one unit, shown as the unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    pub steps: i128,
    pub unit: BalanceUnit,
}

impl Sum {
    pub fn of(amount: Amount, unit: BalanceUnit) -> Self {
        Self { steps: i128::from(amount.steps()), unit }
    }

    pub const fn money(steps: i128) -> Self {
        Self { steps, unit: BalanceUnit::Money }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            BalanceUnit::Money => {
                let sign = if self.steps < 0 { "-" } else { "" };
                let steps = self.steps.unsigned_abs();
                write!(f, "{sign}{}.{:06}", steps / 1_000_000, steps % 1_000_000)
            }
            BalanceUnit::Octets | BalanceUnit::Seconds | BalanceUnit::Events => write!(f, "{}", self.steps),
        }
    }
}
