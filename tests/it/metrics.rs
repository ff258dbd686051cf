//! What an instance tells about what lies in the store, and the rules that watch it.

use std::collections::BTreeSet;

use nchf::telemetry::{NotificationLabels, OperationLabel, QueueLabel, RefusalLabels, RequestLabels, StoreErrorLabel};
use serde_json::json;

use crate::support::World;
use crate::support::world::request;
use crate::workers::Running;

fn exposition(world: &World) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.app.shared.metrics.registry()).unwrap();
    text
}

/// The value of a sample, by its name and labels as they are written.
fn sample(world: &World, name: &str) -> f64 {
    let text = exposition(world);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn money_in_flight_and_what_waits_can_be_watched() {
    let mut running = Running::new().await;
    running.round().await;
    assert_eq!(sample(&running.world, "nchf_open_sessions"), 0.0);
    let usage = json!([{ "ratingGroup": 10, "requestedUnit": {} }]);
    let created = running.world.create(&request(1, json!({ "multipleUnitUsage": usage }))).await;
    running.world.tick(60);
    running.round().await;
    assert_eq!(sample(&running.world, "nchf_open_sessions"), 1.0);
    assert_eq!(sample(&running.world, r#"nchf_reserved{unit="EUR"}"#), 0.1);
    assert_eq!(sample(&running.world, "nchf_reservation_age_seconds"), 60.0);
    assert_eq!(sample(&running.world, "nchf_worker_rounds_total"), 2.0);

    running.world.release(&created, &request(2, json!({}))).await.expect(204);
    running.world.tick(30);
    running.round().await;
    assert_eq!(sample(&running.world, "nchf_open_sessions"), 0.0);
    assert_eq!(sample(&running.world, r#"nchf_reserved{unit="EUR"}"#), 0.0);
    assert_eq!(sample(&running.world, "nchf_reservation_age_seconds"), 0.0);
    assert_eq!(sample(&running.world, r#"nchf_outbox_entries{queue="records"}"#), 1.0);
    assert_eq!(sample(&running.world, r#"nchf_outbox_age_seconds{queue="records"}"#), 30.0);
    running.world.tick(900);
    running.round().await;
    running.round().await;
    assert_eq!(sample(&running.world, r#"nchf_outbox_entries{queue="records"}"#), 0.0);
    assert_eq!(sample(&running.world, r#"nchf_outbox_age_seconds{queue="records"}"#), 0.0);
    assert_eq!(sample(&running.world, "nchf_cdrs_total"), 1.0);
}

#[tokio::test]
async fn every_request_is_counted_by_what_was_answered() {
    let world = World::new().await;
    let asks = |group: u32| json!({ "multipleUnitUsage": [{ "ratingGroup": group, "requestedUnit": {} }] });
    let created = world.create(&request(1, asks(10))).await;
    world.update(&created, &request(2, asks(10))).await.expect(200);
    world.update(&created, &request(3, asks(999))).await.expect(200);
    world.update(&created, &request(3, asks(999))).await.expect(200);
    world.update(&created, &json!({})).await.expect(400);
    world.release(&created, &request(4, json!({}))).await.expect(204);
    let used = json!([{ "localSequenceNumber": 1, "totalVolume": 1000 }]);
    let late = json!({ "multipleUnitUsage": [{ "ratingGroup": 10, "usedUnitContainer": used }] });
    world.update(&created, &request(5, late)).await.expect(410);
    for (sampled, count) in [
        (r#"requests_total{operation="create",status="201",cause=""}"#, 1.0),
        (r#"requests_total{operation="update",status="200",cause=""}"#, 3.0),
        (r#"requests_total{operation="update",status="400",cause="MANDATORY_IE_MISSING"}"#, 1.0),
        (r#"requests_total{operation="update",status="410",cause=""}"#, 1.0),
        (r#"requests_total{operation="release",status="204",cause=""}"#, 1.0),
        (r#"request_duration_seconds_count{operation="create"}"#, 1.0),
        (r#"request_duration_seconds_count{operation="update"}"#, 5.0),
        (r#"request_duration_seconds_count{operation="release"}"#, 1.0),
        (r#"rating_group_results_total{result_code="SUCCESS"}"#, 2.0),
        (r#"rating_group_results_total{result_code="RATING_FAILED"}"#, 2.0),
        (r#"replays_total{operation="update"}"#, 1.0),
    ] {
        assert_eq!(sample(&world, &format!("nchf_{sampled}")), count, "{sampled}");
    }
}

/// Rules over metrics that are not there never fire, and nobody notices.
#[tokio::test]
async fn alert_rules_speak_of_metrics_that_there_are() {
    let world = World::new().await;
    // What has labels is shown once there is something to label.
    let metrics = &world.app.shared.metrics;
    metrics.requests.get_or_create(&RequestLabels { operation: "create", status: 201, cause: "" }).inc();
    metrics.refusals.get_or_create(&RefusalLabels { limit: "listener", class: "create" }).inc();
    metrics.latency.get_or_create(&OperationLabel { operation: "create" }).observe(0.0);
    metrics.store_errors.get_or_create(&StoreErrorLabel { kind: "unavailable" }).inc();
    metrics.notifications.get_or_create(&NotificationLabels { notification: "abort", outcome: "refused" }).inc();
    metrics.outbox_age.get_or_create(&QueueLabel { queue: "records" }).set(0.0);
    let text = exposition(&world);
    let known: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let rules = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/alerts.yaml")).unwrap();
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let expressions = rules.lines().filter(|line| !line.trim_start().starts_with(['#', 'd']));
    let mut named = 0;
    for name in
        expressions.flat_map(|line| line.split(|letter| !is_of_name(letter))).filter(|word| word.starts_with("nchf_"))
    {
        let stem = ["_total", "_bucket"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(known.contains(stem), "{name} is none of {known:?}");
        named += 1;
    }
    assert!(named > 10);
}
