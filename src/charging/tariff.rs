//! Tariff plans: what a unit costs, and when. Versioned documents; a version never changes once written.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::ids::{BalanceId, RatingGroup, TariffPlanId};
use super::money::Amount;
use super::text::Text;
use super::time::Timestamp;
use super::units::UnitKind;

/// One version of a plan: a tariff for each rating group that it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TariffPlan {
    pub id: TariffPlanId,
    pub version: u32,
    pub currency: Text,
    /// IANA name of the zone whose calendar decides times of day and months.
    pub time_zone: Text,
    pub tariffs: Vec<Tariff>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tariff {
    pub rating_group: RatingGroup,
    pub name: Text,
    pub rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Quota is managed and usage has a price, even if that is zero.
    #[serde(rename = "m")]
    Metered(Metered),
    /// No quota management: `QUOTA_MANAGEMENT_NOT_APPLICABLE`, usage is recorded.
    #[serde(rename = "f")]
    Flat,
    /// `END_USER_SERVICE_DENIED`.
    #[serde(rename = "b")]
    Barred,
    /// Not subject to charging at all: a Create that names nothing else is told so, `CHARGING_NOT_APPLICABLE`.
    #[serde(rename = "n")]
    NotCharged,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metered {
    pub kind: UnitKind,
    pub prices: Prices,
    /// Balances of the same unit that pay one for one, before money.
    pub allowances: Vec<BalanceId>,
    /// Granted when the consumer leaves the amount to us.
    pub default_grant: u64,
    pub largest_grant: u64,
    pub validity_secs: Option<u32>,
    pub holding_secs: Option<u32>,
    /// Per cent of a grant that remain when the consumer shall report.
    pub threshold_percent: Option<u8>,
    pub final_unit: FinalUnit,
    /// When quota is granted at all, `END_USER_SERVICE_REJECTED` otherwise; always when empty.
    pub sold: Vec<Hours>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prices {
    #[serde(rename = "a")]
    Always(Price),
    #[serde(rename = "d")]
    TimeOfDay { windows: Vec<Window>, otherwise: Price },
    /// Steps over the usage of one calendar month, in order of `up_to`.
    #[serde(rename = "t")]
    Tiers { tiers: Vec<Tier>, beyond: Price },
}

/// `amount` for each started block of `per` units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Price {
    /// Never negative.
    pub amount: Amount,
    /// Never zero.
    pub per: u64,
}

/// A stretch of every day, from the minute `from` up to and not including the minute `to`, counted from midnight;
/// over midnight when `to` is not after `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    pub from: u16,
    pub to: u16,
}

/// A price for some hours of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub hours: Hours,
    pub price: Price,
}

/// Holds for the month's units up to and including number `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    pub up_to: u64,
    pub price: Price,
}

impl TariffPlan {
    /// Rating groups whose tariff is another one than in an older version.
    pub fn changed_since(&self, older: &Self) -> Vec<RatingGroup> {
        let before = |group| older.tariffs.iter().find(|tariff| tariff.rating_group == group);
        let has_changed =
            |tariff: &&Tariff| before(tariff.rating_group).is_none_or(|before| before.rule != tariff.rule);
        self.tariffs.iter().filter(has_changed).map(|tariff| tariff.rating_group).collect()
    }
}

/// What the consumer shall do when the last grant is used up (TS 32.291 `FinalUnitIndication`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinalUnit {
    #[serde(rename = "t")]
    Terminate,
    /// `address_type` is `IPV4`, `IPV6`, `URL` or `URI`.
    #[serde(rename = "r")]
    Redirect { address_type: Text, address: Text },
    /// At least one of the lists is not empty.
    #[serde(rename = "x")]
    RestrictAccess { filter_rules: Vec<Text>, filter_ids: Vec<Text> },
}

impl FinalUnit {
    /// Whether the action makes sense when nothing at all is granted: a portal helps then too.
    pub fn acts_on_refusal(&self) -> bool {
        match self {
            Self::Terminate => false,
            Self::Redirect { .. } | Self::RestrictAccess { .. } => true,
        }
    }
}

