//! A Redis or Valkey of the test's own: on a free port, in a directory of its own, ended with the test, or with the
//! process of the tests however that ends.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::Value;

/// What runs as a server: Redis, or Valkey.
#[derive(Clone, Debug, PartialEq)]
pub struct Program(PathBuf);

impl Program {
    pub fn redis() -> Self {
        Self("redis-server".into())
    }

    /// The one named by `NCHF_TEST_VALKEY`, else the one on the path, else the one that `scripts/test` has installed.
    /// `None` only where the variable says `none`: nothing is left out without a word.
    pub fn valkey() -> Option<Self> {
        let named = std::env::var_os("NCHF_TEST_VALKEY").filter(|named| !named.is_empty());
        if named.as_ref().is_some_and(|named| named == "none") {
            return None;
        }
        let installed = || {
            let tools = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.tools")).ok()?;
            let directories = tools.filter_map(|entry| Some(entry.ok()?.path()));
            directories.map(|directory| directory.join("valkey-server")).find(|program| program.is_file())
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut on_path = std::env::split_paths(&path).map(|directory| directory.join("valkey-server"));
        let found = named.map(PathBuf::from).or_else(|| on_path.find(|program| program.is_file())).or_else(installed);
        Some(Self(found.expect(
            "these tests need a valkey-server: run scripts/test once, or name one in NCHF_TEST_VALKEY, or leave Valkey out \
             with NCHF_TEST_VALKEY=none",
        )))
    }

    /// Redis, and Valkey unless it is left out.
    pub fn all() -> impl Iterator<Item = Self> {
        [Some(Self::redis()), Self::valkey()].into_iter().flatten()
    }
}

pub struct Server {
    program: Program,
    options: Vec<String>,
    port: u16,
    /// Removed with the server.
    _directory: tempfile::TempDir,
    process: Option<Process>,
}

/// The shell that watches over a server, and the server.
pub struct Process {
    shell: Child,
    id: u32,
}

/// Ends the server when the tests are gone, which closes the shell's standard input.
const WATCHED: &str =
    "exec 3<&0; \"$@\" 3<&- >/dev/null & s=$!; echo $s; { read x <&3; kill -9 $s; } & r=$!; wait $s; kill $r";

impl Server {
    /// Without persistence unless the options say otherwise.
    pub fn redis(options: &[&str]) -> Self {
        Self::start(Program::redis(), options)
    }

    pub fn start(program: Program, options: &[&str]) -> Self {
        let data = ["--save", "", "--appendonly", "no"];
        let options = data.iter().chain(options).map(ToString::to_string).collect();
        Self::new(program, tempfile::tempdir().unwrap(), options)
    }

    /// A sentinel that watches a master called `main` and replaces it when so many sentinels agree. Impatient: a master
    /// is gone that was silent for half a second.
    pub fn sentinel(program: Program, master: u16, quorum: usize) -> Self {
        Self::sentinel_with(program, master, quorum, "")
    }

    /// As [`Server::sentinel`], with more lines of settings.
    pub fn sentinel_with(program: Program, master: u16, quorum: usize, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentinel.conf");
        let settings = format!(
            "sentinel monitor main 127.0.0.1 {master} {quorum}\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n{more}\n"
        );
        std::fs::write(&file, settings).unwrap();
        Self::new(program, directory, vec![file.display().to_string(), "--sentinel".into()])
    }

    fn new(program: Program, directory: tempfile::TempDir, mut options: Vec<String>) -> Self {
        let port = free_port();
        // A file of settings stands first.
        let at = usize::from(options.first().is_some_and(|first| !first.starts_with("--")));
        let own =
            ["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir", &directory.path().display().to_string()];
        options.splice(at..at, own.map(ToString::to_string));
        let mut server = Self { program, options, port, _directory: directory, process: None };
        server.restart();
        server
    }

