//! The operator's API through its router.

use axum::body::Body;
use axum::http::Method;
use nchf::charging::time::{Span, Timestamp};
use nchf::http::nchf::parse::date_time;
use serde_json::{Value, json};

use crate::support::world::{START, request};
use crate::support::{Answer, World};

const ACCOUNT: &str = "/admin/v1/accounts/lab";

async fn lab() -> World {
    let world = World::new().await;
    world.put(ACCOUNT, &json!({ "currency": "EUR", "creditLimit": "1.5" })).await.expect(201);
    world
}

#[tokio::test]
async fn an_account_is_opened_once_and_its_limit_can_change() {
    let world = lab().await;
    let account = world.get(ACCOUNT).await.json();
    assert_eq!(account["creditLimit"], "1.500000");
    assert_eq!(account["balances"][0]["available"], "1.500000");
    world.put(ACCOUNT, &json!({ "currency": "EUR" })).await.expect(200);
    assert_eq!(world.balance("lab", "main", "available").await, "0.000000");
    world.put(ACCOUNT, &json!({ "currency": "CHF" })).await.expect_problem(409, "MODIFICATION_NOT_ALLOWED");
    world.get("/admin/v1/accounts/nobody").await.expect_problem(404, "CONTEXT_NOT_FOUND");
}

#[tokio::test]
async fn a_reference_credits_once() {
    let world = lab().await;
    let credit = json!({ "balanceId": "main", "amount": "5.000001", "reference": "r1" });
    let path = format!("{ACCOUNT}/credits");
    world.post(&path, &credit).await.expect(201);
    world.post(&path, &credit).await.expect(200);
    assert_eq!(world.balance("lab", "main", "amount").await, "5.000001");

    let bundle = json!({
        "balanceId": "data", "unit": "octets", "amount": "1000", "reference": "r2", "expiresAt": "2026-01-16T00:00:00+01:00",
    });
    world.post(&path, &bundle).await.expect(201);
    let account = world.get(ACCOUNT).await.json();
    assert_eq!(account["balances"][1]["amount"], "1000");
    assert_eq!(account["balances"][1]["expiresAt"], "2026-01-15T23:00:00.000Z");
    world.tick(43_200);
    assert_eq!(world.balance("lab", "data", "available").await, "0");
}

#[tokio::test]
async fn wrong_input_is_named_and_changes_nothing() {
    let world = lab().await;
    let credits = format!("{ACCOUNT}/credits");
    let credit = |member: &str, value: Value| {
        let mut body = json!({ "balanceId": "main", "amount": "1", "reference": "r" });
        body[member] = value;
        body
    };
    let rows: Vec<(Method, &str, Value, u16, &str)> = vec![
        (Method::POST, &credits, credit("amount", json!("-1")), 400, "/amount"),
        (Method::POST, &credits, credit("amount", json!("0")), 400, "/amount"),
        (Method::POST, &credits, credit("amount", json!("1.0000001")), 400, "/amount"),
        (Method::POST, &credits, credit("amount", json!(1)), 400, "/amount"),
        (Method::POST, &credits, credit("balanceId", json!("")), 400, "/balanceId"),
        (Method::POST, &credits, credit("unit", json!("miles")), 400, "/unit"),
        (Method::POST, &credits, credit("unit", json!("octets")), 409, "/unit"),
        (Method::POST, &credits, credit("expiresAt", json!("soon")), 400, "/expiresAt"),
        (Method::PUT, ACCOUNT, json!(["EUR", "0"]), 400, ""),
        (Method::PUT, ACCOUNT, json!({ "creditLimit": "1" }), 400, "/currency"),
        (Method::PUT, ACCOUNT, json!({ "currency": "euro" }), 400, "/currency"),
        (Method::PUT, ACCOUNT, json!({ "currency": "EUR", "creditLimit": "-1" }), 400, "/creditLimit"),
        (Method::PUT, ACCOUNT, json!({ "currency": "EUR", "limit": "1" }), 400, "/limit"),
        (
            Method::PUT,
            "/admin/v1/tariff-plans/p",
            json!({ "currency": "EUR", "timeZone": "Mars/Base", "tariffs": [] }),
            400,
            "/timeZone",
        ),
        (
            Method::PUT,
            "/admin/v1/tariff-plans/p",
            json!({ "currency": "EUR", "timeZone": "UTC", "tariffs": [{ "ratingGroup": 1, "name": "x" }] }),
            400,
            "/tariffs/0/price",
        ),
    ];
    let before = world.get(ACCOUNT).await.bytes;
    for (method, path, body, status, pointer) in rows {
        let answer = world.request(method, path, body.to_string()).await;
        answer.expect(status);
        assert_eq!(answer.json()["invalidParams"][0]["param"], pointer, "{body}");
    }
    world.request(Method::PUT, ACCOUNT, "{").await.expect_problem(400, "INVALID_MSG_FORMAT");
    let subscriber = json!({ "accountId": "lab" });
    world.put("/admin/v1/subscribers/tenant-8", &subscriber).await.expect_problem(400, "MANDATORY_IE_MISSING");
    world.request(Method::DELETE, ACCOUNT, Body::empty()).await.expect_problem(405, "");
    assert_eq!(world.get(ACCOUNT).await.bytes, before);
}

