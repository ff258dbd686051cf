//! Instances that are killed in the midst of everything, again and again, and started on the same directories.

use std::time::Duration;

use tokio::time::sleep;

use super::instance::{Instance, Place, names};
use super::network_function::{Traffic, Way};
use super::published::{Mediation, assert_at_rest, assert_each_once};
use super::{Random, until};
use crate::store::server::Server;

/// Files are published all the time.
const SETTINGS: &str = "
    store.durability = 'memory'
    cdr.rotate_records = 30
    cdr.rotate_secs = 1
";

#[tokio::test]
async fn two_instances_on_redis_publish_each_record_once() {
    let server = Server::redis(&[]);
    let places = [Place::new(&server.url(), SETTINGS), Place::new(&server.url(), SETTINGS)];
    publishes_each_record_once(&places, 12).await;
}

#[tokio::test]
async fn an_instance_on_the_embedded_store_publishes_each_record_once() {
    // What was answered must be kept through the death of the process that keeps it.
    let settings = SETTINGS.replace("memory", "fsync");
    publishes_each_record_once(&[Place::embedded(&settings)], 6).await;
}

async fn publishes_each_record_once(places: &[Place], kills: u32) {
    let mut random = Random::new();
    let mut instances = Vec::new();
    for place in places {
        instances.push(place.start().await);
    }
    let ways: Vec<Way> = instances.iter().map(Way::to).collect();
    let mediations: Vec<_> = places.iter().map(|place| Mediation::new(place.records())).collect();
    let traffic = Traffic::of(20);
    ways[0].provision(traffic.subscribers).await;
    let players: Vec<_> = (0..8).map(|player| traffic.go_on(&ways[player % ways.len()])).collect();

    for _ in 0..kills {
        let at = usize::try_from(random.below(places.len() as u64)).unwrap();
        moment(&mut random, &places[at]).await;
        instances[at].kill();
        mediations[at].collect();
        instances[at] = places[at].start().await;
        ways[at].now_to(&instances[at]);
    }

    traffic.end();
    for player in players {
        player.await.unwrap();
    }
    let closed = traffic.closed();
    let records = || mediations.iter().flat_map(Mediation::records).collect::<Vec<_>>();
    until("all records are published", async || records().len() >= closed.len()).await;
    assert_each_once(&records(), &closed);
    traffic.assert_charged(&ways[0], &records()).await;
    stop_all(instances).await;
    assert_each_once(&records(), &closed);

    // Nothing comes again.
    let mut again = Vec::new();
    for place in places {
        again.push(place.start().await);
    }
    sleep(Duration::from_secs(1)).await;
    stop_all(again).await;
    assert_eq!(records().len(), closed.len());
    places.iter().for_each(|place| assert_at_rest(&place.records()));
}

/// Any moment, or one soon after a file has begun or got out.
async fn moment(random: &mut Random, place: &Place) {
    if random.below(3) == 0 {
        sleep(random.millis(800)).await;
    } else {
        let before = names(&place.records());
        for _ in 0..2000 {
            if names(&place.records()) != before {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        sleep(random.millis(60)).await;
    }
}

async fn stop_all(instances: Vec<Instance>) {
    for instance in instances {
        instance.stop().await;
    }
}
