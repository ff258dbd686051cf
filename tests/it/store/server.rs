//! A Redis or Valkey of the test's own: on a free port, in a directory of its own, ended with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::Value;

pub struct Server {
    program: PathBuf,
    options: Vec<String>,
    port: u16,
    directory: tempfile::TempDir,
    process: Option<Child>,
}

impl Server {
    /// Without persistence unless the options say otherwise.
    pub fn redis(options: &[&str]) -> Self {
        Self::start("redis-server".into(), options)
    }

    /// The program named by `NCHF_TEST_VALKEY`, else the one on the path; `None` where there is neither.
    pub fn valkey(options: &[&str]) -> Option<Self> {
        let named = std::env::var_os("NCHF_TEST_VALKEY").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut found = std::env::split_paths(&path).map(|directory| directory.join("valkey-server"));
        let program = named.or_else(|| found.find(|program| program.is_file()))?;
        Some(Self::start(program, options))
    }

    fn start(program: PathBuf, options: &[&str]) -> Self {
        let mut server = Self {
            program,
            options: options.iter().map(ToString::to_string).collect(),
            port: free_port(),
            directory: tempfile::tempdir().unwrap(),
            process: None,
        };
        server.restart();
        server
    }

    /// Starts it on the same port with the same data, and waits until it serves.
    pub fn restart(&mut self) {
        let start = Command::new(&self.program)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "no"])
            .args(&self.options)
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .spawn();
        let name = self.program.display();
        let process = start.unwrap_or_else(|error| {
            panic!("these tests need {name} (apt-get install redis-server; Redis 7.0 or later): {error}")
        });
        self.process = Some(process);
        for _ in 0..500 {
            if self.try_ask(&["PING"]).is_ok() {
                return;
            }
            let process = self.process.as_mut().unwrap();
            assert!(process.try_wait().unwrap().is_none(), "{name} ended: is port {} taken?", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{name} does not answer");
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
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

    pub fn ask_number(&self, command: &[&str]) -> i64 {
        redis::from_redis_value(self.ask(command)).unwrap()
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

    fn try_ask(&self, command: &[&str]) -> redis::RedisResult<Value> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Below the ports that the system gives to outgoing connections, so that none of these takes it before a restart.
fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(37);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let candidate = || 20_000 + (start.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % 10_000) as u16;
    std::iter::repeat_with(candidate).take(1000).find(free).expect("one of a thousand ports is free")
}
