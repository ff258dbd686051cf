//! A charging function with the demo data in memory, whose clock stands still until it is moved. Requests go through the
//! real routers; there are no sockets.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use nchf::app::{App, RequestLimits, Shared};
use nchf::charging::time::Span;
use nchf::clock::ManualClock;
use nchf::config::{Charging, Config};
use nchf::demo;
use nchf::http::nchf::{Nchf, Settings};
use nchf::http::{admin, nchf as services};
use nchf::store::memory::MemoryStore;
use nchf::store::{RefCodec, Store};
use serde_json::{Value, json};
use tower::ServiceExt;

pub struct World {
    pub app: App,
    clock: ManualClock,
    router: Router,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: bytes::Bytes,
}

/// Thursday, 15 January 2026, 12:00 in Brussels: by day, far from the end of a month.
pub const START: &str = "2026-01-15T11:00:00Z";

pub const CONVERGED: &str = "/nchf-convergedcharging/v3/chargingdata";
pub const OFFLINE_ONLY: &str = "/nchf-offlineonlycharging/v1/offlinechargingdata";

impl World {
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let clock = ManualClock::at(START.parse::<jiff::Timestamp>().unwrap().into());
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        Self::over(store, clock, config).await
    }

    pub async fn over(store: Arc<dyn Store>, clock: ManualClock, config: Config) -> Self {
        let refs = RefCodec::new(store.identity().secret);
        let id = store.identity().instance_id.clone();
        let limits = RequestLimits {
            deadline_ms: config.http.deadline_ms,
            waiting_per_account_max: config.http.waiting_per_account_max,
        };
        let shared = Shared::new(Arc::new(clock.clone()), refs, config.rules().unwrap(), id, limits);
        let app = App { store, shared: Arc::new(shared) };
        demo::provision(&app).await.unwrap();
        let charging: Charging = config.charging;
        let settings = Arc::new(Settings { charging, api_root: config.http.api_root, is_tls: false });
        let router = services::routes(Nchf::new(app.clone(), settings)).merge(admin::routes(app.clone()));
        Self { app, clock, router }
    }

    /// The routes, for a server with sockets.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    pub fn tick(&self, secs: u32) {
        self.clock.advance(Span::from_secs(secs));
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    /// A request with a JSON body, as it stands.
    pub async fn request(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "chf.example.com")
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::PUT, path, body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, Body::empty()).await
    }

    pub async fn create(&self, body: &Value) -> Answer {
        self.post(CONVERGED, body).await
    }

    pub async fn update(&self, created: &Answer, body: &Value) -> Answer {
        self.post(&format!("{}/update", created.path()), body).await
    }

    pub async fn release(&self, created: &Answer, body: &Value) -> Answer {
        self.post(&format!("{}/release", created.path()), body).await
    }

    /// A member of a balance of an account: `amount`, `reserved` or `available`.
    pub async fn balance(&self, account: &str, balance: &str, member: &str) -> String {
        let answer = self.get(&format!("/admin/v1/accounts/{account}")).await.json();
        let balances = answer["balances"].as_array().unwrap();
        let found = balances.iter().find(|one| one["id"] == balance).unwrap();
        found[member].as_str().unwrap().to_owned()
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The path of `Location`.
    pub fn path(&self) -> String {
        let location = self.header("location");
        let (_, path) = location.strip_prefix("http://").and_then(|rest| rest.split_once('/')).unwrap();
        format!("/{path}")
    }

    pub fn reference(&self) -> String {
        self.path().rsplit('/').next().unwrap().to_owned()
    }

    /// The information of one rating group.
    pub fn group(&self, rating_group: u32) -> Value {
        let body = self.json();
        let all = body["multipleUnitInformation"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["ratingGroup"] == rating_group).unwrap_or(Value::Null)
    }

    #[track_caller]
    pub fn expect(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    #[track_caller]
    pub fn expect_problem(&self, status: u16, cause: &str) -> Value {
        self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["cause"].as_str().unwrap_or_default(), cause, "{problem}");
        problem
    }
}

/// A request of the SMF for the first demo subscriber, with whatever else is given.
pub fn request(number: u32, others: Value) -> Value {
    let mut body = json!({
        "subscriberIdentifier": "imsi-001010000000001",
        "nfConsumerIdentification": {
            "nFName": "6d0b1a5c-8d1a-4c0e-9e0f-7f5f0b7a1c99",
            "nodeFunctionality": "SMF",
        },
        "invocationTimeStamp": "2026-01-15T11:00:00Z",
        "invocationSequenceNumber": number,
    });
    merge(&mut body, others);
    body
}

fn merge(into: &mut Value, others: Value) {
    let (Value::Object(into), Value::Object(others)) = (into, others) else { panic!("objects are merged") };
    for (name, value) in others {
        if value.is_null() {
            into.remove(&name);
        } else {
            into.insert(name, value);
        }
    }
}
