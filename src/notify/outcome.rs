//! What a call came to.

use std::io;

use super::policy::Kind;
use super::target::Target;
use crate::charging::time::{Span, Timestamp};

/// What a call came to, and with that what becomes of the entry in the outbox and of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The consumer has taken it.
    Delivered,
    /// The consumer knows nothing of the session any more: it is lost.
    Gone,
    /// The consumer cannot report now (TS 32.291 6.1.7.3 `RE_AUTHORIZATION_FAILED`). The session goes on, and asking
    /// the same again would be answered the same.
    Kept,
    /// Delivered, but elsewhere. A permanent redirection (308) is the session's `notifyUri` from now on.
    Moved { to: Target, permanent: bool },
    /// The target may not be reached; nothing was sent.
    Refused(Denial),
    /// Nothing was sent: the target is left alone until then, or too many calls wait for it. No attempt was made.
    Postponed { until: Timestamp },
    /// Worth another attempt, no sooner than the target asked for.
    Failed { reason: Failure, retry_after: Option<Span> },
}

impl Outcome {
    pub const fn failed(reason: Failure) -> Self {
        Self::Failed { reason, retry_after: None }
    }

    /// For a metric's label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::Kept => "kept",
            Self::Moved { .. } => "moved",
            Self::Refused(_) => "refused",
            Self::Postponed { .. } => "postponed",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Why a target may not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("not an absolute http or https URI without user and fragment")]
    Malformed,
    #[error("{0} addresses are reached only where notify.allow names them")]
    Address(Kind),
    #[error("port {0} belongs to another kind of service; notify.allow can name it together with its host")]
    Port(u16),
    #[error("the address is one of our own listeners")]
    OwnListener,
}

/// Why a call failed. Nothing here is final: addresses, certificates and consumers are mended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the host's name has no address")]
    NameUnknown,
    #[error("cannot connect: {0}")]
    Connect(io::ErrorKind),
    #[error("TLS: {0}")]
    Tls(&'static str),
    #[error("the peer does not speak HTTP/2")]
    NotHttp2,
    #[error("the connection or stream ended before the answer")]
    Lost,
    #[error("no answer in time")]
    TimedOut,
    #[error("the answer is too long")]
    AnswerTooLong,
    #[error("status {0}")]
    Status(u16),
    #[error("redirected, {0}")]
    Redirection(Redirection),
}

impl Failure {
    /// The target as a whole is in trouble, not just this one session's resource on it.
    pub const fn is_of_target(&self) -> bool {
        match self {
            Self::NameUnknown
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::NotHttp2
            | Self::Lost
            | Self::TimedOut
            | Self::AnswerTooLong => true,
            Self::Status(status) => *status >= 500 || *status == 429,
            Self::Redirection(_) => false,
        }
    }
}

/// Why a redirection was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Redirection {
    #[error("which was not negotiated")]
    NotNegotiated,
    #[error("without a usable Location")]
    NoLocation,
    #[error("from https to http")]
    Insecure,
    #[error("and then redirected again")]
    Again,
    #[error("to where nothing may be sent: {0}")]
    Denied(Denial),
}
