//! One server, or whichever server is the master of some name, and the connections to it.
//!
//! The path of a charging request shares a few long-lived connections, so that concurrent requests travel together; one
//! checkout per request would cost more than the request. They come from the pool's manager, are replaced when they
//! break, by one request while the others wait for it, and after a failed attempt nobody tries again for
//! [`ATTEMPT_PAUSE`]. Whatever may have a long answer (listings, journals, migrations, readiness) is asked aside, on a
//! connection that the pool lends for one command.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bb8_redis::bb8::{ManageConnection, Pool, RunError};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionInfo, Pipeline, RedisError, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::Settings;
use super::failure::{Failure, demoted, lost, moved};
use super::history::Replication;
use super::lane::{Lanes, Promise};
use super::sentinel::{Sentinels, is_master};
use super::wire::Wire;
use crate::store::Origin;

/// After a failed attempt to connect, calls fail at once for so long: a dead Redis is not asked by every request, and
/// one that comes back is found within this time.
pub(super) const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// So many answers in a row that did not come in time, and the connection is replaced: the peer may be gone without a
/// word. One alone may just be a slow command.
const LATE_IN_A_ROW_MAX: u32 = 2;

/// Connections that may be lent at once for commands aside; more wait.
const ASIDE_MAX: u32 = 2;

/// What is asked: one command, or several that travel together and are answered with a list.
#[derive(Clone, Copy)]
pub enum Question<'q> {
    One(&'q Cmd),
    Several(&'q Pipeline),
    /// As several, and an error is an answer like others.
    Each(&'q Pipeline),
}

impl<'q> From<&'q Cmd> for Question<'q> {
    fn from(cmd: &'q Cmd) -> Self {
        Self::One(cmd)
    }
}

impl<'q> From<&'q mut Cmd> for Question<'q> {
    fn from(cmd: &'q mut Cmd) -> Self {
        Self::One(cmd)
    }
}

impl<'q> From<&'q Pipeline> for Question<'q> {
    fn from(commands: &'q Pipeline) -> Self {
        Self::Several(commands)
    }
}

/// An answer, and whose it is.
pub struct Said {
    pub value: Value,
    pub origin: Origin,
}

/// Where the server is.
pub enum Place {
    Here(ConnectionInfo),
    /// Wherever the sentinels say; asked anew for each connection.
    Found(Sentinels),
}

/// The connections to one server.
pub struct Node {
    /// Host and port, or the name of the master.
    name: Box<str>,
    pool: Pool<Manager>,
    hot: Box<[Hot]>,
    turn: AtomicUsize,
    /// How changes travel where there are replicas; made when the first one does.
    lanes: OnceLock<Lanes>,
    promise: Option<Promise>,
}

