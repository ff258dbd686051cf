//! The parts of an update with two rating groups, one by one, as `scripts/count-instructions` counts them: how many
//! instructions each takes does not depend on how busy the machine is.
//!
//! `core PART ROUNDS` does one part so many times, inside a function that has the part's name (up to a hyphen) and is not
//! inlined. `core crowd ROUNDS` does as many updates of each of [`CROWD`] sessions, which wait for the store at the same
//! time: what one of them touches is not what the next one needs.

use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, Uri, header};
use behind::{Behind, Meddler};
use bytes::Bytes;
use http_body_util::BodyExt;
use nchf::app::{App, RequestLimits, Shared};
use nchf::charging::account::Account;
use nchf::charging::decide::{Command, Context, decide};
use nchf::charging::decision::Decision;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::session::{ChargingSession, Operation, Service};
use nchf::clock::ManualClock;
use nchf::config::Config;
use nchf::http::nchf::parse::{self, Parsed};
use nchf::http::nchf::{CONVERGED, Nchf, Settings, render, routes};
use nchf::store::memory::MemoryStore;
use nchf::store::{Commit, Error, Load, RefCodec, Snapshot, Store, record};
use nchf::transact::Opening;
use nchf::{bench, demo};
use tokio::runtime::Runtime;
use tower::ServiceExt;

#[path = "../tests/it/support/behind.rs"]
mod behind;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let part = arguments.next().unwrap_or_default();
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let scene = runtime.block_on(Scene::new());
    match part.as_str() {
        "parse" => repeat(rounds, || part_parse(&scene)),
        "decode" => repeat(rounds, || part_decode(&scene)),
        "decide" => {
            let prepared: Vec<_> = (0..rounds).map(|_| (part_decode(&scene), part_parse(&scene))).collect();
            for ((account, session), parsed) in prepared {
                black_box(part_decide(&scene, account, session, &parsed));
            }
        }
        "encode" => {
            let decision = scene.decision();
            repeat(rounds, || part_encode(&decision));
        }
        "render" => {
            let decision = scene.decision();
            repeat(rounds, || part_render(&scene, &decision));
        }
        "crowd" => runtime.block_on(crowd(rounds)),
        "whole" => {
            for number in SESSION_AGE..SESSION_AGE + rounds {
                part_whole(&runtime, scene.router.clone(), scene.update(number));
            }
        }
        "whole-create" => {
            for session in (1..).take(rounds as usize) {
                let create = post(CONVERGED, bench::example_create(session));
                part_whole(&runtime, scene.router.clone(), create);
            }
        }
        "whole-release" => {
            // As many sessions whatever the rounds, so that a difference between rounds knows nothing of their Creates.
            let references: Vec<_> = (1..1000).map(|session| runtime.block_on(scene.created(session))).collect();
            for (session, reference) in (1..).zip(references).take(rounds as usize) {
                let release = post(&format!("{CONVERGED}/{reference}/release"), bench::example_release(session, 1));
                part_whole(&runtime, scene.router.clone(), release);
            }
        }
        "whole-event" => {
            for session in (1..).take(rounds as usize) {
                part_whole(&runtime, scene.router.clone(), post(CONVERGED, bench::example_event(session)));
            }
        }
        other => {
            let whole = "whole, whole-create, whole-release, whole-event";
            eprintln!("{other:?}: parse, decode, decide, encode, render, {whole} or crowd");
        }
    }
}

fn repeat<T>(rounds: u32, mut part: impl FnMut() -> T) {
    for _ in 0..rounds {
        black_box(part());
    }
}

#[inline(never)]
fn part_parse(scene: &Scene) -> Parsed {
    parse::charging_data_request(black_box(&scene.body), Service::Converged, None).expect("a request")
}

#[inline(never)]
fn part_decode(scene: &Scene) -> (Account, Box<ChargingSession>) {
    let account = record::decode(black_box(&scene.account)).expect("an account");
    (account, record::decode_session(&scene.reference, black_box(&scene.session)).expect("a session"))
}

#[inline(never)]
fn part_decide(scene: &Scene, account: Account, session: Box<ChargingSession>, parsed: &Parsed) -> Decision {
    let shared = &scene.app.shared;
    let catalog = shared.catalog();
    let context = Context { now: shared.clock.now(), catalog: &catalog, rules: &shared.rules, account_version: 2 };
    decide(&context, Some(account), Command::Update(session, &parsed.invocation)).expect("a decision")
}

#[inline(never)]
fn part_encode(decision: &Decision) -> [Bytes; 3] {
    let change = &decision.changes.sessions[0];
    [
        record::encode(black_box(&decision.changes.account)),
        record::encode_session(black_box(&change.session)),
        record::encode_entry(black_box(change.entry.as_ref().expect("an entry")), &change.session.quotas),
    ]
}

#[inline(never)]
fn part_render(scene: &Scene, decision: &Decision) -> Vec<u8> {
    render::charging_data_response(black_box(&decision.answer), decision.session(), &scene.config.charging)
}

