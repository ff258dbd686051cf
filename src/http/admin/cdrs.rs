//! `/cdrs`: charging data records as JSON: the members of TS 32.298 in the spelling of TS 32.291.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::Answer;
use super::body::Asked;
use super::page::{Page, PageQuery};
use super::walk::{self, Which};
use crate::app::App;
use crate::charging::cdr::{Cdr, QuotaUsage};
use crate::charging::command::{Block, Container, Trigger};
use crate::charging::ids::{ChargingDataRef, SubscriberId};
use crate::charging::money::BalanceUnit;
use crate::charging::units::Units;
use crate::http::nchf::render::date_time;
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
) -> Answer<Json<Page<Value>>> {
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

async fn records(app: &App, references: Vec<ChargingDataRef>, subscriber: Option<&SubscriberId>) -> Answer<Vec<Value>> {
    let mut records = Vec::new();
    for reference in &references {
        let Some(account) = app.shared.refs.account_of(reference.as_str()) else { continue };
        let cdrs = app.cdrs(account, reference).await?;
        let is_asked_for = |cdr: &&Cdr| subscriber.is_none_or(|wanted| cdr.header.subscriber.as_ref() == Some(wanted));
        let recording_nf = &app.shared.instance_id;
        records.extend(cdrs.iter().filter(is_asked_for).map(|cdr| record(cdr, recording_nf)));
    }
    Ok(records)
}

fn record(cdr: &Cdr, recording_nf: &str) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| {
        if !value.is_null() {
            members.insert(name.to_owned(), value);
        }
    };
    add("id", json!(cdr.id()));
    add("ref", json!(cdr.reference.as_str()));
    add("supi", json!(cdr.header.subscriber.as_ref().map(SubscriberId::as_str)));
    add("accountId", json!(cdr.header.account.as_ref().map(|account| account.as_str())));
    add("charged", json!(cdr.charged.text(BalanceUnit::Money)));
    add("currency", json!(cdr.header.currency));
    add("recordType", json!(200));
    add("recordingNetworkFunctionID", json!(recording_nf));
    add("chargingSessionIdentifier", json!(cdr.reference.as_str()));
    add("subscriberIdentifier", json!(cdr.header.subscriber.as_ref().map(SubscriberId::as_str)));
    add("nFunctionConsumerInformation", json!({ "nodeFunctionality": cdr.header.consumer.functionality }));
    add("recordOpeningTime", json!(date_time(cdr.opened_at)));
    add("duration", json!(cdr.duration().secs()));
    add("causeForRecClosing", json!(cdr.cause.code()));
    add("triggers", list(&cdr.triggers, trigger));
    add("listOfMultipleUnitUsage", list(&cdr.usage, usage));
    for block in &cdr.blocks {
        match &*block.name {
            "nfConsumerIdentification" => add("nFunctionConsumerInformation", verbatim(block)),
            name => add(name, verbatim(block)),
        }
    }
    Value::Object(members)
}

fn usage(usage: &QuotaUsage) -> Value {
    let mut members = Map::new();
    members.insert("ratingGroup".to_owned(), json!(usage.key.rating_group.0));
    let ids = [("uPFID", &usage.key.upf), ("mBUPFID", &usage.key.mb_upf)];
    for (name, id) in ids {
        members.extend(id.as_deref().map(|id| (name.to_owned(), json!(id))));
    }
    members.extend(usage.key.multihomed.as_deref().map(|text| ("multihomedPDUAddress".to_owned(), parsed(text))));
    members.extend(usage.others.iter().map(|block| (block.name.to_string(), verbatim(block))));
    members.insert("usedUnitContainers".to_owned(), list(&usage.containers, container));
    Value::Object(members)
}

fn container(container: &Container) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| {
        if !value.is_null() {
            members.insert(name.to_owned(), value);
        }
    };
    let Units { time, total_volume, uplink_volume, downlink_volume, service_specific_units } = container.units;
    add("localSequenceNumber", json!(container.local_sequence_number));
    add("serviceId", json!(container.service_id));
    add("quotaManagementIndicator", json!(container.indicator.as_ref().map(|indicator| indicator.as_str())));
    add("time", json!(time));
    add("totalVolume", json!(total_volume));
    add("uplinkVolume", json!(uplink_volume));
    add("downlinkVolume", json!(downlink_volume));
    add("serviceSpecificUnits", json!(service_specific_units));
    add("triggers", list(&container.triggers, trigger));
    add("triggerTimestamp", json!(container.closed_at.map(date_time)));
    container.others.iter().for_each(|block| add(&block.name, verbatim(block)));
    Value::Object(members)
}

fn trigger(trigger: &Trigger) -> Value {
    let mut members = Map::new();
    members.extend(trigger.name.as_deref().map(|name| ("triggerType".to_owned(), json!(name))));
    members.insert("triggerCategory".to_owned(), json!(trigger.category.as_str()));
    members.extend(trigger.others.iter().map(|block| (block.name.to_string(), verbatim(block))));
    Value::Object(members)
}

/// `null`, which is left out, where there is nothing.
fn list<T>(items: &[T], render: impl Fn(&T) -> Value) -> Value {
    if items.is_empty() { Value::Null } else { items.iter().map(render).collect() }
}

fn verbatim(block: &Block) -> Value {
    parsed(&block.json)
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).expect("what is kept verbatim was read as JSON")
}
