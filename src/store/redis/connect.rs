//! The only place that knows where Redis is and how to reach it.
//!
//! Everything here belongs to the runtime that opened it: the tasks that drive the connections live there.

use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::Settings;
use super::address::Address;
use super::failure::Failure;
use super::node::{Node, Place, Question};
use super::sentinel::Sentinels;
use crate::store::{Applied, Error};

/// The connections of one store.
pub struct Links {
    node: Node,
    deadline: Duration,
}

impl Links {
    /// Connects nothing yet; belongs to the runtime it is called on.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let place = match Address::parse(&settings.url) {
            Some(Address::Single(info)) => Place::Here(info),
            Some(Address::Sentinel { sentinels, name, session }) => {
                // The other half is for connecting to what they name.
                Place::Found(Sentinels::new(sentinels, name, session, settings.connect_timeout / 2))
            }
            None => return Err(Error::unavailable(Applied::No, "the store's address is of no known form")),
        };
        Ok(Self { node: Node::new(place, settings), deadline: settings.deadline })
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
