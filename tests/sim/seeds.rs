//! Many runs, each from its seed. A seed that fails prints the command that runs it again; once its cause is mended, it
//! goes into [`REGRESSIONS`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::mutant::Mutant;
use super::options::Options;
use super::world::{Verdict, run};

/// Runs in `cargo test`; `scripts/simulate` asks for more.
const SEEDS: u64 = 2000;

/// Each mutant is noticed within so many seeds.
const SEEDS_OF_MUTANTS: u64 = 100;

/// Seeds that have failed once, and what for.
const REGRESSIONS: &[(u64, &str)] = &[
    (1248, "two records got one number, because a replaced master did not have the journal of the first"),
    (1680, "a record got into two files, because a failover brought back an entry that was acknowledged"),
];

fn number(name: &str) -> Option<u64> {
    let value = std::env::var_os(name)?;
    Some(value.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name} is no number")))
}

fn again(seed: u64) -> String {
    format!("again with: NCHF_SIM_SEED={seed} cargo test --test sim -- --nocapture seeds::one_seed")
}

/// A panic is a violation like others.
fn verdict(seed: u64, mutant: Mutant) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| run(seed, mutant))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Verdict { violations: vec![format!("panicked: {}", text.unwrap_or_default())], ..Verdict::default() }
    })
}

/// Runs seeds on all cores until there are no more, or `stop` says so.
fn all(seeds: std::ops::Range<u64>, each: impl Fn(u64) -> bool + Sync) {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if !each(seed) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

#[test]
fn nothing_is_lost_or_doubled_whatever_happens() {
    let first = number("NCHF_SIM_FIRST").unwrap_or(1);
    let seeds = number("NCHF_SIM_SEEDS").unwrap_or(SEEDS);
    let (failures, sums) = (Mutex::new(Vec::new()), Mutex::new((0, 0, 0, 0)));
    all(first..first + seeds, |seed| {
        let verdict = verdict(seed, Mutant::None);
        let mut sums = sums.lock().unwrap();
        sums.0 += verdict.answers;
        sums.1 += verdict.retransmissions;
        sums.2 += verdict.lives;
        sums.3 += verdict.records;
        let mut failures = failures.lock().unwrap();
        if !verdict.violations.is_empty() {
            failures.push(format!("seed {seed}: {:#?}\n{}", verdict.violations, again(seed)));
        }
        failures.len() < 5
    });
    let (answers, retransmissions, lives, records) = *sums.lock().unwrap();
    println!("{answers} answers, {retransmissions} retransmissions, {lives} lives of instances, {records} records");
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(answers > 10 * seeds && records > 2 * seeds as usize, "hardly anything happened");
}

#[test]
fn seeds_that_have_failed_once_do_not_fail_again() {
    for (seed, what) in REGRESSIONS {
        let violations = verdict(*seed, Mutant::None).violations;
        assert!(violations.is_empty(), "{what}: {violations:#?}\n{}", again(*seed));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=20 {
        let (first, second) = (verdict(seed, Mutant::None), verdict(seed, Mutant::None));
        let of = |verdict: &Verdict| (verdict.trace, verdict.answers, verdict.records);
        assert_eq!(of(&first), of(&second), "seed {seed}");
    }
}

#[test]
fn every_mutant_is_noticed() {
    let mut unnoticed = Vec::new();
    for mutant in Mutant::HARMFUL {
        let noticed = AtomicU64::new(u64::MAX);
        all(1..SEEDS_OF_MUTANTS + 1, |seed| {
            let is_noticed = !verdict(seed, mutant).violations.is_empty();
            if is_noticed {
                noticed.fetch_min(seed, Ordering::Relaxed);
            }
            !is_noticed
        });
        match noticed.into_inner() {
            u64::MAX => unnoticed.push(mutant),
            seed => println!("{mutant:?} is noticed with seed {seed}"),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed within {SEEDS_OF_MUTANTS} seeds: {unnoticed:?}");
}

#[test]
fn leases_guard_nothing() {
    all(1..101, |seed| {
        let violations = verdict(seed, Mutant::NoLease).violations;
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        true
    });
}

/// The one of `NCHF_SIM_SEED`, told at length.
#[test]
fn one_seed() {
    let Some(seed) = number("NCHF_SIM_SEED") else { return };
    println!("{:#?}", Options::of(seed));
    let _already_told = tracing_subscriber::fmt().without_time().with_test_writer().try_init();
    let verdict = verdict(seed, Mutant::None);
    println!("trace {:016x}, {} answers, {} records", verdict.trace, verdict.answers, verdict.records);
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
}
