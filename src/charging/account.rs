//! Accounts: balances, what is reserved of them, and the counters that tariffs with tiers need.

use serde::{Deserialize, Serialize};

use super::ids::{AccountId, BalanceId, RatingGroup, TariffPlanId};
use super::journal::{Move, MoveKind};
use super::lists::Few;
use super::money::{Amount, BalanceUnit};
use super::text::Text;
use super::time::Timestamp;
use super::units::UnitKind;

/// Whose money: the unit of atomicity. Kept small: it is written by nearly every request of every session it pays for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub id: AccountId,
    pub currency: Text,
    /// How far below zero the money may be taken by grants; never negative.
    pub credit_limit: Amount,
    pub balances: Vec<Balance>,
    pub counters: Vec<Counter>,
}

/// One bucket of value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    pub id: BalanceId,
    pub unit: BalanceUnit,
    /// What is there, reservations included. Negative when more was used than there was.
    pub amount: Amount,
    /// Held for grants: the sum over the open sessions of the account.
    pub reserved: Amount,
    /// Smaller is used first.
    pub priority: u16,
    /// From this instant on, what is not reserved is worth nothing.
    pub expires_at: Option<Timestamp>,
}

/// Units of a tiered tariff used in one calendar month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub plan: TariffPlanId,
    pub rating_group: RatingGroup,
    pub month: u32,
    pub used: u64,
}

/// Value held from one balance for one grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub balance: BalanceId,
    pub unit: BalanceUnit,
    pub amount: Amount,
}

/// Months counted for one tariff at a time: usage is reported late, but not a year.
const MONTHS_KEPT: usize = 12;

/// The balance that every account starts with, and the custom name for money.
pub const MAIN_BALANCE: &str = "main";

/// Used before balances of this priority by default.
pub const DEFAULT_PRIORITY: u16 = 100;

impl Account {
    /// A new account: one empty money balance.
    pub fn new(id: AccountId, currency: impl Into<Text>, credit_limit: Amount) -> Self {
        let main = Balance {
            id: BalanceId::new(MAIN_BALANCE),
            unit: BalanceUnit::Money,
            amount: Amount::ZERO,
            reserved: Amount::ZERO,
            priority: DEFAULT_PRIORITY,
            expires_at: None,
        };
        Self { id, currency: currency.into(), credit_limit, balances: vec![main], counters: Vec::new() }
    }

    /// Stands in where nobody pays; never stored.
    pub fn nobody() -> Self {
        Self {
            id: AccountId::new(""),
            currency: "".into(),
            credit_limit: Amount::ZERO,
            balances: Vec::new(),
            counters: Vec::new(),
        }
    }

    /// Money that a new grant may reserve: amounts plus credit limit minus reservations; negative after over-use.
    pub fn money_available(&self) -> Amount {
        let free = self.balances.iter().filter(|balance| balance.unit == BalanceUnit::Money).fold(
            i128::from(self.credit_limit.steps()),
            |sum, balance| {
                sum.saturating_add(i128::from(balance.amount.steps()))
                    .saturating_sub(i128::from(balance.reserved.steps()))
            },
        );
        // More than fits is as good as all that fits.
        Amount::of(free).unwrap_or(Amount::new(if free < 0 { i64::MIN } else { i64::MAX }))
    }

    /// What a new grant may reserve of one balance: the credit limit belongs to the money that is used last.
    pub fn available(&self, balance: &Balance, now: Timestamp) -> Amount {
        let is_last = self.overdraft().and_then(|at| self.balances.get(at)).is_some_and(|last| last.id == balance.id);
        let limit = if is_last { self.credit_limit } else { Amount::ZERO };
        let free = if balance.is_expired(now) {
            Amount::ZERO
        } else {
            balance.amount.minus(balance.reserved).unwrap_or(Amount::ZERO)
        };
        free.plus(limit).unwrap_or(free)
    }

