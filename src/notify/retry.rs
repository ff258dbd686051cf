//! When a failed call is worth another attempt: pure functions for whoever keeps the outbox.

use crate::charging::time::{Span, Timestamp};
use crate::random::Random;

/// How patient the charging function is with a consumer that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Pause after the first attempt; it doubles with each further one.
    pub first: Span,
    /// Longest pause.
    pub pause_max: Span,
    /// From the decision to notify to the last attempt.
    pub time_limit: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    At(Timestamp),
    GiveUp,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first: Span::from_secs(1), pause_max: Span::from_secs(60), time_limit: Span::from_secs(3600) }
    }
}

impl RetryPolicy {
    /// When to try again after `attempts` attempts, of which the last has just failed.
    pub fn next_attempt(&self, attempts: u32, decided_at: Timestamp, now: Timestamp, jitter: Jitter) -> Retry {
        let pause = jitter.of(doubled(self.first, attempts.saturating_sub(1), self.pause_max));
        let at = now.after(pause);
        if at > decided_at.after(self.time_limit) { Retry::GiveUp } else { Retry::At(at) }
    }
}

/// `first` doubled so many times, at most `max`.
pub(super) fn doubled(first: Span, times: u32, max: Span) -> Span {
    let millis = first.millis().saturating_mul(1_i64 << times.min(32));
    span(millis.min(max.millis()))
}

/// A random share: what keeps many that failed together from trying again together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter(u32);

impl Jitter {
    pub const NONE: Self = Self(u32::MAX);

    /// `share` of 2³².
    pub const fn new(share: u32) -> Self {
        Self(share)
    }

    pub fn random(random: &dyn Random) -> Self {
        Self(random.number() as u32)
    }

    /// Between half of the pause and all of it.
    pub fn of(self, pause: Span) -> Span {
        let half = pause.millis() / 2;
        let share = i128::from(pause.millis() - half) * i128::from(self.0) / i128::from(u32::MAX);
        span(half.saturating_add(i64::try_from(share).unwrap_or(0)))
    }
}

fn span(millis: i64) -> Span {
    Span::from_millis(u32::try_from(millis.max(0)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn pauses_double_up_to_the_cap_until_the_time_is_over() {
        let policy = RetryPolicy::default();
        let hour = 3_600_000;
        for (attempts, now, expected) in [
            (1, 0, Retry::At(at(1000))),
            (2, 0, Retry::At(at(2000))),
            (6, 0, Retry::At(at(32_000))),
            (7, 0, Retry::At(at(60_000))),
            (u32::MAX, 0, Retry::At(at(60_000))),
            // Nobody has tried yet: as after the first.
            (0, 0, Retry::At(at(1000))),
            (1, hour - 1000, Retry::At(at(hour))),
            (1, hour - 999, Retry::GiveUp),
            (9, hour + 1, Retry::GiveUp),
            // The clock was set back after the decision.
            (1, -5000, Retry::At(at(-4000))),
        ] {
            let retry = policy.next_attempt(attempts, at(0), at(now), Jitter::NONE);
            assert_eq!(retry, expected, "{attempts} attempts at {now}");
        }
    }

    #[test]
    fn jitter_is_between_half_and_all() {
        let pause = Span::from_millis(1001);
        assert_eq!(Jitter::new(0).of(pause).millis(), 500);
        assert_eq!(Jitter::new(u32::MAX / 2).of(pause).millis(), 750);
        assert_eq!(Jitter::NONE.of(pause).millis(), 1001);
        assert_eq!(Jitter::new(0).of(Span::default()).millis(), 0);
        assert_eq!(Jitter::NONE.of(Span::from_millis(u32::MAX)).millis(), i64::from(u32::MAX));
    }
}