/// A message through the routes and a store in memory, without sockets.
#[inline(never)]
fn part_whole(runtime: &Runtime, router: axum::Router, request: Request<Body>) -> Bytes {
    runtime.block_on(answered(router, request))
}

/// Updates under way at once, as many as a worker has of 256 streams.
const CROWD: usize = 128;

/// Lets others go on whenever the store is asked.
struct Yielding;

#[async_trait]
impl Meddler for Yielding {
    async fn load(&self, store: &dyn Store, load: &Load) -> Result<Snapshot, Error> {
        tokio::task::yield_now().await;
        store.load(load).await
    }

    async fn commit(&self, store: &dyn Store, commit: &Commit) -> Result<(), Error> {
        tokio::task::yield_now().await;
        store.commit(commit).await
    }
}

async fn crowd(rounds: u32) {
    let scene = Scene::over(|store| Arc::new(Behind::new(Yielding, store))).await;
    let mut crowd = Vec::new();
    for session in (1..).take(CROWD) {
        let router = scene.router.clone();
        let reference = scene.created(session).await;
        crowd.push(tokio::spawn(async move {
            for number in 1..=rounds {
                let update = post(&format!("{CONVERGED}/{reference}/update"), bench::example_update(session, number));
                answered(router.clone(), update).await;
            }
        }));
    }
    for one in crowd {
        one.await.expect("all updates are answered");
    }
}

async fn answered(router: axum::Router, request: Request<Body>) -> Bytes {
    let answer = router.oneshot(request).await.expect("an answer");
    assert!(answer.status().is_success());
    answer.into_body().collect().await.expect("a body").to_bytes()
}

/// A session that has had some updates.
struct Scene {
    app: App,
    config: Config,
    router: axum::Router,
    reference: ChargingDataRef,
    body: Vec<u8>,
    account: Bytes,
    session: Bytes,
}

/// Updates that the session has had: from then on its document keeps its length.
const SESSION_AGE: u32 = 10;

impl Scene {
    async fn new() -> Self {
        Self::over(|store| store).await
    }

    /// With somebody in front of the store in memory.
    async fn over(in_front: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        let config = Config::default();
        let clock = ManualClock::at(bench::EXAMPLE_TIME);
        let store = in_front(Arc::new(MemoryStore::new(Arc::new(clock.clone()))));
        let refs = RefCodec::new(store.identity().secret);
        let limits = RequestLimits { deadline_ms: 3000, waiting_per_account_max: 512 };
        let rules = config.rules().expect("the default rules");
        let shared = Arc::new(Shared::new(Arc::new(clock), refs, rules, "bench".into(), limits));
        let app = App { store, shared };
        demo::provision(&app).await.expect("the demo data");
        let parsed =
            |body: String| parse::charging_data_request(body.as_bytes(), Service::Converged, None).expect("a request");
        let created = parsed(bench::example_create(0));
        let (identities, pdu_session) = (created.identities(), created.pdu_session());
        let Parsed { invocation, one_time } = created;
        let opening = Opening { invocation, service: Service::Converged, one_time, identities, pdu_session };
        let reference = app.create(&opening).await.expect("a session").session.reference;
        for number in 1..SESSION_AGE {
            let invocation = parsed(bench::example_update(0, number)).invocation;
            let (operation, service) = (Operation::Update, Service::Converged);
            app.continue_session(operation, service, reference.as_str(), invocation).await.expect("an update");
        }
        let account = app.shared.refs.account_of(reference.as_str()).expect("a reference of ours");
        let load = Load { account, session: Some(reference.clone()), index: Vec::new() };
        let snapshot = app.store.load(&load).await.expect("a snapshot");
        let settings = Settings { charging: config.charging.clone(), api_root: None, is_tls: false };
        let router = routes(Nchf::new(app.clone(), Arc::new(settings)));
        Self {
            app,
            config,
            router,
            reference,
            body: bench::example_update(0, SESSION_AGE).into_bytes(),
            account: snapshot.account.expect("an account").bytes,
            session: snapshot.session.expect("a session").bytes,
        }
    }

    fn decision(&self) -> Decision {
        let (account, session) = part_decode(self);
        part_decide(self, account, session, &part_parse(self))
    }

    /// The reference of another session.
    async fn created(&self, session: u64) -> String {
        let answer = self.router.clone().oneshot(post(CONVERGED, bench::example_create(session))).await;
        let answer = answer.expect("an answer");
        let location = Uri::try_from(answer.headers()[header::LOCATION].as_bytes()).expect("a URI");
        location.path().rsplit('/').next().expect("a last segment").to_owned()
    }

    fn update(&self, number: u32) -> Request<Body> {
        post(&format!("{CONVERGED}/{}/update", self.reference), bench::example_update(0, number))
    }
}

fn post(path: &str, body: String) -> Request<Body> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    request.body(body.into()).expect("a request")
}
