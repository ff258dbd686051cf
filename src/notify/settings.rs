//! What sending may cost. Each value says its unit, its default and what breaks on either side of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::breaker::BreakerSettings;
use super::policy::Allowed;
use crate::tls::Identity;

#[derive(Clone, Debug)]
pub struct Settings {
    /// What may be reached beside private networks; default nothing. See [`super::policy`].
    pub allow: Vec<Allowed>,
    /// Addresses of our own that are never called: listeners, and a store that is reached by address.
    pub own: Vec<SocketAddr>,
    /// From the start of a call to the end of its answer, with name resolution, connection, TLS and a redirection;
    /// default 2 s. A call waits for its place as long again at most. Too small: busy consumers are told again and
    /// again. Too large: dead ones hold places.
    pub deadline: Duration,
    /// Connections open at once, and calls under way at once; default 256. A connection takes some 60 KiB and a file
    /// descriptor. Too small: notifications after a large event take long. Too large: the process runs out of either.
    pub connections_max: usize,
    /// Calls under way to one target at once; default 32. Too small: many sessions of one consumer take long. Too large:
    /// a few dead targets hold all places until the deadline, and one victim gets many calls at once.
    pub calls_per_target_max: usize,
    /// Longest body of an answer, octets; default 16 KiB. Too small: explanations of errors count as failures. Too
    /// large: memory is this times `connections_max`.
    pub answer_octets_max: usize,
    /// Without a call, after which a connection is closed; default 60 s. Too small: each notification connects anew. Too
    /// large: forgotten connections hold places.
    pub idle_close: Duration,
    /// Age at which a connection is replaced; default 30 min. Too small: work. Too large: a name that leads elsewhere
    /// now is noticed late.
    pub age_max: Duration,
    /// Pause between HTTP/2 pings; default 10 s. Too small: traffic. Too large: a connection that a firewall has
    /// forgotten costs the next call its time.
    pub ping_interval: Duration,
    /// Wait for the answer to a ping; default 5 s.
    pub ping_deadline: Duration,
    pub breaker: BreakerSettings,
    /// PEM file of the authorities whose certificates https targets may show; the system's where `None`.
    pub ca: Option<PathBuf>,
    /// What https targets are shown that ask who calls.
    pub identity: Option<Identity>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            own: Vec::new(),
            deadline: Duration::from_secs(2),
            connections_max: 256,
            calls_per_target_max: 32,
            answer_octets_max: 16 * 1024,
            idle_close: Duration::from_secs(60),
            age_max: Duration::from_secs(1800),
            ping_interval: Duration::from_secs(10),
            ping_deadline: Duration::from_secs(5),
            breaker: BreakerSettings::default(),
            ca: None,
            identity: None,
        }
    }
}

/// What each connection keeps to.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimits {
    pub deadline: Duration,
    pub idle_close: Duration,
    pub age_max: Duration,
    pub ping_interval: Duration,
    pub ping_deadline: Duration,
}

impl Settings {
    pub(super) fn connection_limits(&self) -> ConnectionLimits {
        let Self { deadline, idle_close, age_max, ping_interval, ping_deadline, .. } = *self;
        ConnectionLimits { deadline, idle_close, age_max, ping_interval, ping_deadline }
    }
}
