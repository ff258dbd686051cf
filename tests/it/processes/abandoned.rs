//! Sessions whose consumers have gone, and instances that go too.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::instance::Place;
use super::network_function::{Way, account, create, micros, update};
use super::published::{Mediation, assert_at_rest, assert_each_once};
use super::until;
use crate::notify::stub::nobody;
use crate::store::server::Server;
use crate::support::world::CONVERGED;

/// TS 32.298 `CauseForRecClosing`.
const ABNORMAL_RELEASE: u64 = 4;

const SUBSCRIBERS: u32 = 50;

/// Opens a session; every other one reports a MiB, and one of four wants to be notified where nobody is.
async fn abandon(way: &Way, session: u32, subscriber: u32, notify_uri: &str) -> String {
    let mut body = create(session, subscriber);
    if session.is_multiple_of(4) {
        body["notifyUri"] = json!(notify_uri);
    }
    let created = way.charge(CONVERGED, &body).await;
    created.expect(201);
    if session.is_multiple_of(2) {
        way.charge(&format!("{}/update", created.path()), &update(2, 1)).await.expect(200);
    }
    created.reference()
}

async fn abandon_all(way: &Way, sessions: u32, subscribers: u32) -> BTreeSet<String> {
    let notify_uri = format!("http://{}/", nobody().await);
    let at_once = 16;
    let consumers = (0..at_once).map(|consumer| {
        let (way, notify_uri) = (way.clone(), notify_uri.clone());
        tokio::spawn(async move {
            let mut abandoned = Vec::new();
            for session in (consumer..sessions).step_by(at_once as usize) {
                abandoned.push(abandon(&way, session, session % subscribers + 1, &notify_uri).await);
            }
            abandoned
        })
    });
    let mut abandoned = BTreeSet::new();
    for consumer in consumers.collect::<Vec<_>>() {
        abandoned.extend(consumer.await.unwrap());
    }
    abandoned
}

#[tokio::test]
async fn sessions_whose_time_passed_while_no_instance_ran_are_closed_and_recorded() {
    let server = Server::redis(&[]);
    let settings = "
        store.durability = 'memory'
        timers.supervision_secs = 6
        timers.probe_guard_secs = 1
        timers.validity_grace_secs = 1
        cdr.rotate_secs = 1
    ";
    let places = [Place::new(&server.url(), settings), Place::new(&server.url(), settings)];
    let mediations = [&places[0], &places[1]].map(|place| Mediation::new(place.records()));
    let mut first = places[0].start().await;
    let mut second = places[1].start().await;
    let way = Way::to(&first);
    way.provision(SUBSCRIBERS).await;
    let abandoned = abandon_all(&way, 1000, SUBSCRIBERS).await;
    first.kill();
    second.kill();
    assert_eq!(abandoned.len(), 1000);
    // Supervision, probe and validity all end while nobody is there.
    sleep(Duration::from_secs(8)).await;

    let first = places[0].start().await;
    let second = places[1].start().await;
    way.now_to(&first);
    let records = || mediations.iter().flat_map(Mediation::records).collect::<Vec<_>>();
    until("all records are published", async || records().len() >= abandoned.len()).await;
    assert_abandoned(&way, &records(), SUBSCRIBERS).await;
    let open = way.get("charging-sessions?limit=500").await;
    assert_eq!(open["items"], json!([]));
    first.stop().await;
    second.stop().await;
    assert_each_once(&records(), &abandoned);
    places.iter().for_each(|place| assert_at_rest(&place.records()));
}

/// Every record closed abnormally, and what was reported is all that was debited.
async fn assert_abandoned(way: &Way, records: &[Value], subscribers: u32) {
    for record in records {
        assert_eq!(record["causeForRecClosing"], ABNORMAL_RELEASE, "{record}");
    }
    for subscriber in 1..=subscribers {
        let of_account = records.iter().filter(|record| record["accountId"] == account(subscriber));
        let charged: u64 = of_account.map(|record| micros(&record["charged"])).sum();
        assert_eq!(way.debited(subscriber).await, charged);
    }
    let charged: u64 = records.iter().map(|record| micros(&record["charged"])).sum();
    assert_eq!(charged, records.len() as u64 / 2 * 10_000);
}

#[tokio::test]
async fn what_a_killed_instance_had_claimed_is_done_by_another_one() {
    let server = Server::redis(&[]);
    let settings = "
        store.durability = 'memory'
        timers.supervision_secs = 6
        timers.probe_guard_secs = 1
        cdr.rotate_secs = 1
    ";
    let places = [Place::new(&server.url(), settings), Place::new(&server.url(), settings)];
    let mut claims = places[0].start().await;
    let way = Way::to(&claims);
    way.provision(1).await;
    // All of one account, so that they are claimed in one go and closed one after another.
    let abandoned = abandon_all(&way, 200, 1).await;
    claims.freeze();
    sleep(Duration::from_secs(7)).await;
    claims.wake();
    let is_open = async |way: &Way| {
        let path = format!("charging-sessions?accountId={}&limit=500", account(1));
        way.get(&path).await["items"].as_array().unwrap().len()
    };
    until("the first ones are closed", async || is_open(&way).await < 200).await;
    claims.kill();

    let other = places[1].start().await;
    let way = Way::to(&other);
    until("the others are closed", async || is_open(&way).await == 0).await;
    // The first directory's records come when its instance does, if it was about to publish them.
    let first = places[0].start().await;
    let mediations = [&places[0], &places[1]].map(|place| Mediation::new(place.records()));
    let records = || mediations.iter().flat_map(Mediation::records).collect::<Vec<_>>();
    until("all records are published", async || records().len() >= abandoned.len()).await;
    assert_abandoned(&way, &records(), 1).await;
    first.stop().await;
    other.stop().await;
    assert_each_once(&records(), &abandoned);
}
