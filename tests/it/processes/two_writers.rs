//! Several instances that write records at once: one dies for good, one is frozen, two are given one directory.

use super::instance::Place;
use super::network_function::{Traffic, Way};
use super::published::{Mediation, assert_at_rest, assert_each_once};
use super::until;
use crate::store::server::Server;

const QUICK: &str = "
    store.durability = 'memory'
    cdr.takeover_secs = 2
    cdr.rotate_secs = 1
";

#[tokio::test]
async fn what_a_dead_or_a_frozen_instance_has_not_published_is_taken_over() {
    let server = Server::redis(&[]);
    let [dies, freezes, takes_over] = [(); 3].map(|()| Place::new(&server.url(), QUICK));
    let mediations = [&dies, &freezes, &takes_over].map(|place| Mediation::new(place.records()));
    let traffic = Traffic::of(10);

    // Both have taken records into a file and cannot write it: otherwise that is a matter of milliseconds.
    let cannot_write = "free some space there: records wait in the store";
    let mut dying = dies.start_with_files_of_at_most(4).await;
    let way = Way::to(&dying);
    way.provision(traffic.subscribers).await;
    traffic.play(&way, 20).await;
    until("it has an open file", async || dying.says(cannot_write) > 0).await;
    dying.kill();

    let freezing = freezes.start_with_files_of_at_most(4).await;
    let way_to_frozen = Way::to(&freezing);
    traffic.play(&way_to_frozen, 20).await;
    until("it has an open file", async || freezing.says(cannot_write) > 0).await;
    freezing.freeze();

    let instance = takes_over.start().await;
    way.now_to(&instance);
    let of_both = traffic.closed();
    until("the records of both come out", async || {
        let records = mediations[2].records();
        of_both.iter().all(|session| records.iter().any(|record| record["ref"] == **session))
    })
    .await;
    assert!(instance.says("are taken over") > 0);

    // It wakes up while there is more to write, and goes on with that.
    let players = [traffic.go_on(&way), traffic.go_on(&way)];
    freezing.let_files_grow();
    freezing.wake();
    traffic.play(&way_to_frozen, 100).await;
    until("it publishes again", async || mediations[1].collect() > 0).await;
    traffic.end();
    for player in players {
        player.await.unwrap();
    }
    let closed = traffic.closed();
    let records = || mediations.iter().flat_map(Mediation::records).collect::<Vec<_>>();
    freezing.stop().await;
    until("all records are published", async || records().len() >= closed.len()).await;
    assert_each_once(&records(), &closed);
    traffic.assert_charged(&way, &records()).await;
    instance.stop().await;
    assert_each_once(&records(), &closed);
    assert_eq!(mediations[0].collect(), 0);
    assert_at_rest(&freezes.records());
    assert_at_rest(&takes_over.records());
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
