//! `/accounts/{accountId}`: balances, credits, the ledger.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::{Validate, ValidationError};

use super::body::{Asked, Body};
use super::page::{Page, PageQuery, invalid_cursor};
use super::{Answer, not_found};
use crate::app::App;
use crate::charging::account::{Account, Balance};
use crate::charging::command::Credit;
use crate::charging::ids::{AccountId, BalanceId};
use crate::charging::money::{Amount, BalanceUnit};
use crate::charging::time::Timestamp;
use crate::http::nchf::parse;
use crate::http::nchf::render::date_time;
use crate::http::path::Path;
use crate::http::problem::ProblemDetails;
use crate::ledger::{LedgerEntry, Position};

/// An account's settings.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountSettings {
    /// ISO 4217; never changes.
    #[validate(custom(function = "is_currency"))]
    #[schema(example = "EUR")]
    pub currency: String,
    /// How far below zero the money may be taken by grants.
    #[serde(default = "zero")]
    #[validate(custom(function = "is_limit"))]
    #[schema(example = "0.000000")]
    pub credit_limit: String,
}

fn zero() -> String {
    Amount::ZERO.text(BalanceUnit::Money)
}

fn is_currency(text: &str) -> Result<(), ValidationError> {
    let is_one = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_one { Ok(()) } else { Err(ValidationError::new("currency").with_message("three capital letters".into())) }
}

fn is_limit(text: &str) -> Result<(), ValidationError> {
    let is_one = Amount::parse(BalanceUnit::Money, text).is_some_and(|amount| amount >= Amount::ZERO);
    let message = "a decimal number of at most six places, not negative";
    if is_one { Ok(()) } else { Err(ValidationError::new("credit_limit").with_message(message.into())) }
}

/// An account as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountBody {
    #[schema(example = "demo-0001")]
    pub id: String,
    #[schema(example = "EUR")]
    pub currency: String,
    #[schema(example = "0.000000")]
    pub credit_limit: String,
    pub balances: Vec<BalanceBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BalanceBody {
    #[schema(example = "main")]
    pub id: String,
    pub unit: Unit,
    /// What is there, reservations included.
    #[schema(example = "10.000000")]
    pub amount: String,
    #[schema(example = "0.100000")]
    pub reserved: String,
    /// What a new grant may reserve: amount and, for the money that is used last, credit limit, less what is reserved.
    #[schema(example = "9.900000")]
    pub available: String,
    /// Smaller is used first.
    #[schema(example = 100)]
    pub priority: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Money,
    Octets,
    Seconds,
    Events,
}

impl From<BalanceUnit> for Unit {
    fn from(unit: BalanceUnit) -> Self {
        match unit {
            BalanceUnit::Money => Self::Money,
            BalanceUnit::Octets => Self::Octets,
            BalanceUnit::Seconds => Self::Seconds,
            BalanceUnit::Events => Self::Events,
        }
    }
}

impl From<Unit> for BalanceUnit {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Money => Self::Money,
            Unit::Octets => Self::Octets,
            Unit::Seconds => Self::Seconds,
            Unit::Events => Self::Events,
        }
    }
}

/// Value to add to a balance.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreditBody {
    /// Made when there is none.
    #[validate(length(min = 1, max = 64, message = "1 to 64 bytes"))]
    #[schema(example = "main")]
    pub balance_id: String,
    /// Money, unless the balance exists and holds something else.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// More than zero.
    #[schema(example = "5.000000")]
    pub amount: String,
    /// From then on, what is not reserved is worth nothing.
    #[serde(default)]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Smaller is used first; 100 by default.
    #[serde(default)]
    pub priority: Option<u16>,
    /// The same reference credits once, however often it is sent.
    #[validate(length(min = 1, max = 128, message = "1 to 128 bytes"))]
    #[schema(example = "topup-1")]
    pub reference: String,
}

impl AccountBody {
    fn new(account: &Account, now: Timestamp) -> Self {
        Self {
            id: account.id.as_str().to_owned(),
            currency: account.currency.to_string(),
            credit_limit: account.credit_limit.text(BalanceUnit::Money),
            balances: (account.balances.iter())
                .map(|balance| BalanceBody::new(balance, account.available(balance, now)))
                .collect(),
        }
    }
}

