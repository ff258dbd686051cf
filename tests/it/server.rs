//! The server through real sockets: both protocols on one port, every deadline and limit, TLS, and the end.
//!
//! Deadlines are shortened and only ever checked to be kept eventually: no test fails because the machine is slow.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nchf::http::admission::Permit;
use nchf::http::server::{Error, Server, Settings, Tls, TlsFiles, Workers};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The longest wait for anything that must happen. Reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(20);

// ---- One port, two protocols ----

#[tokio::test]
async fn http1_and_http2_are_served_on_one_port() {
    let running = Running::start(Settings::default()).await;
    let answer = running.http1().await.ask(Request::post("/echo").body(Sent::whole("eleven here")).unwrap()).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "11"));
    let answer = running.http2().await.ask(Request::post("/echo").body(Sent::whole("eleven here")).unwrap()).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "11"));
}

#[tokio::test]
async fn long_answers_arrive_whole_and_announce_their_length() {
    let running = Running::start(Settings::default()).await;
    for octets in [0, 1, 1022, 1023, 1024, 2046, 2047, 16 * 1024, 16 * 1024 + 1, 300_000] {
        let path = format!("/octets/{octets}");
        for mut client in [running.http1().await, running.http2().await] {
            let answer = client.get(&path).await;
            assert_eq!((answer.status, answer.text.len()), (200, octets));
            assert_eq!(answer.header("content-length"), Some(octets.to_string().as_str()));
        }
    }
}

