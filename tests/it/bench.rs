//! `nchf bench` against charging functions behind real sockets: what it plays, what it checks, how it counts.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use clap::Parser;
use nchf::bench::{self, Report, Scenario};
use nchf::clock::ManualClock;
use nchf::config::Config;
use nchf::floor;
use nchf::http::server::{Settings, Tls, TlsFiles};
use nchf::store::{Listing, TimerWrite, Version};
use nchf::tls::Identity;
use tokio::time::{Instant, sleep, sleep_until};

use crate::server::{LOCAL, Running};
use crate::support::World;
use crate::support::authority::Authority;
use crate::support::faulty::{Faulty, Traffic};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: bench::Args,
}

/// What the command line says, with two connections of three streams and an operator's side at the target.
fn args(running: &Running, more: &str) -> bench::Args {
    args_at(&format!("http://{}", running.server.address()), more)
}

fn args_at(url: &str, more: &str) -> bench::Args {
    let usual = ["bench", "--target", url, "--admin", url, "--connections", "2", "--streams", "3"];
    Cli::try_parse_from(usual.into_iter().chain(more.split_whitespace())).unwrap().args
}

async fn run(args: bench::Args) -> Report {
    tokio::task::spawn_blocking(move || bench::run(&args)).await.unwrap().unwrap()
}

/// What the program says of a run that there is none of.
async fn refused(args: bench::Args) -> String {
    let error = tokio::task::spawn_blocking(move || bench::run(&args)).await.unwrap().unwrap_err();
    format!("{:#}", anyhow::Error::from(error))
}

async fn serve(router: Router) -> Running {
    Running::serve(Settings::default(), None, router).await
}

#[track_caller]
fn assert_all_right(report: &Report) {
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    // What was due and could not be sent in time depends on what else the machine does.
    assert_eq!((report.refused.messages, report.left_open), (0, 0));
}

// ---- What is played ----

/// Messages by kind: create, update, release, event, copy.
fn messages(report: &Report) -> [u64; 5] {
    [report.create, report.update, report.release, report.event, report.copy].map(|figures| figures.messages)
}

#[tokio::test]
async fn each_scenario_is_answered_right_and_leaves_nothing_behind() {
    let world = World::new().await;
    let running = serve(world.router()).await;
    let played = async |more: &str| run(args(&running, &format!("--duration-secs 60 --sessions 12 {more}"))).await;
    for (more, expected) in [
        ("--scenario lifecycle --updates 3", [12, 36, 12, 0, 0]),
        ("--scenario create-release", [12, 0, 12, 0, 0]),
        ("--scenario events", [0, 0, 0, 12, 0]),
        ("--scenario duplicates --updates 2", [12, 24, 12, 0, 48]),
        ("--scenario lifecycle --updates 3 --rate 1000 --threads 2", [12, 36, 12, 0, 0]),
    ] {
        let report = played(more).await;
        assert_all_right(&report);
        assert_eq!(messages(&report), expected, "{more}");
    }
    let open = world.get("/admin/v1/charging-sessions").await.json();
    assert_eq!(open["items"], serde_json::json!([]));
}

#[tokio::test]
async fn sessions_may_be_opened_before_the_measured_time() {
    let world = World::new().await;
    let running = serve(world.router()).await;
    let report = run(args(&running, "--scenario update --open-sessions 40 --duration-secs 1")).await;
    assert_all_right(&report);
    let [created, updated, released, ..] = messages(&report);
    assert_eq!((created, released), (0, 0));
    assert!(updated > 0);

    let many = "--scenario open-sessions --open-sessions 40 --updates 4 --duration-secs 60 --sessions 60";
    let report = run(args(&running, many)).await;
    assert_all_right(&report);
    let [created, _, released, ..] = messages(&report);
    assert_eq!((created, released), (20, 60));
    let open = world.get("/admin/v1/charging-sessions").await.json();
    assert_eq!(open["items"], serde_json::json!([]));
}

