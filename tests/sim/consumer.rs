//! Consumers of every kind: they number their requests in their ways, repeat what was not answered, die, start again, and
//! answer notifications or not.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::auditor::{Answer, Container, EVENTS, Key, MESSAGES, Operation, RECORDED, SECONDS, Service, grants, unit};
use super::chance::Chance;
use super::instance::consumer_address;
use super::network::Life;
use super::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Numbers its requests from 1 on.
    Counting,
    /// Sends one number for ever; time stamps tell its requests apart.
    Constant,
    /// Puts what was not answered into the next request.
    Merging,
    /// One event after the other, before it happens or after.
    Events,
    /// As an IMS node: sessions of seconds.
    Calls,
    /// As an SMSF: an event is reserved, happens, and is reported by the Release of its session.
    Messages,
    /// As an AMF: events that are recorded, and use nothing that is metered.
    Registrations,
    /// Of the offline-only service: usage is reported, nothing is asked for.
    Offline,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Counting,
        Self::Counting,
        Self::Constant,
        Self::Merging,
        Self::Merging,
        Self::Events,
        Self::Calls,
        Self::Messages,
        Self::Registrations,
        Self::Offline,
        Self::Offline,
    ];

    const fn service(self) -> Service {
        match self {
            Self::Offline => Service::OfflineOnly,
            Self::Counting
            | Self::Constant
            | Self::Merging
            | Self::Events
            | Self::Calls
            | Self::Messages
            | Self::Registrations => Service::Converged,
        }
    }

    const fn functionality(self) -> &'static str {
        match self {
            Self::Counting | Self::Constant | Self::Merging | Self::Events | Self::Offline => "SMF",
            Self::Calls => "IMS_Node",
            Self::Messages => "SMSF",
            Self::Registrations => "AMF",
        }
    }

    /// What to ask for, by rating group.
    fn ask(self, chance: &mut Chance) -> BTreeMap<u32, u64> {
        match self {
            Self::Offline | Self::Registrations => BTreeMap::new(),
            Self::Calls => BTreeMap::from([(SECONDS, chance.between(1, 7_200))]),
            Self::Messages => BTreeMap::from([(MESSAGES, chance.between(1, 3))]),
            Self::Counting | Self::Constant | Self::Merging | Self::Events => ask(chance),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Answers,
    Knows404,
    Fails,
    Hangs,
    IsDead,
}

pub struct Consumer {
    number: u64,
    account: u64,
    kind: Kind,
    marks: bool,
    mood: Cell<Mood>,
    /// A notification has come that a session has to act on.
    asked: Cell<bool>,
    pub is_done: Cell<bool>,
    /// Every request that was ever sent, to be sent once more in the end.
    pub sent: RefCell<Vec<(Operation, String, Value)>>,
}

/// What a session knows of itself.
struct Talk {
    key: Key,
    path: String,
    number: u32,
    containers: u32,
    granted: BTreeMap<u32, u64>,
    /// When each container was closed, by its number; of those that say so.
    closed: BTreeMap<u32, String>,
    /// Reported and never answered.
    unanswered: Vec<Container>,
    /// Some request was given up, so what is granted is not known for sure.
    is_unsure: bool,
    /// 410: whatever is reported now is charged without a grant.
    has_ended: bool,
}

impl Consumer {
    pub fn new(number: u64, account: u64, chance: &mut Chance) -> Self {
        let kind = *chance.one_of(&Kind::ALL);
        let moods = [Mood::Answers, Mood::Answers, Mood::Answers, Mood::Knows404, Mood::Fails, Mood::Hangs];
        Self {
            number,
            account,
            kind,
            marks: chance.permille(500),
            mood: Cell::new(*chance.one_of(&moods)),
            asked: Cell::default(),
            is_done: Cell::default(),
            sent: RefCell::default(),
        }
    }

    pub fn listens(&self) -> bool {
        self.mood.get() != Mood::IsDead
    }

    /// Answers notifications that come over one connection.
    pub async fn serve(self: Rc<Self>, stream: DuplexStream, life: Life, world: Rc<World>) {
        let consumer = Rc::clone(&self);
        let notified = service_fn(move |request| Rc::clone(&consumer).notified(request, life, Rc::clone(&world)));
        let connection = http2::Builder::new(Local).serve_connection(TokioIo::new(stream), notified);
        let _ended = connection.await;
    }

    async fn notified(
        self: Rc<Self>,
        request: hyper::Request<Incoming>,
        life: Life,
        world: Rc<World>,
    ) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
        let _body = request.into_body().collect().await;
        world.travel(life).await;
        let status = match self.mood.get() {
            Mood::Answers => {
                self.asked.set(true);
                204
            }
            Mood::Knows404 => 404,
            Mood::Fails => 500,
            Mood::Hangs | Mood::IsDead => {
                sleep(Duration::from_secs(20)).await;
                503
            }
        };
        world.auditor.borrow_mut().note(u64::from(status));
        let mut response = hyper::Response::new(Full::default());
        *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
        Ok(response)
    }

    pub async fn play(self: Rc<Self>, world: Rc<World>) {
        let mut chance = world.chance.stream("consumer", self.number);
        let mut left = world.options.operations;
        while left > 0 {
            sleep(chance.millis(1, 4000)).await;
            match self.kind {
                Kind::Events => self.event(&world, &mut chance).await,
                Kind::Registrations => self.registration(&world, &mut chance).await,
                Kind::Counting | Kind::Constant | Kind::Merging | Kind::Calls | Kind::Messages | Kind::Offline => {
                    self.session(&world, &mut chance, &mut left).await;
                    continue;
                }
            }
            left -= 1;
        }
        self.is_done.set(true);
    }

    async fn event(self: &Rc<Self>, world: &Rc<World>, chance: &mut Chance) {
        let key = world.auditor.borrow_mut().begin(self.account, Service::Converged);
        let units = chance.between(1, 3);
        let mut body = self.body(world, key, 1);
        body["oneTimeEvent"] = json!(true);
        // Some do not say which kind it is: who asks for units asks before the event, who reports some tells of it after.
        let says_its_type = chance.permille(700);
        let (containers, asked) = if chance.permille(500) {
            if says_its_type {
                body["oneTimeEventType"] = json!("IEC");
            }
            body["multipleUnitUsage"] =
                json!([{ "ratingGroup": EVENTS, "requestedUnit": { "serviceSpecificUnits": units } }]);
            (Vec::new(), BTreeMap::from([(EVENTS, units)]))
        } else {
            if says_its_type {
                body["oneTimeEventType"] = json!("PEC");
            }
            let container = Container { group: EVENTS, number: 1, units };
            body["multipleUnitUsage"] = json!([usage(EVENTS, None, &[container], &BTreeMap::new(), Some(ONLINE))]);
            (vec![container], BTreeMap::new())
        };
        let operation = world.auditor.borrow_mut().submit(key, &containers, asked, &containers);
        self.submit(world, chance, operation, CONVERGED.to_owned(), body).await;
    }

    /// An event that is described and not metered: it costs nothing, and has a record.
    async fn registration(self: &Rc<Self>, world: &Rc<World>, chance: &mut Chance) {
        let key = world.auditor.borrow_mut().begin(self.account, Service::Converged);
        let mut body = self.body(world, key, 1);
        body["oneTimeEvent"] = json!(true);
        body["oneTimeEventType"] = json!("PEC");
        body["registrationChargingInformation"] = json!({ "registrationMessagetype": "INITIAL" });
        let operation = world.auditor.borrow_mut().submit(key, &[], BTreeMap::new(), &[]);
        self.submit(world, chance, operation, CONVERGED.to_owned(), body).await;
    }

    /// One session from its Create to its Release, unless the consumer dies in between.
    async fn session(self: &Rc<Self>, world: &Rc<World>, chance: &mut Chance, left: &mut u64) {
        let Some(mut talk) = self.open(world, chance).await else {
            *left = left.saturating_sub(1);
            return;
        };
        // A message happens at once.
        let updates = if self.kind == Kind::Messages { 0 } else { chance.below(*left + 1) };
        for _ in 0..updates {
            if chance.permille(30) {
                // Longer than the supervision: the session may have been closed.
                sleep(chance.millis(100_000, 1_500_000)).await;
                talk.is_unsure = true;
            } else {
                sleep(chance.millis(1, 3000)).await;
            }
            *left = left.saturating_sub(1);
            if chance.permille(world.options.deserted) {
                // Forgotten, with everything it held.
                let mood = if chance.permille(300) { Mood::IsDead } else { Mood::Knows404 };
                self.mood.set(mood);
                return;
            }
            self.next(world, chance, &mut talk, "update").await;
            if talk.has_ended {
                return;
            }
        }
        sleep(chance.millis(1, 3000)).await;
        *left = left.saturating_sub(1);
        self.next(world, chance, &mut talk, "release").await;
    }

    async fn open(self: &Rc<Self>, world: &Rc<World>, chance: &mut Chance) -> Option<Talk> {
        let service = self.kind.service();
        let key = world.auditor.borrow_mut().begin(self.account, service);
        let asked = self.kind.ask(chance);
        let mut body = self.body(world, key, u32::from(self.kind != Kind::Constant));
        let groups: Vec<Value> =
            asked.iter().map(|(group, units)| usage(*group, Some(*units), &[], &BTreeMap::new(), None)).collect();
        if !groups.is_empty() {
            body["multipleUnitUsage"] = json!(groups);
        }
        body["notifyUri"] = json!(format!("http://{}/{}", consumer_address(self.number), key.0));
        match self.kind {
            Kind::Calls => body["iMSChargingInformation"] = json!({ "iMSNodeFunctionality": "AS" }),
            Kind::Messages => body["sMSChargingInformation"] = json!({ "numberofMessagesSent": 1 }),
            Kind::Counting | Kind::Constant | Kind::Merging | Kind::Events | Kind::Registrations | Kind::Offline => {
                body["pDUSessionChargingInformation"] = json!({
                    "chargingId": key.0,
                    "pduSessionInformation": { "pduSessionID": self.number + 1, "dnnId": "internet" },
                });
            }
        }
        let operation = world.auditor.borrow_mut().submit(key, &[], asked, &[]);
        let collection = match service {
            Service::Converged => CONVERGED,
            Service::OfflineOnly => OFFLINE_ONLY,
        };
        let answer = self.submit(world, chance, operation, collection.to_owned(), body).await?;
        let location = answer.location.as_deref()?;
        let path = location.split_once("://").and_then(|(_, rest)| rest.split_once('/'))?.1;
        Some(Talk {
            key,
            path: format!("/{path}"),
            number: 1,
            containers: 0,
            granted: grants(&answer),
            closed: BTreeMap::new(),
            unanswered: Vec::new(),
            is_unsure: false,
            has_ended: false,
        })
    }

    async fn next(self: &Rc<Self>, world: &Rc<World>, chance: &mut Chance, talk: &mut Talk, kind: &str) {
        talk.number += 1;
        let number = if self.kind == Kind::Constant { 0 } else { talk.number };
        let mut containers = std::mem::take(&mut talk.unanswered);
        let merged = containers.len();
        let granted = std::mem::take(&mut talk.granted);
        for (group, granted) in granted.clone() {
            // Sometimes in two parts, sometimes all of it, sometimes a little more than there was.
            let used = match chance.below(8) {
                0 => granted,
                1 => 0,
                2 => granted + chance.below(500),
                _ => chance.below(granted + 1),
            };
            let parts = if used > 1 && chance.permille(200) { vec![used / 2, used - used / 2] } else { vec![used] };
            for units in parts.into_iter().filter(|units| *units > 0) {
                talk.containers += 1;
                if self.kind == Kind::Merging {
                    talk.closed.insert(talk.containers, world.date_time());
                }
                containers.push(Container { group, number: talk.containers, units });
            }
        }
        for group in self.without_grant(chance) {
            talk.containers += 1;
            if self.kind == Kind::Merging {
                talk.closed.insert(talk.containers, world.date_time());
            }
            containers.push(Container { group, number: talk.containers, units: chance.between(1, 20_000) });
        }
        let asked = if kind == "update" { self.kind.ask(chance) } else { BTreeMap::new() };
        let mut body = self.body(world, talk.key, number);
        let groups: std::collections::BTreeSet<u32> =
            asked.keys().copied().chain(containers.iter().map(|container| container.group)).collect();
        let groups: Vec<Value> = groups
            .into_iter()
            .map(|group| {
                let of_group: Vec<_> = containers.iter().copied().filter(|one| one.group == group).collect();
                usage(group, asked.get(&group).copied(), &of_group, &talk.closed, self.indicator(group))
            })
            .collect();
        body["multipleUnitUsage"] = json!(groups);
        let beyond = self.beyond(talk, &granted, &containers, merged);
        let operation = world.auditor.borrow_mut().submit(talk.key, &containers, asked, &beyond);
        match self.submit(world, chance, operation, format!("{}/{kind}", talk.path), body).await {
            Some(answer) => {
                talk.has_ended = answer.status == 410;
                talk.granted = grants(&answer);
            }
            None => {
                talk.is_unsure = true;
                if self.kind == Kind::Merging {
                    talk.unanswered = containers;
                }
            }
        }
    }

    /// Rating groups whose usage is reported though nobody asked for a grant: it is only to be recorded.
    fn without_grant(&self, chance: &mut Chance) -> Vec<u32> {
        let of = |groups: &[u32], chance: &mut Chance| {
            groups.iter().copied().filter(|_| chance.permille(400)).collect::<Vec<_>>()
        };
        match self.kind {
            Kind::Offline => of(&[10, 20, SECONDS, RECORDED], chance),
            Kind::Counting | Kind::Merging => of(&[RECORDED], chance),
            Kind::Constant | Kind::Events | Kind::Calls | Kind::Messages | Kind::Registrations => Vec::new(),
        }
    }

    /// What a container says of how it is to be charged. Of the offline-only service some say that it is, and some
    /// nothing.
    fn indicator(&self, group: u32) -> Option<&'static str> {
        match self.kind {
            Kind::Offline => self.marks.then_some(OFFLINE),
            _ if group == RECORDED => Some(OFFLINE),
            _ => Some(ONLINE),
        }
    }

    /// Which of these containers no grant may have covered. A grant that was replaced, or ended with its session, covers
    /// nothing.
    fn beyond(
        &self,
        talk: &Talk,
        granted: &BTreeMap<u32, u64>,
        containers: &[Container],
        merged: usize,
    ) -> Vec<Container> {
        if talk.is_unsure || self.mood.get() == Mood::Knows404 {
            return containers.to_vec();
        }
        let (from_before, new) = containers.split_at(merged);
        let exceeds = |group| {
            let used: u64 = new.iter().filter(|one| one.group == group).map(|one| one.units).sum();
            used > granted.get(&group).copied().unwrap_or_default()
        };
        from_before.iter().chain(new.iter().filter(|one| exceeds(one.group))).copied().collect()
    }

    fn body(&self, world: &World, key: Key, number: u32) -> Value {
        json!({
            "subscriberIdentifier": supi(self.account),
            "nfConsumerIdentification": { "nFName": nf_name(self.number), "nodeFunctionality": self.kind.functionality() },
            "invocationTimeStamp": world.date_time(),
            "invocationSequenceNumber": number,
            "serviceSpecificationInfo": key.0.to_string(),
        })
    }

    /// Sends until there is an answer, or for as long as this consumer cares.
    async fn submit(
        self: &Rc<Self>,
        world: &Rc<World>,
        chance: &mut Chance,
        operation: Operation,
        path: String,
        body: Value,
    ) -> Option<Answer> {
        self.sent.borrow_mut().push((operation, path.clone(), body.clone()));
        let attempts = chance.between(2, 8);
        let (answers, mut answered) = mpsc::unbounded_channel();
        for attempt in 0..attempts {
            let mut body = body.clone();
            if attempt > 0 {
                world.auditor.borrow_mut().retransmissions += 1;
                if self.marks {
                    body["retransmissionIndicator"] = json!(true);
                }
            }
            let copies = if chance.permille(world.options.doubled) { 2 } else { 1 };
            for _ in 0..copies {
                let delivery = Delivery {
                    world: Rc::clone(world),
                    operation,
                    path: path.clone(),
                    body: body.clone(),
                    answers: answers.clone(),
                    chance: chance.split("delivery"),
                };
                spawn_local(delivery.travel());
            }
            if let Ok(Some(answer)) = timeout(Duration::from_secs(4), answered.recv()).await {
                return Some(answer);
            }
        }
        None
    }
}

