//! Wrong requests: the status, the cause, the pointers; and nothing changes.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::support::World;
use crate::support::world::{CONVERGED, request};

fn pointers(problem: &Value) -> Vec<String> {
    let params = problem["invalidParams"].as_array().cloned().unwrap_or_default();
    params.iter().map(|param| param["param"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_missing_member_is_named_at_once() {
    let world = World::new().await;
    let body = json!({
        "triggers": [{ "triggerType": "FINAL" }],
        "multipleUnitUsage": [{ "usedUnitContainer": [{ "totalVolume": 1 }] }],
    });
    let problem = world.create(&body).await.expect_problem(400, "MANDATORY_IE_MISSING");
    let mut pointers = pointers(&problem);
    pointers.sort();
    assert_eq!(
        pointers,
        [
            "/invocationSequenceNumber",
            "/invocationTimeStamp",
            "/multipleUnitUsage/0/ratingGroup",
            "/multipleUnitUsage/0/usedUnitContainer/0/localSequenceNumber",
            "/nfConsumerIdentification",
            "/triggers/0/triggerCategory",
        ]
    );
}

#[tokio::test]
async fn a_wrong_member_is_named_with_its_cause() {
    let world = World::new().await;
    let usage = |member: Value| json!({ "multipleUnitUsage": [member] });
    let rows: Vec<(&str, Value, &str, &str)> = vec![
        (
            "a text for a number",
            usage(json!({ "ratingGroup": "10" })),
            "INVALID_MSG_FORMAT",
            "/multipleUnitUsage/0/ratingGroup",
        ),
        (
            "below zero",
            usage(json!({ "ratingGroup": -1 })),
            "MANDATORY_IE_INCORRECT",
            "/multipleUnitUsage/0/ratingGroup",
        ),
        (
            "beyond 32 bits",
            usage(json!({ "ratingGroup": 4_294_967_296_u64 })),
            "MANDATORY_IE_INCORRECT",
            "/multipleUnitUsage/0/ratingGroup",
        ),
        (
            "a fraction",
            usage(json!({ "ratingGroup": 10, "requestedUnit": { "totalVolume": 1.5 } })),
            "INVALID_MSG_FORMAT",
            "/multipleUnitUsage/0/requestedUnit/totalVolume",
        ),
        ("an object for an array", json!({ "multipleUnitUsage": {} }), "INVALID_MSG_FORMAT", "/multipleUnitUsage"),
        ("no time", json!({ "invocationTimeStamp": "noon" }), "MANDATORY_IE_INCORRECT", "/invocationTimeStamp"),
        ("no URI", json!({ "notifyUri": "file:///etc/passwd" }), "OPTIONAL_IE_INCORRECT", "/notifyUri"),
        ("a user in the URI", json!({ "notifyUri": "http://a:b@smf/" }), "OPTIONAL_IE_INCORRECT", "/notifyUri"),
        ("no hexadecimal", json!({ "supportedFeatures": "XYZ" }), "OPTIONAL_IE_INCORRECT", "/supportedFeatures"),
        (
            "control characters",
            json!({ "subscriberIdentifier": "imsi-1\r\n" }),
            "MANDATORY_IE_INCORRECT",
            "/subscriberIdentifier",
        ),
        (
            "no function",
            json!({ "nfConsumerIdentification": { "nFName": "x" } }),
            "MANDATORY_IE_MISSING",
            "/nfConsumerIdentification/nodeFunctionality",
        ),
        (
            "an API without name",
            json!({ "nEFChargingInformation": {} }),
            "MANDATORY_IE_MISSING",
            "/nEFChargingInformation/aPIName",
        ),
    ];
    for (what, others, cause, pointer) in rows {
        let problem = world.create(&request(1, others)).await.expect_problem(400, cause);
        assert_eq!(pointers(&problem), [pointer], "{what}");
    }
}

#[tokio::test]
async fn what_is_no_json_of_this_protocol_changes_nothing() {
    let world = World::new().await;
    let good = request(1, json!({})).to_string();
    for body in [
        "".to_owned(),
        "nothing".to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("{good}{good}"),
        format!("\u{feff}{good}"),
        "[]".to_owned(),
        "7".to_owned(),
        good.replacen('{', "{\"invocationSequenceNumber\":7,", 1),
        good.replacen('{', &format!("{{\"a\":{}{},", "[".repeat(100_000), "]".repeat(100_000)), 1),
        good.replace("\"invocationSequenceNumber\":1", "\"invocationSequenceNumber\":1e400"),
    ] {
        world.request(Method::POST, CONVERGED, body).await.expect_problem(400, "INVALID_MSG_FORMAT");
    }
    assert!(world.get("/admin/v1/charging-sessions").await.json()["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn paths_methods_and_media_types_have_their_answers() {
    let world = World::new().await;
    let body = || Body::from(request(1, json!({})).to_string());
    let rows = [
        (Method::POST, "/nchf-convergedcharging/v9/chargingdata", 400, "INVALID_API"),
        (Method::POST, "/nchf-convergedcharging/v3/chargingdata/x/foo", 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"),
        (Method::POST, "/nchf-convergedcharging/v3/chargingdata/x/update", 404, "CONTEXT_NOT_FOUND"),
        (Method::POST, "/nchf-convergedcharging/v3/chargingdata/%ff/update", 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"),
        (Method::POST, "/admin/v1/charging-sessions/%ff/abort", 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"),
        (Method::POST, "/nchf-convergedcharging/v3/nothing", 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"),
        (Method::POST, "/nchf-convergedcharging/v3/chargingdata/", 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"),
        (Method::POST, "//nchf-convergedcharging/v3/chargingdata", 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"),
    ];
    for (method, path, status, cause) in rows {
        world.request(method, path, body()).await.expect_problem(status, cause);
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = world.request(method, CONVERGED, body()).await;
        answer.expect_problem(405, "");
        assert_eq!(answer.header("allow"), "POST");
    }
    for (media_type, encoding) in [("text/plain", ""), ("", ""), ("application/json", "gzip")] {
        let mut request = Request::post(CONVERGED);
        for (name, value) in [("content-type", media_type), ("content-encoding", encoding)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        world.send(request.body(body()).unwrap()).await.expect_problem(415, "");
    }
}
