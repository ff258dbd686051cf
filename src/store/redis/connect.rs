//! The only place that knows where Redis is and how to reach it.
//!
//! The path of a charging request shares a few long-lived connections, so that concurrent requests travel together; one
//! checkout per request would cost more than the request. They come from the pool's manager, are replaced when they
//! break, by one request while the others wait for it, and after a failed attempt nobody tries again for
//! [`ATTEMPT_PAUSE`]. Whatever may have a long answer (listings, journals, migrations, readiness) is asked aside, on a
//! connection that the pool lends for one command.
//!
//! Everything here belongs to the runtime that opened it: the tasks that drive the connections live there.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::{ManageConnection, Pool, RunError};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, ServerErrorKind, Value,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::Settings;
use crate::store::{Applied, Error};

/// After a failed attempt to connect, calls fail at once for so long: a dead Redis is not asked by every request, and
/// one that comes back is found within this time.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

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

/// The connections of one store.
pub struct Links {
    pool: Pool<Manager>,
    hot: Box<[Hot]>,
    turn: AtomicUsize,
    deadline: Duration,
}

impl Links {
    /// Connects nothing yet; belongs to the runtime it is called on.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let manager = Manager::new(settings).map_err(|error| not_sent(format!("store address: {error}")))?;
        let pool = Pool::builder()
            .max_size(ASIDE_MAX)
            .test_on_check_out(false)
            .retry_connection(false)
            .connection_timeout(settings.connect_timeout)
            .build_unchecked(manager);
        let hot = (0..settings.hot_connections.max(1)).map(|_| Hot::default()).collect();
        Ok(Self { pool, hot, turn: AtomicUsize::new(0), deadline: settings.deadline })
    }

    /// Asks something that changes nothing; asked once more if the connection was lost. One round trip.
    pub async fn read(&self, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let question = question.into();
        let until = Instant::now() + self.deadline;
        let answer = match self.attempt(question, until).await {
            Err(Failure::Asked(error)) if lost(&error) => {
                timeout_at(until, self.attempt(question, until)).await.unwrap_or(Err(Failure::Late))
            }
            answer => answer,
        };
        answer.map_err(Failure::of_a_read)
    }

    /// Asks for a change, never twice: whether a lost one was made is for the caller to find out. One round trip.
    pub async fn write(&self, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let until = Instant::now() + self.deadline;
        self.attempt(question.into(), until).await.map_err(Failure::of_a_write)
    }

    /// Asks something that may be repeated without harm, on a connection of its own.
    pub async fn aside(&self, question: impl Into<Question<'_>>) -> Result<Value, Error> {
        let until = Instant::now() + self.deadline;
        timeout_at(until, self.attempt_aside(question.into()))
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

    async fn attempt(&self, question: Question<'_>, until: Instant) -> Result<Value, Failure> {
        let hot = &self.hot[self.turn.fetch_add(1, Ordering::Relaxed) % self.hot.len()];
        if let Some(link) = hot.link() {
            // The usual case needs one timer, the connection's own.
            return link.ask(question).await.map_err(Failure::Asked);
        }
        let link = timeout_at(until, hot.mend(&self.pool)).await;
        let link =
            link.unwrap_or_else(|_| Err("no connection within the deadline".into())).map_err(Failure::NotSent)?;
        timeout_at(until, link.ask(question)).await.map_err(|_| Failure::Late)?.map_err(Failure::Asked)
    }

    async fn attempt_aside(&self, question: Question<'_>) -> Result<Value, Failure> {
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
        link.clone().ask(question).await.map_err(Failure::Asked)
    }
}

/// A connection and what is known of its health. Clones share both.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    health: Arc<Health>,
}

#[derive(Default)]
struct Health {
    broken: AtomicBool,
    late_in_a_row: AtomicU32,
}

