//! What a run needs on nchf, made through its operator's API: a tariff plan, and subscribers with accounts that last.
//!
//! What is there stays as it is, but that each account is credited, once however often this is run.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::Args;
use super::link::{Answer, Fault, Link, Sender, Target};
use super::message::{EVENT_RATING_GROUP, RATING_GROUPS, Subscribers};
use super::{Error, single_threaded};

/// Few enough to leave room for others, many enough to share the store's commits.
const AT_ONCE: usize = 64;
/// How often a call is tried that was refused, and the pause in between.
const ATTEMPTS: u32 = 50;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

const PLAN: &str = "bench";
/// Of each credit: one account is credited once.
const REFERENCE: &str = "nchf-bench";
/// What no run uses up.
const CREDIT: &str = "1000000.000000";
const CURRENCY: &str = "EUR";
const MAIN_BALANCE: &str = "main";

pub(super) fn provision(args: &Args, subscribers: &Subscribers) -> Result<(), Error> {
    let target = Target::new("--admin", &args.admin, args)?;
    let operator = Operator {
        root: format!("{}/admin/v1", target.root).into(),
        link: Arc::new(Link::new(target)),
        sender: None,
        token: args.admin_token.as_deref().map(Into::into),
        accounts: args.accounts,
    };
    single_threaded()?.block_on(operator.provision(subscribers)).map_err(Error::Failed)
}

#[derive(Clone)]
struct Operator {
    link: Arc<Link>,
    sender: Option<Sender>,
    root: Arc<str>,
    token: Option<Arc<str>>,
    /// How many accounts new subscribers share; `None` for one each.
    accounts: Option<u64>,
}

impl Operator {
    async fn provision(mut self, subscribers: &Subscribers) -> Result<(), String> {
        let path = format!("/tariff-plans/{PLAN}");
        if self.get(&path).await?.is_none() {
            self.call(Method::PUT, &path, Some(&plan())).await?;
        }
        let mut under_way = JoinSet::new();
        for (supi, nth) in subscribers.supis().zip(0u64..) {
            if under_way.len() == AT_ONCE {
                finished(under_way.join_next().await)?;
            }
            let operator = self.clone();
            let account = match self.accounts {
                Some(accounts) => format!("bench-{}-{}", accounts, nth % accounts),
                None => format!("bench-{supi}"),
            };
            under_way.spawn(operator.provision_subscriber(supi, account));
        }
        while let Some(done) = under_way.join_next().await {
            finished(Some(done))?;
        }
        Ok(())
    }

    /// `account` is for a subscriber that is new.
    async fn provision_subscriber(mut self, supi: String, account: String) -> Result<(), String> {
        let path = format!("/subscribers/{supi}");
        let account = match self.get(&path).await? {
            Some(subscriber) => subscriber["accountId"].as_str().unwrap_or_default().to_owned(),
            None => {
                let settings = json!({"currency": CURRENCY});
                self.call(Method::PUT, &format!("/accounts/{account}"), Some(&settings)).await?;
                let subscriber = json!({"accountId": account, "tariffPlanId": PLAN});
                self.call(Method::PUT, &path, Some(&subscriber)).await?;
                account
            }
        };
        let credit = json!({"balanceId": MAIN_BALANCE, "amount": CREDIT, "reference": REFERENCE});
        self.call(Method::POST, &format!("/accounts/{account}/credits"), Some(&credit)).await?;
        Ok(())
    }

    /// `None` where there is nothing.
    async fn get(&mut self, path: &str) -> Result<Option<Value>, String> {
        let answer = self.call(Method::GET, path, None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        serde_json::from_slice(&answer.body).map(Some).map_err(|_| format!("provisioning: GET {path}: no JSON"))
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let failed = |why: &dyn std::fmt::Display| format!("provisioning: {method} {path}: {why}");
        let mut attempts = 1;
        loop {
            let answer = self.ask(&method, path, body).await.map_err(|fault| failed(&fault))?;
            let is_absent = method == Method::GET && answer.status == StatusCode::NOT_FOUND;
            if answer.status.is_success() || is_absent {
                return Ok(answer);
            }
            if !answer.is_refusal() || attempts == ATTEMPTS {
                return Err(failed(&format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body))));
            }
            attempts += 1;
            sleep(PAUSE).await;
        }
    }

    async fn ask(&mut self, method: &Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.root));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let octets = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        // A path of plain characters and a token that a header can hold; else it is refused as unauthorized anyway.
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(octets));
        self.link.ask(&mut self.sender, request.map_err(|_| Fault::Status(StatusCode::UNAUTHORIZED))?).await
    }
}

fn finished(done: Option<Result<Result<(), String>, tokio::task::JoinError>>) -> Result<(), String> {
    match done {
        Some(Ok(outcome)) => outcome,
        // A panic in there is a bug here.
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        None => Ok(()),
    }
}

/// As the demo plan, for the rating groups that are played.
fn plan() -> Value {
    let [paid, free] = RATING_GROUPS;
    let data = |rating_group: u32, name: &str, amount: &str| {
        json!({
            "ratingGroup": rating_group,
            "name": name,
            "price": {"amount": amount, "per": 1_048_576, "unit": "octets"},
            "defaultGrant": 10_485_760,
            "largestGrant": 1_073_741_824,
        })
    };
    let mut internet = data(paid, "internet", "0.010000");
    internet["validitySecs"] = 3600.into();
    internet["holdingSecs"] = 300.into();
    internet["thresholdPercent"] = 20.into();
    let sms = json!({
        "ratingGroup": EVENT_RATING_GROUP,
        "name": "sms",
        "price": {"amount": "0.050000", "per": 1, "unit": "events"},
        "defaultGrant": 1,
        "largestGrant": 100,
    });
    let tariffs = [internet, data(free, "messaging", "0.000000"), sms];
    json!({"currency": CURRENCY, "timeZone": "Europe/Brussels", "tariffs": tariffs})
}
