//! Everything random of one run comes from its seed. Each part has a stream of its own, so that one more draw in one
//! place does not shift what happens elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nchf::random::Random;

use super::splitmix::{SplitMix, mixed};

/// One of these streams.
#[derive(Clone, Debug)]
pub struct Chance(SplitMix);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(SplitMix(mixed(seed ^ 0x6e63_6866)))
    }

    /// A stream of its own for a part of the world.
    pub fn stream(&self, name: &str, number: u64) -> Self {
        let name = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self(SplitMix(mixed(self.0.0 ^ mixed(name.wrapping_add(number)))))
    }

    /// As [`Chance::stream`], another one each time.
    pub fn split(&mut self, name: &str) -> Self {
        let number = self.number();
        self.stream(name, number)
    }

    pub fn number(&mut self) -> u64 {
        self.0.number()
    }

    /// From 0, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    pub fn permille(&mut self, of_thousand: u64) -> bool {
        of_thousand > 0 && self.below(1000) < of_thousand
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

/// The random numbers of one instance.
pub struct Seeded(Mutex<Chance>);

impl Seeded {
    pub fn new(chance: Chance) -> Self {
        Self(Mutex::new(chance))
    }
}

impl Random for Seeded {
    fn number(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).number()
    }
}
