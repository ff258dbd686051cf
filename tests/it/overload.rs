//! More than can be served, through real sockets: who is let in, who is not, and whom that does not concern.

use std::sync::Arc;

use hyper::Request;
use nchf::charging::ids::SubscriberId;
use nchf::clock::ManualClock;
use nchf::config::Config;
use nchf::http::server::Settings;
use nchf::store::AccountKey;
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::server::{Answer, Client, LOCAL, Running, Sent, eventually};
use crate::support::World;
use crate::support::behind::Behind;
use crate::support::faulty::{Faulty, Held};
use crate::support::world::{CONVERGED, START, request};

/// A charging function whose loads can be held, at a listener with these limits.
struct Charging {
    running: Running,
    world: World,
    store: Arc<Behind<Faulty>>,
}

impl Charging {
    async fn start(settings: Settings, config: Config) -> Self {
        let clock = ManualClock::at(START.parse::<jiff::Timestamp>().unwrap().into());
        let store = Faulty::before_memory(&clock);
        let world = World::over(Arc::clone(&store) as Arc<_>, clock, config).await;
        Self { running: Running::serve(settings, None, world.router()).await, world, store }
    }

    fn hold(&self, held: Held) {
        self.store.held.send_replace(held);
    }

    async fn in_flight(&self, count: u32) {
        eventually(|| self.running.server.admission().in_flight() == count).await;
    }

    async fn account_of(&self, subscriber: u32) -> AccountKey {
        let id = SubscriberId::new(supi(subscriber));
        let subscriber = self.world.app.subscriber(id.as_str()).await.unwrap().unwrap();
        self.world.app.shared.refs.account_key(&subscriber.account)
    }
}

fn supi(subscriber: u32) -> String {
    format!("imsi-00101{subscriber:010}")
}

/// A request as a consumer sends it, with a priority if it names one.
fn message(path: &str, subscriber: u32, number: u32, priority: Option<&str>) -> Request<Sent> {
    let usage = json!([{ "ratingGroup": 10, "requestedUnit": {} }]);
    let body = request(number, json!({ "subscriberIdentifier": supi(subscriber), "multipleUnitUsage": usage }));
    let request = Request::post(path).header("content-type", "application/json");
    let request = priority.into_iter().fold(request, |all, priority| all.header("3gpp-sbi-message-priority", priority));
    request.body(Sent::whole(body.to_string())).unwrap()
}

fn create(subscriber: u32) -> Request<Sent> {
    message(CONVERGED, subscriber, 1, None)
}

/// The answer comes when it comes.
fn begin(client: &Client, request: Request<Sent>) -> JoinHandle<Answer> {
    let mut stream = client.another_stream();
    tokio::spawn(async move { stream.ask(request).await })
}

fn path_of(created: &Answer) -> String {
    let location = created.header("location").unwrap();
    location[location.find(CONVERGED).unwrap()..].to_owned()
}

#[track_caller]
fn assert_refused(answer: &Answer) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.text.contains(r#""cause":"NF_CONGESTION""#), "{}", answer.text);
}

/// All of a listener for one peer and one connection of it.
fn alone(in_flight_max: u32) -> Settings {
    Settings {
        in_flight_max,
        in_flight_per_peer_percent: 100,
        in_flight_per_connection_percent: 100,
        ..Settings::default()
    }
}

#[tokio::test]
async fn what_ends_sessions_passes_while_what_opens_them_is_refused() {
    let chf = Charging::start(alone(20), Config::default()).await;
    let mut client = chf.running.http2().await;
    let mut open = Vec::new();
    for subscriber in 1..=6 {
        let created = client.ask(create(subscriber)).await;
        assert_eq!(created.status, 201, "{}", created.text);
        open.push(path_of(&created));
    }
    let mut paths = open.iter().zip(1..);
    let mut next = |operation: &str, priority| {
        let (path, subscriber) = paths.next().unwrap();
        message(&format!("{path}/{operation}"), subscriber, 2, priority)
    };

    // The store stands still. Creates fill 16 of 20 places, Updates the next 3, and Releases the last one.
    chf.hold(Held::Everybody);
    let creates: Vec<_> = (11..=26).map(|subscriber| begin(&client, create(subscriber))).collect();
    chf.in_flight(16).await;
    assert_refused(&client.ask(create(30)).await);
    for no_priority in ["24", "32", "-1", "soon"] {
        assert_refused(&client.ask(message(CONVERGED, 30, 1, Some(no_priority))).await);
    }
    let important = begin(&client, message(CONVERGED, 31, 1, Some("0")));
    chf.in_flight(17).await;
    let updates = [begin(&client, next("update", None)), begin(&client, next("update", Some("24")))];
    chf.in_flight(19).await;
    assert_refused(&client.ask(next("update", None)).await);
    assert_refused(&client.ask(next("release", Some("31"))).await);
    let released = begin(&client, next("release", None));
    chf.in_flight(20).await;
    assert_refused(&client.ask(next("release", None)).await);

    chf.hold(Held::Nobody);
    for created in creates.into_iter().chain([important]) {
        assert_eq!(created.await.unwrap().status, 201);
    }
    for updated in updates {
        assert_eq!(updated.await.unwrap().status, 200);
    }
    assert_eq!(released.await.unwrap().status, 204);
    chf.in_flight(0).await;
    assert_eq!(client.ask(create(30)).await.status, 201);
}