#[tokio::test]
async fn what_a_run_needs_can_be_provisioned_and_is_credited_once() {
    let world = World::new().await;
    let running = serve(world.router()).await;
    // One subscriber that is there, and two that are not.
    let more = "--provision --first-subscriber imsi-001010000001000 --subscribers 3 --duration-secs 60 --sessions 9";
    for _ in 0..2 {
        assert_all_right(&run(args(&running, more)).await);
    }
    let subscriber = world.get("/admin/v1/subscribers/imsi-001010000001000").await.json();
    assert_eq!((&subscriber["accountId"], &subscriber["tariffPlanId"]), (&"demo-1000".into(), &"demo".into()));
    // Six sessions were released, each for one started block of 0.01.
    assert_eq!(world.balance("demo-1000", "main", "amount").await, "1000009.940000");
    let account = "bench-imsi-001010000001001";
    assert_eq!(world.balance(account, "main", "amount").await, "999999.940000");

    let more = "--provision --accounts 2 --first-subscriber imsi-001010000002000 --subscribers 5 --duration-secs 60 --sessions 5";
    assert_all_right(&run(args(&running, more)).await);
    assert_eq!(world.balance("bench-2-0", "main", "amount").await, "999999.970000");
    assert_eq!(world.balance("bench-2-1", "main", "amount").await, "999999.980000");

    // A row that is longer than the demo's passes by those of its subscribers that are blocked or have nothing.
    assert_all_right(&run(args(&running, "--provision --subscribers 1001 --duration-secs 60 --sessions 9")).await);
    let subscriber = world.get("/admin/v1/subscribers/imsi-001010001001001").await.json();
    assert_eq!(subscriber["tariffPlanId"], "bench");
}

#[tokio::test]
async fn what_cannot_be_played_is_said_at_once() {
    let running = serve(charging_function(|_| async { None })).await;
    let error = refused(args(&running, "--subscribers 2 --open-sessions 31")).await;
    assert_eq!(error, "--subscribers 2: 31 sessions at once need at least 3");
    let args = args(&running, "--scenario update --first-subscriber msisdn-1");
    assert!(tokio::task::spawn_blocking(move || bench::run(&args)).await.unwrap().is_err());
}

#[tokio::test]
async fn a_run_whose_sessions_cannot_be_opened_ends_with_the_reason() {
    let world = World::new().await;
    let running = serve(world.router()).await;
    let error = refused(args(&running, "--scenario update --first-subscriber imsi-999990000000001")).await;
    assert_eq!(error, "no session can be opened: status 404 Not Found");
}

// ---- TLS ----

