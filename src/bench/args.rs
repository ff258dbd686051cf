//! What the command line of `nchf bench` says.

use std::path::PathBuf;

use hyper::Uri;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Base URL of the charging function: HTTP/2 with prior knowledge, or https:// and HTTP/2 by ALPN
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub target: Uri,
    /// What is played
    #[arg(long, value_enum, default_value_t = Scenario::Lifecycle)]
    pub scenario: Scenario,
    /// Connections, opened at the start and again when one is lost
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub connections: usize,
    /// Streams of each connection; each has at most one request under way
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub streams: usize,
    /// Threads of this generator; more than one takes cores from what is measured
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Open loop: so many messages are due in a second, at fixed times, and latency counts from when each was due.
    /// Without it each stream sends again when it has been answered
    #[arg(long, value_name = "PER_SEC", value_parser = rate)]
    pub rate: Option<f64>,
    /// Measured time
    #[arg(long, value_name = "SECS", default_value_t = 10)]
    pub duration_secs: u64,
    /// Played before the measured time, and not counted
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    pub warmup_secs: u64,
    /// End earlier, when this many sessions are done
    #[arg(long, value_name = "N")]
    pub sessions: Option<u64>,
    /// Sessions open at once, at least one for each stream; opened before the time begins where the scenario is `update`
    /// or `open-sessions` [default: one for each stream; for `open-sessions` 10000]
    #[arg(long, value_name = "N")]
    pub open_sessions: Option<usize>,
    /// Updates in each session, where it has an end
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub updates: u32,
    /// First of the subscribers that are charged in turn [default: the demo's first; beyond 1000 subscribers
    /// imsi-001010001000001, since some of the demo's are blocked or have nothing]
    #[arg(long, value_name = "SUPI")]
    pub first_subscriber: Option<String>,
    /// Subscribers in that row [default: 1000, or as many as sessions are open at once]
    #[arg(long, value_name = "N")]
    pub subscribers: Option<u64>,
    /// Where notifications are to be sent; nothing needs to listen there
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9/notify")]
    pub notify_uri: Uri,
    /// Creates what is missing of the subscribers, their accounts and a tariff plan through nchf's operator's API, and
    /// credits each account once with what lasts for any run
    #[arg(long)]
    pub provision: bool,
    /// Accounts that the subscribers share which are created [default: one for each]
    #[arg(long, value_name = "N", requires = "provision", value_parser = clap::value_parser!(u64).range(1..))]
    pub accounts: Option<u64>,
    /// Base URL of the operator's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001")]
    pub admin: Uri,
    /// Bearer token of the operator's API
    #[arg(long, value_name = "TOKEN", env = "NCHF_ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// Processes whose CPU time per message and memory are reported
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// A line each second on standard error, also where that is no terminal
    #[arg(long)]
    pub progress: bool,
    /// Also write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Authorities whose certificates are trusted, as a PEM file [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub ca: Option<PathBuf>,
    /// Certificate to show where one is asked for, followed by its chain, as a PEM file
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "TLS")]
    pub certificate: Option<PathBuf>,
    /// Key of that certificate, as a PEM file
    #[arg(long, value_name = "FILE", requires = "certificate", help_heading = "TLS")]
    pub key: Option<PathBuf>,
    /// Serves the floor instead of measuring: the same HTTP server and the same calls of the store with as many octets,
    /// and no charging. Play against it to learn what of a figure is charging
    #[arg(long, help_heading = "Floor")]
    pub floor: bool,
    /// Where the floor listens [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR", env = "NCHF_LISTEN", help_heading = "Floor")]
    pub listen: Option<String>,
    /// The floor's store, as that of `serve`; one of its own
    #[arg(long, value_name = "URL", env = "NCHF_STORE", help_heading = "Floor")]
    pub store: Option<String>,
    /// The floor's configuration file, as that of `serve`
    #[arg(long, value_name = "FILE", env = "NCHF_CONFIG", help_heading = "Floor")]
    pub config: Option<PathBuf>,
}

/// What the sessions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Create, updates, release, and the next session
    Lifecycle,
    /// All sessions are opened first; measured are updates alone
    Update,
    /// Create and release, and the next session
    CreateRelease,
    /// One-time events (IEC) of an SMSF
    Events,
    /// As lifecycle, and each message is sent twice: the copy must get the same answer
    Duplicates,
    /// As lifecycle, over many sessions that were all opened first
    OpenSessions,
}

/// The subscribers of the demo that are all alike.
const DEMO_FIRST: &str = "imsi-001010000000001";
const DEMO_COUNT: u64 = 1000;

/// Where a longer row begins: behind all of the demo.
const BEYOND_DEMO: &str = "imsi-001010001000001";

/// Sessions open at once where many are the point.
const MANY_SESSIONS: usize = 10_000;

impl Scenario {
    /// Sessions are opened before the time begins.
    pub(super) fn opens_first(self) -> bool {
        matches!(self, Self::Update | Self::OpenSessions)
    }
}

impl Args {
    pub(super) fn streams_in_all(&self) -> usize {
        self.connections.max(1) * self.streams.max(1)
    }

    /// Sessions that are under way at once.
    pub(super) fn sessions_at_once(&self) -> usize {
        let default = if self.scenario == Scenario::OpenSessions { MANY_SESSIONS } else { 0 };
        self.open_sessions.unwrap_or(default).max(self.streams_in_all())
    }

    pub(super) fn subscribers_in_row(&self) -> u64 {
        self.subscribers.unwrap_or_else(|| (self.sessions_at_once() as u64).max(DEMO_COUNT))
    }

    pub(super) fn first_subscriber(&self) -> &str {
        let default = if self.subscribers_in_row() > DEMO_COUNT { BEYOND_DEMO } else { DEMO_FIRST };
        self.first_subscriber.as_deref().unwrap_or(default)
    }
}

/// A rate is a number above zero; a million in a second is more than one thread can look at.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number is needed".to_owned())?;
    if rate > 0.0 && rate <= 1e6 { Ok(rate) } else { Err("more than 0 and at most 1000000 are needed".to_owned()) }
}
