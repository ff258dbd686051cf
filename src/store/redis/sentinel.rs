//! Finds the master that the sentinels of a name have agreed on, and says which of its replicas could follow it.
//!
//! All sentinels are asked at once and most of them are waited for, so that one that is dead or cut off neither costs
//! time nor decides. Of different answers the one of the latest failover counts. What is found says itself that it is a
//! master before it is used; a master that was replaced and does not know it yet is found out when it hears so, or when
//! its replicas do not confirm a change and the sentinels name another one.
//!
//! The sentinel that carries out a failover describes the old master until all replicas follow the new one, a second and
//! more, although the epoch is the new one already. Where clients have to go it says when it is asked for just that; then
//! the old master is one of the replicas, and the new one is not.
//!
//! A replica that most sentinels cannot reach, or that says itself that it has no connection to this master, does not
//! become the master before one that has all that was answered: of those that can be reached the sentinels choose the
//! one with the longest history. So nobody has to wait for it. Without that every failover would last until the old
//! master is a replica again, which the sentinels see to after some ten seconds. What a sentinel says of a replica's
//! own view may be as old; and one that was just promoted, or follows such a one, must not be taken for one that strays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisConnectionInfo, RedisError, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::history::Replication;
use super::reply;
use super::wire::Wire;

/// The sentinels of one master.
#[derive(Clone)]
pub struct Sentinels {
    sentinels: Vec<ConnectionInfo>,
    name: Box<str>,
    session: RedisConnectionInfo,
    patience: Duration,
    wire: Wire,
    /// Of all who use these sentinels together.
    losses: Arc<Mutex<Losses>>,
}

/// What a sentinel says of a master.
struct Said {
    host: String,
    port: u16,
    /// Grows with every failover.
    epoch: u64,
    /// It does not describe the master before any more.
    is_settled: bool,
    replicas: Vec<Replica>,
}

/// What a sentinel says of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replica {
    host: String,
    port: u16,
    is_down: bool,
    /// The lower, the sooner it is promoted; 0 for never.
    priority: u32,
}

/// A replica that nobody has to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Host and port.
    pub address: Box<str>,
    /// Cannot be reached, even if the master may not know yet.
    pub is_down: bool,
}

/// Whose replicas are lost.
#[derive(Default)]
struct Losses {
    /// Host and port of the master.
    master: String,
    /// Another one is named in its place.
    is_replaced: bool,
    lost: Arc<[Lost]>,
    /// `None` when somebody doubts it.
    learned: Option<Instant>,
}

/// How long one that is lost stays so without being asked after: well below the time after which a server that is
/// silent is replaced.
const LOST_FOR: Duration = Duration::from_millis(250);

/// What the sentinels say.
pub struct Master {
    pub at: ConnectionInfo,
    /// All replicas that they know, and whether most of them can reach it.
    replicas: Vec<Replica>,
}

impl Master {
    /// How many replicas they know, reachable or not.
    pub fn replicas(&self) -> u32 {
        u32::try_from(self.replicas.len()).unwrap_or(u32::MAX)
    }
}

