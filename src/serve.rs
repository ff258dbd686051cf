//! The composition root: from a configuration to a running instance, and to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::app::{App, RequestLimits, Shared};
use crate::charging::time::Span;
use crate::clock::SystemClock;
use crate::config::{Config, Notify, StoreUrl, masked};
use crate::demo;
use crate::http::admission::{Admission, Class, Full};
use crate::http::auth::Token;
use crate::http::health::Draining;
use crate::http::nchf::{self, Nchf};
use crate::http::operator;
use crate::http::server::{Server, Settings, Tls, TlsFiles, Workers};
use crate::notify::{self, Notifier, Outside};
use crate::store::embedded::{self, EmbeddedStore};
use crate::store::redis::{self, RedisStore};
use crate::store::{self, RefCodec, Store};
use crate::telemetry::{Metrics, RefusalLabels};
use crate::tls;
use crate::workers;
use crate::workers::notifications::Notifications;
use crate::workers::records::{self, Records};

/// A running instance.
pub struct Instance {
    workers: Workers,
    nchf: Server,
    operator: Server,
    draining: Draining,
    drain: Duration,
    store: Opener,
    background: Background,
}

/// The workers, on a thread of their own with its own connections to the store, so that requests do not wait for them.
struct Background {
    threads: Workers,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Background {
    async fn start(config: &Config, opener: Opener, shared: Arc<Shared>, own: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let threads = Workers::start(1)?;
        let store = opener.when_available(async || opener.open_for(&threads).await).await?.remove(0);
        let notifier = Notifier::new(notify_settings(config, own)?, Outside::new(Arc::clone(&shared.clock)))?;
        let app = App { store, shared };
        let times = records::Times {
            retention: Span::from_secs(config.cdr.retention_secs),
            attended: Span::from_secs(config.cdr.takeover_secs),
        };
        let records = Records::new(app.clone(), config.cdr_dir.clone(), config.cdr_files(), times);
        let records = records.with_context(|| format!("cdr_dir = {}", config.cdr_dir.display()))?;
        let work =
            workers::Workers { app, notifications: Notifications::new(notifier, config.notify_retry()), records };
        let (stop, stopped) = oneshot::channel();
        let ended = threads.first().spawn(work.run(stopped));
        Ok(Self { threads, stop, ended })
    }

    /// Ends after the work of one round. What is not done then is done by another instance, or after the next start.
    async fn stop(self) {
        let _told = self.stop.send(());
        let _ended = tokio::time::timeout(BACKGROUND_ENDS_WITHIN, self.ended).await;
        self.threads.stop();
    }
}

const BACKGROUND_ENDS_WITHIN: Duration = Duration::from_secs(5);

impl Instance {
    /// Opens the store, provisions what the configuration asks for, and listens. Waits for a store that is away.
    ///
    /// # Errors
    ///
    /// What an operator can mend, in a sentence.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let opener = Opener::new(config)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = Workers::start(config.workers.unwrap_or(cores))?;
        let ready = async || {
            let stores = opener.open_for(&workers).await?;
            if let Some(first) = stores.first() {
                first.ready().await.map_err(|error| error.about("the store is not ready"))?;
            }
            Ok(stores)
        };
        let mut stores = opener.when_available(ready).await?.into_iter();
        let first = stores.next().context("there is always a worker")?;

        let identity = first.identity();
        let refs = RefCodec::new(identity.secret);
        let instance_id = config.instance_id.map_or_else(|| identity.instance_id.clone(), |id| id.to_string().into());
        let request_limits = RequestLimits {
            deadline_ms: config.http.deadline_ms,
            waiting_per_account_max: config.http.waiting_per_account_max,
        };
        let shared = Arc::new(Shared::new(Arc::new(SystemClock), refs, config.rules()?, instance_id, request_limits));
        let tls = tls_of(config)?;
        let settings = Arc::new(nchf::Settings {
            charging: config.charging.clone(),
            api_root: config.http.api_root.clone(),
            is_tls: tls.is_some(),
        });
        let apps: Vec<Nchf> = [first]
            .into_iter()
            .chain(stores)
            .map(|store| Nchf::new(App { store, shared: Arc::clone(&shared) }, Arc::clone(&settings)))
            .collect();

        let control = apps[0].app.clone();
        let demo = config.demo;
        let prepare = async || workers.run_on_first(prepare(control.clone(), demo)).await;
        opener.when_available(prepare).await?;
        workers.first().spawn(watch_catalog(control.clone()));
        if let Opener::Redis(settings) = &opener {
            workers.first().spawn(count_losses(control, Arc::clone(&settings.histories)));
        }

