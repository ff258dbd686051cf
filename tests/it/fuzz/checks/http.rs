//! Bytes as requests to the charging services and the operator's API, one after the other, against a store in memory.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use http_body_util::BodyExt;
use nchf::app::{App, RequestLimits, Shared};
use nchf::audit;
use nchf::charging::command::Credit;
use nchf::charging::time::Span;
use nchf::clock::ManualClock;
use nchf::config::Config;
use nchf::http::nchf::{Nchf, Settings};
use nchf::http::{admin, nchf as services};
use nchf::store::RefCodec;
use nchf::store::Store;
use nchf::store::memory::MemoryStore;
use serde_json::Value;
use tower::ServiceExt;

use crate::scenarios::demo;

/// Requests stand as HTTP/1.1 writes them, a line `---` between two; `{ref}` in a path is the reference of the last
/// Create, and the method TICK lets as many seconds pass as its path says. Each is answered as the protocol says, no
/// answer is our fault, and in the end the audit finds nothing.
pub fn http(data: &[u8]) {
    const REQUESTS_MAX: usize = 12;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        let mut rest = data;
        for _ in 0..REQUESTS_MAX {
            let end = find(rest, b"\n---\n");
            world.send(&rest[..end.unwrap_or(rest.len())]).await;
            let Some(end) = end else { break };
            rest = &rest[end + 5..];
        }
        let settings = audit::Settings { now: world.now(), retention: Span::from_secs(7_776_000), directories: vec![] };
        let report = audit::audit(&*world.store, &settings).await.unwrap();
        assert!(report.holds() && report.unproven.is_empty(), "{report}");
    });
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}

struct World {
    store: Arc<MemoryStore>,
    clock: ManualClock,
    router: Router,
    reference: String,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::at("2026-01-15T11:00:00Z".parse::<jiff::Timestamp>().unwrap().into());
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        let refs = RefCodec::new(store.identity().secret);
        let id = store.identity().instance_id.clone();
        let config = Config::default();
        let limits = RequestLimits {
            deadline_ms: config.http.deadline_ms,
            waiting_per_account_max: config.http.waiting_per_account_max,
        };
        let shared = Shared::new(Arc::new(clock.clone()), refs, config.rules().unwrap(), id, limits);
        let app = App { store: store.clone(), shared: Arc::new(shared) };
        provision(&app).await;
        let settings = Settings { charging: config.charging, api_root: None, is_tls: false };
        let nchf = Nchf::new(app.clone(), Arc::new(settings));
        let router = services::routes(nchf).merge(admin::routes(app));
        Self { store, clock, router, reference: "none".to_owned() }
    }

    fn now(&self) -> nchf::charging::time::Timestamp {
        use nchf::clock::Clock;
        self.clock.now()
    }

    async fn send(&mut self, text: &[u8]) {
        let (head, body) = match find(text, b"\n\n") {
            Some(at) => (&text[..at], &text[at + 2..]),
            None => (text, &[][..]),
        };
        let Ok(head) = std::str::from_utf8(head) else { return };
        let mut lines = head.lines();
        let Some((method, path)) = lines.next().and_then(|line| line.split_once(' ')) else { return };
        if method == "TICK" {
            return self.clock.advance(Span::from_secs(path.parse::<u16>().unwrap_or(1).into()));
        }
        let Ok(method) = method.parse::<Method>() else { return };
        let mut request = Request::builder().method(method).uri(path.replace("{ref}", &self.reference));
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            request = request.header(name, value.trim());
        }
        if request.headers_ref().is_some_and(|headers| !headers.contains_key(header::CONTENT_TYPE)) {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        // What is no request does not reach the routes.
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
        let about = format!("{} {}", request.method(), request.uri());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let header = |name| parts.headers.get(name).map_or("", |value| value.to_str().unwrap());
        let is_problem = header(header::CONTENT_TYPE) == "application/problem+json";
        match parts.status.as_u16() {
            200..500 if about.starts_with("HEAD ") => assert!(body.is_empty(), "{about}"),
            204 => assert!(body.is_empty(), "{about}"),
            200..=202 => {
                let answer: Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{about}: {error}"));
                assert!(answer.is_object() && !is_problem, "{about}: {answer}");
                if about.starts_with("POST /nchf") && parts.status == 201 {
                    header(header::LOCATION).rsplit('/').next().unwrap().clone_into(&mut self.reference);
                }
            }
            status @ 400..500 => {
                assert!(is_problem, "{about}: {status} {:?}", String::from_utf8_lossy(&body));
                let problem: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(problem["status"], status, "{about}");
                for named in problem["invalidParams"].as_array().into_iter().flatten() {
                    assert!(named["param"].is_string() && named["reason"].is_string(), "{about}: {named}");
                }
            }
            status => panic!("{about}: {status} {}", String::from_utf8_lossy(&body)),
        }
    }
}

/// The demo plan, and a few of the demo subscribers.
async fn provision(app: &App) {
    app.put_tariff_plan(&demo::plan()).await.unwrap();
    for name in ["user", "low", "bundle"] {
        let (subscriber, account) = demo::subscriber(name);
        let credit = |balance: &nchf::charging::account::Balance| Credit {
            balance: balance.id.clone(),
            unit: Some(balance.unit),
            amount: balance.amount,
            expires_at: None,
            priority: None,
            reference: "first".into(),
        };
        let credits: Vec<_> = account.balances.iter().map(credit).collect();
        let opened = app.open_account(&account.id, &account.currency, account.credit_limit, &credits).await.unwrap();
        opened.expect("credits fit into a new account");
        app.put_subscriber(&subscriber).await.unwrap();
    }
}
