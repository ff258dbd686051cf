//! Settings: where they come from, what they mean, what happens when they are too small or too large.
//!
//! A value comes from its flag, else from its environment variable, else from the file, else it is the default below.
//! Unknown keys are errors. Every error is one line that names the key, the value and what is allowed.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cdr_file::{Format, directory};
use crate::charging::decide::Rules;
use crate::charging::parts::PartialTrigger;
use crate::charging::time::Span;
use crate::notify::policy::Allowed;
use crate::notify::retry::RetryPolicy;
use crate::store::Durability;
use crate::store::redis::Topology;

/// A setting that cannot be used: one line for an operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    fn new(key: &str, value: impl fmt::Display, allowed: &str) -> Self {
        Self::line(format!("{key} = {value}: {allowed}"))
    }

    /// What stands in a setting may have lines of its own.
    fn line(text: String) -> Self {
        Self(text.replace(char::is_control, " "))
    }
}

/// All settings of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where network functions reach the Nchf services: HTTP/2 prior knowledge and HTTP/1.1 on one port.
    pub listen: SocketAddr,
    /// Where operators reach admin API, Swagger UI, metrics and health. Anything but a loopback address needs
    /// `admin.token`.
    pub admin_listen: SocketAddr,
    /// NF instance id (a UUID). By default the store's own, which all instances on it share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<uuid::Uuid>,
    /// Provisions the demo data at start, where it is missing.
    pub demo: bool,
    /// Threads that serve requests. By default one for each core; more only take cores from each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Where files of charging data records appear. Each instance needs one of its own.
    pub cdr_dir: PathBuf,
    pub store: Store,
    pub charging: Charging,
    pub timers: Timers,
    pub cdr: CdrFiles,
    pub notify: Notify,
    pub http: Http,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    pub admin: Admin,
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8001)),
            instance_id: None,
            demo: false,
            workers: None,
            cdr_dir: PathBuf::from("./nchf-data/cdr"),
            store: Store::default(),
            charging: Charging::default(),
            timers: Timers::default(),
            cdr: CdrFiles::default(),
            notify: Notify::default(),
            http: Http::default(),
            tls: None,
            admin: Admin::default(),
            log: Log::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `embedded:DIR`, `redis://[user:password@]host:port/[db]`,
    /// `redis+sentinel://[user:password@]host:port,host:port/NAME` or `redis+cluster://[user:password@]host:port,host:port`;
    /// `rediss` in the place of `redis` is the same through TLS.
    pub url: String,
    /// PEM file of the authorities whose certificates Redis may show; by default those that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Certificate with its chain, and key, for a Redis that asks who comes: PEM files, both or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// What an answer waits for: `memory`, `fsync` or `replicated`. By default `replicated` on Sentinel and
    /// Cluster, else `fsync`; with `--demo` on Redis `memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// The number of all replicas of a master, which `replicated` waits for. Fewer than there are loses what was answered
    /// when the one that was not waited for is promoted; more than there are answers nothing.
    pub replicas: u32,
    /// Longest wait for one answer of the store, in milliseconds. Too small turns a slow moment into refusals, too
    /// large lets requests pile up behind a dead store.
    pub deadline_ms: u32,
    /// Applies pending migrations at start. Off, the program refuses to start while some are pending.
    pub migrate: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: "embedded:./nchf-data".to_owned(),
            ca: None,
            certificate: None,
            key: None,
            durability: None,
            replicas: 0,
            deadline_ms: 1000,
            migrate: true,
        }
    }
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    Embedded(PathBuf),
    Redis(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Charging {
    /// What consumers shall do when no charging function can be reached (TS 32.291 `failureHandling`).
    pub failure_handling: FailureHandling,
    /// Refuses a Create with 403 `QUOTA_LIMIT_REACHED` when all it asks for is out of credit. By default it is
    /// answered 201 with the result of each rating group, so that a later credit can reach the consumer.
    pub refuse_create_without_credit: bool,
    /// Sent to consumers with a PDU session: idle seconds after which they close the charging session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_count_inactivity_timer_secs: Option<u32>,
    /// Optional features that are answered when a consumer offers them: hexadecimal, feature 1 the lowest bit
    /// (TS 32.291 6.1.8).
    pub supported_features: String,
    /// Quotas that one session may have; each makes its document larger.
    pub quotas_max: u16,
    /// How long a closed session answers repeated requests and takes late usage, in seconds. Too short charges a
    /// late repetition of a Create as a new session.
    pub tombstone_secs: u32,
    /// How long after `timers.supervision_secs` the store may drop an open session's document, in seconds: a net
    /// under the supervision, which closes a session and writes its record long before.
    pub document_margin_secs: u32,
    /// Octets that one record may collect before a partial one is written, at least 4096. A CDR file cannot hold a
    /// record of 65,536 or more; the estimate leaves room for what its BER form adds.
    pub record_octets_max: u32,
    /// Changes that a partial record is wanted after: `SERVING_NODE_CHANGE`, `RAT_CHANGE`, `UE_TIMEZONE_CHANGE`,
    /// `PLMN_CHANGE`. The limits of a session and management interventions always end one.
    pub partial_record_triggers: Vec<PartialTrigger>,
}

impl Default for Charging {
    fn default() -> Self {
        Self {
            failure_handling: FailureHandling::Continue,
            refuse_create_without_credit: false,
            unit_count_inactivity_timer_secs: None,
            // All of 1 to 18 but 7 (presence reporting areas), 11 (QoS monitoring), 12 (announcements) and 16 (a response
            // inside an error), which would ask something of us that is not done.
            supported_features: "373BF".to_owned(),
            quotas_max: 256,
            tombstone_secs: 86_400,
            document_margin_secs: 2_592_000,
            record_octets_max: 32_768,
            partial_record_triggers: Vec::new(),
        }
    }
}

/// Smaller ones would cut records of a few containers, larger ones could not be written to a CDR file (TS 32.297 6.1).
const RECORD_OCTETS: std::ops::RangeInclusive<u32> = 4096..=65_535;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureHandling {
    Terminate,
    Continue,
    RetryAndTerminate,
}

impl FailureHandling {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "TERMINATE",
            Self::Continue => "CONTINUE",
            Self::RetryAndTerminate => "RETRY_AND_TERMINATE",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timers {
    /// Idle time after which a session's consumer is asked whether it still lives, in seconds. Shorter than a quota's
    /// validity asks sessions that are alive.
    pub supervision_secs: u32,
    /// How long that question may stay without an Update before the session is closed, in seconds. Too short closes
    /// sessions whose consumers are only slow.
    pub probe_guard_secs: u32,
    /// How long a consumer that was told to end a session may take for its Release, in seconds.
    pub abort_guard_secs: u32,
    /// How late a report may be after its quota's validity, in seconds. Too short frees what is still being used, too
    /// long keeps money from other sessions.
    pub validity_grace_secs: u32,
    /// How long a session's record may collect before a partial one is written, in seconds. By default as long as the
    /// session lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_open_secs: Option<u32>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            supervision_secs: 86_400,
            probe_guard_secs: 60,
            abort_guard_secs: 60,
            validity_grace_secs: 60,
            record_open_secs: None,
        }
    }
}