impl Price {
    /// Whatever is used, and however much.
    pub fn is_free(&self) -> bool {
        self.amount.is_zero()
    }

    /// `ceil(used / per) * amount`; `None` when that is more money than there is.
    pub fn charge(&self, used: u64) -> Option<Amount> {
        // Rounding: up, a started block is paid in full.
        let blocks = used.div_ceil(self.per);
        Amount::of(i128::from(blocks).checked_mul(i128::from(self.amount.steps()))?)
    }

    /// What `units` more cost after `used`: so splitting usage never changes the price.
    pub fn charge_more(&self, used: u64, units: u64) -> Option<Amount> {
        if self.is_free() {
            return Some(Amount::ZERO);
        }
        self.charge(used.checked_add(units)?)?.minus(self.charge(used)?)
    }

    /// Units that `money` covers after `used`: the rest of the started block, then whole blocks.
    pub fn coverable(&self, used: u64, money: Amount) -> u64 {
        if self.is_free() {
            return u64::MAX;
        }
        let started = used.checked_rem(self.per).unwrap_or(0);
        let rest = if started == 0 { 0 } else { self.per.saturating_sub(started) };
        let blocks = money.as_units().checked_div(self.amount.as_units()).unwrap_or(0);
        rest.saturating_add(blocks.saturating_mul(self.per)).min(u64::MAX.saturating_sub(used))
    }
}

impl Hours {
    fn hold(&self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// A plan with its calendar at hand.
#[derive(Clone, Debug)]
pub struct PlanInForce {
    pub plan: TariffPlan,
    zone: TimeZone,
}

impl PlanInForce {
    /// `None` when nobody knows the plan's time zone.
    pub fn new(plan: TariffPlan) -> Option<Self> {
        let zone = TimeZone::get(&plan.time_zone).ok()?;
        Some(Self { plan, zone })
    }

    pub fn tariff(&self, rating_group: RatingGroup) -> Option<&Tariff> {
        self.plan.tariffs.iter().find(|tariff| tariff.rating_group == rating_group)
    }

    pub fn calendar(&self) -> Calendar<'_> {
        Calendar { zone: &self.zone }
    }
}

/// The plan's zone as the rules need it.
#[derive(Clone, Copy, Debug)]
pub struct Calendar<'a> {
    zone: &'a TimeZone,
}

/// How far back a container is split at changes of the price; older usage counts as used at this distance.
const SPLIT_DAYS_MAX: i32 = 62;

