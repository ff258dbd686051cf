//! SMFs that never give up: what is not answered is sent again as it was, copies go to two instances at once, streams
//! are reset at random, and copies come when everything is over.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http2::SendRequest;
use hyper::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::book::{Book, Booked, Sent};
use super::payers::Payers;
use super::timeline::Timeline;
use crate::processes::Random;
use crate::processes::network_function::{MIB, connect, container, create, report, supi};
use crate::support::world::CONVERGED;

/// What was answered to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// The path of `Location`.
    pub path: String,
    pub body: Bytes,
}

impl Reply {
    /// Nothing else will ever be answered to this message.
    fn is_final(&self) -> bool {
        self.status < 500 && ![408, 429].contains(&self.status)
    }

    /// What a copy is told that comes when its session has gone on for long.
    fn is_forgotten(&self) -> bool {
        self.status == 400 && String::from_utf8_lossy(&self.body).contains("charged long ago and is not charged again")
    }

    fn granted(&self) -> u64 {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["multipleUnitInformation"][0]["grantedUnit"]["totalVolume"].as_u64().unwrap_or_default()
    }

    /// Of an event: whether it was charged.
    fn is_granted(&self) -> bool {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["multipleUnitInformation"][0]["resultCode"] == "SUCCESS"
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.status, self.path, String::from_utf8_lossy(&self.body))
    }
}

/// Whoever messages are sent to, over one connection.
struct Way {
    address: SocketAddr,
    sender: Mutex<Option<SendRequest<Letter>>>,
}

/// The body of a message.
struct Letter {
    /// What is still to be sent.
    rest: Bytes,
    announced: usize,
    /// No more comes, and no end.
    stops: bool,
}

impl Letter {
    fn whole(body: &Bytes) -> Self {
        Self { rest: body.clone(), announced: body.len(), stops: false }
    }

    /// Half of it.
    fn torn(body: &Bytes) -> Self {
        Self { rest: body.slice(..body.len() / 2), announced: body.len(), stops: true }
    }
}