/// Notifications to consumers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notify {
    /// What may be notified besides private networks: networks (`203.0.113.0/24`, `::1`) and hosts (`smf.example.com`),
    /// where wanted with a port. An entry opens only what it names: loopback by a network of loopback addresses or a
    /// host's name, link-local and other special addresses each by itself, ports of data bases and system services with
    /// the port. `--demo` adds loopback.
    pub allow: Vec<String>,
    /// How long a notification may take in all, in milliseconds. Too small tells busy consumers again and again, too
    /// large lets dead ones hold places.
    pub deadline_ms: u32,
    /// Pause after the first failed attempt, in milliseconds; it doubles with each further one.
    pub retry_first_ms: u32,
    /// Longest pause between two attempts, in seconds. Too large tells a consumer late that it was missed.
    pub retry_max_secs: u32,
    /// How long a notification is tried, in seconds. Too short gives up on a consumer that restarts, too long tells it
    /// what nobody wants to know any more.
    pub time_limit_secs: u32,
    /// Notifications under way at once, and connections to consumers at once. Too small takes long after a large
    /// event, too large takes the file descriptors of requests.
    pub connections_max: u32,
    /// Notifications under way at once to one consumer's address.
    pub calls_per_target_max: u32,
    /// PEM file of the authorities that https consumers' certificates come from; by default those that the system
    /// trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Certificate with its chain, and key, for consumers that ask who calls: PEM files, both or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deadline_ms: 2000,
            retry_first_ms: 1000,
            retry_max_secs: 60,
            time_limit_secs: 3600,
            connections_max: 256,
            calls_per_target_max: 32,
            ca: None,
            certificate: None,
            key: None,
        }
    }
}

