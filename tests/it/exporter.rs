//! The exporter of records with a store that fails at each of its steps, and with another exporter that works while it
//! stands still.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nchf::charging::time::Span;
use nchf::clock::ManualClock;
use nchf::config::Config;
use nchf::store::{Partition, Store};
use nchf::workers::records::{Error, Records, Times};
use serde_json::{Value, json};

use crate::support::World;
use crate::support::behind::Behind;
use crate::support::faulty::{Faulty, Trouble};
use crate::support::world::{START, request};

/// A world whose records are exported through a faulty store.
struct Lab {
    world: World,
    store: Arc<Behind<Faulty>>,
    /// When a session was charged, by its reference.
    expected: BTreeMap<String, String>,
    /// All directories there were.
    directories: Vec<tempfile::TempDir>,
    sessions: u32,
}

/// Longer than a directory counts as attended to, and than a file is open.
const LONG: u32 = 1000;

impl Lab {
    async fn new() -> Self {
        let clock = ManualClock::at(START.parse::<jiff::Timestamp>().unwrap().into());
        let store = Faulty::before_memory(&clock);
        let world = World::over(Arc::clone(&store) as Arc<dyn Store>, clock, Config::default()).await;
        Self { world, store, expected: BTreeMap::new(), directories: Vec::new(), sessions: 0 }
    }

    fn exporter(&mut self) -> Records {
        // Thousands of files that need not outlive anything: in memory, where that can be had.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        self.directories.push(directory.unwrap());
        self.exporter_of(self.directories.last().unwrap().path())
    }

    fn exporter_of(&self, directory: &Path) -> Records {
        let settings = Config::default().cdr_files();
        let times = Times { retention: Span::from_secs(86_400), attended: Span::from_secs(30) };
        Records::new(self.world.app.clone(), directory.to_owned(), settings, times).unwrap()
    }

    /// A session of each of some subscribers. `when` is said when its record is missing or there twice.
    async fn charge(&mut self, when: &str, subscribers: &[u32]) {
        for subscriber in subscribers {
            self.sessions += 1;
            let create = json!({
                "subscriberIdentifier": format!("imsi-00101{subscriber:010}"),
                "invocationTimeStamp": format!("2026-01-15T10:00:00.{:06}Z", self.sessions),
                "multipleUnitUsage": [{ "ratingGroup": 10, "requestedUnit": {} }],
            });
            let created = self.world.create(&request(1, create)).await;
            self.world.release(&created, &request(2, json!({ "subscriberIdentifier": null }))).await.expect(204);
            self.expected.insert(created.reference(), when.to_owned());
        }
    }

    async fn step(&self, exporter: &mut Records) -> Result<(), Error> {
        let now = self.world.app.shared.clock.now();
        let work = self.store.look(&Partition::all().collect::<Vec<_>>(), now).await.unwrap();
        let waiting = work.into_iter().map(|work| (work.partition, work.records)).filter(|(_, records)| *records > 0);
        self.store.counts.store(true, Ordering::Relaxed);
        let done = exporter.step(&waiting.collect()).await;
        self.store.counts.store(false, Ordering::Relaxed);
        done
    }

    /// Each session's record is in one file, and the numbers count from 0 on.
    fn check(&self) {
        let mut records: Vec<Value> = Vec::new();
        for directory in &self.directories {
            for entry in std::fs::read_dir(directory.path()).unwrap() {
                let path = entry.unwrap().path();
                if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                    let text = std::fs::read_to_string(path).unwrap();
                    records.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
                }
            }
        }
        let mut found: BTreeMap<&str, u32> = BTreeMap::new();
        for record in &records {
            *found.entry(record["ref"].as_str().unwrap()).or_default() += 1;
        }
        let mut wrong = Vec::new();
        for (reference, when) in &self.expected {
            let times = found.get(reference.as_str()).copied().unwrap_or(0);
            if times != 1 {
                wrong.push(format!("{when}: {times} times"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let mut numbers: Vec<_> =
            records.iter().map(|record| record["localRecordSequenceNumber"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..records.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn each_record_comes_out_once_whichever_call_to_the_store_fails() {
    let mut lab = Lab::new().await;
    for trouble in [Trouble::Refused, Trouble::AnswerLost] {
        for restarts in [false, true] {
            for calls in 0.. {
                let when = format!("{trouble:?} after {calls} calls, restarts: {restarts}");
                let mut exporter = lab.exporter();
                let directory = lab.directories.last().unwrap().path().to_owned();
                lab.store.arm(calls, trouble);
                // Into an open file, once more into the same one, and out; in between more comes.
                for (subscribers, secs) in [(&[1, 2][..], 1), (&[1, 3], 1), (&[2], LONG), (&[1, 2], 1), (&[3], LONG)] {
                    lab.charge(&when, subscribers).await;
                    lab.world.tick(secs);
                    if lab.step(&mut exporter).await.is_err() && restarts {
                        drop(exporter);
                        exporter = lab.exporter_of(&directory);
                    }
                }
                let is_beyond = lab.store.disarm();
                for _ in 0..3 {
                    lab.step(&mut exporter).await.unwrap();
                    lab.world.tick(LONG);
                }
                if is_beyond {
                    break;
                }
            }
        }
    }
    lab.check();
}

#[tokio::test]
async fn each_record_comes_out_once_although_another_exporter_takes_over_at_any_step() {
    let mut lab = Lab::new().await;
    for trouble in [Trouble::FrozenBefore, Trouble::FrozenAfter, Trouble::Refused, Trouble::AnswerLost] {
        for calls in 0.. {
            let when = format!("{trouble:?} after {calls} calls");
            let (mut one, mut other) = (lab.exporter(), lab.exporter());
            lab.store.arm(calls, trouble);
            for (subscribers, secs) in [(&[1, 2][..], 1), (&[1, 3], 1), (&[2], LONG), (&[1, 2], 1), (&[3], 1)] {
                lab.charge(&when, subscribers).await;
                lab.world.tick(secs);
                let mut step = Box::pin(lab.step(&mut one));
                let frozen = tokio::select! {
                    biased;
                    done = &mut step => done.map_or(Some(None), |()| None),
                    () = lab.store.frozen.notified() => Some(Some(step)),
                };
                if let Some(frozen) = frozen {
                    // Its lease ends; the other takes over, publishes, and goes on with what comes.
                    for _ in 0..3 {
                        lab.world.tick(LONG);
                        lab.step(&mut other).await.unwrap();
                    }
                    if let Some(step) = frozen {
                        lab.store.wake.notify_one();
                        step.await.unwrap();
                    }
                }
            }
            let is_beyond = lab.store.disarm();
            for _ in 0..4 {
                lab.world.tick(LONG);
                lab.step(&mut one).await.unwrap();
                lab.step(&mut other).await.unwrap();
            }
            if is_beyond {
                break;
            }
        }
    }
    lab.check();
}
