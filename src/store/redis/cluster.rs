//! Which master of a cluster has which slot, learned from the cluster itself.
//!
//! What is known may be out of date at any time; the servers say so (`MOVED`, `ASK`), and whoever is told goes where it
//! was pointed. The whole is learned anew when a server cannot be reached or points elsewhere: several are asked at once
//! and of those that answer the one with the latest epoch counts, so that a server that was cut off does not decide.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, Value, cmd};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::Failure;
use super::keys::{SLOTS, Slot};
use super::lane::Promise;
use super::node::{ATTEMPT_PAUSE, Node, Place, Question};
use super::wire::Wire;
use super::{Settings, reply};
use crate::store::partition::KeyedHash;

/// So many servers are asked for the slots at once: enough that most of them are right, few enough for a large cluster.
const ASKED_MAX: usize = 5;

pub struct Cluster {
    settings: Settings,
    wire: Wire,
    seeds: Vec<ConnectionInfo>,
    promise: Promise,
    map: Mutex<Map>,
    /// Held by whoever learns.
    learning: tokio::sync::Mutex<Option<Learned>>,
}

/// When the last attempt to learn ended, and how.
struct Learned {
    at: Instant,
    outcome: Result<(), Box<str>>,
}

#[derive(Default)]
struct Map {
    /// By host and port.
    nodes: BTreeMap<Box<str>, Arc<Node>>,
    /// Empty until something was learned; then one for each slot.
    owners: Vec<Option<Arc<Node>>>,
    /// Whom to ask next.
    turn: usize,
}

/// What a server says of the cluster.
struct Said {
    epoch: u64,
    /// First and last slot, host and port of the master.
    ranges: Vec<(u16, u16, String, u16)>,
}

impl Cluster {
    /// Connects nothing yet. `seeds` are some servers of the cluster, at least one.
    pub fn new(seeds: Vec<ConnectionInfo>, settings: &Settings, wire: Wire, promise: Promise) -> Self {
        let learning = tokio::sync::Mutex::default();
        Self { settings: settings.clone(), wire, seeds, promise, map: Mutex::default(), learning }
    }

    /// The master that has the slot, as far as is known.
    pub async fn owner(&self, slot: Slot) -> Result<Arc<Node>, Failure> {
        if let Some(node) = self.known_owner(slot) {
            return Ok(node);
        }
        self.learn().await.map_err(Failure::NotSent)?;
        self.known_owner(slot).ok_or_else(|| Failure::NotSent(format!("slot {} has no master", slot.0).into()))
    }

    pub fn known_owner(&self, slot: Slot) -> Option<Arc<Node>> {
        self.map().owners.get(usize::from(slot.0)).cloned().flatten()
    }

    /// All masters that have slots, in the order of their addresses, and a number that is another when any slot has
    /// another master. Fails while a slot has none.
    pub fn masters(&self) -> Result<(Vec<Arc<Node>>, u64), Box<str>> {
        let map = self.map();
        let mut hash = KeyedHash::new(&[0; 16], "slots");
        let mut masters = Vec::<Arc<Node>>::new();
        if map.owners.is_empty() {
            return Err("nothing is known of the cluster".into());
        }
        for (slot, owner) in map.owners.iter().enumerate() {
            let owner = owner.as_ref().ok_or_else(|| format!("slot {slot} has no master"))?;
            hash.add(owner.name().as_bytes());
            if !masters.iter().any(|master| Arc::ptr_eq(master, owner)) {
                masters.push(Arc::clone(owner));
            }
        }
        masters.sort_by(|one, other| one.name().cmp(other.name()));
        Ok((masters, hash.finish64()))
    }

    /// The slot has moved to this address, by the word of who had it.
    pub fn moved(&self, slot: Slot, address: &str, said_by: &Node) {
        let Some(node) = self.pointed_at(address, said_by) else { return };
        if let Some(owner) = self.map().owners.get_mut(usize::from(slot.0)) {
            *owner = Some(node);
        }
    }

