//! What every request passes through before it reaches a router, the same on both listeners.
//!
//! From the outside in: *admission* refuses what is more than the program can hold, a *panic* of a handler becomes an
//! answer, and the *body* of a request is limited in length and in time, and taken off the connection even if nobody reads
//! it. Each layer is a plain struct around the next one and its future is a struct around the next one's future: no boxes,
//! because this is paid by every message.
//!
//! The layers do not log bodies, paths or identities, and they do not know what a route means.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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
            let unread = Unread(Limited::new(request.into_body(), self.body.of_unread()));
            return Admitted::Refused { unread, turn: Box::pin(self.door.refusal()) };
        };
        request.extensions_mut().insert(permit.clone());
        Admitted::Working { permit, future: self.inner.call(request) }
    }
}

pin_project! {
    #[project = AdmittedProjection]
    pub enum Admitted<F, B> {
        Refused { unread: Unread<B>, turn: Pin<Box<dyn Future<Output = ()> + Send>> },
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
            AdmittedProjection::Refused { unread, turn } => {
                ready!(unread.poll_end(context));
                ready!(turn.as_mut().poll(context));
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

impl BodyLimits {
    /// Of a body that is only thrown away. It costs no memory, so it may be longer than one that is read: it may be there
    /// for that reason.
    fn of_unread(self) -> Self {
        Self { octets_max: self.octets_max.saturating_mul(4), ..self }
    }
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
    type Future = BodyLimited<S::Future, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if announces_more_than(request.headers(), self.limits.octets_max) {
            let unread = Unread(Limited::new(request.into_body(), self.limits.of_unread()));
            return BodyLimited::Answered { unread, answer: Some(ProblemDetails::too_large().into_response()) };
        }
        if request.body().is_end_stream() {
            return BodyLimited::Working { left: None, future: self.inner.call(request.map(|_| Body::empty())) };
        }
        let left = Left::default();
        let lent = |body| Lent { body: Some(Limited::new(body, self.limits)), left: Arc::clone(&left) };
        let request = request.map(|body| Body::new(lent(body)));
        BodyLimited::Working { future: self.inner.call(request), left: Some(left) }
    }
}

fn announces_more_than(headers: &HeaderMap, octets_max: usize) -> bool {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    announced.is_some_and(|length| length > octets_max as u64)
}

pin_project! {
    #[project = BodyLimitedProjection]
    pub enum BodyLimited<F, B> {
        Working { left: Option<Left<B>>, #[pin] future: F },
        Answered { unread: Unread<B>, answer: Option<Response> },
    }
}

impl<F, B> Future for BodyLimited<F, B>
where
    F: Future<Output = Result<Response, Infallible>>,
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                BodyLimitedProjection::Working { left, future } => {
                    let Ok(answer) = ready!(future.poll(context));
                    let left =
                        left.as_ref().and_then(|left| left.lock().unwrap_or_else(PoisonError::into_inner).take());
                    let Some(left) = left else { return Poll::Ready(Ok(answer)) };
                    let refused = answer.status().is_client_error() || answer.status().is_server_error();
                    let problem = left.breach.filter(|_| refused).map(Breach::problem);
                    let answer = problem.map_or(answer, IntoResponse::into_response);
                    let Some(unread) = left.unread() else { return Poll::Ready(Ok(answer)) };
                    self.set(Self::Answered { unread, answer: Some(answer) });
                }
                BodyLimitedProjection::Answered { unread, answer } => {
                    ready!(unread.poll_end(context));
                    return Poll::Ready(Ok(answer.take().expect("a future is not polled again after its end")));
                }
            }
        }
    }
}

/// Where a reader leaves a body: at its end, or where it has read enough.
type Left<B> = Arc<Mutex<Option<Limited<B>>>>;

/// A request body in the hands of whoever reads it.
struct Lent<B> {
    /// Here until it is dropped.
    body: Option<Limited<B>>,
    left: Left<B>,
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

impl<B> HttpBody for Lent<B>
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
        self.body.as_mut().map_or(Poll::Ready(None), |body| body.poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |body| body.inner.size_hint())
    }
}

/// A request body that ends with an error where it breaks a limit.
pub struct Limited<B> {
    inner: B,
    limits: BodyLimits,
    octets_left: usize,
    /// Set when the body first makes its reader wait: a body that is already here costs no timer and no look at a clock.
    late: Option<Pin<Box<Sleep>>>,
    /// The reader sees some error and answers as it may; this is how the layer knows what really happened.
    breach: Option<Breach>,
}

/// Which limit a body broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breach {
    TooLarge,
    TooSlow,
}

impl Breach {
    fn problem(self) -> ProblemDetails {
        match self {
            Self::TooLarge => ProblemDetails::too_large(),
            Self::TooSlow => ProblemDetails::body_too_slow(),
        }
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

impl<B> Limited<B> {
    fn new(inner: B, limits: BodyLimits) -> Self {
        Self { inner, limits, octets_left: limits.octets_max, late: None, breach: None }
    }
}

impl<B> Limited<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            let late = self.late.get_or_insert_with(|| Box::pin(sleep(self.limits.deadline)));
            ready!(late.as_mut().poll(context));
            self.breach = Some(Breach::TooSlow);
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Broken(error.into())))),
            None => return Poll::Ready(None),
        };
        let octets = frame.data_ref().map_or(0, Buf::remaining);
        let Some(left) = self.octets_left.checked_sub(octets) else {
            self.breach = Some(Breach::TooLarge);
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        };
        self.octets_left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    /// What is still to come, if it can be waited for; in the same time as all of it.
    fn unread(mut self) -> Option<Unread<B>> {
        if self.inner.is_end_stream() || self.breach == Some(Breach::TooSlow) {
            return None;
        }
        self.octets_left = self.limits.of_unread().octets_max;
        Some(Unread(self))
    }
}

/// The body of a request whose answer needs no more of it. It is thrown away as it comes, and the answer follows its end:
/// an answer before that would reset the stream, and after a few hundred of those (`error_reset_streams_max`) the
/// connection ends, with all that is under way on it.
pub struct Unread<B>(Limited<B>);

impl<B> Unread<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    /// The end of the body, or of the patience with it.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self(body) = self;
        while !body.inner.is_end_stream() && body.inner.size_hint().lower() <= body.octets_left as u64 {
            let Some(Ok(_)) = ready!(body.poll_frame(context)) else { break };
        }
        Poll::Ready(())
    }
}
