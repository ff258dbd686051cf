//! Chaos: SMFs that charge through HAProxy while instances and servers of the store are killed, frozen, replaced and
//! filled up; afterwards everything that was acknowledged is there, once.
//!
//! Short and the same each time as a part of the tests; `scripts/chaos` makes it as long and as wild as one likes. What
//! happens follows from a seed, as far as the machine lets it: which faults come when, and what consumers do. What is
//! lost or doubled is found by the consumers' own book, and by an audit of store and record files.

mod balancer;
mod book;
mod consumers;
mod fleet;
mod payers;
mod stores;
mod timeline;
mod watch;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use self::balancer::Balancer;
use self::book::Differences;
use self::consumers::{Habits, Network};
use self::fleet::{Fleet, Upgrade};
use self::payers::Payers;
use self::stores::Stores;
use self::timeline::{Fault, Timeline};
use self::watch::{Watch, served_between};
use crate::processes::instance::program;
use crate::processes::network_function::Way;
use crate::processes::published::{Mediation, assert_at_rest};
use crate::processes::{Random, until};
use crate::store::server::Program;

/// What is played, and what is done meanwhile.
struct Run {
    topology: &'static str,
    program: Program,
    faults: BTreeSet<Fault>,
    seconds: u64,
    instances: usize,
    consumers: u32,
    /// How long one message may stay without an answer, when no instance is frozen.
    patience: Duration,
    habits: Habits,
    /// What instances are replaced by.
    upgrade_to: Option<OsString>,
}

/// One of `scripts/chaos`, else what it usually is.
fn given<T>(name: &str, usual: T, parse: impl FnOnce(&str) -> Option<T>) -> T {
    let Some(value) = std::env::var_os(format!("NCHF_CHAOS_{name}")) else { return usual };
    let value = value.into_string().expect("UTF-8");
    parse(&value).unwrap_or_else(|| panic!("NCHF_CHAOS_{name}: {value:?} is not known"))
}

impl Run {
    fn on(topology: &'static str, program: Program, faults: &[Fault]) -> Self {
        let named = |names: &str| match names {
            "all" => Some(Fault::all().collect()),
            names => names.split(',').map(Fault::named).collect(),
        };
        Self {
            topology,
            program: given("STORE", program, |name| match name {
                "redis" => Some(Program::redis()),
                "valkey" => Program::valkey(),
                _ => None,
            }),
            faults: given("FAULTS", faults.iter().copied().collect(), named),
            seconds: given("SECONDS", 8, |text| text.parse().ok()),
            instances: given("INSTANCES", 3, |text| text.parse().ok()),
            consumers: given("CONSUMERS", 12, |text| text.parse().ok()),
            // Among the other tests everybody is slow.
            patience: Duration::from_millis(given("PATIENCE_MS", 30_000, |text| text.parse().ok())),
            habits: Habits {
                copies: given("COPIES_PERCENT", 60, |text| text.parse().ok()),
                resets: given("RESETS_PERCENT", 10, |text| text.parse().ok()),
            },
            upgrade_to: given("UPGRADE_TO", None, |path| Some(Some(path.into()))),
        }
    }

    async fn play(self) {
        let mut random = Random::new();
        let (topology, program) = (self.topology, self.program.clone());
        let stores = tokio::task::spawn_blocking(move || Stores::start(topology, &program)).await.unwrap();
        let (url, timeline) = (stores.url(), Arc::new(Timeline::new()));
        let watch = Watch::start(stores.whom(), &timeline);
        let settings = format!("{}{SETTINGS}", stores.settings());
        let third = Duration::from_secs(self.seconds) / 3;
        let upgrade = self.upgrade_to.clone().map(|to| Upgrade { to, third });
        let fleet = Fleet::start(self.instances, &url, &settings, &timeline, upgrade).await;
        let balancer = Balancer::start(&fleet.ports);
        let way = fleet.with_first(Way::to).await;
        let payers = Payers::usual();
        payers.provision(&way).await;
        let network = Network::new(balancer.address, &fleet.ports, &timeline, payers, self.patience, self.habits);

        let consumers: Vec<_> = (0..self.consumers)
            .map(|number| tokio::spawn(Arc::clone(&network).play(number, random.another())))
            .collect();
        let stores = self.suffer(&fleet, stores, &timeline, &mut random).await;
        network.end();
        for consumer in consumers {
            consumer.await.unwrap();
        }
        until("copies have their answers", async || network.is_quiet()).await;
        let served = tokio::task::spawn_blocking(|| watch.end()).await.unwrap();
        let repeated = network.repeat(200, &mut random).await;

        // All that was closed gets out, and nothing else.
        fleet.with_first(|instance| way.now_to(instance)).await;
        let mediations: Vec<_> = fleet.places.iter().map(|place| Mediation::new(place.records())).collect();
        let expected = network.book.lock().unwrap().records();
        until("all records are published", async || published(&fleet) >= expected).await;
        let open = way.get("charging-sessions?limit=500").await["items"].as_array().unwrap().len();
        let book = std::mem::take(&mut *network.book.lock().unwrap());
        let accounts = book.compare_accounts(&way, payers).await;
        fleet.stop().await;
        let audit = audit(self.upgrade_to.clone(), &url, &fleet);
        let records: Vec<_> = mediations.iter().flat_map(Mediation::records).collect();
        let in_records = book.compare_records(&records);
        fleet.places.iter().for_each(|place| assert_at_rest(&place.records()));
        drop(stores);

        let report = Report {
            run: &self,
            network: &network,
            timeline: &timeline,
            fleet: &fleet,
            repeated,
            served,
            open,
            differences: [accounts, in_records],
            audit,
        };
        assert!(report.print(), "see above");
    }

