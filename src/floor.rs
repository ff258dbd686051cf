//! The floor: what an update costs before anything is charged. `nchf bench --floor` serves it, `nchf bench` plays
//! against it, and the ratio between the two says what charging costs, on any machine.
//!
//! The same HTTP server with the same workers, admission, limits and TLS; for each update one load of an account and a
//! session and one commit of as many octets to as many keys, over the same connections; an answer of the same length. It
//! parses no body and decides nothing: the number that it answers is the version of the session's document, which grows
//! as the load generator's numbers do. Creates and releases do what the updates between them need.
//!
//! [`SIZES`] and the answer are those of real updates of the load generator; `tests/it/bench.rs` keeps them so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;

use crate::charging::ids::{AccountId, ChargingDataRef};
use crate::charging::time::{Span, Timestamp};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::http::nchf::CONVERGED;
use crate::http::problem::ProblemDetails;
use crate::http::server::{Server, Workers};
use crate::serve::{self, Opener};
use crate::store::{self, Commit, Listing, Load, RefCodec, SessionWrite, Snapshot, Store, TimerWrite, Version};

/// Octets of what an update writes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The account's document, which is also what is loaded.
    pub account: usize,
    /// The session's document, likewise.
    pub session: usize,
    /// The journal's entry.
    pub entry: usize,
}

/// Of an update with two rating groups whose session has had some before.
pub const SIZES: Sizes = Sizes { account: 41, session: 319, entry: 123 };

/// The answer to such an update, in two parts with the number between them.
pub const ANSWER: [&str; 2] = [
    r#"{"invocationTimeStamp":"2026-01-15T11:00:00.000Z","invocationSequenceNumber":"#,
    concat!(
        r#","invocationResult":{"failureHandling":"CONTINUE"},"sessionFailover":"FAILOVER_SUPPORTED","#,
        r#""multipleUnitInformation":[{"resultCode":"SUCCESS","ratingGroup":10,"#,
        r#""grantedUnit":{"totalVolume":1048576},"#,
        r#""triggers":[{"triggerType":"QUOTA_EXHAUSTED","triggerCategory":"IMMEDIATE_REPORT"},"#,
        r#"{"triggerType":"QUOTA_THRESHOLD","triggerCategory":"IMMEDIATE_REPORT"},"#,
        r#"{"triggerType":"VALIDITY_TIME","triggerCategory":"IMMEDIATE_REPORT"},"#,
        r#"{"triggerType":"QHT","triggerCategory":"IMMEDIATE_REPORT"}],"#,
        r#""validityTime":3600,"quotaHoldingTime":300,"volumeQuotaThreshold":209715,"#,
        r#""uPFID":"7e8d3a52-0f4b-4a37-9d3c-5b1f6f0f9a01"},"#,
        r#"{"resultCode":"SUCCESS","ratingGroup":40,"grantedUnit":{"totalVolume":1048576},"#,
        r#""triggers":[{"triggerType":"QUOTA_EXHAUSTED","triggerCategory":"IMMEDIATE_REPORT"}],"#,
        r#""uPFID":"7e8d3a52-0f4b-4a37-9d3c-5b1f6f0f9a01"}]}"#,
    ),
];

/// How long an open session's document lives, as with the default configuration.
const OPEN_LIFE: Span = Span::from_secs(31 * 86_400);
/// A released one's. Nobody asks for it again.
const TOMBSTONE: Span = Span::from_secs(60);
/// Attempts of one commit: somebody else may have the same account.
const ATTEMPTS: u32 = 16;

/// A floor that is served.
pub struct Floor {
    workers: Workers,
    server: Server,
}

impl Floor {
    /// Opens the store and listens, as an instance of the charging function does.
    ///
    /// # Errors
    ///
    /// What an operator can mend, in a sentence.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let opener = Opener::new(config)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = Workers::start(config.workers.unwrap_or(cores))?;
        let stores = workers.build(|_| opener.clone().open()).await?;
        let sessions = Arc::default();
        let routes = stores.into_iter().map(|store| routes(store, &sessions)).collect();
        let server = workers.listen(config.listen, serve::tls_of(config)?, serve::limits(config), routes).await;
        Ok(Self { server: server.context("listen")?, workers })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Ends what is under way, then the threads.
    pub async fn stop(self) {
        self.server.drain(std::time::Duration::from_secs(1)).await;
        self.workers.stop();
    }
}

