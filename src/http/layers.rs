//! What every request passes through before it reaches a router, the same on both listeners.
//!
//! From the outside in: *admission* refuses what is more than the program can hold, a *panic* of a handler becomes an
//! answer, and the *body* of a request is limited in length and in time. Each layer is a plain struct around the next one
//! and its future is a struct around the next one's future: no boxes, because this is paid by every message.
//!
//! The layers do not log bodies, paths or identities, and they do not know what a route means.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, Request, header};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::Service;

use super::admission::{Class, Door, Permit, Priority};
use super::problem::ProblemDetails;

/// What a refused consumer is told to wait. One second is the smallest value the header can say; the excess that
/// admission sheds is gone in milliseconds.
const RETRY_AFTER_SECS: u32 = 1;

/// All layers around a service.
pub type Layered<S> = Admit<CatchPanic<LimitBody<S>>>;

/// Puts the layers around `inner`, for the connection whose `door` this is.
pub fn around<S>(inner: S, door: Door, body: BodyLimits) -> Layered<S> {
    Admit::new(CatchPanic::new(LimitBody::new(inner, body)), door, body)
}

// ---- Admission ----

/// Lets in what its door admits, and puts the permit into the request's extensions.
#[derive(Clone, Debug)]
pub struct Admit<S> {
    door: Door,
    body: BodyLimits,
    inner: S,
}

impl<S> Admit<S> {
    pub fn new(inner: S, door: Door, body: BodyLimits) -> Self {
        Self { door, body, inner }
    }
}

impl<S, B> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Admitted<S::Future, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (class, priority) = (Class::of(request.uri().path()), Priority::of(request.headers()));
        let Ok(permit) = self.door.admit(class, priority) else {
            let unread = Limited::new(request.into_body(), self.body, Arc::default());
            return Admitted::Refused { unread };
        };
        request.extensions_mut().insert(permit.clone());
        Admitted::Working { permit, future: self.inner.call(request) }
    }
}

pin_project! {
    #[project = AdmittedProjection]
    pub enum Admitted<F, B> {
        // The body is thrown away as it comes, and the answer follows it. An answer before its end would reset the
        // stream, and after a few hundred of those (`error_reset_streams_max`) the connection ends, with all that is
        // under way on it.
        Refused { unread: Limited<B> },
        // Extractors consume the request and its extensions long before the handler ends, hence the second clone.
        Working { permit: Permit, #[pin] future: F },
    }
}

impl<F, B> Future for Admitted<F, B>
where
    F: Future<Output = Result<Response, Infallible>>,
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AdmittedProjection::Refused { unread } => {
                while !unread.is_end_stream() {
                    let Some(Ok(_)) = ready!(Pin::new(&mut *unread).poll_frame(context)) else { break };
                }
                Poll::Ready(Ok(ProblemDetails::congestion(RETRY_AFTER_SECS).into_response()))
            }
            AdmittedProjection::Working { future, .. } => future.poll(context),
        }
    }
}

// ---- Panics ----

/// A handler that panics answers 500 and takes nothing else with it: the commit is one step, so that a panic leaves
/// either all of it or nothing (see the store's contract).
#[derive(Clone, Debug)]
pub struct CatchPanic<S> {
    inner: S,
}

impl<S> CatchPanic<S> {
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for CatchPanic<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = PanicCaught<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(future) => PanicCaught::Working { future },
            Err(_) => PanicCaught::Panicked,
        }
    }
}

pin_project! {
    #[project = PanicCaughtProjection]
    pub enum PanicCaught<F> {
        Panicked,
        Working { #[pin] future: F },
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for PanicCaught<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome: Result<_, Box<dyn Any + Send>> = match self.project() {
            PanicCaughtProjection::Panicked => Err(Box::new(())),
            PanicCaughtProjection::Working { future } => catch_unwind(AssertUnwindSafe(|| future.poll(context))),
        };
        outcome.unwrap_or_else(|_| {
            // The payload may quote what was parsed, and the path may name a subscriber: neither is repeated here.
            tracing::error!("a handler panicked and the request was answered with 500");
            Poll::Ready(Ok(ProblemDetails::system_failure().into_response()))
        })
    }
}

// ---- Bodies ----

/// What a request body may cost.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub octets_max: usize,
    /// From the first time the handler has to wait for a part of the body until the last part is there.
    pub deadline: Duration,
}

