//! Notifications through real sockets, to a network function that can answer everything wrong.
//!
//! Deadlines are shortened and only ever checked to be kept eventually: no test fails because the machine is slow.

mod addresses;
pub mod stub;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use hyper::Version;
use nchf::charging::ids::RatingGroup;
use nchf::charging::time::{Span, Timestamp};
use nchf::clock::{Clock, ManualClock, SystemClock};
use nchf::http::nchf::wire::schemas::Service;
use nchf::notify::policy::Kind;
use nchf::notify::resolve::{Resolve, SystemResolver};
use nchf::notify::{Call, Denial, Failure, Notification, Notifier, Outcome, Outside, Redirection, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::stub::{LOCAL, Names, Peer, Received, Says, Stub, nobody};
use crate::support::authority::Authority;
use crate::support::official;

/// The longest wait for anything that must happen. Reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(20);
/// For calls that shall run out of time.
const SHORT: Duration = Duration::from_millis(300);

/// Long deadlines, so that only what never answers runs into them.
fn settings(allow: &[&str]) -> Settings {
    Settings {
        allow: allow.iter().map(|entry| entry.parse().unwrap()).collect(),
        deadline: PATIENCE,
        ..Settings::default()
    }
}

fn notifier_with(settings: Settings) -> Notifier {
    Notifier::new(settings, Outside::new(Arc::new(SystemClock))).unwrap()
}

/// May reach this machine.
fn notifier() -> Notifier {
    notifier_with(settings(&["127.0.0.0/8", "::1"]))
}

static REAUTHORIZE: std::sync::LazyLock<Notification> =
    std::sync::LazyLock::new(|| Notification::Reauthorize(vec![RatingGroup(10)]));

fn reauthorize(notify_uri: &str) -> Call<'_> {
    Call { notify_uri, notification: &REAUTHORIZE, follows_redirections: false }
}

fn following(notify_uri: &str) -> Call<'_> {
    Call { follows_redirections: true, ..reauthorize(notify_uri) }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "{what}: this must happen at some time");
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed { reason, .. } => reason,
        _ => panic!("{outcome:?} is no failure"),
    }
}

// ---- The request ----

