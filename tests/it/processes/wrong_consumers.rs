//! Consumers that answer every notification wrong, or not at all.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::instance::Place;
use super::network_function::{Way, create, release, update};
use super::published::{Mediation, assert_each_once};
use super::until;
use crate::notify::stub::{LOCAL, Peer, Says, Stub, nobody};
use crate::support::world::CONVERGED;

const SUBSCRIBERS: u32 = 12;

/// Sessions with each of the consumers.
const SESSIONS: u32 = 20;

#[tokio::test]
async fn consumers_that_answer_wrong_cost_no_request_anything_and_their_sessions_end() {
    let place = Place::embedded(
        "
        store.durability = 'memory'
        timers.abort_guard_secs = 4
        notify.deadline_ms = 500
        notify.retry_first_ms = 50
        notify.retry_max_secs = 1
        cdr.rotate_secs = 1
        ",
    );
    let mediation = Mediation::new(place.records());
    let instance = place.start().await;
    let way = Way::to(&instance);
    way.provision(SUBSCRIBERS).await;

    let stubs = [
        Stub::always(Says::Status(500)).await,
        Stub::always(Says::With(200, "this is no JSON")).await,
        Stub::always(Says::With(204, "and this no content")).await,
        Stub::always(Says::Long(1 << 40)).await,
        Stub::always(Says::Drips).await,
        Stub::always(Says::Never).await,
        Stub::start(|received| Says::Header(307, "location", received.uri.clone())).await,
        Stub::start(|received| Says::Header(308, "location", format!("{}/more", received.uri))).await,
        Stub::always(Says::Header(503, "retry-after", "4000000000".to_owned())).await,
    ];
    let peers = [
        Peer::start(async |socket| drop(socket)).await,
        Peer::start(async |_socket| sleep(Duration::from_secs(600)).await).await,
        Peer::saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await,
        Peer::saying(b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").await,
        Peer::start(resets).await,
    ];
    // Its backlog takes connections, and nobody ever looks at them.
    let deaf = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let addresses = [deaf.local_addr().unwrap(), nobody().await];
    let addresses = stubs.iter().map(|stub| stub.address).chain(peers.iter().map(|peer| peer.address)).chain(addresses);
    let addresses: Vec<SocketAddr> = addresses.collect();

    let mut numbers = 0..;
    let mut expected = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for address in &addresses {
        for _ in 0..SESSIONS {
            let session = numbers.next().unwrap();
            let mut body = create(session, session % SUBSCRIBERS + 1);
            body["notifyUri"] = json!(format!("http://{address}/callback/{session}"));
            // Whoever can follow redirections is asked to.
            body["supportedFeatures"] = json!("80");
            let created = way.charge_at_once(CONVERGED, &body).await;
            created.expect(201);
            wrong.push(created.reference());
        }
    }
    for reference in &wrong {
        way.operate(Method::POST, &format!("charging-sessions/{reference}/reauthorize"), &Value::Null)
            .await
            .expect(202);
    }
    for reference in &wrong {
        way.operate(Method::POST, &format!("charging-sessions/{reference}/abort"), &Value::Null).await.expect(202);
    }

    // Asked once each: none is refused, none remains without an answer.
    let is_closed = async || {
        let closed = mediation.records();
        wrong.iter().filter(|session| closed.iter().any(|record| record["ref"] == **session)).count()
    };
    while is_closed().await < wrong.len() {
        let session = numbers.next().unwrap();
        let created = way.charge_at_once(CONVERGED, &create(session, session % SUBSCRIBERS + 1)).await;
        created.expect(201);
        way.charge_at_once(&format!("{}/update", created.path()), &update(2, 3)).await.expect(200);
        way.charge_at_once(&format!("{}/release", created.path()), &release(3, 1)).await.expect(204);
        expected.insert(created.reference());
    }
    assert!(stubs.iter().all(|stub| !stub.received().is_empty()), "each was told");
    assert!(peers.iter().all(|peer| peer.accepted() > 0), "each was told");

    let not_released = |record: &&Value| record["causeForRecClosing"] == 4;
    expected.extend(wrong.iter().cloned());
    until("all records are published", async || mediation.records().len() >= expected.len()).await;
    assert_eq!(mediation.records().iter().filter(not_released).count(), wrong.len());
    for subscriber in 1..=SUBSCRIBERS {
        way.debited(subscriber).await;
    }
    instance.stop().await;
    assert_each_once(&mediation.records(), &expected);
}

/// Resets every stream.
async fn resets(socket: TcpStream) {
    let service = service_fn(|_: Request<Incoming>| {
        std::future::ready(Err::<Response<Full<Bytes>>, _>(io::Error::other("no answer")))
    });
    let _ended = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
}