#[tokio::test]
async fn connections_are_dealt_to_the_workers_in_turn() {
    let workers = Workers::start(2).unwrap();
    let routers = workers
        .build(|worker| async move {
            Ok::<_, Error>(Router::new().route("/worker", get(move || async move { worker.to_string() })))
        })
        .await
        .unwrap();
    let server = workers.listen(LOCAL, None, Settings::default(), routers).await.unwrap();
    let mut served = Vec::new();
    for _ in 0..4 {
        let mut client = Client::http2(TcpStream::connect(server.address()).await.unwrap()).await;
        served.push(client.get("/worker").await.text);
    }
    assert_eq!(served.iter().filter(|worker| *worker == "0").count(), 2, "{served:?}");
    assert_eq!(served.iter().collect::<BTreeSet<_>>().len(), 2, "{served:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let running = Running::start(Settings::default()).await;
    let taken = running.server.address();
    let Err(error) = running.workers.listen(taken, None, Settings::default(), vec![Router::new()]).await else {
        panic!("listens twice on {taken}");
    };
    assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
}

// ---- Slow peers ----

#[tokio::test]
async fn silence_and_half_a_preface_are_closed() {
    let settings = Settings { first_octets_deadline: Duration::from_millis(100), ..Settings::default() };
    let running = Running::start(settings).await;
    for opening in ["", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut socket = running.connect().await;
        socket.write_all(opening.as_bytes()).await.unwrap();
        assert_closed(&mut socket).await;
    }
    running.assert_no_connections().await;
}

#[tokio::test]
async fn a_header_that_drips_is_closed() {
    let settings = Settings { header_deadline: Duration::from_millis(200), ..Settings::default() };
    let running = Running::start(settings).await;
    let mut socket = running.connect().await;
    let (mut reading, mut writing) = socket.split();
    let drip = async {
        while writing.write_all(b"X").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = drip => {}
        () = assert_closed(&mut reading) => {}
        () = sleep(PATIENCE) => panic!("still open"),
    }
    running.assert_no_connections().await;
}

#[tokio::test]
async fn a_pause_between_requests_is_not_a_slow_header() {
    let settings = Settings { header_deadline: Duration::from_millis(50), ..Settings::default() };
    let running = Running::start(settings).await;
    let mut client = running.http1().await;
    for _ in 0..3 {
        assert_eq!(client.get("/hello").await.status, 200);
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_408() {
    let settings = Settings { body_deadline: Duration::from_millis(100), ..Settings::default() };
    let running = Running::start(settings).await;
    for mut client in [running.http1().await, running.http2().await] {
        let answer = client.ask(Request::post("/echo").body(Sent::Stalls).unwrap()).await;
        assert_eq!(answer.status, 408);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(running.server.admission().in_flight(), 0);
}

#[tokio::test]
async fn answers_that_flow_control_holds_back_end_the_connection() {
    let settings = Settings { answer_deadline: Duration::from_millis(100), ..Settings::default() };
    let running = Running::start(settings).await;
    // With a window of nothing the answer stays with hyper, with a window of one octet it stays with h2.
    for window in [0_u32, 1] {
        let mut raw = RawHttp2::open(&running, Some(window)).await;
        raw.get(1, "/octets/5000").await;
        raw.assert_closed().await;
    }
    running.assert_no_connections().await;
}

#[tokio::test]
async fn answers_that_stay_in_the_socket_end_the_connection() {
    let settings = Settings { answer_deadline: Duration::from_millis(200), ..Settings::default() };
    let running = Running::start(settings).await;
    let mut socket = running.connect().await;
    socket.write_all(b"GET /octets/50000000 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    running.assert_connections(1).await;
    running.assert_no_connections().await;
}

#[tokio::test]
async fn idle_connections_are_told_to_leave() {
    let settings = Settings { idle_close: Duration::from_millis(100), ..Settings::default() };
    let running = Running::start(settings).await;
    let mut socket = running.connect().await;
    socket.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_closed(&mut socket).await;

    let mut raw = RawHttp2::open(&running, None).await;
    assert_eq!(raw.last_stream_of_goaway().await, NO_LAST_STREAM);
    raw.answer_ping().await;
    assert_eq!(raw.last_stream_of_goaway().await, 0);
    raw.assert_closed().await;
}

// ---- Limits ----

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_the_connection_stays() {
    let settings = Settings { body_octets_max: 1000, ..Settings::default() };
    let running = Running::start(settings).await;
    let mut client = running.http2().await;
    let whole = |octets| Sent::whole("x".repeat(octets));
    for (body, status) in [
        (whole(1000), 200),
        (whole(1001), 413),
        (Sent::Unannounced(vec!["x".repeat(500).into(); 2]), 200),
        (Sent::Unannounced(vec!["x".repeat(500).into(); 200]), 413),
        (whole(1), 200),
    ] {
        let answer = client.ask(Request::post("/echo").body(body).unwrap()).await;
        assert_eq!(answer.status, status);
        if status == 413 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        }
    }
    assert_eq!(running.server.connections(), 1);
}

/// A consumer that is set up wrongly, and tries again for ever.
#[tokio::test]
async fn a_connection_outlives_however_many_answers_that_need_no_body() {
    let settings =
        Settings { body_octets_max: 100_000, body_deadline: Duration::from_millis(500), ..Settings::default() };
    let running = Running::start(settings).await;
    let client = running.http2().await;
    // Longer than a window, so that the answer could come before the end of the body.
    let whole = || Sent::whole("x".repeat(90_000));
    let unannounced = || Sent::Unannounced(vec!["x".repeat(20_000).into(); 10]);
    for (path, body, status) in [
        ("/nowhere", &whole as &dyn Fn() -> Sent, 404),
        ("/hello", &whole, 405),
        ("/unread", &whole, 200),
        ("/echo", &|| Sent::whole("x".repeat(300_000)), 413),
        ("/echo", &unannounced, 413),
    ] {
        // More than `error_reset_streams_max`.
        let many = (0..300).map(|_| {
            let mut stream = client.another_stream();
            let request = Request::post(path).body(body()).unwrap();
            async move { stream.ask(request).await.status }
        });
        for answered in futures_util::future::join_all(many).await {
            assert_eq!(answered, status, "{path}");
        }
    }
    // Neither what announces too much to wait for, nor what does not come, holds up the answer.
    for (path, body, status) in [("/echo", Sent::whole("x".repeat(2_000_000)), 413), ("/nowhere", Sent::Stalls, 404)] {
        let answer = client.another_stream().ask(Request::post(path).body(body).unwrap()).await;
        assert_eq!(answer.status, status, "{path}");
    }
    assert_eq!(running.server.connections(), 1);
    eventually(|| running.server.admission().in_flight() == 0).await;
}

#[tokio::test]
async fn more_than_can_be_held_is_refused_at_once_even_if_the_work_outlives_its_request() {
    let settings = Settings { in_flight_max: 1, ..Settings::default() };
    let (running, release) = Running::start_with_gate(settings).await;
    let mut client = running.http2().await;
    assert_eq!(client.get("/detached").await.status, 200);

    let refused = client.get("/hello").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.text.contains(r#""cause":"NF_CONGESTION""#), "{}", refused.text);

    release.notify_one();
    eventually(|| running.server.admission().in_flight() == 0).await;
    assert_eq!(client.get("/hello").await.status, 200);
}

#[tokio::test]
async fn one_peer_cannot_take_all_connections() {
    let settings = Settings { connections_per_peer_max: 2, ..Settings::default() };
    let running = Running::start(settings).await;
    let mut kept = running.http1().await;
    assert_eq!(kept.get("/hello").await.status, 200);
    let given_up = running.http1().await;
    running.assert_connections(2).await;

    assert_closed(&mut running.connect().await).await;
    drop(given_up);
    running.assert_connections(1).await;
    assert_eq!(running.http1().await.get("/hello").await.status, 200);
    assert_eq!(kept.get("/hello").await.status, 200);
}

#[tokio::test]
async fn a_consumer_that_cancels_a_burst_keeps_its_connection() {
    let running = Running::start(Settings::default()).await;
    let mut raw = RawHttp2::open(&running, None).await;
    // Written at once, so that all of it is there before any of it is looked at.
    let mut burst = Vec::new();
    for stream in (1..200).step_by(2) {
        burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block("/hello")));
        burst.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, 201, &get_block("/hello")));
    raw.socket.write_all(&burst).await.unwrap();
    assert_eq!(raw.status(201).await, INDEXED_STATUS_200);
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection_and_nothing_else() {
    let running = Running::start(Settings::default()).await;
    let mut neighbour = running.http2().await;
    let mut raw = RawHttp2::open(&running, None).await;
    let mut flood = Vec::new();
    for stream in (1..2001).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block("/hello")));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    // The server may close while this is still being sent.
    let _cut_short = raw.socket.write_all(&flood).await;
    raw.assert_closed().await;
    assert_eq!(neighbour.get("/hello").await.status, 200);
    running.assert_connections(1).await;
    assert_eq!(running.server.admission().in_flight(), 0);
}

#[tokio::test]
async fn a_panic_is_answered_500_and_the_server_goes_on() {
    let running = Running::start(Settings::default()).await;
    let mut client = running.http2().await;
    for path in ["/panic", "/panic"] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 500);
        assert!(answer.text.contains(r#""cause":"SYSTEM_FAILURE""#), "{}", answer.text);
        assert!(!answer.text.contains("secret"), "{}", answer.text);
    }
    assert_eq!(client.get("/hello").await.status, 200);
    assert_eq!(running.server.admission().in_flight(), 0);
}

// ---- The end ----

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_accepts_nothing_new() {
    let (running, release) = Running::start_with_gate(Settings::default()).await;
    let (mut http1, mut http2, mut idle) = (running.http1().await, running.http2().await, running.http1().await);
    assert_eq!(idle.get("/hello").await.status, 200);
    let (first, second) = (http1.get("/gate"), http2.get("/gate"));
    let drain = async {
        eventually(|| running.server.admission().in_flight() == 2).await;
        let drained = async { running.server.drain(PATIENCE).await };
        let late = async {
            eventually(|| running.server.connections() == 2).await;
            assert!(TcpStream::connect(running.server.address()).await.is_err());
            release.notify_one();
            eventually(|| running.server.connections() == 1).await;
            release.notify_one();
        };
        tokio::join!(drained, late).0
    };
    let (first, second, drained) = tokio::join!(first, second, drain);
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.header("connection"), Some("close"));
    assert!(drained.in_time(), "{drained:?}");
    assert_eq!(running.server.connections(), 0);
}

