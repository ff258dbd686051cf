//! A process that stands still, as after `SIGSTOP`, and goes on later with whatever it knew, as after `SIGCONT`.
//!
//! While an instance is frozen, its handlers and workers are not polled, and neither are the calls to its store by
//! which requests, records and notifications load, commit, confirm and acknowledge, whoever makes them. Its sockets
//! take and give nothing; what others sent waits in them, and what it had written is delivered. A deadline that passes
//! around any of these is seen after the thaw, together with an answer that came in time, and the answer wins, as in a
//! process.
//!
//! What cannot be held are tasks that the program spawns by itself, because they belong to the one runtime that
//! everybody shares: lanes, drivers of connections and pools; and of the work on a notification, or on a request whose
//! consumer has gone away, which is a task too, what it does between the calls above: waiting for an account's turn,
//! looking up other sessions, waiting for a consumer. They may notice while frozen that a deadline has passed, and give
//! something up. Nothing of that leaves the instance before the thaw, because its sockets and those calls do not move.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Around everything of one instance.
#[derive(Clone, Debug, Default)]
pub struct Ice(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_frozen: bool,
    waiting: Vec<Waker>,
}

impl Ice {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it was not frozen already.
    pub fn freeze(&self) -> bool {
        !self.with(|state| std::mem::replace(&mut state.is_frozen, true))
    }

    pub fn thaw(&self) {
        let waiting = self.with(|state| {
            state.is_frozen = false;
            std::mem::take(&mut state.waiting)
        });
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll_thawed(&self, context: &Context<'_>) -> Poll<()> {
        self.with(|state| {
            if !state.is_frozen {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
    }

    /// The future, which is not polled while this is frozen.
    pub async fn around<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            std::task::ready!(self.poll_thawed(context));
            future.as_mut().poll(context)
        })
        .await
    }
}

/// The end of a connection that an instance holds.
pub struct Iced<S> {
    pub socket: S,
    pub ice: Ice,
}

impl<S: AsyncRead + Unpin> AsyncRead for Iced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.ice.poll_thawed(context));
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Iced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.ice.poll_thawed(context));
        Pin::new(&mut self.socket).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.ice.poll_thawed(context));
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.ice.poll_thawed(context));
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    /// The clock passes the end of a wait inside, and whoever is frozen sees it late, and an answer in time before it.
    #[tokio::test(start_paused = true)]
    async fn what_is_frozen_does_not_see_time_pass() {
        let (ice, begun) = (Ice::default(), Instant::now());
        let (answer, answered) = tokio::sync::oneshot::channel();
        let inside = ice.clone();
        let waits = tokio::spawn(async move {
            inside
                .around(async {
                    sleep(Duration::from_secs(1)).await;
                    let woke_after = begun.elapsed().as_secs();
                    (woke_after, timeout(Duration::from_secs(1), answered).await.is_ok_and(|answer| answer.is_ok()))
                })
                .await
        });
        tokio::task::yield_now().await;
        assert!(ice.freeze());
        assert!(!ice.freeze(), "it is frozen already");
        sleep(Duration::from_secs(5)).await;
        ice.thaw();
        sleep(Duration::from_millis(500)).await;
        // The second wait has begun: its answer comes in time, its deadline passes, and only then is it seen.
        assert!(ice.freeze());
        answer.send(()).unwrap();
        sleep(Duration::from_secs(60)).await;
        ice.thaw();
        assert_eq!(waits.await.unwrap(), (5, true));
    }
}
