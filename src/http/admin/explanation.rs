//! `/charging-sessions/{ref}/explanation`: a whole session's money, and why each rating group got what it got.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::accounts::Unit;
use super::{Answer, not_found};
use crate::app::App;
use crate::charging::decision::{GroupResult, ResultCode};
use crate::charging::explain::{
    BalanceExplanation, Explanation, GroupExplanation, LastAnswer, QuotaExplanation, explain,
};
use crate::charging::ids::ChargingDataRef;
use crate::charging::journal::{Header, Told};
use crate::charging::money::BalanceUnit;
use crate::charging::session::ClosingCause;
use crate::charging::time::Timestamp;
use crate::charging::units::Units;
use crate::http::nchf::render::date_time;
use crate::http::path::Path;
use crate::http::problem::ProblemDetails;

/// What a session cost, and why.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplanationBody {
    /// The `ChargingDataRef`.
    #[serde(rename = "ref")]
    pub reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "imsi-001010000000001")]
    pub supi: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "demo-0001")]
    pub account_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "demo")]
    pub tariff_plan_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "EUR")]
    pub currency: Option<String>,
    #[schema(format = DateTime)]
    pub opened_at: String,
    /// How it ended; none while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<ClosedBody>,
    /// Money charged, all rating groups together.
    #[schema(example = "0.080000")]
    pub charged: String,
    /// What the consumer was told between its messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<ToldBody>,
    /// In the order in which the session first named them.
    pub rating_groups: Vec<GroupBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClosedBody {
    #[schema(format = DateTime)]
    pub time: String,
    #[schema(example = "the consumer released it")]
    pub why: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToldBody {
    #[schema(format = DateTime)]
    pub time: String,
    #[schema(pattern = "^(REAUTHORIZATION|ABORT_CHARGING)$")]
    pub notification_type: &'static str,
    pub why: String,
    /// None named is the whole session.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rating_groups: Vec<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupBody {
    #[schema(example = 10)]
    pub rating_group: u32,
    /// The sum of all grants. Each took the place of what was left of the one before, so it may be more than could ever be
    /// used.
    pub granted: UnitsBody,
    /// The sum of all that was reported, each container once.
    pub used: UnitsBody,
    /// What moved on each balance.
    pub balances: Vec<MovedBody>,
    /// The latest of each quota: one, or one for each UPF.
    pub quotas: Vec<QuotaAnswerBody>,
}

/// As in `grantedUnit` and `usedUnitContainer`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnitsBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_volume: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink_volume: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downlink_volume: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_specific_units: Option<u64>,
}

/// Of what was `reserved`, so much was `released` by reports and by the end, so much `expired` because no report came;
/// the rest was charged or is held still.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovedBody {
    #[schema(example = "main")]
    pub balance_id: String,
    pub unit: Unit,
    #[schema(example = "0.100000")]
    pub reserved: String,
    #[schema(example = "0.020000")]
    pub released: String,
    #[schema(example = "0.000000")]
    pub expired: String,
    #[schema(example = "0.080000")]
    pub charged: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaAnswerBody {
    #[serde(rename = "uPFID", skip_serializing_if = "Option::is_none")]
    pub upf_id: Option<String>,
    /// When a grant last expired without a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expired_at: Option<String>,
    /// None when it was only reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<LastAnswerBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastAnswerBody {
    #[schema(format = DateTime)]
    pub time: String,
    pub invocation_sequence_number: u32,
    #[schema(example = "SUCCESS")]
    pub result_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<UnitsBody>,
    #[schema(example = "granted, and after it the account can cover more")]
    pub why: &'static str,
}

