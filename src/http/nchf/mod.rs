//! The charging services: Nchf_ConvergedCharging and Nchf_OfflineOnlyCharging (TS 32.291 6.1 and 6.2).
//!
//! A handler is parse → transact → render. Parsing can be cancelled by the consumer; from then on the work goes on to its
//! end, in a task of its own when hyper drops the handler because the consumer has reset its stream.

pub mod fingerprint;
pub mod parse;
pub mod render;
pub mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Collected};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::admission::Permit;
use super::path::Path;
use super::problem::ProblemDetails;
use crate::app::App;
use crate::charging::decision::ResultCode;
use crate::charging::session::{Operation, Service};
use crate::config::Charging;
use crate::store::{self, Applied};
use crate::telemetry::{OperationLabel, RequestLabels, ResultLabel, StoreErrorLabel, Usual};
use crate::transact::{Done, Failure, Opening};
use parse::Parsed;

/// What the handlers need besides the application.
pub struct Nchf {
    pub app: App,
    pub settings: Arc<Settings>,
    /// What is counted of a Create, an Update and a Release.
    usual: [Usual; 3],
}

impl Nchf {
    pub fn new(app: App, settings: Arc<Settings>) -> Self {
        let metrics = &app.shared.metrics;
        let done = [(Operation::Create, 201), (Operation::Update, 200), (Operation::Release, 204)];
        let usual = done.map(|(operation, status)| metrics.usual(operation.as_str(), status));
        Self { app, settings, usual }
    }

    fn usual(&self, operation: Operation) -> &Usual {
        let [create, update, release] = &self.usual;
        match operation {
            Operation::Create => create,
            Operation::Update => update,
            Operation::Release => release,
        }
    }
}

#[derive(Clone)]
pub struct Settings {
    pub charging: Charging,
    /// Scheme and authority of `Location`; by default those of the request.
    pub api_root: Option<String>,
    /// The listener speaks TLS.
    pub is_tls: bool,
}

impl Settings {
    /// For a listener that speaks plain HTTP.
    pub fn without_tls(&self) -> Self {
        Self { is_tls: false, ..self.clone() }
    }
}

pub const CONVERGED: &str = "/nchf-convergedcharging/v3/chargingdata";
const OFFLINE_ONLY: &str = "/nchf-offlineonlycharging/v1/offlinechargingdata";

/// What a refused consumer is told to wait when the store is away: long enough to reconnect.
const RETRY_AFTER_SECS: u32 = 1;

/// How much later than the work has to end the answer is given without it, so that whoever could tell what became of
/// the request still does.
const ANSWER_TAKES: Duration = Duration::from_millis(100);

/// The services, for one worker: its requests count references to a state of its own, because a count that workers share
/// is a cache line that they take from one another.
pub fn routes(nchf: Nchf) -> Router {
    Router::new()
        .route(CONVERGED, post(create_charging_data))
        .route(&format!("{CONVERGED}/{{reference}}/update"), post(update_charging_data))
        .route(&format!("{CONVERGED}/{{reference}}/release"), post(release_charging_data))
        .route(OFFLINE_ONLY, post(create_offline_charging_data))
        .route(&format!("{OFFLINE_ONLY}/{{reference}}/update"), post(update_offline_charging_data))
        .route(&format!("{OFFLINE_ONLY}/{{reference}}/release"), post(release_offline_charging_data))
        .fallback(no_such_path)
        .method_not_allowed_fallback(async || ProblemDetails::method_not_allowed("POST"))
        .with_state(Arc::new(nchf))
}

async fn create_charging_data(State(nchf): State<Arc<Nchf>>, permit: Permit, uri: Uri, request: Incoming) -> Response {
    nchf.create(Service::Converged, permit, uri, request).await
}

async fn update_charging_data(
    State(nchf): State<Arc<Nchf>>,
    permit: Permit,
    Path(reference): Path<String>,
    request: Incoming,
) -> Response {
    nchf.continue_session(Operation::Update, Service::Converged, permit, reference, request).await
}

async fn release_charging_data(
    State(nchf): State<Arc<Nchf>>,
    permit: Permit,
    Path(reference): Path<String>,
    request: Incoming,
) -> Response {
    nchf.continue_session(Operation::Release, Service::Converged, permit, reference, request).await
}

async fn create_offline_charging_data(
    State(nchf): State<Arc<Nchf>>,
    permit: Permit,
    uri: Uri,
    request: Incoming,
) -> Response {
    nchf.create(Service::OfflineOnly, permit, uri, request).await
}

async fn update_offline_charging_data(
    State(nchf): State<Arc<Nchf>>,
    permit: Permit,
    Path(reference): Path<String>,
    request: Incoming,
) -> Response {
    nchf.continue_session(Operation::Update, Service::OfflineOnly, permit, reference, request).await
}

async fn release_offline_charging_data(
    State(nchf): State<Arc<Nchf>>,
    permit: Permit,
    Path(reference): Path<String>,
    request: Incoming,
) -> Response {
    nchf.continue_session(Operation::Release, Service::OfflineOnly, permit, reference, request).await
}