    /// Starts it on the same port with the same data, and waits until it serves.
    pub fn restart(&mut self) {
        let name = self.program.0.display();
        self.process = Some(Process::start(Command::new(&self.program.0).args(&self.options)));
        for _ in 0..500 {
            if self.try_ask(&["PING"]).is_ok() {
                return;
            }
            let process = self.process.as_mut().unwrap();
            assert!(
                !process.has_ended(),
                "{name} ended: is port {} taken? These tests need it (apt-get install redis-server; Redis 7.0 or later)",
                self.port
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{name} does not answer");
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// As a machine that stops in its tracks: connections stay open, and nothing is answered.
    pub fn pause(&self) {
        self.process.as_ref().unwrap().signal("STOP");
    }

    pub fn resume(&self) {
        self.process.as_ref().unwrap().signal("CONT");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command of the operator's.
    pub fn ask(&self, command: &[&str]) -> Value {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    pub fn ask_text(&self, command: &[&str]) -> String {
        redis::from_redis_value(self.ask(command)).unwrap()
    }

    /// An answer of names and values.
    pub fn ask_map(&self, command: &[&str]) -> HashMap<String, String> {
        redis::from_redis_value(self.ask(command)).unwrap()
    }

    pub fn ask_number(&self, command: &[&str]) -> i64 {
        redis::from_redis_value(self.ask(command)).unwrap()
    }

    /// As if nothing had ever been written.
    pub fn empty(&self) {
        self.ask(&["FLUSHALL"]);
        self.ask(&["FUNCTION", "FLUSH"]);
    }

    /// All keys, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = redis::from_redis_value(self.ask(&["KEYS", "*"])).unwrap();
        keys.sort_unstable();
        keys
    }

    /// Every key with its content, as Redis would restore it.
    pub fn content(&self) -> Vec<(String, Vec<u8>)> {
        let dump = |key: String| {
            let dumped = redis::from_redis_value(self.ask(&["DUMP", &key])).unwrap();
            (key, dumped)
        };
        self.keys().into_iter().map(dump).collect()
    }

    /// How often Redis ran a command since it started.
    pub fn calls_of(&self, command: &str) -> u64 {
        self.commandstats(command, "calls").unwrap_or(0.0) as u64
    }

    /// How often Redis read from a connection since it started.
    pub fn reads(&self) -> u64 {
        let stats = self.ask_text(&["INFO", "stats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        line.and_then(|count| count.parse().ok()).unwrap()
    }

    pub fn commandstats(&self, command: &str, field: &str) -> Option<f64> {
        let stats = self.ask_text(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")))?;
        line.split(',').find_map(|pair| pair.strip_prefix(&format!("{field}=")))?.parse().ok()
    }

    pub fn try_ask(&self, command: &[&str]) -> redis::RedisResult<Value> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    }
}

impl Process {
    /// A program and its arguments; ended with the tests, however these end.
    pub fn start(command: &Command) -> Self {
        let mut watched = Command::new("sh");
        watched.args(["-c", WATCHED, "sh"]).arg(command.get_program()).args(command.get_args());
        watched.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let start = watched.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut shell = start.unwrap_or_else(|error| panic!("these tests need a shell: {error}"));
        let mut id = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut id).unwrap();
        Self { shell, id: id.trim().parse().unwrap() }
    }

    pub fn has_ended(&mut self) -> bool {
        self.shell.try_wait().unwrap().is_some()
    }

    pub fn kill(mut self) {
        self.signal("KILL");
        // Not closed before the shell has seen the server's end, else it would end it once more.
        let _watching = self.shell.stdin.take();
        self.shell.wait().unwrap();
    }

    fn signal(&self, name: &str) {
        // It may have ended by itself.
        let _sent = Command::new("kill").args(["-s", name, &self.id.to_string()]).stderr(Stdio::null()).status();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Below the ports that the system gives to outgoing connections, so that none of these takes it before a restart.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(37);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let candidate = || 20_000 + (start.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % 10_000) as u16;
    std::iter::repeat_with(candidate).take(1000).find(free).expect("one of a thousand ports is free")
}