#[tokio::test]
async fn a_noisy_subscriber_leaves_others_served() {
    let mut config = Config::default();
    config.http.waiting_per_account_max = 3;
    let chf = Charging::start(alone(20), config).await;
    let mut client = chf.running.http2().await;
    let noisy = client.ask(create(1)).await;
    let path = format!("{}/update", path_of(&noisy));

    // One works, three wait, and all others of this account are told to come again; more than there are places.
    chf.hold(Held::One(chf.account_of(1).await));
    let under_way: Vec<_> = (2..=5).map(|number| begin(&client, message(&path, 1, number, None))).collect();
    chf.in_flight(4).await;
    for number in 6..=36 {
        let refused = client.ask(message(&path, 1, number, None)).await;
        assert_refused(&refused);
        assert!(refused.text.contains("one account"), "{}", refused.text);
    }
    assert_eq!(client.ask(create(2)).await.status, 201);
    chf.in_flight(4).await;

    chf.hold(Held::Nobody);
    for answer in under_way {
        assert_ne!(answer.await.unwrap().status, 503);
    }
    assert_eq!(client.ask(message(&path, 1, 40, None)).await.status, 200);
}

#[tokio::test]
async fn a_connection_outlives_however_many_refusals() {
    let (running, release) = Running::start_with_gate(alone(1)).await;
    let client = running.http2().await;
    let held = begin(&client, get("/gate"));
    eventually(|| running.server.admission().in_flight() == 1).await;
    // More than `error_reset_streams_max`, and longer than a window.
    let body = || Sent::whole("x".repeat(100_000));
    let many: Vec<_> = (0..600).map(|_| begin(&client, Request::post("/echo").body(body()).unwrap())).collect();
    for refused in many {
        assert_refused(&refused.await.unwrap());
    }
    let stalls = client.another_stream().ask(Request::post("/echo").body(Sent::Stalls).unwrap()).await;
    assert_refused(&stalls);
    release.notify_one();
    assert_eq!(held.await.unwrap().status, 200);
}

/// Without sockets, so that everything is in one thread and stands where it must after a few turns of it.
#[tokio::test]
async fn who_waited_too_long_for_a_turn_is_not_served_any_more() {
    let chf = Charging::start(alone(20), Config::default()).await;
    let created = chf.world.create(&request(1, json!({}))).await;
    chf.hold(Held::One(chf.account_of(1).await));
    let (second, third) = (request(2, json!({})), request(3, json!({})));
    let late = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        chf.world.tick(10);
        chf.hold(Held::Nobody);
    };
    let (begun, waited, ()) =
        tokio::join!(chf.world.update(&created, &second), chf.world.update(&created, &third), late);
    begun.expect(200);
    waited.expect_problem(503, "NF_CONGESTION");
    chf.world.update(&created, &third).await.expect(200);
}

/// `127.0.0.2` is an address of the loopback interface too.
async fn neighbour(running: &Running) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let socket: TcpStream = socket.connect(running.server.address()).await.unwrap();
    Client::http2(socket).await
}

fn get(path: &str) -> Request<Sent> {
    Request::get(path).body(Sent::whole("")).unwrap()
}

#[tokio::test]
async fn a_noisy_connection_leaves_others_served() {
    let settings = Settings { in_flight_per_connection_percent: 50, ..alone(20) };
    let (running, release) = Running::start_with_gate(settings).await;
    let noisy = running.http2().await;
    let mut quiet = running.http2().await;
    // Ten places for a connection, eight of them for what is no Update or Release.
    let under_way: Vec<_> = (0..8).map(|_| begin(&noisy, get("/gate"))).collect();
    eventually(|| running.server.admission().in_flight() == 8).await;
    for _ in 0..30 {
        assert_refused(&noisy.another_stream().ask(get("/gate")).await);
    }
    assert_eq!(quiet.get("/hello").await.status, 200);
    for answer in under_way {
        release.notify_one();
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(noisy.another_stream().get("/hello").await.status, 200);
}

#[tokio::test]
async fn a_noisy_peer_leaves_others_served_however_often_it_connects() {
    let settings = Settings { in_flight_per_peer_percent: 50, ..alone(20) };
    let (running, release) = Running::start_with_gate(settings).await;
    // Each leaves work behind, and a new connection begins no new share.
    for _ in 0..8 {
        assert_eq!(running.http2().await.get("/detached").await.status, 200);
        eventually(|| running.server.connections() == 0).await;
    }
    assert_refused(&running.http2().await.get("/hello").await);
    assert_eq!(neighbour(&running).await.get("/hello").await.status, 200);
    for left in (0..8).rev() {
        release.notify_one();
        eventually(|| running.server.admission().in_flight() == left).await;
    }
    assert_eq!(running.http2().await.get("/hello").await.status, 200);
}

#[tokio::test]
async fn the_operator_gets_answers_while_the_services_are_full() {
    let (running, release) = Running::start_with_gate(alone(1)).await;
    let hello = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
    let operator = running.workers.listen(LOCAL, None, alone(1), vec![hello]).await.unwrap();
    let mut consumer = running.http2().await;
    let held = begin(&consumer, get("/gate"));
    eventually(|| running.server.admission().in_flight() == 1).await;
    assert_refused(&consumer.get("/hello").await);
    let mut browser = Client::http2(TcpStream::connect(operator.address()).await.unwrap()).await;
    assert_eq!(browser.get("/hello").await.status, 200);
    release.notify_one();
    assert_eq!(held.await.unwrap().status, 200);
}