impl Link {
    /// Dropping the future leaves the connection sound: the answer is thrown away when it comes.
    async fn ask(mut self, question: Question<'_>) -> Result<Value, RedisError> {
        let answer = match question {
            Question::One(cmd) => cmd.query_async(&mut self.connection).await,
            Question::Several(commands) => commands.query_async(&mut self.connection).await,
        };
        self.health.note(answer.as_ref().err());
        answer
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
            Some(error) if lost(error) || demoted(error) => self.broken.store(true, Ordering::Relaxed),
            _ => self.late_in_a_row.store(0, Ordering::Relaxed),
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// One of the shared connections, and its replacement.
#[derive(Default)]
struct Hot {
    link: Mutex<Option<Link>>,
    /// Held by whoever connects; remembers how the last attempt failed.
    mending: tokio::sync::Mutex<Option<(Instant, Box<str>)>>,
}

impl Hot {
    fn link(&self) -> Option<Link> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().filter(|link| !link.health.is_broken()).cloned()
    }

    async fn mend(&self, pool: &Pool<Manager>) -> Result<Link, Box<str>> {
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

/// Makes connections to a single Redis; adds to bb8's own manager the timeouts and the knowledge of what is broken.
struct Manager {
    redis: RedisConnectionManager,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

impl Manager {
    fn new(settings: &Settings) -> Result<Self, RedisError> {
        let info: ConnectionInfo = settings.url.as_str().into_connection_info()?;
        // Requests are small and must not wait for one another's acknowledgements. The answers are read as RESP2.
        let tcp = TcpSettings::default().set_nodelay(true);
        let session = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let info = info.set_tcp_settings(tcp).set_redis_settings(session);
        Ok(Self {
            redis: RedisConnectionManager::new(info)?,
            connect_timeout: settings.connect_timeout,
            answer_timeout: settings.deadline,
        })
    }
}

impl ManageConnection for Manager {
    type Connection = Link;
    type Error = RedisError;

    async fn connect(&self) -> Result<Link, RedisError> {
        let connecting = timeout(self.connect_timeout, self.redis.connect());
        let mut connection =
            connecting.await.map_err(|_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))??;
        connection.set_response_timeout(self.answer_timeout);
        Ok(Link { connection, health: Arc::default() })
    }

    async fn is_valid(&self, link: &mut Link) -> Result<(), RedisError> {
        link.clone().ask(Question::One(&redis::cmd("PING"))).await.map(drop)
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.health.is_broken()
    }
}

/// Why a call has no answer, or not the one it asked for.
enum Failure {
    NotSent(Box<str>),
    Asked(RedisError),
    Late,
}

impl Failure {
    fn of_a_read(self) -> Error {
        match self.of_a_write() {
            Error::Unavailable { reason, .. } => Error::Unavailable { applied: Applied::No, reason },
            error => error,
        }
    }

    /// Whether it may have been made all the same is decided here, and errs on the side of "may".
    fn of_a_write(self) -> Error {
        match self {
            Self::NotSent(reason) => Error::Unavailable { applied: Applied::No, reason },
            Self::Late => Error::unavailable(Applied::Unknown, "no answer within the deadline"),
            Self::Asked(error) if wrong_type(&error) => {
                Error::corrupt("a key of the store holds another type than nchf wrote there")
            }
            Self::Asked(error) if refused(&error) => Error::unavailable(Applied::No, error),
            Self::Asked(error) => Error::unavailable(Applied::Unknown, error),
        }
    }
}

/// The connection is gone, or what comes over it can no longer be read.
fn lost(error: &RedisError) -> bool {
    (error.is_io_error() && !error.is_timeout()) || error.kind() == ErrorKind::Parse
}

/// Of one command, or of one among several.
fn wrong_type(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == "WRONGTYPE"))
}

/// The server no longer takes writes: after a failover this connection leads to the wrong one.
fn demoted(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}

/// Redis answered before it ran anything.
fn refused(error: &RedisError) -> bool {
    const CODES: &[&str] = &[
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "CROSSSLOT",
        // Some command of a transaction was refused, and with it all.
        "EXECABORT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    ];
    let function_missing = error.detail().is_some_and(|detail| detail.starts_with("Function not found"));
    function_missing || error.code().is_some_and(|code| CODES.contains(&code))
}

fn not_sent(reason: String) -> Error {
    Error::unavailable(Applied::No, reason)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn applied(failure: Failure) -> Option<Applied> {
        match failure.of_a_write() {
            Error::Unavailable { applied, .. } => Some(applied),
            Error::Conflict(_) | Error::Corrupt(_) => None,
        }
    }

    fn answered(code: &str, detail: &str) -> Failure {
        Failure::Asked(redis::make_extension_error(code.to_owned(), Some(detail.to_owned())))
    }

    #[test]
    fn what_redis_refuses_before_running_it_was_not_applied() {
        for code in ["OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOAUTH"] {
            assert_eq!(applied(answered(code, "")), Some(Applied::No), "{code}");
        }
        for kind in [
            ServerErrorKind::Ask,
            ServerErrorKind::BusyLoading,
            ServerErrorKind::ClusterDown,
            ServerErrorKind::CrossSlot,
            ServerErrorKind::ExecAbort,
            ServerErrorKind::MasterDown,
            ServerErrorKind::Moved,
            ServerErrorKind::NoPerm,
            ServerErrorKind::ReadOnly,
            ServerErrorKind::TryAgain,
        ] {
            let error = RedisError::from((ErrorKind::Server(kind), "refused"));
            assert_eq!(applied(Failure::Asked(error)), Some(Applied::No), "{kind:?}");
        }
        assert_eq!(applied(answered("ERR", "Function not found")), Some(Applied::No));
        assert_eq!(applied(Failure::NotSent("refused".into())), Some(Applied::No));
    }

    #[test]
    fn whatever_else_happens_after_sending_may_have_been_applied() {
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset] {
            let error = RedisError::from(io::Error::from(kind));
            assert_eq!(applied(Failure::Asked(error)), Some(Applied::Unknown), "{kind:?}");
        }
        assert_eq!(applied(answered("ERR", "something nobody thought of")), Some(Applied::Unknown));
        assert_eq!(applied(Failure::Asked(RedisError::from((ErrorKind::Parse, "unreadable")))), Some(Applied::Unknown));
        assert_eq!(applied(Failure::Late), Some(Applied::Unknown));
    }

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