        let draining = Draining::default();
        let operator_nchf = Nchf::new(apps[0].app.clone(), Arc::new(settings.without_tls()));
        let token = Token::new(config.admin.token.as_deref());
        let operator_routes = operator::routes(operator_nchf, token, draining.clone());
        let limits = limits(config);
        let routes = apps.into_iter().map(nchf::routes).collect();
        let nchf = workers.listen(config.listen, tls, limits.clone(), routes).await?;
        let operator = workers.listen(config.admin_listen, None, limits, vec![operator_routes]).await?;
        workers.first().spawn(count_refusals(shared.metrics.clone(), nchf.admission().clone()));
        let own = vec![nchf.address(), operator.address()];
        let background = Background::start(config, opener.clone(), shared, own).await?;
        let drain = Duration::from_secs(u64::from(config.http.drain_secs));
        Ok(Self { workers, nchf, operator, draining, drain, store: opener, background })
    }

    /// Where the Nchf services are.
    pub fn address(&self) -> SocketAddr {
        self.nchf.address()
    }

    /// Where the operator's side is.
    pub fn operator_address(&self) -> SocketAddr {
        self.operator.address()
    }

    /// Ends when the store can no longer be written and the process must not go on.
    pub async fn store_failed(&self) -> Box<str> {
        match &self.store {
            Opener::Embedded(store) => store.failed().await,
            Opener::Redis(_) => std::future::pending().await,
        }
    }

    /// Not ready, then GOAWAY, then the end of what is under way.
    pub async fn stop(self) {
        self.draining.begin();
        let drained = self.nchf.drain(self.drain).await;
        if !drained.in_time() {
            tracing::warn!(
                requests = drained.requests_cut,
                connections = drained.connections_cut,
                "not everything ended in time"
            );
        }
        self.operator.drain(Duration::from_secs(1)).await;
        self.background.stop().await;
        self.workers.stop();
    }
}

/// TLS of the Nchf listener, where the configuration asks for it.
pub fn tls_of(config: &Config) -> anyhow::Result<Option<Tls>> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let files =
        TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone(), client_ca: tls.client_ca.clone() };
    Tls::from_files(&files).context("tls").map(Some)
}

/// What the configuration allows on each listener.
pub fn limits(config: &Config) -> Settings {
    Settings {
        connections_max: config.http.connections_max,
        connections_per_peer_max: config.http.connections_per_peer_max,
        in_flight_max: u32::try_from(config.http.in_flight_max).unwrap_or(u32::MAX),
        in_flight_create_percent: config.http.in_flight_create_percent,
        in_flight_update_percent: config.http.in_flight_update_percent,
        in_flight_per_peer_percent: config.http.in_flight_per_peer_percent,
        in_flight_per_connection_percent: config.http.in_flight_per_connection_percent,
        ..Settings::default()
    }
}

/// Opens the store once for each worker: Redis connections belong to the runtime that polls them, the embedded store is
/// one for all.
#[derive(Clone)]
pub enum Opener {
    Embedded(EmbeddedStore),
    Redis(Arc<redis::Settings>),
}

impl Opener {
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(match config.store_url()? {
            StoreUrl::Embedded(directory) => {
                let opened = EmbeddedStore::open(&embedded_settings(config, directory), Arc::new(SystemClock));
                Self::Embedded(opened.map_err(|error| anyhow::anyhow!(error.into_reason()))?)
            }
            StoreUrl::Redis(url) => Self::Redis(Arc::new(redis_settings(config, url))),
        })
    }

    pub async fn open(self) -> Result<Arc<dyn Store>, store::Error> {
        Ok(match self {
            Self::Embedded(store) => Arc::new(store),
            Self::Redis(settings) => {
                let opened = RedisStore::open(redis::Settings::clone(&settings)).await;
                Arc::new(opened.map_err(|error| error.about(&masked(&settings.url)))?)
            }
        })
    }

    async fn open_for(&self, workers: &Workers) -> Result<Vec<Arc<dyn Store>>, store::Error> {
        workers.build(|_| self.clone().open()).await
    }

    /// Does what needs the store, again and again while that is away: whoever is started meanwhile need not be started
    /// once more. An embedded store that fails is not away.
    async fn when_available<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T, store::Error>) -> anyhow::Result<T> {
        let mut said = None::<tokio::time::Instant>;
        loop {
            match attempt().await {
                Err(store::Error::Unavailable { reason, .. }) if matches!(self, Self::Redis(_)) => {
                    if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
                        tracing::warn!("{reason}; nothing is served until that is mended");
                        said = Some(tokio::time::Instant::now());
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                outcome => return outcome.map_err(|error| anyhow::anyhow!(error.into_reason())),
            }
        }
    }
}