pub const CONVERGED: &str = "/nchf-convergedcharging/v3/chargingdata";
const OFFLINE_ONLY: &str = "/nchf-offlineonlycharging/v1/offlinechargingdata";

const ONLINE: &str = "ONLINE_CHARGING";
const OFFLINE: &str = "OFFLINE_CHARGING";

pub fn supi(account: u64) -> String {
    format!("imsi-00101{account:010}")
}

fn nf_name(consumer: u64) -> String {
    format!("6d0b1a5c-8d1a-4c0e-9e0f-{consumer:012}")
}

/// What to ask for in a PDU session, by rating group.
fn ask(chance: &mut Chance) -> BTreeMap<u32, u64> {
    let mut asked = BTreeMap::new();
    for group in [10, 20, 40] {
        if chance.permille(600) {
            asked.insert(group, chance.between(1, 20_000));
        }
    }
    if asked.is_empty() {
        asked.insert(10, 5_000);
    }
    asked
}

fn usage(
    group: u32,
    asked: Option<u64>,
    containers: &[Container],
    closed: &BTreeMap<u32, String>,
    indicator: Option<&str>,
) -> Value {
    let mut usage = json!({ "ratingGroup": group });
    if let Some(units) = asked {
        usage["requestedUnit"] = json!({ unit(group): units });
    }
    if !containers.is_empty() {
        let containers: Vec<Value> = containers
            .iter()
            .map(|container| {
                let mut said = json!({
                    "localSequenceNumber": container.number,
                    unit(group): container.units,
                });
                if let Some(indicator) = indicator {
                    said["quotaManagementIndicator"] = json!(indicator);
                }
                if let Some(closed) = closed.get(&container.number) {
                    said["triggerTimestamp"] = json!(closed);
                }
                said
            })
            .collect();
        usage["usedUnitContainer"] = json!(containers);
    }
    usage
}