#[tokio::test]
async fn streams_that_cross_the_goaway_are_still_served() {
    let running = Running::start(Settings::default()).await;
    let mut raw = RawHttp2::open(&running, None).await;
    raw.get(1, "/hello").await;
    assert_eq!(raw.status(1).await, INDEXED_STATUS_200);

    let peer = async {
        assert_eq!(raw.last_stream_of_goaway().await, NO_LAST_STREAM);
        raw.get(3, "/hello").await;
        assert_eq!(raw.status(3).await, INDEXED_STATUS_200);
        raw.answer_ping().await;
        assert_eq!(raw.last_stream_of_goaway().await, 3);
        raw.assert_closed().await;
    };
    let (drained, ()) = tokio::join!(running.server.drain(PATIENCE), peer);
    assert!(drained.in_time(), "{drained:?}");
}

#[tokio::test]
async fn a_peer_that_has_nothing_under_way_and_reads_nothing_does_not_hold_up_a_drain() {
    let running = Running::start(Settings::default()).await;
    let mut raw = RawHttp2::open(&running, None).await;
    raw.get(1, "/hello").await;
    assert_eq!(raw.status(1).await, INDEXED_STATUS_200);
    let drained = running.server.drain(Duration::from_secs(3600)).await;
    assert!(drained.in_time(), "{drained:?}");
    assert_eq!(running.server.connections(), 0);
}