    /// Does what is to be done for the time that was given.
    async fn suffer(
        &self,
        fleet: &Arc<Fleet>,
        mut stores: Stores,
        timeline: &Arc<Timeline>,
        random: &mut Random,
    ) -> Stores {
        let over = Arc::new(AtomicBool::new(false));
        let of_stores: Vec<_> = self.faults.iter().copied().filter(|fault| stores.suffers(*fault)).collect();
        let (is_over, noted, mut moments) = (Arc::clone(&over), Arc::clone(timeline), random.another());
        let stores = tokio::task::spawn_blocking(move || {
            for turn in 0.. {
                let quiet = Duration::from_millis(1000) + moments.millis(1500);
                let until = std::time::Duration::from_millis(u64::from(noted.now())) + quiet;
                while u128::from(noted.now()) < until.as_millis() {
                    if is_over.load(Ordering::Relaxed) {
                        return stores;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                // Each in turn, and then whatever comes.
                let count = of_stores.len();
                let at = if turn < count { turn } else { moments.below(count.max(1) as u64) as usize };
                if let Some(fault) = of_stores.get(at) {
                    stores.suffer(*fault, &mut moments, &noted);
                }
            }
            stores
        });
        let mut suffering = Vec::new();
        // Those that kill take turns, so that the next instance is killed although the last one cannot start, for want of
        // the store.
        let killers = self.instances as u64;
        for (fault, every, count) in [(Fault::Kill, 1000, killers), (Fault::Freeze, 4000, 1), (Fault::Restart, 7000, 1)]
        {
            for turn in (1..=count).filter(|_| self.faults.contains(&fault)) {
                let (over, mut moments) = (&over, random.another());
                suffering.push(async move {
                    sleep(Duration::from_millis(every * turn)).await;
                    while !over.load(Ordering::Relaxed) {
                        fleet.suffer(fault, &mut moments).await;
                        sleep(Duration::from_millis(every * count)).await;
                    }
                });
            }
        }
        let time = async {
            sleep(Duration::from_secs(self.seconds)).await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(time, join_all(suffering));
        stores.await.unwrap()
    }
}

/// Records are written at once; everything else is as it is delivered.
const SETTINGS: &str = "
    cdr.rotate_secs = 1
    cdr.rotate_records = 50
    http.in_flight_per_peer_percent = 100
";

/// Lines of files that are out.
fn published(fleet: &Fleet) -> usize {
    let lines = |path: std::path::PathBuf| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    let files = fleet.places.iter().flat_map(|place| std::fs::read_dir(place.records()).into_iter().flatten());
    let visible = files.map(|file| file.unwrap()).filter(|file| !file.file_name().to_str().unwrap().starts_with('.'));
    visible.map(|file| lines(file.path())).sum()
}

/// What `nchf audit` says, and whether all holds and all is proven.
fn audit(upgraded_to: Option<OsString>, url: &str, fleet: &Fleet) -> (bool, String) {
    let mut command = Command::new(upgraded_to.unwrap_or_else(program));
    command.args(["audit", "--store", url, "--cdr-dir"]);
    command.args(fleet.places.iter().map(|place| place.records()));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.success() && said.contains("violations: 0, not proven: 0"), said)
}

struct Report<'r> {
    run: &'r Run,
    network: &'r Network,
    timeline: &'r Timeline,
    fleet: &'r Fleet,
    repeated: usize,
    /// When each shard of the store kept a change.
    served: Vec<Vec<u32>>,
    open: usize,
    /// Of accounts, and of records.
    differences: [Differences; 2],
    audit: (bool, String),
}

/// Silences of so many milliseconds are told one by one.
const GAP_SHOWN: u32 = 1500;

/// Most lines of one kind that are printed.
const SHOWN_MAX: usize = 10;

impl Report<'_> {
    /// Whether nothing was lost, doubled or left without an answer.
    fn print(&self) -> bool {
        let counts = self.network.counts.lock().unwrap();
        let answers: Vec<_> = counts.by_status.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        println!(
            "chaos: {} instances, {}, {} s, {} consumers",
            self.run.instances, self.run.topology, self.run.seconds, self.run.consumers
        );
        println!(
            "operations {} of {} sessions and {} events; messages {}: retransmissions {}, second copies {}, reset {}, late \
             copies {}, repeated at the end {}",
            counts.operations,
            counts.sessions,
            counts.events,
            counts.messages,
            counts.retransmissions,
            counts.copies,
            counts.resets,
            counts.late_copies,
            self.repeated
        );
        println!(
            "answers {}; copies that came too late for theirs {}, connections lost under a message {}, none in time while an \
             instance was frozen {}",
            answers.join(", "),
            counts.forgotten,
            counts.lost_connections,
            counts.silent_in_a_freeze
        );
        println!("through the balancer {}, of these without a final answer {}", counts.balanced, counts.balanced_again);
        let title = ["fault", "count", "lasted", "gap", "new master", "recovered in"];
        println!("{:20} {:>5} {:>9} {:>9} {:>10} {:>18}", title[0], title[1], title[2], title[3], title[4], title[5]);
        for (fault, figures) in self.timeline.figures() {
            let [half, longest] = figures.recovered.map(seconds);
            println!(
                "{fault:20} {:>5} {:>9} {:>9} {:>10} {:>18}",
                figures.count,
                seconds(figures.lasted),
                seconds(figures.gap),
                figures.served_again.map_or_else(|| "-".to_owned(), seconds),
                format!("{half}, at most {longest}")
            );
        }
        for (from, to) in self.timeline.gaps(GAP_SHOWN) {
            println!(
                "gap of {} at {}: the store could serve for {} of it, an instance was frozen for {}",
                seconds(to - from),
                seconds(from),
                seconds(served_between(&self.served, from, to)),
                seconds(self.timeline.frozen_between(from, to))
            );
        }
        println!(
            "worst gap {}, slowest operation {}, starts that failed {}",
            seconds(self.timeline.worst_gap()),
            seconds(self.timeline.slowest()),
            self.fleet.failed_starts.load(Ordering::Relaxed)
        );
        if self.run.upgrade_to.is_some() {
            println!("starts of the other build {}", self.fleet.upgraded.load(Ordering::Relaxed));
        }
        let lost: Vec<_> = self.differences.iter().flat_map(|differences| &differences.lost).cloned().collect();
        let doubled: Vec<_> = self.differences.iter().flat_map(|differences| &differences.doubled).cloned().collect();
        let alarms = self.fleet.alarms();
        let mut is_well = self.audit.0 && self.open == 0;
        for (what, found) in [
            ("lost", &lost),
            ("doubled", &doubled),
            ("answered differently", &counts.disagreements),
            ("answered wrong", &counts.wrong),
            ("without an answer", &counts.hangs),
            ("alarms", &alarms),
        ] {
            println!("{what}: {}", found.len());
            found.iter().take(SHOWN_MAX).for_each(|line| println!("    {line}"));
            is_well &= found.is_empty();
        }
        println!("promotions of which nobody can tell: {}", self.fleet.untold.load(Ordering::Relaxed));
        println!("left open: {}", self.open);
        println!("audit: {}", self.audit.1.trim_end());
        is_well
    }
}

fn seconds(millis: u32) -> String {
    format!("{}.{:02} s", millis / 1000, millis % 1000 / 10)
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_on_a_single_redis() {
    Run::on("single", Program::redis(), &[Fault::Kill, Fault::Freeze, Fault::RedisKill, Fault::RedisPause])
        .play()
        .await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_behind_sentinels() {
    Run::on("sentinel", Program::redis(), &[Fault::Kill, Fault::FailoverKill]).play().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_on_a_cluster() {
    let program = crate::store::valkey!();
    Run::on("cluster", program, &[Fault::Kill, Fault::Restart, Fault::Failover, Fault::Slots, Fault::Upgrade])
        .play()
        .await;
}
