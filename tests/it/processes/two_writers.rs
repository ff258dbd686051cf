//! Several instances that write records at once: one dies for good, one is frozen, two are given one directory.

use std::time::Duration;

use tokio::time::sleep;

use super::instance::{Place, has_open_file};
use super::network_function::{Traffic, Way};
use super::published::{Mediation, assert_at_rest, assert_each_once};
use super::until;
use crate::store::server::Server;

const QUICK: &str = "
    store.durability = 'memory'
    cdr.takeover_secs = 1
    cdr.rotate_secs = 1
    cdr.rotate_records = 30
";

#[tokio::test]
async fn what_a_dead_instance_has_not_published_is_taken_over() {
    let server = Server::redis(&[]);
    // It begins a file when there are 250 records, and these do not fit: so it dies with a file that is not out.
    let dies = Place::new(&server.url(), &QUICK.replace("30", "250").replace("rotate_secs = 1", "rotate_secs = 600"));
    let takes_over = Place::new(&server.url(), QUICK);
    let mediations = [&dies, &takes_over].map(|place| Mediation::new(place.records()));
    let traffic = Traffic::of(10);

    let mut dying = dies.start_with_files_of_at_most(128).await;
    let way = Way::to(&dying);
    way.provision(traffic.subscribers).await;
    traffic.play(&way, 260).await;
    until("it has begun a file", async || dying.says("records cannot be written") > 0).await;
    dying.kill();

    let instance = takes_over.start().await;
    way.now_to(&instance);
    traffic.play(&way, 20).await;
    let closed = traffic.closed();
    until("all records are published", async || mediations[1].records().len() >= closed.len()).await;
    assert!(instance.says("are taken over") > 0);
    traffic.assert_charged(&way, &mediations[1].records()).await;
    instance.stop().await;
    assert_each_once(&mediations[1].records(), &closed);
    assert_eq!(mediations[0].collect(), 0);
    assert_at_rest(&takes_over.records());
}

/// Longer than a directory counts as attended to.
const FROZEN: Duration = Duration::from_secs(2);

#[tokio::test]
async fn an_instance_that_was_frozen_publishes_nothing_that_another_has_taken_over() {
    let server = Server::redis(&[]);
    let places = [QUICK, QUICK].map(|settings| Place::new(&server.url(), settings));
    let mediations = [&places[0], &places[1]].map(|place| Mediation::new(place.records()));
    let traffic = Traffic::of(10);
    let instances = [places[0].start().await, places[1].start().await];
    let ways = [Way::to(&instances[0]), Way::to(&instances[1])];
    ways[0].provision(traffic.subscribers).await;
    let players: Vec<_> = (0..6).map(|player| traffic.go_on(&ways[player % 2])).collect();
    for frozen in [0, 1, 0, 1] {
        // While it writes a file, as far as that can be seen in time.
        for _ in 0..2000 {
            if has_open_file(&places[frozen].records()) {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        instances[frozen].freeze();
        sleep(FROZEN).await;
        instances[frozen].wake();
    }
    traffic.end();
    for player in players {
        player.await.unwrap();
    }
    let closed = traffic.closed();
    let records = || mediations.iter().flat_map(Mediation::records).collect::<Vec<_>>();
    until("all records are published", async || records().len() >= closed.len()).await;
    traffic.assert_charged(&ways[0], &records()).await;
    println!("taken over: {}", instances.iter().map(|instance| instance.says("are taken over")).sum::<usize>());
    for instance in instances {
        instance.stop().await;
    }
    assert_each_once(&records(), &closed);
    places.iter().for_each(|place| assert_at_rest(&place.records()));
}

#[tokio::test]
async fn of_two_instances_with_one_directory_one_writes_and_the_other_follows_it() {
    let server = Server::redis(&[]);
    let place = Place::new(&server.url(), QUICK);
    let mediation = Mediation::new(place.records());
    let traffic = Traffic::of(10);

    let mut first = place.start().await;
    let way = Way::to(&first);
    way.provision(traffic.subscribers).await;
    let second = place.start().await;
    let other_way = Way::to(&second);
    tokio::join!(traffic.play(&way, 50), traffic.play(&other_way, 50));
    until("the first one writes", async || mediation.collect() > 0).await;
    tokio::join!(traffic.play(&way, 50), traffic.play(&other_way, 50));
    first.kill();
    traffic.play(&other_way, 50).await;

    let closed = traffic.closed();
    until("all records are published", async || mediation.records().len() >= closed.len()).await;
    traffic.assert_charged(&other_way, &mediation.records()).await;
    second.stop().await;
    assert_each_once(&mediation.records(), &closed);
    assert_at_rest(&place.records());
}