impl BalanceBody {
    fn new(balance: &Balance, available: Amount) -> Self {
        Self {
            id: balance.id.to_string(),
            unit: balance.unit.into(),
            amount: balance.amount.text(balance.unit),
            reserved: balance.reserved.text(balance.unit),
            available: available.text(balance.unit),
            priority: balance.priority,
            expires_at: balance.expires_at.map(date_time),
        }
    }
}

/// One change of one balance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerBody {
    #[schema(format = DateTime)]
    pub time: String,
    #[schema(example = "debit", pattern = "^(credit|reserve|debit|release|expire|adjust)$")]
    pub kind: &'static str,
    pub balance_id: String,
    pub unit: Unit,
    /// Never negative: the kind says the direction.
    #[schema(example = "0.080000")]
    pub amount: String,
    /// Of the balance; a reservation does not change it.
    #[schema(example = "10.000000")]
    pub before: String,
    #[schema(example = "9.920000")]
    pub after: String,
    /// The charging session.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference_of_session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_sequence_number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating_group: Option<u32>,
    /// Octets, seconds or events that the amount pays for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<u64>,
    /// Plan and version that set the price.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "demo@1")]
    pub tariff: Option<String>,
    /// The credit's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

impl From<LedgerEntry> for LedgerBody {
    fn from(entry: LedgerEntry) -> Self {
        let change = &entry.change;
        let version = change.plan_version.zip(entry.plan);
        let (reference_of_session, number) = entry.session.unzip();
        Self {
            time: date_time(entry.at),
            kind: change.kind.as_str(),
            balance_id: change.balance.to_string(),
            unit: change.unit.into(),
            amount: change.amount.text(change.unit),
            before: change.before.text(change.unit),
            after: change.after.text(change.unit),
            reference_of_session: reference_of_session.map(|reference| reference.to_string()),
            invocation_sequence_number: number.flatten(),
            rating_group: change.rating_group.map(|group| group.0),
            units: change.units,
            tariff: version.map(|(version, plan)| format!("{plan}@{version}")),
            reference: entry.reference.map(|text| text.to_string()),
        }
    }
}

/// Opens an account, or changes its credit limit.
#[utoipa::path(
    put, path = "/accounts/{accountId}", tag = "Accounts",
    params(("accountId" = String, Path, example = "demo-0001")),
    request_body = AccountSettings,
    responses(
        (status = 200, description = "Changed", body = AccountBody),
        (status = 201, description = "Opened, with an empty balance `main`", body = AccountBody),
        (status = 400, description = "The body is wrong; nothing has changed", body = ProblemDetails),
        (status = 409, description = "The account is kept in another currency", body = ProblemDetails),
    ),
)]
pub async fn put_account(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(settings): Body<AccountSettings>,
) -> Answer<(StatusCode, Json<AccountBody>)> {
    if !(1..=128).contains(&id.len()) || id.chars().any(char::is_control) {
        let reason = "expected 1 to 128 bytes without control characters";
        return Err(ProblemDetails::incorrect(Vec::new()).with_param("accountId", reason));
    }
    let limit = Amount::parse(BalanceUnit::Money, &settings.credit_limit).unwrap_or(Amount::ZERO);
    let (account, is_new) = app.set_account(&AccountId::new(id), &settings.currency, limit).await??;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(AccountBody::new(&account, app.shared.clock.now()))))
}

/// Balances, what is reserved of them, what is available.
#[utoipa::path(
    get, path = "/accounts/{accountId}", tag = "Accounts",
    params(("accountId" = String, Path, example = "demo-0001")),
    responses(
        (status = 200, description = "The account", body = AccountBody),
        (status = 404, description = "No such account", body = ProblemDetails),
    ),
)]
pub async fn get_account(State(app): State<App>, Path(id): Path<String>) -> Answer<Json<AccountBody>> {
    let (account, _) = app.account(app.shared.refs.account_key(&AccountId::new(id))).await?;
    let account = account.ok_or_else(|| not_found("no such account"))?;
    Ok(Json(AccountBody::new(&account, app.shared.clock.now())))
}

