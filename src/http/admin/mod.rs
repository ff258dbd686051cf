//! The operator's API: subscribers, accounts and their ledger, charging sessions, tariff plans, records.
//!
//! One file for each resource, handler and documentation together. Everything is read from and written to the store;
//! any instance serves any call.

mod accounts;
mod body;
mod cdrs;
mod charging_sessions;
mod explanation;
mod page;
mod subscribers;
mod tariff_plans;
mod walk;

use axum::Router;
use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::ProblemDetails;
use crate::app::App;
use crate::charging::operator::Refusal;
use crate::store;
use crate::transact::Failure;

pub use tariff_plans::{TariffPlanBody, plan_of};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "nchf operator's API",
        description = "Provisioning and inspection of a charging function. Amounts are decimal strings: money with six \
                       places, everything else in whole units. Lists answer a page and, unless it is the last, a \
                       `nextCursor`. Errors are ProblemDetails (TS 29.571) whose `invalidParams` name members by JSON \
                       pointer.",
        version = "1.0.0",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/admin/v1")),
    security((), ("token" = [])),
    modifiers(&Token),
    tags(
        (name = "Subscribers"),
        (name = "Accounts"),
        (name = "Charging sessions"),
        (name = "Tariff plans"),
        (name = "Records"),
    ),
)]
struct Api;

/// Adds the bearer token to the document.
struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, document: &mut Document) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`admin.token`")).build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(subscribers::put_subscriber, subscribers::get_subscriber, subscribers::delete_subscriber))
        .routes(routes!(accounts::put_account, accounts::get_account))
        .routes(routes!(accounts::credit_balance))
        .routes(routes!(accounts::list_entries))
        .routes(routes!(charging_sessions::list_charging_sessions))
        .routes(routes!(charging_sessions::get_charging_session))
        .routes(routes!(explanation::explain_charging_session))
        .routes(routes!(charging_sessions::reauthorize_charging_session))
        .routes(routes!(charging_sessions::abort_charging_session))
        .routes(routes!(tariff_plans::list_tariff_plans))
        .routes(routes!(tariff_plans::put_tariff_plan, tariff_plans::get_tariff_plan))
        .routes(routes!(cdrs::list_cdrs))
}

/// The document of this API.
pub fn document() -> Document {
    api().into_openapi()
}

/// Under `/admin/v1`.
pub fn routes(app: App) -> Router {
    let (router, _) = api().split_for_parts();
    let router = router
        .fallback(async || ProblemDetails::not_found_resource_uri())
        .method_not_allowed_fallback(async || ProblemDetails::plain(StatusCode::METHOD_NOT_ALLOWED))
        .with_state(app);
    Router::new().nest("/admin/v1", router)
}

type Answer<T> = Result<T, ProblemDetails>;

impl From<Failure> for ProblemDetails {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rejected(rejection) => super::nchf::render::rejection(rejection),
            Failure::Contended | Failure::Crowded => {
                Self::congestion(1).with_detail("too many requests for one account at once")
            }
            Failure::Store(error) => error.into(),
        }
    }
}

impl From<store::Error> for ProblemDetails {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable { .. } | store::Error::Conflict(_) => {
                tracing::warn!(%error, "an operator's call failed");
                Self::congestion(1)
                    .with_detail("the store cannot be reached; the same call again finds out what was done")
            }
            store::Error::Corrupt(_) => {
                tracing::error!(%error, "an operator's call failed");
                Self::system_failure().with_detail("a stored document cannot be read; the log says more")
            }
        }
    }
}

impl From<Refusal> for ProblemDetails {
    fn from(refusal: Refusal) -> Self {
        let conflict = |param: &'static str, reason: String| {
            Self::new(StatusCode::CONFLICT, "MODIFICATION_NOT_ALLOWED").with_param(param, reason)
        };
        match refusal {
            Refusal::UnitDiffers(unit) => conflict("/unit", format!("the balance holds {}", unit.as_str())),
            Refusal::Expired => {
                Self::optional_incorrect(Vec::new()).with_param("/expiresAt", "a time to come is needed")
            }
            Refusal::TooMuch => conflict("/amount", "the balance would hold more than can be counted".to_owned()),
            Refusal::TooManyBalances => conflict("/balanceId", "the account has as many balances as it may".to_owned()),
            Refusal::CurrencyDiffers => conflict("/currency", "the account is kept in another currency".to_owned()),
        }
    }
}

fn not_found(what: &'static str) -> ProblemDetails {
    ProblemDetails::new(StatusCode::NOT_FOUND, "CONTEXT_NOT_FOUND").with_detail(what)
}
