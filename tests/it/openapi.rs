//! The published documents: the committed files are the generated ones, they hold together, their examples are legal,
//! and they say what 3GPP publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use nchf::http::nchf::wire::schemas::{Service, converged, offline_only};
use nchf::http::openapi::{DOCUMENTS, Document, converged_charging, offline_only_charging, yaml};
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::support::official;

const SERVICES: [(Service, Document); 2] =
    [(Service::ConvergedCharging, converged_charging), (Service::OfflineOnlyCharging, offline_only_charging)];

#[test]
fn committed_documents_are_the_generated_ones() {
    for (name, document) in DOCUMENTS {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi").join(format!("{name}.yaml"));
        let committed = fs::read_to_string(file).unwrap_or_default();
        let up_to_date = committed == yaml(&document());
        assert!(up_to_date, "openapi/{name}.yaml is out of date: cargo run -- openapi {name} > openapi/{name}.yaml");
    }
}

/// A schema of the same name that overwrote another one would show here.
#[test]
fn no_schema_is_lost() {
    let numbers = SERVICES.map(|(_, document)| components(&json(document())).len());
    assert_eq!(numbers, [415, 158]);
}

#[test]
fn every_reference_resolves_and_every_schema_is_referred_to() {
    for (service, document) in SERVICES {
        let document = json(document());
        let mut referred = BTreeSet::new();
        references(&document, &mut referred);
        for reference in &referred {
            assert!(document.pointer(&reference[1..]).is_some(), "{service:?}: {reference} leads nowhere");
        }
        for name in components(&document).keys() {
            let reference = format!("#/components/schemas/{name}");
            assert!(referred.contains(&reference), "{service:?}: nothing refers to {name}");
        }
    }
}

#[test]
fn a_handler_that_names_a_body_by_its_type_brings_every_schema_along() {
    #[utoipa::path(post, path = "/chargingdata", request_body = converged::ChargingDataRequest)]
    async fn create() {}
    #[utoipa::path(post, path = "/offlinechargingdata", request_body = offline_only::ChargingDataRequest)]
    async fn create_offline() {}
    let routers =
        [OpenApiRouter::<()>::new().routes(routes!(create)), OpenApiRouter::new().routes(routes!(create_offline))];
    for (router, (service, document)) in routers.into_iter().zip(SERVICES) {
        let same = router.into_openapi().components.unwrap().schemas == document().components.unwrap().schemas;
        assert!(same, "{service:?}");
    }
}

#[test]
fn examples_are_what_they_illustrate() {
    for (service, document) in SERVICES {
        let document = json(document());
        let mut examples = Vec::new();
        examples_in(&document, &mut examples);
        assert!(examples.len() > 15, "{service:?}: {} examples", examples.len());
        for (name, schema, example) in examples {
            let schemas = document["components"]["schemas"].clone();
            let fits = schemas_named_by(schema).into_iter().any(|name| {
                let published = official::validator_for(service, name);
                official::validator(schemas.clone(), name).is_valid(example)
                    && published.is_none_or(|published| published.is_valid(example))
            });
            assert!(fits, "{service:?}: the example {name} is no {schema}");
        }
    }
}

#[test]
fn schemas_are_the_published_ones() {
    for (service, document) in SERVICES {
        let Some(published) = official::document(service) else {
            return eprintln!("the published documents are not at hand: nothing was compared");
        };
        let document = json(document());
        let ours = components(&document);
        let published = components(&published);

        let mut reachable = BTreeSet::new();
        for root in ours.keys().filter(|name| MESSAGES.contains(&name.as_str())) {
            reach(published, root, &mut reachable);
        }
        let names: BTreeSet<&str> = ours.keys().map(String::as_str).collect();
        assert_eq!(names, reachable, "{service:?}");
        for name in names {
            assert_eq!(comparable(&ours[name]), comparable(&published[name]), "{service:?}: {name}");
        }
    }
}

/// What a document exists for; all other schemas are there because these refer to them.
const MESSAGES: [&str; 6] = [
    "ChargingDataRequest",
    "ChargingDataResponse",
    "ChargingNotifyRequest",
    "ChargingNotifyResponse",
    "ProblemDetails",
    "RedirectResponse",
];

/// What our schemas say in another way, on purpose.
const NOT_COMPARED: [&str; 4] = [
    // In our own words.
    "description",
    "example",
    // Read-only members are left out of a form, but a request reports these.
    "readOnly",
    // The published one names schemas that do not exist; the alternatives of GeographicArea say the same.
    "discriminator",
];

