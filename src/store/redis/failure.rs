//! Why a call has no answer, and whether it may have been made all the same: "not" is said only where Redis refuses
//! before it runs anything, everything else errs on the side of "may".

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::{Applied, Error};

/// Why a call has no answer, or not the one it asked for.
#[derive(Clone)]
pub enum Failure {
    NotSent(Box<str>),
    Asked(RedisError),
    Late,
    /// Made, and not known to be where it has to be.
    NotKept(Box<str>),
    /// Not sent: it follows from what was read elsewhere.
    Elsewhere,
}

/// What a server of a cluster answers to whom it cannot serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detour {
    /// The slot lives there.
    Moved(Box<str>),
    /// The slot is on its way to there, and these keys are not here any more, or not yet there.
    Importing(Box<str>),
    /// Some of the keys are here, and some are there.
    Halfway,
    /// The cluster is not whole.
    Down,
}

impl Failure {
    pub fn of_a_read(self) -> Error {
        match self.of_a_write() {
            Error::Unavailable { reason, .. } => Error::Unavailable { applied: Applied::No, reason },
            error => error,
        }
    }

    /// Whether it may have been made all the same is decided here.
    pub fn of_a_write(self) -> Error {
        match self {
            Self::NotSent(reason) => Error::Unavailable { applied: Applied::No, reason },
            Self::Late => Error::unavailable(Applied::Unknown, "no answer within the deadline"),
            Self::Asked(error) if wrong_type(&error) => {
                Error::corrupt("a key of the store holds another type than nchf wrote there")
            }
            Self::Asked(error) if refused(&error) => Error::unavailable(Applied::No, error),
            Self::Asked(error) => Error::unavailable(Applied::Unknown, error),
            // Whoever submits it again finds it made, and waits for the replicas again.
            Self::NotKept(reason) => Error::Unavailable { applied: Applied::Unknown, reason },
            Self::Elsewhere => Error::Conflict(None),
        }
    }

    /// Where a cluster sends the call instead; it did nothing here.
    pub fn detour(&self) -> Option<Detour> {
        let Self::Asked(error) = self else { return None };
        let errors = error.clone().into_server_errors()?;
        let address = |details: Option<&str>| details?.split_ascii_whitespace().nth(1).map(Box::from);
        errors.iter().find_map(|(_, error)| match error.code() {
            "MOVED" => address(error.details()).map(Detour::Moved),
            "ASK" => address(error.details()).map(Detour::Importing),
            "TRYAGAIN" => Some(Detour::Halfway),
            "CLUSTERDOWN" => Some(Detour::Down),
            _ => None,
        })
    }

    /// The server has lost, or never had, the functions.
    pub fn is_function_missing(&self) -> bool {
        matches!(self, Self::Asked(error) if function_missing(error))
    }

    /// There was no answer in time, or none that says that the replicas have it.
    pub fn is_late(&self) -> bool {
        match self {
            Self::Asked(error) => error.is_timeout(),
            Self::Late | Self::NotKept(_) => true,
            Self::NotSent(_) | Self::Elsewhere => false,
        }
    }

    /// The connection was lost with the call on its way.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Asked(error) if lost(error))
    }

    /// The server is no master any more, and did nothing.
    pub fn is_demoted(&self) -> bool {
        matches!(self, Self::Asked(error) if demoted(error))
    }
}

/// The connection is gone, or what comes over it can no longer be read.
pub fn lost(error: &RedisError) -> bool {
    (error.is_io_error() && !error.is_timeout()) || error.kind() == ErrorKind::Parse
}

/// Of one command, or of one among several.
fn wrong_type(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == "WRONGTYPE"))
}

/// The server no longer takes writes: after a failover this connection leads to the wrong one.
pub fn demoted(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}

/// The server has not, or not any more, the slot that was asked for.
pub fn moved(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::Moved)
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
    function_missing(error) || error.code().is_some_and(|code| CODES.contains(&code))
}

fn function_missing(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.starts_with("Function not found"))
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
}
