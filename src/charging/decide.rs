//! The decision over one charging request: pure and total. Checks first, each with its own rejection; then the
//! changes, which do not fail.
//!
//! Reading order: [`decide`], then `open`, `update`, `release` and `late`. What they share is in `settle`
//! (debits of reported usage) and `grant` (new grants). All debits of a request come before its first grant, so that
//! no grant takes money that usage of another rating group needs.

use std::mem;

use super::account::Account;
use super::command::{Block, Container, Create, Invocation, OneTime, Subscriber, UnitUsage};
use super::decision::{
    Answer, Decision, GroupResult, IndexChange, Listed, Outcome, Outgoing, Rejection, ResultCode, SessionChange, Timer,
};
use super::ids::ChargingDataRef;
use super::journal::{Entry, Event, Header, Invoked, Move, Reported};
use super::replay::{self, Standing};
use super::session::{ChargingSession, ClosingCause, Numbering, Operation, Payer, Remembered, Service, SessionState};
use super::settle::Settling;
use super::tariff::{Catalog, Rule};
use super::time::{Span, Timestamp};
use super::units::Units;

/// What a decision may know besides account and session.
pub struct Context<'a> {
    pub now: Timestamp,
    pub catalog: &'a Catalog,
    pub rules: &'a Rules,
    /// The account's version after this commit, for the journal.
    pub account_version: u64,
}

/// The operator's settings that decide.
#[derive(Clone, Debug)]
pub struct Rules {
    pub supervision: Span,
    pub validity_grace: Span,
    /// How long a closed session answers repeated and late requests.
    pub tombstone: Span,
    /// How far behind the supervision the store may drop an open session's document.
    pub document_margin: Span,
    /// Optional features that we support, as a bit mask, feature 1 lowest (TS 32.291 6.1.8).
    pub features: u64,
    /// Quotas that one session may have.
    pub quotas_max: usize,
    /// Refuse a Create whose every requested rating group is out of credit.
    pub refuse_create_without_credit: bool,
}