impl Sentinels {
    /// `patience`: how long the ones that do not answer are waited for.
    pub fn new(
        sentinels: Vec<ConnectionInfo>,
        name: Box<str>,
        session: RedisConnectionInfo,
        patience: Duration,
        wire: Wire,
    ) -> Self {
        Self { sentinels, name, session, patience, wire, losses: Arc::default() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the master is, by the latest failover that most of the sentinels know of, or those that answer. A round
    /// trip, connections included.
    pub async fn master(&self) -> Result<Master, RedisError> {
        let until = Instant::now() + self.patience;
        let mut asked = JoinSet::new();
        for sentinel in &self.sentinels {
            asked.spawn(timeout(self.patience, self.clone().ask(sentinel.clone())));
        }
        let (mut heard, mut failure) = (Vec::<Said>::new(), None);
        while heard.len() <= self.sentinels.len() / 2 {
            let Ok(Some(answer)) = timeout_at(until, asked.join_next()).await else { break };
            match answer {
                Ok(Ok(Ok(said))) => heard.push(said),
                Ok(Ok(Err(error))) => failure = Some(error),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let Some(latest) = heard.iter().rev().max_by_key(|said| (said.epoch, said.is_settled)) else {
            let reason = failure.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
            return Err(unknown(format!("no sentinel knows the master {}: {reason}", self.name)));
        };
        let replicas = by_most(latest, &heard, self.sentinels.len());
        Ok(Master { at: self.at(&latest.host, latest.port), replicas })
    }

    async fn ask(self, sentinel: ConnectionInfo) -> Result<Said, RedisError> {
        let mut answer = self.ask_once(sentinel.clone()).await;
        // Its password, if it has one, is that of the master.
        if answer.as_ref().is_err_and(|error| error.code() == Some("NOAUTH")) && self.session.password().is_some() {
            let session = self.session.clone().set_db(0);
            answer = self.ask_once(sentinel.set_redis_settings(session)).await;
        }
        said(answer?).ok_or_else(|| unknown("a sentinel's answer is of another shape".into()))
    }

    async fn ask_once(&self, sentinel: ConnectionInfo) -> Result<Value, RedisError> {
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("MASTER").arg(&*self.name);
        question.cmd("SENTINEL").arg("REPLICAS").arg(&*self.name);
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&*self.name);
        question.query_async(&mut self.wire.connect(sentinel).await?).await
    }

    /// The replicas of this master that are lost, if the sentinels say that it is the one. Costs nothing while nobody
    /// doubts that there are none.
    pub async fn lost(&self, master: &str, history: &str) -> Arc<[Lost]> {
        let is_known = {
            let known = self.losses();
            let is_fresh = |learned: Instant| known.lost.is_empty() || learned.elapsed() < LOST_FOR;
            known.master == master && known.learned.is_some_and(is_fresh)
        };
        if !is_known {
            // Where nobody can be asked, none is.
            let lost = self.learn_lost(master, history).await.unwrap_or_else(|_| Some(Vec::new()));
            let (is_replaced, lost) = (lost.is_none(), lost.unwrap_or_default().into());
            *self.losses() = Losses { master: master.to_owned(), is_replaced, lost, learned: Some(Instant::now()) };
        }
        Arc::clone(&self.losses().lost)
    }

    /// Whether another one was named when this master's replicas were asked after.
    pub fn is_replaced(&self, master: &str) -> bool {
        let known = self.losses();
        known.master == master && known.is_replaced
    }

    /// A replica did not have something in time: whether it is lost is asked anew.
    pub fn doubt(&self) {
        self.losses().learned = None;
    }

    /// `None` if they name another master.
    async fn learn_lost(&self, master: &str, history: &str) -> Result<Option<Vec<Lost>>, RedisError> {
        let found = self.master().await?;
        if found.at.addr().to_string() != master {
            return Ok(None);
        }
        let (mut lost, mut following) = (Vec::new(), Vec::new());
        for replica in found.replicas {
            if replica.is_down || self.strays(&replica, master, history).await {
                lost.push(replica);
            } else {
                following.push(replica);
            }
        }
        // The one that is preferred least of those that may have everything; whoever is preferred to it is waited for.
        let last = following.iter().map(|replica| replica.priority).max().unwrap_or_default();
        lost.retain(|replica| replica.priority == 0 || replica.priority >= last);
        let address = |replica: &Replica| format!("{}:{}", replica.host, replica.port).into();
        let lost = lost.iter().map(|replica| Lost { address: address(replica), is_down: replica.is_down });
        Ok(Some(lost.collect()))
    }

    async fn strays(&self, replica: &Replica, master: &str, history: &str) -> bool {
        let at = self.at(&replica.host, replica.port);
        let asked = timeout(self.patience, async { Replication::of(&mut self.wire.connect(at).await?).await });
        matches!(asked.await, Ok(Ok(found)) if found.strays_from(master, history))
    }

    /// How to connect to a server that they name.
    fn at(&self, host: &str, port: u16) -> ConnectionInfo {
        let at = self.sentinels[0].clone().set_addr(ConnectionAddr::Tcp(host.to_owned(), port));
        at.set_redis_settings(self.session.clone())
    }

    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The replicas of a master, down if most of all sentinels say so.
fn by_most(latest: &Said, heard: &[Said], sentinels: usize) -> Vec<Replica> {
    let agree = |said: &&Said| said.epoch == latest.epoch && (&said.host, said.port) == (&latest.host, latest.port);
    let is_down = |replica: &Replica| {
        let is_same = |other: &Replica| (&other.host, other.port) == (&replica.host, replica.port);
        let says_so = |said: &&Said| said.replicas.iter().any(|other| other.is_down && is_same(other));
        heard.iter().filter(agree).filter(says_so).count() > sentinels / 2
    };
    latest.replicas.iter().map(|replica| Replica { is_down: is_down(replica), ..replica.clone() }).collect()
}

/// Whether a server that was just connected to is a master, by its own word.
pub fn is_master(found: &Replication) -> Result<(), RedisError> {
    if found.is_master { Ok(()) } else { Err(unknown("where the master should be is a replica".into())) }
}

fn said(answer: Value) -> Option<Said> {
    let mut answers = reply::array(answer).ok()?.into_iter();
    let mut master = named(answers.next()?)?;
    let mut replicas = reply::array(answers.next()?).ok()?.into_iter().map(replica).collect::<Option<Vec<_>>>()?;
    let mut address = reply::array(answers.next()?).ok()?.into_iter();
    let host = String::from(reply::text(address.next()?).ok()?);
    let port = reply::text(address.next()?).ok()?.parse().ok()?;
    let epoch = master.remove("config-epoch")?.parse().ok()?;
    let described = Replica {
        is_down: is_down(&master.remove("flags")?),
        host: master.remove("ip")?,
        port: master.remove("port")?.parse().ok()?,
        // Unknown of a master: as if it were preferred to all others.
        priority: 1,
    };
    let is_settled = (&described.host, described.port) == (&host, port);
    if !is_settled {
        replicas.retain(|replica| (&replica.host, replica.port) != (&host, port));
        replicas.push(described);
    }
    Some(Said { host, port, epoch, is_settled, replicas })
}

fn replica(answer: Value) -> Option<Replica> {
    let mut replica = named(answer)?;
    Some(Replica {
        is_down: is_down(&replica.remove("flags")?),
        host: replica.remove("ip")?,
        port: replica.remove("port")?.parse().ok()?,
        priority: replica.remove("slave-priority")?.parse().ok()?,
    })
}

fn is_down(flags: &str) -> bool {
    flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down"))
}

/// Names and values by turns.
fn named(answer: Value) -> Option<HashMap<String, String>> {
    let mut texts = reply::array(answer).ok()?.into_iter().map(|text| reply::text(text).ok().map(String::from));
    let mut named = HashMap::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        named.insert(name?, value?);
    }
    Some(named)
}

fn unknown(sentence: String) -> RedisError {
    RedisError::from((ErrorKind::Io, "not found", sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_down_when_most_of_all_sentinels_say_so() {
        let replica = |port, is_down| Replica { host: "there".to_owned(), port, is_down, priority: 100 };
        let says = |is_down| Said {
            host: "here".to_owned(),
            port: 1,
            epoch: 2,
            is_settled: true,
            replicas: vec![replica(1, false), replica(2, is_down)],
        };
        let is_down = |heard: &[Said], sentinels| {
            let replicas = by_most(&heard[0], heard, sentinels);
            assert!(!replicas[0].is_down && replicas.len() == 2);
            replicas[1].is_down
        };
        assert!(!is_down(&[says(false), says(false)], 3));
        assert!(!is_down(&[says(true), says(false)], 3));
        assert!(is_down(&[says(true), says(true)], 3));
        assert!(is_down(&[says(true)], 1));
        // Whoever speaks of another master says nothing of this one.
        assert!(!is_down(&[says(true), Said { epoch: 1, ..says(true) }], 3));
        assert!(!is_down(&[says(true), Said { port: 2, ..says(true) }], 3));
    }

    #[test]
    fn whoever_carries_out_a_failover_counts_the_old_master_among_the_replicas() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let texts = |line: &str| Value::Array(line.split(' ').map(text).collect());
        let says = |flags: &str, master: u16, other: u16, leads_to: u16| {
            said(Value::Array(vec![
                texts(&format!("ip here port {master} flags {flags} config-epoch 7")),
                Value::Array(vec![
                    texts(&format!("ip here port {other} flags slave slave-priority 100")),
                    texts("ip here port 3 flags slave slave-priority 100"),
                ]),
                texts(&format!("here {leads_to}")),
            ]))
            .unwrap()
        };
        let replica = |port, is_down, priority| Replica { host: "here".to_owned(), port, is_down, priority };
        let before = says("master,s_down,o_down", 1, 2, 1);
        assert!(before.is_settled && before.replicas == [replica(2, false, 100), replica(3, false, 100)]);
        let meanwhile = says("master,s_down,o_down,failover_in_progress", 1, 2, 2);
        assert_eq!((meanwhile.port, meanwhile.is_settled), (2, false));
        assert_eq!(meanwhile.replicas, [replica(3, false, 100), replica(1, true, 1)]);
        // Its word counts, and the priority is that of whoever knows it.
        let follower = || Said { replicas: vec![replica(1, true, 100)], ..says("master", 2, 1, 2) };
        assert_eq!(by_most(&follower(), &[meanwhile, follower()], 3), [replica(1, true, 100)]);
    }
}
