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