/// How long after an attempt at a store that is away the next one begins, and how often it is said that it is away.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const SAID_EVERY: Duration = Duration::from_secs(10);

/// The configured store as it is, for a program that only reads it: nothing is created or migrated.
///
/// # Errors
///
/// What an operator can mend, in a sentence.
pub async fn open_to_read(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match config.store_url()? {
        StoreUrl::Embedded(directory) => {
            anyhow::ensure!(EmbeddedStore::is_in(&directory), "there is no store in {}", directory.display());
            let opened = EmbeddedStore::open(&embedded_settings(config, directory), Arc::new(SystemClock));
            Ok(Arc::new(opened.map_err(|error| {
                let is_damaged = matches!(error, store::Error::Corrupt(_));
                let advice = if is_damaged { "" } else { "; stop it, or use a snapshot of the directory" };
                anyhow::anyhow!("{}{advice}", error.into_reason())
            })?))
        }
        StoreUrl::Redis(url) => {
            let settings = redis::Settings { migrate: false, ..redis_settings(config, url) };
            Opener::Redis(Arc::new(settings)).open().await.map_err(|error| anyhow::anyhow!(error.into_reason()))
        }
    }
}

fn embedded_settings(config: &Config, directory: PathBuf) -> embedded::Settings {
    embedded::Settings { durability: config.durability(), ..embedded::Settings::at(directory) }
}

/// How the configuration wants Redis to be used.
pub fn redis_settings(config: &Config, url: String) -> redis::Settings {
    redis::Settings {
        deadline: Duration::from_millis(u64::from(config.store.deadline_ms)),
        durability: config.durability(),
        replicas: config.store.replicas,
        migrate: config.store.migrate,
        ca: config.store.ca.clone(),
        identity: tls::Identity::of(&config.store.certificate, &config.store.key),
        ..redis::Settings::new(url)
    }
}

/// How the configuration wants consumers to be notified. `own` are the addresses that this instance listens on.
pub fn notify_settings(config: &Config, own: Vec<SocketAddr>) -> anyhow::Result<notify::Settings> {
    let Notify { deadline_ms, connections_max, calls_per_target_max, ca, certificate, key, .. } = &config.notify;
    let defaults = notify::Settings::default();
    // A probe waits for its place and then for its answer; before that it is not lost.
    let probe_max = Span::from_millis(deadline_ms.saturating_mul(3)).max(defaults.breaker.probe_max);
    Ok(notify::Settings {
        allow: config.notify_allowed()?,
        own,
        deadline: Duration::from_millis(u64::from(*deadline_ms)),
        connections_max: usize::try_from(*connections_max)?,
        calls_per_target_max: usize::try_from(*calls_per_target_max)?,
        ca: ca.clone(),
        identity: tls::Identity::of(certificate, key),
        breaker: notify::BreakerSettings { probe_max, ..defaults.breaker },
        ..defaults
    })
}

async fn prepare(app: App, demo: bool) -> Result<(), store::Error> {
    if demo {
        demo::provision(&app).await.map_err(|failure| failure.of_the_store().about("the demo data"))?;
    }
    app.refresh_catalog().await
}

/// How often losses that the stores have found become a metric.
const LOSSES_EVERY: Duration = Duration::from_secs(1);

async fn count_losses(app: App, histories: Arc<redis::Histories>) {
    loop {
        app.shared.metrics.store_losses.inc_by(histories.take_losses());
        tokio::time::sleep(LOSSES_EVERY).await;
    }
}

/// How often refusals become a metric.
const REFUSALS_EVERY: Duration = Duration::from_secs(1);

async fn count_refusals(metrics: Metrics, admission: Admission) {
    loop {
        for (full, class) in Full::ALL.into_iter().flat_map(|full| Class::ALL.map(|class| (full, class))) {
            let labels = RefusalLabels { limit: full.as_str(), class: class.as_str() };
            metrics.refusals.get_or_create(&labels).inc_by(admission.take_refused(full, class));
        }
        metrics.in_flight.set(i64::from(admission.in_flight()));
        tokio::time::sleep(REFUSALS_EVERY).await;
    }
}

/// How often another instance's change of a tariff plan is looked for; costs one small read.
const CATALOG_EVERY: Duration = Duration::from_secs(1);

async fn watch_catalog(app: App) {
    let mut known = None;
    loop {
        tokio::time::sleep(CATALOG_EVERY).await;
        // While the store is away there is nothing to learn; requests say so where it matters.
        let Ok(stamp) = app.catalog_stamp().await else { continue };
        if known != Some(stamp) && app.refresh_catalog().await.is_ok() {
            known = Some(stamp);
        }
    }
}
