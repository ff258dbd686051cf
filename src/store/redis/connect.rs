//! The only place that knows where Redis is and how to reach it.
//!
//! Everything here belongs to the runtime that opened it: the tasks that drive the connections live there.
//!
//! A call names the slot of its keys. Where one server has them all that costs nothing; in a cluster it leads to one of
//! the masters, and from there wherever the cluster points. What a server refuses without doing it, because another one
//! has the slot, is asked again there within the deadline; a change whose answer was lost is not.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::address::Address;
use super::cluster::{Cluster, load_functions};
use super::failure::{Detour, Failure};
use super::keys::Slot;
use super::lane::{Asked, Promise};
use super::node::{Node, Place, Question, Said};
use super::sentinel::Sentinels;
use super::wire::Wire;
use super::{Settings, migrate};
use crate::store::{Applied, Durability, Error, Origin};

/// Between attempts at a slot that is on its way, and at a cluster that is not whole: the first pause, which doubles,
/// and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What a call of its own takes at most, as a rule: with less time left, what was refused is not asked again.
const LAST_MOMENT: Duration = Duration::from_millis(50);

/// The connections of one store.
pub struct Links {
    servers: Servers,
    deadline: Duration,
    /// Replicas that a change waits for.
    replicas: u32,
    /// Whether functions that are missing may be loaded.
    migrate: bool,
}

enum Servers {
    One { node: Arc<Node>, sentinels: Option<Sentinels> },
    Cluster(Arc<Cluster>),
}

