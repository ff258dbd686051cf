//! The charging sessions that a generator plays, between two of their messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::args::Scenario;
use super::message::{CHARGING_DATA, Operation};
use crate::charging::time::Timestamp;

/// Deals out sessions, and knows what they do.
pub(super) struct Script {
    scenario: Scenario,
    updates: u32,
    sessions_max: u64,
    sessions_begun: AtomicU64,
}

/// One session, open or to be opened.
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) began: Timestamp,
    stage: Stage,
    /// In `duplicates`: what was sent last, to be sent once more.
    copied: Option<Box<Exchange>>,
}

enum Stage {
    Fresh,
    Open {
        path: Box<str>,
        /// Of the next message.
        number: u32,
        updates_left: u32,
    },
}

impl Stage {
    /// `None` where there was none to come.
    fn after_update(self) -> Option<Self> {
        match self {
            Self::Fresh | Self::Open { updates_left: 0, .. } => None,
            Self::Open { path, number, updates_left } => {
                Some(Self::Open { path, number: number.wrapping_add(1), updates_left: updates_left - 1 })
            }
        }
    }
}

/// A message and the right answer to it.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) operation: Operation,
    pub(super) path: Box<str>,
    pub(super) request: Bytes,
    /// The path of the resource that was created.
    pub(super) created: Option<Box<str>>,
    pub(super) answer: Bytes,
}

impl Script {
    pub(super) fn new(scenario: Scenario, updates: u32, sessions_max: u64) -> Self {
        Self { scenario, updates, sessions_max, sessions_begun: AtomicU64::new(0) }
    }

    /// `None` when enough sessions have begun.
    pub(super) fn next_session(&self, now: Timestamp) -> Option<Session> {
        let id = self.sessions_begun.fetch_add(1, Ordering::Relaxed);
        (id < self.sessions_max).then_some(Session { id, began: now, stage: Stage::Fresh, copied: None })
    }

    pub(super) fn operation(&self, session: &Session) -> Operation {
        match &session.stage {
            _ if session.copied.is_some() => Operation::Copy,
            Stage::Fresh if self.scenario == Scenario::Events => Operation::Event,
            Stage::Fresh => Operation::Create,
            Stage::Open { updates_left: 0, .. } => Operation::Release,
            Stage::Open { .. } => Operation::Update,
        }
    }

    /// The session after the right answer; `None` when that was its end.
    pub(super) fn answered(&self, session: Session, exchange: Exchange) -> Option<Session> {
        let Session { id, stage, copied, .. } = session;
        let copy = (self.scenario == Scenario::Duplicates).then(|| Box::new(exchange.clone()));
        let (stage, copied) = match (exchange.operation, stage) {
            (Operation::Create, _) => {
                let path = exchange.created.unwrap_or_default();
                (Stage::Open { path, number: 1, updates_left: self.updates_of(id) }, copy)
            }
            (Operation::Update, stage) => (stage.after_update()?, copy),
            (Operation::Copy, _) if copied.is_some_and(|of| of.operation.ends_session()) => return None,
            (Operation::Copy, stage) => (stage, None),
            // Until its copy was answered the session is only this copy.
            (Operation::Release | Operation::Event, stage) => (stage, Some(copy?)),
        };
        Some(Session { stage, copied, ..session })
    }

    /// The session after no answer or a wrong one: it goes on with the next message, if it was ever opened.
    pub(super) fn failed(&self, session: Session) -> Option<Session> {
        let stage = match session.copied {
            Some(of) if of.operation.ends_session() => return None,
            Some(_) => session.stage,
            None => session.stage.after_update()?,
        };
        Some(Session { stage, copied: None, ..session })
    }

    /// Sessions that were opened together shall not end together.
    fn updates_of(&self, id: u64) -> u32 {
        match self.scenario {
            Scenario::Update => u32::MAX,
            Scenario::CreateRelease | Scenario::Events => 0,
            Scenario::Lifecycle | Scenario::Duplicates => self.updates,
            Scenario::OpenSessions => 1 + (id % u64::from(self.updates.max(1))) as u32,
        }
    }
}

impl Session {
    /// Where a message of the session goes.
    pub(super) fn path_of(&self, operation: Operation) -> Box<str> {
        match &self.stage {
            Stage::Fresh => CHARGING_DATA.into(),
            Stage::Open { path, .. } if operation == Operation::Release => format!("{path}/release").into(),
            Stage::Open { path, .. } => format!("{path}/update").into(),
        }
    }

