//! The interface as 3GPP publishes it, where its files are at hand: what our documents and answers are measured by.
//!
//! The files are not part of the project. They are looked for in `NCHF_SPEC_DIR`, else in `../shared/spec` beside the
//! project, as OpenAPI 3.0 documents in JSON with all references resolved into one file. Without them there is nothing
//! to compare with, and every function answers `None`.

use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use nchf::http::nchf::wire::schemas::Service;
use serde_json::{Value, json};

pub fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/spec");
    let folder = std::env::var_os("NCHF_SPEC_DIR").map_or_else(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// The published document of a service, with its misprints corrected.
pub fn document(service: Service) -> Option<Value> {
    let name = match service {
        Service::ConvergedCharging => "ConvergedCharging",
        Service::OfflineOnlyCharging => "OfflineOnlyCharging",
    };
    let file = folder()?.join(format!("TS32291_Nchf_{name}.rel19.bundle.json"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut document: Value = serde_json::from_str(&text).unwrap();
    for misprint in misprints(service) {
        misprint.correct(&mut document);
    }
    Some(document)
}

/// Says whether a JSON value is what the published document calls `schema_name`.
pub fn validator_for(service: Service, schema_name: &str) -> Option<Validator> {
    let document = document(service)?;
    Some(validator(json_schema(document["components"]["schemas"].clone()), schema_name))
}

/// A validator for one of several schemas that refer to each other as the components of an OpenAPI document do.
pub fn validator(schemas: Value, schema_name: &str) -> Validator {
    assert!(schemas.get(schema_name).is_some(), "no schema is called {schema_name}");
    let root = json!({
        "$ref": format!("#/components/schemas/{schema_name}"),
        "components": {"schemas": schemas},
    });
    jsonschema::options().should_validate_formats(true).build(&root).unwrap()
}

/// OpenAPI 3.0 says `nullable` where JSON Schema names null among the types.
fn json_schema(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(members) => {
            if members.remove("nullable") == Some(Value::Bool(true)) {
                let base = members["type"].take();
                members["type"] = json!([base, "null"]);
            }
            for member in members.values_mut() {
                *member = json_schema(member.take());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = json_schema(item.take())),
        _ => {}
    }
    schema
}

/// A place where the published file cannot mean what it says. Our schemas have the correction, and say why beside it.
struct Misprint {
    at: &'static str,
    published: Value,
    corrected: Value,
}

/// `Value::Null` stands for "not there".
fn misprints(service: Service) -> Vec<Misprint> {
    let one_line_too_few = json!({"HSPA_EVOLUTION        - type": "string"});
    let mut misprints = vec![
        // The last value and the alternative for unknown values run together.
        misprint("/RatType/anyOf/0/enum/33", one_line_too_few, json!("HSPA_EVOLUTION")),
        misprint("/RatType/anyOf/1", Value::Null, json!({"type": "string"})),
    ];
    if service == Service::ConvergedCharging {
        let fused = json!("ANY_OTHER_SIP_MESSAGE            - SIP_BYE_MESSAGE");
        misprints.extend([
            // A member is required that does not exist.
            misprint("/ProseChargingInformation/required", json!(["aPIName"]), Value::Null),
            // Two values run together, and the alternative for unknown values is missing.
            misprint("/TriggerType/anyOf/0/enum/55", fused, json!("ANY_OTHER_SIP_MESSAGE")),
            misprint("/TriggerType/anyOf/0/enum/77", Value::Null, json!("SIP_BYE_MESSAGE")),
            misprint("/TriggerType/anyOf/1", Value::Null, json!({"type": "string"})),
        ]);
    }
    misprints
}

fn misprint(at: &'static str, published: Value, corrected: Value) -> Misprint {
    Misprint { at, published, corrected }
}

impl Misprint {
    fn correct(self, document: &mut Value) {
        let (parent, last) = self.at.rsplit_once('/').unwrap();
        let place = document["components"]["schemas"].pointer_mut(parent).unwrap();
        let found = place.pointer(&format!("/{last}")).cloned().unwrap_or_default();
        assert_eq!(found, self.published, "the published file changed at {}: is this misprint gone?", self.at);
        match place {
            Value::Object(members) if self.corrected.is_null() => drop(members.remove(last)),
            Value::Object(members) => drop(members.insert(last.to_owned(), self.corrected)),
            Value::Array(items) if self.published.is_null() => {
                assert_eq!(last, items.len().to_string(), "a value is missing at the end of {parent}");
                items.push(self.corrected);
            }
            Value::Array(items) => items[last.parse::<usize>().unwrap()] = self.corrected,
            _ => panic!("{parent} holds no values"),
        }
    }
}

#[test]
fn sample_answers_are_valid_and_broken_ones_are_not() {
    let Some(samples) = folder().map(|folder| folder.join("../payloads")).filter(|samples| samples.is_dir()) else {
        return eprintln!("no sample answers at hand: nothing was validated");
    };
    let sample = |name: &str| -> Value { serde_json::from_slice(&fs::read(samples.join(name)).unwrap()).unwrap() };
    let validator_for = |name| validator_for(Service::ConvergedCharging, name).unwrap();

    let mut answer = sample("spec_pdu_create_response.json");
    let answers = validator_for("ChargingDataResponse");
    answers.validate(&answer).unwrap();
    answer["multipleUnitInformation"][0]["ratingGroup"] = json!(4_294_967_296_u64);
    assert!(!answers.is_valid(&answer), "a rating group has 32 bits");

    let problems = validator_for("ProblemDetails");
    for name in ["spec_problem_400_invalid_params.json", "spec_problem_403_user_unknown.json"] {
        problems.validate(&sample(name)).unwrap();
    }
    assert!(!problems.is_valid(&json!({"status": "400"})), "a status is a number");
}
