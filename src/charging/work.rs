//! Account and session while a decision is made, and how a decision ends: what [`decide`](super::decide) and
//! [`maintain`](super::maintain) share.

use std::mem;

use super::account::Account;
use super::cdr::CauseForRecordClosing;
use super::command::{Block, Invocation};
use super::decide::{Context, Rules};
use super::decision::{
    Answer, Changes, GroupResult, IndexChange, Listed, Notification, NotificationKind, Outcome, Outgoing,
    SessionChange, Timer,
};
use super::journal::{Closing, Entry, Event, Invoked, Move, Reported};
use super::replay;
use super::session::{ChargingSession, ClosingCause, Operation, Remembered, SessionState};
use super::time::{Span, Timestamp};

pub(super) struct Work<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) account: Account,
    pub(super) account_changed: bool,
    pub(super) session: Box<ChargingSession>,
    moves: Vec<Move>,
    /// Where the session's record was full before all that the request reports was in it.
    cuts: Vec<Closing>,
    outbox: Vec<Outgoing>,
    index: Vec<IndexChange>,
}

impl<'a> Work<'a> {
    pub(super) fn start(context: &'a Context<'a>, account: Account, session: Box<ChargingSession>) -> Self {
        let mut work = Self::untouched(context, account, session);
        let expired = work.account.expire(context.now);
        work.moved(expired);
        work
    }

    /// For what leaves no entry in the journal: not even what expires is taken out of the balances.
    pub(super) fn untouched(context: &'a Context<'a>, account: Account, session: Box<ChargingSession>) -> Self {
        Self {
            context,
            account,
            account_changed: false,
            session,
            moves: Vec::new(),
            cuts: Vec::new(),
            outbox: Vec::new(),
            index: Vec::new(),
        }
    }

    /// Takes note of moves that have been made.
    pub(super) fn moved(&mut self, moves: impl IntoIterator<Item = Move>) {
        let before = self.moves.len();
        self.moves.extend(moves);
        self.account_changed |= self.moves.len() > before;
    }

    /// The consumer is there: the session is no longer idle, and need not be probed.
    pub(super) fn note_sign_of_life(&mut self) {
        self.session.updated_at = self.context.now;
        if let SessionState::Probing { .. } = self.session.state {
            self.session.state = SessionState::Active;
        }
    }

    /// Ends the session: what it holds goes back, and its PDU session leads to it no longer than its tombstone lives.
    pub(super) fn close(&mut self, cause: ClosingCause) {
        self.give_back_all();
        self.session.state = SessionState::Closed { at: self.context.now, cause };
        if let Some((high, low)) = self.session.pdu_session_key {
            self.index.push(IndexChange {
                key: (u128::from(high) << 64) | u128::from(low),
                leads_to: self.session.reference.clone(),
                lives_for: Some(self.context.rules.tombstone),
            });
        }
    }

    fn give_back_all(&mut self) {
        for quota in 0..self.session.quotas.len() {
            self.give_back(quota);
        }
    }

    /// Closes another session of the account in the same commit. Its PDU session is the new one's from here on.
    pub(super) fn close_other(&mut self, other: Box<ChargingSession>, cause: ClosingCause) -> SessionChange {
        let mine = mem::replace(&mut self.session, other);
        let my_moves = mem::take(&mut self.moves);
        self.give_back_all();
        self.session.state = SessionState::Closed { at: self.context.now, cause };
        let sealed = self.seal(Some(Event::Closed(cause)), Some(cause.of_record()));
        self.moves = my_moves;
        sealed.change(mem::replace(&mut self.session, mine), Listed::Closed)
    }

    pub(super) fn answer(&self, outcome: Outcome, invocation: &Invocation, results: Vec<GroupResult>) -> Answer {
        Answer {
            outcome,
            at: self.context.now,
            number: invocation.number,
            features: invocation.features.map(|offered| offered & self.context.rules.features),
            results: results.into(),
        }
    }