/// A known API in another version, or a path that no API has.
async fn no_such_path(uri: Uri) -> ProblemDetails {
    let mut segments = uri.path().split('/').skip(1);
    match (segments.next(), segments.next()) {
        (Some("nchf-convergedcharging"), Some(version)) if version != "v3" => {
            ProblemDetails::invalid_api().with_detail("the version of this API is v3")
        }
        (Some("nchf-offlineonlycharging"), Some(version)) if version != "v1" => {
            ProblemDetails::invalid_api().with_detail("the version of this API is v1")
        }
        _ => ProblemDetails::not_found_resource_uri(),
    }
}

/// Headers and body of a request.
struct Incoming {
    headers: HeaderMap,
    body: Result<Bytes, axum::Error>,
}

impl<S: Send + Sync> axum::extract::FromRequest<S> for Incoming {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: axum::extract::Request, _: &S) -> Result<Self, Self::Rejection> {
        let (Parts { headers, .. }, body) = request.into_parts();
        Ok(Self { headers, body: body.collect().await.map(Collected::to_bytes) })
    }
}

impl Incoming {
    fn parse(&self, service: Service) -> Result<Parsed, ProblemDetails> {
        if !is_json(&self.headers) {
            return Err(ProblemDetails::unsupported_media_type());
        }
        let body = self.body.as_ref().map_err(|_| {
            ProblemDetails::invalid_format(Vec::new()).with_detail("the body could not be read to its end")
        })?;
        parse::charging_data_request(body, service, idempotency_key(&self.headers))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let is_plain = headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    is_plain && essence.eq_ignore_ascii_case("application/json")
}

/// `3gpp-Sbi-Request-Info: retrans=true; idempotency-key=...` (TS 29.500 5.2.3.3).
fn idempotency_key(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all("3gpp-sbi-request-info").into_iter().filter_map(|value| value.to_str().ok());
    let mut parameters = values.flat_map(|value| value.split(';')).filter_map(|parameter| parameter.split_once('='));
    let (_, key) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("idempotency-key"))?;
    Some(key.trim()).filter(|key| !key.is_empty())
}

impl Nchf {
    async fn create(self: Arc<Self>, service: Service, permit: Permit, uri: Uri, request: Incoming) -> Response {
        let measured = Measured::begin(&self, Operation::Create);
        let parsed = match request.parse(service) {
            Ok(parsed) => parsed,
            Err(problem) => return measured.end_with_problem(problem),
        };
        let (identities, pdu_session) = (parsed.identities(), parsed.pdu_session());
        let Parsed { invocation, one_time } = parsed;
        let opening = Opening { invocation, service, one_time, identities, pdu_session };
        let nchf = Arc::clone(&self);
        let work = Box::pin(async move {
            let _in_work = permit;
            nchf.app.create(&opening).await
        });
        match self.in_time(work).await {
            Some(Ok(done)) => {
                let location = self.location(service, &uri, &request.headers, &done);
                let body = render::charging_data_response(&done.answer, &done.session, &self.settings.charging);
                let headers = [(header::CONTENT_TYPE, "application/json"), (header::LOCATION, &location)];
                measured.end(&done, (StatusCode::CREATED, headers, body).into_response())
            }
            Some(Err(failure)) => measured.end_with_failure(failure),
            None => measured.end_with_problem(ProblemDetails::system_failure()),
        }
    }

    async fn continue_session(
        self: Arc<Self>,
        operation: Operation,
        service: Service,
        permit: Permit,
        reference: String,
        request: Incoming,
    ) -> Response {
        let measured = Measured::begin(&self, operation);
        let invocation = match request.parse(service) {
            Ok(parsed) => parsed.invocation,
            Err(problem) => return measured.end_with_problem(problem),
        };
        // What came takes more room than what was read of it, and others need that while the store is asked.
        drop(request);
        let nchf = Arc::clone(&self);
        let work = Box::pin(async move {
            let _in_work = permit;
            nchf.app.continue_session(operation, service, &reference, invocation).await
        });
        match self.in_time(work).await {
            Some(Ok(done)) => {
                let response = self.continued(&done);
                measured.end(&done, response)
            }
            Some(Err(failure)) => measured.end_with_failure(failure),
            None => measured.end_with_problem(ProblemDetails::system_failure()),
        }
    }

