//! The charging services over a real Redis: what a request costs there, what its absence does, what its keys tell.

use std::sync::Arc;
use std::time::Duration;

use nchf::clock::{Clock, ManualClock, SystemClock};
use nchf::config::Config;
use nchf::store::Durability;
use nchf::store::redis::{RedisStore, Settings};
use serde_json::{Value, json};

use crate::store::redis::settings;
use crate::store::sentinel::{REPLICATED, Watched};
use crate::store::server::{Program, Server};
use crate::support::world::request;
use crate::support::{Answer, World};

/// Redis' own clock counts the time to live, so the world's stands where the machine's does.
async fn world_on(server: &Server) -> World {
    world_with(settings(server)).await
}

async fn world_with(settings: Settings) -> World {
    let store = RedisStore::open(settings).await.unwrap();
    let mut config = Config::default();
    // The world's clock stands: an outcome that is unknown is told at once.
    config.http.deadline_ms = 0;
    World::over(Arc::new(store), ManualClock::at(SystemClock.now()), config).await
}

fn asks(number: u32) -> Value {
    let container = json!([{ "localSequenceNumber": number, "totalVolume": 1000 }]);
    let usage = |group: u32| json!({ "ratingGroup": group, "requestedUnit": {}, "usedUnitContainer": container });
    request(number, json!({ "multipleUnitUsage": [usage(10), usage(40)] }))
}

/// Sends an Update until it is answered.
async fn is_answered_at_last(world: &World, session: &Answer, body: &Value) {
    let mut answer = world.update(session, body).await;
    for _ in 0..100 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = world.update(session, body).await;
    }
    answer.expect(200);
}

#[tokio::test]
async fn an_update_takes_two_round_trips() {
    let server = Server::redis(&[]);
    let world = world_on(&server).await;
    let created = world.create(&asks(1)).await;
    let calls = || (server.calls_of("mget"), server.calls_of("fcall"), server.calls_of("get"));
    let before = calls();
    world.update(&created, &asks(2)).await.expect(200);
    let (loads, commits, others) = calls();
    assert_eq!((loads - before.0, commits - before.1, others - before.2), (1, 1, 0));
}

#[tokio::test]
async fn a_store_that_is_away_is_answered_503_and_served_again_when_it_is_back() {
    let mut server = Server::redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    let world = world_on(&server).await;
    let created = world.create(&asks(1)).await;
    created.expect(201);

    server.kill();
    for _ in 0..3 {
        let refused = world.update(&created, &asks(2)).await;
        // The first one may have found the connection cut in its midst, and then nobody knows.
        assert!([503, 504].contains(&refused.status.as_u16()), "{refused:?}");
        if refused.status == 503 {
            assert_eq!(refused.header("retry-after"), "1");
            refused.expect_problem(503, "NF_CONGESTION");
        }
    }
    world.update(&created, &asks(2)).await.expect_problem(503, "NF_CONGESTION");

    server.restart();
    is_answered_at_last(&world, &created, &asks(2)).await;
    assert_eq!(world.balance("demo-0001", "main", "amount").await, "9.990000", "charged once");
}

#[tokio::test]
async fn a_copy_is_answered_when_the_replicas_have_what_the_first_one_did() {
    for program in Program::all() {
        let watched = Watched::new(&program, 1, 1, REPLICATED);
        let hasty = Settings { deadline: Duration::from_millis(1000), ..watched.settings() };
        let world = world_with(Settings { durability: Durability::Replicated, replicas: 1, ..hasty }).await;
        let created = world.create(&asks(1)).await;
        created.expect(201);
        watched.servers[1].pause();
        // Made, but not where it has to be: nobody is told, the first time and each time after.
        let first = world.update(&created, &asks(2)).await;
        assert_eq!(first.status, 504, "{first:?}");
        // Its work goes on until the store's deadline, and keeps its turn.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        // Also when Redis refuses to confirm it, because its replicas have been silent for too long.
        for _ in 0..2 {
            assert_eq!(world.update(&created, &asks(2)).await.status, 504);
            tokio::time::sleep(Duration::from_millis(1200)).await;
            watched.servers[0].ask(&["CONFIG", "SET", "min-replicas-to-write", "2"]);
        }
        watched.servers[0].ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        watched.servers[1].resume();
        is_answered_at_last(&world, &created, &asks(2)).await;
        assert_eq!(world.balance("demo-0001", "main", "amount").await, "9.990000", "charged once");

        // Nor is anybody refused for what the replicas may not know.
        let document = watched.servers[0]
            .keys()
            .into_iter()
            .find(|key| key.contains(&format!("s:{}", created.reference())))
            .unwrap();
        watched.servers[0].ask(&["DEL", &document]);
        world.update(&created, &asks(3)).await.expect(404);
        watched.servers[1].pause();
        assert_eq!(world.update(&created, &asks(3)).await.status, 504);
        watched.servers[1].resume();
    }
}

#[tokio::test]
async fn a_session_is_one_document_with_a_time_to_live_and_no_key_names_anybody() {
    let server = Server::redis(&[]);
    let world = world_on(&server).await;
    let created = world.create(&asks(1)).await;
    let keys = server.keys();
    let documents: Vec<_> = keys.iter().filter(|key| key.contains(&format!("s:{}", created.reference()))).collect();
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert!(server.ask_number(&["PTTL", documents[0]]) > 86_400_000);
    server.ask_number(&["PEXPIRE", documents[0], "5000"]);
    world.update(&created, &asks(2)).await.expect(200);
    assert!(server.ask_number(&["PTTL", documents[0]]) > 86_400_000, "an update renews it");
    for key in &keys {
        for identity in ["00101000000", "3247000", "demo-0"] {
            assert!(!key.contains(identity), "{key}");
        }
    }
}
