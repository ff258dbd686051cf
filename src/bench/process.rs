//! CPU time and memory of processes, as the kernel counts them.

use std::{fs, io};

use super::Error;
use super::report::{CpuFigure, MemoryFigure};

/// Unit of the times in `/proc/PID/stat`. The kernel fixes it at 100 per second towards programs (`USER_HZ`).
const TICKS_PER_SEC: u64 = 100;

/// CPU time so far, in ticks, and memory, in KiB, of each process; the first is this one.
pub(super) struct Reading(Vec<Process>);

struct Process {
    pid: Option<u32>,
    ticks: u64,
    resident_kib: u64,
}

impl Reading {
    pub(super) fn take(pids: &[u32]) -> Result<Self, Error> {
        [None].into_iter().chain(pids.iter().copied().map(Some)).map(Process::read).collect::<Result<_, _>>().map(Self)
    }
}

/// What each process used from one reading to another.
pub(super) fn cpu_between(before: &Reading, after: &Reading) -> Vec<CpuFigure> {
    let pairs = before.0.iter().zip(&after.0);
    pairs
        .map(|(before, after)| CpuFigure {
            pid: before.pid,
            micros: before.micros_until(after),
            micros_per_message: 0.0,
        })
        .collect()
}

/// What each process had of memory over some readings, the first and the last among them.
pub(super) fn memory_over(readings: &[Reading]) -> Vec<MemoryFigure> {
    let (Some(first), Some(last)) = (readings.first(), readings.last()) else { return Vec::new() };
    let figure = |(at, (first, last)): (usize, (&Process, &Process))| MemoryFigure {
        pid: first.pid,
        start_kib: first.resident_kib,
        end_kib: last.resident_kib,
        peak_kib: readings.iter().map(|reading| reading.0[at].resident_kib).max().unwrap_or_default(),
    };
    first.0.iter().zip(&last.0).enumerate().map(figure).collect()
}

impl Process {
    fn read(pid: Option<u32>) -> Result<Self, Error> {
        let read = || {
            let directory = pid.map_or("/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
            let [ticks, resident_kib] =
                [("stat", ticks as fn(&str) -> Option<u64>), ("status", resident_kib)].map(|(name, parse)| {
                    let path = format!("{directory}/{name}");
                    let unknown = || io::Error::new(io::ErrorKind::InvalidData, format!("{path} has an unknown form"));
                    parse(&fs::read_to_string(&path)?).ok_or_else(unknown)
                });
            Ok(Self { pid, ticks: ticks?, resident_kib: resident_kib? })
        };
        read().map_err(|source| Error::Process { pid: pid.unwrap_or_else(std::process::id), source })
    }

    fn micros_until(&self, after: &Self) -> u64 {
        after.ticks.saturating_sub(self.ticks) * (1_000_000 / TICKS_PER_SEC)
    }
}

/// User and system time, fields 14 and 15. The second field is the program's name in brackets and may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_look_like_fields() {
        let stat = "42 (a) 1 2 (b) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 2 0 100 0 0";
        assert_eq!(ticks(stat), Some(200));
    }

    #[test]
    fn resident_memory_is_found_among_other_lines() {
        assert_eq!(resident_kib("Name:\tVmRSS\nVmHWM:\t  9 kB\nVmRSS:\t    5308 kB\nRssAnon:\t 1 kB\n"), Some(5308));
        assert_eq!(resident_kib("Name:\tkworker\n"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let reading = Reading::take(&[std::process::id()]).unwrap();
        let memory = memory_over(&[reading]);
        assert_eq!(memory.len(), 2);
        assert!(memory.iter().all(|figure| figure.peak_kib > 0 && figure.start_kib == figure.end_kib));
    }
}