impl Node {
    /// Connects nothing yet; belongs to the runtime it is called on.
    pub fn new(place: Place, settings: &Settings, wire: Wire, promise: Option<Promise>) -> Self {
        let name = match &place {
            Place::Here(info) => info.addr().to_string().into(),
            Place::Found(sentinels) => sentinels.name().into(),
        };
        let manager = Manager {
            place,
            wire,
            has_replicas: promise.is_some(),
            latest: Arc::default(),
            connect_timeout: settings.connect_timeout,
            answer_timeout: settings.deadline,
        };
        let pool = Pool::builder()
            .max_size(ASIDE_MAX)
            .test_on_check_out(false)
            .retry_connection(false)
            .connection_timeout(settings.connect_timeout)
            .build_unchecked(manager);
        let hot = (0..settings.hot_connections.max(1)).map(|_| Hot::default()).collect();
        Self { name, pool, hot, turn: AtomicUsize::new(0), lanes: OnceLock::new(), promise }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks the server that takes over a slot, and tells it that we know. A transaction is one question.
    pub async fn ask_importing(&self, question: Question<'_>, until: Instant) -> Result<Said, Failure> {
        let mut commands = redis::pipe();
        commands.cmd("ASKING");
        match question {
            Question::One(cmd) => {
                commands.add_command(cmd.clone());
            }
            Question::Several(several) | Question::Each(several) => {
                commands.cmd("MULTI");
                several.cmd_iter().for_each(|cmd| {
                    commands.add_command(cmd.clone());
                });
                commands.cmd("EXEC");
            }
        }
        let Said { value, origin } = self.ask(Question::Each(&commands), until).await?;
        let value = match value {
            Value::Array(mut answers) => answers.pop().unwrap_or(Value::Nil).extract_error().map_err(Failure::Asked)?,
            other => other,
        };
        Ok(Said { value, origin })
    }

    /// The lanes to this server, if it is one that may have replicas.
    pub fn lanes(&self) -> Option<&Lanes> {
        let promise = self.promise.as_ref()?;
        Some(self.lanes.get_or_init(|| Lanes::open(&self.pool, promise)))
    }

    pub async fn ask(&self, question: Question<'_>, until: Instant) -> Result<Said, Failure> {
        let hot = &self.hot[self.turn.fetch_add(1, Ordering::Relaxed) % self.hot.len()];
        if let Some(link) = hot.link() {
            let origin = link.origin();
            // The usual case needs one timer, the connection's own.
            let value = link.ask(question).await.map_err(Failure::Asked)?;
            return Ok(Said { value, origin });
        }
        Box::pin(self.connect_and_ask(hot, question, until)).await
    }

    async fn connect_and_ask(&self, hot: &Hot, question: Question<'_>, until: Instant) -> Result<Said, Failure> {
        let link = timeout_at(until, hot.mend(&self.pool)).await;
        let link =
            link.unwrap_or_else(|_| Err("no connection within the deadline".into())).map_err(Failure::NotSent)?;
        let origin = link.origin();
        let value = timeout_at(until, link.ask(question)).await.map_err(|_| Failure::Late)?.map_err(Failure::Asked)?;
        Ok(Said { value, origin })
    }

    pub async fn ask_aside(&self, question: Question<'_>) -> Result<Value, Failure> {
        // The pool would wait for a Redis that refuses; the shared connection knows at once.
        self.hot[0].mend(&self.pool).await.map_err(Failure::NotSent)?;
        let mut answer = self.borrow_and_ask(question).await;
        for _ in 0..ASIDE_MAX {
            // All idle ones may have been lost together, when Redis was started again.
            match answer {
                Err(Failure::Asked(error)) if lost(&error) => answer = self.borrow_and_ask(question).await,
                _ => break,
            }
        }
        answer
    }

    async fn borrow_and_ask(&self, question: Question<'_>) -> Result<Value, Failure> {
        let link = self.pool.get().await.map_err(|error| {
            Failure::NotSent(match error {
                RunError::User(error) => error.to_string().into(),
                RunError::TimedOut => "no connection within the connect timeout".into(),
            })
        })?;
        link.ask(question).await.map_err(Failure::Asked)
    }
}

/// A connection and what is known of its health. Clones share both.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    health: Arc<Health>,
    /// Host and port.
    address: Arc<str>,
    /// What the server said of its history, if it may have replicas.
    replication: Option<Arc<Replication>>,
    /// Of that history.
    origin: Origin,
    /// Where the connection leads that was made last.
    latest: Arc<AtomicU64>,
}

#[derive(Default)]
struct Health {
    broken: AtomicBool,
    late_in_a_row: AtomicU32,
}

impl Link {
    /// Dropping the future leaves the connection sound: the answer is thrown away when it comes.
    pub async fn ask(&self, question: Question<'_>) -> Result<Value, RedisError> {
        let mut connection = self.connection.clone();
        let answer = match question {
            Question::One(cmd) => cmd.query_async(&mut connection).await,
            Question::Several(commands) => commands.query_async(&mut connection).await,
            Question::Each(commands) => {
                let sent = Box::pin(connection.send_packed_commands(commands, 0, commands.len()));
                sent.await.map(Value::Array)
            }
        };
        self.health.note(answer.as_ref().err());
        answer
    }

    /// An error among the answers to [`Question::Each`].
    pub fn note(&self, error: RedisError) -> Failure {
        self.health.note(Some(&error));
        Failure::Asked(error)
    }

    /// Makes everyone connect anew.
    pub fn give_up(&self) {
        self.health.broken.store(true, Ordering::Relaxed);
    }