/// A charging request, with the session it speaks of.
pub enum Command<'a> {
    Create(Box<Create<'a>>),
    Update(Box<ChargingSession>, &'a Invocation),
    Release(Box<ChargingSession>, &'a Invocation),
}

/// Decides one charging request. `account` is the payer's, as read together with the session.
///
/// # Errors
///
/// A `Rejection` refuses the whole request; nothing is to be written then.
pub fn decide(context: &Context<'_>, account: Option<Account>, command: Command<'_>) -> Result<Decision, Rejection> {
    match command {
        Command::Create(create) => open(context, account, *create),
        Command::Update(session, invocation) => update(context, account, *session, invocation),
        Command::Release(session, invocation) => release(context, account, *session, invocation),
    }
}

fn open(context: &Context<'_>, account: Option<Account>, create: Create<'_>) -> Result<Decision, Rejection> {
    let Create { invocation, service, subscriber, reference, .. } = create;
    if let Some(session) = create.repeated {
        return first_answer(&session, invocation);
    }
    let superseded = create.same_pdu_session.filter(|session| !session.is_closed());
    if let Some(session) = &superseded
        && is_unused_copy(session, invocation)
    {
        return first_answer(session, invocation);
    }
    if subscriber.as_ref().is_some_and(|subscriber| subscriber.blocked) {
        return Err(Rejection::EndUserRequestDenied);
    }
    let one_time = kind_of_event(invocation, create.one_time)?;
    if subscriber.as_ref().is_some_and(|subscriber| is_free_of_charging(context, subscriber, invocation)) {
        return Err(Rejection::ChargingNotApplicable);
    }
    let account = payer_account(subscriber.is_some(), account)?;

    let completed;
    let invocation = match one_time {
        Some(OneTime::Post) => {
            completed = with_implied_usage(invocation.clone());
            &completed
        }
        Some(OneTime::Immediate) => {
            completed = with_implied_requests(invocation.clone());
            &completed
        }
        Some(OneTime::Untyped) | None => invocation,
    };
    let header = Header {
        subscriber: subscriber.as_ref().map(|subscriber| subscriber.id.clone()),
        account: subscriber.as_ref().map(|subscriber| subscriber.account.clone()),
        currency: subscriber.as_ref().map(|_| account.currency.clone()),
        plan: subscriber.as_ref().map(|subscriber| subscriber.plan.clone()),
        consumer: invocation.consumer.clone(),
        service,
        one_time: one_time.is_some(),
    };
    let pdu_session = create.pdu_session.filter(|_| one_time.is_none());
    let session = new_session(context, service, subscriber, reference.clone(), invocation, pdu_session);
    let mut work = Work::start(context, account, session);
    let old = superseded.map(|old| work.close_other(old, ClosingCause::Superseded));
    let settled = work.settle(invocation, Settling::Usual(one_time))?;
    let results = match one_time {
        Some(OneTime::Immediate) => work.debit_requests(invocation, &settled.codes),
        Some(OneTime::Post | OneTime::Untyped) => work.results_without_grants(invocation, &settled.codes),
        None => work.answer_requests(invocation, &settled.codes),
    };
    // What was reported is charged, so a request that reports cannot be refused any more.
    if context.rules.refuse_create_without_credit && settled.reported.is_empty() && is_out_of_credit(&results) {
        return Err(Rejection::QuotaLimitReached);
    }

    let answer = work.answer(Outcome::Created, invocation, results);
    let mut outbox: Vec<_> = old.iter().map(|old| Outgoing::Closed(old.session.reference.clone())).collect();
    let mut listing = Listed::Opened;
    let mut worth_a_record = true;
    if one_time.is_some() {
        work.session.state = SessionState::Closed { at: context.now, cause: ClosingCause::Event };
        // An event that was refused happened nowhere: only its answer is kept, for a repetition of the request.
        let took_place = |result: &GroupResult| result.code.allows_use();
        let is_refused = !answer.results.is_empty() && !answer.results.iter().any(took_place);
        worth_a_record = one_time != Some(OneTime::Immediate) || !settled.reported.is_empty() || !is_refused;
        listing = if worth_a_record { Listed::Closed } else { Listed::Keep };
        outbox.extend(worth_a_record.then(|| Outgoing::Closed(reference.clone())));
    }
    let invoked = work.record(Operation::Create, invocation, settled.reported, &answer);
    let event = Event::Opened { header: Box::new(header), invocation: Box::new(invoked) };
    // Always written where there is one: its version keeps two Creates for one PDU session from overlooking each other.
    work.account_changed = work.session.payer.is_some();
    let index = pdu_session.map(|key| IndexChange { key, leads_to: reference, lives_for: None });
    let mut decision = work.finish(answer, worth_a_record.then_some(event), listing, outbox, index);
    // The new session stands first: it is the one that the answer and a conflict speak of.
    decision.sessions.extend(old);
    Ok(decision)
}

fn new_session(
    context: &Context<'_>,
    service: Service,
    subscriber: Option<Subscriber>,
    reference: ChargingDataRef,
    invocation: &Invocation,
    pdu_session: Option<u128>,
) -> ChargingSession {
    let payer = subscriber.map(|subscriber| Payer {
        named: invocation.subscriber.clone().filter(|named| *named != subscriber.id),
        plan_version: context.catalog.newest(&subscriber.plan).map_or(0, |plan| plan.plan.version),
        subscriber: subscriber.id,
        account: subscriber.account,
        plan: subscriber.plan,
        final_unit: subscriber.final_unit,
    });
    ChargingSession {
        reference,
        state: SessionState::Active,
        service,
        payer,
        consumer: invocation.consumer.clone(),
        notify_uri: invocation.notify_uri.clone(),
        features: invocation.features.unwrap_or(0) & context.rules.features,
        opened_at: context.now,
        updated_at: context.now,
        first_number: invocation.number,
        numbering: Numbering::Unknown,
        remembered: Vec::new(),
        containers: Default::default(),
        quotas: Vec::new(),
        meters: Vec::new(),
        blocks: Vec::new(),
        charged: Default::default(),
        timer_at: None,
        pdu_session_key: pdu_session.map(halves),
    }
}

/// What a request flagged as a one-time event is: an event of a kind, or a session after all.
fn kind_of_event(invocation: &Invocation, flagged: Option<OneTime>) -> Result<Option<OneTime>, Rejection> {
    let Some(flagged) = flagged else { return Ok(None) };
    if invocation.usages.is_empty() && !invocation.blocks.iter().any(Block::describes_a_service) {
        return Err(Rejection::NothingToCharge);
    }
    Ok(match flagged {
        OneTime::Immediate | OneTime::Post => Some(flagged),
        OneTime::Untyped if invocation.usages.iter().any(|usage| usage.requested.is_some()) => Some(OneTime::Immediate),
        OneTime::Untyped if invocation.usages.iter().any(|usage| !usage.containers.is_empty()) => Some(OneTime::Post),
        OneTime::Untyped => None,
    })
}

/// An event after the fact that names a rating group without saying how much was used happened once, or as often
/// as it asks for.
fn with_implied_usage(mut invocation: Invocation) -> Invocation {
    for usage in invocation.usages.iter_mut().filter(|usage| usage.containers.is_empty()) {
        let once = Units { service_specific_units: Some(1), ..Units::default() };
        let units = usage.requested.take().filter(|asked| *asked != Units::default()).unwrap_or(once);
        usage.containers.push(Container::of_units(units));
    }
    invocation
}

/// An event before the fact that names a rating group and nothing else asks for what the tariff grants by default.
fn with_implied_requests(mut invocation: Invocation) -> Invocation {
    for usage in invocation.usages.iter_mut().filter(|usage| usage.containers.is_empty()) {
        usage.requested.get_or_insert_default();
    }
    invocation
}

/// The plan takes everything that the request names out of charging.
fn is_free_of_charging(context: &Context<'_>, subscriber: &Subscriber, invocation: &Invocation) -> bool {
    let Some(plan) = context.catalog.newest(&subscriber.plan) else { return false };
    let free = |usage: &UnitUsage| {
        plan.tariff(usage.key.rating_group).is_some_and(|tariff| matches!(tariff.rule, Rule::NotCharged))
    };
    !invocation.usages.is_empty() && invocation.usages.iter().all(free)
}

fn is_out_of_credit(results: &[GroupResult]) -> bool {
    !results.is_empty() && results.iter().all(|result| result.code == ResultCode::QuotaLimitReached)
}

/// A second Create for the same PDU session is a copy as long as the session has only been opened, and the request says
/// the same or is marked as a retransmission; else the consumer has started again.
fn is_unused_copy(session: &ChargingSession, invocation: &Invocation) -> bool {
    let is_copy = |done: &Remembered| {
        let same_content = done.mark == invocation.fingerprint.content;
        done.operation == Operation::Create && (same_content || invocation.retransmission)
    };
    session.first_number == invocation.number
        && session.remembered.iter().all(is_copy)
        && session.quotas.iter().all(|quota| quota.used == 0)
}

/// The stored answer of a session's Create.
fn first_answer(session: &ChargingSession, invocation: &Invocation) -> Result<Decision, Rejection> {
    let done = session.remembered.iter().find(|done| done.operation == Operation::Create);
    let done = done.ok_or(Rejection::NumberForgotten)?;
    let by_key = invocation.idempotency.is_some() && done.idempotency == invocation.idempotency;
    if by_key && done.mark != invocation.fingerprint.content {
        return Err(Rejection::IdempotencyKeyReused);
    }
    Ok(Decision::replay(done.answer.clone(), session))
}

fn update(
    context: &Context<'_>,
    account: Option<Account>,
    mut session: ChargingSession,
    invocation: &Invocation,
) -> Result<Decision, Rejection> {
    check_identity(&session, invocation)?;
    match replay::standing(&mut session, Operation::Update, invocation)? {
        Standing::Replayed(answer) => return Ok(Decision::replay(answer, &session)),
        Standing::Grown(answer) => {
            return late(context, account, session, Operation::Update, invocation, Some(answer));
        }
        Standing::Late => return late(context, account, session, Operation::Update, invocation, None),
        Standing::New => {}
    }
    let account = payer_account(session.payer.is_some(), account)?;

    let mut work = Work::start(context, account, session);
    work.note_sign_of_life();
    if let Some(uri) = &invocation.notify_uri {
        work.session.notify_uri = Some(uri.clone());
    }
    let settled = work.settle(invocation, Settling::Usual(None))?;
    let results = work.answer_requests(invocation, &settled.codes);
    let answer = work.answer(Outcome::Updated, invocation, results);
    let invoked = work.record(Operation::Update, invocation, settled.reported, &answer);
    Ok(work.finish(answer, Some(Event::Updated(Box::new(invoked))), Listed::Keep, Vec::new(), None))
}

fn release(
    context: &Context<'_>,
    account: Option<Account>,
    mut session: ChargingSession,
    invocation: &Invocation,
) -> Result<Decision, Rejection> {
    check_identity(&session, invocation)?;
    match replay::standing(&mut session, Operation::Release, invocation)? {
        Standing::Replayed(answer) => return Ok(Decision::replay(answer, &session)),
        Standing::Grown(answer) => {
            return late(context, account, session, Operation::Release, invocation, Some(answer));
        }
        Standing::Late => return late(context, account, session, Operation::Release, invocation, None),
        Standing::New => {}
    }
    let account = payer_account(session.payer.is_some(), account)?;

    let mut work = Work::start(context, account, session);
    work.session.updated_at = context.now;
    let settled = work.settle(invocation, Settling::Usual(None))?;
    work.close(ClosingCause::Released);
    let answer = work.answer(Outcome::Released, invocation, Vec::new());
    let invoked = work.record(Operation::Release, invocation, settled.reported, &answer);
    let outbox = vec![Outgoing::Closed(work.session.reference.clone())];
    let index = work.forget_pdu_session();
    Ok(work.finish(answer, Some(Event::Released(Box::new(invoked))), Listed::Closed, outbox, index))
}

/// Usage that comes too late to change a grant is charged all the same; `given` is the answer that stays.
fn late(
    context: &Context<'_>,
    account: Option<Account>,
    session: ChargingSession,
    operation: Operation,
    invocation: &Invocation,
    given: Option<Answer>,
) -> Result<Decision, Rejection> {
    let account = payer_account(session.payer.is_some(), account)?;
    let after_closing = session.is_closed();
    let settling = if given.is_some() { Settling::Repeated } else { Settling::Late };
    let mut work = Work::start(context, account, session);
    if !after_closing {
        work.note_sign_of_life();
    }
    let settled = work.settle(invocation, settling)?;
    let nothing_new = settled.reported.iter().all(|reported| reported.repeated.len() == reported.containers.len());
    let must_be_remembered = given.is_none() && !after_closing;
    let answer = match given {
        Some(answer) => answer,
        None if after_closing => work.answer(Outcome::Gone, invocation, Vec::new()),
        None => {
            let results = work.results_without_grants(invocation, &settled.codes);
            work.answer(Outcome::Updated, invocation, results)
        }
    };
    if nothing_new && !must_be_remembered {
        return Ok(Decision::replay(answer, &work.session));
    }
    let outbox = after_closing.then(|| Outgoing::LateUsage(work.session.reference.clone()));
    let invoked = work.record(operation, invocation, settled.reported, &answer);
    let event = Event::Late { invocation: Box::new(invoked), after_closing };
    Ok(work.finish(answer, Some(event), Listed::Keep, outbox.into_iter().collect(), None))
}

/// An event has no session behind it, and a session keeps its subscriber.
fn check_identity(session: &ChargingSession, invocation: &Invocation) -> Result<(), Rejection> {
    if session.is_event() {
        return Err(Rejection::UnknownSession);
    }
    let Some(named) = &invocation.subscriber else { return Ok(()) };
    let is_the_payer = |payer: &Payer| *named == payer.subscriber || Some(named) == payer.named.as_ref();
    if session.payer.as_ref().is_some_and(is_the_payer) { Ok(()) } else { Err(Rejection::SubscriberChanged) }
}

fn payer_account(is_paid: bool, account: Option<Account>) -> Result<Account, Rejection> {
    match account {
        Some(account) if is_paid => Ok(account),
        Some(_) | None if !is_paid => Ok(Account::nobody()),
        Some(_) | None => Err(Rejection::NoAccount),
    }
}

/// Account and session while a decision is made.
pub(super) struct Work<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) account: Account,
    pub(super) account_changed: bool,
    pub(super) session: ChargingSession,
    moves: Vec<Move>,
}