/// Adds value to a balance, once for each reference.
#[utoipa::path(
    post, path = "/accounts/{accountId}/credits", tag = "Accounts",
    params(("accountId" = String, Path, example = "demo-0001")),
    request_body(
        content = CreditBody,
        examples(
            ("amount" = (summary = "5 EUR", value = json!({
                "balanceId": "main", "amount": "5.000000", "reference": "topup-1",
            }))),
            ("bundle" = (summary = "A bundle of 1 GiB, for rating group 90 of the demo", value = json!({
                "balanceId": "data-bundle", "unit": "octets", "amount": "1073741824", "reference": "bundle-1",
            }))),
        ),
    ),
    responses(
        (status = 200, description = "The reference has credited before; nothing is added", body = AccountBody),
        (status = 201, description = "Credited", body = AccountBody),
        (status = 400, description = "The body is wrong; nothing has changed", body = ProblemDetails),
        (status = 404, description = "No such account", body = ProblemDetails),
        (status = 409, description = "The balance holds another unit, or would hold too much", body = ProblemDetails),
    ),
)]
pub async fn credit_balance(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<CreditBody>,
) -> Answer<(StatusCode, Json<AccountBody>)> {
    let id = AccountId::new(id);
    let (account, _) = app.account(app.shared.refs.account_key(&id)).await?;
    let account = account.ok_or_else(|| not_found("no such account"))?;
    let held = account.balance(&BalanceId::new(body.balance_id.as_str())).map(|balance| balance.unit);
    let credit = credit_of(body, held.unwrap_or(BalanceUnit::Money))?;
    let credited = app.credit(&id, &credit).await?.ok_or_else(|| not_found("no such account"))?;
    let (account, is_new) = credited?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(AccountBody::new(&account, app.shared.clock.now()))))
}

fn credit_of(body: CreditBody, unit_by_default: BalanceUnit) -> Answer<Credit> {
    let incorrect = |param, reason| ProblemDetails::incorrect(Vec::new()).with_param(param, reason);
    let unit = body.unit.map(BalanceUnit::from);
    let amount = Amount::parse(unit.unwrap_or(unit_by_default), &body.amount).filter(|amount| amount.is_positive());
    let amount = amount.ok_or_else(|| {
        incorrect(
            "/amount",
            "a decimal number above zero is needed: at most six places for money, none for anything else",
        )
    })?;
    let expires_at = body.expires_at.as_deref().map(|text| {
        parse::date_time(text).ok_or_else(|| incorrect("/expiresAt", "expected a date and time of RFC 3339"))
    });
    Ok(Credit {
        balance: BalanceId::new(body.balance_id),
        unit,
        amount,
        expires_at: expires_at.transpose()?,
        priority: body.priority,
        reference: body.reference.into(),
    })
}

/// The ledger, newest first: every change of a balance and of what is reserved of it, with its cause.
#[utoipa::path(
    get, path = "/accounts/{accountId}/entries", tag = "Accounts",
    params(("accountId" = String, Path, example = "demo-0001"), PageQuery),
    responses(
        (status = 200, description = "One page", body = Page<LedgerBody>),
        (status = 400, description = "A query parameter is wrong", body = ProblemDetails),
        (status = 404, description = "No such account", body = ProblemDetails),
    ),
)]
pub async fn list_entries(
    State(app): State<App>,
    Path(id): Path<String>,
    Asked(query): Asked<PageQuery>,
) -> Answer<Json<Page<LedgerBody>>> {
    let key = app.shared.refs.account_key(&AccountId::new(id));
    let limit = query.limit()?;
    let before = match query.parts()? {
        Some([version, index]) => {
            let account_version = version.parse().map_err(|_| invalid_cursor())?;
            Some(Position { account_version, index: index.parse().map_err(|_| invalid_cursor())? })
        }
        None => None,
    };
    if app.account(key).await?.0.is_none() {
        return Err(not_found("no such account"));
    }
    let (entries, more) = app.ledger(key, before, limit).await?;
    let last = entries.last().map(|entry| entry.position).filter(|_| more);
    Ok(Json(Page {
        items: entries.into_iter().map(Into::into).collect(),
        next_cursor: last.map(|position| format!("{}.{}", position.account_version, position.index)),
    }))
}
