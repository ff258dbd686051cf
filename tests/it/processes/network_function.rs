//! A network function that charges, and asks again until it is answered; and the operator who looks at the accounts.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;
use super::instance::Instance;
use crate::support::Answer;
use crate::support::world::{CONVERGED, request};

/// What every account is given, in millionths: more than any test spends.
const CREDIT: u64 = 1_000_000_000;

pub const MIB: u64 = 1_048_576;

/// Where an instance can be reached at present, over one connection for each side.
#[derive(Clone)]
pub struct Way(Arc<Mutex<[Side; 2]>>);

type Sender = SendRequest<Full<Bytes>>;
type Side = (SocketAddr, Option<Sender>);

const NCHF: usize = 0;
const OPERATOR: usize = 1;

impl Way {
    pub fn to(instance: &Instance) -> Self {
        Self(Arc::new(Mutex::new(instance.addresses.map(|address| (address, None)))))
    }

    /// The instance was started again, elsewhere.
    pub fn now_to(&self, instance: &Instance) {
        *self.0.lock().unwrap() = instance.addresses.map(|address| (address, None));
    }

    /// `None` when there was no answer.
    async fn send(&self, side: usize, method: Method, path: &str, body: String) -> Option<Answer> {
        let (address, known) = self.0.lock().unwrap()[side].clone();
        let mut sender = match known.filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let sender = connect(address).await?;
                let mut ways = self.0.lock().unwrap();
                if ways[side].0 == address {
                    ways[side].1 = Some(sender.clone());
                }
                sender
            }
        };
        let request = Request::builder().method(method).uri(format!("http://{address}{path}"));
        let request = request.header("content-type", "application/json").body(Full::from(body)).unwrap();
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let bytes = body.collect().await.ok()?.to_bytes();
        Some(Answer { status: head.status, headers: head.headers, bytes })
    }

    /// Asks until it is answered with something else than that the other side cannot serve now.
    async fn ask(&self, side: usize, method: Method, path: &str, body: &str) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A process that is killed or frozen leaves some connections as they are.
            let asked = self.send(side, method.clone(), path, body.to_owned());
            let answer = timeout(Duration::from_secs(10), asked).await.ok().flatten();
            match answer {
                Some(answer) if ![503, 504].contains(&answer.status.as_u16()) => return answer,
                refused => assert!(Instant::now() < deadline, "no answer to {path}: {refused:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn charge(&self, path: &str, body: &Value) -> Answer {
        self.ask(NCHF, Method::POST, path, &body.to_string()).await
    }

    /// Asked once: whoever does not answer, or answers that it cannot serve now, fails the test.
    pub async fn charge_at_once(&self, path: &str, body: &Value) -> Answer {
        let sent = timeout(PATIENCE, self.send(NCHF, Method::POST, path, body.to_string())).await;
        sent.ok().flatten().unwrap_or_else(|| panic!("no answer to {path}"))
    }

    pub async fn operate(&self, method: Method, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(OPERATOR, method, &format!("/admin/v1/{path}"), &body).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.operate(Method::GET, path, &Value::Null).await;
        answer.expect(200).json()
    }

    /// A plan that sells a MiB for a cent, and subscribers with an account and a thousand euros each.
    pub async fn provision(&self, subscribers: u32) {
        self.provision_plan().await;
        for number in 1..=subscribers {
            self.provision_account(&account(number), "1000").await;
            self.provision_subscriber(number, &account(number)).await;
        }
    }

    /// A MiB for a cent, and an event for five.
    pub async fn provision_plan(&self) {
        let price = json!({ "amount": "0.01", "per": MIB, "unit": "octets" });
        let internet = json!({
            "ratingGroup": 10, "name": "internet", "price": price, "defaultGrant": 10 * MIB, "largestGrant": 100 * MIB, "validitySecs": 3600,
        });
        let price = json!({ "amount": "0.05", "per": 1, "unit": "events" });
        let sms = json!({ "ratingGroup": 30, "name": "sms", "price": price, "defaultGrant": 1, "largestGrant": 100 });
        let plan = json!({ "currency": "EUR", "timeZone": "UTC", "tariffs": [internet, sms] });
        self.operate(Method::PUT, "tariff-plans/p", &plan).await.expect(201);
    }

    pub async fn provision_account(&self, account: &str, amount: &str) {
        let path = format!("accounts/{account}");
        self.operate(Method::PUT, &path, &json!({ "currency": "EUR" })).await.expect(201);
        let credit = json!({ "balanceId": "main", "amount": amount, "reference": "first" });
        self.operate(Method::POST, &format!("{path}/credits"), &credit).await.expect(201);
    }

    pub async fn provision_subscriber(&self, subscriber: u32, account: &str) {
        let body = json!({ "accountId": account, "tariffPlanId": "p", "status": "active" });
        self.operate(Method::PUT, &format!("subscribers/{}", supi(subscriber)), &body).await.expect(201);
    }

    /// What the ledger has debited from an account, in millionths. It agrees with the balance, of which nothing is
    /// reserved.
    pub async fn debited(&self, subscriber: u32) -> u64 {
        let account = account(subscriber);
        let debits = self.debits(&account).await;
        let debited = debits.iter().map(|entry| micros(&entry["amount"])).sum::<u64>();
        let balance = self.get(&format!("accounts/{account}")).await["balances"][0].clone();
        assert_eq!(balance["reserved"], "0.000000", "{account}");
        assert_eq!(micros(&balance["amount"]), CREDIT - debited, "{account}");
        debited
    }

    /// What the ledger says was debited from an account, the latest first.
    pub async fn debits(&self, account: &str) -> Vec<Value> {
        let mut debits = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("accounts/{account}/entries?limit=500{cursor}")).await;
            let items = page["items"].as_array().unwrap();
            debits.extend(items.iter().filter(|entry| entry["kind"] == "debit").cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return debits,
            }
        }
    }
}