#[tokio::test]
async fn a_target_behind_tls_is_played_with_the_certificate_that_it_asks_for() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let (server, client) = (authority.identity_of("127.0.0.1", files.path()), authority.identity(files.path()));
    let ca = authority.file(files.path());
    let Identity { certificate, key } = server;
    let world = World::new().await;
    let tls = TlsFiles { certificate: certificate.clone(), key: key.clone(), client_ca: Some(ca.clone()) };
    let running = Running::serve(Settings::default(), Some(Tls::from_files(&tls).unwrap()), world.router()).await;

    let url = format!("https://{}", running.server.address());
    let show = |identity: &Identity, ca: &Path| {
        let (certificate, key) = (identity.certificate.display(), identity.key.display());
        format!("--certificate {certificate} --key {key} --ca {}", ca.display())
    };
    let played = "--scenario lifecycle --updates 3 --duration-secs 60 --sessions 6";
    let report = run(args_at(&url, &format!("{played} {}", show(&client, &ca)))).await;
    assert_all_right(&report);
    assert_eq!(messages(&report), [6, 18, 6, 0, 0]);

    // Whoever shows no certificate gets no answer; the handshake is over for the one that asks before it is for the other.
    let unknown = format!("--scenario update --ca {}", ca.display());
    let error = refused(args_at(&url, &unknown)).await;
    assert_eq!(error, "no session can be opened: connection or stream ended before the answer");
    let others = tempfile::tempdir().unwrap();
    let error = refused(args_at(&url, &show(&client, &Authority::new().file(others.path())))).await;
    assert_eq!(error, format!("cannot connect to {url}/: the certificate's issuer is not among those of --ca"));
    let elsewhere = url.replace("127.0.0.1", "localhost");
    let error = refused(args_at(&elsewhere, &show(&client, &ca))).await;
    assert_eq!(error, format!("cannot connect to {elsewhere}/: the certificate names another host"));
    let error = refused(args_at(&url, &show(&client, Path::new("/nowhere/ca.pem")))).await;
    assert!(error.starts_with("/nowhere/ca.pem: "), "{error}");

    // The floor, with the same settings.
    let store = tempfile::tempdir().unwrap();
    let mut config = Config { listen: LOCAL, ..Config::default() };
    config.store.url = format!("embedded:{}", store.path().display());
    config.tls = Some(nchf::config::Tls { certificate, key, client_ca: Some(ca.clone()) });
    let floor = floor::Floor::start(&config).await.unwrap();
    let url = format!("https://{}", floor.address());
    let report = run(args_at(&url, &format!("{played} {}", show(&client, &ca)))).await;
    assert_all_right(&report);
    floor.stop().await;
}

#[tokio::test]
async fn a_target_that_speaks_no_http2_is_said_at_once() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = authority.file(files.path());
    for alpn in [&[b"http/1.1".as_slice()][..], &[]] {
        let acceptor = authority.acceptor("127.0.0.1", alpn, None);
        let listener = tokio::net::TcpListener::bind(LOCAL).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let _refused = acceptor.accept(socket).await;
        });
        let error = refused(args_at(&url, &format!("--ca {}", ca.display()))).await;
        assert_eq!(error, format!("cannot connect to {url}/: the target does not agree to HTTP/2"));
    }
}

// ---- How it is counted ----

#[tokio::test]
async fn wrong_answers_are_counted_by_kind_and_not_as_work_done() {
    // Rating group 40 is refused in the third update.
    let running = serve(charging_function(|_| async { None })).await;
    let json = tempfile::NamedTempFile::new().unwrap();
    let more = format!(
        "--threads 2 --duration-secs 60 --sessions 20 --updates 4 --subscribers 10 --pid {} --json {}",
        std::process::id(),
        json.path().display()
    );
    let report = run(args(&running, &more)).await;
    assert_eq!(messages(&report), [20, 60, 20, 0, 0]);
    let wrong: Vec<_> = report.errors.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(wrong, [("update: rating group 40: QUOTA_LIMIT_REACHED", 20)]);
    assert_eq!((report.cpu.len(), report.memory.len()), (2, 2));
    assert_eq!(
        report
            .over_time
            .iter()
            .map(|moment| (moment.answered, moment.failed))
            .fold((0, 0), |sum, moment| { (sum.0 + moment.0, sum.1 + moment.1) }),
        (100, 20)
    );
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    assert_eq!(json["all"]["messages"], 100);
}

#[tokio::test]
async fn a_refusal_is_no_error_and_the_message_comes_again() {
    let seen = Arc::new(AtomicU64::new(0));
    let running = serve(charging_function(move |_| {
        let seen = seen.fetch_add(1, Ordering::Relaxed);
        async move {
            let refused = (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]);
            (seen % 4 == 3).then(|| refused.into_response())
        }
    }))
    .await;
    let report = run(args(&running, "--rate 1000 --duration-secs 60 --sessions 20 --updates 2")).await;
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    assert_eq!(messages(&report), [20, 40, 20, 0, 0]);
    // All sessions are done long before the time is over, and then nobody waits for more to be due.
    assert!(report.elapsed_secs < 60.0, "{report}");
    assert!((20..=27).contains(&report.refused.messages), "a quarter of all: {}", report.refused.messages);
}

