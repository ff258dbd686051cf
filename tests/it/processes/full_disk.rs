//! A disk that is full: where records are written and nowhere else, and where everything is.

use super::instance::{Place, names};
use super::network_function::{Traffic, Way};
use super::published::{Mediation, assert_at_rest, assert_each_once};
use super::until;
use crate::store::server::Server;

#[tokio::test]
async fn a_full_disk_holds_up_records_and_nothing_else() {
    let server = Server::redis(&[]);
    let settings = "
        store.durability = 'memory'
        cdr.rotate_records = 10
        cdr.rotate_secs = 1
    ";
    let place = Place::new(&server.url(), settings);
    let mediation = Mediation::new(place.records());
    let traffic = Traffic::of(10);

    // The few octets of the writer's own file fit, ten records do not.
    let full = place.start_with_files_of_at_most(4).await;
    let way = Way::to(&full);
    way.provision(traffic.subscribers).await;
    traffic.play(&way, 60).await;
    until("it says what to do", async || full.says("free some space there: records wait in the store") > 1).await;
    traffic.play(&way, 60).await;
    assert_eq!(mediation.collect(), 0, "{:?}", names(&place.records()));
    full.stop().await;

    let instance = place.start().await;
    way.now_to(&instance);
    traffic.play(&way, 10).await;
    let closed = traffic.closed();
    assert_eq!(closed.len(), 130);
    until("all records are published", async || mediation.records().len() >= closed.len()).await;
    traffic.assert_charged(&way, &mediation.records()).await;
    instance.stop().await;
    assert_each_once(&mediation.records(), &closed);
    assert_at_rest(&place.records());
}

#[tokio::test]
async fn an_embedded_store_without_space_ends_the_process_and_loses_nothing() {
    let place = Place::embedded("cdr.rotate_records = 10\ncdr.rotate_secs = 1");
    let mediation = Mediation::new(place.records());
    let traffic = Traffic::of(10);
    let instance = place.start().await;
    let way = Way::to(&instance);
    way.provision(traffic.subscribers).await;
    instance.stop().await;

    // A quarter of a MiB more, and no other file comes near to it.
    let mut full = place.start_with_files_of_at_most(place.store_length() / 512 + 512).await;
    way.now_to(&full);
    let players: Vec<_> = (0..8).map(|_| traffic.go_on(&way)).collect();
    until("the process ends", async || full.has_ended()).await;
    until("it says why", async || full.says("File too large (os error 27); mend that and start again") > 0).await;

    // Those that were not answered ask on.
    let instance = place.start().await;
    way.now_to(&instance);
    traffic.end();
    for player in players {
        player.await.unwrap();
    }
    let closed = traffic.closed();
    until("all records are published", async || mediation.records().len() >= closed.len()).await;
    assert_each_once(&mediation.records(), &closed);
    traffic.assert_charged(&way, &mediation.records()).await;
    instance.stop().await;
    assert_each_once(&mediation.records(), &closed);
    assert_at_rest(&place.records());
}
