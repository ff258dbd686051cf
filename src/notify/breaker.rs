//! Leaves targets alone that fail again and again: a state machine without clock, socket or randomness of its own.
//!
//! A target that answers is not remembered at all. One that fails is counted; after some failures in a row it is not
//! tried for a time, then one call probes it, and its failure makes the next pause longer. Memory is bounded: of too many
//! targets in trouble the one that was heard of longest ago is forgotten, which costs some attempts and nothing else.

use std::collections::HashMap;

use super::retry::{Jitter, doubled};
use super::target::Origin;
use crate::charging::time::{Span, Timestamp};

/// When a target is left alone, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row after which a target is left alone; default 5. Too small: a hiccup delays notifications. Too
    /// large: a dead target costs more attempts.
    pub failures_max: u32,
    /// The first pause; it doubles while probes fail. Default 1 s.
    pub first_pause: Span,
    /// The longest pause; default 60 s. Too small: dead targets cost attempts. Too large: one that is back is told late.
    pub pause_max: Span,
    /// How long a probe may stay without a result before another one is made; default 10 s, more than a call may take.
    pub probe_max: Span,
    /// Targets in trouble that are remembered, some 150 octets each; default 4096.
    pub targets_max: usize,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures_max: 5,
            first_pause: Span::from_secs(1),
            pause_max: Span::from_secs(60),
            probe_max: Span::from_secs(10),
            targets_max: 4096,
        }
    }
}

/// What a call says about its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Alive,
    InTrouble,
    /// Nothing was sent.
    Unknown,
}

pub struct Breaker {
    settings: BreakerSettings,
    in_trouble: HashMap<Origin, Trouble>,
}

struct Trouble {
    state: State,
    /// When something was last learned of it.
    heard_at: Timestamp,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Tried as usual.
    Counting { failures: u32 },
    /// Left alone. `pauses` counts those before it.
    Pausing { until: Timestamp, pauses: u32 },
    /// One call is under way to see.
    Probing { since: Timestamp, pauses: u32 },
}

impl Breaker {
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, in_trouble: HashMap::new() }
    }

    /// Changes nothing.
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub fn may_try(&self, target: &Origin, now: Timestamp) -> Result<(), Timestamp> {
        let Some(trouble) = self.in_trouble.get(target) else { return Ok(()) };
        match trouble.state {
            State::Counting { .. } => Ok(()),
            State::Pausing { until, .. } => is_due(now, until, self.settings.pause_max),
            State::Probing { since, .. } => is_due(now, since.after(self.settings.probe_max), self.settings.probe_max),
        }
    }

    /// As `may_try`, and the caller makes the call: after a pause nobody else may until its result is learned.
    ///
    /// # Errors
    ///
    /// As `may_try`.
    pub fn claim(&mut self, target: &Origin, now: Timestamp) -> Result<(), Timestamp> {
        self.may_try(target, now)?;
        if let Some(trouble) = self.in_trouble.get_mut(target)
            && let State::Pausing { pauses, .. } | State::Probing { pauses, .. } = trouble.state
        {
            trouble.state = State::Probing { since: now, pauses };
        }
        Ok(())
    }

    pub fn learn(&mut self, target: &Origin, verdict: Verdict, now: Timestamp, jitter: Jitter) {
        match verdict {
            Verdict::Alive => drop(self.in_trouble.remove(target)),
            Verdict::InTrouble => self.failed(target, now, jitter),
            Verdict::Unknown => {
                if let Some(trouble) = self.in_trouble.get_mut(target)
                    && let State::Probing { pauses, .. } = trouble.state
                {
                    trouble.state = State::Pausing { until: now, pauses };
                }
            }
        }
    }

    fn failed(&mut self, target: &Origin, now: Timestamp, jitter: Jitter) {
        let settings = &self.settings;
        let pause = |pauses| {
            let span = jitter.of(doubled(settings.first_pause, pauses, settings.pause_max));
            State::Pausing { until: now.after(span), pauses: pauses.saturating_add(1) }
        };
        let counted = |failures| if failures < settings.failures_max { State::Counting { failures } } else { pause(0) };
        let state = match self.in_trouble.get(target).map(|trouble| trouble.state) {
            None => counted(1),
            Some(State::Counting { failures }) => counted(failures.saturating_add(1)),
            Some(State::Probing { pauses, .. }) => pause(pauses),
            // The end of a call that had begun before the pause: nothing new.
            Some(State::Pausing { .. }) => return,
        };
        self.make_room_for(target);
        self.in_trouble.insert(target.clone(), Trouble { state, heard_at: now });
    }

    fn make_room_for(&mut self, target: &Origin) {
        if self.in_trouble.len() < self.settings.targets_max || self.in_trouble.contains_key(target) {
            return;
        }
        let oldest = self.in_trouble.iter().min_by_key(|(_, trouble)| trouble.heard_at);
        if let Some(oldest) = oldest.map(|(origin, _)| origin.clone()) {
            self.in_trouble.remove(&oldest);
        }
    }
}

