//! Bodies as real network functions send them, where they are at hand: beside the checkout, or where `NCHF_PAYLOADS_DIR`
//! says.

use std::path::PathBuf;

use axum::http::Method;
use nchf::demo;
use nchf::http::nchf::wire::schemas::Service;
use serde_json::{Value, json};

use crate::support::world::{CONVERGED, OFFLINE_ONLY, World};
use crate::support::{Answer, official};

pub fn bodies() -> Vec<(String, Value)> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/payloads");
    let folder = std::env::var_os("NCHF_PAYLOADS_DIR").map_or_else(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("no bodies of real senders at {}: nothing was sent", folder.display());
        return Vec::new();
    };
    let mut bodies: Vec<_> = (entries.map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())
        })
        .collect();
    bodies.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(bodies.len() > 40, "only {} bodies found", bodies.len());
    bodies
}

/// Every rating group that the bodies name costs something, and everybody they name is provisioned.
pub async fn provisioned(bodies: &[(String, Value)]) -> World {
    let world = World::new().await;
    let groups: std::collections::BTreeSet<u64> = (bodies.iter())
        .flat_map(|(_, body)| body["multipleUnitUsage"].as_array().cloned().unwrap_or_default())
        .filter_map(|usage| usage["ratingGroup"].as_u64())
        .collect();
    let tariffs: Vec<_> = (groups.iter())
        .map(|group| {
            let unit = if *group >= 100 { "seconds" } else { "octets" };
            json!({
                "ratingGroup": group, "name": "any", "defaultGrant": 1000, "largestGrant": 2_000_000_000,
                "price": { "amount": "0.000001", "per": 1000, "unit": unit },
            })
        })
        .collect();
    let plan = json!({ "currency": "EUR", "timeZone": "Europe/Berlin", "tariffs": tariffs });
    world.put("/admin/v1/tariff-plans/senders", &plan).await.expect(201);
    world.put("/admin/v1/accounts/senders", &json!({ "currency": "EUR" })).await.expect(201);
    let credit = json!({ "balanceId": "main", "amount": "1000000", "reference": "1" });
    world.post("/admin/v1/accounts/senders/credits", &credit).await.expect(201);
    let names: std::collections::BTreeSet<&str> =
        bodies.iter().filter_map(|(_, body)| body["subscriberIdentifier"].as_str()).collect();
    for name in names {
        let path = format!("/admin/v1/subscribers/{}", name.replace('<', "%3C").replace('>', "%3E"));
        let subscriber = json!({ "accountId": "senders", "tariffPlanId": "senders" });
        let answer = world.put(&path, &subscriber).await;
        assert!(answer.status.is_success(), "{name}: {answer:?}");
    }
    assert_eq!(demo::plan().tariffs.len(), 9);
    world
}

fn is_of(name: &str, operation: &str) -> bool {
    name.contains(operation)
}

/// Each body alone: what it opens is opened; what lacks something is refused by name.
#[tokio::test]
async fn each_opening_body_is_answered_as_its_sender_expects() {
    let bodies = bodies();
    let world = provisioned(&bodies).await;
    for (name, body) in &bodies {
        let is_answer = ["notify", "problem", "response"].iter().any(|part| is_of(name, part));
        let continues = ["update", "release", "terminate"].iter().any(|part| is_of(name, part));
        if is_answer || (continues && !name.starts_with("newopenbss")) {
            continue;
        }
        let path = if name.contains("offline_only") { OFFLINE_ONLY } else { CONVERGED };
        let answer = world.request(Method::POST, path, body.to_string()).await;
        if name.starts_with("newopenbss") || name == "sigscale_bad_request" {
            let problem = answer.expect_problem(400, "MANDATORY_IE_MISSING");
            assert!(problem["invalidParams"].to_string().contains("/nfConsumerIdentification"), "{name}: {problem}");
            continue;
        }
        assert_eq!(answer.status, 201, "{name}: {}", String::from_utf8_lossy(&answer.bytes));
        let asked = body["multipleUnitUsage"].as_array().map_or(0, Vec::len);
        let told = answer.json()["multipleUnitInformation"].as_array().map_or(0, Vec::len);
        let is_offline = path == OFFLINE_ONLY;
        assert!(told == asked || is_offline, "{name}: {told} results for {asked} rating groups");
        conforms(name, &answer, is_offline);
    }
}

/// Create, update and release of one sender, one after the other.
#[tokio::test]
async fn sessions_of_each_sender_run_from_create_to_release() {
    let bodies = bodies();
    let find = |name: &str| bodies.iter().find(|(known, _)| known == name).map(|(_, body)| body.clone());
    let flows: [&[&str]; 7] = [
        &["free5gc_smf_create", "free5gc_smf_update_start_of_sdf", "free5gc_smf_update_quota_exhausted"],
        &["sigscale_create", "sigscale_update", "sigscale_release"],
        &["spec_ims_voice_create", "spec_ims_voice_release"],
        &["spec_roaming_qbc_create_vsmf", "spec_roaming_qbc_update_vsmf"],
        &["totogi_data_create", "totogi_data_update", "totogi_data_release"],
        &["totogi_voice_isd_create", "totogi_voice_isd_update", "totogi_voice_isd_release"],
        &["totogi_voice_offnet_create", "totogi_voice_offnet_update", "totogi_voice_offnet_release"],
    ];
    for flow in flows {
        let Some(create) = find(flow[0]) else { return };
        let world = provisioned(&bodies).await;
        let created = world.create(&create).await;
        created.expect(201);
        for name in &flow[1..] {
            let body = find(name).unwrap();
            if name.contains("release") {
                world.release(&created, &body).await.expect(204);
            } else {
                let updated = world.update(&created, &body).await;
                updated.expect(200);
                conforms(name, &updated, false);
                grants_fit_into_32_bits(name, &updated);
            }
        }
    }
}

fn conforms(name: &str, answer: &Answer, is_offline: bool) {
    let service = if is_offline { Service::OfflineOnlyCharging } else { Service::ConvergedCharging };
    // Senders that use a name where the schema wants a UUID get their name back.
    let is_a_uuid = |group: &Value| group["uPFID"].as_str().is_none_or(|id| uuid::Uuid::try_parse(id).is_ok());
    let body = answer.json();
    if !body["multipleUnitInformation"].as_array().is_none_or(|groups| groups.iter().all(is_a_uuid)) {
        return;
    }
    if let Some(schema) = official::validator_for(service, "ChargingDataResponse") {
        let errors: Vec<_> = schema.iter_errors(&body).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
}

/// Some consumers read amounts as 32-bit integers.
fn grants_fit_into_32_bits(name: &str, answer: &Answer) {
    for group in answer.json()["multipleUnitInformation"].as_array().cloned().unwrap_or_default() {
        let granted = group["grantedUnit"]["totalVolume"].as_u64().unwrap_or(0);
        assert!(granted <= 2_147_483_647, "{name}: {granted}");
    }
}