    /// It is lost, or leads elsewhere than the connection that was made last: to a master that was replaced.
    fn is_broken(&self) -> bool {
        self.health.is_broken() || self.origin != Origin(self.latest.load(Ordering::Relaxed))
    }

    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.health, &other.health)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn replication(&self) -> Option<Arc<Replication>> {
        self.replication.clone()
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }
}

impl Health {
    fn note(&self, error: Option<&RedisError>) {
        match error {
            Some(error) if error.is_timeout() => {
                if self.late_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= LATE_IN_A_ROW_MAX {
                    self.broken.store(true, Ordering::Relaxed);
                }
            }
            // A server that sends others away may be a master again when somebody comes next, with a new history.
            Some(error) if lost(error) || demoted(error) || moved(error) => self.broken.store(true, Ordering::Relaxed),
            _ => self.late_in_a_row.store(0, Ordering::Relaxed),
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// One of the shared connections, and its replacement.
#[derive(Default)]
pub(super) struct Hot {
    link: Mutex<Option<Link>>,
    /// Held by whoever connects; remembers how the last attempt failed.
    mending: tokio::sync::Mutex<Option<(Instant, Box<str>)>>,
}

impl Hot {
    fn link(&self) -> Option<Link> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().filter(|link| !link.is_broken()).cloned()
    }

    pub(super) async fn mend(&self, pool: &Pool<Manager>) -> Result<Link, Box<str>> {
        let mut failed = self.mending.lock().await;
        if let Some(link) = self.link() {
            return Ok(link);
        }
        if let Some((_, reason)) = failed.as_ref().filter(|(at, _)| at.elapsed() < ATTEMPT_PAUSE) {
            return Err(reason.clone());
        }
        match pool.dedicated_connection().await {
            Ok(link) => {
                *failed = None;
                *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
                Ok(link)
            }
            Err(error) => {
                let reason: Box<str> = format!("cannot connect to Redis: {error}").into();
                *failed = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }
}

/// Makes connections to the server; adds to bb8's own manager the timeouts and the knowledge of what is broken.
pub(super) struct Manager {
    place: Place,
    wire: Wire,
    has_replicas: bool,
    latest: Arc<AtomicU64>,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

impl Manager {
    async fn find_and_connect(&self) -> Result<Link, RedisError> {
        let info = match &self.place {
            Place::Here(info) => info.clone(),
            Place::Found(sentinels) => sentinels.master().await?.at,
        };
        let address = info.addr().to_string().into();
        let mut connection = self.wire.connect(info).await?;
        let mut replication = None;
        if self.has_replicas {
            let found = Replication::of(&mut connection).await?;
            if matches!(self.place, Place::Found(_)) {
                is_master(&found)?;
            }
            replication = Some(Arc::new(found));
        }
        let origin = replication.as_deref().map_or(Origin::ANY, Replication::origin);
        let latest = Arc::clone(&self.latest);
        latest.store(origin.0, Ordering::Relaxed);
        Ok(Link { connection, health: Arc::default(), address, replication, origin, latest })
    }
}

impl ManageConnection for Manager {
    type Connection = Link;
    type Error = RedisError;

    async fn connect(&self) -> Result<Link, RedisError> {
        let connecting = timeout(self.connect_timeout, self.find_and_connect());
        let mut link =
            connecting.await.map_err(|_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))??;
        link.connection.set_response_timeout(self.answer_timeout);
        Ok(link)
    }

    async fn is_valid(&self, link: &mut Link) -> Result<(), RedisError> {
        link.ask(Question::One(&redis::cmd("PING"))).await.map(drop)
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.is_broken()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use redis::{ErrorKind, ServerErrorKind};

    use super::*;

    #[test]
    fn a_connection_is_given_up_when_it_is_lost_demoted_or_late_again() {
        let late = RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
        let health = Health::default();
        for answer in [Some(&late), None, Some(&late)] {
            health.note(answer);
        }
        assert!(!health.is_broken(), "late, but not twice in a row");
        health.note(Some(&late));
        assert!(health.is_broken());

        for error in [
            RedisError::from(io::Error::from(io::ErrorKind::UnexpectedEof)),
            RedisError::from((ErrorKind::Server(ServerErrorKind::ReadOnly), "a replica now")),
        ] {
            let health = Health::default();
            health.note(Some(&error));
            assert!(health.is_broken(), "{error}");
        }
    }
}
