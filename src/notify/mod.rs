//! Notifications to consumers: one POST to the `notifyUri` of a charging session, and what its answer means.
//!
//! A `notifyUri` is a stranger's word. Whoever may open a charging session may name any address in it, so this module
//! decides for each connection whether the address may be reached at all ([`policy`]), bounds what a call may cost in
//! time, octets and connections, and keeps a consumer that is dead or hostile from costing any other consumer anything.
//!
//! Invariants:
//!
//! - An address is resolved once for a connection, judged, and connected to as judged; a name is never resolved twice
//!   between the judgement and the connection. A redirection is a target like any other.
//! - A call ends within [`Settings::deadline`] of its start, and waits for its place no longer than that either.
//! - At most [`Settings::calls_per_target_max`] calls of one target are under way, and calls wait for their own
//!   target's place before they take one of all: those that wait for a dead target hold nothing others need.
//! - The body of an answer is never passed on; no error text and no log line holds a `notifyUri`, only its authority
//!   where the log is at `debug`.
//!
//! What it deliberately does not do: it keeps no queue and repeats nothing (entries stay in the outbox, [`retry`] says
//! until when), it knows no store and no session, and it speaks nothing but HTTP/2. Where to start reading:
//! [`Notifier::send`], then [`Outcome`].
//!
//! Connections are tasks of the runtime on which they are opened: use one notifier on one runtime.

mod breaker;
mod connect;
mod message;
mod outcome;
mod peers;
pub mod policy;
pub mod resolve;
pub mod retry;
mod settings;
mod target;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

pub use self::breaker::{Breaker, BreakerSettings, Verdict};
use self::connect::{Connector, NoConnection};
pub use self::message::Notification;
use self::message::Reply;
pub use self::outcome::{Denial, Failure, Outcome, Redirection};
use self::peers::{Peer, Peers};
use self::policy::Policy;
use self::resolve::{Resolve, SystemResolver};
use self::retry::Jitter;
pub use self::settings::Settings;
pub use self::target::{Origin, Target};
use crate::charging::time::Timestamp;
use crate::clock::Clock;
use crate::network::{Network, Tcp};
use crate::random::{Random, SystemRandom};
pub use crate::tls::{Identity, TlsError};

/// Feature 17 of TS 32.291 6.1.8 in a mask of features: redirections were negotiated.
pub const ES3XX: u64 = 1 << 16;

/// What to tell whom.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// As the consumer wrote it; the request goes to exactly this.
    pub notify_uri: &'a str,
    pub notification: &'a Notification,
    /// [`ES3XX`] was negotiated for the session: a redirection is followed, once.
    pub follows_redirections: bool,
}

/// Sends notifications. Many calls at once are its normal use.
pub struct Notifier {
    settings: Settings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    breaker: Mutex<Breaker>,
    peers: Peers,
}

/// What a notifier knows of the world.
pub struct Outside {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub resolver: Arc<dyn Resolve>,
    pub network: Arc<dyn Network>,
}

impl Outside {
    /// The system's names, network and random numbers.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let resolver = Arc::new(SystemResolver::default());
        Self { clock, random: Arc::new(SystemRandom), resolver, network: Arc::new(Tcp) }
    }
}

impl Notifier {
    /// # Errors
    ///
    /// A certificate file that cannot be used.
    pub fn new(settings: Settings, outside: Outside) -> Result<Self, TlsError> {
        let Outside { clock, random, resolver, network } = outside;
        let policy = Policy { allow: settings.allow.clone(), own: settings.own.clone() };
        let tls = crate::tls::connector(settings.ca.as_deref(), settings.identity.as_ref(), &[b"h2"])?;
        let connector = Connector { policy, resolver, network, tls, limits: settings.connection_limits() };
        Ok(Self {
            peers: Peers::new(&settings, connector),
            breaker: Mutex::new(Breaker::new(settings.breaker.clone())),
            clock,
            random,
            settings,
        })
    }

    /// Whether a call to this `notifyUri` would be made now; else when it is worth asking again. A worker asks before it
    /// loads anything, and leaves the entry where it is. What cannot be called at all is for `send` to say.
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub fn may_try(&self, notify_uri: &str, now: Timestamp) -> Result<(), Timestamp> {
        match Target::parse(notify_uri) {
            Some(target) => self.breaker().may_try(&target.origin, now),
            None => Ok(()),
        }
    }