/// Files of charging data records. A file is closed, and appears, when it reaches the first of its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CdrFiles {
    /// `jsonl`, an object in each line, and `ber`, files of TS 32.297; both are written side by side.
    pub formats: Vec<Format>,
    /// Who wrote a file, in its name: 1 to 20 letters, digits, dots and hyphens. Where the files of several instances
    /// meet, each needs its own, because numbers of files are counted in each directory.
    pub node_id: String,
    /// How long a file collects records, in seconds. Too short makes many small files, too long makes mediation wait.
    pub rotate_secs: u32,
    /// Octets of a file, at least 65536.
    pub rotate_bytes: u64,
    pub rotate_records: u32,
    /// How long the ledger and the records of a session can be read after its record is published, in seconds.
    pub retention_secs: u32,
    /// How long an instance may not have shown itself before another one takes over what it has not published, in
    /// seconds. Too small takes from instances that are only slow, which costs both work and loses nothing; too large
    /// makes the records of a dead one wait.
    pub takeover_secs: u32,
}

impl Default for CdrFiles {
    fn default() -> Self {
        Self {
            formats: vec![Format::Jsonl],
            node_id: "nchf".to_owned(),
            rotate_secs: 900,
            rotate_bytes: 64 * 1024 * 1024,
            rotate_records: 100_000,
            retention_secs: 7_776_000,
            takeover_secs: 30,
        }
    }
}

/// Smaller ones hold less than one record may have, larger ones outgrow the 32 bits that a file's header has for its
/// length (TS 32.297 6.1.1.1).
const FILE_OCTETS: std::ops::RangeInclusive<u64> = 65_536..=4_000_000_000;

/// Limits of both listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Scheme and authority (and prefix) in `Location`, where a load balancer hides those that requests name:
    /// `https://chf.example.com`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_root: Option<String>,
    /// Requests under way at once; more are answered 503 at once. Too small refuses what could be served, too large
    /// makes all of them late.
    pub in_flight_max: usize,
    /// How much of every limit of requests under way is open to Creates and events, in percent. The rest is for those
    /// that continue or end a session, so that a storm of Creates does not crowd them out.
    pub in_flight_create_percent: u32,
    /// The same for Updates; what is left then is for Releases, which give back what their session holds.
    pub in_flight_update_percent: u32,
    /// How much of `in_flight_max` one peer address may have under way, in percent. Too small refuses a load balancer
    /// that hides many consumers, too large lets one consumer take the place of all others.
    pub in_flight_per_peer_percent: u32,
    /// How much of it one connection may have under way, in percent.
    pub in_flight_per_connection_percent: u32,
    /// Charging requests that may wait for their turn at one account; more are answered 503 at once. Too small refuses
    /// the bursts of an account that many share, too large lets one subscriber fill the program.
    pub waiting_per_account_max: u32,
    /// How long a request may take in all, in milliseconds; then it is answered 503 or 504.
    pub deadline_ms: u32,
    /// Connections at once, over all peers.
    pub connections_max: usize,
    /// Connections of one peer address; load balancers need more than network functions.
    pub connections_per_peer_max: usize,
    /// How long answers under way may take after SIGTERM, in seconds.
    pub drain_secs: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            api_root: None,
            in_flight_max: 2048,
            in_flight_create_percent: 80,
            in_flight_update_percent: 95,
            in_flight_per_peer_percent: 50,
            in_flight_per_connection_percent: 25,
            waiting_per_account_max: 512,
            deadline_ms: 3000,
            connections_max: 2048,
            connections_per_peer_max: 512,
            drain_secs: 20,
        }
    }
}