    /// Takes what has expired out of the balances. Reserved value stays until its grant is settled.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Move> {
        let mut moves = Vec::new();
        for balance in &mut self.balances {
            let lost = balance.free();
            if balance.is_expired(now) && lost.is_positive() {
                let before = balance.amount;
                balance.amount = balance.reserved.max(Amount::ZERO);
                moves.push(Move::of(MoveKind::Expire, balance, lost, before));
            }
        }
        moves
    }

    /// Indexes of the balances that pay one for one for a tariff, in the order of their use: priority, then what
    /// expires first, then the order in which the tariff names them.
    pub fn allowances(&self, named: &[BalanceId], kind: UnitKind) -> Few<usize> {
        let mut found: Few<_> = (self.balances.iter().enumerate())
            .filter(|(_, balance)| balance.unit.pays_for(kind))
            .filter_map(|(at, balance)| {
                let rank = named.iter().position(|id| *id == balance.id)?;
                Some(((balance.priority, balance.expires_at.is_none(), balance.expires_at, rank), at))
            })
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, at)| at).collect()
    }

    /// Indexes of the money balances in the order of their use.
    fn purse(&self) -> Few<usize> {
        let mut found: Few<_> = (self.balances.iter().enumerate())
            .filter(|(_, balance)| balance.unit == BalanceUnit::Money)
            .map(|(at, balance)| ((balance.priority, balance.expires_at.is_none(), balance.expires_at), at))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, at)| at).collect()
    }

    /// Which money goes below zero when none is left: `main`, without it whatever is used last.
    fn overdraft(&self) -> Option<usize> {
        let main = |balance: &Balance| balance.id.as_str() == MAIN_BALANCE && balance.unit == BalanceUnit::Money;
        self.balances.iter().position(main).or_else(|| self.purse().last().copied())
    }

    pub fn balance_mut(&mut self, id: &BalanceId) -> Option<&mut Balance> {
        self.balances.iter_mut().find(|balance| balance.id == *id)
    }

    pub fn balance(&self, id: &BalanceId) -> Option<&Balance> {
        self.balances.iter().find(|balance| balance.id == *id)
    }

    /// Holds `amount` of one balance.
    pub fn reserve(&mut self, at: usize, amount: Amount, into: &mut Vec<Reservation>) -> Option<Move> {
        let balance = self.balances.get_mut(at)?;
        balance.reserved = balance.reserved.plus(amount)?;
        match into.iter_mut().find(|held| held.balance == balance.id) {
            Some(held) => held.amount = held.amount.plus(amount)?,
            None => into.push(Reservation { balance: balance.id.clone(), unit: balance.unit, amount }),
        }
        Some(Move::of(MoveKind::Reserve, balance, amount, balance.amount))
    }

    /// Holds `cost` of the money, which must be available: from the balances in order, the rest on credit.
    pub fn reserve_money(&mut self, cost: Amount, into: &mut Vec<Reservation>) -> Vec<Move> {
        let mut left = cost;
        let mut moves = Vec::new();
        for at in self.purse() {
            let held = self.balances.get(at).map_or(Amount::ZERO, Balance::free).min(left);
            if held.is_positive() {
                left = left.minus(held).unwrap_or(Amount::ZERO);
                moves.extend(self.reserve(at, held, into));
            }
        }
        if left.is_positive()
            && let Some(at) = self.overdraft()
        {
            moves.extend(self.reserve(at, left, into));
        }
        moves
    }

    /// Gives back what is held. `kind` says why: released by the consumer's report, or expired by time.
    pub fn release(&mut self, held: Vec<Reservation>, kind: MoveKind) -> Vec<Move> {
        let mut moves = Vec::new();
        for part in held {
            if let Some(balance) = self.balance_mut(&part.balance)
                && part.amount.is_positive()
            {
                balance.reserved = balance.reserved.minus(part.amount).unwrap_or(Amount::ZERO);
                moves.push(Move::of(kind, balance, part.amount, balance.amount));
            }
        }
        moves
    }

    /// How many units [`Account::pay_in_kind`] takes out of an allowance, of `units` at most.
    pub fn covers_in_kind(&self, at: usize, units: u64, now: Timestamp, held: &[Reservation]) -> u64 {
        let Some(balance) = self.balances.get(at) else { return 0 };
        let mine = held.iter().find(|part| part.balance == balance.id).map_or(Amount::ZERO, |part| part.amount);
        let free = if balance.is_expired(now) { Amount::ZERO } else { balance.free() };
        let worth = mine.as_units().saturating_add(free.as_units()).min(units);
        // More than can be counted is never in a balance.
        if Amount::of(worth).is_some() { worth } else { 0 }
    }

    /// Takes units that the allowance covers, first out of what is held of it.
    pub fn pay_in_kind(&mut self, at: usize, units: u64, held: &mut [Reservation]) -> Option<Move> {
        let balance = self.balances.get_mut(at)?;
        let taken = Amount::of(units).filter(|taken| taken.is_positive())?;
        let before = balance.amount;
        balance.take(taken, held.iter_mut().find(|part| part.balance == balance.id));
        Some(Move::of(MoveKind::Debit, balance, taken, before))
    }

    /// Whether the account can be asked to pay so much: not whether it has it, but whether what it then owes can be
    /// counted.
    pub fn can_pay(&self, charge: Amount) -> bool {
        let lowest = self.overdraft().and_then(|at| self.balances.get(at));
        lowest.is_some_and(|lowest| lowest.amount.minus(charge).is_some())
    }

    /// Takes `charge` of the money, first out of what is held, then in order, the rest below zero. The caller has asked
    /// [`Account::can_pay`], of this or of a larger sum.
    pub fn pay(&mut self, charge: Amount, held: &mut [Reservation]) -> Vec<Move> {
        let mut left = charge;
        let mut moves: Vec<Move> = Vec::new();
        for part in held.iter_mut() {
            let taken = part.amount.min(left);
            if let Some(balance) = self.balances.iter_mut().find(|balance| balance.id == part.balance)
                && balance.unit == BalanceUnit::Money
                && taken.is_positive()
            {
                let before = balance.amount;
                balance.take(taken, Some(part));
                left = left.minus(taken).unwrap_or(Amount::ZERO);
                moves.push(Move::of(MoveKind::Debit, balance, taken, before));
            }
        }
        for at in self.purse() {
            let Some(balance) = self.balances.get_mut(at) else { continue };
            let taken = balance.free().min(left);
            if taken.is_positive() {
                let before = balance.amount;
                balance.take(taken, None);
                left = left.minus(taken).unwrap_or(Amount::ZERO);
                moves.push(Move::of(MoveKind::Debit, balance, taken, before));
            }
        }
        if left.is_positive()
            && let Some(balance) = self.overdraft().and_then(|at| self.balances.get_mut(at))
        {
            let before = balance.amount;
            balance.take(left, None);
            moves.push(Move::of(MoveKind::Debit, balance, left, before));
        }
        Move::merged(moves)
    }

    /// Counts usage of a tiered tariff in a month; the month that was counted first is forgotten when there are many.
    pub fn count(&mut self, plan: &TariffPlanId, rating_group: RatingGroup, month: u32, units: u64) {
        let is_of_tariff = |counter: &Counter| counter.plan == *plan && counter.rating_group == rating_group;
        let known = self.counters.iter_mut().find(|counter| is_of_tariff(counter) && counter.month == month);
        if let Some(counter) = known {
            counter.used = counter.used.saturating_add(units);
            return;
        }
        if self.counters.iter().filter(|counter| is_of_tariff(counter)).count() >= MONTHS_KEPT
            && let Some(first) = self.counters.iter().position(is_of_tariff)
        {
            self.counters.remove(first);
        }
        self.counters.push(Counter { plan: plan.clone(), rating_group, month, used: units });
    }

    /// Units of a tiered tariff already used in a month.
    pub fn counted(&self, plan: &TariffPlanId, rating_group: RatingGroup, month: u32) -> u64 {
        let is_it = |counter: &&Counter| {
            counter.plan == *plan && counter.rating_group == rating_group && counter.month == month
        };
        self.counters.iter().find(is_it).map_or(0, |counter| counter.used)
    }
}

impl Balance {
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// What is there and not reserved; zero when that is negative.
    pub fn free(&self) -> Amount {
        self.amount.minus(self.reserved).unwrap_or(Amount::ZERO).max(Amount::ZERO)
    }

    fn take(&mut self, amount: Amount, held: Option<&mut Reservation>) {
        // The caller has checked that the subtraction fits.
        self.amount = self.amount.minus(amount).unwrap_or(self.amount);
        if let Some(part) = held {
            let settled = part.amount.min(amount);
            part.amount = part.amount.minus(settled).unwrap_or(Amount::ZERO);
            self.reserved = self.reserved.minus(settled).unwrap_or(Amount::ZERO);
        }
    }
}