    /// Connections that are open, for a gauge.
    pub fn connections(&self) -> usize {
        self.peers.connections()
    }

    /// Makes the call and says what it came to. Safe to repeat: consumers take a notification any number of times.
    pub async fn send(&self, call: &Call<'_>) -> Outcome {
        let Some(target) = Target::parse(call.notify_uri) else { return Outcome::Refused(Denial::Malformed) };
        let body = call.notification.render();
        let (reply, deadline) = self.attempt(&target, &body, None).await;
        let (location, permanent) = match reply {
            Reply::Outcome(outcome) => return outcome,
            Reply::Redirected { location, permanent } => (location, permanent),
        };
        let not_followed = |why| Outcome::failed(Failure::Redirection(why));
        if !call.follows_redirections {
            return not_followed(Redirection::NotNegotiated);
        }
        let Some(to) = location.and_then(|location| target.redirected(&location)) else {
            return not_followed(Redirection::NoLocation);
        };
        if target.origin.is_tls() && !to.origin.is_tls() {
            return not_followed(Redirection::Insecure);
        }
        match self.attempt(&to, &body, Some(deadline)).await.0 {
            Reply::Redirected { .. } => not_followed(Redirection::Again),
            Reply::Outcome(Outcome::Delivered) => Outcome::Moved { to, permanent },
            // The consumer's own address is fine, so its session is not lost: it may redirect elsewhere next time.
            Reply::Outcome(Outcome::Refused(denial)) => not_followed(Redirection::Denied(denial)),
            Reply::Outcome(outcome) => outcome,
        }
    }

    /// One request to one target. `deadline` is that of the call, when it has begun already; answers when it is.
    async fn attempt(&self, target: &Target, body: &Bytes, deadline: Option<Instant>) -> (Reply, Instant) {
        let origin = &target.origin;
        let patience = deadline.unwrap_or_else(|| Instant::now() + self.settings.deadline);
        let postponed = |until| (Reply::Outcome(Outcome::Postponed { until }), patience);
        // Asked before the wait, so that calls to a dead target do not queue up, and claimed after it.
        if let Err(until) = self.breaker().may_try(origin, self.clock.now()) {
            return postponed(until);
        }
        let peer = self.peers.peer(origin);
        let Ok(_place) = timeout_at(patience, self.peers.place(&peer)).await else {
            return postponed(self.clock.now().after(self.settings.breaker.first_pause));
        };
        if let Err(until) = self.breaker().claim(origin, self.clock.now()) {
            return postponed(until);
        }

        let deadline = deadline.unwrap_or_else(|| Instant::now() + self.settings.deadline);
        let reply = match timeout_at(deadline, self.exchange(&peer, target, body, deadline)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(NoConnection::Denied(denial))) => Reply::Outcome(Outcome::Refused(denial)),
            Ok(Err(NoConnection::Failed(reason))) => Reply::Outcome(Outcome::failed(reason)),
            Err(_) => Reply::Outcome(Outcome::failed(Failure::TimedOut)),
        };
        if let Reply::Outcome(Outcome::Failed { reason, .. }) = &reply {
            tracing::debug!(peer = %origin, %reason, "a notification failed");
        }
        self.breaker().learn(origin, reply.verdict(), self.clock.now(), Jitter::random(&*self.random));
        (reply, deadline)
    }

    async fn exchange(
        &self,
        peer: &Arc<Peer>,
        target: &Target,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Reply, NoConnection> {
        let octets_max = self.settings.answer_octets_max;
        let mut lease = self.peers.lease(peer, &target.origin, deadline).await?;
        let mut answer = lease.ask(message::request(target, body)).await;
        // A connection from earlier may have ended at this very moment, which says nothing about the target.
        if answer.is_err() && !lease.is_new() {
            drop(lease);
            lease = self.peers.lease(peer, &target.origin, deadline).await?;
            answer = lease.ask(message::request(target, body)).await;
        }
        let reply = Reply::read(answer.map_err(NoConnection::Failed)?, octets_max).await;
        Ok(reply.unwrap_or_else(|reason| Reply::Outcome(Outcome::failed(reason))))
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