impl Http {
    fn check_parts(&self) -> Result<(), Error> {
        for (key, percent) in [
            ("http.in_flight_create_percent", self.in_flight_create_percent),
            ("http.in_flight_update_percent", self.in_flight_update_percent),
            ("http.in_flight_per_peer_percent", self.in_flight_per_peer_percent),
            ("http.in_flight_per_connection_percent", self.in_flight_per_connection_percent),
        ] {
            if !(1..=100).contains(&percent) {
                return Err(Error::new(key, percent, "1 to 100 is needed"));
            }
        }
        if self.in_flight_create_percent > self.in_flight_update_percent {
            let allowed = "not above http.in_flight_update_percent: Updates matter more than Creates";
            return Err(Error::new("http.in_flight_create_percent", self.in_flight_create_percent, allowed));
        }
        Ok(())
    }
}

/// Certificates of the Nchf listener, as PEM files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whose clients are let in; everybody when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Bearer token of the operator's side. Needed on any address but loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or filters by module as `tracing` reads them.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// What flags and environment say; `None` leaves it to the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub listen: Option<String>,
    pub admin_listen: Option<String>,
    pub store: Option<String>,
    pub cdr_dir: Option<PathBuf>,
    pub instance_id: Option<String>,
    pub demo: Option<String>,
    pub admin_token: Option<String>,
    /// Whoever asks answers nobody: no durability is needed, whatever else is said.
    pub promises_nothing: bool,
}

