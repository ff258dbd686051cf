//! Sessions and events as consumers see them, with the money behind.

use serde_json::{Value, json};

use crate::support::World;
use crate::support::world::{CONVERGED, OFFLINE_ONLY, request};

const MIB: u64 = 1_048_576;

fn asks(rating_group: u32, requested: Value) -> Value {
    json!({ "multipleUnitUsage": [{ "ratingGroup": rating_group, "requestedUnit": requested }] })
}

fn reports(rating_group: u32, container: Value, requested: Option<Value>) -> Value {
    let mut usage = json!({ "ratingGroup": rating_group, "usedUnitContainer": [container] });
    if let Some(requested) = requested {
        usage["requestedUnit"] = requested;
    }
    json!({ "multipleUnitUsage": [usage] })
}

#[tokio::test]
async fn the_two_services_have_sessions_of_their_own() {
    let world = World::new().await;
    let pdu_session = json!({
        "pDUSessionChargingInformation": { "pduSessionInformation": { "pduSessionID": 5, "dnnId": "internet" } },
    });
    let offline = world.post(OFFLINE_ONLY, &request(1, pdu_session.clone())).await;
    assert!(offline.expect(201).path().starts_with(OFFLINE_ONLY));
    let converged = world.create(&request(1, pdu_session.clone())).await;
    assert!(converged.expect(201).path().starts_with(CONVERGED));
    // Neither has ended the other, and each recognises its own copy.
    assert_eq!(world.post(OFFLINE_ONLY, &request(1, pdu_session.clone())).await.path(), offline.path());
    assert_eq!(world.create(&request(1, pdu_session)).await.path(), converged.path());
    world.release(&offline, &request(2, json!({}))).await.expect(204);
    world.release(&converged, &request(2, json!({}))).await.expect(204);
}

#[tokio::test]
async fn a_session_reserves_debits_and_gives_back() {
    let world = World::new().await;
    let created = world.create(&request(1, asks(10, json!({})))).await;
    created.expect(201);
    assert!(created.header("location").starts_with("http://chf.example.com/nchf-convergedcharging/v3/chargingdata/"));
    insta::assert_json_snapshot!(created.json());
    assert_eq!(world.balance("demo-0001", "main", "reserved").await, "0.100000");

    let used = json!({ "localSequenceNumber": 1, "totalVolume": 8 * MIB });
    let updated =
        world.update(&created, &request(2, reports(10, used, Some(json!({ "totalVolume": 1_000_000 }))))).await;
    updated.expect(200);
    assert_eq!(updated.group(10)["grantedUnit"], json!({ "totalVolume": 1_000_000 }));
    assert_eq!(world.balance("demo-0001", "main", "amount").await, "9.920000");
    assert_eq!(world.balance("demo-0001", "main", "reserved").await, "0.010000");

    let used = json!({ "localSequenceNumber": 2, "totalVolume": 1 });
    let released = world.release(&created, &request(3, reports(10, used, None))).await;
    released.expect(204);
    assert!(released.bytes.is_empty());
    assert_eq!(world.balance("demo-0001", "main", "amount").await, "9.910000");
    assert_eq!(world.balance("demo-0001", "main", "reserved").await, "0.000000");

    world.update(&created, &request(4, json!({}))).await.expect(410);
}
