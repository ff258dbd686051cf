//! An instance: the production store, services and workers over simulated wires, files and time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use http_body_util::BodyExt;
use nchf::app::{App, RequestLimits, Shared};
use nchf::charging::time::Timestamp;
use nchf::clock::Clock;
use nchf::config::Config;
use nchf::http::nchf::{Nchf, Settings};
use nchf::http::{admin, nchf as services};
use nchf::notify::resolve::Resolve;
use nchf::notify::{Notifier, Outside};
use nchf::store::redis::RedisStore;
use nchf::store::{RefCodec, Store};
use nchf::workers::Workers;
use nchf::workers::notifications::Notifications;
use nchf::workers::records::{Records, Times};
use nchf::workers::sweep::Sweep;
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use super::auditor::Answer;
use super::chance::Seeded;
use super::ice::Ice;
use super::network::{Cable, Life};
use super::world::World;

/// The wall clock of one machine, which may be ahead of the others or behind.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    pub start: Instant,
    pub ahead_millis: i64,
}

/// Thursday, 15 January 2026, 11:00 UTC.
const EPOCH_MILLIS: i64 = 1_768_474_800_000;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(EPOCH_MILLIS + elapsed + self.ahead_millis)
    }
}

/// Everybody is called by address.
struct NoNames;

#[async_trait]
impl Resolve for NoNames {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        Ok(Vec::new())
    }
}

/// One that is alive.
pub struct Instance {
    pub life: Life,
    pub app: App,
    pub ice: Ice,
    router: Router,
    worker: JoinHandle<()>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// Settings under which a session's whole life fits into minutes.
pub fn config(world: &World) -> Config {
    let mut config = Config::default();
    config.timers.supervision_secs = 600;
    config.cdr.rotate_secs = 30;
    config.cdr.rotate_records = 8;
    config.store.deadline_ms = 1000;
    config.timers.record_open_secs = world.options.record_open_secs;
    config
}

impl Instance {
    /// # Errors
    ///
    /// What the store says.
    pub async fn start(world: &Rc<World>, place: usize, life: Life) -> Result<Self, String> {
        let ice = Ice::default();
        let cable = Cable { life, ice: ice.clone(), dials: world.dials.clone() };
        let settings = world.store_settings(Arc::new(cable.clone()));
        let store = RedisStore::open(settings).await.map_err(|error| error.into_reason().into_string())?;
        store.ready().await.map_err(|error| error.into_reason().into_string())?;
        let store = world.mutant.over(Arc::new(store), ice.clone());
        let config = config(world);
        let clock = Arc::new(world.wall_clock(place));
        let refs = RefCodec::new(store.identity().secret);
        let id = store.identity().instance_id.clone();
        let limits = RequestLimits {
            deadline_ms: config.http.deadline_ms,
            waiting_per_account_max: config.http.waiting_per_account_max,
        };
        let random = Arc::new(Seeded::new(world.chance.stream("instance", life.0)));
        let rules = config.rules().expect("settings that are valid");
        let mut shared = Shared::new(clock.clone(), refs, rules, id, limits);
        shared.random = random.clone();
        let app = App { store, shared: Arc::new(shared) };
        app.refresh_catalog().await.map_err(|error| format!("{error:?}"))?;
        let notifier = Notifier::new(
            nchf::notify::Settings::default(),
            Outside { clock, random, resolver: Arc::new(NoNames), network: Arc::new(cable) },
        );
        let notifier = notifier.map_err(|error| error.to_string())?;
        let times = Times {
            retention: nchf::charging::time::Span::from_secs(86_400),
            attended: nchf::charging::time::Span::from_secs(config.cdr.takeover_secs),
        };
        let records = Records::new(app.clone(), world.disks[place].clone(), config.cdr_files(), times);
        let records = records.map_err(|error| error.to_string())?;
        let workers =
            Workers { app: app.clone(), notifications: Notifications::new(notifier, config.notify_retry()), records };
        let (inside, working) = (ice.clone(), work(Rc::clone(world), place, life, workers));
        let worker = spawn_local(async move { inside.around(working).await });
        let settings = Arc::new(Settings { charging: config.charging, api_root: None, is_tls: false });
        let router = services::routes(Nchf::new(app.clone(), settings)).merge(admin::routes(app.clone()));
        Ok(Self { life, app, ice, router, worker })
    }

    pub fn door(&self) -> Door {
        Door { life: self.life, ice: self.ice.clone(), router: self.router.clone() }
    }
}

/// Where requests enter an instance.
#[derive(Clone)]
pub struct Door {
    pub life: Life,
    ice: Ice,
    router: Router,
}

impl Door {
    /// One request. The future may be dropped, as a stream may be reset.
    pub async fn call(self, method: Method, path: &str, body: &Value) -> Answer {
        let Self { ice, router, .. } = self;
        ice.around(call(router, method, path, body)).await
    }
}

async fn work(world: Rc<World>, place: usize, life: Life, mut workers: Workers<super::disk::Shared>) {
    let mut chance = world.chance.stream("worker", life.0);
    let (mut sweep, mut known_drift) = (Sweep::default(), 0);
    loop {
        sleep(world.pause_between_rounds(&mut chance)).await;
        world.lines.released(life).await;
        if chance.permille(300) {
            // Loads what Redis has lost.
            let _not_ready = workers.app.store.ready().await;
        }
        // What fails is done in another round, or by another instance.
        let _failed = workers.round(&world.partitions(&workers.app), &mut sweep).await;
        let drift = workers.app.shared.metrics.index_drift.get();
        if drift > known_drift {
            known_drift = drift;
            world.auditor.borrow_mut().violated(format!("the sweep had to put back {drift} entries of indexes"));
        }
        if world.disks[place].disk().is_down {
            world.kill(life);
            return;
        }
    }
}

async fn call(router: Router, method: Method, path: &str, body: &Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "chf.example.com")
        .header(header::CONTENT_TYPE, "application/json")
        .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
        .expect("a request that is well formed");
    let Ok(response) = router.oneshot(request).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Answer { status: parts.status.as_u16(), location, body }
}

/// Where consumers listen.
pub fn consumer_address(number: u64) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, number as u8 + 1], 8080))
}

/// How often workers look, in the midst of things and when all is over.
pub const ROUNDS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(20)];
