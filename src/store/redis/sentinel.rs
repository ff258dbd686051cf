//! Finds the master that the sentinels of a name have agreed on.
//!
//! All sentinels are asked at once and most of them are waited for, so that one that is dead or cut off neither costs
//! time nor decides. Of different answers the one of the latest failover counts. What is found says itself that it is a
//! master before it is used; a master that was replaced and does not know it yet is found out when it hears so.

use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisConnectionInfo, RedisError, Value, cmd};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::history::Replication;
use super::{reply, wire};
use crate::network::Network;

/// The sentinels of one master.
#[derive(Clone)]
pub struct Sentinels {
    sentinels: Vec<ConnectionInfo>,
    name: Box<str>,
    session: RedisConnectionInfo,
    patience: Duration,
    network: Option<Arc<dyn Network>>,
}

/// What a sentinel says of a master.
struct Said {
    host: String,
    port: u16,
    /// Grows with every failover.
    epoch: u64,
    replicas: u32,
}

/// What the sentinels say.
pub struct Master {
    pub at: ConnectionInfo,
    /// How many replicas they know, reachable or not.
    pub replicas: u32,
}

impl Sentinels {
    /// `patience`: how long the ones that do not answer are waited for.
    pub fn new(
        sentinels: Vec<ConnectionInfo>,
        name: Box<str>,
        session: RedisConnectionInfo,
        patience: Duration,
        network: Option<Arc<dyn Network>>,
    ) -> Self {
        Self { sentinels, name, session, patience, network }
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
        let (mut latest, mut heard, mut failure) = (None::<Said>, 0, None);
        while heard <= self.sentinels.len() / 2 {
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
        let Some(Said { host, port, replicas, .. }) = latest else {
            let reason = failure.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
            return Err(unknown(format!("no sentinel knows the master {}: {reason}", self.name)));
        };
        let sentinel = self.sentinels[0].clone();
        let at = sentinel.set_addr(ConnectionAddr::Tcp(host, port)).set_redis_settings(self.session.clone());
        Ok(Master { at, replicas })
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
        let mut connection = wire::connect(self.network.as_ref(), sentinel).await?;
        cmd("SENTINEL").arg("MASTER").arg(&*self.name).query_async(&mut connection).await
    }
}

/// Whether a server that was just connected to is a master, by its own word.
pub fn is_master(found: &Replication) -> Result<(), RedisError> {
    if found.is_master { Ok(()) } else { Err(unknown("where the master should be is a replica".into())) }
}

fn said(answer: Value) -> Option<Said> {
    let mut texts = reply::array(answer).ok()?.into_iter().map(reply::text);
    let (mut host, mut port, mut epoch, mut replicas) = (None, None, None, None);
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        let value = value.ok()?;
        match &*name.ok()? {
            "ip" => host = Some(String::from(value)),
            "port" => port = value.parse().ok(),
            "config-epoch" => epoch = value.parse().ok(),
            "num-slaves" => replicas = value.parse().ok(),
            _ => {}
        }
    }
    Some(Said { host: host?, port: port?, epoch: epoch?, replicas: replicas? })
}

fn unknown(sentence: String) -> RedisError {
    RedisError::from((ErrorKind::Io, "not found", sentence))
}