impl ExplanationBody {
    fn new(reference: &ChargingDataRef, header: Option<&Header>, explanation: Explanation) -> Self {
        Self {
            reference: reference.to_string(),
            supi: header.and_then(|header| header.subscriber.as_ref()).map(|id| id.as_str().to_owned()),
            account_id: header.and_then(|header| header.account.as_ref()).map(|id| id.as_str().to_owned()),
            tariff_plan_id: explanation.plan.map(|plan| plan.to_string()),
            currency: explanation.currency.map(Into::into),
            opened_at: date_time(explanation.opened_at),
            closed: explanation.closed.map(|(at, cause)| ClosedBody { time: date_time(at), why: why_closed(cause) }),
            charged: explanation.charged.text(BalanceUnit::Money),
            told: explanation.told.into_iter().map(Into::into).collect(),
            rating_groups: explanation.groups.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<(Timestamp, Told)> for ToldBody {
    fn from((at, told): (Timestamp, Told)) -> Self {
        let (notification_type, why, rating_groups) = match told {
            Told::Probe => ("REAUTHORIZATION", "no message came for long".to_owned(), Vec::new()),
            Told::Reauthorize(groups) => {
                let why = "there may be another quota now: a credit, a changed tariff, or an operator".to_owned();
                ("REAUTHORIZATION", why, groups.iter().map(|group| group.0).collect())
            }
            Told::Abort(reason) => ("ABORT_CHARGING", reason.as_str().to_owned(), Vec::new()),
        };
        Self { time: date_time(at), notification_type, why, rating_groups }
    }
}

impl From<GroupExplanation> for GroupBody {
    fn from(group: GroupExplanation) -> Self {
        Self {
            rating_group: group.rating_group.0,
            granted: group.granted.into(),
            used: group.used.into(),
            balances: group.balances.into_iter().map(Into::into).collect(),
            quotas: group.quotas.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Units> for UnitsBody {
    fn from(units: Units) -> Self {
        let Units { total_volume, uplink_volume, downlink_volume, time, service_specific_units } = units;
        Self { total_volume, uplink_volume, downlink_volume, time, service_specific_units }
    }
}

impl From<BalanceExplanation> for MovedBody {
    fn from(moved: BalanceExplanation) -> Self {
        let text = |amount: crate::charging::money::Amount| amount.text(moved.unit);
        Self {
            balance_id: moved.balance.to_string(),
            unit: moved.unit.into(),
            reserved: text(moved.reserved),
            released: text(moved.released),
            expired: text(moved.expired),
            charged: text(moved.charged),
        }
    }
}

impl From<QuotaExplanation> for QuotaAnswerBody {
    fn from(quota: QuotaExplanation) -> Self {
        Self {
            upf_id: quota.key.upf.as_deref().map(ToOwned::to_owned),
            expired_at: quota.expired_at.map(date_time),
            last_answer: quota.last_answer.map(Into::into),
        }
    }
}

impl From<LastAnswer> for LastAnswerBody {
    fn from(answer: LastAnswer) -> Self {
        Self {
            time: date_time(answer.at),
            invocation_sequence_number: answer.number,
            result_code: answer.result.code.as_str(),
            why: why_answered(&answer.result),
            granted: answer.result.granted.map(Into::into),
        }
    }
}

const fn why_answered(result: &GroupResult) -> &'static str {
    match result.code {
        ResultCode::Success | ResultCode::QuotaManagement => match (&result.granted, &result.final_unit) {
            (Some(_), None) => "granted, and after it the account can cover more",
            (Some(_), Some(_)) => "granted as the last: after it the account cannot cover one more block",
            (None, _) => "reported, and no quota was asked for",
        },
        ResultCode::EndUserServiceDenied => "the tariff bars the rating group, or the session is told to end",
        ResultCode::QuotaManagementNotApplicable => "usage is recorded without quota",
        ResultCode::QuotaLimitReached => "the account cannot cover one block",
        ResultCode::RatingFailed => "the tariff plan has no tariff for the rating group",
        ResultCode::EndUserServiceRejected => "the tariff does not sell the service at this time of day",
    }
}

const fn why_closed(cause: ClosingCause) -> &'static str {
    match cause {
        ClosingCause::Released => "the consumer released it",
        ClosingCause::Event => "an event, which ends as it begins",
        ClosingCause::Superseded => "the consumer opened another session for the same PDU session",
        ClosingCause::Idle => "no message came for long, nor after the consumer was asked",
        ClosingCause::AbortUnanswered => "the consumer was told to end it, and no release came",
        ClosingCause::Aborted => "ended here, because the consumer cannot be told",
        ClosingCause::ConsumerGone => "the consumer no longer knew it",
    }
}

/// What a session cost, what was reserved, released and expired of each balance, and why each rating group got what it
/// got: read from the session's journal, as long as that is kept. One round trip.
#[utoipa::path(
    get, path = "/charging-sessions/{ref}/explanation", tag = "Charging sessions",
    params(("ref" = String, Path, description = "The ChargingDataRef")),
    responses(
        (status = 200, description = "The session's money", body = ExplanationBody),
        (status = 404, description = "No such session, or its journal has ended", body = ProblemDetails),
    ),
)]
pub async fn explain_charging_session(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Answer<Json<ExplanationBody>> {
    let no_such = || not_found("no such charging session, or its journal has ended");
    let account = app.shared.refs.account_of(&reference).ok_or_else(no_such)?;
    let reference = ChargingDataRef::new(reference);
    let journal = app.session_journal(account, &reference).await?;
    let explanation = explain(&journal).ok_or_else(no_such)?;
    let header = journal.first().and_then(|entry| entry.event.header());
    Ok(Json(ExplanationBody::new(&reference, header, explanation)))
}