impl<'a> Work<'a> {
    fn start(context: &'a Context<'a>, mut account: Account, session: ChargingSession) -> Self {
        let moves = account.expire(context.now);
        Self { context, account_changed: !moves.is_empty(), account, session, moves }
    }

    /// Takes note of moves that have been made.
    pub(super) fn moved(&mut self, moves: impl IntoIterator<Item = Move>) {
        let before = self.moves.len();
        self.moves.extend(moves);
        self.account_changed |= self.moves.len() > before;
    }

    /// The consumer is there: the session is no longer idle, and need not be probed.
    fn note_sign_of_life(&mut self) {
        self.session.updated_at = self.context.now;
        if let SessionState::Probing { .. } = self.session.state {
            self.session.state = SessionState::Active;
        }
    }

    fn close(&mut self, cause: ClosingCause) {
        for quota in 0..self.session.quotas.len() {
            self.give_back(quota);
        }
        self.session.state = SessionState::Closed { at: self.context.now, cause };
    }

    /// Closes another session of the account in the same commit.
    fn close_other(&mut self, other: ChargingSession, cause: ClosingCause) -> SessionChange {
        let mine = mem::replace(&mut self.session, other);
        let my_moves = mem::take(&mut self.moves);
        self.close(cause);
        let closed = mem::replace(&mut self.session, mine);
        let moves = mem::replace(&mut self.moves, my_moves);
        self.change(closed, Some(Event::Closed(cause)), Listed::Closed, moves)
    }

