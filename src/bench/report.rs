//! The figures of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{fmt, fs, io};

use serde::Serialize;

use super::args::Scenario;
use super::message::Operation;
use super::plot;
use super::tally::{Latencies, Tally};

/// The result of a run. `Display` is a table for people.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub scenario: Scenario,
    /// Of an open loop: messages that were to be sent in a second.
    pub rate_asked: Option<f64>,
    pub elapsed_secs: f64,
    /// Answers that were right, per second.
    pub messages_per_sec: f64,
    pub all: Figures,
    pub create: Figures,
    pub update: Figures,
    pub release: Figures,
    pub event: Figures,
    /// Messages that were sent once more, and got the same answer.
    pub copy: Figures,
    /// Of an open loop: all that was right, from when it was sent. What is less than in `all` was waited for a stream.
    pub from_sending: Figures,
    /// Answers that say that nothing was done, and when to come again.
    pub refused: Figures,
    /// Answers that were wrong and requests that got none, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Of an open loop: messages that were due and found no stream free until the end.
    pub unsent: u64,
    /// Messages that this generator sent a millisecond or more too late although a stream was free, and the most that
    /// it was late.
    pub late: u64,
    pub late_max_micros: u64,
    /// Sessions that could not be released after the measured time.
    pub left_open: u64,
    pub cpu: Vec<CpuFigure>,
    pub memory: Vec<MemoryFigure>,
    pub over_time: Vec<Moment>,
    /// What makes the figures less than they seem.
    pub warnings: Vec<String>,
}

/// Answers of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    pub messages: u64,
    pub p50_micros: u64,
    pub p90_micros: u64,
    pub p99_micros: u64,
    pub p999_micros: u64,
    pub max_micros: u64,
}

/// CPU time, user and system, of one process during the measured time.
#[derive(Clone, Debug, Serialize)]
pub struct CpuFigure {
    /// `None` is the generator itself.
    pub pid: Option<u32>,
    pub micros: u64,
    /// For each right answer.
    pub micros_per_message: f64,
}

/// Resident memory of one process: at the start and the end of the measured time, and the most seen in between.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryFigure {
    pub pid: Option<u32>,
    pub start_kib: u64,
    pub end_kib: u64,
    pub peak_kib: u64,
}

/// One part of the measured time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Moment {
    pub from_secs: u64,
    pub secs: u64,
    pub answered: u64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub refused: u64,
    pub failed: u64,
}

/// What a run knows besides what its streams counted.
pub(super) struct Circumstances {
    pub(super) scenario: Scenario,
    pub(super) rate_asked: Option<f64>,
    pub(super) elapsed: Duration,
    pub(super) unsent: u64,
    pub(super) left_open: u64,
    pub(super) threads: usize,
    pub(super) cpu: Vec<CpuFigure>,
    pub(super) memory: Vec<MemoryFigure>,
}

/// A generator that is this busy, in per cent of its threads, may be what limits the rate.
const BUSY_PERCENT: f64 = 95.0;

impl Report {
    pub(super) fn new(tally: &Tally, run: Circumstances) -> Self {
        let Circumstances { scenario, rate_asked, elapsed, unsent, left_open, threads, mut cpu, memory } = run;
        let mut all = Latencies::fine();
        tally.answered.iter().for_each(|latencies| all.add(latencies));
        let all = Figures::of(&all);
        let of = |operation: Operation| Figures::of(&tally.answered[operation as usize]);
        for process in &mut cpu {
            process.micros_per_message = per(process.micros as f64, all.messages as f64);
        }
        let mut report = Self {
            scenario,
            rate_asked,
            elapsed_secs: elapsed.as_secs_f64(),
            messages_per_sec: per(all.messages as f64, elapsed.as_secs_f64()),
            all,
            create: of(Operation::Create),
            update: of(Operation::Update),
            release: of(Operation::Release),
            event: of(Operation::Event),
            copy: of(Operation::Copy),
            from_sending: Figures::of(&tally.from_sending),
            refused: Figures::of(&tally.refused),
            errors: tally.errors.clone(),
            unsent,
            late: tally.lag.messages,
            late_max_micros: u64::try_from(tally.lag.max.as_micros()).unwrap_or(u64::MAX),
            left_open,
            cpu,
            memory,
            over_time: moments(tally, elapsed),
            warnings: Vec::new(),
        };
        report.warnings = report.warn(threads);
        report
    }

