//! The fuzz targets without a fuzzer: every file of their corpora, and a bounded number of changes of them.
//!
//! A failure prints the seed and the bytes. `NCHF_FUZZ_SEED` starts the changes somewhere else; ARCHITECTURE.md says how
//! to run the fuzzers themselves.

mod checks;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

const SEED: u64 = 0x6e63_6866;

/// Plays the corpus of a target, then `changes` of it.
fn replay(target: &str, check: fn(&[u8]), changes: usize) {
    let corpus = corpus(target);
    for (name, input) in &corpus {
        play(check, input, || format!("tests/corpora/{target}/{name}"));
    }
    let seed = std::env::var_os("NCHF_FUZZ_SEED").map_or(SEED, |seed| seed.to_str().unwrap().parse().unwrap());
    let mut coins = Coins(seed | 1);
    for number in 0..changes {
        let mut input = corpus[coins.below(corpus.len())].1.clone();
        for _ in 0..=coins.below(4) {
            let other = &corpus[coins.below(corpus.len())].1;
            change(&mut input, other, &mut coins);
        }
        play(check, &input, || format!("change {number} of {target}, NCHF_FUZZ_SEED={seed}"));
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut corpus: Vec<_> = files
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
        })
        .collect();
    corpus.sort();
    assert!(corpus.len() >= 4, "a corpus of {target}");
    corpus
}

fn play(check: fn(&[u8]), input: &[u8], what: impl Fn() -> String) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        eprintln!("{}: \"{}\"", what(), input.escape_ascii());
        resume_unwind(panic);
    }
}

/// One change of the kinds that fuzzers make.
fn change(input: &mut Vec<u8>, other: &[u8], coins: &mut Coins) {
    const WORDS: [&str; 16] = [
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        "null",
        "-1",
        "1e400",
        "18446744073709551616",
        "\\u0000",
        "\n",
        "\0",
        "%2f",
        "{}",
        "0",
    ];
    let at = coins.below(input.len() + 1);
    let end = (at + coins.below(16)).min(input.len());
    match coins.below(7) {
        0 if at < input.len() => input[at] ^= 1 << coins.below(8),
        1 if at < input.len() => input[at] = coins.below(256) as u8,
        2 => drop(input.drain(at..end)),
        3 => input.extend_from_within(at..end),
        4 => input.truncate(at),
        5 => {
            let from = coins.below(other.len() + 1);
            let upto = (from + coins.below(64)).min(other.len());
            drop(input.splice(at..end, other[from..upto].iter().copied()));
        }
        _ => drop(input.splice(at..at, WORDS[coins.below(WORDS.len())].bytes())),
    }
}

/// xorshift: never at zero.
struct Coins(u64);

impl Coins {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

#[test]
fn a_request_says_the_same_when_read_again() {
    replay("request", checks::request, 1500);
}

#[test]
fn whatever_comes_money_is_conserved() {
    replay("decide", checks::decide, 150);
}

#[test]
fn a_stored_document_is_unreadable_or_written_as_it_was() {
    replay("stored", checks::stored, 4000);
}

#[test]
fn every_record_is_a_line_and_decodable() {
    replay("record", checks::record, 400);
}

#[test]
fn every_call_is_answered_and_the_audit_finds_nothing() {
    replay("http", checks::http, 150);
}

#[test]
fn small_texts_read_back_and_addresses_are_private() {
    replay("texts", checks::texts, 3000);
}

#[test]
fn a_configuration_is_refused_in_one_line_or_reads_back() {
    replay("config", checks::config, 1000);
}

#[test]
fn whatever_frames_come_the_server_serves_others() {
    replay("frames", checks::frames, 300);
}

#[test]
fn a_directory_of_records_is_refused_or_brought_to_rest() {
    replay("recover", checks::recover, 3000);
}

#[test]
fn whatever_a_redis_answers_a_call_ends() {
    replay("replies", checks::replies, 300);
}

#[test]
fn timers_are_handed_out_when_they_are_due() {
    replay("timers", checks::timers, 1000);
}