    fn answer(&self, outcome: Outcome, invocation: &Invocation, results: Vec<GroupResult>) -> Answer {
        Answer {
            outcome,
            at: self.context.now,
            number: invocation.number,
            features: invocation.features.map(|offered| offered & self.context.rules.features),
            results,
        }
    }

    /// Remembers the operation and makes its record: the blocks that are new or changed, and all usage.
    fn record(
        &mut self,
        operation: Operation,
        invocation: &Invocation,
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
        let blocks = invocation.blocks.iter().filter(|block| self.session.notes_change(block)).cloned().collect();
        Invoked {
            number: invocation.number,
            timestamp: invocation.timestamp.clone(),
            triggers: invocation.triggers.clone(),
            usage,
            blocks,
            answer: answer.clone(),
        }
    }

    /// Lets the entry that leads to the session by its PDU session expire with the tombstone.
    fn forget_pdu_session(&self) -> Option<IndexChange> {
        let (high, low) = self.session.pdu_session_key?;
        Some(IndexChange {
            key: (u128::from(high) << 64) | u128::from(low),
            leads_to: self.session.reference.clone(),
            lives_for: Some(self.context.rules.tombstone),
        })
    }

    fn finish(
        mut self,
        answer: Answer,
        event: Option<Event>,
        listing: Listed,
        outbox: Vec<Outgoing>,
        index: Option<IndexChange>,
    ) -> Decision {
        let moves = mem::take(&mut self.moves);
        let change = self.change(self.session.clone(), event, listing, moves);
        Decision {
            answer,
            replayed: None,
            account: self.account_changed.then_some(self.account),
            sessions: vec![change],
            outbox,
            index: index.into_iter().collect(),
        }
    }

    fn change(
        &self,
        mut session: ChargingSession,
        event: Option<Event>,
        listing: Listed,
        moves: Vec<Move>,
    ) -> SessionChange {
        let rules = self.context.rules;
        let timer = timer(&mut session, rules);
        let lives_for =
            if session.is_closed() { rules.tombstone } else { rules.supervision.plus(rules.document_margin) };
        let Context { now, account_version, .. } = *self.context;
        let entry = event.map(|event| Entry { at: now, account_version, event, moves });
        SessionChange { session, entry, timer, listing, lives_for }
    }
}

impl Decision {
    fn replay(answer: Answer, session: &ChargingSession) -> Self {
        Self {
            answer,
            replayed: Some(Box::new(session.clone())),
            account: None,
            sessions: Vec::new(),
            outbox: Vec::new(),
            index: Vec::new(),
        }
    }
}

/// Moves the timer entry only where it would come too late: a worker that finds an entry too early sets it again.
fn timer(session: &mut ChargingSession, rules: &Rules) -> Timer {
    match (session.due_at(rules.supervision, rules.validity_grace), session.timer_at) {
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

fn halves(key: u128) -> (u64, u64) {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    (half(key >> 64), half(key))
}