impl Config {
    /// Reads the file, if one is named, and lays the overrides over it.
    ///
    /// # Errors
    ///
    /// One line for an operator.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, Error> {
        let mut config = match file {
            Some(file) => Self::read(file)?,
            None => Self::default(),
        };
        if let Some(text) = overrides.listen {
            config.listen = address("listen", &text)?;
        }
        if let Some(text) = overrides.admin_listen {
            config.admin_listen = address("admin_listen", &text)?;
        }
        if let Some(url) = overrides.store {
            config.store.url = url;
        }
        if let Some(directory) = overrides.cdr_dir {
            config.cdr_dir = directory;
        }
        if let Some(text) = overrides.instance_id {
            let id = text.parse().map_err(|_| Error::new("instance_id", &text, "a UUID is needed"))?;
            config.instance_id = Some(id);
        }
        if let Some(text) = overrides.demo {
            config.demo = switch("demo", &text)?;
        }
        config.admin.token = overrides.admin_token.or(config.admin.token);
        if overrides.promises_nothing && config.topology().is_some() {
            config.store.durability = Some(Durability::Memory);
        }
        config.check()?;
        Ok(config)
    }

    fn read(file: &Path) -> Result<Self, Error> {
        let name = file.display();
        let text =
            std::fs::read_to_string(file).map_err(|error| Error::line(format!("config file {name}: {error}")))?;
        let deserializer = toml::Deserializer::parse(&text).map_err(|error| one_line(&name.to_string(), &error))?;
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let key = error.path().to_string();
            one_line(&if key == "." { name.to_string() } else { format!("{name}: {key}") }, error.inner())
        })
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), Error> {
        self.store_url()?;
        self.features()?;
        self.notify_allowed()?;
        both_or_none("notify", &self.notify.certificate, &self.notify.key)?;
        both_or_none("store", &self.store.certificate, &self.store.key)?;
        if self.durability() == Durability::Replicated {
            if self.topology().is_none_or(|topology| topology == Topology::Single) {
                return Err(Error::new("store.durability", "replicated", "allowed on Sentinel and Cluster only"));
            }
            if self.store.replicas == 0 {
                let allowed = "store.durability replicated needs the number of all replicas of a master";
                return Err(Error::new("store.replicas", 0, allowed));
            }
        }
        let positive = [
            ("store.deadline_ms", u64::from(self.store.deadline_ms)),
            ("http.deadline_ms", u64::from(self.http.deadline_ms)),
            ("http.waiting_per_account_max", u64::from(self.http.waiting_per_account_max)),
            ("http.in_flight_max", self.http.in_flight_max as u64),
            ("http.connections_max", self.http.connections_max as u64),
            ("http.connections_per_peer_max", self.http.connections_per_peer_max as u64),
            ("timers.supervision_secs", u64::from(self.timers.supervision_secs)),
            ("timers.probe_guard_secs", u64::from(self.timers.probe_guard_secs)),
            ("timers.abort_guard_secs", u64::from(self.timers.abort_guard_secs)),
            ("timers.record_open_secs", u64::from(self.timers.record_open_secs.unwrap_or(1))),
            ("cdr.rotate_secs", u64::from(self.cdr.rotate_secs)),
            ("cdr.rotate_records", u64::from(self.cdr.rotate_records)),
            ("charging.tombstone_secs", u64::from(self.charging.tombstone_secs)),
            ("charging.quotas_max", u64::from(self.charging.quotas_max)),
            ("notify.deadline_ms", u64::from(self.notify.deadline_ms)),
            ("notify.retry_first_ms", u64::from(self.notify.retry_first_ms)),
            ("notify.retry_max_secs", u64::from(self.notify.retry_max_secs)),
            ("notify.time_limit_secs", u64::from(self.notify.time_limit_secs)),
            ("notify.connections_max", u64::from(self.notify.connections_max)),
            ("notify.calls_per_target_max", u64::from(self.notify.calls_per_target_max)),
            ("cdr.retention_secs", u64::from(self.cdr.retention_secs)),
            ("cdr.takeover_secs", u64::from(self.cdr.takeover_secs)),
            ("workers", self.workers.unwrap_or(1) as u64),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(Error::new(key, value, "a number above 0 is needed"));
            }
        }
        if !RECORD_OCTETS.contains(&self.charging.record_octets_max) {
            let allowed = "4096 to 65535 is needed";
            return Err(Error::new("charging.record_octets_max", self.charging.record_octets_max, allowed));
        }
        self.check_cdr_files()?;
        self.http.check_parts()?;
        if let Some(root) = &self.http.api_root {
            let rest = root.strip_prefix("http://").or_else(|| root.strip_prefix("https://")).unwrap_or_default();
            let is_plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\"\\".contains(&byte));
            if rest.is_empty() || rest.starts_with('/') || rest.ends_with('/') || !is_plain {
                let allowed = "an absolute http or https URI without a slash at its end is needed";
                return Err(Error::new("http.api_root", root, allowed));
            }
        }
        if self.admin.token.as_ref().is_some_and(|token| token.is_empty()) {
            return Err(Error::new("admin.token", "\"\"", "an empty token protects nothing"));
        }
        if !self.admin_listen.ip().is_loopback() && self.admin.token.is_none() {
            let allowed = "set admin.token (NCHF_ADMIN_TOKEN) or listen on a loopback address";
            return Err(Error::new("admin_listen", self.admin_listen, allowed));
        }
        Ok(())
    }

    fn check_cdr_files(&self) -> Result<(), Error> {
        let CdrFiles { formats, node_id, rotate_bytes, .. } = &self.cdr;
        if self.cdr_dir.as_os_str().is_empty() {
            return Err(Error::new("cdr_dir", "\"\"", "a directory is needed"));
        }
        if formats.is_empty() || (1..formats.len()).any(|at| formats[..at].contains(&formats[at])) {
            return Err(Error::new("cdr.formats", format!("{formats:?}"), "jsonl, ber or both are needed, each once"));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        if !(1..=20).contains(&node_id.len()) || !node_id.bytes().all(is_plain) || node_id.starts_with('.') {
            let allowed = "1 to 20 letters, digits, dots and hyphens are needed, no dot first";
            return Err(Error::new("cdr.node_id", node_id, allowed));
        }
        if !FILE_OCTETS.contains(rotate_bytes) {
            return Err(Error::new("cdr.rotate_bytes", rotate_bytes, "65536 to 4000000000 is needed"));
        }
        Ok(())
    }

    /// How files of records are written.
    pub fn cdr_files(&self) -> directory::Settings {
        directory::Settings {
            node_id: self.cdr.node_id.as_str().into(),
            formats: self.cdr.formats.clone(),
            lives_for: Span::from_secs(self.cdr.rotate_secs),
            bytes_max: self.cdr.rotate_bytes,
            records_max: self.cdr.rotate_records,
        }
    }

    /// # Errors
    ///
    /// One line that says which forms there are.
    pub fn store_url(&self) -> Result<StoreUrl, Error> {
        let url = &self.store.url;
        match url.split_once(':') {
            Some(("embedded", directory)) if !directory.is_empty() => Ok(StoreUrl::Embedded(directory.into())),
            _ if Topology::of(url).is_some() => Ok(StoreUrl::Redis(url.clone())),
            _ => Err(Error::new(
                "store.url",
                masked(url),
                "embedded:DIR, redis://host:port, redis+sentinel://host:port,…/NAME or redis+cluster://host:port,… is needed, \
                 or one of these with rediss for TLS",
            )),
        }
    }

    /// Of the URLs under which the Nchf services are reached.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What an answer waits for.
    pub fn durability(&self) -> Durability {
        let by_default = match self.topology() {
            Some(_) if self.demo => Durability::Memory,
            Some(Topology::Sentinel | Topology::Cluster) => Durability::Replicated,
            Some(Topology::Single) | None => Durability::Fsync,
        };
        self.store.durability.unwrap_or(by_default)
    }

    /// Which kind of Redis the store is on; `None` for the embedded store.
    fn topology(&self) -> Option<Topology> {
        Topology::of(&self.store.url)
    }

    fn features(&self) -> Result<u64, Error> {
        let text = &self.charging.supported_features;
        u64::from_str_radix(text, 16)
            .map_err(|_| Error::new("charging.supported_features", text, "1 to 16 hexadecimal digits are needed"))
    }

    /// What may be notified besides private networks, with what `--demo` adds.
    ///
    /// # Errors
    ///
    /// One line that names the entry.
    pub fn notify_allowed(&self) -> Result<Vec<Allowed>, Error> {
        let read =
            |entry: &String| entry.parse().map_err(|allowed: String| Error::new("notify.allow", entry, &allowed));
        let mut allowed: Vec<Allowed> = self.notify.allow.iter().map(read).collect::<Result<_, _>>()?;
        if self.demo {
            allowed.extend(Allowed::loopback());
        }
        Ok(allowed)
    }

    /// When a notification that failed is tried again.
    pub fn notify_retry(&self) -> RetryPolicy {
        RetryPolicy {
            first: Span::from_millis(self.notify.retry_first_ms),
            pause_max: Span::from_secs(self.notify.retry_max_secs),
            time_limit: Span::from_secs(self.notify.time_limit_secs),
        }
    }

    /// The settings that the core decides by.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn rules(&self) -> Result<Rules, Error> {
        Ok(Rules {
            supervision: Span::from_secs(self.timers.supervision_secs),
            probe_guard: Span::from_secs(self.timers.probe_guard_secs),
            abort_guard: Span::from_secs(self.timers.abort_guard_secs),
            validity_grace: Span::from_secs(self.timers.validity_grace_secs),
            record_open_max: self.timers.record_open_secs.map(Span::from_secs),
            record_octets_max: self.charging.record_octets_max,
            partial_triggers: self.charging.partial_record_triggers.clone(),
            tombstone: Span::from_secs(self.charging.tombstone_secs),
            document_margin: Span::from_secs(self.charging.document_margin_secs),
            features: self.features()?,
            quotas_max: usize::from(self.charging.quotas_max),
            refuse_create_without_credit: self.charging.refuse_create_without_credit,
        })
    }

    /// The whole configuration as TOML, secrets masked.
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        shown.store.url = masked(&shown.store.url);
        shown.admin.token = shown.admin.token.map(|_| "***".to_owned());
        toml::to_string(&shown).expect("all settings have a form in TOML")
    }
}