#[tokio::test]
async fn a_subscriber_is_found_by_all_its_identifiers_and_no_longer_by_old_ones() {
    let world = lab().await;
    let body =
        |gpsi: &str| json!({ "gpsi": gpsi, "identifiers": ["tenant-7"], "accountId": "lab", "tariffPlanId": "demo" });
    let path = "/admin/v1/subscribers/imsi-001010000077777";
    world.put(path, &body("msisdn-1")).await.expect(201);
    world.put(path, &body("msisdn-2")).await.expect(200);
    for (identifier, status) in [("msisdn-1", 404), ("msisdn-2", 200), ("tenant-7", 200)] {
        world.get(&format!("/admin/v1/subscribers/{identifier}")).await.expect(status);
    }
    world.create(&request(1, json!({ "subscriberIdentifier": "msisdn-2" }))).await.expect(201);
    world.request(Method::DELETE, "/admin/v1/subscribers/msisdn-2", Body::empty()).await.expect(204);
    for identifier in ["imsi-001010000077777", "msisdn-2", "tenant-7"] {
        world.get(&format!("/admin/v1/subscribers/{identifier}")).await.expect(404);
    }
}

/// All items of a list, read in pages of `limit`.
async fn pages(world: &World, path: &str, limit: usize) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let separator = if path.contains('?') { '&' } else { '?' };
        let page = world.get(&format!("{path}{separator}limit={limit}{cursor}")).await;
        page.expect(200);
        let page = page.json();
        let found = page["items"].as_array().unwrap();
        assert!(found.len() <= limit);
        items.extend(found.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

#[tokio::test]
async fn lists_are_the_same_in_pages_of_any_size() {
    let world = World::new().await;
    for number in 1..=3_u32 {
        for subscriber in 1..=4 {
            let body = json!({
                "subscriberIdentifier": format!("imsi-00101000000000{subscriber}"),
                "multipleUnitUsage": [{ "ratingGroup": 10, "requestedUnit": {} }],
            });
            let created = world.create(&request(number, body)).await;
            created.expect(201);
            if number == 1 {
                let release = request(number + 1, json!({ "subscriberIdentifier": null }));
                world.release(&created, &release).await.expect(204);
            }
        }
    }
    let lists = [
        ("/admin/v1/charging-sessions", 8),
        ("/admin/v1/charging-sessions?supi=imsi-001010000000002", 2),
        ("/admin/v1/charging-sessions?accountId=demo-0003", 2),
        ("/admin/v1/cdrs", 4),
        ("/admin/v1/cdrs?supi=msisdn-32470000004", 1),
        ("/admin/v1/accounts/demo-0001/entries", 5),
        ("/admin/v1/tariff-plans", 1),
    ];
    for (path, count) in lists {
        let whole = pages(&world, path, 500).await;
        assert_eq!(whole.len(), count, "{path}");
        for limit in [1, 2, 3] {
            assert_eq!(pages(&world, path, limit).await, whole, "{path} in pages of {limit}");
        }
    }
    for wrong in ["limit=0", "limit=501", "limit=x", "cursor=nonsense"] {
        world
            .get(&format!("/admin/v1/accounts/demo-0001/entries?{wrong}"))
            .await
            .expect_problem(400, "INVALID_QUERY_PARAM");
    }
}

#[tokio::test]
async fn one_call_shows_what_a_session_cost_and_why() {
    let world = World::new().await;
    let usage = json!([{ "ratingGroup": 10, "requestedUnit": {} }, { "ratingGroup": 60, "requestedUnit": {} }]);
    let created = world.create(&request(1, json!({ "multipleUnitUsage": usage }))).await;
    let path = format!("/admin/v1/charging-sessions/{}/explanation", created.reference());
    let open = world.get(&path).await.json();
    assert!(open["closed"].is_null());
    assert_eq!(open["ratingGroups"][0]["quotas"][0]["lastAnswer"]["granted"], json!({ "totalVolume": 10_485_760 }));

    world.tick(60);
    let used = json!([{ "ratingGroup": 10, "usedUnitContainer": [
        { "localSequenceNumber": 1, "totalVolume": 3_000_000, "quotaManagementIndicator": "ONLINE_CHARGING" },
    ] }]);
    world.release(&created, &request(2, json!({ "multipleUnitUsage": used }))).await.expect(204);
    let mut closed = world.get(&path).await.json();
    assert_eq!(closed["ref"].take(), json!(created.reference()));
    insta::assert_json_snapshot!(closed);
    world.get("/admin/v1/charging-sessions/none/explanation").await.expect_problem(404, "CONTEXT_NOT_FOUND");
}

#[tokio::test]
async fn the_ledger_explains_every_change_of_the_balance() {
    let world = World::new().await;
    let created =
        world.create(&request(1, json!({ "multipleUnitUsage": [{ "ratingGroup": 10, "requestedUnit": {} }] }))).await;
    let usage =
        json!([{ "ratingGroup": 10, "usedUnitContainer": [{ "localSequenceNumber": 1, "totalVolume": 3_000_000 }] }]);
    world.release(&created, &request(2, json!({ "multipleUnitUsage": usage }))).await.expect(204);
    let entries = pages(&world, "/admin/v1/accounts/demo-0001/entries", 500).await;
    let told: Vec<_> = (entries.iter())
        .map(|entry| ["kind", "amount", "before", "after"].map(|member| entry[member].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ["release", "0.070000", "9.970000", "9.970000"],
        ["debit", "0.030000", "10.000000", "9.970000"],
        ["reserve", "0.100000", "10.000000", "10.000000"],
        ["credit", "10.000000", "0.000000", "10.000000"],
    ];
    assert_eq!(told, expected);
    assert_eq!(entries[1]["units"], 3_000_000);
    assert_eq!(entries[1]["ref"], created.reference());
    assert_eq!(entries[1]["invocationSequenceNumber"], 2);
}

#[tokio::test]
async fn a_plan_changes_by_versions_and_reads_back_as_it_was_put() {
    let world = World::new().await;
    let demo = world.get("/admin/v1/tariff-plans/demo").await.json();
    assert_eq!(demo["version"], 1);
    let mut body = demo.clone();
    for answered in ["id", "version"] {
        body.as_object_mut().unwrap().remove(answered);
    }
    let same = world.put("/admin/v1/tariff-plans/demo", &body).await;
    assert_eq!(same.expect(200).json(), demo, "what is equal is no new version");
    body["tariffs"][0]["price"]["amount"] = json!("0.02");
    let changed = world.put("/admin/v1/tariff-plans/demo", &body).await.json();
    assert_eq!(changed["version"], 2);
    assert_eq!(changed["tariffs"][0]["price"]["amount"], "0.020000");
}

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
    assert!(first > date_time(START).unwrap());

    world.tick(60);
    world.update(&created, &request(2, asks)).await.expect(200);
    let second = expires_at(&world.get(&path).await);
    assert_eq!(second.since(first), Span::from_secs(60));
}