/// A schema in a form in which equal means equal: without words, in one dialect, and in one order.
fn comparable(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let mut comparable = Map::new();
    for (keyword, value) in schema {
        let value = match (keyword.as_str(), value) {
            (keyword, _) if NOT_COMPARED.contains(&keyword) => continue,
            // At least none is no condition.
            ("minItems" | "minProperties", value) if *value == json!(0) => continue,
            ("nullable", _) => continue,
            ("type", Value::String(base)) if schema.get("nullable") == Some(&json!(true)) => {
                sorted(vec![json!(base), json!("null")])
            }
            ("enum", values) if *values == json!([null]) => {
                comparable.insert("type".to_owned(), json!("null"));
                continue;
            }
            ("type" | "enum" | "required", Value::Array(values)) => sorted(values.clone()),
            ("oneOf" | "anyOf" | "allOf", Value::Array(schemas)) => {
                sorted(schemas.iter().map(self::comparable).collect())
            }
            ("properties", Value::Object(members)) => {
                members.iter().map(|(name, member)| (name.clone(), self::comparable(member))).collect()
            }
            ("items" | "not" | "additionalProperties", schema) => self::comparable(schema),
            (_, value) => value.clone(),
        };
        comparable.insert(keyword.clone(), value);
    }
    Value::Object(comparable)
}

fn sorted(mut values: Vec<Value>) -> Value {
    values.sort_by_key(Value::to_string);
    Value::Array(values)
}

#[test]
fn operations_are_the_published_ones() {
    for (service, document) in SERVICES {
        let Some(published) = official::document(service) else {
            return eprintln!("the published documents are not at hand: nothing was compared");
        };
        let document = json(document());
        assert_eq!(document["info"]["version"], published["info"]["version"]);
        assert_eq!(document["security"], published["security"]);
        assert_eq!(document["servers"][0]["url"], published["servers"][0]["url"]);
        let mut ours = outlines(&document["paths"]);
        for (path, code) in added_answers(service) {
            assert!(ours.get_mut(path).unwrap().answers.remove(code).is_some(), "{path} does not answer {code}");
        }
        assert_eq!(ours, outlines(&published["paths"]), "{service:?}");
    }
}

/// The published document of the smaller service leaves these to `default`, while the larger one, which is served by
/// the same program, names them.
fn added_answers(service: Service) -> Vec<(&'static str, &'static str)> {
    let create = "/offlinechargingdata";
    let update = "/offlinechargingdata/{OfflineChargingDataRef}/update";
    let release = "/offlinechargingdata/{OfflineChargingDataRef}/release";
    match service {
        Service::ConvergedCharging => Vec::new(),
        Service::OfflineOnlyCharging => [create, update, release]
            .iter()
            .flat_map(|path| ["415", "429", "502", "504"].map(|code| (*path, code)))
            .chain([(create, "405"), (create, "408"), (update, "405"), (update, "408"), (release, "400")])
            .collect(),
    }
}

/// What counts of an operation: the bodies, by name, of the request and of each answer.
#[derive(Debug, PartialEq)]
struct Outline<'a> {
    request: &'a Value,
    answers: BTreeMap<&'a str, Option<&'a Value>>,
    callbacks: BTreeMap<String, Outline<'a>>,
}

fn outlines(paths: &Value) -> BTreeMap<String, Outline<'_>> {
    let operations = paths.as_object().unwrap().iter();
    operations.map(|(path, item)| (path.clone(), outline(&item["post"]))).collect()
}

fn outline(operation: &Value) -> Outline<'_> {
    let answers = operation["responses"].as_object().unwrap().iter().map(|(code, response)| {
        // Published media types are misspelled here and there, and problems are refused in one form by us: only the
        // schema of a success counts.
        let content = response.get("content").filter(|_| code.starts_with('2')).and_then(Value::as_object);
        (code.as_str(), content.and_then(|content| content.values().next()).map(|content| &content["schema"]))
    });
    let callbacks = operation.get("callbacks").and_then(Value::as_object).into_iter().flatten();
    Outline {
        request: &operation["requestBody"]["content"]["application/json"]["schema"],
        answers: answers.collect(),
        callbacks: callbacks.flat_map(|(_, callback)| outlines(callback)).collect(),
    }
}

fn json(document: OpenApi) -> Value {
    serde_json::to_value(document).unwrap()
}

fn components(document: &Value) -> &Map<String, Value> {
    document["components"]["schemas"].as_object().unwrap()
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Adds the names of a schema and of all that it refers to, however far.
fn reach<'a>(schemas: &'a Map<String, Value>, name: &str, found: &mut BTreeSet<&'a str>) {
    let (name, schema) = schemas.get_key_value(name).unwrap_or_else(|| panic!("{name} is not published"));
    if !found.insert(name) {
        return;
    }
    let mut next = BTreeSet::new();
    references(schema, &mut next);
    for reference in next {
        reach(schemas, reference.strip_prefix("#/components/schemas/").unwrap(), found);
    }
}

/// Every example, with its name and the schema that it stands beside.
fn examples_in<'a>(value: &'a Value, found: &mut Vec<(&'a str, &'a Value, &'a Value)>) {
    match value {
        Value::Object(members) => {
            if let (Some(schema), Some(Value::Object(examples))) = (members.get("schema"), members.get("examples")) {
                found.extend(examples.iter().map(|(name, example)| (name.as_str(), schema, &example["value"])));
            }
            members.values().for_each(|member| examples_in(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| examples_in(item, found)),
        _ => {}
    }
}

fn schemas_named_by(schema: &Value) -> Vec<&str> {
    let alternatives = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    let references = alternatives.chain([schema]).filter_map(|schema| schema["$ref"].as_str());
    references.map(|reference| reference.strip_prefix("#/components/schemas/").unwrap()).collect()
}