impl Calendar<'_> {
    /// Year and month as one number that grows with time.
    pub fn month(&self, at: Timestamp) -> u32 {
        let date = at.in_zone(self.zone).date();
        u32::try_from(i32::from(date.year()).saturating_mul(12).saturating_add(i32::from(date.month()))).unwrap_or(0)
    }

    /// The first instant of the month after the one that holds `at`.
    pub fn next_month(&self, at: Timestamp) -> Option<Timestamp> {
        let first = at.in_zone(self.zone).date().first_of_month().checked_add(jiff::Span::new().months(1)).ok()?;
        Some(first.to_zoned(self.zone.clone()).ok()?.timestamp().into())
    }

    /// Minutes since midnight.
    fn minute(&self, at: Timestamp) -> u16 {
        let time = at.in_zone(self.zone).time();
        let minute = i32::from(time.hour()).saturating_mul(60).saturating_add(i32::from(time.minute()));
        u16::try_from(minute).unwrap_or(0)
    }

    /// Whether a service that is sold in these hours only is sold now.
    pub fn is_sold(&self, hours: &[Hours], now: Timestamp) -> bool {
        hours.is_empty() || hours.iter().any(|hours| hours.hold(self.minute(now)))
    }

    /// When a service that is sold now stops being sold.
    pub fn end_of_sale(&self, hours: &[Hours], now: Timestamp) -> Option<Timestamp> {
        if hours.is_empty() {
            return None;
        }
        let boundaries = self.boundaries(hours.iter().copied(), now.in_zone(self.zone).date(), 2);
        boundaries.into_iter().find(|boundary| *boundary > now && !self.is_sold(hours, *boundary))
    }

    /// The price of a time-of-day tariff at an instant.
    pub fn price_at(&self, windows: &[Window], otherwise: Price, at: Timestamp) -> Price {
        let minute = self.minute(at);
        windows.iter().find(|window| window.hours.hold(minute)).map_or(otherwise, |window| window.price)
    }

    /// The next instant after `at` from which the price is another one.
    pub fn next_change(&self, windows: &[Window], otherwise: Price, at: Timestamp) -> Option<Timestamp> {
        let before = self.price_at(windows, otherwise, at);
        // Two days on cover a boundary that a change of the clocks swallows today.
        self.boundaries(hours(windows), at.in_zone(self.zone).date(), 2)
            .into_iter()
            .find(|boundary| *boundary > at && self.price_at(windows, otherwise, *boundary) != before)
    }

    /// The stretches of `start..end` that have one price each, with their lengths in milliseconds.
    pub fn stretches(
        &self,
        windows: &[Window],
        otherwise: Price,
        start: Timestamp,
        end: Timestamp,
    ) -> Vec<(Price, u64)> {
        let last = end.in_zone(self.zone).date();
        let oldest = last.checked_sub(jiff::Span::new().days(SPLIT_DAYS_MAX)).unwrap_or(last);
        let first = start.in_zone(self.zone).date().max(oldest);
        let days = last.since(first).map_or(0, |span| span.get_days());
        let mut from = start;
        let mut stretches: Vec<(Price, u64)> = Vec::new();
        let inner = self.boundaries(hours(windows), first, days).into_iter().filter(|at| *at > start && *at < end);
        for to in inner.chain([end]) {
            let price = self.price_at(windows, otherwise, from);
            let millis = to.since(from).millis().unsigned_abs();
            match stretches.last_mut() {
                Some((same, length)) if *same == price => *length = length.saturating_add(millis),
                _ => stretches.push((price, millis)),
            }
            from = to;
        }
        stretches
    }

    /// The instants at which some of the hours start or end, from the day `first` and `days` more, in order.
    fn boundaries(&self, hours: impl Iterator<Item = Hours>, first: civil::Date, days: i32) -> Vec<Timestamp> {
        let mut minutes: Vec<u16> = hours.flat_map(|hours| [hours.from, hours.to]).collect();
        minutes.sort_unstable();
        minutes.dedup();
        let mut found = Vec::new();
        for day in 0..=days {
            let Ok(date) = first.checked_add(jiff::Span::new().days(day)) else { break };
            for minute in &minutes {
                let hour = i8::try_from(minute / 60).unwrap_or(0);
                let rest = i8::try_from(minute % 60).unwrap_or(0);
                // 24:00 is the next day's midnight.
                let at = if hour >= 24 {
                    date.tomorrow().ok().and_then(|next| next.to_zoned(self.zone.clone()).ok())
                } else {
                    date.at(hour, rest, 0, 0).to_zoned(self.zone.clone()).ok()
                };
                if let Some(at) = at {
                    found.push(Timestamp::from(at.timestamp()));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn hours(windows: &[Window]) -> impl Iterator<Item = Hours> {
    windows.iter().map(|window| window.hours)
}

/// All plans an instance knows: the newest version of each, and older versions that sessions still rate with.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    newest: BTreeMap<TariffPlanId, Arc<PlanInForce>>,
    versions: BTreeMap<TariffPlanId, BTreeMap<u32, Arc<PlanInForce>>>,
}

impl Catalog {
    pub fn add(&mut self, plan: PlanInForce) {
        let plan = Arc::new(plan);
        self.versions.entry(plan.plan.id.clone()).or_default().insert(plan.plan.version, Arc::clone(&plan));
        let newest = self.newest.entry(plan.plan.id.clone()).or_insert_with(|| Arc::clone(&plan));
        if newest.plan.version < plan.plan.version {
            *newest = plan;
        }
    }

    pub fn newest(&self, id: &TariffPlanId) -> Option<&Arc<PlanInForce>> {
        self.newest.get(id)
    }

    pub fn version(&self, id: &TariffPlanId, version: u32) -> Option<&Arc<PlanInForce>> {
        self.versions.get(id)?.get(&version)
    }

    pub fn all_newest(&self) -> impl Iterator<Item = &Arc<PlanInForce>> {
        self.newest.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Price = Price { amount: Amount::new(20_000), per: 1_048_576 };
    const NIGHT: Price = Price { amount: Amount::new(5_000), per: 1_048_576 };

    fn windows() -> Vec<Window> {
        vec![Window { hours: Hours { from: 480, to: 1200 }, price: DAY }]
    }

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    #[test]
    fn a_charge_counts_started_blocks() {
        let price = Price { amount: Amount::new(10_000), per: 1_048_576 };
        for (used, charge) in [
            (0, Some(0)),
            (1, Some(10_000)),
            (1_048_576, Some(10_000)),
            (1_048_577, Some(20_000)),
            (u64::MAX, Some(175_921_860_444_160_000)),
        ] {
            assert_eq!(price.charge(used).map(Amount::steps), charge, "{used}");
        }
        assert_eq!(Price { amount: Amount::new(i64::MAX), per: 1 }.charge(2), None);
    }

    #[test]
    fn coverable_is_the_rest_of_the_block_and_whole_blocks() {
        let price = Price { amount: Amount::new(10), per: 100 };
        for (used, money, units) in
            [(0, 0, 0), (0, 9, 0), (0, 10, 100), (0, 29, 200), (30, 0, 70), (30, 10, 170), (100, -5, 0)]
        {
            assert_eq!(price.coverable(used, Amount::new(money)), units, "{used} {money}");
        }
        assert_eq!(Price { amount: Amount::ZERO, per: 1 }.coverable(5, Amount::ZERO), u64::MAX);
    }

    #[test]
    fn the_price_changes_with_the_local_clock() {
        let zone = TimeZone::get("Europe/Brussels").unwrap();
        let calendar = Calendar { zone: &zone };
        for (instant, price, change) in [
            ("2026-01-15T06:59:59Z", NIGHT, "2026-01-15T07:00:00Z"),
            ("2026-01-15T07:00:00Z", DAY, "2026-01-15T19:00:00Z"),
            ("2026-01-15T19:00:00Z", NIGHT, "2026-01-16T07:00:00Z"),
            ("2026-07-15T06:00:00Z", DAY, "2026-07-15T18:00:00Z"),
            // The night in which the clocks go forward.
            ("2026-03-28T20:00:00Z", NIGHT, "2026-03-29T06:00:00Z"),
        ] {
            assert_eq!(calendar.price_at(&windows(), NIGHT, at(instant)), price, "{instant}");
            assert_eq!(calendar.next_change(&windows(), NIGHT, at(instant)), Some(at(change)), "{instant}");
        }
    }

    #[test]
    fn a_stretch_of_usage_is_cut_where_the_price_changes() {
        let zone = TimeZone::get("Europe/Brussels").unwrap();
        let calendar = Calendar { zone: &zone };
        let cut = |from, to| calendar.stretches(&windows(), NIGHT, at(from), at(to));
        let hour = 3_600_000;
        assert_eq!(cut("2026-01-15T06:00:00Z", "2026-01-15T09:00:00Z"), [(NIGHT, hour), (DAY, 2 * hour)]);
        assert_eq!(cut("2026-01-15T06:00:00Z", "2026-01-15T07:00:00Z"), [(NIGHT, hour)]);
        assert_eq!(
            cut("2026-01-15T06:00:00Z", "2026-01-16T08:00:00Z"),
            [(NIGHT, hour), (DAY, 12 * hour), (NIGHT, 12 * hour), (DAY, hour)]
        );
    }

    #[test]
    fn months_follow_the_plans_calendar() {
        let zone = TimeZone::get("Europe/Brussels").unwrap();
        let calendar = Calendar { zone: &zone };
        assert_ne!(calendar.month(at("2026-10-31T22:59:59Z")), calendar.month(at("2026-10-31T23:00:00Z")));
        assert_eq!(calendar.next_month(at("2026-11-24T12:00:00Z")), Some(at("2026-11-30T23:00:00Z")));
    }
}
