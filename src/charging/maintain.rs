//! What happens to a session between messages, as pure as the decision over a request: time passes, operators act,
//! consumers disappear.
//!
//! Whoever finds a session due may ask as often as it likes: what was done already is not done again, so two that fire
//! the same timer do no more than one. A message that comes first wins, because the session is then no longer due.

use super::account::Account;
use super::cdr::CauseForRecordClosing;
use super::decide::Context;
use super::decision::{Changes, Listed, NotificationKind};
use super::ids::RatingGroup;
use super::journal::{AbortReason, Event, Told};
use super::session::{ChargingSession, ClosingCause, SessionState};
use super::text::Text;
use super::work::Work;

/// Why a session is looked at although no message has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maintenance {
    /// Its timer was claimed: everything that is due by `now` is done at once.
    Due,
    /// Credit, tariff or operator: the consumer shall report and ask again. `None` names all rating groups of the
    /// session.
    Reauthorize { groups: Option<Vec<RatingGroup>> },
    /// The consumer shall end the session.
    Abort { reason: AbortReason },
    /// The consumer answered at this URI that it does not know the session.
    ConsumerGone { notify_uri: Text },
    /// The consumer answered at `from` that it is found at `to` for good.
    Moved { from: Text, to: Text },
    /// The operator wants what there is as a record.
    CloseRecord,
}

/// Decides what follows from a cause. `None` when that is nothing. `account` is the payer's, as read together with the
/// session.
pub fn maintain(
    context: &Context<'_>,
    account: Option<Account>,
    session: Box<ChargingSession>,
    cause: Maintenance,
) -> Option<Changes> {
    if session.is_closed() {
        return None;
    }
    // Where the account is gone there is nothing to give back, but the session must end all the same.
    let account = account.filter(|_| session.payer.is_some()).unwrap_or_else(Account::nobody);
    match cause {
        Maintenance::Due => due(context, account, session),
        Maintenance::Reauthorize { groups } => reauthorize(context, account, session, groups),
        Maintenance::Abort { reason } => abort(context, account, session, reason),
        Maintenance::ConsumerGone { notify_uri } => {
            // A consumer that has named another URI meanwhile is there.
            let is_current = session.notify_uri.as_ref() == Some(&notify_uri);
            is_current.then(|| close(Work::start(context, account, session), ClosingCause::ConsumerGone))
        }
        Maintenance::Moved { from, to } => {
            if session.notify_uri.as_ref() != Some(&from) || from == to {
                return None;
            }
            let mut work = Work::untouched(context, account, session);
            work.session.notify_uri = Some(to);
            Some(work.finish(None, None, Listed::Keep))
        }
        Maintenance::CloseRecord => {
            let event = Event::Maintained { expired: Vec::new(), told: None };
            let closes = CauseForRecordClosing::ManagementIntervention;
            Some(Work::start(context, account, session).finish(Some(event), Some(closes), Listed::Keep))
        }
    }
}

fn due(context: &Context<'_>, account: Account, session: Box<ChargingSession>) -> Option<Changes> {
    let Context { now, rules, .. } = *context;
    let due_at = session.due_at(rules)?;
    if now < due_at {
        // Messages have come since the timer was set, and have left it where it was.
        let is_early = session.timer_at != Some(due_at);
        let mut work = Work::untouched(context, account, session);
        work.note_claim();
        return is_early.then(|| work.finish(None, None, Listed::Keep));
    }

    let mut work = Work::start(context, account, session);
    work.note_claim();
    let mut expired = Vec::new();
    for quota in 0..work.session.quotas.len() {
        let Some(state) = work.session.quotas.get(quota) else { continue };
        if state.expires_at(rules).is_some_and(|at| at <= now) {
            expired.push(state.key.clone());
            work.expire(quota);
        }
    }
    let has_no_patience = work.session.patience_ends(rules).is_some_and(|at| at <= now);
    let mut told = None;
    if has_no_patience {
        match work.session.state {
            SessionState::Active if work.session.notify_uri.is_some() => {
                work.session.state = SessionState::Probing { since: now };
                work.notify(NotificationKind::Reauthorize { groups: work.session.rating_groups() });
                told = Some(Told::Probe);
            }
            SessionState::Active | SessionState::Probing { .. } => return Some(close(work, ClosingCause::Idle)),
            SessionState::Aborting { .. } => return Some(close(work, ClosingCause::AbortUnanswered)),
            SessionState::Closed { .. } => {}
        }
    }
    let is_full = work.session.record_full_at(rules).is_some_and(|at| at <= now);
    let closes = is_full.then_some(CauseForRecordClosing::TimeLimit);
    Some(work.finish(Some(Event::Maintained { expired, told }), closes, Listed::Keep))
}

fn reauthorize(
    context: &Context<'_>,
    account: Account,
    session: Box<ChargingSession>,
    groups: Option<Vec<RatingGroup>>,
) -> Option<Changes> {
    // Nobody to tell, or told to end already.
    if session.notify_uri.is_none() || matches!(session.state, SessionState::Aborting { .. }) {
        return None;
    }
    let mut known = session.rating_groups();
    if let Some(wanted) = groups {
        known.retain(|group| wanted.contains(group));
        // None named would mean the whole session.
        if known.is_empty() {
            return None;
        }
    }
    let mut work = Work::start(context, account, session);
    work.notify(NotificationKind::Reauthorize { groups: known.clone() });
    let event = Event::Maintained { expired: Vec::new(), told: Some(Told::Reauthorize(known)) };
    Some(work.finish(Some(event), None, Listed::Keep))
}

fn abort(
    context: &Context<'_>,
    account: Account,
    session: Box<ChargingSession>,
    reason: AbortReason,
) -> Option<Changes> {
    if matches!(session.state, SessionState::Aborting { .. }) {
        return None;
    }
    let mut work = Work::start(context, account, session);
    if work.session.notify_uri.is_none() {
        return Some(close(work, ClosingCause::Aborted));
    }
    work.session.state = SessionState::Aborting { since: context.now };
    work.notify(NotificationKind::Abort);
    let event = Event::Maintained { expired: Vec::new(), told: Some(Told::Abort(reason)) };
    Some(work.finish(Some(event), None, Listed::Keep))
}

/// Ends the session without a Release.
fn close(mut work: Work<'_>, cause: ClosingCause) -> Changes {
    work.close(cause);
    work.finish(Some(Event::Closed(cause)), Some(cause.of_record()), Listed::Closed)
}