#[tokio::test]
async fn a_notification_is_a_post_to_exactly_the_uri() {
    let stub = Stub::always(Says::Status(204)).await;
    let notifier = notifier();
    let paths = [
        ("/nsmf-callback/notify_urn:uuid:1", "/nsmf-callback/notify_urn:uuid:1"),
        ("", "/"),
        ("/", "/"),
        ("?a=b", "/?a=b"),
        ("/cb?x=1&x=1&y=%20/?;=", "/cb?x=1&x=1&y=%20/?;="),
        ("//a/../b/./c//", "//a/../b/./c//"),
        ("/%2e%2E/%00/%zz", "/%2e%2E/%00/%zz"),
        ("/{cb}|~!$&'()*+,;=:@", "/{cb}|~!$&'()*+,;=:@"),
    ];
    for (path, _) in paths {
        assert_eq!(notifier.send(&reauthorize(&stub.uri(path))).await, Outcome::Delivered, "{path}");
    }
    let received = stub.received();
    assert_eq!(received.len(), paths.len());
    for (Received { method, uri, version, headers, body }, (path, expected)) in received.iter().zip(paths) {
        assert_eq!((method.as_str(), *version), ("POST", Version::HTTP_2), "{path}");
        assert_eq!(*uri, stub.uri(expected));
        for (name, value) in [
            ("content-type", "application/json"),
            ("3gpp-sbi-callback", "Nchf_ConvergedCharging_Notify; apiversion=3"),
            ("user-agent", "CHF"),
            ("content-length", &body.len().to_string()),
        ] {
            assert_eq!(headers[name], value);
        }
        assert_eq!(body, r#"{"notificationType":"REAUTHORIZATION","reauthorizationDetails":[{"ratingGroup":10}]}"#);
    }
    assert_eq!(stub.accepted(), 1, "one connection for all of them");
}

#[test]
fn bodies_are_what_the_published_schema_says() {
    let groups = |groups: &[u32]| Notification::Reauthorize(groups.iter().copied().map(RatingGroup).collect());
    let bodies = [
        (Notification::Abort, r#"{"notificationType":"ABORT_CHARGING"}"#),
        (groups(&[]), r#"{"notificationType":"REAUTHORIZATION"}"#),
        (
            groups(&[10, u32::MAX, 10, 0]),
            concat!(
                r#"{"notificationType":"REAUTHORIZATION","reauthorizationDetails":"#,
                r#"[{"ratingGroup":10},{"ratingGroup":4294967295},{"ratingGroup":0}]}"#
            ),
        ),
    ];
    let validator = official::validator_for(Service::ConvergedCharging, "ChargingNotifyRequest");
    for (notification, expected) in bodies {
        let body = notification.render();
        assert_eq!(body, expected);
        if let Some(validator) = &validator {
            validator.validate(&serde_json::from_slice(&body).unwrap()).unwrap();
        }
    }
    if validator.is_none() {
        eprintln!("the published schemas are not at hand: nothing was validated");
    }
}

// ---- Answers ----

#[tokio::test]
async fn each_answer_has_its_meaning() {
    let failed = |status| Outcome::failed(Failure::Status(status));
    let later = |secs| Outcome::Failed { reason: Failure::Status(503), retry_after: Some(Span::from_secs(secs)) };
    let retry_after = |value: &str| Says::Header(503, "retry-after", value.to_owned());
    let nested = r#"{"invocationResult":{"error":{"status":400,"cause":"RE_AUTHORIZATION_FAILED"}}}"#;
    for (says, expected) in [
        (Says::Status(204), Outcome::Delivered),
        (Says::Status(200), Outcome::Delivered),
        (Says::With(200, r#"{"invocationResult":{}}"#), Outcome::Delivered),
        (Says::With(200, "not JSON \u{0}"), Outcome::Delivered),
        (Says::Long(16 * 1024), Outcome::Delivered),
        (Says::Status(202), Outcome::Delivered),
        (Says::Status(404), Outcome::Gone),
        (Says::With(404, "<html>"), Outcome::Gone),
        (Says::Status(410), Outcome::Gone),
        (Says::With(400, r#"{"cause":"RESOURCE_CONTEXT_NOT_FOUND"}"#), Outcome::Gone),
        (Says::With(400, r#"{"status":400,"cause":"RE_AUTHORIZATION_FAILED"}"#), Outcome::Kept),
        (Says::With(400, nested), Outcome::Kept),
        (Says::With(400, r#"{"cause":"MANDATORY_IE_INCORRECT"}"#), failed(400)),
        (Says::With(400, r#"{"cause":7}"#), failed(400)),
        (Says::With(400, "RE_AUTHORIZATION_FAILED"), failed(400)),
        (Says::Status(400), failed(400)),
        (Says::Status(401), failed(401)),
        (Says::Status(403), failed(403)),
        (Says::Status(408), failed(408)),
        (Says::Status(429), failed(429)),
        (Says::Status(500), failed(500)),
        (Says::Status(503), failed(503)),
        (Says::Status(504), failed(504)),
        (Says::Status(301), failed(301)),
        (Says::Status(303), failed(303)),
        (Says::Status(304), failed(304)),
        (Says::Status(599), failed(599)),
        (Says::Status(999), failed(999)),
        (retry_after("7"), later(7)),
        (retry_after("99999999999"), later(3600)),
        (retry_after("soon"), failed(503)),
        (Says::Long(16 * 1024 + 1), Outcome::failed(Failure::AnswerTooLong)),
        (Says::Long(10_000_000), Outcome::failed(Failure::AnswerTooLong)),
    ] {
        let stub = Stub::always(says.clone()).await;
        let outcome = notifier().send(&reauthorize(&stub.uri("/cb"))).await;
        assert_eq!(outcome, expected, "{says:?}");
        assert_eq!(stub.received().len(), 1, "{says:?}");
    }
}

#[tokio::test]
async fn slow_endless_and_missing_answers_are_cut() {
    for says in [Says::Drips, Says::Never] {
        let stub = Stub::always(says.clone()).await;
        let notifier = notifier_with(Settings { deadline: SHORT, ..settings(&["127.0.0.1"]) });
        let sent = timeout(PATIENCE, notifier.send(&reauthorize(&stub.uri("/cb")))).await.unwrap();
        assert_eq!(failure(sent), Failure::TimedOut, "{says:?}");
        eventually("the stream is reset", || stub.under_way() == 0).await;
    }
}

#[tokio::test]
async fn a_call_that_got_no_answer_does_not_leave_its_connection_to_the_next() {
    let stub =
        Stub::start(|request| if request.uri.ends_with("never") { Says::Never } else { Says::Status(204) }).await;
    let notifier = notifier_with(Settings { deadline: SHORT, ..settings(&["127.0.0.1"]) });
    assert_eq!(failure(notifier.send(&reauthorize(&stub.uri("/never"))).await), Failure::TimedOut);
    let notified = async { while notifier.send(&reauthorize(&stub.uri("/cb"))).await != Outcome::Delivered {} };
    timeout(PATIENCE, notified).await.unwrap();
    assert!(stub.accepted() >= 2);
}

#[tokio::test]
async fn whatever_a_peer_does_instead_of_answering_has_a_name() {
    // A stream reset, and a frame that is longer than any may be; each after empty settings.
    const RESET: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";
    const TOO_LONG: &[u8] = b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\0\0\0\0\0\x01";
    let notifier = notifier();
    for (octets, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"[..], Failure::NotHttp2),
        (b"HTTP/1.0 200 OK\r\n\r\n", Failure::NotHttp2),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Failure::Lost),
        (b"-ERR wrong number of arguments for 'pri' command\r\n", Failure::Lost),
        (RESET, Failure::Lost),
        (TOO_LONG, Failure::Lost),
    ] {
        let peer = Peer::saying(octets).await;
        let outcome = timeout(PATIENCE, notifier.send(&reauthorize(&peer.uri("/cb")))).await.unwrap();
        assert_eq!(failure(outcome), expected, "{}", octets.escape_ascii());
        assert_eq!(peer.accepted(), 1, "{}", octets.escape_ascii());
    }

    let closes = Peer::start(async |socket| drop(socket)).await;
    assert_eq!(failure(notifier.send(&reauthorize(&closes.uri("/cb"))).await), Failure::Lost);
    let resets = Peer::start(async |mut socket: TcpStream| {
        let _heard = socket.read(&mut [0; 3]).await;
        // With octets unread, closing sends a reset.
    })
    .await;
    assert_eq!(failure(notifier.send(&reauthorize(&resets.uri("/cb"))).await), Failure::Lost);
    let uri = format!("http://{}/cb", nobody().await);
    let refused = failure(notifier.send(&reauthorize(&uri)).await);
    assert_eq!(refused, Failure::Connect(ErrorKind::ConnectionRefused));
    let failed = failure(notifier.send(&reauthorize("http://no-such-host.invalid/cb")).await);
    assert_eq!(failed, Failure::NameUnknown);
    assert_eq!(notifier.send(&reauthorize("ftp://127.0.0.1/cb")).await, Outcome::Refused(Denial::Malformed));
}

#[tokio::test]
async fn a_flood_of_octets_is_not_read() {
    let peer = Peer::start(async |mut socket: TcpStream| {
        let answer = [
            // Settings, then an answer of 200 whose body never ends.
            &b"\0\0\0\x04\0\0\0\0\0"[..],
            b"\0\0\x01\x01\x04\0\0\0\x01\x88",
        ];
        let _heard = socket.read(&mut [0; 1024]).await;
        for part in answer {
            let _said = socket.write_all(part).await;
        }
        let mut frame = b"\0\x40\0\0\0\0\0\0\x01".to_vec();
        frame.resize(9 + 0x4000, b' ');
        while socket.write_all(&frame).await.is_ok() {}
    })
    .await;
    let outcome = timeout(PATIENCE, notifier().send(&reauthorize(&peer.uri("/cb")))).await.unwrap();
    assert!(matches!(failure(outcome), Failure::AnswerTooLong | Failure::Lost));
}

// ---- Redirections ----

#[tokio::test]
async fn a_redirection_is_followed_once_and_only_where_negotiated() {
    let there = Stub::start(|request| match request.uri.rsplit('/').next().unwrap() {
        "gone" => Says::Status(404),
        "on" => Says::Header(307, "location", "/cb".to_owned()),
        _ => Says::Status(204),
    })
    .await;
    let elsewhere = there.uri("");
    let here = Stub::start(move |request| {
        let location = match request.uri.rsplit('/').next().unwrap() {
            "none" => return Says::Status(308),
            "relative" => "/cb".to_owned(),
            "nonsense" => "cb".to_owned(),
            "self" => request.uri.clone(),
            "denied" => "http://169.254.169.254/latest/meta-data".to_owned(),
            "spelled" => "http://2852039166/".to_owned(),
            "port" => "http://127.0.0.1:6379/".to_owned(),
            "file" => "file:///etc/passwd".to_owned(),
            "cb" => return Says::Status(204),
            other => format!("{elsewhere}/{other}"),
        };
        Says::Header(if request.uri.contains("308") { 308 } else { 307 }, "location", location)
    })
    .await;
    let notifier = notifier();

    let not_negotiated = notifier.send(&reauthorize(&here.uri("/307/new"))).await;
    assert_eq!(failure(not_negotiated), Failure::Redirection(Redirection::NotNegotiated));
    assert_eq!(there.received().len(), 0);

    for (path, to, expected) in [
        ("/307/new", there.uri("/new"), false),
        ("/308/new", there.uri("/new"), true),
        ("/307/relative", here.uri("/cb"), false),
    ] {
        match notifier.send(&following(&here.uri(path))).await {
            Outcome::Moved { to: found, permanent } => assert_eq!((found.as_str(), permanent), (to.as_str(), expected)),
            outcome => panic!("{path}: {outcome:?}"),
        }
    }
    assert_eq!(there.received()[0].body, REAUTHORIZE.render());
    assert_eq!(notifier.send(&following(&here.uri("/307/gone"))).await, Outcome::Gone);

    let denied = |kind| Redirection::Denied(Denial::Address(kind));
    for (path, expected) in [
        ("/307/on", Redirection::Again),
        ("/307/self", Redirection::Again),
        ("/307/none", Redirection::NoLocation),
        ("/307/nonsense", Redirection::NoLocation),
        ("/307/file", Redirection::NoLocation),
        ("/307/denied", denied(Kind::LinkLocal)),
        ("/308/spelled", denied(Kind::LinkLocal)),
        ("/307/port", Redirection::Denied(Denial::Port(6379))),
    ] {
        let outcome = notifier.send(&following(&here.uri(path))).await;
        assert_eq!(failure(outcome), Failure::Redirection(expected), "{path}");
    }
}

// ---- Names ----

fn resolving(names: &Arc<Names>, allow: &[&str]) -> Notifier {
    let resolver: Arc<dyn Resolve> = Arc::<Names>::clone(names);
    Notifier::new(settings(allow), Outside { resolver, ..Outside::new(Arc::new(SystemClock)) }).unwrap()
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_later_is_judged_again_and_resolved_once_for_each_connection() {
    let stub = Stub::always(Says::Status(204)).await;
    let names = Names::of("smf.example", &[&["127.0.0.1"], &["127.0.0.2"], &["169.254.169.254"]]);
    let notifier = resolving(&names, &["127.0.0.1"]);
    let uri = format!("http://smf.example:{}/cb", stub.address.port());

    assert_eq!(notifier.send(&reauthorize(&uri)).await, Outcome::Delivered);
    assert_eq!(stub.received()[0].uri, uri, "the authority is the name, not the address");
    assert_eq!(notifier.send(&reauthorize(&uri)).await, Outcome::Delivered);
    assert_eq!(names.asked(), 1, "the connection is used again as it was judged");

    stub.leave();
    eventually("the connection ends", || notifier.connections() == 0).await;
    for (asked, kind) in [(2, Kind::Loopback), (3, Kind::LinkLocal), (4, Kind::LinkLocal)] {
        assert_eq!(notifier.send(&reauthorize(&uri)).await, Outcome::Refused(Denial::Address(kind)));
        assert_eq!(names.asked(), asked);
    }
    assert_eq!(stub.accepted(), 1);
}

#[tokio::test]
async fn of_several_addresses_only_those_allowed_are_tried() {
    let stub = Stub::always(Says::Status(204)).await;
    let uri = format!("http://smf.example:{}/cb", stub.address.port());
    for (addresses, expected) in [
        (&["169.254.169.254", "::1", "127.0.0.1"][..], Outcome::Delivered),
        // Nobody listens at the first.
        (&["127.0.0.9", "::ffff:127.0.0.1"], Outcome::Delivered),
        (&["127.0.0.9"], Outcome::failed(Failure::Connect(ErrorKind::ConnectionRefused))),
        (&["0.0.0.0", "::"], Outcome::Refused(Denial::Address(Kind::Unspecified))),
        (&[], Outcome::failed(Failure::NameUnknown)),
    ] {
        let notifier = resolving(&Names::of("smf.example", &[addresses]), &["127.0.0.0/8"]);
        assert_eq!(notifier.send(&reauthorize(&uri)).await, expected, "{addresses:?}");
    }
}

#[tokio::test]
async fn a_name_server_that_is_silent_holds_nobody_for_longer_than_the_deadline() {
    let stub = Stub::always(Says::Status(204)).await;
    let names: Arc<dyn Resolve> = Names::of("smf.example", &[&["127.0.0.1"]]);
    let limits = Settings { deadline: SHORT, ..settings(&["127.0.0.1"]) };
    let notifier = Notifier::new(limits, Outside { resolver: names, ..Outside::new(Arc::new(SystemClock)) }).unwrap();
    let live = format!("http://smf.example:{}/cb", stub.address.port());
    let (dead_call, live_call) = (reauthorize("http://silent.example:8000/cb"), reauthorize(&live));
    let dead = async { timeout(PATIENCE, notifier.send(&dead_call)).await.unwrap() };
    let (dead, alive) = tokio::join!(dead, notifier.send(&live_call));
    assert_eq!((failure(dead), alive), (Failure::TimedOut, Outcome::Delivered));
}

#[tokio::test]
async fn ipv6_targets_are_reached() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return eprintln!("no IPv6 on this machine: nothing was tested");
    };
    drop(listener);
    let stub = Stub::serve("::1".parse().unwrap(), None, |_| Says::Status(204)).await;
    let uri = stub.uri("/cb");
    assert!(uri.starts_with("http://[::1]:"), "{uri}");
    assert_eq!(notifier().send(&reauthorize(&uri)).await, Outcome::Delivered);
    assert_eq!(stub.received()[0].uri, uri);
    let refused = notifier_with(settings(&["127.0.0.1"])).send(&reauthorize(&uri)).await;
    assert_eq!(refused, Outcome::Refused(Denial::Address(Kind::Loopback)));
}

// ---- TLS ----

#[tokio::test]
async fn https_targets_are_trusted_by_the_configured_authority_and_by_name() {
    let files = tempfile::tempdir().unwrap();
    let (ours, strangers) = (Authority::new(), Authority::new());
    let delivers = async |acceptor, settings: Settings| {
        let stub = Stub::serve(LOCAL, Some(acceptor), |_| Says::Status(204)).await;
        let uri = format!("https://localhost:{}/cb?x", stub.address.port());
        let outcome = notifier_with(settings).send(&reauthorize(&uri)).await;
        if outcome == Outcome::Delivered {
            assert_eq!(stub.received()[0].uri, uri);
        }
        outcome
    };
    let trusting = || Settings { ca: Some(ours.file(files.path())), ..settings(&["127.0.0.1"]) };
    let h2: &[&[u8]] = &[b"h2", b"http/1.1"];

    assert_eq!(delivers(ours.acceptor("localhost", h2, None), trusting()).await, Outcome::Delivered);
    let issuer = failure(delivers(strangers.acceptor("localhost", h2, None), trusting()).await);
    assert_eq!(issuer.to_string(), "TLS: the certificate's issuer is not among those of notify.ca");
    let name = failure(delivers(ours.acceptor("smf.example", h2, None), trusting()).await);
    assert_eq!(name.to_string(), "TLS: the certificate names another host");
    let by_default = failure(delivers(ours.acceptor("localhost", h2, None), settings(&["127.0.0.1"])).await);
    assert!(matches!(by_default, Failure::Tls(_)), "{by_default}");
    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        let outcome = delivers(ours.acceptor("localhost", alpn, None), trusting()).await;
        assert_eq!(failure(outcome), Failure::NotHttp2);
    }

    let known = Settings { identity: Some(ours.identity(files.path())), ..trusting() };
    assert_eq!(delivers(ours.acceptor("localhost", h2, Some(&ours)), known.clone()).await, Outcome::Delivered);
    for (clients, settings) in [(&ours, trusting()), (&strangers, known)] {
        let unknown = failure(delivers(ours.acceptor("localhost", h2, Some(clients)), settings).await);
        assert!(matches!(unknown, Failure::Tls(_) | Failure::Lost), "{unknown}");
    }

    let plain = Peer::saying(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let uri = format!("https://localhost:{}/cb", plain.address.port());
    let outcome = failure(notifier_with(trusting()).send(&reauthorize(&uri)).await);
    assert_eq!(outcome.to_string(), "TLS: the peer does not speak TLS");
}

#[tokio::test]
async fn a_redirection_from_https_to_http_is_not_followed() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let plain = Stub::always(Says::Status(204)).await;
    let location = plain.uri("/cb");
    let says = move |_: &Received| Says::Header(307, "location", location.clone());
    let stub = Stub::serve(LOCAL, Some(authority.acceptor("localhost", &[b"h2"], None)), says).await;
    let notifier = notifier_with(Settings { ca: Some(authority.file(files.path())), ..settings(&["127.0.0.1"]) });
    let uri = format!("https://localhost:{}/cb", stub.address.port());
    let outcome = notifier.send(&following(&uri)).await;
    assert_eq!(failure(outcome), Failure::Redirection(Redirection::Insecure));
    assert_eq!(plain.accepted(), 0);
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for path in [empty, directory.path().join("missing.pem")] {
        let settings = Settings { ca: Some(path.clone()), ..Settings::default() };
        let error = Notifier::new(settings, Outside::new(Arc::new(SystemClock))).err().unwrap();
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    }
}

// ---- Connections ----

#[tokio::test]
async fn calls_share_a_connection_and_take_turns_beyond_the_bound_of_their_target() {
    let stub = Stub::always(Says::Gated(204)).await;
    let notifier = Arc::new(notifier_with(Settings { calls_per_target_max: 4, ..settings(&["127.0.0.1"]) }));
    let mut calls = JoinSet::new();
    for call in 0..12 {
        let (notifier, uri) = (Arc::clone(&notifier), stub.uri(&format!("/{call}")));
        calls.spawn(async move { notifier.send(&reauthorize(&uri)).await });
    }
    for round in 1..=3 {
        eventually("four calls are under way", || stub.received().len() == round * 4).await;
        sleep(Duration::from_millis(20)).await;
        assert_eq!(stub.under_way(), 4);
        stub.open_gate();
    }
    assert!(calls.join_all().await.iter().all(|outcome| *outcome == Outcome::Delivered));
    assert_eq!((stub.accepted(), stub.under_way_max(), notifier.connections()), (1, 4, 1));
}

#[tokio::test]
async fn a_goaway_ends_what_is_under_way_and_the_next_call_connects_anew() {
    let stub =
        Stub::start(|request| if request.uri.ends_with("gated") { Says::Gated(204) } else { Says::Status(204) }).await;
    let notifier = Arc::new(notifier());
    for round in 1..=3 {
        assert_eq!(notifier.send(&reauthorize(&stub.uri("/cb"))).await, Outcome::Delivered);
        assert_eq!(stub.accepted(), round);
        let (under_way, uri) = (Arc::clone(&notifier), stub.uri("/gated"));
        let under_way = tokio::spawn(async move { under_way.send(&reauthorize(&uri)).await });
        eventually("a call is under way", || stub.under_way() == 1).await;
        stub.leave();
        sleep(Duration::from_millis(20)).await;
        stub.open_gate();
        assert_eq!(under_way.await.unwrap(), Outcome::Delivered, "round {round}");
        eventually("the connection ends", || stub.open() == 0).await;
    }
}

#[tokio::test]
async fn a_peer_that_says_goaway_and_stays_holds_nobody_for_longer_than_the_deadline() {
    const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0";
    let peer = Peer::saying(GOAWAY).await;
    let notifier = notifier_with(Settings { deadline: SHORT, ..settings(&["127.0.0.1"]) });
    for connection in 1..=2 {
        let outcome = timeout(PATIENCE, notifier.send(&reauthorize(&peer.uri("/cb")))).await.unwrap();
        assert!(matches!(failure(outcome), Failure::TimedOut | Failure::Lost));
        assert_eq!(peer.accepted(), connection);
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_is_replaced_without_a_failure() {
    // Serves one request by hand, cuts when the next one comes.
    let peer = Peer::start(async |mut socket: TcpStream| {
        let _heard = socket.read(&mut [0; 1024]).await;
        let _said = socket.write_all(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x89").await;
        let mut heard = Vec::new();
        // The second request's headers: a frame of type 1 for stream 3.
        while !heard.windows(6).any(|window| window == b"\x01\x04\0\0\0\x03") {
            if socket.read_buf(&mut heard).await.is_ok_and(|octets| octets > 0) {
                continue;
            }
            return;
        }
    })
    .await;
    let notifier = notifier();
    for _ in 0..2 {
        assert_eq!(notifier.send(&reauthorize(&peer.uri("/cb"))).await, Outcome::Delivered);
    }
    assert_eq!(peer.accepted(), 2);
}

#[tokio::test]
async fn idle_and_old_connections_are_closed() {
    let short = Duration::from_millis(50);
    let limits = [
        Settings { idle_close: short, ..settings(&["127.0.0.1"]) },
        Settings { age_max: short, ..settings(&["127.0.0.1"]) },
    ];
    for limits in limits {
        let stub = Stub::always(Says::Status(204)).await;
        let notifier = notifier_with(limits);
        for _ in 0..2 {
            assert_eq!(notifier.send(&reauthorize(&stub.uri("/cb"))).await, Outcome::Delivered);
            eventually("the connection is closed", || stub.open() == 0 && notifier.connections() == 0).await;
        }
    }
}

#[tokio::test]
async fn connections_end_with_the_notifier() {
    let stub = Stub::always(Says::Status(204)).await;
    let notifier = notifier();
    assert_eq!(notifier.send(&reauthorize(&stub.uri("/cb"))).await, Outcome::Delivered);
    assert_eq!(stub.open(), 1);
    drop(notifier);
    eventually("the connection is closed", || stub.open() == 0).await;
}

#[tokio::test]
async fn more_targets_than_connections_take_turns() {
    let mut stubs = Vec::new();
    for _ in 0..5 {
        stubs.push(Stub::always(Says::Status(204)).await);
    }
    let notifier = notifier_with(Settings { connections_max: 2, ..settings(&["127.0.0.1"]) });
    for round in 0..3 {
        for stub in &stubs {
            assert_eq!(notifier.send(&reauthorize(&stub.uri("/cb"))).await, Outcome::Delivered, "round {round}");
            assert!(notifier.connections() <= 2);
        }
        // The one used last is kept.
        let last = stubs.last().unwrap();
        let accepted = last.accepted();
        assert_eq!(notifier.send(&reauthorize(&last.uri("/cb"))).await, Outcome::Delivered);
        assert_eq!(last.accepted(), accepted);
    }
    eventually("the others are closed", || stubs.iter().map(Stub::open).sum::<usize>() <= 2).await;
    let mut calls = JoinSet::new();
    let notifier = Arc::new(notifier);
    for stub in stubs.iter().cycle().take(100) {
        let (notifier, uri) = (Arc::clone(&notifier), stub.uri("/cb"));
        calls.spawn(async move { notifier.send(&reauthorize(&uri)).await });
    }
    assert!(calls.join_all().await.iter().all(|outcome| *outcome == Outcome::Delivered));
}

// ---- Dead targets ----

#[tokio::test]
async fn a_dead_target_is_left_alone_and_probed_by_one_call() {
    let clock = ManualClock::at(Timestamp::from_secs(1_700_000_000));
    let notifier = Notifier::new(settings(&["127.0.0.1"]), Outside::new(Arc::new(clock.clone()))).unwrap();
    let address = nobody().await;
    let uri = format!("http://{address}/cb");
    for _ in 0..5 {
        assert_eq!(notifier.may_try(&uri, clock.now()), Ok(()));
        let refused = Failure::Connect(ErrorKind::ConnectionRefused);
        assert_eq!(failure(notifier.send(&reauthorize(&uri)).await), refused);
    }
    let until = notifier.may_try(&uri, clock.now()).unwrap_err();
    assert!(until > clock.now() && until <= clock.now().after(Span::from_secs(1)), "{until:?}");
    assert_eq!(notifier.send(&reauthorize(&uri)).await, Outcome::Postponed { until });
    assert_eq!(notifier.may_try(&format!("http://{address}/other"), clock.now()), Err(until), "it is one target");
    assert_eq!(notifier.may_try("http://127.0.0.1:1/cb", clock.now()), Ok(()), "others are others");

    // Still dead when it is probed: a longer pause.
    clock.set(until);
    assert!(matches!(notifier.send(&reauthorize(&uri)).await, Outcome::Failed { .. }));
    let until = notifier.may_try(&uri, clock.now()).unwrap_err();
    assert!(until >= clock.now().after(Span::from_secs(1)), "{until:?}");

    // It is back.
    clock.set(until);
    let listener = TcpListener::bind(address).await.unwrap();
    let call = reauthorize(&uri);
    let probe = notifier.send(&call);
    let back = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let beside = notifier.send(&call).await;
        assert!(matches!(beside, Outcome::Postponed { .. }), "{beside:?}: one probe at a time");
        let _heard = socket.read(&mut [0; 1024]).await;
        socket.write_all(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x89").await.unwrap();
        socket
    };
    let (probed, _socket) = tokio::join!(probe, back);
    assert_eq!(probed, Outcome::Delivered);
    assert_eq!(notifier.may_try(&uri, clock.now()), Ok(()));
}

#[tokio::test]
async fn answers_of_a_living_target_never_close_it_off() {
    let clock = ManualClock::at(Timestamp::from_secs(1_700_000_000));
    for says in [Says::Status(404), Says::Status(403), Says::With(400, "{}"), Says::Status(307)] {
        let stub = Stub::always(says.clone()).await;
        let notifier = Notifier::new(settings(&["127.0.0.1"]), Outside::new(Arc::new(clock.clone()))).unwrap();
        for _ in 0..20 {
            notifier.send(&reauthorize(&stub.uri("/cb"))).await;
        }
        assert_eq!(stub.received().len(), 20, "{says:?}");
    }
}

#[tokio::test]
async fn a_dead_target_does_not_slow_a_living_one() {
    let living = Stub::always(Says::Status(204)).await;
    // Takes connections and is silent.
    let dead = Peer::start(async |socket: TcpStream| {
        sleep(PATIENCE * 2).await;
        drop(socket);
    })
    .await;
    let deadline = Duration::from_secs(5);
    let notifier = Arc::new(notifier_with(Settings { deadline, ..settings(&["127.0.0.1"]) }));
    let mut calls = JoinSet::new();
    for call in 0..1000 {
        let notifier = Arc::clone(&notifier);
        let is_dead = call % 2 == 0;
        let uri = if is_dead { dead.uri("/cb") } else { living.uri("/cb") };
        calls.spawn(async move { (is_dead, notifier.send(&reauthorize(&uri)).await) });
    }
    let done = timeout(PATIENCE, calls.join_all()).await.unwrap();
    let first_dead = done.iter().position(|(is_dead, _)| *is_dead);
    assert_eq!(done.len(), 1000);
    // `join_all` answers in the order of their ends.
    assert!(first_dead >= Some(500), "a call to the living waited for the dead: {first_dead:?}");
    let (dead_ones, living_ones): (Vec<_>, Vec<_>) = done.into_iter().partition(|(is_dead, _)| *is_dead);
    assert!(living_ones.iter().all(|(_, outcome)| *outcome == Outcome::Delivered));
    let tried = dead_ones.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed { .. })).count();
    let postponed = dead_ones.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Postponed { .. })).count();
    // Until five have failed, others may take their places.
    assert!((32..=36).contains(&tried), "{tried} were tried");
    assert_eq!(tried + postponed, 500, "those that waited were not tried");
}

// ---- What is said about it ----

#[tokio::test]
async fn nothing_that_may_be_logged_holds_the_path() {
    let secret = "imsi-001010000000001";
    let there = Stub::always(Says::Status(204)).await;
    let location = there.uri(&format!("/{secret}?{secret}"));
    let here = Stub::always(Says::Header(308, "location", location.clone())).await;
    let outcome = notifier().send(&following(&here.uri(&format!("/{secret}")))).await;
    assert!(matches!(&outcome, Outcome::Moved { to, permanent: true } if to.as_str() == location), "{outcome:?}");
    assert!(!format!("{outcome:?}").contains(secret), "{outcome:?}");
    assert_eq!(outcome.as_str(), "moved");
}

#[tokio::test]
async fn the_systems_resolver_reads_addresses_and_names() {
    let resolver = SystemResolver::default();
    let found = resolver.resolve("localhost").await.unwrap();
    assert!(!found.is_empty() && found.iter().all(|ip| ip.is_loopback()), "{found:?}");
    assert_eq!(resolver.resolve("2130706433").await.unwrap(), [LOCAL]);
    assert!(resolver.resolve("no-such-host.invalid").await.is_err());
}
