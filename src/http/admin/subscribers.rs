//! `/subscribers/{supi}`: who is charged, to which account and by which plan.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::body::Body;
use super::{Answer, not_found};
use crate::app::App;
use crate::charging::command::Subscriber;
use crate::charging::ids::{AccountId, SubscriberId, TariffPlanId};
use crate::charging::journal::AbortReason;
use crate::charging::tariff::FinalUnit;
use crate::charging::text::Text;
use crate::http::path::Path;
use crate::http::problem::ProblemDetails;

/// A subscriber as provisioned.
#[derive(Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubscriberBody {
    /// Answered only: the identifier in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only, example = "imsi-001010000000001")]
    pub supi: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(length(min = 1, max = 256, message = "1 to 256 bytes"))]
    #[schema(example = "msisdn-32470000001")]
    pub gpsi: Option<String>,
    /// Further identifiers under which requests may name the subscriber.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[validate(length(max = 16, message = "at most 16"), custom(function = "each_is_an_identifier"))]
    pub identifiers: Vec<String>,
    #[validate(length(min = 1, max = 128, message = "1 to 128 bytes"))]
    #[schema(example = "demo-0001")]
    pub account_id: String,
    #[validate(length(min = 1, max = 128, message = "1 to 128 bytes"))]
    #[schema(example = "demo")]
    pub tariff_plan_id: String,
    #[serde(default)]
    pub status: Status,
    /// Takes the place of what the tariffs say about the last units of an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub final_unit: Option<FinalUnitBody>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Active,
    /// Refused at the next Create.
    Blocked,
}

/// What a consumer does when the last grant is used up (TS 32.291 `FinalUnitIndication`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[validate(schema(function = "is_complete"))]
pub struct FinalUnitBody {
    pub action: FinalUnitAction,
    /// With `REDIRECT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_address_type: Option<RedirectAddressType>,
    /// With `REDIRECT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(length(min = 1, max = 2048, message = "1 to 2048 bytes"))]
    #[schema(example = "http://topup.example.com/")]
    pub redirect_address: Option<String>,
    /// With `RESTRICT_ACCESS`: rules in the notation of Diameter's IPFilterRule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[validate(length(max = 16, message = "at most 16"))]
    pub restriction_filter_rules: Vec<String>,
    /// With `RESTRICT_ACCESS`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[validate(length(max = 16, message = "at most 16"))]
    pub filter_ids: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FinalUnitAction {
    Terminate,
    Redirect,
    RestrictAccess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RedirectAddressType {
    Ipv4,
    Ipv6,
    Url,
    Uri,
}

impl RedirectAddressType {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Ipv4, "IPV4"), (Self::Ipv6, "IPV6"), (Self::Url, "URL"), (Self::Uri, "URI")];

    fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("URL", |(_, text)| text)
    }

    fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(kind, _)| kind)
    }
}

fn is_complete(body: &FinalUnitBody) -> Result<(), validator::ValidationError> {
    let complete = match body.action {
        FinalUnitAction::Terminate => true,
        FinalUnitAction::Redirect => body.redirect_address.is_some(),
        FinalUnitAction::RestrictAccess => !body.restriction_filter_rules.is_empty() || !body.filter_ids.is_empty(),
    };
    let message = "REDIRECT needs redirectAddress, RESTRICT_ACCESS a filter rule or a filter id";
    if complete { Ok(()) } else { Err(validator::ValidationError::new("final_unit").with_message(message.into())) }
}

fn each_is_an_identifier(identifiers: &[String]) -> Result<(), validator::ValidationError> {
    let is_one = |text: &String| is_identifier(text);
    let message = "each 1 to 256 bytes without control characters";
    if identifiers.iter().all(is_one) {
        Ok(())
    } else {
        Err(validator::ValidationError::new("identifiers").with_message(message.into()))
    }
}

