//! An instance is free the moment it has answered: what is open costs it nothing.

use super::instance::Place;
use super::network_function::{Way, create};
use crate::store::server::Server;
use crate::support::world::CONVERGED;

/// Opened after half as many; another number for a measurement is `NCHF_TEST_SESSIONS`.
const SESSIONS: u32 = 10_000;

/// Generous: a session's document alone is some 600 octets.
const OCTETS_PER_SESSION_MAX: u64 = 300;

async fn open(way: &Way, sessions: std::ops::Range<u32>) {
    let at_once = 16;
    let consumers = (0..at_once).map(|consumer| {
        let (way, sessions) = (way.clone(), sessions.clone());
        tokio::spawn(async move {
            for session in sessions.skip(consumer).step_by(at_once) {
                way.charge(CONVERGED, &create(session, session % 100 + 1)).await.expect(201);
            }
        })
    });
    for consumer in consumers.collect::<Vec<_>>() {
        consumer.await.unwrap();
    }
}

#[tokio::test]
async fn memory_does_not_grow_with_open_sessions() {
    let given = std::env::var_os("NCHF_TEST_SESSIONS").map(|count| count.to_str().unwrap().parse().unwrap());
    let sessions: u32 = given.unwrap_or(SESSIONS);
    let server = Server::redis(&[]);
    let instance = Place::new(&server.url(), "store.durability = 'memory'").start().await;
    let way = Way::to(&instance);
    way.provision(100).await;
    // Connections, buffers and the allocator's own reach what they take.
    let first = sessions / 2;
    open(&way, 0..first).await;
    let before = instance.resident_octets();
    open(&way, first..first + sessions).await;
    let after = instance.resident_octets();
    let per_session = after.saturating_sub(before) / u64::from(sessions);
    println!(
        "resident with {first} open sessions {before}, with {} {after}: {per_session} octets each",
        first + sessions
    );
    assert!(per_session < OCTETS_PER_SESSION_MAX, "{before} octets, then {after}");
    instance.stop().await;
}