#[tokio::test]
async fn a_drain_that_runs_out_of_time_says_what_it_cut() {
    let (running, _never_released) = Running::start_with_gate(Settings::default()).await;
    let mut client = running.http2().await;
    let asking =
        tokio::spawn(async move { client.try_ask(Request::get("/gate").body(Sent::whole("")).unwrap()).await });
    eventually(|| running.server.admission().in_flight() == 1).await;

    let drained = running.server.drain(Duration::from_millis(100)).await;
    assert!(!drained.in_time());
    assert_eq!((drained.requests_cut, drained.connections_cut), (1, 1));
    assert!(asking.await.unwrap().is_none());
    assert_eq!(running.server.connections(), 0);
}

#[tokio::test]
async fn a_drain_waits_for_work_that_outlives_its_request() {
    let (running, release) = Running::start_with_gate(Settings::default()).await;
    assert_eq!(running.http1().await.get("/detached").await.status, 200);
    let cut = running.server.drain(Duration::from_millis(100)).await;
    assert_eq!((cut.requests_cut, cut.connections_cut), (1, 0));
    release.notify_one();
    assert!(running.server.drain(PATIENCE).await.in_time());
}

// ---- TLS ----

#[tokio::test]
async fn tls_offers_both_protocols() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let running = Running::start_tls(Settings::default(), &authority.tls(files.path(), false)).await;
    for (protocol, alpn) in [("h2", &b"h2"[..]), ("http/1.1", b"http/1.1")] {
        let socket = authority.connect(&running, alpn, None).await.unwrap();
        assert_eq!(socket.get_ref().1.alpn_protocol(), Some(alpn), "{protocol}");
        let mut client = if protocol == "h2" { Client::http2(socket).await } else { Client::http1(socket).await };
        assert_eq!(client.get("/hello").await.status, 200, "{protocol}");
    }
}

#[tokio::test]
async fn a_client_ca_refuses_who_has_no_certificate_of_it() {
    let files = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let running = Running::start_tls(Settings::default(), &authority.tls(files.path(), true)).await;

    let known = authority.connect(&running, b"h2", Some(&authority)).await.unwrap();
    assert_eq!(Client::http2(known).await.get("/hello").await.status, 200);
    for refused in [None, Some(&stranger)] {
        // TLS 1.3 clients learn of the refusal with the first octets they read.
        if let Ok(mut socket) = authority.connect(&running, b"h2", refused).await {
            assert_closed(&mut socket).await;
        }
    }
    assert_eq!(running.server.admission().in_flight(), 0);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_closed() {
    let files = tempfile::tempdir().unwrap();
    let settings = Settings { tls_handshake_deadline: Duration::from_millis(100), ..Settings::default() };
    let running = Running::start_tls(settings, &Authority::new().tls(files.path(), false)).await;
    assert_closed(&mut running.connect().await).await;
    running.assert_no_connections().await;
}

#[tokio::test]
async fn unusable_certificate_files_are_named() {
    let files = tempfile::tempdir().unwrap();
    let mut paths = Authority::new().write(files.path(), false);
    paths.certificate = files.path().join("absent.pem");
    let Err(error) = Tls::from_files(&paths) else { panic!("a certificate that does not exist was read") };
    assert!(error.to_string().contains("absent.pem"), "{error}");
}

// ---- A server inside the test ----

pub const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

pub struct Running {
    pub server: Server,
    pub workers: Workers,
}

impl Running {
    async fn start(settings: Settings) -> Self {
        Self::start_with_gate(settings).await.0
    }

    /// `/gate` waits until the gate is notified, and so does the work that `/detached` leaves behind.
    pub async fn start_with_gate(settings: Settings) -> (Self, Arc<Notify>) {
        let gate = Arc::new(Notify::new());
        (Self::serve(settings, None, router(&gate)).await, gate)
    }

    async fn start_tls(settings: Settings, tls: &Tls) -> Self {
        Self::serve(settings, Some(tls.clone()), router(&Arc::new(Notify::new()))).await
    }

    pub async fn serve(settings: Settings, tls: Option<Tls>, router: Router) -> Self {
        let workers = Workers::start(1).unwrap();
        let server = workers.listen(LOCAL, tls, settings, vec![router]).await.unwrap();
        Self { server, workers }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.unwrap()
    }

    async fn http1(&self) -> Client {
        Client::http1(self.connect().await).await
    }

    pub async fn http2(&self) -> Client {
        Client::http2(self.connect().await).await
    }

    async fn assert_connections(&self, count: usize) {
        eventually(|| self.server.connections() == count).await;
    }

    async fn assert_no_connections(&self) {
        self.assert_connections(0).await;
    }
}

fn router(gate: &Arc<Notify>) -> Router {
    let (waiting, detached) = (Arc::clone(gate), Arc::clone(gate));
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/echo", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/unread", post(|| async { "as you like" }))
        .route("/octets/{count}", get(|count: axum::extract::Path<usize>| async move { "x".repeat(count.0) }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("a secret")
                }
            }),
        )
        .route("/gate", get(move || async move { waiting.notified().await }))
        .route(
            "/detached",
            get(move |permit: Permit| async move {
                tokio::spawn(async move {
                    let _counted = permit;
                    detached.notified().await;
                });
            }),
        )
}