/// A time further ahead than any pause was set by a clock that has been set back since.
fn is_due(now: Timestamp, until: Timestamp, longest: Span) -> Result<(), Timestamp> {
    if now >= until || until.since(now) > longest { Ok(()) } else { Err(until) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Target;

    fn origin(host: &str) -> Origin {
        Target::parse(&format!("http://{host}/")).unwrap().origin
    }

    fn breaker(targets_max: usize) -> Breaker {
        Breaker::new(BreakerSettings { failures_max: 3, targets_max, ..BreakerSettings::default() })
    }

    /// Each row: seconds, what happens, and whether the target may be tried then (else from which second on).
    #[test]
    fn a_target_is_left_alone_probed_and_taken_back() {
        #[derive(Debug)]
        enum Step {
            Asked,
            Claimed,
            Answered,
            Failed,
            NothingSent,
        }
        use Step::{Answered, Asked, Claimed, Failed, NothingSent};
        let table: &[(i64, Step, Result<(), i64>)] = &[
            (0, Asked, Ok(())),
            // An answer in between begins the count anew.
            (0, Failed, Ok(())),
            (0, Failed, Ok(())),
            (0, Answered, Ok(())),
            (1, Failed, Ok(())),
            (1, Failed, Ok(())),
            (1, Failed, Err(2)),
            // Calls that had begun before change nothing.
            (1, Failed, Err(2)),
            (2, Asked, Ok(())),
            // One probe, and nobody beside it.
            (2, Claimed, Err(12)),
            (3, Failed, Err(5)),
            (4, Asked, Err(5)),
            (5, Claimed, Err(15)),
            (5, Failed, Err(9)),
            // Whoever claimed it sent nothing: the next one may.
            (9, Claimed, Err(19)),
            (9, NothingSent, Ok(())),
            (9, Claimed, Err(19)),
            // Whoever probes was lost: another one may.
            (19, Claimed, Err(29)),
            (20, Failed, Err(28)),
            (28, Claimed, Err(38)),
            (28, Failed, Err(44)),
            (44, Claimed, Err(54)),
            (44, Failed, Err(76)),
            // The cap.
            (76, Claimed, Err(86)),
            (76, Failed, Err(136)),
            (136, Claimed, Err(146)),
            (136, Failed, Err(196)),
            // The clock is set back by an hour: no target waits for that.
            (-3600, Asked, Ok(())),
            (196, Claimed, Err(206)),
            (197, Answered, Ok(())),
            (197, Failed, Ok(())),
            (197, Failed, Ok(())),
            (197, Failed, Err(198)),
            // A call that began before the pause shows that the target is back.
            (197, Answered, Ok(())),
            (197, NothingSent, Ok(())),
        ];
        let (mut breaker, smf) = (breaker(10), origin("smf"));
        for (row, (secs, step, expected)) in table.iter().enumerate() {
            let now = Timestamp::from_secs(*secs);
            match step {
                Asked => {}
                Claimed => breaker.claim(&smf, now).unwrap(),
                Answered => breaker.learn(&smf, Verdict::Alive, now, Jitter::NONE),
                Failed => breaker.learn(&smf, Verdict::InTrouble, now, Jitter::NONE),
                NothingSent => breaker.learn(&smf, Verdict::Unknown, now, Jitter::NONE),
            }
            let found = breaker.may_try(&smf, now).map_err(|at| at.millis() / 1000);
            assert_eq!(found, *expected, "row {row}: {step:?} at {secs}");
            assert_eq!(breaker.may_try(&origin("amf"), now), Ok(()), "row {row}: another target");
        }
        assert!(breaker.in_trouble.is_empty(), "a target that answers is not remembered");
    }

    #[test]
    fn the_pause_is_jittered() {
        let (mut breaker, smf) = (breaker(10), origin("smf"));
        for _ in 0..3 {
            breaker.learn(&smf, Verdict::InTrouble, Timestamp::from_secs(0), Jitter::new(0));
        }
        assert_eq!(breaker.may_try(&smf, Timestamp::from_secs(0)), Err(Timestamp::from_millis(500)));
    }

    #[test]
    fn of_too_many_targets_the_oldest_is_forgotten() {
        let mut breaker = breaker(3);
        for (secs, host) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "d"), (5, "d")] {
            breaker.learn(&origin(host), Verdict::InTrouble, Timestamp::from_secs(secs), Jitter::NONE);
        }
        let mut known: Vec<_> = breaker.in_trouble.keys().map(Origin::host).collect();
        known.sort_unstable();
        assert_eq!(known, ["a", "c", "d"]);
    }
}
