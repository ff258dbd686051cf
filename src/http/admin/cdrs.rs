//! `/cdrs`: charging data records as JSON: the members of TS 32.298 in the spelling of TS 32.291.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::Answer;
use super::body::Asked;
use super::page::{Page, PageQuery};
use super::walk::{self, Which};
use crate::app::App;
use crate::cdr_file::{Record, json};
use crate::charging::cdr::Cdr;
use crate::charging::ids::{ChargingDataRef, SubscriberId};
use crate::http::problem::ProblemDetails;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct CdrFilter {
    /// SUPI, GPSI or another identifier of the subscriber.
    pub supi: Option<String>,
    /// A `ChargingDataRef`.
    #[serde(rename = "ref")]
    #[param(rename = "ref")]
    pub reference: Option<String>,
}

/// Closed records, those of one session in their order.
#[utoipa::path(
    get, path = "/cdrs", tag = "Records",
    params(CdrFilter, PageQuery),
    responses(
        (status = 200, description = "One page", body = Page<Object>),
        (status = 400, description = "A query parameter is wrong", body = ProblemDetails),
    ),
)]
pub async fn list_cdrs(
    State(app): State<App>,
    Asked(filter): Asked<CdrFilter>,
    Asked(query): Asked<PageQuery>,
) -> Answer<Json<Page<Box<RawValue>>>> {
    let empty = Page { items: Vec::new(), next_cursor: None };
    let app = &app;
    if let Some(reference) = &filter.reference {
        let items = records(app, vec![ChargingDataRef::new(reference.as_str())], None).await?;
        return Ok(Json(Page { items, ..empty }));
    }
    let Some((whose, subscriber)) = walk::whose(app, filter.supi.as_deref(), None).await? else {
        return Ok(Json(empty));
    };
    let subscriber = subscriber.as_ref().map(|subscriber| &subscriber.id);
    let page = walk::page(app, whose, Which::Closed, &query, |references| records(app, references, subscriber));
    Ok(Json(page.await?))
}

async fn records(
    app: &App,
    references: Vec<ChargingDataRef>,
    subscriber: Option<&SubscriberId>,
) -> Answer<Vec<Box<RawValue>>> {
    let recording_nf = &app.shared.instance_id;
    let mut records = Vec::new();
    for reference in &references {
        let Some(account) = app.shared.refs.account_of(reference.as_str()) else { continue };
        let cdrs = app.cdrs(account, reference).await?;
        let is_asked_for = |cdr: &&Cdr| subscriber.is_none_or(|wanted| cdr.header.subscriber.as_ref() == Some(wanted));
        records.extend(cdrs.iter().filter(is_asked_for).map(|cdr| {
            let published = cdr.published.as_ref();
            let local_sequence_number = published.map(|published| published.local_record_sequence_number);
            let line = json::line(&Record { cdr, recording_nf, local_sequence_number });
            RawValue::from_string(line).expect("a record is JSON")
        }));
    }
    Ok(records)
}
