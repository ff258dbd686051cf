//! The operator's listener: admin API, documents and the page that shows them, metrics, health.
//!
//! The charging services are served here too, so that "Try it out" on the page charges for real: a browser reaches
//! nothing but the origin it loaded the page from.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi, Url};

use super::auth::{self, Token};
use super::health::{self, Draining};
use super::nchf::Nchf;
use super::{admin, nchf, openapi};
use crate::telemetry::Metrics;

/// Everything of the operator's side.
pub fn routes(nchf: Nchf, token: Token, draining: Draining) -> Router {
    let app = nchf.app.clone();
    let store = Arc::clone(&app.store);
    let ready = move || {
        let store = Arc::clone(&store);
        async move { store.ready().await.map_err(|error| error.to_string()) }
    };
    let metrics = app.shared.metrics.clone();
    nchf::routes(nchf)
        .route("/", get(async || Redirect::temporary("/docs/")))
        .route("/metrics", get(async move || exposition(&metrics)))
        .merge(documents())
        .merge(admin::routes(app))
        .merge(health::routes(draining, ready))
        .layer(middleware::from_fn_with_state(token, auth::required))
        // A browser shall neither guess types nor show these pages inside others.
        .layer(SetResponseHeaderLayer::if_not_present(header::X_CONTENT_TYPE_OPTIONS, value("nosniff")))
        .layer(SetResponseHeaderLayer::if_not_present(header::X_FRAME_OPTIONS, value("DENY")))
        .layer(SetResponseHeaderLayer::if_not_present(header::REFERRER_POLICY, value("no-referrer")))
}

fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

fn documents() -> Router {
    let url = |name| match name {
        "nchf-convergedcharging" => "/openapi/nchf-convergedcharging.json",
        "nchf-offlineonlycharging" => "/openapi/nchf-offlineonlycharging.json",
        _ => "/openapi/admin.json",
    };
    let documents = openapi::DOCUMENTS.map(|(name, document)| (Url::new(name, url(name)), served_here(document())));
    let config = Config::default()
        .try_it_out_enabled(true)
        .display_request_duration(true)
        // The schemas of one service fill thirty screens: folded until somebody wants them.
        .default_models_expand_depth(0)
        .persist_authorization(true)
        // By default the page tells a validator on the internet where it is.
        .validator_url("none");
    SwaggerUi::new("/docs").config(config).urls(documents.into()).into()
}

/// The document as a page of this listener needs it: the services are at its own origin.
fn served_here(mut document: OpenApi) -> OpenApi {
    for server in document.servers.iter_mut().flatten() {
        server.url = server.url.trim_start_matches("{apiRoot}").to_owned();
        server.variables = None;
    }
    document
}

/// OpenMetrics, which Prometheus reads.
fn exposition(metrics: &Metrics) -> impl IntoResponse + use<> {
    let mut text = String::with_capacity(4096);
    encode(&mut text, &metrics.registry()).expect("writing to a string does not fail");
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], text)
}