    fn warn(&self, threads: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        let own = self.cpu.iter().find(|process| process.pid.is_none()).map_or(0, |process| process.micros);
        let busy = per(own as f64 / 1e4, self.elapsed_secs * threads as f64);
        if busy >= BUSY_PERCENT {
            warnings.push(format!("the generator used {busy:.0} % of its threads' time: it may be the limit"));
        }
        if self.late > 0 {
            let (late, max) = (self.late, self.late_max_micros as f64 / 1e3);
            warnings.push(format!(
                "the generator itself sent {late} messages a millisecond late or more, up to {max:.1} ms"
            ));
        }
        if self.unsent > 0 {
            let unsent = self.unsent;
            warnings.push(format!("{unsent} messages were due and never sent: all streams were waiting for answers"));
        }
        if self.left_open > 0 {
            warnings.push(format!("{} sessions could not be released", self.left_open));
        }
        warnings
    }

    pub(super) fn write_json(&self, path: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        fs::write(path, json)
    }
}

impl Figures {
    fn of(latencies: &Latencies) -> Self {
        Self {
            messages: latencies.count(),
            p50_micros: latencies.at_quantile(0.50),
            p90_micros: latencies.at_quantile(0.90),
            p99_micros: latencies.at_quantile(0.99),
            p999_micros: latencies.at_quantile(0.999),
            max_micros: latencies.max(),
        }
    }
}

fn moments(tally: &Tally, elapsed: Duration) -> Vec<Moment> {
    let secs = tally.slot.as_secs();
    let has_begun = |from_secs: u64| Duration::from_secs(from_secs) < elapsed;
    (tally.slots.iter().enumerate())
        .map(|(at, slot)| Moment {
            from_secs: at as u64 * secs,
            secs,
            answered: slot.latencies.count(),
            p50_micros: slot.latencies.at_quantile(0.50),
            p99_micros: slot.latencies.at_quantile(0.99),
            refused: slot.refused,
            failed: slot.failed,
        })
        .take_while(|moment| has_begun(moment.from_secs))
        .collect()
}

fn per(amount: f64, count: f64) -> f64 {
    if count > 0.0 { amount / count } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} messages/s for {:.1} s", self.messages_per_sec, self.elapsed_secs)?;
        match self.rate_asked {
            Some(rate) => writeln!(f, ", of {rate:.0} due in a second")?,
            None => writeln!(f)?,
        }
        writeln!(f)?;
        let head = ["messages", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"];
        let [messages, p50, p90, p99, p999, max] = head;
        writeln!(f, "{:<8} {messages:>10} {p50:>9} {p90:>9} {p99:>9} {p999:>9} {max:>9}", "")?;
        let kinds = [
            ("create", self.create),
            ("update", self.update),
            ("release", self.release),
            ("event", self.event),
            ("copy", self.copy),
            ("refused", self.refused),
        ];
        let there = kinds.into_iter().filter(|(_, row)| row.messages > 0);
        let sent = [("as sent", self.from_sending)].into_iter().filter(|(_, row)| row.messages > 0);
        for (name, row) in there.chain([("all right", self.all)]).chain(sent) {
            let times = [row.p50_micros, row.p90_micros, row.p99_micros, row.p999_micros, row.max_micros];
            let [p50, p90, p99, p999, max] = times.map(|micros| micros as f64 / 1000.0);
            writeln!(f, "{name:<9}{:>10} {p50:>9.2} {p90:>9.2} {p99:>9.2} {p999:>9.2} {max:>9.2}", row.messages)?;
        }
        writeln!(f)?;
        if self.errors.is_empty() {
            writeln!(f, "no errors")?;
        }
        for (kind, count) in &self.errors {
            writeln!(f, "{count:>10} x {kind}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "note: {warning}")?;
        }
        writeln!(f)?;
        for (process, memory) in self.cpu.iter().zip(&self.memory) {
            let name = process.pid.map_or("generator".to_owned(), |pid| format!("pid {pid}"));
            let [start, end, peak] = [memory.start_kib, memory.end_kib, memory.peak_kib].map(|kib| kib as f64 / 1024.0);
            writeln!(
                f,
                "{name:<12} {:>7.1} us of CPU per message, memory {start:.1} MiB at the start, {end:.1} at the end, \
                 {peak:.1} at most",
                process.micros_per_message
            )?;
        }
        writeln!(f)?;
        plot::draw(f, &self.over_time)
    }
}