impl Body for Letter {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = std::mem::take(&mut self.rest);
        match next.is_empty() {
            true if self.stops => Poll::Pending,
            true => Poll::Ready(None),
            false => Poll::Ready(Some(Ok(Frame::data(next)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.stops
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced as u64)
    }
}

impl Way {
    fn to(address: SocketAddr) -> Self {
        Self { address, sender: Mutex::default() }
    }

    /// `None` when the connection or the stream is lost before there is an answer.
    async fn send(&self, path: &str, letter: Letter) -> Option<Reply> {
        let known = self.sender.lock().unwrap().clone().filter(|sender| !sender.is_closed());
        let mut sender = match known {
            Some(sender) => sender,
            None => {
                let sender = connect(self.address).await?;
                *self.sender.lock().unwrap() = Some(sender.clone());
                sender
            }
        };
        let request = Request::builder().method(Method::POST).uri(format!("http://{}{path}", self.address));
        let request = request.header("content-type", "application/json").body(letter).unwrap();
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let location = head.headers.get("location").map_or("", |location| location.to_str().unwrap());
        let path = location.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let path = path.map_or_else(String::new, |(_, path)| format!("/{path}"));
        Some(Reply { status: head.status.as_u16(), path, body })
    }
}

#[derive(Default)]
pub struct Counts {
    /// Sent in all, and of these: sent again for want of an answer, second copies, reset by the sender, copies that came
    /// late.
    pub messages: u64,
    pub retransmissions: u64,
    pub copies: u64,
    pub resets: u64,
    pub late_copies: u64,
    pub operations: u64,
    pub sessions: u64,
    pub events: u64,
    pub by_status: BTreeMap<u16, u64>,
    /// Copies that were overtaken by so many messages of their session that it had forgotten their answer, not them.
    pub forgotten: u64,
    /// Sent through the balancer, and of these those that were not answered for good the first time.
    pub balanced: u64,
    pub balanced_again: u64,
    /// Connections lost under a message.
    pub lost_connections: u64,
    /// Without any answer in time while an instance was frozen, which nothing can help but sending it elsewhere.
    pub silent_in_a_freeze: u64,
    /// Without any answer in time, and nothing explains it.
    pub hangs: Vec<String>,
    /// Two copies of a message that were answered differently.
    pub disagreements: Vec<String>,
    /// Answered otherwise than the message deserves.
    pub wrong: Vec<String>,
}

/// How often messages are sent twice at once, and reset, in percent.
#[derive(Clone, Copy)]
pub struct Habits {
    pub copies: u64,
    pub resets: u64,
}

/// What all consumers share.
pub struct Network {
    /// The balancer, then each instance.
    ways: Vec<Way>,
    timeline: Arc<Timeline>,
    payers: Payers,
    /// How long one message may stay without an answer.
    patience: Duration,
    habits: Habits,
    over: AtomicBool,
    sessions: AtomicU32,
    under_way: AtomicU32,
    pub book: Mutex<Book>,
    pub counts: Mutex<Counts>,
}

/// How long an operation may take, with everything that is sent for it.
const OPERATION_MAX: Duration = Duration::from_secs(60);

/// Answers to earlier messages of a session that an instance must still know.
const REMEMBERED: u64 = 4;

/// The first final answer to an operation, whichever copy got it.
#[derive(Default)]
struct Answered(Mutex<Option<Reply>>);

impl Network {
    pub fn new(
        balancer: SocketAddr,
        ports: &[[u16; 2]],
        timeline: &Arc<Timeline>,
        payers: Payers,
        patience: Duration,
        habits: Habits,
    ) -> Arc<Self> {
        let direct = ports.iter().map(|[charging, _]| SocketAddr::from(([127, 0, 0, 1], *charging)));
        Arc::new(Self {
            ways: std::iter::once(balancer).chain(direct).map(Way::to).collect(),
            timeline: Arc::clone(timeline),
            payers,
            patience,
            habits,
            over: AtomicBool::new(false),
            sessions: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
            book: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    /// Plays one session or event after another, until it is over.
    pub async fn play(self: Arc<Self>, number: u32, mut random: Random) {
        while !self.over.load(Ordering::Relaxed) {
            if random.below(5) == 0 {
                self.charge_event(&mut random).await;
            } else {
                self.play_session(number, &mut random).await;
            }
        }
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Copies may still be on their way when the operation has its answer.
    pub fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    async fn play_session(self: &Arc<Self>, consumer: u32, random: &mut Random) {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let subscriber = self.payers.one(random);
        let mut body = create(session, subscriber);
        // Each consumer has one session at a time, so that nobody takes it for one that began anew.
        body["pDUSessionChargingInformation"] =
            json!({ "pduSessionInformation": { "pduSessionID": consumer % 256, "dnnId": "internet" } });
        let Some(created) = self.operate(CONVERGED, &body, 201, random).await else { return };
        let reference = created.path.rsplit('/').next().unwrap().to_owned();
        let mut booked = Booked::new(self.payers.account(subscriber));
        booked.sent.push(Sent { path: CONVERGED.to_owned(), body, reply: created.clone() });
        let mut granted = created.granted();
        let mut number = 1;
        let updates = if random.below(10) == 0 { 3 + random.below(6) } else { random.below(3) };
        for _ in 0..updates {
            number += 1;
            sleep(random.millis(150)).await;
            // Not more than was granted, as an honest consumer does.
            let used = if granted == 0 { 0 } else { random.below(granted.min(5 * MIB)) + 1 };
            let mut usage = json!({ "ratingGroup": 10, "requestedUnit": {} });
            if used > 0 {
                usage["usedUnitContainer"] = container(number, used);
            }
            let Some(updated) = self.go_on(&mut booked, &created.path, "update", number, usage, random).await else {
                return;
            };
            booked.used(number, used);
            granted = updated.granted();
        }
        number += 1;
        let used = if granted == 0 { 0 } else { random.below(granted.min(3 * MIB)) + 1 };
        let mut usage = json!({ "ratingGroup": 10 });
        if used > 0 {
            usage["usedUnitContainer"] = container(number, used);
        }
        if self.go_on(&mut booked, &created.path, "release", number, usage, random).await.is_none() {
            return;
        }
        booked.used(number, used);
        booked.forget_all_but(REMEMBERED);
        self.counts.lock().unwrap().sessions += 1;
        self.book.lock().unwrap().add(reference, booked);
    }

    async fn go_on(
        self: &Arc<Self>,
        booked: &mut Booked,
        session: &str,
        operation: &str,
        number: u32,
        usage: Value,
        random: &mut Random,
    ) -> Option<Reply> {
        let (path, body) = (format!("{session}/{operation}"), report(number, usage));
        let expected = if operation == "release" { 204 } else { 200 };
        let reply = self.operate(&path, &body, expected, random).await?;
        booked.sent.push(Sent { path, body, reply: reply.clone() });
        Some(reply)
    }

    async fn charge_event(self: &Arc<Self>, random: &mut Random) {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let subscriber = self.payers.one(random);
        let units = 1 + random.below(3);
        let mut body = create(session, subscriber);
        body["oneTimeEvent"] = json!(true);
        body["oneTimeEventType"] = json!("IEC");
        body["multipleUnitUsage"] = json!([{ "ratingGroup": 30, "requestedUnit": { "serviceSpecificUnits": units } }]);
        body["sMSChargingInformation"] = json!({ "recipientInfo": [{ "recipientSUPI": supi(subscriber) }] });
        let Some(charged) = self.operate(CONVERGED, &body, 201, random).await else { return };
        let mut booked = Booked::new(self.payers.account(subscriber));
        if charged.is_granted() {
            booked.events = units;
        }
        let reference = charged.path.rsplit('/').next().unwrap().to_owned();
        let key = if reference.is_empty() { format!("event {session}") } else { reference };
        booked.sent.push(Sent { path: CONVERGED.to_owned(), body, reply: charged });
        self.counts.lock().unwrap().events += 1;
        self.book.lock().unwrap().add(key, booked);
    }

    /// Sends a message until it is answered for good. `None` when it never is, or not as it should be: then nobody
    /// knows any more what the session is, and the run has failed.
    async fn operate(self: &Arc<Self>, path: &str, body: &Value, expected: u16, random: &mut Random) -> Option<Reply> {
        let body = Bytes::from(body.to_string());
        let answered = Arc::new(Answered::default());
        let (began, start) = (self.timeline.now(), Instant::now());
        let mut is_first = true;
        let reply = loop {
            if !is_first {
                self.counts.lock().unwrap().retransmissions += 1;
            }
            is_first = false;
            if random.below(100) < self.habits.resets {
                self.reset(path, &body, &answered, random).await;
            }
            let way = self.any_way(random);
            let (told, mut answers) = mpsc::unbounded_channel();
            self.send(way, Duration::ZERO, path, &body, &answered, &told);
            if random.below(100) < self.habits.copies {
                self.counts.lock().unwrap().copies += 1;
                let other = self.another_instance(way, random);
                // At the very same time, or a little later.
                let pause = if random.below(2) == 0 { Duration::ZERO } else { random.millis(30) };
                self.send(other, pause, path, &body, &answered, &told);
            }
            drop(told);
            // Whichever comes first; the other one is compared when it comes.
            let mut reply = None;
            while reply.is_none()
                && let Some(told) = answers.recv().await
            {
                reply = told;
            }
            if let Some(reply) = reply {
                break reply;
            }
            if start.elapsed() > OPERATION_MAX {
                self.counts.lock().unwrap().hangs.push(format!("{path}: not answered in {OPERATION_MAX:?}"));
                return None;
            }
            sleep(Duration::from_millis(20) + random.millis(80)).await;
        };
        self.timeline.operated(began);
        self.counts.lock().unwrap().operations += 1;
        if reply.status != expected {
            self.counts.lock().unwrap().wrong.push(format!("{path}: {reply} to {}", String::from_utf8_lossy(&body)));
            return None;
        }
        if random.below(6) == 0 {
            self.counts.lock().unwrap().late_copies += 1;
            let (told, _nobody_waits) = mpsc::unbounded_channel();
            // Soon enough for the session to remember.
            self.send(self.any_way(random), random.millis(150), path, &body, &answered, &told);
        }
        Some(reply)
    }

    /// Sends it, or half of it, and thinks better of it.
    async fn reset(self: &Arc<Self>, path: &str, body: &Bytes, answered: &Arc<Answered>, random: &mut Random) {
        let way = self.any_way(random);
        let letter = if random.below(3) == 0 { Letter::torn(body) } else { Letter::whole(body) };
        // Most are reset while they are worked on, many as soon as they are sent.
        let patience = if random.below(3) == 0 { Duration::from_millis(1) } else { random.millis(25) };
        let outcome = timeout(patience, self.ways[way].send(path, letter)).await;
        let mut counts = self.counts.lock().unwrap();
        counts.messages += 1;
        match outcome {
            Ok(Some(reply)) => {
                *counts.by_status.entry(reply.status).or_default() += 1;
                drop(counts);
                self.compare(path, answered, &reply);
            }
            Ok(None) => counts.lost_connections += 1,
            Err(_) => counts.resets += 1,
        }
    }

    /// Sends one copy; tells the answer if it is a final one.
    fn send(
        self: &Arc<Self>,
        way: usize,
        pause: Duration,
        path: &str,
        body: &Bytes,
        answered: &Arc<Answered>,
        told: &mpsc::UnboundedSender<Option<Reply>>,
    ) {
        let (network, path, body) = (Arc::clone(self), path.to_owned(), body.clone());
        let (answered, told) = (Arc::clone(answered), told.clone());
        self.under_way.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            sleep(pause).await;
            let reply = network.ask(way, &path, body).await.filter(|reply| network.compare(&path, &answered, reply));
            let _nobody_waits = told.send(reply);
            network.under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn ask(&self, way: usize, path: &str, body: Bytes) -> Option<Reply> {
        let began = self.timeline.now();
        let outcome = timeout(self.patience, self.ways[way].send(path, Letter::whole(&body))).await;
        let mut counts = self.counts.lock().unwrap();
        counts.messages += 1;
        if way == 0 {
            counts.balanced += 1;
            counts.balanced_again += u64::from(!matches!(&outcome, Ok(Some(reply)) if reply.is_final()));
        }
        match outcome {
            Ok(Some(reply)) => {
                *counts.by_status.entry(reply.status).or_default() += 1;
                Some(reply)
            }
            Ok(None) => {
                counts.lost_connections += 1;
                None
            }
            Err(_) if self.timeline.was_frozen_since(began) => {
                counts.silent_in_a_freeze += 1;
                None
            }
            Err(_) => {
                let way = if way == 0 { "the balancer".to_owned() } else { format!("instance {way}") };
                counts.hangs.push(format!("{path}: nothing from {way} in {:?}, sent at {began} ms", self.patience));
                None
            }
        }
    }

    /// Whether it is a final answer; notes it if it is not the one that was given before.
    fn compare(&self, path: &str, answered: &Answered, reply: &Reply) -> bool {
        if !reply.is_final() {
            return false;
        }
        if reply.status < 300 {
            self.timeline.answered();
        }
        let mut first = answered.0.lock().unwrap();
        let first = first.get_or_insert_with(|| reply.clone());
        if first != reply && reply.is_forgotten() {
            self.counts.lock().unwrap().forgotten += 1;
        } else if first != reply {
            self.counts.lock().unwrap().disagreements.push(format!("{path}: {first}, and {reply}"));
        }
        true
    }

    /// Sends messages of closed sessions once more, to whom it may concern, and compares.
    pub async fn repeat(self: &Arc<Self>, count: usize, random: &mut Random) -> usize {
        let sent: Vec<_> = self.book.lock().unwrap().latest(count).cloned().collect();
        for Sent { path, body, reply } in &sent {
            let answered = Arc::new(Answered(Mutex::new(Some(reply.clone()))));
            let body = Bytes::from(body.to_string());
            for _ in 0..20 {
                let again = self.ask(self.any_way(random), path, body.clone()).await;
                if again.is_some_and(|again| self.compare(path, &answered, &again)) {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        sent.len()
    }

    fn any_way(&self, random: &mut Random) -> usize {
        if random.below(5) < 3 { 0 } else { self.another_instance(0, random) }
    }

    /// One that is not this one.
    fn another_instance(&self, than: usize, random: &mut Random) -> usize {
        loop {
            let instance = 1 + usize::try_from(random.below(self.ways.len() as u64 - 1)).unwrap();
            if instance != than || self.ways.len() == 2 {
                return instance;
            }
        }
    }
}
