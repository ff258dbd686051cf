//! One stream of a connection: takes a session, sends its next message, puts the session back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use tokio::time::{Instant, sleep};

use super::Plan;
use super::link::{Answer, Fault, Link, Sender};
use super::message::{Message, Operation, check, check_copy};
use super::pace::{Pace, Turn};
use super::session::{Exchange, Pool, Session};
use super::tally::{Outcome, Tally};
use crate::clock::{Clock, SystemClock};

/// After a failure outside an open loop, so that a target that refuses everything is not hammered.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a message beside the measured time is tried.
const ATTEMPTS: u32 = 50;

pub(super) struct Consumer {
    plan: Arc<Plan>,
    link: Arc<Link>,
    sender: Option<Sender>,
    /// What the streams of one thread share.
    pool: Arc<Mutex<Pool>>,
    tally: Arc<Mutex<Tally>>,
}

impl Consumer {
    pub(super) fn new(plan: Arc<Plan>, link: Arc<Link>, pool: Arc<Mutex<Pool>>, tally: Arc<Mutex<Tally>>) -> Self {
        Self { plan, link, sender: None, pool, tally }
    }

    /// Opens sessions as the scenario needs them, plays as long as there is time and sessions are left, and releases
    /// what is open then, so that a run leaves no reservations behind.
    pub(super) async fn run(mut self) {
        if self.plan.scenario.opens_first() {
            self.open().await;
        }
        self.plan.opened.wait().await;
        self.plan.begun.wait().await;
        self.play().await;
        self.release().await;
    }

    async fn open(&mut self) {
        while !self.plan.has_failed()
            && let Some(session) = self.take_fresh()
        {
            match self.insist(&session, Operation::Create).await {
                Ok(exchange) => {
                    let open = self.plan.script.answered(session, exchange);
                    self.pool().put_back(open);
                    self.plan.progress.opened();
                }
                Err(fault) => self.plan.fail(format!("no session can be opened: {fault}")),
            }
        }
    }

    async fn play(&mut self) {
        let Some(times) = self.plan.times() else { return };
        while let Some(turn) = self.plan.pace.turn(&times).await
            && let Some(session) = self.take()
        {
            let next = self.play_turn(&turn, session).await;
            self.pool().put_back(next);
        }
    }

    /// Sends the next message of a session and counts what became of it.
    async fn play_turn(&mut self, turn: &Turn, session: Session) -> Option<Session> {
        let operation = self.plan.script.operation(&session);
        let result = self.exchange(&session, operation).await;
        let answered = Instant::now();
        let (outcome, next, is_right) = match result {
            Ok(exchange) => (Outcome::Answered(operation), self.plan.script.answered(session, exchange), true),
            // Nothing was done: the same message may come again.
            Err(Fault::Refused) => (Outcome::Refused, Some(session), false),
            Err(fault) => {
                let kind = format!("{}: {fault}", operation.name());
                (Outcome::Failed(kind), self.plan.script.failed(session), false)
            }
        };
        self.count(turn, answered, outcome);
        if !is_right && matches!(self.plan.pace, Pace::Closed) {
            sleep(PAUSE).await;
        }
        next
    }

    /// In an open loop all messages count that were due in the measured time, else all that were answered in it.
    fn count(&self, turn: &Turn, answered: Instant, outcome: Outcome) {
        let Some(times) = self.plan.times() else { return };
        let at = if matches!(self.plan.pace, Pace::Closed) { answered } else { turn.due };
        if times.measure(at) {
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.count(&times, at, outcome, answered - turn.due, turn.waited);
            if let Some(lag) = turn.lag {
                tally.lagged(lag);
            }
        }
    }

    async fn release(&mut self) {
        while let Some(session) = self.take_open() {
            if session.is_open() {
                let released = self.insist(&session, Operation::Release).await;
                self.plan.progress.released(released.is_ok());
            }
        }
    }

    /// Sends a message again where it was refused or lost.
    async fn insist(&mut self, session: &Session, operation: Operation) -> Result<Exchange, Fault> {
        let mut attempts = 1;
        loop {
            match self.exchange(session, operation).await {
                Err(Fault::Refused | Fault::Lost | Fault::Connect(_)) if attempts < ATTEMPTS => attempts += 1,
                result => return result,
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends one message of a session and checks the answer.
    async fn exchange(&mut self, session: &Session, operation: Operation) -> Result<Exchange, Fault> {
        if let (Operation::Copy, Some(of)) = (operation, session.to_be_copied()) {
            let answer = self.ask(&of.path, of.request.clone()).await?;
            check_copy(&answer, of)?;
            return Ok(Exchange { operation, ..of.clone() });
        }
        let number = session.number();
        let path = session.path_of(operation);
        let message = Message {
            operation,
            number,
            session: session.id,
            began: session.began,
            subscriber: self.plan.subscribers.of_session(session.id),
            now: SystemClock.now(),
            notify_uri: &self.plan.notify_uri,
        };
        let request = Bytes::from(message.render());
        let answer = self.ask(&path, request.clone()).await?;
        let created = check(&answer, operation, number)?;
        Ok(Exchange { operation, path, request, created, answer: answer.body })
    }

    /// Everything is asked for at the target, whatever host a Location names: behind a proxy these differ.
    async fn ask(&mut self, path: &str, body: Bytes) -> Result<Answer, Fault> {
        let request = Request::post(format!("{}{path}", self.plan.target.root))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            // A Location that is no URL leads here.
            .map_err(|_| Fault::NoLocation)?;
        self.link.ask(&mut self.sender, request).await
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Each in a step of its own, so that no lock is held while something is awaited.

    fn take(&self) -> Option<Session> {
        self.pool().take(SystemClock.now())
    }

    fn take_fresh(&self) -> Option<Session> {
        self.pool().take_fresh(SystemClock.now())
    }

    fn take_open(&self) -> Option<Session> {
        self.pool().take_open()
    }
}
