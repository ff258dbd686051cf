//! Amounts of service: octets, seconds, events.

use serde::ser::SerializeTupleStruct;
use serde::{Deserialize, Serialize, Serializer};

/// What a tariff counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UnitKind {
    #[serde(rename = "o")]
    Octets,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "e")]
    Events,
}

impl UnitKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Octets => "octets",
            Self::Seconds => "seconds",
            Self::Events => "events",
        }
    }

    pub fn from_name(text: &str) -> Option<Self> {
        [Self::Octets, Self::Seconds, Self::Events].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The unit members of `RequestedUnit`, `GrantedUnit` and `UsedUnitContainer` (TS 32.291 6.1.6.2.1), each as
/// present on the wire. `None` means not named, which is different from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Units {
    /// Octets in both directions.
    pub total_volume: Option<u64>,
    pub uplink_volume: Option<u64>,
    pub downlink_volume: Option<u64>,
    /// Seconds.
    pub time: Option<u32>,
    /// Events, or whatever the service counts.
    pub service_specific_units: Option<u64>,
}

/// In the order of the fields, ending with the last that is named: they stand in every container and every answer.
impl Serialize for Units {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { total_volume, uplink_volume, downlink_volume, time, service_specific_units } = *self;
        let all = [total_volume, uplink_volume, downlink_volume, time.map(u64::from), service_specific_units];
        let named = all.iter().rposition(Option::is_some).map_or(0, |last| last.saturating_add(1));
        let mut written = serializer.serialize_tuple_struct("Units", named)?;
        for units in all.iter().take(named) {
            written.serialize_field(units)?;
        }
        written.end()
    }
}

impl Units {
    /// Octets are the total volume, without it uplink plus downlink; `None` when nothing of the kind is named.
    /// The sum of two directions stops at the largest number there is.
    pub fn of(&self, kind: UnitKind) -> Option<u64> {
        match kind {
            UnitKind::Octets => self.total_volume.or(match (self.uplink_volume, self.downlink_volume) {
                (None, None) => None,
                (up, down) => Some(up.unwrap_or(0).saturating_add(down.unwrap_or(0))),
            }),
            UnitKind::Seconds => self.time.map(u64::from),
            UnitKind::Events => self.service_specific_units,
        }
    }

    /// Member by member; what only one of them names is as that one says. Sums stop at the largest number there is.
    #[must_use]
    pub fn plus(&self, more: &Self) -> Self {
        fn sum<T>(one: Option<T>, other: Option<T>, add: impl Fn(T, T) -> T) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(add(one, other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            total_volume: sum(self.total_volume, more.total_volume, u64::saturating_add),
            uplink_volume: sum(self.uplink_volume, more.uplink_volume, u64::saturating_add),
            downlink_volume: sum(self.downlink_volume, more.downlink_volume, u64::saturating_add),
            time: sum(self.time, more.time, u32::saturating_add),
            service_specific_units: sum(self.service_specific_units, more.service_specific_units, u64::saturating_add),
        }
    }

    /// `amount` of a kind under the member names that the consumer used when it `asked`: a consumer that asked by
    /// direction is answered by direction, and never with more in one direction than in total.
    pub fn answering(asked: &Self, kind: UnitKind, amount: u64) -> Self {
        match kind {
            UnitKind::Seconds => Self { time: Some(u32::try_from(amount).unwrap_or(u32::MAX)), ..Self::default() },
            UnitKind::Events => Self { service_specific_units: Some(amount), ..Self::default() },
            UnitKind::Octets => match (asked.total_volume, asked.uplink_volume, asked.downlink_volume) {
                (None, Some(up), down) if up.saturating_add(down.unwrap_or(0)) > 0 => {
                    let uplink = share(amount, up, up.saturating_add(down.unwrap_or(0)));
                    Self {
                        uplink_volume: Some(uplink),
                        downlink_volume: down.map(|_| amount.saturating_sub(uplink)),
                        ..Self::default()
                    }
                }
                (None, None, Some(down)) if down > 0 => Self { downlink_volume: Some(amount), ..Self::default() },
                (_, up, down) => Self {
                    total_volume: Some(amount),
                    uplink_volume: up.filter(|up| *up > 0).map(|up| up.min(amount)),
                    downlink_volume: down.filter(|down| *down > 0).map(|down| down.min(amount)),
                    ..Self::default()
                },
            },
        }
    }
}

/// `amount * part / whole`, rounded down.
pub fn share(amount: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(amount).saturating_mul(u128::from(part));
    // The quotient is at most `amount`, since no part is larger than its whole.
    product.checked_div(u128::from(whole)).and_then(|share| u64::try_from(share).ok()).unwrap_or(amount).min(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(total: Option<u64>, up: Option<u64>, down: Option<u64>) -> Units {
        Units { total_volume: total, uplink_volume: up, downlink_volume: down, ..Units::default() }
    }

    #[test]
    fn a_grant_mirrors_the_members_that_were_asked_for() {
        for (asked, amount, answer) in [
            (volume(None, None, None), 10, volume(Some(10), None, None)),
            (volume(Some(10), None, None), 7, volume(Some(7), None, None)),
            (volume(Some(10), Some(10), Some(10)), 7, volume(Some(7), Some(7), Some(7))),
            (volume(Some(10), Some(2), Some(8)), 7, volume(Some(7), Some(2), Some(7))),
            (volume(None, Some(6), Some(4)), 10, volume(None, Some(6), Some(4))),
            (volume(None, Some(6), Some(4)), 5, volume(None, Some(3), Some(2))),
            (volume(None, Some(9), None), 5, volume(None, Some(5), None)),
            (volume(None, None, Some(9)), 5, volume(None, None, Some(5))),
            (volume(None, Some(u64::MAX), Some(u64::MAX)), 10, volume(None, Some(10), Some(0))),
        ] {
            assert_eq!(Units::answering(&asked, UnitKind::Octets, amount), answer, "{asked:?}");
        }
    }
}