    /// Works to the end, though the consumer may go away: what is committed must also be answered to its copy. A consumer
    /// that stays is answered in time, whatever the work still waits for. `None` when it panicked.
    ///
    /// The work is on the heap from the start: a future is moved several times before it runs, and this one is large.
    async fn in_time(&self, work: BoxFuture<'static, Result<Done, Failure>>) -> Option<Result<Done, Failure>> {
        let deadline = Duration::from_millis(u64::from(self.app.shared.limits.deadline_ms)) + ANSWER_TAKES;
        match timeout(deadline, Lasting(Some(work))).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Some(Err(store::Error::unavailable(Applied::Unknown, "no answer within http.deadline_ms").into()))
            }
        }
    }

    fn continued(&self, done: &Done) -> Response {
        use crate::charging::decision::Outcome;
        match done.answer.outcome {
            Outcome::Created | Outcome::Updated => {
                let body = render::charging_data_response(&done.answer, &done.session, &self.settings.charging);
                ([(header::CONTENT_TYPE, "application/json")], body).into_response()
            }
            Outcome::Released => StatusCode::NO_CONTENT.into_response(),
            Outcome::Gone => ProblemDetails::plain(StatusCode::GONE)
                .with_detail("the session has ended; what was reported is charged all the same")
                .into_response(),
        }
    }

    /// Absolute, with the reference last (TS 32.291 6.1.3.1). A proxy in between hides itself by `Host`, or is named in
    /// the configuration.
    fn location(&self, service: Service, uri: &Uri, headers: &HeaderMap, done: &Done) -> String {
        let collection = match service {
            Service::Converged => CONVERGED,
            Service::OfflineOnly => OFFLINE_ONLY,
        };
        let reference = &done.session.reference;
        if let Some(root) = &self.settings.api_root {
            return format!("{root}{collection}/{reference}");
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = uri.authority().map(|authority| authority.as_str()).or(host).unwrap_or("localhost");
        let scheme = if self.settings.is_tls { "https" } else { "http" };
        format!("{scheme}://{authority}{collection}/{reference}")
    }
}

/// Work that is done to its end: whoever waits for it and goes away leaves it to a task of its own. Answers `None` when it
/// panicked. To begin with such a task would cost each request an allocation and two turns of the scheduler.
struct Lasting<T: Send + 'static>(Option<BoxFuture<'static, T>>);

impl<T: Send + 'static> Future for Lasting<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Ready(None) };
        let done = match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(polled) => Some(ready!(polled)),
            Err(_) => None,
        };
        self.0 = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Lasting<T> {
    fn drop(&mut self) {
        // Without a runtime the program is at its end, and tasks have been dropped too.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

/// A request being measured: how long it took, how it ended.
struct Measured {
    nchf: Arc<Nchf>,
    operation: Operation,
    begun: std::time::Instant,
}

impl Measured {
    #[expect(clippy::disallowed_methods, reason = "a duration for a metric; it decides nothing")]
    fn begin(nchf: &Arc<Nchf>, operation: Operation) -> Self {
        Self { nchf: Arc::clone(nchf), operation, begun: std::time::Instant::now() }
    }

    fn end(self, done: &Done, response: Response) -> Response {
        let metrics = &self.nchf.app.shared.metrics;
        for result in &done.answer.results {
            match result.code {
                ResultCode::Success => self.usual().successes.inc(),
                other => metrics.results.get_or_create(&ResultLabel { result_code: other.as_str() }).inc(),
            };
        }
        if done.replayed {
            metrics.replays.get_or_create(&OperationLabel { operation: self.operation.as_str() }).inc();
        }
        self.count(response.status(), "");
        response
    }

    fn end_with_problem(self, problem: ProblemDetails) -> Response {
        self.count(problem.status(), problem.known_cause());
        problem.into_response()
    }

    /// Tells the consumer what it can act on, and the operator what happened.
    fn end_with_failure(self, failure: Failure) -> Response {
        let problem = match failure {
            Failure::Rejected(rejection) => render::rejection(rejection),
            Failure::Contended | Failure::Crowded => ProblemDetails::congestion(RETRY_AFTER_SECS)
                .with_detail("too many requests for one account at once; nothing was done"),
            Failure::Store(error) => self.store_failed(&error),
        };
        self.end_with_problem(problem)
    }

    fn store_failed(&self, error: &store::Error) -> ProblemDetails {
        let (kind, problem) = match error {
            store::Error::Unavailable { applied: Applied::Unknown, .. } => (
                "unknown",
                ProblemDetails::timed_out()
                    .with_detail("whether the request was done is not known; the same request again finds out"),
            ),
            store::Error::Unavailable { applied: Applied::No, .. } | store::Error::Conflict(_) => (
                "unavailable",
                ProblemDetails::congestion(RETRY_AFTER_SECS)
                    .with_detail("the store cannot be reached; nothing was done"),
            ),
            store::Error::Corrupt(_) => ("corrupt", ProblemDetails::system_failure()),
        };
        let shared = &self.nchf.app.shared;
        shared.metrics.store_errors.get_or_create(&StoreErrorLabel { kind }).inc();
        if shared.store_failures.is_due(shared.clock.now()) {
            tracing::warn!(operation = self.operation.as_str(), %error, "charging requests fail for want of the store");
        }
        problem
    }

    fn count(&self, status: StatusCode, cause: &'static str) {
        let usual = self.usual();
        if status.as_u16() == usual.status && cause.is_empty() {
            usual.answered.inc();
        } else {
            let labels = RequestLabels { operation: self.operation.as_str(), status: status.as_u16(), cause };
            self.nchf.app.shared.metrics.requests.get_or_create(&labels).inc();
        }
        usual.latency.observe(self.begun.elapsed().as_secs_f64());
    }

    fn usual(&self) -> &Usual {
        self.nchf.usual(self.operation)
    }
}