#[derive(Clone, Debug)]
pub struct LimitBody<S> {
    limits: BodyLimits,
    inner: S,
}

impl<S> LimitBody<S> {
    pub fn new(inner: S, limits: BodyLimits) -> Self {
        Self { limits, inner }
    }
}

impl<S, B> Service<Request<B>> for LimitBody<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BodyLimited<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if announces_more_than(request.headers(), self.limits.octets_max) {
            return BodyLimited::TooLarge;
        }
        if request.body().is_end_stream() {
            return BodyLimited::Working { breach: None, future: self.inner.call(request.map(|_| Body::empty())) };
        }
        let breach = Arc::new(Breach::default());
        let limited = |body| Limited::new(body, self.limits, Arc::clone(&breach));
        let request = request.map(|body| Body::new(limited(body)));
        BodyLimited::Working { future: self.inner.call(request), breach: Some(breach) }
    }
}

fn announces_more_than(headers: &HeaderMap, octets_max: usize) -> bool {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    announced.is_some_and(|length| length > octets_max as u64)
}

/// Which limit a body broke. The reader of a body sees some error and answers as it may; this is how the layer knows
/// what really happened.
#[derive(Debug, Default)]
struct Breach(AtomicU8);

impl Breach {
    const TOO_LARGE: u8 = 1;
    const TOO_SLOW: u8 = 2;

    fn problem(&self) -> Option<ProblemDetails> {
        match self.0.load(Ordering::Relaxed) {
            Self::TOO_LARGE => Some(ProblemDetails::too_large()),
            Self::TOO_SLOW => Some(ProblemDetails::body_too_slow()),
            _ => None,
        }
    }
}

pin_project! {
    #[project = BodyLimitedProjection]
    pub enum BodyLimited<F> {
        TooLarge,
        Working { breach: Option<Arc<Breach>>, #[pin] future: F },
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for BodyLimited<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (breach, future) = match self.project() {
            BodyLimitedProjection::TooLarge => return Poll::Ready(Ok(ProblemDetails::too_large().into_response())),
            BodyLimitedProjection::Working { breach, future } => (breach, future),
        };
        let Ok(response) = ready!(future.poll(context));
        let refused = response.status().is_client_error() || response.status().is_server_error();
        let problem = breach.as_ref().filter(|_| refused).and_then(|breach| breach.problem());
        Poll::Ready(Ok(problem.map_or(response, IntoResponse::into_response)))
    }
}

/// A request body that ends with an error where it breaks a limit.
pub struct Limited<B> {
    inner: B,
    octets_left: usize,
    deadline: Duration,
    /// Set when the body first makes its reader wait: a body that is already here costs no timer and no look at a clock.
    late: Option<Pin<Box<Sleep>>>,
    breach: Arc<Breach>,
}

impl<B> Limited<B> {
    fn new(inner: B, limits: BodyLimits, breach: Arc<Breach>) -> Self {
        Self { inner, octets_left: limits.octets_max, deadline: limits.deadline, late: None, breach }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is longer than this server reads")]
    TooLarge,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body ended early: {0}")]
    Broken(axum::BoxError),
}

impl<B> HttpBody for Limited<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
            let late = this.late.get_or_insert_with(|| Box::pin(sleep(this.deadline)));
            ready!(late.as_mut().poll(context));
            this.breach.0.store(Breach::TOO_SLOW, Ordering::Relaxed);
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Broken(error.into())))),
            None => return Poll::Ready(None),
        };
        let octets = frame.data_ref().map_or(0, Buf::remaining);
        let Some(left) = this.octets_left.checked_sub(octets) else {
            this.breach.0.store(Breach::TOO_LARGE, Ordering::Relaxed);
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        };
        this.octets_left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