pub async fn connect<B>(address: SocketAddr) -> Option<SendRequest<B>>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let socket = TcpStream::connect(address).await.ok()?;
    socket.set_nodelay(true).ok()?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

pub fn micros(amount: &Value) -> u64 {
    amount.as_str().unwrap().replace('.', "").parse().unwrap()
}

pub fn account(subscriber: u32) -> String {
    format!("account-{subscriber}")
}

pub fn supi(subscriber: u32) -> String {
    format!("imsi-00101{subscriber:010}")
}

/// The Create of a session; sessions have numbers, so that no two are the same.
pub fn create(session: u32, subscriber: u32) -> Value {
    let usage = json!([{ "ratingGroup": 10, "requestedUnit": {} }]);
    let asked = json!({
        "subscriberIdentifier": supi(subscriber),
        "invocationTimeStamp": format!("2026-01-15T11:{:02}:{:02}.{:03}Z", session / 60_000, session / 1000 % 60, session % 1000),
        "multipleUnitUsage": usage,
    });
    request(1, asked)
}

/// Reports MiB, and asks for more.
pub fn update(number: u32, mib: u64) -> Value {
    report(number, json!({ "ratingGroup": 10, "requestedUnit": {}, "usedUnitContainer": container(number, mib * MIB) }))
}

pub fn release(number: u32, mib: u64) -> Value {
    report(number, json!({ "ratingGroup": 10, "usedUnitContainer": container(number, mib * MIB) }))
}

pub fn report(number: u32, usage: Value) -> Value {
    request(number, json!({ "subscriberIdentifier": null, "multipleUnitUsage": [usage] }))
}

pub fn container(number: u32, octets: u64) -> Value {
    json!([{ "localSequenceNumber": number, "totalVolume": octets }])
}

/// What a session of [`Traffic`] costs.
pub const SESSION_COSTS: u64 = 40_000;

/// Sessions from Create to Release, one after another.
#[derive(Clone)]
pub struct Traffic {
    pub subscribers: u32,
    /// Numbers of sessions, in all places.
    sessions: Arc<AtomicU32>,
    /// References of what is closed.
    closed: Arc<Mutex<BTreeSet<String>>>,
    over: Arc<AtomicBool>,
}

impl Traffic {
    pub fn of(subscribers: u32) -> Self {
        Self { subscribers, sessions: Arc::default(), closed: Arc::default(), over: Arc::default() }
    }

    /// One session.
    pub async fn play_one(&self, way: &Way) {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let created = way.charge(CONVERGED, &create(session, session % self.subscribers + 1)).await;
        created.expect(201);
        way.charge(&format!("{}/update", created.path()), &update(2, 3)).await.expect(200);
        way.charge(&format!("{}/release", created.path()), &release(3, 1)).await.expect(204);
        self.closed.lock().unwrap().insert(created.reference());
    }

    pub async fn play(&self, way: &Way, sessions: usize) {
        let at_once = 8;
        let players = (0..at_once).map(|player| {
            let (traffic, way) = (self.clone(), way.clone());
            tokio::spawn(async move {
                for _ in (player..sessions).step_by(at_once) {
                    traffic.play_one(&way).await;
                }
            })
        });
        for player in players.collect::<Vec<_>>() {
            player.await.unwrap();
        }
    }

    /// Plays on until [`Traffic::end`].
    pub fn go_on(&self, way: &Way) -> tokio::task::JoinHandle<()> {
        let (traffic, way) = (self.clone(), way.clone());
        tokio::spawn(async move {
            while !traffic.over.load(Ordering::Relaxed) {
                traffic.play_one(&way).await;
            }
        })
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn closed(&self) -> BTreeSet<String> {
        self.closed.lock().unwrap().clone()
    }

    /// What the records charge is what the ledger debited, of every account.
    pub async fn assert_charged(&self, way: &Way, records: &[Value]) {
        for record in records {
            assert_eq!(micros(&record["charged"]), SESSION_COSTS, "{record}");
        }
        for subscriber in 1..=self.subscribers {
            let account = account(subscriber);
            let of_account = records.iter().filter(|record| record["accountId"] == account);
            let charged: u64 = of_account.map(|record| micros(&record["charged"])).sum();
            assert_eq!(way.debited(subscriber).await, charged, "{account}");
        }
    }
}
