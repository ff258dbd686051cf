//! The figures of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{fmt, fs, io};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::message::Operation;

/// Kinds of errors that are told apart. A charging function that invents a new one for every answer must not fill the
/// memory of its generator.
const ERROR_KINDS_MAX: usize = 64;

/// What consumers counted.
#[derive(Default)]
pub(super) struct Tally {
    latencies: [Latencies; 3],
    errors: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn answered(&mut self, operation: Operation, after: Duration) {
        self.latencies[operation as usize].0.saturating_record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn failed(&mut self, kind: String) {
        self.count_error(kind, 1);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (mine, others) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.add(others);
        }
        for (kind, count) in &other.errors {
            self.count_error(kind.clone(), *count);
        }
    }

    fn count_error(&mut self, kind: String, count: u64) {
        let full = self.errors.len() >= ERROR_KINDS_MAX && !self.errors.contains_key(&kind);
        let kind = if full { "other".to_owned() } else { kind };
        *self.errors.entry(kind).or_default() += count;
    }
}

/// Microseconds from the request to the whole answer, three digits exact, up to a minute.
#[derive(Clone)]
struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are valid"))
    }
}

impl Latencies {
    fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    fn figures(&self) -> Figures {
        Figures {
            messages: self.0.len(),
            p50_micros: self.0.value_at_quantile(0.50),
            p90_micros: self.0.value_at_quantile(0.90),
            p99_micros: self.0.value_at_quantile(0.99),
            max_micros: self.0.max(),
        }
    }
}

/// The result of a run. `Display` is a table for people.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub elapsed_secs: f64,
    /// Answers that were right, per second.
    pub messages_per_sec: f64,
    pub all: Figures,
    pub create: Figures,
    pub update: Figures,
    pub release: Figures,
    /// Answers that were wrong and requests that got none, by kind.
    pub errors: BTreeMap<String, u64>,
    pub cpu: Vec<CpuFigure>,
}

/// Right answers of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    pub messages: u64,
    pub p50_micros: u64,
    pub p90_micros: u64,
    pub p99_micros: u64,
    pub max_micros: u64,
}

/// CPU time, user and system, of one process during the measured time.
#[derive(Clone, Debug, Serialize)]
pub struct CpuFigure {
    /// `None` is the generator itself.
    pub pid: Option<u32>,
    pub micros: u64,
    pub micros_per_message: f64,
}

impl Report {
    pub(super) fn new(tally: &Tally, elapsed: Duration, mut cpu: Vec<CpuFigure>) -> Self {
        let mut all = Latencies::default();
        tally.latencies.iter().for_each(|latencies| all.add(latencies));
        let all = all.figures();
        for process in &mut cpu {
            process.micros_per_message = per(process.micros as f64, all.messages as f64);
        }
        let of = |operation: Operation| tally.latencies[operation as usize].figures();
        Self {
            elapsed_secs: elapsed.as_secs_f64(),
            messages_per_sec: per(all.messages as f64, elapsed.as_secs_f64()),
            all,
            create: of(Operation::Create),
            update: of(Operation::Update),
            release: of(Operation::Release),
            errors: tally.errors.clone(),
            cpu,
        }
    }

    pub(super) fn write_json(&self, path: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        fs::write(path, json)
    }
}

fn per(amount: f64, count: f64) -> f64 {
    if count > 0.0 { amount / count } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.0} messages/s for {:.1} s", self.messages_per_sec, self.elapsed_secs)?;
        writeln!(f)?;
        writeln!(f, "{:<8} {:>10} {:>9} {:>9} {:>9} {:>9}", "", "messages", "p50 ms", "p90 ms", "p99 ms", "max ms")?;
        let rows = [("create", self.create), ("update", self.update), ("release", self.release), ("all", self.all)];
        for (name, row) in rows {
            let [p50, p90, p99, max] =
                [row.p50_micros, row.p90_micros, row.p99_micros, row.max_micros].map(|micros| micros as f64 / 1000.0);
            writeln!(f, "{name:<8} {:>10} {p50:>9.2} {p90:>9.2} {p99:>9.2} {max:>9.2}", row.messages)?;
        }
        writeln!(f)?;
        if self.errors.is_empty() {
            writeln!(f, "no errors")?;
        }
        for (kind, count) in &self.errors {
            writeln!(f, "{count:>10} x {kind}")?;
        }
        writeln!(f)?;
        for process in &self.cpu {
            let name = process.pid.map_or("generator".to_owned(), |pid| format!("pid {pid}"));
            writeln!(f, "{name:<12} {:>7.1} us of CPU per message", process.micros_per_message)?;
        }
        Ok(())
    }
}
