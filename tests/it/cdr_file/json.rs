//! A record's line.

use axum::http::Method;
use nchf::cdr_file::json::{line, tree};
use serde_json::{Value, json};

use super::{NF, block, cdr, record};
use crate::support::World;
use crate::support::world::{CONVERGED, request};

#[test]
fn a_consumer_names_no_member_that_is_ours_and_breaks_no_line() {
    let mut cdr = cdr();
    for (name, json) in [("charged", "\"0\""), ("supi", "1"), ("tenantIdentifier", "\n\"a\\nb\"\r\n")] {
        cdr.blocks.push(block(name, json));
    }
    let line = line(&record(&cdr));
    assert_eq!(line.lines().count(), 1);
    let read: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read["charged"], "0.050000");
    assert_eq!(read["supi"], "imsi-001010000000001");
    assert_eq!(read["tenantIdentifier"], "a\nb");
    assert_eq!(read["recordingNetworkFunctionID"], NF);
    assert_eq!(read["nFunctionConsumerInformation"]["nodeFunctionality"], "SMF");
    assert_eq!(read["listOfMultipleUnitUsage"][0]["usedUnitContainers"][0]["totalVolume"], 1_048_576);
}

#[test]
fn what_no_tree_can_hold_is_in_the_line_all_the_same() {
    let mut cdr = cdr();
    let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
    cdr.blocks.push(block("huge", "1e999"));
    cdr.blocks.push(block("deep", &deep));
    cdr.usage[0].containers[0].others.push(block("nearlyTooDeep", &deep[4000 - 126..4000 + 126]));
    cdr.blocks.push(block("tenantIdentifier", "\"a\""));
    let record = record(&cdr);
    assert!(line(&record).contains("\"huge\":1e999") && line(&record).contains(&deep));
    let tree = tree(&record);
    assert_eq!((&tree["huge"], &tree["deep"], &tree["tenantIdentifier"]), (&Value::Null, &Value::Null, &"a".into()));
    assert!(tree["listOfMultipleUnitUsage"][0]["usedUnitContainers"][0].get("nearlyTooDeep").is_none());
}

#[tokio::test]
async fn the_operators_api_shows_records_with_numbers_that_no_machine_type_holds() {
    let world = World::new().await;
    let body = request(1, json!({ "tenantIdentifier": 7 })).to_string().replace(":7", ":1e999");
    let created = world.request(Method::POST, CONVERGED, body).await;
    created.expect(201);
    world.release(&created, &request(2, json!({}))).await.expect(204);
    let answer = world.get(&format!("/admin/v1/cdrs?ref={}", created.reference())).await;
    assert!(String::from_utf8_lossy(&answer.expect(200).bytes).contains("\"tenantIdentifier\":1e999"));
}

#[tokio::test]
async fn usage_of_qos_flows_and_of_a_second_radio_access_adds_up_in_the_record() {
    let world = World::new().await;
    let flow = |number: u32| json!({ "localSequenceNumber": number, "totalVolume": number * 1000 });
    let roaming = |flows: Value| json!({ "roamingQBCInformation": flows });
    let profile = json!({ "roamingChargingProfile": { "partialRecordMethod": "INDIVIDUAL" } });
    let created = world.create(&request(1, roaming(profile.clone()))).await;
    let radio =
        |volume: u32| json!({ "rANSecondaryRATType": "NR", "qosFlowsUsageReports": [{ "downlinkVolume": volume }] });
    let mut second = roaming(json!({ "multipleQFIcontainer": [flow(1), flow(2)], "uPFID": "a" }));
    second["pDUSessionChargingInformation"] = json!({ "rANSecondaryRATUsageReport": radio(1) });
    world.update(&created, &request(2, second.clone())).await.expect(200);
    // Sent again, it counts once.
    world.update(&created, &request(2, second)).await.expect(200);
    world.update(&created, &request(3, roaming(json!({ "multipleQFIcontainer": [flow(3)] })))).await.expect(200);
    let mut last = roaming(json!({ "multipleQFIcontainer": null, "uPFID": "b" }));
    last["pDUSessionChargingInformation"] = json!({ "rANSecondaryRATUsageReport": radio(2), "uetimeZone": "+01:00" });
    world.release(&created, &request(4, last)).await.expect(204);

    let listed = world.get(&format!("/admin/v1/cdrs?ref={}", created.reference())).await.json();
    let record = &listed["items"][0];
    let flows = json!([flow(1), flow(2), flow(3)]);
    assert_eq!(record["roamingQBCInformation"], json!({ "uPFID": "b", "multipleQFIcontainer": flows }));
    assert_eq!(
        record["pDUSessionChargingInformation"],
        json!({ "uetimeZone": "+01:00", "rANSecondaryRATUsageReport": [radio(1), radio(2)] })
    );
}
