//! The same request again: to the byte the same answer, and nothing changes.

use std::time::Duration;

use nchf::bench;
use nchf::clock::ManualClock;
use nchf::config::Config;
use serde_json::json;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::support::World;
use crate::support::faulty::{Faulty, Held};
use crate::support::world::request;

#[tokio::test]
async fn every_operation_sent_again_gets_the_first_answer() {
    let world = World::new().await;
    let create = request(1, json!({ "multipleUnitUsage": [{ "ratingGroup": 10, "requestedUnit": {} }] }));
    let created = world.create(&create).await;
    let usage = json!([{
        "ratingGroup": 10,
        "requestedUnit": {},
        "usedUnitContainer": [{ "localSequenceNumber": 1, "totalVolume": 5_000_000 }],
    }]);
    let update = request(2, json!({ "multipleUnitUsage": usage }));
    let release = request(3, json!({}));

    world.tick(10);
    let again = world.create(&create).await;
    assert_eq!((&again.bytes, again.path()), (&created.bytes, created.path()));

    let updated = world.update(&created, &update).await;
    let before = world.get("/admin/v1/accounts/demo-0001").await.bytes;
    for marked in [false, true] {
        world.tick(10);
        let mut copy = update.clone();
        if marked {
            copy["retransmissionIndicator"] = json!(true);
            copy["invocationTimeStamp"] = json!("2026-01-15T12:00:00Z");
        }
        let again = world.update(&created, &copy).await;
        assert_eq!(again.bytes, updated.bytes, "marked: {marked}");
    }
    assert_eq!(world.get("/admin/v1/accounts/demo-0001").await.bytes, before);

    world.release(&created, &release).await.expect(204);
    world.release(&created, &release).await.expect(204);
    let again = world.create(&create).await;
    assert_eq!((&again.bytes, again.path()), (&created.bytes, created.path()), "a very late copy opens nothing");
    let cdrs = world.get(&format!("/admin/v1/cdrs?ref={}", created.reference())).await.json();
    assert_eq!(cdrs["items"].as_array().unwrap().len(), 1);
    assert_eq!(cdrs["items"][0]["charged"], "0.050000");
}

#[tokio::test]
async fn a_number_used_again_for_something_else_is_refused() {
    let world = World::new().await;
    let created = world.create(&request(1, json!({}))).await;
    let report = |octets: u64| {
        let container =
            json!([{ "localSequenceNumber": 1, "totalVolume": octets, "quotaManagementIndicator": "ONLINE_CHARGING" }]);
        request(2, json!({ "multipleUnitUsage": [{ "ratingGroup": 10, "usedUnitContainer": container }] }))
    };
    world.update(&created, &report(1)).await.expect(200);
    let problem = world.update(&created, &report(2_000_000)).await.expect_problem(400, "MANDATORY_IE_INCORRECT");
    assert_eq!(problem["invalidParams"][0]["param"], "/invocationSequenceNumber");
    assert_eq!(world.balance("demo-0001", "main", "amount").await, "9.990000");
}

#[tokio::test]
async fn an_idempotency_key_stands_for_the_request() {
    use axum::body::Body;
    use axum::http::Request;

    let world = World::new().await;
    let send = async |timestamp: &str| {
        let body = request(1, json!({ "invocationTimeStamp": timestamp }));
        let request = Request::post(crate::support::world::CONVERGED)
            .header("host", "chf")
            .header("content-type", "application/json")
            .header("3gpp-Sbi-Request-Info", "retrans=true; idempotency-key=7f3a");
        world.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let first = send("2026-01-15T11:00:00Z").await;
    let second = send("2026-01-15T11:00:09Z").await;
    first.expect(201);
    assert_eq!(first.path(), second.path());
    assert_eq!(first.bytes, second.bytes);
}

#[tokio::test]
async fn a_consumer_that_starts_again_leaves_no_second_reservation() {
    let world = World::new().await;
    let create = |number: u32| {
        request(
            number,
            json!({
                "multipleUnitUsage": [{ "ratingGroup": 10, "requestedUnit": {} }],
                "pDUSessionChargingInformation": { "pduSessionInformation": { "pduSessionID": 5, "dnnId": "internet" } },
            }),
        )
    };
    let first = world.create(&create(1)).await;
    let second = world.create(&create(8)).await;
    assert_ne!(first.path(), second.path());
    assert_eq!(world.balance("demo-0001", "main", "reserved").await, "0.100000");
    let open = world.get("/admin/v1/charging-sessions?supi=imsi-001010000000001").await.json();
    assert_eq!(open["items"].as_array().unwrap().len(), 1);
    assert_eq!(open["items"][0]["ref"], second.reference());
    let records = world.get(&format!("/admin/v1/cdrs?ref={}", first.reference())).await.json();
    assert_eq!(records["items"][0]["causeForRecClosing"], 4);
}

#[tokio::test]
async fn what_was_asked_for_is_done_though_the_consumer_goes_away() {
    let clock = ManualClock::at(bench::EXAMPLE_TIME);
    let store = Faulty::before_memory(&clock);
    let world = World::over(store.clone(), clock, Config::default()).await;
    let asks = json!({ "multipleUnitUsage": [{ "ratingGroup": 10, "requestedUnit": {} }] });
    let created = world.create(&request(1, asks.clone())).await;
    let commits = || store.traffic.lock().unwrap().commits.len();
    let before = commits();

    // The handler is dropped while it waits for the store.
    store.held.send_replace(Held::Everybody);
    let update = request(2, asks);
    assert!(timeout(Duration::from_millis(20), world.update(&created, &update)).await.is_err());
    assert_eq!(commits(), before);
    store.held.send_replace(Held::Nobody);
    let done = async {
        while commits() == before {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), done).await.expect("the work has gone on");
    world.update(&created, &update).await.expect(200);
    assert_eq!(commits(), before + 1, "its copy is answered what was done");
}
