//! Units to money: what reported usage costs, and how much an account can still be granted.

use smallvec::smallvec;

use super::account::{Account, Reservation};
use super::ids::{RatingGroup, TariffPlanId};
use super::journal::Move;
use super::lists::Few;
use super::money::Amount;
use super::session::ChargingSession;
use super::tariff::{Calendar, Metered, PlanInForce, Price, Prices};
use super::time::{Span, Timestamp};
use super::units::share;

/// A rating group's tariff in the plan that rates it.
#[derive(Clone, Copy)]
pub struct Rated<'a> {
    pub plan: &'a PlanInForce,
    pub rating_group: RatingGroup,
    pub tariff: &'a Metered,
}

/// When usage happened. Without a start it counts as used at the end.
#[derive(Clone, Copy, Debug)]
pub struct UsedDuring {
    pub start: Option<Timestamp>,
    pub end: Timestamp,
    /// The container was closed because the tariff changed: usage is of the time before `end`.
    pub closed_by_tariff_change: bool,
}

/// The numbers do not fit; nothing was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// Some units at one price, and where they stand in the month's tiers.
struct Segment {
    price: Price,
    units: u64,
}

impl<'a> Rated<'a> {
    fn calendar(&self) -> Calendar<'a> {
        self.plan.calendar()
    }

    fn plan_id(&self) -> &'a TariffPlanId {
        &self.plan.plan.id
    }

    fn version(&self) -> u32 {
        self.plan.plan.version
    }

    /// Charges `units` to the account: allowances first, then money at the price of the time of use. Value comes out
    /// of `held` first. Answers the money and the moves.
    ///
    /// # Errors
    ///
    /// `Overflow` when a price or a sum cannot be counted; account and session are then as they were.
    pub fn charge(
        &self,
        now: Timestamp,
        units: u64,
        during: UsedDuring,
        account: &mut Account,
        session: &mut ChargingSession,
        held: &mut [Reservation],
    ) -> Result<(Amount, Vec<Move>), Overflow> {
        let mut left = units;
        let mut in_kind = Few::new();
        for at in account.allowances(&self.tariff.allowances, self.tariff.kind) {
            let covered = account.covers_in_kind(at, left, now, held);
            left = left.saturating_sub(covered);
            in_kind.push((at, covered));
        }
        let month = self.calendar().month(during.end);
        let segments = self.segments(left, during, account.counted(self.plan_id(), self.rating_group, month));
        // Two stretches at one price count on one meter.
        let mut metered: Few<(Segment, Amount)> = Few::new();
        let mut charged = Amount::ZERO;
        for segment in segments {
            let same_price = metered.iter().filter(|(other, _)| other.price == segment.price);
            let before = session
                .metered(self.rating_group, segment.price)
                .checked_add(same_price.map(|(other, _)| other.units).sum())
                .ok_or(Overflow)?;
            let cost = segment.price.charge_more(before, segment.units).ok_or(Overflow)?;
            charged = charged.plus(cost).ok_or(Overflow)?;
            metered.push((segment, cost));
        }
        let total = session.charged.plus(charged).ok_or(Overflow)?;
        if charged.is_positive() && !account.can_pay(charged) {
            return Err(Overflow);
        }

        // From here on nothing fails.
        let mut moves = Vec::new();
        for (at, covered) in in_kind {
            let taken = account.pay_in_kind(at, covered, held);
            moves.extend(taken.map(|taken| taken.for_usage(self.rating_group, Some(covered), Some(self.version()))));
        }
        for (segment, cost) in metered {
            if cost.is_positive() {
                let paid = account.pay(cost, held);
                let units = if paid.len() == 1 { Some(segment.units) } else { None };
                moves.extend(paid.into_iter().map(|one| one.for_usage(self.rating_group, units, Some(self.version()))));
            }
            session.meter(self.rating_group, segment.price, segment.units);
        }
        session.charged = total;
        if matches!(self.tariff.prices, Prices::Tiers { .. }) && left > 0 {
            account.count(self.plan_id(), self.rating_group, month, left);
        }
        Ok((charged, moves))
    }

    /// Cuts usage where its price changes: at the octet where a tier ends, in proportion to time where the clock does.
    fn segments(&self, units: u64, during: UsedDuring, counted: u64) -> Few<Segment> {
        if units == 0 {
            return Few::new();
        }
        match &self.tariff.prices {
            Prices::Always(price) => smallvec![Segment { price: *price, units }],
            Prices::Tiers { tiers, beyond } => {
                let mut left = units;
                let mut position = counted;
                let mut segments = Few::new();
                for tier in tiers {
                    let taken = tier.up_to.saturating_sub(position).min(left);
                    if taken > 0 {
                        segments.push(Segment { price: tier.price, units: taken });
                        position = position.saturating_add(taken);
                        left = left.saturating_sub(taken);
                    }
                }
                if left > 0 {
                    segments.push(Segment { price: *beyond, units: left });
                }
                segments
            }
            Prices::TimeOfDay { windows, otherwise } => {
                let start = during.start.filter(|start| *start < during.end);
                let Some(start) = start else {
                    let at = if during.closed_by_tariff_change {
                        during.end.before(Span::from_millis(1))
                    } else {
                        during.end
                    };
                    return smallvec![Segment { price: self.calendar().price_at(windows, *otherwise, at), units }];
                };
                let stretches = self.calendar().stretches(windows, *otherwise, start, during.end);
                let whole: u64 = stretches.iter().map(|(_, millis)| *millis).fold(0, u64::saturating_add);
                let mut segments = Few::new();
                let mut until = 0u64;
                let mut given = 0u64;
                for (price, millis) in stretches {
                    // Rounding: each cut is rounded down, so the octets that do not divide go to the later stretch.
                    until = until.saturating_add(millis);
                    let so_far = share(units, until, whole);
                    segments.push(Segment { price, units: so_far.saturating_sub(given) });
                    given = so_far;
                }
                segments.retain(|segment| segment.units > 0);
                segments
            }
        }
    }

    /// Reserves as much of `asked` as the account can cover; `None` when that is nothing.
    ///
    /// `outstanding` are units that the same rating group holds elsewhere in the session.
    pub fn grant(
        &self,
        now: Timestamp,
        asked: u64,
        outstanding: u64,
        account: &mut Account,
        session: &ChargingSession,
    ) -> Option<Offer> {
        let limit = asked.min(self.tariff.largest_grant);
        let mut ladder = self.ladder(now, outstanding, account, session);
        let taken = ladder.take(limit);
        if taken.units == 0 {
            return None;
        }
        let block = ladder.block();
        // "Could not cover one more block": asked of the state after this grant.
        let final_unit = ladder.take(block).units < block;

        let mut reserved = Vec::new();
        let mut moves = Vec::new();
        for (at, units) in &taken.in_kind {
            let held = account.reserve(*at, Amount::of(*units)?, &mut reserved);
            moves.extend(held.map(|held| held.for_usage(self.rating_group, Some(*units), Some(self.version()))));
        }
        if taken.cost.is_positive() {
            let held = account.reserve_money(taken.cost, &mut reserved);
            let units = if held.len() == 1 { Some(taken.for_money) } else { None };
            moves.extend(held.into_iter().map(|one| one.for_usage(self.rating_group, units, Some(self.version()))));
        }
        let validity_secs = self.validity(now, &reserved, account);
        let tariff_change = ladder.tariff_change;
        Some(Offer { units: taken.units, reserved, moves, final_unit, tariff_change, validity_secs })
    }

    /// Debits `asked` at once, all of it or nothing: `None`, and nothing changed, when the account cannot cover it. The
    /// price is that of `now`, whatever the consumer's clock says: the event is still to happen. Answers the moves, and
    /// whether the account cannot cover one more block.
    ///
    /// # Errors
    ///
    /// As [`Rated::charge`].
    pub fn debit_at_once(
        &self,
        now: Timestamp,
        asked: u64,
        account: &mut Account,
        session: &mut ChargingSession,
    ) -> Result<Option<(Vec<Move>, bool)>, Overflow> {
        let during = UsedDuring { start: None, end: now, closed_by_tariff_change: false };
        let (mut paying, mut counting) = (account.clone(), session.clone());
        let (cost, moves) = self.charge(now, asked, during, &mut paying, &mut counting, &mut [])?;
        if cost.is_positive() && paying.money_available() < Amount::ZERO {
            return Ok(None);
        }
        (*account, *session) = (paying, counting);
        let mut after = self.ladder(now, 0, account, session);
        let block = after.block();
        Ok(Some((moves, after.take(block).units < block)))
    }

    /// The tariff's validity, cut short where a balance that the grant holds expires, the month's tiers start again,
    /// or the service is no longer sold.
    fn validity(&self, now: Timestamp, reserved: &[Reservation], account: &Account) -> Option<u32> {
        // What expired before holds only what is owed on credit.
        let expiry = |held: &Reservation| account.balance(&held.balance)?.expires_at.filter(|at| *at > now);
        let expiries = reserved.iter().filter_map(expiry);
        let reset = match &self.tariff.prices {
            Prices::Tiers { .. } => self.calendar().next_month(now),
            Prices::Always(_) | Prices::TimeOfDay { .. } => None,
        };
        let end_of_sale = self.calendar().end_of_sale(&self.tariff.sold, now);
        let soonest = expiries.chain(reset).chain(end_of_sale).map(|at| at.since(now).secs()).min();
        let soonest = soonest.map(|secs| u32::try_from(secs).unwrap_or(u32::MAX));
        // Zero would disarm the timer instead of ending the grant at once.
        self.tariff.validity_secs.into_iter().chain(soonest).min().map(|secs| secs.max(1))
    }

    fn ladder(&self, now: Timestamp, outstanding: u64, account: &Account, session: &ChargingSession) -> Ladder {
        let in_kind = account
            .allowances(&self.tariff.allowances, self.tariff.kind)
            .into_iter()
            .filter_map(|at| {
                let balance = account.balances.get(at)?;
                let free = if balance.is_expired(now) { 0 } else { balance.free().as_units() };
                (free > 0).then_some((at, free))
            })
            .collect();
        let step = |prices: &[Price], room: Option<u64>| Step {
            prices: prices
                .iter()
                .map(|price| StepPrice { price: *price, used: session.metered(self.rating_group, *price) })
                .collect(),
            room,
        };
        let mut tariff_change = None;
        let steps = match &self.tariff.prices {
            Prices::Always(price) => smallvec![step(&[*price], None)],
            Prices::Tiers { tiers, beyond } => {
                let mut position = account.counted(self.plan_id(), self.rating_group, self.calendar().month(now));
                let mut steps = Few::new();
                for tier in tiers {
                    let room = tier.up_to.saturating_sub(position);
                    if room > 0 {
                        steps.push(step(&[tier.price], Some(room)));
                        position = tier.up_to;
                    }
                }
                steps.push(step(&[*beyond], None));
                steps
            }
            Prices::TimeOfDay { windows, otherwise } => {
                let current = self.calendar().price_at(windows, *otherwise, now);
                let horizon = self.tariff.validity_secs.map(|secs| now.after(Span::from_secs(secs)));
                tariff_change = self
                    .calendar()
                    .next_change(windows, *otherwise, now)
                    .filter(|change| horizon.is_none_or(|end| *change < end));
                match tariff_change {
                    // One grant covers both sides of the change, so it holds what the dearer side may cost.
                    Some(change) => {
                        smallvec![step(&[current, self.calendar().price_at(windows, *otherwise, change)], None)]
                    }
                    None => smallvec![step(&[current], None)],
                }
            }
        };
        Ladder { in_kind, steps, outstanding, money: account.money_available(), tariff_change }
    }
}

