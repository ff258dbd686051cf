//! The operator's API, where it shows what charging has done.

use nchf::charging::time::{Span, Timestamp};
use nchf::http::nchf::parse::date_time;
use serde_json::json;

use crate::support::World;
use crate::support::world::{Answer, START, request};

fn expires_at(session: &Answer) -> Timestamp {
    date_time(session.expect(200).json()["expiresAt"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_credit_that_has_ended_already_is_refused() {
    let world = World::new().await;
    let path = "/admin/v1/accounts/demo-0001/credits";
    let credit = |expires_at: &str| json!({ "balanceId": "main", "amount": "5.000000", "reference": "topup-1", "expiresAt": expires_at });
    let problem = world.post(path, &credit(START)).await.expect_problem(400, "OPTIONAL_IE_INCORRECT");
    assert_eq!(problem["invalidParams"][0]["param"], "/expiresAt");
    assert_eq!(world.balance("demo-0001", "main", "available").await, "10.000000");

    let soon = "2026-01-15T11:00:01Z";
    world.post(path, &credit(soon)).await.expect(201);
    assert_eq!(world.balance("demo-0001", "main", "available").await, "15.000000");
    // The copy of a credit is answered like it, though its end has passed.
    world.tick(1);
    world.post(path, &credit(soon)).await.expect(200);
}

#[tokio::test]
async fn a_session_is_kept_longer_after_each_update() {
    let world = World::new().await;
    let asks = json!({ "multipleUnitUsage": [{ "ratingGroup": 10, "requestedUnit": {} }] });
    let created = world.create(&request(1, asks.clone())).await;
    let path = format!("/admin/v1/charging-sessions/{}", created.expect(201).reference());
    let first = expires_at(&world.get(&path).await);
    assert!(first > world.now());

    world.tick(60);
    world.update(&created, &request(2, asks)).await.expect(200);
    let second = expires_at(&world.get(&path).await);
    assert_eq!(second.since(first), Span::from_secs(60));
}
