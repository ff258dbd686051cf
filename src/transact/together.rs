//! Updates and Releases of one account that come while another one has its turn. They stand in line, and whoever gets
//! the turn decides those at the head of the line one after the other over the same account, and commits them at once:
//! two round trips for all of them. So an account that many sessions share is served about as fast as many accounts.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep_until};

use super::{ATTEMPTS, Asked, account_of, add_changes, done, unchanged};
use crate::app::App;
use crate::charging::account::Account;
use crate::charging::decide::decide;
use crate::charging::decision::Decision;
use crate::request::{Continuation, Done, Failure, Fate, Standing};
use crate::store::{self, Applied, Load, Snapshot, Version, record};
use crate::turns::Turn;

/// Requests that are committed at once: enough that the round trips hardly count, few enough for the store to serve
/// others in between.
const TOGETHER_MAX: usize = 64;

/// What became of an attempt.
enum Attempt {
    Settled,
    /// Something had changed, or nobody knows what was done.
    Again,
}

/// A request that is decided, and goes with others into one commit.
struct Decided {
    standing: Standing,
    session: Version,
    decision: Decision,
}

impl App {
    /// Waits until somebody who has the turn has served the request, and that may be who waits here.
    pub(super) async fn continue_in_line(&self, asked: Continuation, fate: Fate) -> Result<Done, Failure> {
        let turn = self.shared.turns.of(asked.account);
        let late = Instant::now() + Duration::from_millis(u64::from(self.shared.limits.deadline_ms));
        let (standing, mut answered) = Standing::new(asked, fate);
        let place = turn.stand_in_line(standing, self.shared.limits.waiting_per_account_max);
        let place = place.ok_or(Failure::Crowded)?;
        let died = |_| store::Error::unavailable(Applied::Unknown, "whoever served the request failed").into();
        loop {
            tokio::select! {
                biased;
                outcome = &mut answered => return outcome.unwrap_or_else(|ended| Err(died(ended))),
                held = turn.taken() => {
                    // To its end, even when this request is answered before others: they depend on it.
                    self.serve(turn).await;
                    drop(held);
                }
                () = sleep_until(late) => break,
            }
        }
        match place.left() {
            Some(_) => Err(Failure::Crowded),
            None => answered.await.unwrap_or_else(|ended| Err(died(ended))),
        }
    }

    /// Serves those at the head of the line. The caller has the turn.
    async fn serve(&self, turn: &Turn<Standing>) {
        // Of one account, and of each session only the first: the next one follows from it.
        let mut called = turn.called(TOGETHER_MAX, |before, next| {
            let differs = |other: &Standing| other.asked.reference != next.asked.reference;
            before.iter().all(|other| other.asked.account == next.asked.account && differs(other))
        });
        called.retain(|standing| !standing.has_given_up());
        let deadline = i64::from(self.shared.limits.deadline_ms);
        let (late, group): (Vec<_>, Vec<_>) =
            called.into_iter().partition(|standing| self.spent_ms(&standing.fate) > deadline);
        for standing in late {
            standing.answer(Err(Failure::Crowded));
        }
        let alone = if group.len() > 1 { self.continue_together(group).await } else { group };
        for mut standing in alone {
            let outcome = self.continue_alone(&standing.asked, &mut standing.fate).await;
            standing.answer(outcome);
        }
    }

    /// Attempts until all are answered, but those that change nothing. These are for the caller to do: what they are
    /// answered must not depend on what is not committed yet.
    async fn continue_together(&self, mut group: Vec<Standing>) -> Vec<Standing> {
        let mut alone = Vec::new();
        for _ in 0..ATTEMPTS {
            match self.attempt_together(&mut group, &mut alone).await {
                Ok(Attempt::Settled) => return alone,
                Ok(Attempt::Again) => {}
                Err(error) => {
                    group.into_iter().for_each(|standing| standing.answer(Err(error.clone().into())));
                    return alone;
                }
            }
        }
        group.into_iter().for_each(|standing| standing.answer(Err(Failure::Contended)));
        alone
    }

    async fn attempt_together(
        &self,
        group: &mut Vec<Standing>,
        alone: &mut Vec<Standing>,
    ) -> Result<Attempt, store::Error> {
        let loads: Vec<_> = group.iter().map(|standing| load_of(&standing.asked)).collect();
        let snapshots = try_join_all(loads.iter().map(|load| self.store.load(load))).await?;
        // Read one by one: the commit sees to it that all of it is still there at once.
        let newest = snapshots.iter().max_by_key(|read| Version::of(read.account.as_ref()));
        let Some(newest) = newest.cloned() else { return Ok(Attempt::Settled) };
        if snapshots.iter().any(|read| read.origin != newest.origin) {
            return Ok(Attempt::Again);
        }
        let Some(first) = loads.first() else { return Ok(Attempt::Settled) };
        let mut commit = unchanged(first.account, &newest);
        let now = self.shared.clock.now();
        let mut account = account_of(first.account, &newest)?;
        let mut decided = Vec::with_capacity(group.len());
        let mut writes = 0;
        for ((standing, load), read) in group.drain(..).zip(&loads).zip(&snapshots) {
            let version = Version(commit.account_expected.0 + writes + 1);
            match self.decide_one(&standing.asked, load, read, account.clone(), version).await {
                Ok(mut decision) if decision.replayed.is_none() => {
                    if let Some(changed) = decision.changes.account.take() {
                        account = Some(changed);
                        writes += 1;
                    }
                    decided.push(Decided { standing, session: Version::of(read.session.as_ref()), decision });
                }
                Ok(_) | Err(_) => alone.push(standing),
            }
        }
        if decided.is_empty() {
            return Ok(Attempt::Settled);
        }
        for Decided { session, decision, .. } in &decided {
            add_changes(&mut commit, [*session, Version::ABSENT], &decision.changes, now);
        }
        if writes > 0 {
            commit.account_document = account.as_ref().map(record::encode);
            commit.account_steps = writes;
        }
        match self.store.commit(&commit).await {
            Ok(()) => {
                decided.into_iter().for_each(|one| one.standing.answer(Ok(done(one.decision))));
                Ok(Attempt::Settled)
            }
            Err(store::Error::Conflict(_)) => {
                self.shared.metrics.conflicts.inc();
                group.extend(decided.into_iter().map(|one| one.standing));
                Ok(Attempt::Again)
            }
            Err(error) => {
                group.extend(decided.into_iter().map(|one| one.standing));
                let store::Error::Unavailable { applied: Applied::Unknown, .. } = error else { return Err(error) };
                group.iter_mut().for_each(|standing| standing.fate.is_unknown = true);
                let deadline = i64::from(self.shared.limits.deadline_ms);
                let is_late = group.iter().any(|standing| self.spent_ms(&standing.fate) >= deadline);
                if is_late { Err(error) } else { Ok(Attempt::Again) }
            }
        }
    }

    async fn decide_one(
        &self,
        asked: &Continuation,
        load: &Load,
        read: &Snapshot,
        account: Option<Account>,
        version: Version,
    ) -> Result<Decision, Failure> {
        let (command, _) = self.command(&Asked::from(asked), load, read).await?;
        let catalog = self.shared.catalog();
        Ok(decide(&self.context(&catalog, version), account, command)?)
    }
}

pub(super) fn load_of(asked: &Continuation) -> Load {
    Load { account: asked.account, session: Some(asked.reference.clone()), index: Vec::new() }
}