pub async fn eventually(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("this must happen at some time");
}

/// Reads and forgets until the other side has closed, politely or not.
async fn assert_closed(socket: &mut (impl AsyncRead + Unpin)) {
    let mut scratch = vec![0; 4096];
    let drained = async { while !matches!(socket.read(&mut scratch).await, Ok(0) | Err(_)) {} };
    timeout(PATIENCE, drained).await.expect("the server closes the connection");
}

// ---- Clients ----

pub enum Client {
    Http1(http1::SendRequest<Sent>),
    Http2(http2::SendRequest<Sent>),
}

pub struct Answer {
    pub status: u16,
    headers: hyper::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    async fn http1(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Self::Http1(sender)
    }

    pub async fn http2(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Self::Http2(sender)
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Sent::whole("")).unwrap()).await
    }

    /// The same connection, for a request at the same time.
    pub fn another_stream(&self) -> Self {
        match self {
            Self::Http1(_) => panic!("HTTP/1.1 has no streams"),
            Self::Http2(sender) => Self::Http2(sender.clone()),
        }
    }

    pub async fn ask(&mut self, request: Request<Sent>) -> Answer {
        self.try_ask(request).await.expect("an answer")
    }

    async fn try_ask(&mut self, mut request: Request<Sent>) -> Option<Answer> {
        let path = request.uri().path().to_owned();
        let asked = async {
            let response: Response<_> = match self {
                Self::Http1(sender) => {
                    request.headers_mut().insert("host", "test".parse().unwrap());
                    sender.ready().await.ok()?;
                    sender.send_request(request).await.ok()?
                }
                Self::Http2(sender) => {
                    *request.uri_mut() = format!("http://test{path}").parse().unwrap();
                    sender.send_request(request).await.ok()?
                }
            };
            let (parts, body) = response.into_parts();
            let octets = body.collect().await.ok()?.to_bytes();
            let text = String::from_utf8(octets.to_vec()).unwrap();
            Some(Answer { status: parts.status.as_u16(), headers: parts.headers, text })
        };
        timeout(PATIENCE, asked).await.expect("an answer, or none, at some time")
    }
}

/// What a client sends as a body.
pub enum Sent {
    Whole(Bytes),
    /// Without a Content-Length.
    Unannounced(Vec<Bytes>),
    /// One octet of several, and then nothing.
    Stalls,
    Stalled,
}

