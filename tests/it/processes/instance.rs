//! An instance as a process of its own, and where it keeps things.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// What an instance is started with, again and again.
#[derive(Clone)]
pub struct Place {
    /// Of record files, and beside it what else belongs to the instance.
    directory: Arc<tempfile::TempDir>,
    store: String,
    settings: String,
    /// Where it charges, and where its operator's side is; 0 for a port that is new each time.
    ports: [u16; 2],
}

/// A busy machine makes everybody slow.
const PATIENT: &str = "
    store.deadline_ms = 10000
    http.deadline_ms = 30000
";

impl Place {
    /// `settings` are lines of TOML.
    pub fn new(store: &str, settings: &str) -> Self {
        Self::at([0, 0], store, &format!("{PATIENT}{settings}"))
    }

    /// One that is found again after each start, and has the deadlines that are usual.
    pub fn at(ports: [u16; 2], store: &str, settings: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self { directory, store: store.to_owned(), settings: settings.to_owned(), ports }
    }

    pub fn embedded(settings: &str) -> Self {
        let place = Self::new("", settings);
        let store = format!("embedded:{}", place.directory.path().join("store").display());
        Self { store, ..place }
    }

    /// Octets of the embedded store.
    pub fn store_length(&self) -> u64 {
        let files = std::fs::read_dir(self.directory.path().join("store")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).max().unwrap()
    }

    pub fn records(&self) -> PathBuf {
        self.directory.path().join("cdr")
    }

    pub async fn start(&self) -> Instance {
        self.try_start().await.unwrap_or_else(|log| panic!("it ends: {log:#?}"))
    }

    /// What it said if it ended before it served.
    pub async fn try_start(&self) -> Result<Instance, Vec<String>> {
        self.try_start_of(&program()).await
    }

    /// The same of another build.
    pub async fn try_start_of(&self, program: &OsStr) -> Result<Instance, Vec<String>> {
        self.run(Command::new(program)).await
    }

    /// No file that it writes may grow beyond some blocks of 512 octets; as on a full disk, writing is an error then.
    pub async fn start_with_files_of_at_most(&self, blocks: u64) -> Instance {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &blocks.to_string()]).arg(program());
        self.run(shell).await.unwrap_or_else(|log| panic!("it ends: {log:#?}"))
    }

    async fn run(&self, mut command: Command) -> Result<Instance, Vec<String>> {
        let file = self.directory.path().join("nchf.toml");
        let always = "
            workers = 1
            notify.allow = ['127.0.0.0/8']
        ";
        std::fs::write(&file, format!("{always}{}", self.settings)).unwrap();
        let [nchf, operator] = self.ports.map(|port| format!("127.0.0.1:{port}"));
        command.args(["serve", "--listen", &nchf, "--admin-listen", &operator]);
        command.arg("--config").arg(file).arg("--cdr-dir").arg(self.records()).args(["--store", &self.store]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || Instance::spawn(command)).await.unwrap()
    }
}

/// The one named by `NCHF_TEST_PROGRAM`, else the one that was built with the tests.
pub fn program() -> OsString {
    std::env::var_os("NCHF_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_nchf").into())
}

/// Ended with the test, however that ends.
pub struct Instance {
    process: Child,
    /// Where it charges, and where its operator's side is.
    pub addresses: [SocketAddr; 2],
    log: Arc<Mutex<Vec<String>>>,
}

impl Instance {
    fn spawn(mut command: Command) -> Result<Self, Vec<String>> {
        let mut process = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (errors, lines) = (process.stderr.take().unwrap(), Arc::clone(&log));
        let reading = std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut address = || {
            let line = said.next()?.unwrap();
            let address = line.rsplit_once("http://").unwrap().1.trim_end_matches("/docs");
            address.parse().ok()
        };
        let (Some(nchf), Some(operator)) = (address(), address()) else {
            process.wait().unwrap();
            reading.join().unwrap();
            return Err(log.lock().unwrap().clone());
        };
        Ok(Self { process, addresses: [nchf, operator], log })
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn wake(&self) {
        self.signal("CONT");
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let mut status = None;
        super::until("it ends when it is asked to", async || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success(), "{status:?} {:#?}", self.log.lock().unwrap());
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// What it holds of the machine's memory.
    pub fn resident_octets(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// How many lines of its log say something.
    pub fn says(&self, words: &str) -> usize {
        self.lines(words).len()
    }

    /// Lines of its log that say something.
    pub fn lines(&self, words: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            self.kill();
        }
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            println!("the last lines of process {}: {:#?}", self.process.id(), &log[log.len().saturating_sub(30)..]);
        }
    }
}

/// Names in a directory that mediation does not look at.
pub fn hidden(directory: &Path) -> Vec<String> {
    names(directory).into_iter().filter(|name| name.starts_with('.')).collect()
}

/// The hidden file that records are collected in.
pub fn has_open_file(directory: &Path) -> bool {
    hidden(directory).iter().any(|name| name.ends_with(".open"))
}

pub fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
