//! Requests for one account go one after the other inside an instance, because at the same time they would only
//! conflict. Who has the turn may serve with it those who wait, so that many are decided in one go. Exactness does not
//! depend on any of it: the store's versions see to that, between instances too.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::store::AccountKey;

/// One turn for each of many accounts; two accounts may share one by chance. `T` is what stands in line.
pub struct Turns<T>(Box<[Turn<T>]>);

pub struct Turn<T> {
    lock: Mutex<()>,
    waiting: AtomicU32,
    line: std::sync::Mutex<Line<T>>,
}

/// Those who may be served by whoever has the turn, the longest waiting first, each with its ticket.
struct Line<T> {
    tickets: u64,
    standing: VecDeque<(u64, T)>,
}

/// Enough that two of a few hundred requests under way rarely share a turn by chance; about two megabytes.
const TURNS: usize = 16_384;

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(std::iter::repeat_with(Turn::default).take(TURNS).collect())
    }
}

impl<T> Turns<T> {
    pub fn of(&self, account: AccountKey) -> &Turn<T> {
        &self.0[(account.0 % self.0.len() as u64) as usize]
    }
}

impl<T> Default for Turn<T> {
    fn default() -> Self {
        let line = Line { tickets: 0, standing: VecDeque::new() };
        Self { lock: Mutex::default(), waiting: AtomicU32::default(), line: std::sync::Mutex::new(line) }
    }
}

impl<T> Turn<T> {
    /// Waits until nobody else has the turn. First come, first served.
    pub async fn taken(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().await
    }

    /// As [`Turn::taken`], if nobody has it and nobody waits.
    pub fn taken_at_once(&self) -> Option<MutexGuard<'_, ()>> {
        // The lock is fair: while somebody waits, this fails.
        self.lock.try_lock().ok()
    }

    /// As [`Turn::taken`], for one of many: `None` at once if as many as may be wait already.
    pub async fn taken_unless_crowded(&self, waiting_max: u32) -> Option<MutexGuard<'_, ()>> {
        if let Some(turn) = self.taken_at_once() {
            return Some(turn);
        }
        let _waiting = Waiting::begin(&self.waiting, waiting_max)?;
        Some(self.taken().await)
    }

    /// Stands in line, to be served by whoever has the turn; whoever stands there also waits for the turn itself, so
    /// that somebody always comes. `None` if as many as may be wait already.
    pub fn stand_in_line(&self, who: T, waiting_max: u32) -> Option<InLine<'_, T>> {
        let waiting = Waiting::begin(&self.waiting, waiting_max)?;
        let mut line = self.line();
        line.tickets += 1;
        let ticket = line.tickets;
        line.standing.push_back((ticket, who));
        Some(InLine { turn: self, ticket, _waiting: waiting })
    }

    /// Out of the line come the first one and those behind it that `join` lets go with those before, at most `most`.
    pub fn called(&self, most: usize, join: impl Fn(&[T], &T) -> bool) -> Vec<T> {
        let mut line = self.line();
        let mut called = Vec::new();
        let mut left = VecDeque::new();
        while called.len() < most
            && let Some((ticket, next)) = line.standing.pop_front()
        {
            if called.is_empty() || join(&called, &next) {
                called.push(next);
            } else {
                left.push_back((ticket, next));
            }
        }
        left.append(&mut line.standing);
        line.standing = left;
        called
    }

    fn line(&self) -> std::sync::MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line.
pub struct InLine<'a, T> {
    turn: &'a Turn<T>,
    ticket: u64,
    _waiting: Waiting<'a>,
}

impl<T> InLine<'_, T> {
    /// Gives the place up. `None` if it was called before.
    pub fn left(self) -> Option<T> {
        let mut line = self.turn.line();
        let at = line.standing.iter().position(|(ticket, _)| *ticket == self.ticket)?;
        line.standing.remove(at).map(|(_, who)| who)
    }
}

/// One of those who wait, until dropped.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicU32, max: u32) -> Option<Self> {
        let one_more = |waiting| (waiting < max).then_some(waiting + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn only_so_many_wait_for_one_turn() {
        let (turn, mut context) = (Turn::<u8>::default(), Context::from_waker(Waker::noop()));
        let held = turn.taken_at_once().unwrap();
        let mut first = pin!(turn.taken_unless_crowded(2));
        assert!(first.as_mut().poll(&mut context).is_pending());
        {
            let mut second = pin!(turn.taken_unless_crowded(2));
            assert!(second.as_mut().poll(&mut context).is_pending());
            assert!(matches!(pin!(turn.taken_unless_crowded(2)).poll(&mut context), Poll::Ready(None)));
            assert!(turn.stand_in_line(1, 2).is_none());
            assert!(pin!(turn.taken()).poll(&mut context).is_pending());
        }
        // Who gave up makes room, and who comes later does not overtake.
        assert!(pin!(turn.taken_unless_crowded(2)).poll(&mut context).is_pending());
        drop(held);
        assert!(pin!(turn.taken_unless_crowded(2)).poll(&mut context).is_pending());
        assert!(matches!(first.poll(&mut context), Poll::Ready(Some(_))));
        assert_eq!(turn.waiting.load(Ordering::Relaxed), 0);
        assert!(matches!(pin!(turn.taken_unless_crowded(0)).poll(&mut context), Poll::Ready(Some(_))));
    }

    #[test]
    fn those_in_line_are_called_in_their_order_and_once() {
        let turn = Turn::default();
        let places: Vec<_> = (1..=6).map(|who| turn.stand_in_line(who, 6).unwrap()).collect();
        assert!(turn.stand_in_line(7, 6).is_none());
        let odd = |before: &[u8], next: &u8| before.iter().all(|other| other % 2 == next % 2);
        assert_eq!(turn.called(2, odd), [1, 3]);
        assert_eq!(turn.called(9, odd), [2, 4, 6]);
        let left: Vec<_> = places.into_iter().map(InLine::left).collect();
        assert_eq!(left, [None, None, None, None, Some(5), None]);
        assert!(turn.called(9, odd).is_empty());
        assert!(turn.stand_in_line(8, 1).is_some());
    }
}