/// Over which connection a question travels.
#[derive(Clone, Copy)]
enum Way<'q> {
    Shared(Question<'q>),
    Aside(Question<'q>),
    Lane(&'q Asked),
}

impl Links {
    /// Connects nothing yet; belongs to the runtime it is called on.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let mut promise = Promise {
            durability: settings.durability,
            replicas: if settings.durability == Durability::Replicated { settings.replicas } else { 0 },
            sentinels: None,
            histories: Arc::clone(&settings.histories),
        };
        let replicas = promise.replicas;
        let wire = Wire::new(settings)?;
        let servers = match Address::parse(&settings.url) {
            Some(Address::Single(info)) => {
                Servers::One { node: Arc::new(Node::new(Place::Here(info), settings, wire, None)), sentinels: None }
            }
            Some(Address::Sentinel { sentinels, name, session }) => {
                // The other half is for connecting to what they name.
                let sentinels = Sentinels::new(sentinels, name, session, settings.connect_timeout / 2, wire.clone());
                promise.sentinels = Some(sentinels.clone());
                let node = Node::new(Place::Found(sentinels.clone()), settings, wire, Some(promise));
                Servers::One { node: Arc::new(node), sentinels: Some(sentinels) }
            }
            Some(Address::Cluster { seeds }) => {
                Servers::Cluster(Arc::new(Cluster::new(seeds, settings, wire, promise)))
            }
            None => return Err(Error::unavailable(Applied::No, "the store's address is of no known form")),
        };
        Ok(Self { servers, deadline: settings.deadline, replicas, migrate: settings.migrate })
    }

    /// Replicas that must have a change before it is answered; 0 where none is waited for.
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// How many replicas the sentinels know, and how many of these are lost to the master that writes this history,
    /// where there are sentinels.
    pub async fn known_replicas(&self, history: &str) -> Result<(u32, u32), Error> {
        let Servers::One { sentinels: Some(sentinels), .. } = &self.servers else { return Ok((0, 0)) };
        let master = sentinels.master().await.map_err(|error| Error::unavailable(Applied::No, error))?;
        let lost = sentinels.lost(&master.at.addr().to_string(), history).await;
        Ok((master.replicas(), u32::try_from(lost.len()).unwrap_or(u32::MAX)))
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// All servers that have keys, always in the same order, and a number that changes when keys have moved from one to
    /// another. Asks a cluster anew.
    pub async fn masters_now(&self) -> Result<(Vec<Arc<Node>>, u64), Error> {
        if let Servers::Cluster(cluster) = &self.servers {
            cluster.learn().await.map_err(|reason| Error::unavailable(Applied::No, reason))?;
        }
        self.masters()
    }

    /// As [`Links::masters_now`], as far as is known.
    pub fn masters(&self) -> Result<(Vec<Arc<Node>>, u64), Error> {
        match &self.servers {
            Servers::One { node, .. } => Ok((vec![Arc::clone(node)], 0)),
            Servers::Cluster(cluster) => cluster.masters().map_err(|reason| Error::unavailable(Applied::No, reason)),
        }
    }

    /// Asks something that changes nothing; asked once more if the connection was lost. One round trip.
    pub async fn read(&self, slot: Slot, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        self.read_there(slot, question).await.map(|said| said.value)
    }

    /// As [`Links::read`], and says where.
    pub async fn read_there(&self, slot: Slot, question: impl Into<Question<'_>>) -> Result<Said, Error> {
        let (way, until) = (Way::Shared(question.into()), Instant::now() + self.deadline);
        let answer = match self.ask(slot, way, until).await {
            Err(failure) if failure.is_lost() => {
                let again = Box::pin(self.ask(slot, way, until));
                timeout_at(until, again).await.unwrap_or(Err(Failure::Late))
            }
            answer => answer,
        };
        answer.map_err(Failure::of_a_read)
    }

    /// Asks for a change, never twice unless it was refused: whether a lost one was made is for the caller to find
    /// out. One round trip.
    pub async fn write(&self, slot: Slot, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let until = Instant::now() + self.deadline;
        self.ask(slot, Way::Shared(question.into()), until).await.map(|said| said.value).map_err(Failure::of_a_write)
    }

    /// Asks something that may be repeated without harm, on a connection of its own.
    pub async fn aside(&self, slot: Slot, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let until = Instant::now() + self.deadline;
        self.ask(slot, Way::Aside(question.into()), until).await.map(|said| said.value).map_err(Failure::of_a_read)
    }

    /// As [`Links::aside`], of one server.
    pub async fn aside_at(&self, node: &Node, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let until = Instant::now() + self.deadline;
        let asked = attempt(node, Way::Aside(question.into()), false, until);
        asked.await.map(|said| said.value).map_err(Failure::of_a_read)
    }

    /// Makes a change that is answered only when it survives what the durability says. As [`Links::write`] where that
    /// is for Redis alone to see to; in a batch with others where there are replicas. `origin` is where that was read
    /// which it follows from.
    pub async fn commit(&self, slot: Slot, call: Cmd, origin: Origin) -> Result<Said, Error> {
        match &self.servers {
            Servers::One { sentinels: None, .. } => {
                self.write(slot, &call).await.map(|value| Said { value, origin: Origin::ANY })
            }
            Servers::One { .. } | Servers::Cluster(_) => {
                let (asked, until) = (Asked::Change(call, origin), Instant::now() + self.deadline);
                self.ask(slot, Way::Lane(&asked), until).await.map_err(Failure::of_a_write)
            }
        }
    }

    /// Asks something on whose answer others act, outside of the store or in another partition of it: what was read, or
    /// removed, survives what the durability says. It may be repeated without harm. `touch` is a command that writes
    /// something, whatever it finds.
    pub async fn covered(&self, slot: Slot, question: Cmd, touch: Cmd) -> Result<Value, Error> {
        if self.replicas == 0 {
            return self.aside(slot, &question).await;
        }
        let (asked, until) = (Asked::Covered(question, touch), Instant::now() + self.deadline);
        self.ask(slot, Way::Lane(&asked), until).await.map(|said| said.value).map_err(Failure::of_a_read)
    }

    /// Divides these slots, by their places in the list, into those that one server has.
    pub fn together(&self, slots: &[Slot]) -> Vec<Vec<usize>> {
        let Servers::Cluster(cluster) = &self.servers else { return vec![(0..slots.len()).collect()] };
        let mut groups = Vec::<(Option<Arc<Node>>, Vec<usize>)>::new();
        for (at, slot) in slots.iter().enumerate() {
            let owner = cluster.known_owner(*slot);
            let name = |node: &Option<Arc<Node>>| node.as_ref().map(|node| node.name().to_owned());
            match groups.iter_mut().find(|(of, _)| name(of) == name(&owner)) {
                Some((_, group)) => group.push(at),
                None => groups.push((owner, vec![at])),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// As [`Links::aside`], of keys of several slots that one server has; `None` if it has not all of them any more.
    pub async fn aside_together(&self, slot: Slot, question: impl Into<Question<'_>>) -> Result<Option<Value>, Error> {
        let question = question.into();
        let Servers::Cluster(cluster) = &self.servers else { return self.aside(slot, question).await.map(Some) };
        let until = Instant::now() + self.deadline;
        let answer = match cluster.owner(slot).await {
            Ok(node) => attempt(&node, Way::Aside(question), false, until).await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(said) => Ok(Some(said.value)),
            Err(failure) if failure.detour().is_some() || matches!(failure, Failure::NotSent(_)) => Ok(None),
            Err(failure) => Err(failure.of_a_read()),
        }
    }

    /// Bounds a call that asks several times, as one that asks once is bounded by itself. Only for what may
    /// be repeated without harm.
    pub async fn in_time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.deadline, call).await.unwrap_or_else(|_| Err(Failure::Late.of_a_read()))
    }

    /// As [`Links::in_time`], for a call that asks for a change.
    pub async fn written_in_time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.deadline, call).await.unwrap_or_else(|_| Err(Failure::Late.of_a_write()))
    }

    /// Here and in what it calls, what is rarely gone through is a box of its own, so that the future of the usual case,
    /// which each request has two of, stays small.
    async fn ask(&self, slot: Slot, way: Way<'_>, until: Instant) -> Result<Said, Failure> {
        match &self.servers {
            Servers::One { node, .. } => match attempt(node, way, false, until).await {
                // A replica refuses without doing anything. What is asked next is the master, if there is one by now.
                Err(failure) if failure.is_demoted() => {
                    let again = Box::pin(attempt(node, way, false, until));
                    match timeout_at(until, again).await.unwrap_or(Err(Failure::Late)) {
                        Err(Failure::NotSent(_)) => Err(failure),
                        answer => answer,
                    }
                }
                answer => answer,
            },
            Servers::Cluster(cluster) => Box::pin(self.ask_cluster(cluster, slot, way, until)).await,
        }
    }

    async fn ask_cluster(
        &self,
        cluster: &Arc<Cluster>,
        slot: Slot,
        way: Way<'_>,
        until: Instant,
    ) -> Result<Said, Failure> {
        match timeout_at(until, cluster.owner(slot)).await {
            Ok(owner) => self.ask_around(cluster, owner?, slot, way, until).await,
            Err(_) => Err(Failure::NotSent("the cluster does not tell its slots in time".into())),
        }
    }

    /// Asks the owner of the slot, and whoever it points at.
    async fn ask_around(
        &self,
        cluster: &Arc<Cluster>,
        mut node: Arc<Node>,
        slot: Slot,
        way: Way<'_>,
        until: Instant,
    ) -> Result<Said, Failure> {
        let (mut is_importing, mut pause, mut has_loaded) = (false, PAUSE_FIRST, false);
        loop {
            let failure = match attempt(&node, way, is_importing, until).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.is_late() {
                // It may have been replaced meanwhile, and whoever comes next need not find that out by waiting.
                learn_in_passing(cluster);
            }
            // One more attempt would end with nobody knowing what became of it.
            if until.saturating_duration_since(Instant::now()) < pause + LAST_MOMENT {
                return Err(failure);
            }
            is_importing = false;
            match failure.detour() {
                Some(Detour::Moved(address)) => {
                    cluster.moved(slot, &address, &node);
                    learn_in_passing(cluster);
                }
                Some(Detour::Importing(address)) => match way {
                    // Each for itself: some keys are here, and some are there.
                    Way::Shared(Question::Several(several)) | Way::Aside(Question::Several(several))
                        if !several.is_transaction() =>
                    {
                        return Box::pin(self.ask_each(slot, several, until)).await;
                    }
                    Way::Shared(_) | Way::Aside(_) | Way::Lane(_) => {
                        if let Some(there) = cluster.pointed_at(&address, &node) {
                            (node, is_importing) = (there, true);
                            continue;
                        }
                    }
                },
                Some(Detour::Halfway) => pause = rest(pause, until).await,
                Some(Detour::Down) => {
                    pause = rest(pause, until).await;
                    let _learned = timeout_at(until - LAST_MOMENT, cluster.learn()).await;
                    if Instant::now() + LAST_MOMENT >= until {
                        return Err(failure);
                    }
                }
                None if failure.is_function_missing() && self.migrate && !has_loaded => {
                    has_loaded = true;
                    let loading = timeout_at(until, load_functions(&node, migrate::sources()));
                    if !matches!(loading.await, Ok(Ok(()))) {
                        return Err(failure);
                    }
                    continue;
                }
                // It did nothing, and somebody else may have the slot by now.
                None if failure.is_demoted() || matches!(failure, Failure::NotSent(_)) => {
                    let _learned = timeout_at(until, cluster.learn()).await;
                    match cluster.known_owner(slot) {
                        Some(other) if !Arc::ptr_eq(&other, &node) => {}
                        _ => return Err(failure),
                    }
                }
                None => return Err(failure),
            }
            node = cluster.owner(slot).await?;
        }
    }

    async fn ask_each(&self, slot: Slot, several: &redis::Pipeline, until: Instant) -> Result<Said, Failure> {
        let mut answers = Vec::with_capacity(several.len());
        for one in several.cmd_iter() {
            answers.push(self.ask(slot, Way::Shared(Question::One(one)), until).await?.value);
        }
        Ok(Said { value: Value::Array(answers), origin: Origin::ANY })
    }
}

fn learn_in_passing(cluster: &Arc<Cluster>) {
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move { cluster.learn().await });
}

/// Answers the next pause.
async fn rest(pause: Duration, until: Instant) -> Duration {
    let _in_time = timeout_at(until, sleep(pause)).await;
    (pause * 2).min(PAUSE_MAX)
}

async fn attempt(node: &Node, way: Way<'_>, is_importing: bool, until: Instant) -> Result<Said, Failure> {
    match way {
        Way::Shared(question) | Way::Aside(question) if is_importing => {
            Box::pin(node.ask_importing(question, until)).await
        }
        Way::Shared(question) => node.ask(question, until).await,
        Way::Aside(question) => {
            let asked = Box::pin(node.ask_aside(question));
            let value = timeout_at(until, asked).await.unwrap_or(Err(Failure::Late))?;
            Ok(Said { value, origin: Origin::ANY })
        }
        Way::Lane(asked) => match node.lanes() {
            Some(lanes) => Box::pin(lanes.ask(asked.clone(), is_importing, until)).await,
            None => Err(Failure::NotSent("this server has no lanes".into())),
        },
    }
}