#[tokio::test]
async fn an_open_loop_charges_a_stall_to_all_who_were_due_in_it() {
    const STALL: Duration = Duration::from_millis(500);
    // The fiftieth message and all that come within half a second wait until that is over.
    let (seen, until) = (AtomicU64::new(0), Arc::new(std::sync::OnceLock::new()));
    let running = serve(charging_function(move |_| {
        if seen.fetch_add(1, Ordering::Relaxed) == 50 {
            until.set(Instant::now() + STALL).unwrap();
        }
        let until = until.get().copied();
        async move {
            if let Some(until) = until {
                sleep_until(until).await;
            }
            None
        }
    }))
    .await;
    let report = run(args(&running, "--rate 200 --duration-secs 2 --updates 2")).await;
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    assert_eq!((report.all.messages, report.unsent), (400, 0));
    // Six streams wait in the stall, but a hundred messages are due in it: half of them, an eighth of all, for longer than
    // half of it.
    assert!(report.all.p90_micros >= 240_000, "{report}");
    assert!(report.all.max_micros >= 490_000, "{report}");
    // Seen from the streams alone, six messages were slow.
    assert_eq!(report.from_sending.messages, 400);
    assert!(report.from_sending.p90_micros < report.all.p90_micros, "{report}");
}

#[tokio::test]
async fn messages_that_never_found_a_stream_are_counted() {
    let running = serve(charging_function(|_| async {
        sleep(Duration::from_millis(300)).await;
        None
    }))
    .await;
    let report = run(args(&running, "--rate 500 --duration-secs 1 --warmup-secs 1 --updates 2")).await;
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    // Five hundred are due before the measured time too, and six at once can be under way.
    assert!(report.unsent >= 450 && report.unsent + report.all.messages <= 500, "{report}");
    assert!(!report.warnings.is_empty());
}

