//! One consumer: a stream of a connection that opens, updates and releases one charging session after another.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, LOCATION};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Plan;
use super::message::{Message, Operation, Wrong, check};
use super::report::Tally;
use crate::clock::{Clock, SystemClock};

/// Real consumers give up after a few seconds; what takes longer counts as no answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Answers are some kilobytes; what is longer than this is not read.
const ANSWER_OCTETS_MAX: usize = 1024 * 1024;
/// After a failure, so that a target that refuses everything is not hammered.
const PAUSE: Duration = Duration::from_millis(20);

const CHARGING_DATA: &str = "/nchf-convergedcharging/v3/chargingdata";

/// A connection that several consumers share and whoever finds it closed opens again.
pub(super) struct Link {
    authority: String,
    sender: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Link {
    pub(super) fn new(authority: String) -> Self {
        Self { authority, sender: Mutex::new(None) }
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, Fault> {
        let mut shared = self.sender.lock().await;
        match &*shared {
            Some(sender) if !sender.is_closed() => Ok(sender.clone()),
            _ => {
                let sender = connect(&self.authority).await?;
                Ok(shared.insert(sender).clone())
            }
        }
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, Fault> {
    let socket = TcpStream::connect(authority).await.map_err(Fault::Connect)?;
    socket.set_nodelay(true).map_err(Fault::Connect)?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await;
    let (sender, connection) = handshake.map_err(|_| Fault::Lost)?;
    tokio::spawn(async move {
        // The consumers on it see the error too, and count it.
        let _ended = connection.await;
    });
    Ok(sender)
}

/// Why a request did not get the answer it should have.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot connect: {}", .0.kind())]
    Connect(io::Error),
    #[error("connection or stream ended before the answer")]
    Lost,
    #[error("no answer within {} s", ANSWER_DEADLINE.as_secs())]
    TimedOut,
    #[error("status {0}")]
    Status(StatusCode),
    #[error("created without a Location")]
    NoLocation,
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

pub(super) struct Consumer {
    plan: Arc<Plan>,
    link: Arc<Link>,
    sender: Option<SendRequest<Full<Bytes>>>,
    tally: Arc<std::sync::Mutex<Tally>>,
}

impl Consumer {
    /// `tally` is what all consumers of a thread count in: one for each would be more memory than caches hold.
    pub(super) fn new(plan: Arc<Plan>, link: Arc<Link>, tally: Arc<std::sync::Mutex<Tally>>) -> Self {
        Self { plan, link, sender: None, tally }
    }

    /// Until the time or the sessions are used up.
    pub(super) async fn play(mut self) {
        while let Some(session) = self.plan.next_session() {
            self.play_session(session).await;
        }
    }

    async fn play_session(&mut self, session: u64) {
        let url = format!("{}{CHARGING_DATA}", self.plan.target.root);
        let Some(location) = self.exchange(&url, session, Operation::Create, 0).await else { return };
        let url = self.resource(&location);
        let mut number = 0;
        while number < self.plan.updates && self.plan.is_measured_time() {
            number += 1;
            self.exchange(&format!("{url}/update"), session, Operation::Update, number).await;
        }
        self.exchange(&format!("{url}/release"), session, Operation::Release, number + 1).await;
    }

    /// The resource is asked for at the target, whatever host its Location names: behind a proxy these differ.
    fn resource(&self, location: &str) -> String {
        let path = location.find(CHARGING_DATA).map_or(location, |start| &location[start..]);
        format!("{}{path}", self.plan.target.root)
    }

    /// One request and its answer, counted if the measured time is not over. `Some` if the answer is right: the Location
    /// of a Create, otherwise an empty text.
    async fn exchange(&mut self, url: &str, session: u64, operation: Operation, number: u32) -> Option<String> {
        let message = Message {
            operation,
            number,
            session,
            subscriber: self.plan.subscribers.of_session(session),
            now: SystemClock.now(),
            notify_uri: &self.plan.notify_uri,
        };
        let body = Bytes::from(message.render());
        let began = Instant::now();
        let answer = timeout(ANSWER_DEADLINE, self.ask(url, body, operation, number)).await;
        let answer = answer.unwrap_or(Err(Fault::TimedOut));
        let measured = self.plan.is_measured_time();
        match answer {
            Ok(location) => {
                if measured {
                    self.count(|tally| tally.answered(operation, began.elapsed()));
                }
                Some(location)
            }
            Err(fault) => {
                if measured {
                    self.count(|tally| tally.failed(format!("{}: {fault}", operation.name())));
                }
                sleep(PAUSE).await;
                None
            }
        }
    }

    fn count(&self, what: impl FnOnce(&mut Tally)) {
        what(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn ask(&mut self, url: &str, body: Bytes, operation: Operation, number: u32) -> Result<String, Fault> {
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            // A Location that is no URL leads here.
            .map_err(|_| Fault::NoLocation)?;
        let sender = match &mut self.sender {
            Some(sender) if !sender.is_closed() => sender,
            mine => mine.insert(self.link.sender().await?),
        };
        let response = sender.send_request(request).await.map_err(|_| Fault::Lost)?;
        let (status, location) = (response.status(), location(&response));
        let body = Limited::new(response.into_body(), ANSWER_OCTETS_MAX).collect().await;
        let body = body.map_err(|_| Fault::Lost)?.to_bytes();

        if status != operation.expected_status() {
            return Err(Fault::Status(status));
        }
        match operation {
            Operation::Create => {
                check(&body, number)?;
                location.ok_or(Fault::NoLocation)
            }
            Operation::Update => Ok(check(&body, number).map(|()| String::new())?),
            Operation::Release => Ok(String::new()),
        }
    }
}

fn location<B>(response: &Response<B>) -> Option<String> {
    Some(response.headers().get(LOCATION)?.to_str().ok()?.to_owned())
}