/// The routes of one worker. `sessions` counts those of all workers.
pub fn routes(store: Arc<dyn Store>, sessions: &Arc<AtomicU64>) -> Router {
    let refs = RefCodec::new(store.identity().secret);
    let ground = Ground { store, refs: Arc::new(refs), sessions: Arc::clone(sessions) };
    Router::new()
        .route(CONVERGED, post(create))
        .route(&format!("{CONVERGED}/{{reference}}/update"), post(update))
        .route(&format!("{CONVERGED}/{{reference}}/release"), post(release))
        .with_state(ground)
}

#[derive(Clone)]
struct Ground {
    store: Arc<dyn Store>,
    refs: Arc<RefCodec>,
    sessions: Arc<AtomicU64>,
}

// Bodies are read to their end, and not looked at.

async fn create(State(ground): State<Ground>, uri: Uri, _body: Bytes) -> Result<Response, ProblemDetails> {
    let session = ground.sessions.fetch_add(1, Ordering::Relaxed);
    let account = ground.refs.account_key(&AccountId::new(format!("floor-{session}")));
    let now = SystemClock.now();
    let mut random = [0; 12];
    random[..8].copy_from_slice(&now.millis().to_be_bytes());
    random[8..].copy_from_slice(&(session as u32).to_be_bytes());
    let reference = ground.refs.mint(account, random);
    let number = ground.write(&reference, Step::Create(now)).await?;
    let authority = uri.authority().map_or("localhost", |authority| authority.as_str());
    let scheme = uri.scheme_str().unwrap_or("http");
    let location = format!("{scheme}://{authority}{CONVERGED}/{reference}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], answer(number)).into_response())
}

async fn update(
    State(ground): State<Ground>,
    Path(reference): Path<String>,
    _body: Bytes,
) -> Result<Response, ProblemDetails> {
    let number = ground.write(&ChargingDataRef::new(reference), Step::Update).await?;
    Ok(answer(number).into_response())
}

async fn release(
    State(ground): State<Ground>,
    Path(reference): Path<String>,
    _body: Bytes,
) -> Result<StatusCode, ProblemDetails> {
    ground.write(&ChargingDataRef::new(reference), Step::Release(SystemClock.now())).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn answer(number: u64) -> impl IntoResponse {
    let [before, after] = ANSWER;
    ([(header::CONTENT_TYPE, "application/json")], format!("{before}{number}{after}"))
}

#[derive(Clone, Copy)]
enum Step {
    Create(Timestamp),
    Update,
    Release(Timestamp),
}

impl Ground {
    /// Loads and commits once. Answers the version of the session that was loaded.
    async fn write(&self, reference: &ChargingDataRef, step: Step) -> Result<u64, ProblemDetails> {
        let account = self.refs.account_of(reference.as_str());
        let account = account.ok_or_else(ProblemDetails::not_found_resource_uri)?;
        let load = Load { account, session: Some(reference.clone()), index: Vec::new() };
        let mut found = self.store.load(&load).await?;
        for _ in 0..ATTEMPTS {
            let commit = commit(&load, &found, reference, step);
            match self.store.commit(&commit).await {
                Ok(()) => return Ok(Version::of(found.session.as_ref()).0),
                Err(store::Error::Conflict(Some(current))) => found = *current,
                Err(store::Error::Conflict(None)) => found = self.store.load(&load).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(store::Error::Conflict(None).into())
    }
}

fn commit(load: &Load, found: &Snapshot, reference: &ChargingDataRef, step: Step) -> Commit {
    let (timer, listing, lives_for) = match step {
        Step::Create(now) => (TimerWrite::At(now.after(OPEN_LIFE)), Listing::Open(now), OPEN_LIFE),
        Step::Update => (TimerWrite::Keep, Listing::Keep, OPEN_LIFE),
        Step::Release(now) => (TimerWrite::Remove, Listing::Closed(now), TOMBSTONE),
    };
    let session = SessionWrite {
        key: reference.clone(),
        expected: Version::of(found.session.as_ref()),
        document: octets(SIZES.session),
        lives_for,
        timer,
        listing,
        journal: Some(octets(SIZES.entry)),
    };
    Commit {
        account_document: Some(octets(SIZES.account)),
        sessions: vec![session],
        ..Commit::unchanged(found.origin, load.account, Version::of(found.account.as_ref()))
    }
}

/// Octets that compress as badly as a document does.
fn octets(length: usize) -> Bytes {
    static OCTETS: LazyLock<Bytes> =
        LazyLock::new(|| (0..4096usize).map(|at| (at.wrapping_mul(167) >> 3) as u8).collect());
    OCTETS.slice(..length)
}