    /// Remembers the operation and makes its record: the blocks that are new or changed, and all usage.
    /// `quotas_before` is how many quotas the session had.
    pub(super) fn record(
        &mut self,
        operation: Operation,
        invocation: &Invocation,
        quotas_before: usize,
        usage: Vec<Reported>,
        answer: &Answer,
    ) -> Invoked {
        self.session.remember(Remembered {
            operation,
            number: invocation.number,
            mark: replay::mark(&self.session, operation, invocation),
            idempotency: invocation.idempotency,
            answer: answer.clone(),
        });
        let is_news = |block: &&Block| block.is_report() || self.session.notes_change(block);
        let blocks: Vec<Block> = invocation.blocks.iter().filter(is_news).cloned().collect();
        let room = self.session.room_for_containers(self.context.rules.record_octets_max);
        self.cuts = self.session.record.take(room, &usage, &blocks, &invocation.triggers);
        Invoked {
            number: invocation.number,
            timestamp: invocation.timestamp.clone(),
            triggers: invocation.triggers.clone(),
            usage,
            blocks,
            answer: answer.clone(),
            quotas: self.session.quotas.iter().skip(quotas_before).map(|quota| quota.key.clone()).collect(),
        }
    }

    pub(super) fn notify(&mut self, kind: NotificationKind) {
        self.outbox.push(Outgoing::Notify(Notification {
            session: self.session.reference.clone(),
            kind,
            decided_at: self.context.now,
        }));
    }

    /// The timer's entry no longer stands where the session knows it, because a claim has moved it.
    pub(super) fn note_claim(&mut self) {
        self.session.timer_at = Some(Timestamp::LATEST);
    }

    pub(super) fn add_index(&mut self, change: IndexChange) {
        self.index.push(change);
    }

    /// `closes` says why the session's record closes with the event, if it does.
    pub(super) fn finish(
        mut self,
        event: Option<Event>,
        closes: Option<CauseForRecordClosing>,
        listing: Listed,
    ) -> Changes {
        let sealed = self.seal(event, closes);
        Changes {
            account: self.account_changed.then_some(self.account),
            sessions: vec![sealed.change(self.session, listing)],
            outbox: self.outbox,
            index: self.index,
        }
    }

    /// Makes the entry, counts the records that close with it, and sets the timer.
    fn seal(&mut self, event: Option<Event>, closes: Option<CauseForRecordClosing>) -> Sealed {
        let Context { now, account_version, rules, .. } = *self.context;
        let moves = mem::take(&mut self.moves);
        let mut closings = mem::take(&mut self.cuts);
        closings.extend(closes.map(|cause| Closing { cause, containers: None }));
        let entry = event.map(|event| Entry { at: now, account_version, event, moves, closings });
        for _ in entry.iter().flat_map(|entry| &entry.closings) {
            let part = self.session.record.close(now);
            let (session, ended) = (self.session.reference.clone(), self.session.is_closed());
            self.outbox.push(Outgoing::Record { session, part, ended, closed_at: Some(now) });
        }
        if closes.is_some() {
            self.session.record.octets = 0;
        }
        if self.session.is_closed() {
            self.session.record.opened_at = None;
        }
        let lives_for = match self.session.is_closed() {
            true => rules.tombstone,
            false => rules.open_life(),
        };
        Sealed { entry, timer: timer(&mut self.session, rules), lives_for }
    }
}

/// What a session's change says beside the session.
struct Sealed {
    entry: Option<Entry>,
    timer: Timer,
    lives_for: Span,
}

impl Sealed {
    fn change(self, session: Box<ChargingSession>, listing: Listed) -> SessionChange {
        let Self { entry, timer, lives_for } = self;
        SessionChange { session, entry, timer, listing, lives_for }
    }
}

/// Moves the timer entry only where it would come too late: a worker that finds an entry too early sets it again.
fn timer(session: &mut ChargingSession, rules: &Rules) -> Timer {
    match (session.due_at(rules), session.timer_at) {
        (None, None) => Timer::Keep,
        (None, Some(_)) => {
            session.timer_at = None;
            Timer::Remove
        }
        (Some(due), Some(armed)) if armed <= due => Timer::Keep,
        (Some(due), _) => {
            session.timer_at = Some(due);
            Timer::At(due)
        }
    }
}
