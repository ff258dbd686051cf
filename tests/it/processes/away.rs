//! Redis is away for a while: who asks is answered in time, and who starts waits.

use std::time::Duration;

use tokio::time::Instant;

use super::instance::Place;
use super::network_function::{Traffic, Way, create};
use crate::store::server::Server;
use crate::support::world::CONVERGED;

/// For a machine that is busy.
const SLACK: Duration = Duration::from_millis(600);

#[tokio::test]
async fn an_instance_that_is_started_while_redis_is_away_serves_when_it_is_back() {
    let mut server = Server::redis(&["--appendonly", "yes"]);
    let place = Place::new(&server.url(), "store.durability = 'memory'");
    place.start().await.stop().await;
    server.kill();
    let away = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_secs(1));
        server.restart();
        server
    });
    // Answers when it serves, and fails when it ends before.
    let instance = place.start().await;
    let _server = away.await.unwrap();
    let way = Way::to(&instance);
    way.provision(1).await;
    Traffic::of(1).play_one(&way).await;
    instance.stop().await;
}

#[tokio::test]
async fn whoever_asks_while_redis_takes_no_writes_is_answered_in_time() {
    let server = Server::redis(&[]);
    let settings = "store.durability = 'memory'\nstore.deadline_ms = 1000\nhttp.deadline_ms = 1100";
    let instance = Place::at([0, 0], &server.url(), settings).start().await;
    let way = Way::to(&instance);
    way.provision(1).await;
    server.ask(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    // One after another, because they are of one account: each of them could wait for all of those before it.
    let asked = (0..30).map(|session| {
        let way = way.clone();
        tokio::spawn(async move {
            let start = Instant::now();
            let answer = way.charge_at_once(CONVERGED, &create(session, 1)).await;
            (answer.status.as_u16(), start.elapsed())
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        let (status, after) = asked.await.unwrap();
        assert!([503, 504].contains(&status), "{status}");
        // Other tests take their time.
        assert!(after < Duration::from_millis(1200) + SLACK, "answered {status} after {after:?}");
    }
    server.ask(&["CLIENT", "UNPAUSE"]);
    way.charge(CONVERGED, &create(100, 1)).await.expect(201);
    instance.stop().await;
}