/// What a grant holds and says.
#[derive(Clone, Debug)]
pub struct Offer {
    pub units: u64,
    pub reserved: Vec<Reservation>,
    pub moves: Vec<Move>,
    pub final_unit: bool,
    pub tariff_change: Option<Timestamp>,
    pub validity_secs: Option<u32>,
}

/// The units that an account can still cover, in the order in which they would be used: allowances, then money at
/// one price after the other. Taking from it is a rehearsal; it changes no account.
struct Ladder {
    /// Position of the balance, units left in it.
    in_kind: Few<(usize, u64)>,
    steps: Few<Step>,
    /// Units of the rating group that other grants of the session hold.
    outstanding: u64,
    money: Amount,
    tariff_change: Option<Timestamp>,
}

struct Step {
    /// Several when the price may change meanwhile.
    prices: Few<StepPrice>,
    /// Units until the next step; `None` without end.
    room: Option<u64>,
}

struct StepPrice {
    price: Price,
    used: u64,
}

#[derive(Default)]
struct Taken {
    units: u64,
    /// Position of the balance, units taken of it.
    in_kind: Few<(usize, u64)>,
    for_money: u64,
    cost: Amount,
}

impl Ladder {
    /// Units of one block at the current step.
    fn block(&self) -> u64 {
        self.steps.first().map_or(1, |step| step.prices.iter().map(|one| one.price.per).max().unwrap_or(1))
    }