impl Sent {
    pub fn whole(text: impl Into<String>) -> Self {
        Self::Whole(Bytes::from(text.into()))
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Self::Whole(octets) if octets.is_empty() => None,
            Self::Whole(octets) => Some(std::mem::take(octets)),
            Self::Unannounced(parts) => parts.pop(),
            Self::Stalls => {
                *self = Self::Stalled;
                Some(Bytes::from_static(b"x"))
            }
            Self::Stalled => return Poll::Pending,
        };
        Poll::Ready(next.map(|octets| Ok(Frame::data(octets))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(octets) if octets.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(octets) => SizeHint::with_exact(octets.len() as u64),
            Self::Stalls | Self::Stalled => SizeHint::with_exact(100),
            Self::Unannounced(_) => SizeHint::default(),
        }
    }
}

// ---- HTTP/2 by hand, for peers that no client library plays ----

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The first octet of a header block that says `:status: 200`.
const INDEXED_STATUS_200: u8 = 0x88;
/// What a GOAWAY says while it is still open which stream will be the last.
const NO_LAST_STREAM: u32 = (1 << 31) - 1;

struct RawHttp2 {
    socket: TcpStream,
    /// A ping of the server that was passed over while something else was waited for.
    ping: Option<RawFrame>,
}

struct RawFrame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl RawHttp2 {
    async fn open(running: &Running, initial_window: Option<u32>) -> Self {
        let mut socket = running.connect().await;
        let mut settings = Vec::new();
        if let Some(window) = initial_window {
            settings.extend([0, 4]);
            settings.extend(window.to_be_bytes());
        }
        let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        opening.extend(frame(SETTINGS, 0, 0, &settings));
        opening.extend(frame(SETTINGS, ACK, 0, &[]));
        socket.write_all(&opening).await.unwrap();
        Self { socket, ping: None }
    }

    async fn get(&mut self, stream: u32, path: &str) {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block(path));
        self.socket.write_all(&request).await.unwrap();
    }

    /// Answers the server's ping, which may have come already.
    async fn answer_ping(&mut self) {
        let ping = match self.ping.take() {
            Some(ping) => ping,
            None => self.next(PING).await,
        };
        self.socket.write_all(&frame(PING, ACK, 0, &ping.payload)).await.unwrap();
    }

    async fn last_stream_of_goaway(&mut self) -> u32 {
        let goaway = self.next(GOAWAY).await;
        u32::from_be_bytes(goaway.payload[..4].try_into().unwrap())
    }

    /// The first octet of the header block of the answer, after its body has come too.
    async fn status(&mut self, stream: u32) -> u8 {
        let headers = self.next(HEADERS).await;
        assert_eq!(headers.stream, stream);
        assert_eq!(self.next(DATA).await.stream, stream);
        headers.payload[0]
    }

    /// The next frame of a kind; frames of other kinds are skipped.
    async fn next(&mut self, kind: u8) -> RawFrame {
        loop {
            let frame = timeout(PATIENCE, self.read_frame()).await.expect("a frame");
            if frame.kind == kind {
                return frame;
            }
            if frame.kind == PING {
                self.ping = Some(frame);
            }
        }
    }

    async fn read_frame(&mut self) -> RawFrame {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).await.unwrap();
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        RawFrame { kind: head[3], stream, payload }
    }

    async fn assert_closed(&mut self) {
        assert_closed(&mut self.socket).await;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET path`: method and scheme by index, path and authority as they are.
fn get_block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, 4]);
    block.extend(b"test");
    block
}

// ---- Certificates ----

/// A CA and one certificate of it, which serves for both sides of a connection.
struct Authority {
    ca: rcgen::Certificate,
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Authority {
    fn new() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca_params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca_params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = ca_params.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca_params, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self { ca, certificate, key }
    }

    fn tls(&self, directory: &Path, client_ca: bool) -> Tls {
        Tls::from_files(&self.write(directory, client_ca)).unwrap()
    }

    fn write(&self, directory: &Path, client_ca: bool) -> TlsFiles {
        let write = |name: &str, pem: String| {
            let path = directory.join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        TlsFiles {
            certificate: write("certificate.pem", self.certificate.pem()),
            key: write("key.pem", self.key.serialize_pem()),
            client_ca: client_ca.then(|| write("ca.pem", self.ca.pem())),
        }
    }

    /// Connects as a client that trusts this authority and shows the certificate of `identity`.
    async fn connect(
        &self,
        running: &Running,
        alpn: &[u8],
        identity: Option<&Authority>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certificate = CertificateDer::from_pem_slice(identity.certificate.pem().as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.serialize_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect("localhost".try_into().unwrap(), running.connect().await).await
    }
}