/// As much of a charging function as the load generator looks at. `before` may wait, or answer something else. Updates
/// with number 3 are refused rating group 40.
fn charging_function<F>(before: impl Fn(u64) -> F + Send + Sync + 'static) -> Router
where
    F: Future<Output = Option<Response>> + Send + 'static,
{
    let before = Arc::new(before);
    let path = "/nchf-convergedcharging/v3/chargingdata";
    let answer = move |status: StatusCode| {
        let before = Arc::clone(&before);
        move |body: Bytes| {
            let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let number = request["invocationSequenceNumber"].as_u64().unwrap();
            let other = before(number);
            async move {
                let location = [("location", format!("http://elsewhere{path}/abc"))];
                other.await.unwrap_or_else(|| (status, location, response(number)).into_response())
            }
        }
    };
    Router::new()
        .route(path, post(answer(StatusCode::CREATED)))
        .route(&format!("{path}/abc/update"), post(answer(StatusCode::OK)))
        .route(&format!("{path}/abc/release"), post(answer(StatusCode::NO_CONTENT)))
}

fn response(number: u64) -> String {
    let code = if number == 3 { "QUOTA_LIMIT_REACHED" } else { "SUCCESS" };
    let granted = serde_json::json!({"totalVolume": 1});
    serde_json::json!({
        "invocationSequenceNumber": number,
        "multipleUnitInformation": [
            {"ratingGroup": 10, "grantedUnit": granted},
            {"ratingGroup": 40, "resultCode": code, "grantedUnit": granted},
        ],
    })
    .to_string()
}

// ---- The floor ----

/// What an update asks of the store and answers, in octets, on average over those whose session has had some before.
#[derive(Debug)]
struct Cost {
    loads: f64,
    account_read: f64,
    session_read: f64,
    account: f64,
    session: f64,
    entry: f64,
    answer: f64,
}

async fn cost_of_updates(store: &Faulty, routes: Router) -> Cost {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&answers);
    let watched = routes.layer(from_fn(move |request: Request, next: Next| {
        let is_update = request.uri().path().ends_with("/update");
        let kept = Arc::clone(&kept);
        async move {
            let response = next.run(request).await;
            let length = response.body().size_hint().exact();
            kept.lock().unwrap().extend(length.filter(|_| is_update));
            response
        }
    }));
    let running = serve(watched).await;
    assert_all_right(&run(args(&running, "--scenario update --rate 300 --duration-secs 1")).await);

    let Traffic { loads, commits } = std::mem::take(&mut *store.traffic.lock().unwrap());
    const SOME: Version = Version(10);
    let updates: Vec<_> = (commits.iter())
        .filter_map(|commit| Some((commit, commit.sessions.first()?)))
        .filter(|(_, session)| session.listing == Listing::Keep && session.expected >= SOME)
        .collect();
    for (commit, session) in &updates {
        assert_eq!((commit.sessions.len(), commit.outbox.len(), commit.index.len()), (1, 0, 0));
        assert_eq!((&commit.account_journal, session.timer), (&None, TimerWrite::Keep));
    }
    let mut read = Vec::new();
    for (load, snapshot) in &loads {
        let documents = snapshot.account.as_ref().zip(snapshot.session.as_ref());
        let of_update = documents.filter(|(_, session)| session.version >= SOME);
        read.extend(of_update.map(|documents| (load.index.len(), documents)));
    }
    assert!(updates.len() > 200 && read.iter().all(|(index, _)| *index == 0));
    let average = |lengths: &mut dyn Iterator<Item = usize>| {
        let lengths: Vec<_> = lengths.collect();
        lengths.iter().sum::<usize>() as f64 / lengths.len() as f64
    };
    let length = |octets: &Option<Bytes>| octets.as_ref().map_or(0, Bytes::len);
    let answers = answers.lock().unwrap();
    Cost {
        // A release loads once too.
        loads: (read.len() - 6) as f64 / updates.len() as f64,
        account_read: average(&mut read.iter().map(|(_, (account, _))| account.bytes.len())),
        session_read: average(&mut read.iter().map(|(_, (_, session))| session.bytes.len())),
        account: average(&mut updates.iter().map(|(commit, _)| length(&commit.account_document))),
        session: average(&mut updates.iter().map(|(_, session)| session.document.len())),
        entry: average(&mut updates.iter().map(|(_, session)| length(&session.journal))),
        answer: average(&mut answers.iter().map(|length| *length as usize)),
    }
}

#[tokio::test]
async fn the_floor_moves_as_many_octets_as_an_update() {
    let clock = ManualClock::at("2026-01-15T11:00:00Z".parse::<jiff::Timestamp>().unwrap().into());
    let store = || Faulty::before_memory(&clock);
    let (charging, ground) = (store(), store());
    let world = World::over(charging.clone(), clock.clone(), Config::default()).await;
    let real = cost_of_updates(&charging, world.router()).await;
    let floor = cost_of_updates(&ground, floor::routes(ground.clone(), &Arc::default())).await;
    let pairs = [
        (real.loads, floor.loads),
        (real.account_read, floor.account_read),
        (real.session_read, floor.session_read),
        (real.account, floor.account),
        (real.session, floor.session),
        (real.entry, floor.entry),
        (real.answer, floor.answer),
    ];
    let is_as_much = |(real, floor): (f64, f64)| (0.97..=1.03).contains(&(floor / real));
    assert!(pairs.into_iter().all(is_as_much), "an update is {real:#?}, the floor's {floor:#?}");
}

#[test]
fn scenarios_are_named_as_on_the_command_line() {
    let named = |name: &str| Cli::try_parse_from(["bench", "--scenario", name]).unwrap().args.scenario;
    assert_eq!(named("open-sessions"), Scenario::OpenSessions);
    assert!(Cli::try_parse_from(["bench", "--rate", "0"]).is_err());
}