    /// It was created and not released.
    pub(super) fn is_open(&self) -> bool {
        let has_ended = self.copied.as_ref().is_some_and(|of| of.operation.ends_session());
        matches!(self.stage, Stage::Open { .. }) && !has_ended
    }

    /// Of the next message.
    pub(super) fn number(&self) -> u32 {
        match &self.stage {
            Stage::Fresh => 0,
            Stage::Open { number, .. } => *number,
        }
    }

    pub(super) fn to_be_copied(&self) -> Option<&Exchange> {
        self.copied.as_deref()
    }
}

/// The sessions of one thread that no stream is busy with, those first that have waited longest.
pub(super) struct Pool {
    script: Arc<Script>,
    idle: VecDeque<Session>,
    /// Sessions that may still begin beside those that are open.
    free: usize,
}

impl Pool {
    pub(super) fn new(script: Arc<Script>, sessions_at_once: usize) -> Self {
        Self { script, idle: VecDeque::new(), free: sessions_at_once }
    }

    /// New ones first, until there are as many as there may be. `None` when all have ended, or others are busy with the
    /// rest.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Session> {
        self.take_fresh(now).or_else(|| self.idle.pop_front())
    }

    pub(super) fn take_fresh(&mut self, now: Timestamp) -> Option<Session> {
        if self.free == 0 {
            return None;
        }
        let begun = self.script.next_session(now);
        self.free = if begun.is_some() { self.free - 1 } else { 0 };
        begun
    }

    pub(super) fn take_open(&mut self) -> Option<Session> {
        self.idle.pop_front()
    }

    /// `None` is a session that has ended: another one may take its place.
    pub(super) fn put_back(&mut self, session: Option<Session>) {
        match session {
            Some(session) => self.idle.push_back(session),
            None => self.free += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    fn answer(script: &Script, session: &Session) -> Exchange {
        Exchange {
            operation: script.operation(session),
            path: "/x".into(),
            request: Bytes::new(),
            created: Some("/x/1".into()),
            answer: Bytes::new(),
        }
    }

    /// What one session sends, in order.
    fn played(scenario: Scenario, messages_max: usize) -> Vec<(Operation, u32)> {
        let script = Script::new(scenario, 2, 1);
        let mut session = script.next_session(NOW);
        let mut played = Vec::new();
        while let Some(open) = session.filter(|_| played.len() < messages_max) {
            let exchange = answer(&script, &open);
            played.push((exchange.operation, open.number()));
            session = script.answered(open, exchange);
        }
        played
    }

    #[test]
    fn each_scenario_has_its_messages() {
        use Operation::{Copy, Create, Event, Release, Update};
        assert_eq!(played(Scenario::Lifecycle, 9), [(Create, 0), (Update, 1), (Update, 2), (Release, 3)]);
        assert_eq!(played(Scenario::Update, 4), [(Create, 0), (Update, 1), (Update, 2), (Update, 3)]);
        assert_eq!(played(Scenario::CreateRelease, 9), [(Create, 0), (Release, 1)]);
        assert_eq!(played(Scenario::Events, 9), [(Event, 0)]);
        let operations = played(Scenario::Duplicates, 9).into_iter().map(|(operation, _)| operation);
        let expected = [Create, Copy, Update, Copy, Update, Copy, Release, Copy];
        assert_eq!(operations.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn after_a_failure_a_session_goes_on_if_it_was_opened() {
        let script = Script::new(Scenario::Lifecycle, 1, 2);
        assert!(script.failed(script.next_session(NOW).unwrap()).is_none());
        let fresh = script.next_session(NOW).unwrap();
        let exchange = answer(&script, &fresh);
        let open = script.failed(script.answered(fresh, exchange).unwrap()).unwrap();
        assert_eq!((script.operation(&open), open.number()), (Operation::Release, 2));
        assert!(script.failed(open).is_none());
    }

    #[test]
    fn a_pool_has_only_so_many_sessions_at_once_and_in_all() {
        let script = Arc::new(Script::new(Scenario::Lifecycle, 1, 3));
        let mut pool = Pool::new(script, 2);
        let (first, second) = (pool.take(NOW).unwrap(), pool.take(NOW).unwrap());
        assert!(pool.take(NOW).is_none());
        pool.put_back(Some(first));
        pool.put_back(None);
        assert_eq!([pool.take(NOW).unwrap().id, pool.take(NOW).unwrap().id, second.id], [2, 0, 1]);
        pool.put_back(None);
        assert!(pool.take(NOW).is_none());
    }
}
