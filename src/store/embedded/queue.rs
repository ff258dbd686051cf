//! What waits for the writer: many tasks of many runtimes put in, one thread takes all there is.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Jobs that may wait, and so also the largest group. A group of this size is some 15 ms of work, more than the fsync
/// it shares usually takes; in larger ones, jobs would wait longer for each other than they save. Whoever finds the queue
/// full waits outside it, where dropping the future leaves no trace.
pub(super) const WAITING_MAX: usize = 1024;

pub(super) struct Queue<T> {
    places: Semaphore,
    state: Mutex<State<T>>,
    filled: Condvar,
}

struct State<T> {
    waiting: Vec<T>,
    closed: bool,
}

/// The store has stopped; the job was not taken.
#[derive(Debug)]
pub(super) struct Closed;

/// What [`Queue::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Jobs,
    /// Nothing came within the time it was given.
    Nothing,
    /// Closed, and nothing waits any more.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            places: Semaphore::new(WAITING_MAX),
            state: Mutex::new(State { waiting: Vec::with_capacity(WAITING_MAX), closed: false }),
            filled: Condvar::new(),
        }
    }

    /// Waits for a place when the queue is full. Cancelling leaves nothing in the queue.
    pub(super) async fn put(&self, job: T) -> Result<(), Closed> {
        let place = self.places.acquire().await.map_err(|_| Closed)?;
        let was_empty = {
            let mut state = self.lock();
            if state.closed {
                return Err(Closed);
            }
            // Given back by `take`.
            place.forget();
            state.waiting.push(job);
            state.waiting.len() == 1
        };
        // The writer sleeps only while nothing waits, so only the first job wakes it: a wake-up is a system call.
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Puts everything that waits into `group`, which must be empty; waits at most `nap` for the first.
    pub(super) fn take(&self, group: &mut Vec<T>, nap: Duration) -> Taken {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.closed {
            let woken = self.filled.wait_timeout_while(state, nap, |state| state.waiting.is_empty() && !state.closed);
            (state, _) = woken.expect(UNPOISONED);
        }
        std::mem::swap(&mut state.waiting, group);
        let closed = state.closed;
        drop(state);
        self.places.add_permits(group.len());
        match (group.is_empty(), closed) {
            (false, _) => Taken::Jobs,
            (true, false) => Taken::Nothing,
            (true, true) => Taken::Closed,
        }
    }

    /// Lets nothing in any more. What waits stays for [`Queue::take`].
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.places.close();
        self.filled.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "nobody panics while holding this lock: it guards a push, a swap and a flag";

#[cfg(test)]
mod tests {
    use super::*;

    const NAP: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn jobs_come_out_in_the_order_they_went_in() {
        let queue = Queue::new();
        let mut group = Vec::new();
        assert_eq!(queue.take(&mut group, NAP), Taken::Nothing);
        for job in 0..3 {
            queue.put(job).await.unwrap();
        }
        assert_eq!(queue.take(&mut group, NAP), Taken::Jobs);
        assert_eq!(group, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_next_one_wait_until_some_are_taken() {
        let queue = Queue::new();
        for job in 0..WAITING_MAX {
            queue.put(job).await.unwrap();
        }
        assert!(tokio::time::timeout(NAP, queue.put(WAITING_MAX)).await.is_err());
        let mut group = Vec::new();
        assert_eq!(queue.take(&mut group, NAP), Taken::Jobs);
        assert_eq!(group.len(), WAITING_MAX, "the one that gave up left nothing");
        queue.put(WAITING_MAX).await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_queue_takes_nothing_but_gives_what_it_has() {
        let queue = Queue::new();
        queue.put(1).await.unwrap();
        queue.close();
        assert!(queue.put(2).await.is_err());
        let mut group = Vec::new();
        assert_eq!(queue.take(&mut group, NAP), Taken::Jobs);
        assert_eq!(group, [1]);
        group.clear();
        assert_eq!(queue.take(&mut group, NAP), Taken::Closed);
    }
}