/// One copy of a request on its way to some instance, and its answer on the way back.
struct Delivery {
    world: Rc<World>,
    operation: Operation,
    path: String,
    body: Value,
    answers: mpsc::UnboundedSender<Answer>,
    chance: Chance,
}

impl Delivery {
    async fn travel(mut self) {
        let world = Rc::clone(&self.world);
        let options = &world.options;
        let is_faulty = world.is_faulty();
        if is_faulty && self.chance.permille(options.lost / 2) {
            return;
        }
        let is_late = is_faulty && self.chance.permille(options.late);
        sleep(if is_late { self.chance.millis(1000, 90_000) } else { self.chance.millis(0, 8) }).await;
        let Some(door) = world.pick(&mut self.chance) else { return };
        let life = door.life;
        world.lines.released(life).await;
        let (path, body) = (self.path.clone(), self.body.clone());
        let exchange = spawn_local(async move { door.call(Method::POST, &path, &body).await });
        if is_faulty && self.chance.permille(options.cancelled) {
            sleep(self.chance.millis(0, 20)).await;
            exchange.abort();
        }
        let Ok(answer) = exchange.await else { return };
        world.lines.released(life).await;
        if world.lines.is_cut(life) || (is_faulty && self.chance.permille(options.lost / 2)) {
            return;
        }
        sleep(self.chance.millis(0, 8)).await;
        if world.auditor.borrow_mut().answered(self.operation, &answer, world.millis()) {
            let _nobody_waits = self.answers.send(answer);
        }
    }
}

/// Spawns what hyper wants to run on this thread.
#[derive(Clone, Copy)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}
