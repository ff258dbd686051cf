//! `/livez` and `/readyz`: two questions an orchestrator asks.
//!
//! Alive means that this process answers at all; it says nothing about the store, because a restart does not heal one.
//! Ready means that requests sent here can be served: the caller's check passes and no shutdown has begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// How long a readiness check may take. Orchestrators give a probe one second by default and a few at most; a store that
/// needs longer is not ready in any useful sense.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

/// Set once, when the shutdown begins: load balancers have to see it before connections are closed.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// `ready` answers `Err` with a sentence for the operator; it must not contain secrets, anyone may read it.
pub fn routes<C, F>(draining: Draining, ready: C) -> Router
where
    C: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(move || readiness(draining.begun(), ready())))
}

async fn readiness(
    draining: bool,
    check: impl Future<Output = Result<(), String>>,
) -> Result<&'static str, (StatusCode, String)> {
    let unready = |sentence: String| (StatusCode::SERVICE_UNAVAILABLE, sentence);
    if draining {
        return Err(unready("shutting down".to_owned()));
    }
    match tokio::time::timeout(CHECK_DEADLINE, check).await {
        Ok(Ok(())) => Ok("ok"),
        Ok(Err(sentence)) => Err(unready(sentence)),
        Err(_) => Err(unready(format!("the check did not end within {} s", CHECK_DEADLINE.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let response = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_follows_the_check() {
        let healthy = routes(Draining::default(), || async { Ok(()) });
        assert_eq!(ask(&healthy, "/readyz").await, (200, "ok".to_owned()));

        let broken = routes(Draining::default(), || async { Err("the store does not answer".to_owned()) });
        assert_eq!(ask(&broken, "/readyz").await, (503, "the store does not answer".to_owned()));
        assert_eq!(ask(&broken, "/livez").await, (200, "ok".to_owned()));
    }

    #[tokio::test]
    async fn a_draining_instance_is_alive_but_not_ready() {
        let draining = Draining::default();
        let router = routes(draining.clone(), || async { Ok(()) });
        draining.begin();
        assert_eq!(ask(&router, "/readyz").await, (503, "shutting down".to_owned()));
        assert_eq!(ask(&router, "/livez").await, (200, "ok".to_owned()));
    }

    #[tokio::test]
    async fn a_check_that_hangs_means_not_ready() {
        let router = routes(Draining::default(), std::future::pending);
        assert_eq!(ask(&router, "/readyz").await.0, 503);
    }
}
