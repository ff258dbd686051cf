//! The only place that knows where Redis is and how to reach it.
//!
//! Everything here belongs to the runtime that opened it: the tasks that drive the connections live there.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::Settings;
use super::address::Address;
use super::failure::Failure;
use super::history::Histories;
use super::lane::{Asked, Lanes, Promise};
use super::node::{Node, Place, Question};
use super::sentinel::Sentinels;
use crate::store::{Applied, Durability, Error};

/// The connections of one store.
pub struct Links {
    node: Node,
    sentinels: Option<Sentinels>,
    deadline: Duration,
    /// Replicas that a change waits for.
    replicas: u32,
}

impl Links {
    /// Connects nothing yet; belongs to the runtime it is called on.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let promise = || Promise {
            durability: settings.durability,
            replicas: if settings.durability == Durability::Replicated { settings.replicas } else { 0 },
            histories: Arc::new(Histories::new(Arc::clone(&settings.losses))),
        };
        let (place, sentinels, promise) = match Address::parse(&settings.url) {
            Some(Address::Single(info)) => (Place::Here(info), None, None),
            Some(Address::Sentinel { sentinels, name, session }) => {
                // The other half is for connecting to what they name.
                let sentinels = Sentinels::new(sentinels, name, session, settings.connect_timeout / 2);
                (Place::Found(sentinels.clone()), Some(sentinels), Some(promise()))
            }
            None => return Err(Error::unavailable(Applied::No, "the store's address is of no known form")),
        };
        let replicas = promise.as_ref().map_or(0, |promise| promise.replicas);
        Ok(Self { node: Node::new(place, settings, promise), sentinels, deadline: settings.deadline, replicas })
    }

    /// Replicas that must have a change before it is answered; 0 where none is waited for.
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// How many replicas the sentinels know, where there are sentinels.
    pub async fn known_replicas(&self) -> Result<Option<u32>, Error> {
        let Some(sentinels) = &self.sentinels else { return Ok(None) };
        let master = sentinels.master().await;
        master.map(|master| Some(master.replicas)).map_err(|error| Error::unavailable(Applied::No, error))
    }

    /// Asks something that changes nothing; asked once more if the connection was lost. One round trip.
    pub async fn read(&self, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let question = question.into();
        let until = Instant::now() + self.deadline;
        let answer = match self.node.ask(question, until).await {
            Err(failure) if failure.is_lost() || failure.is_demoted() => self.again(question, until).await,
            answer => answer,
        };
        answer.map_err(Failure::of_a_read)
    }

    /// Asks for a change, never twice unless it was refused: whether a lost one was made is for the caller to find
    /// out. One round trip.
    pub async fn write(&self, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let question = question.into();
        let until = Instant::now() + self.deadline;
        let answer = match self.node.ask(question, until).await {
            // A replica refuses without doing anything. What is asked next is the master, if there is one by now.
            Err(failure) if failure.is_demoted() => match self.again(question, until).await {
                Err(Failure::NotSent(_)) => Err(failure),
                answer => answer,
            },
            answer => answer,
        };
        answer.map_err(Failure::of_a_write)
    }

    /// Makes a change that is answered only when it survives what the durability says. As [`Links::write`] where that
    /// is for Redis alone to see to; in a batch with others where there are replicas.
    pub async fn commit(&self, call: Cmd) -> Result<Value, Error> {
        match self.node.lanes() {
            None => self.write(&call).await,
            Some(lanes) => self.in_lane(lanes, Asked::Change(call)).await.map_err(Failure::of_a_write),
        }
    }

    /// Asks something on whose answer others act outside of the store: what was read survives what the durability says.
    /// `touch` is a command that writes something, whatever it finds.
    pub async fn covered(&self, question: Cmd, touch: Cmd) -> Result<Value, Error> {
        match self.node.lanes() {
            Some(lanes) if self.replicas > 0 => {
                self.in_lane(lanes, Asked::Covered(question, touch)).await.map_err(Failure::of_a_read)
            }
            _ => self.aside(&question).await,
        }
    }

    async fn in_lane(&self, lanes: &Lanes, asked: Asked) -> Result<Value, Failure> {
        let until = Instant::now() + self.deadline;
        match lanes.ask(asked.clone(), false, until).await {
            Err(failure) if failure.is_demoted() => match lanes.ask(asked, false, until).await {
                Err(Failure::NotSent(_)) => Err(failure),
                answer => answer,
            },
            answer => answer,
        }
    }

    async fn again(&self, question: Question<'_>, until: Instant) -> Result<Value, Failure> {
        timeout_at(until, self.node.ask(question, until)).await.unwrap_or(Err(Failure::Late))
    }

    /// Asks something that may be repeated without harm, on a connection of its own.
    pub async fn aside(&self, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let until = Instant::now() + self.deadline;
        timeout_at(until, self.node.ask_aside(question.into()))
            .await
            .unwrap_or(Err(Failure::Late))
            .map_err(Failure::of_a_read)
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
}