fn is_identifier(text: &str) -> bool {
    (1..=256).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl From<&FinalUnitBody> for FinalUnit {
    fn from(body: &FinalUnitBody) -> Self {
        let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        match body.action {
            FinalUnitAction::Terminate => Self::Terminate,
            FinalUnitAction::Redirect => Self::Redirect {
                address_type: body.redirect_address_type.unwrap_or(RedirectAddressType::Url).as_str().into(),
                address: body.redirect_address.as_deref().unwrap_or_default().into(),
            },
            FinalUnitAction::RestrictAccess => Self::RestrictAccess {
                filter_rules: boxed(&body.restriction_filter_rules),
                filter_ids: boxed(&body.filter_ids),
            },
        }
    }
}

impl From<&FinalUnit> for FinalUnitBody {
    fn from(action: &FinalUnit) -> Self {
        let only = |action| Self {
            action,
            redirect_address_type: None,
            redirect_address: None,
            restriction_filter_rules: Vec::new(),
            filter_ids: Vec::new(),
        };
        let texts = |texts: &[Text]| texts.iter().map(ToString::to_string).collect();
        match action {
            FinalUnit::Terminate => only(FinalUnitAction::Terminate),
            FinalUnit::Redirect { address_type, address } => Self {
                redirect_address_type: RedirectAddressType::from_name(address_type),
                redirect_address: Some(address.to_string()),
                ..only(FinalUnitAction::Redirect)
            },
            FinalUnit::RestrictAccess { filter_rules, filter_ids } => Self {
                restriction_filter_rules: texts(filter_rules),
                filter_ids: texts(filter_ids),
                ..only(FinalUnitAction::RestrictAccess)
            },
        }
    }
}

impl From<&Subscriber> for SubscriberBody {
    fn from(subscriber: &Subscriber) -> Self {
        Self {
            supi: Some(subscriber.id.as_str().to_owned()),
            gpsi: subscriber.gpsi.as_deref().map(ToOwned::to_owned),
            identifiers: subscriber.identifiers.iter().map(ToString::to_string).collect(),
            account_id: subscriber.account.as_str().to_owned(),
            tariff_plan_id: subscriber.plan.as_str().to_owned(),
            status: if subscriber.blocked { Status::Blocked } else { Status::Active },
            final_unit: subscriber.final_unit.as_ref().map(Into::into),
        }
    }
}

/// Creates a subscriber or replaces it. Open sessions of one that is blocked are aborted.
#[utoipa::path(
    put, path = "/subscribers/{supi}", tag = "Subscribers",
    params(("supi" = String, Path, description = "SUPI, or whatever identifier requests will name", example = "imsi-001010000000001")),
    request_body(
        content = SubscriberBody,
        examples(
            ("active" = (summary = "A subscriber", value = json!({
                "gpsi": "msisdn-32470000001", "accountId": "demo-0001", "tariffPlanId": "demo", "status": "active",
            }))),
            ("blocked" = (summary = "Not served", value = json!({
                "gpsi": "msisdn-32470000001", "accountId": "demo-0001", "tariffPlanId": "demo", "status": "blocked",
            }))),
            ("redirected" = (summary = "Sent to a page to top up when the account is empty", value = json!({
                "gpsi": "msisdn-32470000001", "accountId": "demo-0001", "tariffPlanId": "demo", "status": "active",
                "finalUnit": {
                    "action": "REDIRECT", "redirectAddressType": "URL", "redirectAddress": "http://topup.example.com/",
                },
            }))),
        ),
    ),
    responses(
        (status = 200, description = "Replaced", body = SubscriberBody),
        (status = 201, description = "Created", body = SubscriberBody),
        (status = 400, description = "The body is wrong; nothing has changed", body = ProblemDetails),
    ),
)]
pub async fn put_subscriber(
    State(app): State<App>,
    Path(supi): Path<String>,
    Body(body): Body<SubscriberBody>,
) -> Answer<(StatusCode, Json<SubscriberBody>)> {
    if !is_identifier(&supi) {
        let reason = "expected 1 to 256 bytes without control characters";
        return Err(ProblemDetails::incorrect(Vec::new()).with_param("supi", reason));
    }
    let subscriber = Subscriber {
        id: SubscriberId::new(supi),
        gpsi: body.gpsi.as_deref().map(Into::into),
        identifiers: body.identifiers.iter().map(|text| text.as_str().into()).collect(),
        account: AccountId::new(body.account_id),
        plan: TariffPlanId::new(body.tariff_plan_id),
        blocked: body.status == Status::Blocked,
        final_unit: body.final_unit.as_ref().map(Into::into),
    };
    let is_new = app.put_subscriber(&subscriber).await?;
    if subscriber.blocked {
        app.abort_sessions_of(&subscriber, AbortReason::SubscriberBlocked).await?;
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json((&subscriber).into())))
}

/// A subscriber, found by SUPI, GPSI or any other provisioned identifier.
#[utoipa::path(
    get, path = "/subscribers/{supi}", tag = "Subscribers",
    params(("supi" = String, Path, description = "SUPI, GPSI or another identifier", example = "imsi-001010000000001")),
    responses(
        (status = 200, description = "The subscriber", body = SubscriberBody),
        (status = 404, description = "Not provisioned", body = ProblemDetails),
    ),
)]
pub async fn get_subscriber(State(app): State<App>, Path(supi): Path<String>) -> Answer<Json<SubscriberBody>> {
    let subscriber = app.subscriber(&supi).await?.ok_or_else(|| not_found("no such subscriber"))?;
    Ok(Json((&subscriber).into()))
}

/// Forgets a subscriber, found as by GET, and aborts its open sessions. The account stays.
#[utoipa::path(
    delete, path = "/subscribers/{supi}", tag = "Subscribers",
    params(("supi" = String, Path, description = "SUPI, GPSI or another identifier", example = "imsi-001010000001000")),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 404, description = "Not provisioned", body = ProblemDetails),
    ),
)]
pub async fn delete_subscriber(State(app): State<App>, Path(supi): Path<String>) -> Answer<StatusCode> {
    let subscriber = app.subscriber(&supi).await?.ok_or_else(|| not_found("no such subscriber"))?;
    // First the sessions: were this call cut off in between, it could not be repeated for a subscriber that is gone.
    app.abort_sessions_of(&subscriber, AbortReason::SubscriberDeleted).await?;
    app.delete_subscriber(&subscriber).await?;
    Ok(StatusCode::NO_CONTENT)
}
