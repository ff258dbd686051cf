//! CPU time of processes, as the kernel counts it.

use std::{fs, io};

use super::{CpuFigure, Error};

/// Unit of the times in `/proc/PID/stat`. The kernel fixes it at 100 per second towards programs (`USER_HZ`).
const TICKS_PER_SEC: u64 = 100;

/// CPU time of each process so far, in ticks; the first is this process.
pub(super) struct Reading(Vec<(Option<u32>, u64)>);

impl Reading {
    pub(super) fn take(pids: &[u32]) -> Result<Self, Error> {
        let own = ticks("/proc/self/stat").map_err(|source| Error::Process { pid: std::process::id(), source })?;
        let mut readings = vec![(None, own)];
        for &pid in pids {
            let ticks = ticks(&format!("/proc/{pid}/stat")).map_err(|source| Error::Process { pid, source })?;
            readings.push((Some(pid), ticks));
        }
        Ok(Self(readings))
    }
}

/// What each process used from one reading to another.
pub(super) fn between(before: &Reading, after: &Reading) -> Vec<CpuFigure> {
    let pairs = before.0.iter().zip(&after.0);
    pairs
        .map(|(&(pid, before), &(_, after))| {
            let micros = after.saturating_sub(before) * (1_000_000 / TICKS_PER_SEC);
            CpuFigure { pid, micros, micros_per_message: 0.0 }
        })
        .collect()
}

fn ticks(path: &str) -> io::Result<u64> {
    let stat = fs::read_to_string(path)?;
    parse(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} has an unknown form")))
}

/// User and system time, fields 14 and 15. The second field is the program's name in brackets and may contain anything.
fn parse(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_look_like_fields() {
        let stat = "42 (a) 1 2 (b) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 2 0 100 0 0";
        assert_eq!(parse(stat), Some(200));
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(Reading::take(&[std::process::id()]).is_ok());
    }
}
