//! `/charging-sessions`: the documents behind the references, readable.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Asked;
use super::page::{Page, PageQuery};
use super::walk::{self, Which};
use super::{Answer, not_found};
use crate::app::App;
use crate::charging::decision::ResultCode;
use crate::charging::ids::{ChargingDataRef, SubscriberId};
use crate::charging::journal::AbortReason;
use crate::charging::maintain::Maintenance;
use crate::charging::money::{Amount, BalanceUnit};
use crate::charging::session::{ChargingSession, Quota, Service, SessionState};
use crate::http::nchf::render::date_time;
use crate::http::path::Path;
use crate::http::problem::ProblemDetails;

/// A charging session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionBody {
    /// The `ChargingDataRef`.
    #[serde(rename = "ref")]
    pub reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "imsi-001010000000001")]
    pub supi: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "demo-0001")]
    pub account_id: Option<String>,
    pub state: StateName,
    /// Which service opened it.
    pub service: ServiceName,
    #[schema(format = DateTime)]
    pub opened_at: String,
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// When the store drops the document, unless a message comes before.
    #[schema(format = DateTime)]
    pub expires_at: String,
    pub consumer: ConsumerBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_uri: Option<String>,
    /// Negotiated features, as in `supportedFeatures`.
    #[schema(example = "4081")]
    pub features: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tariff_plan_id: Option<String>,
    pub rating_groups: Vec<QuotaBody>,
    /// Money charged so far.
    #[schema(example = "0.080000")]
    pub charged: String,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateName {
    Active,
    /// Idle for long, and asked to report.
    Probing,
    /// Told to end.
    Aborting,
    Closed,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ServiceName {
    ConvergedCharging,
    OfflineOnlyCharging,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerBody {
    #[schema(example = "SMF")]
    pub node_functionality: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaBody {
    #[schema(example = 10)]
    pub rating_group: u32,
    #[serde(rename = "uPFID", skip_serializing_if = "Option::is_none")]
    pub upf_id: Option<String>,
    /// Units of the grant in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<u64>,
    /// Units reported in this session.
    pub used: u64,
    /// Money held for the grant.
    #[schema(example = "0.100000")]
    pub reserved: String,
    /// All that is held for the grant, balance by balance.
    pub reservations: Vec<ReservationBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub valid_until: Option<String>,
    /// The last grant was announced as the last one there is.
    pub final_unit: bool,
    /// What the last request for quota was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "SUCCESS")]
    pub result_code: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationBody {
    pub balance_id: String,
    pub amount: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct SessionFilter {
    /// SUPI, GPSI or another identifier of the subscriber.
    pub supi: Option<String>,
    pub account_id: Option<String>,
}

impl SessionBody {
    fn new(app: &App, session: &ChargingSession) -> Self {
        let payer = session.payer.as_ref();
        let rules = &app.shared.rules;
        Self {
            reference: session.reference.to_string(),
            supi: payer.map(|payer| payer.subscriber.as_str().to_owned()),
            account_id: payer.map(|payer| payer.account.as_str().to_owned()),
            state: match session.state {
                SessionState::Active => StateName::Active,
                SessionState::Probing { .. } => StateName::Probing,
                SessionState::Aborting { .. } => StateName::Aborting,
                SessionState::Closed { .. } => StateName::Closed,
            },
            service: match session.service {
                Service::Converged => ServiceName::ConvergedCharging,
                Service::OfflineOnly => ServiceName::OfflineOnlyCharging,
            },
            opened_at: date_time(session.opened_at),
            updated_at: date_time(session.updated_at),
            expires_at: date_time(session.expires_at(rules.tombstone, rules.open_life())),
            consumer: ConsumerBody {
                node_functionality: session.consumer.functionality.to_string(),
                name: session.consumer.name.as_deref().map(ToOwned::to_owned),
                address: session.consumer.address.as_deref().map(ToOwned::to_owned),
            },
            notify_uri: session.notify_uri.as_deref().map(ToOwned::to_owned),
            features: format!("{:X}", session.features),
            tariff_plan_id: payer.map(|payer| payer.plan.to_string()),
            rating_groups: session.quotas.iter().map(Into::into).collect(),
            charged: session.charged.text(BalanceUnit::Money),
        }
    }
}

impl From<&Quota> for QuotaBody {
    fn from(quota: &Quota) -> Self {
        let grant = quota.grant.as_ref();
        let reservations = grant.map(|grant| grant.reserved.as_slice()).unwrap_or_default();
        let money = reservations.iter().filter(|held| held.unit == BalanceUnit::Money);
        let reserved = money.fold(Amount::ZERO, |sum, held| sum.plus(held.amount).unwrap_or(sum));
        Self {
            rating_group: quota.key.rating_group.0,
            upf_id: quota.key.upf.as_deref().map(ToOwned::to_owned),
            granted: grant.map(|grant| grant.granted),
            used: quota.used,
            reserved: reserved.text(BalanceUnit::Money),
            reservations: (reservations.iter())
                .map(|held| ReservationBody {
                    balance_id: held.balance.to_string(),
                    amount: held.amount.text(held.unit),
                })
                .collect(),
            valid_until: grant.and_then(|grant| grant.valid_until).map(date_time),
            final_unit: quota.final_unit,
            result_code: quota.last_code.map(ResultCode::as_str),
        }
    }
}

/// Open sessions.
#[utoipa::path(
    get, path = "/charging-sessions", tag = "Charging sessions",
    params(SessionFilter, PageQuery),
    responses(
        (status = 200, description = "One page", body = Page<SessionBody>),
        (status = 400, description = "A query parameter is wrong", body = ProblemDetails),
    ),
)]
pub async fn list_charging_sessions(
    State(app): State<App>,
    Asked(filter): Asked<SessionFilter>,
    Asked(query): Asked<PageQuery>,
) -> Answer<Json<Page<SessionBody>>> {
    let found = walk::whose(&app, filter.supi.as_deref(), filter.account_id.as_deref()).await?;
    let Some((whose, subscriber)) = found else { return Ok(Json(Page { items: Vec::new(), next_cursor: None })) };
    let (app, subscriber) = (&app, subscriber.as_ref().map(|subscriber| &subscriber.id));
    let page = walk::page(app, whose, Which::Open, &query, |references| open_sessions(app, references, subscriber));
    Ok(Json(page.await?))
}

async fn open_sessions(
    app: &App,
    references: Vec<ChargingDataRef>,
    subscriber: Option<&SubscriberId>,
) -> Answer<Vec<SessionBody>> {
    let mut bodies = Vec::new();
    for reference in &references {
        let Some(session) = app.session(reference).await? else { continue };
        let is_asked_for =
            |wanted: &SubscriberId| session.payer.as_ref().is_some_and(|payer| payer.subscriber == *wanted);
        if !session.is_closed() && subscriber.is_none_or(is_asked_for) {
            bodies.push(SessionBody::new(app, &session));
        }
    }
    Ok(bodies)
}

/// One session, open or lately closed.
#[utoipa::path(
    get, path = "/charging-sessions/{ref}", tag = "Charging sessions",
    params(("ref" = String, Path, description = "The ChargingDataRef")),
    responses(
        (status = 200, description = "The session", body = SessionBody),
        (status = 404, description = "No such session", body = ProblemDetails),
    ),
)]
pub async fn get_charging_session(State(app): State<App>, Path(reference): Path<String>) -> Answer<Json<SessionBody>> {
    let found = app.session(&ChargingDataRef::new(reference)).await?;
    let session = found.ok_or_else(|| not_found("no such charging session"))?;
    Ok(Json(SessionBody::new(&app, &session)))
}

/// Asks the consumer to report and to ask for quota again, for all rating groups of the session.
#[utoipa::path(
    post, path = "/charging-sessions/{ref}/reauthorize", tag = "Charging sessions",
    params(("ref" = String, Path, description = "The ChargingDataRef")),
    responses(
        (status = 202, description = "The consumer is being told", body = SessionBody),
        (status = 404, description = "No such session", body = ProblemDetails),
        (status = 409, description = "The session has ended or is ending, or its consumer cannot be told", body = ProblemDetails),
    ),
)]
pub async fn reauthorize_charging_session(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Answer<(StatusCode, Json<SessionBody>)> {
    maintained(&app, reference, Maintenance::Reauthorize { groups: None }).await
}

/// Tells the consumer to end the session. From now on usage is charged and nothing is granted; without a Release in
/// time the session is closed all the same.
#[utoipa::path(
    post, path = "/charging-sessions/{ref}/abort", tag = "Charging sessions",
    params(("ref" = String, Path, description = "The ChargingDataRef")),
    responses(
        (status = 202, description = "The consumer is being told, or, where it cannot be, the session is closed", body = SessionBody),
        (status = 404, description = "No such session", body = ProblemDetails),
        (status = 409, description = "The session has ended or is ending", body = ProblemDetails),
    ),
)]
pub async fn abort_charging_session(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Answer<(StatusCode, Json<SessionBody>)> {
    maintained(&app, reference, Maintenance::Abort { reason: AbortReason::Operator }).await
}

async fn maintained(app: &App, reference: String, cause: Maintenance) -> Answer<(StatusCode, Json<SessionBody>)> {
    let reference = ChargingDataRef::new(reference);
    let is_done = app.maintain(&reference, &cause).await?;
    let session = app.session(&reference).await?.ok_or_else(|| not_found("no such charging session"))?;
    if !is_done {
        let why = match (&session.state, &session.notify_uri) {
            (SessionState::Closed { .. }, _) => "the session has ended",
            (SessionState::Aborting { .. }, _) => "the consumer has been told to end the session",
            (_, None) => "the consumer named no notifyUri",
            (_, Some(_)) => "the session has no rating group",
        };
        return Err(ProblemDetails::new(StatusCode::CONFLICT, "MODIFICATION_NOT_ALLOWED").with_detail(why));
    }
    Ok((StatusCode::ACCEPTED, Json(SessionBody::new(app, &session))))
}
