//! What operators do to accounts: open them, set their limits, credit them. As pure as the decision over a request.

use super::account::{Account, Balance, DEFAULT_PRIORITY};
use super::command::Credit;
use super::ids::AccountId;
use super::journal::{Entry, Event, Move, MoveKind};
use super::money::{Amount, BalanceUnit};
use super::time::Timestamp;

/// Why an account stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The balance holds another unit than the credit.
    UnitDiffers(BalanceUnit),
    /// The balance would hold more than can be counted.
    TooMuch,
    /// What has expired already would take along what the balance holds.
    Expired,
    /// An account has as many balances as it may.
    TooManyBalances,
    /// Money of one currency does not become money of another.
    CurrencyDiffers,
}

/// Balances that one account may have: its document is read and written by nearly every request.
pub const BALANCES_MAX: usize = 32;

/// The account with this currency and limit, made when there is none.
///
/// # Errors
///
/// `CurrencyDiffers` when there is an account in another currency.
pub fn set_account(
    account: Option<Account>,
    id: AccountId,
    currency: &str,
    credit_limit: Amount,
) -> Result<Account, Refusal> {
    match account {
        None => Ok(Account::new(id, currency, credit_limit)),
        Some(account) if *account.currency != *currency => Err(Refusal::CurrencyDiffers),
        Some(account) => Ok(Account { credit_limit, ..account }),
    }
}

/// Adds value to a balance, made when there is none. Answers the account and the entry for its journal.
///
/// # Errors
///
/// A `Refusal`; nothing is to be written then.
pub fn credit(
    now: Timestamp,
    version_after: u64,
    mut account: Account,
    credit: &Credit,
) -> Result<(Account, Entry), Refusal> {
    let mut moves = account.expire(now);
    moves.push(add(now, &mut account, credit)?);
    let event = Event::Credited { reference: credit.reference.clone() };
    Ok((account, Entry { at: now, account_version: version_after, event, moves, closings: Vec::new() }))
}

/// A new account with what it has from the start.
///
/// # Errors
///
/// As [`credit`].
pub fn open_account(
    now: Timestamp,
    id: AccountId,
    currency: &str,
    credit_limit: Amount,
    credits: &[Credit],
) -> Result<(Account, Option<Entry>), Refusal> {
    let mut account = Account::new(id, currency, credit_limit);
    let moves = credits.iter().map(|credit| add(now, &mut account, credit)).collect::<Result<_, _>>()?;
    let entry = credits.first().map(|first| Entry {
        at: now,
        account_version: 1,
        event: Event::Credited { reference: first.reference.clone() },
        moves,
        closings: Vec::new(),
    });
    Ok((account, entry))
}

fn add(now: Timestamp, account: &mut Account, credit: &Credit) -> Result<Move, Refusal> {
    if credit.expires_at.is_some_and(|at| at <= now) {
        return Err(Refusal::Expired);
    }
    let at = match account.balances.iter().position(|balance| balance.id == credit.balance) {
        Some(at) => at,
        None if account.balances.len() >= BALANCES_MAX => return Err(Refusal::TooManyBalances),
        None => {
            account.balances.push(Balance {
                id: credit.balance.clone(),
                unit: credit.unit.unwrap_or(BalanceUnit::Money),
                amount: Amount::ZERO,
                reserved: Amount::ZERO,
                priority: DEFAULT_PRIORITY,
                expires_at: None,
            });
            account.balances.len().saturating_sub(1)
        }
    };
    let Some(balance) = account.balances.get_mut(at) else { return Err(Refusal::TooManyBalances) };
    if credit.unit.is_some_and(|unit| unit != balance.unit) {
        return Err(Refusal::UnitDiffers(balance.unit));
    }
    let before = balance.amount;
    balance.amount = before.plus(credit.amount).ok_or(Refusal::TooMuch)?;
    balance.priority = credit.priority.unwrap_or(balance.priority);
    // A credit without an end does not share the end of what has expired before it.
    balance.expires_at = credit.expires_at.or(balance.expires_at.filter(|at| *at > now));
    Ok(Move::of(MoveKind::Credit, balance, credit.amount, before))
}