    /// A server of the cluster by its address. Where the host is missing it is the one that said so.
    pub fn pointed_at(&self, address: &str, said_by: &Node) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        let same_host = said_by.name().rsplit_once(':').map_or("", |(host, _)| host);
        Some(self.map().node(if host.is_empty() { same_host } else { host }, port.parse().ok()?, self))
    }

    /// Learns anew which master has which slot, unless somebody has done so just now.
    pub async fn learn(&self) -> Result<(), Box<str>> {
        let asked = Instant::now();
        let mut last = self.learning.lock().await;
        if let Some(Learned { at, outcome }) = &*last
            && (*at > asked || at.elapsed() < ATTEMPT_PAUSE)
        {
            return outcome.clone();
        }
        let outcome = self.ask_around().await;
        *last = Some(Learned { at: Instant::now(), outcome: outcome.clone() });
        outcome
    }

    async fn ask_around(&self) -> Result<(), Box<str>> {
        let patience = self.settings.connect_timeout;
        let until = Instant::now() + patience;
        let mut asked = JoinSet::new();
        for info in self.whom_to_ask() {
            asked.spawn(timeout(patience, ask(info, self.wire.clone())));
        }
        let (count, mut heard) = (asked.len(), 0);
        let (mut latest, mut failure) = (None::<Said>, None);
        while heard <= count / 2 {
            let Ok(Some(answer)) = timeout_at(until, asked.join_next()).await else { break };
            match answer {
                Ok(Ok(Ok(said))) => {
                    heard += 1;
                    latest = latest.filter(|latest| latest.epoch >= said.epoch).or(Some(said));
                }
                Ok(Ok(Err(error))) => failure = Some(error),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let Some(said) = latest else {
            let reason = failure.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
            return Err(format!("no server of the cluster tells its slots: {reason}").into());
        };
        self.map().replace(said, self);
        Ok(())
    }

    /// Masters that are known and seeds, in turn.
    fn whom_to_ask(&self) -> Vec<ConnectionInfo> {
        let mut map = self.map();
        let mut known: Vec<_> = self.seeds.iter().map(|seed| seed.addr().to_string().into_boxed_str()).collect();
        known.extend(map.nodes.keys().cloned());
        known.sort_unstable();
        known.dedup();
        map.turn = map.turn.wrapping_add(1) % known.len();
        let from = map.turn;
        known.rotate_left(from);
        let asked = known.into_iter().take(ASKED_MAX);
        asked
            .filter_map(|name| {
                let (host, port) = name.rsplit_once(':')?;
                Some(self.info(host, port.parse().ok()?))
            })
            .collect()
    }

    /// How to connect to a server of the cluster: as to its seeds.
    fn info(&self, host: &str, port: u16) -> ConnectionInfo {
        self.seeds[0].clone().set_addr(ConnectionAddr::Tcp(host.to_owned(), port))
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn node(&mut self, host: &str, port: u16, of: &Cluster) -> Arc<Node> {
        let info = of.info(host, port);
        let name: Box<str> = info.addr().to_string().into();
        let new = || Arc::new(Node::new(Place::Here(info), &of.settings, of.wire.clone(), Some(of.promise.clone())));
        Arc::clone(self.nodes.entry(name).or_insert_with(new))
    }

    /// Connections to servers that are no masters any more end when nobody uses them.
    fn replace(&mut self, said: Said, of: &Cluster) {
        let mut owners = vec![None; usize::from(SLOTS)];
        for (first, last, host, port) in said.ranges {
            let node = self.node(&host, port, of);
            if let Some(slots) = owners.get_mut(usize::from(first)..=usize::from(last)) {
                slots.fill(Some(node));
            }
        }
        self.nodes.retain(|_, node| owners.iter().flatten().any(|owner| Arc::ptr_eq(owner, node)));
        self.owners = owners;
    }
}

async fn ask(server: ConnectionInfo, wire: Wire) -> Result<Said, RedisError> {
    let host = match server.addr() {
        ConnectionAddr::Tcp(host, _) => host.clone(),
        _ => String::new(),
    };
    let mut connection = wire.connect(server).await?;
    let info: String = cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
    let slots: Value = cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
    let unreadable = || RedisError::from((ErrorKind::UnexpectedReturnType, "a cluster of another shape"));
    let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:")?.trim().parse().ok());
    Ok(Said { epoch: epoch.ok_or_else(unreadable)?, ranges: ranges(slots, &host).ok_or_else(unreadable)? })
}

/// `CLUSTER SLOTS`: first and last slot, then the master and its replicas.
fn ranges(slots: Value, said_by: &str) -> Option<Vec<(u16, u16, String, u16)>> {
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let range = |range: Value| {
        let range = reply::array(range).ok()?;
        let [first, last, Value::Array(master), ..] = range.as_slice() else { return None };
        // A server that does not know how it is reached, or must not say.
        let host = master.first().cloned().and_then(|host| reply::text(host).ok()).filter(|host| !host.is_empty());
        let host = host.map_or_else(|| said_by.to_owned(), String::from);
        Some((number(first)?, number(last)?, host, number(master.get(1)?)?))
    };
    reply::array(slots).ok()?.into_iter().map(range).collect()
}

/// Loads the functions where they are missing: on a master that has joined without them.
pub async fn load_functions(node: &Node, sources: impl Iterator<Item = &'static str>) -> Result<(), Failure> {
    for source in sources {
        node.ask_aside(Question::One(cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(source))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_as_redis_tells_them() {
        let server = |host: Value, port| Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        let host = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let slots = Value::Array(vec![
            Value::Array(vec![Value::Int(0), Value::Int(9), server(host("one"), 1), server(host("two"), 2)]),
            Value::Array(vec![Value::Int(10), Value::Int(16383), server(Value::Nil, 3)]),
        ]);
        let expected = vec![(0, 9, "one".into(), 1), (10, 16383, "here".into(), 3)];
        assert_eq!(ranges(slots, "here"), Some(expected));
        assert_eq!(ranges(Value::Array(vec![Value::Int(0)]), "here"), None);
    }
}