/// A URL without the password that may stand in it.
pub fn masked(url: &str) -> String {
    match (url.split_once("://"), url.rfind('@')) {
        (Some((scheme, _)), Some(at)) => format!("{scheme}://***{}", &url[at..]),
        _ => url.to_owned(),
    }
}

fn both_or_none(part: &str, certificate: &Option<PathBuf>, key: &Option<PathBuf>) -> Result<(), Error> {
    let (there, file, missing) = match (certificate, key) {
        (Some(_), Some(_)) | (None, None) => return Ok(()),
        (Some(file), None) => ("certificate", file, "key"),
        (None, Some(file)) => ("key", file, "certificate"),
    };
    Err(Error::new(&format!("{part}.{there}"), file.display(), &format!("{part}.{missing} is needed with it")))
}

fn address(key: &str, text: &str) -> Result<SocketAddr, Error> {
    text.parse().map_err(|_| Error::new(key, text, "an address with a port is needed, such as 127.0.0.1:8000"))
}

/// What people write for yes and no.
fn switch(key: &str, text: &str) -> Result<bool, Error> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(Error::new(key, text, "true or false is needed")),
    }
}

/// TOML's messages draw the place over several lines; an operator's log has one.
fn one_line(what: &str, error: &toml::de::Error) -> Error {
    Error::line(format!("{what}: {}", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nchf.toml");
        std::fs::write(&file, text).unwrap();
        let name = file.display().to_string();
        Config::load(Some(&file), Overrides::default()).map_err(|error| error.to_string().replace(&name, "FILE"))
    }

    #[test]
    fn an_error_is_one_line_with_key_value_and_what_is_allowed() {
        for (text, says) in [
            ("listn = 1", &["listn", "unknown field", "listen"][..]),
            ("\"a\\nb\" = 1", &["a b", "unknown field"]),
            ("[store]\nurl = \"my\\nsql\"", &["store.url", "my sql", "embedded:DIR"]),
            ("[notify]\nkey = \"a\\nb\"", &["notify.key", "a b", "notify.certificate"]),
            ("[store]\nurl = \"mysql://x\"", &["store.url", "mysql://x", "embedded:DIR"]),
            ("[store]\nurl = \"redis://\"", &["store.url", "redis://host:port"]),
            ("[store]\nurl = \"redis://:6379\"", &["store.url", "redis://host:port"]),
            ("[store]\nurl = \"redis://db:x\"", &["store.url", "redis://db:x", "redis://host:port"]),
            ("[store]\nurl = \"redis://chf:secret@db:70000/0\"", &["store.url", "***@db:70000/0", "redis://host:port"]),
            ("[store]\nurl = \"redis://chf?:secret@db:6379/0\"", &["store.url", "***@db:6379/0", "redis://host:port"]),
            ("[store]\nurl = \"redis://db/first\"", &["store.url", "redis://db/first", "redis://host:port"]),
            ("[store]\nurl = \"redis+sentinel://db:1\"", &["store.url", "redis+sentinel://db:1", "/NAME or"]),
            ("[store]\ndurability = \"replicated\"", &["store.durability = replicated", "Sentinel and Cluster only"]),
            ("[store]\nurl = \"redis+sentinel://db:1/main\"", &["store.replicas = 0", "number of all replicas"]),
            ("[store]\nkey = \"k.pem\"", &["store.key = k.pem", "store.certificate"]),
            ("[store]\ndeadline_ms = \"a\"", &["store.deadline_ms", "u32"]),
            ("[store]\ndeadline_ms = 0", &["store.deadline_ms = 0", "above 0"]),
            ("listen = \"here\"", &["listen", "invalid socket address"]),
            ("admin_listen = \"0.0.0.0:8001\"", &["admin_listen", "0.0.0.0:8001", "admin.token"]),
            ("[charging]\nfailure_handling = \"panic\"", &["charging.failure_handling", "panic", "continue"]),
            ("[charging]\nsupported_features = \"xyz\"", &["charging.supported_features", "xyz", "hexadecimal"]),
            ("[notify]\nallow = [\"::1\", \"10.0.0.0/33\"]", &["notify.allow = 10.0.0.0/33", "0 to 32"]),
            ("[notify]\nallow = [\"127.0.0.1/8\"]", &["notify.allow = 127.0.0.1/8", "127.0.0.0/8"]),
            ("[notify]\nallow = [\"http://smf\"]", &["notify.allow = http://smf", "10.0.0.0/8"]),
            ("[notify]\ndeadline_ms = 0", &["notify.deadline_ms = 0", "above 0"]),
            ("[notify]\nkey = \"k.pem\"", &["notify.key = k.pem", "notify.certificate"]),
            ("[notify]\ncertificate = \"c.pem\"", &["notify.certificate = c.pem", "notify.key"]),
            ("[http]\nin_flight_per_peer_percent = 101", &["http.in_flight_per_peer_percent", "101", "1 to 100"]),
            ("[http]\nin_flight_create_percent = 96", &["http.in_flight_create_percent", "96", "Updates"]),
            ("[http]\napi_root = \"chf\"", &["http.api_root", "chf", "absolute"]),
            ("[charging]\nrecord_octets_max = 4095", &["charging.record_octets_max = 4095", "4096 to 65535"]),
            ("[charging]\nrecord_octets_max = 65536", &["charging.record_octets_max", "4096 to 65535"]),
            (
                "[charging]\npartial_record_triggers = [\"QHT\"]",
                &["charging.partial_record_triggers", "QHT", "RAT_CHANGE"],
            ),
            ("[timers]\nprobe_guard_secs = 0", &["timers.probe_guard_secs = 0", "above 0"]),
            ("[timers]\nabort_guard_secs = 0", &["timers.abort_guard_secs = 0", "above 0"]),
            ("[timers]\nrecord_open_secs = 0", &["timers.record_open_secs = 0", "above 0"]),
            ("cdr_dir = \"\"", &["cdr_dir", "directory"]),
            ("[cdr]\nformats = []", &["cdr.formats", "jsonl, ber or both"]),
            ("[cdr]\nformats = [\"ber\", \"ber\"]", &["cdr.formats", "each once"]),
            ("[cdr]\nformats = [\"xml\"]", &["cdr.formats", "xml", "jsonl"]),
            ("[cdr]\nnode_id = \"a/b\"", &["cdr.node_id = a/b", "1 to 20 letters"]),
            ("[cdr]\nnode_id = \".a\"", &["cdr.node_id = .a", "no dot first"]),
            ("[cdr]\nnode_id = \"\"", &["cdr.node_id", "1 to 20 letters"]),
            ("[cdr]\nrotate_secs = 0", &["cdr.rotate_secs = 0", "above 0"]),
            ("[cdr]\ntakeover_secs = 0", &["cdr.takeover_secs = 0", "above 0"]),
            ("[cdr]\nrotate_records = 0", &["cdr.rotate_records = 0", "above 0"]),
            ("[cdr]\nrotate_bytes = 65535", &["cdr.rotate_bytes = 65535", "65536 to 4000000000"]),
            ("[cdr]\nrotate_bytes = 4000000001", &["cdr.rotate_bytes", "65536 to 4000000000"]),
            ("[http", &["FILE"]),
        ] {
            let error = read(text).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
            for word in says {
                assert!(error.contains(word), "{error} does not say {word}");
            }
        }
    }

    #[test]
    fn the_demo_may_notify_this_machine_and_nobody_else_may() {
        assert_eq!(Config::default().notify_allowed().unwrap(), []);
        let demo = Config { demo: true, ..Config::default() };
        assert_eq!(demo.notify_allowed().unwrap(), Allowed::loopback());
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nchf.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"").unwrap();
        let overrides = Overrides {
            listen: Some("127.0.0.1:3".to_owned()),
            cdr_dir: Some("/var/cdr".into()),
            ..Overrides::default()
        };
        let config = Config::load(Some(&file), overrides).unwrap();
        assert_eq!(config.cdr_dir, Path::new("/var/cdr"));
        assert_eq!(config.listen.port(), 3);
        assert_eq!(config.admin_listen.port(), 2);
        assert_eq!(config.store.url, "embedded:./nchf-data");
    }

    #[test]
    fn whoever_answers_nobody_needs_no_number_of_replicas() {
        let store = Some("redis+sentinel://db:1/main".to_owned());
        let overrides = Overrides { store, ..Overrides::default() };
        let error = Config::load(None, overrides.clone()).unwrap_err().to_string();
        assert!(error.contains("store.replicas = 0"), "{error}");
        let config = Config::load(None, Overrides { promises_nothing: true, ..overrides }).unwrap();
        assert_eq!(config.durability(), Durability::Memory);
    }

    #[test]
    fn what_is_printed_reads_back_and_hides_secrets() {
        let text = "[store]\nurl = \"redis://chf:secret@db:6379/0\"\n[admin]\ntoken = \"secret\"";
        let printed = read(text).unwrap().to_toml();
        assert!(!printed.contains("secret"), "{printed}");
        assert!(printed.contains("redis://***@db:6379/0"), "{printed}");
        assert_eq!(read(&Config::default().to_toml()).unwrap(), Config::default());
    }
}
