//! Chance, where it decides when or where to begin. What must not be guessed comes from the system wherever it is made.

/// Gives random numbers.
pub trait Random: Send + Sync + 'static {
    fn number(&self) -> u64;
}

/// The system's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// Without a source of randomness always the same: instances then meet more often, and what failed together tries
    /// again together.
    fn number(&self) -> u64 {
        getrandom::u64().unwrap_or(u64::MAX)
    }
}