    fn take(&mut self, limit: u64) -> Taken {
        let mut taken = Taken::default();
        for (at, free) in &mut self.in_kind {
            let units = limit.saturating_sub(taken.units).min(*free);
            if units > 0 {
                *free = free.saturating_sub(units);
                taken.units = taken.units.saturating_add(units);
                taken.in_kind.push((*at, units));
            }
        }
        while taken.units < limit {
            let Some(step) = self.steps.first_mut() else { break };
            let wanted = limit.saturating_sub(taken.units).min(step.room.unwrap_or(u64::MAX));
            let (units, cost) = step.cover(wanted, self.outstanding, self.money);
            taken.units = taken.units.saturating_add(units);
            taken.for_money = taken.for_money.saturating_add(units);
            taken.cost = taken.cost.plus(cost).unwrap_or(taken.cost);
            self.money = self.money.minus(cost).unwrap_or(self.money);
            step.room = step.room.map(|room| room.saturating_sub(units));
            if units < wanted {
                break;
            }
            if step.room == Some(0) {
                self.steps.remove(0);
            }
        }
        taken
    }
}

impl Step {
    /// As many of `wanted` as `money` covers at every price, and what the dearest of them asks for that.
    fn cover(&mut self, wanted: u64, outstanding: u64, money: Amount) -> (u64, Amount) {
        let positions = |one: &StepPrice| [one.used, one.used.saturating_add(outstanding)];
        let coverable = |one: &StepPrice| {
            positions(one).map(|used| one.price.coverable(used, money)).into_iter().min().unwrap_or(0)
        };
        let units = self.prices.iter().map(coverable).min().unwrap_or(0).min(wanted);
        // The rest of a block that is already paid counts once, though several grants of the group may lie on it: so
        // a grant costs what it costs by itself, and no less than what it costs on top of the others.
        let mut cost = Amount::ZERO;
        for one in &self.prices {
            for used in positions(one) {
                // What cannot be counted cannot be granted.
                let Some(alone) = one.price.charge_more(used, units) else { return (0, Amount::ZERO) };
                cost = cost.max(alone);
            }
        }
        for one in &mut self.prices {
            one.used = one.used.saturating_add(units);
        }
        (units, cost)
    }
}
