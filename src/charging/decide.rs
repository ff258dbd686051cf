//! The decision over one charging request: pure and total. Checks first, each with its own rejection; then the
//! changes, which do not fail.
//!
//! Reading order: [`decide`], then `open`, `update`, `release` and `late`. What they share is in `settle`
//! (debits of reported usage), `grant` (new grants) and `work` (how a decision ends). All debits of a request come before its first grant, so that
//! no grant takes money that usage of another rating group needs.

use super::account::Account;
use super::cdr::CauseForRecordClosing;
use super::command::{Block, Container, Create, Invocation, OneTime, Subscriber, UnitUsage};
use super::decision::{Answer, Changes, Decision, GroupResult, IndexChange, Listed, Outcome, Rejection, ResultCode};
use super::ids::ChargingDataRef;
use super::journal::{Event, Header};
use super::parts::{self, PartialTrigger};
use super::replay::{self, Standing};
use super::session::{
    ChargingSession, ClosingCause, Numbering, Operation, Payer, RecordSoFar, Remembered, Service, SessionState,
};
use super::settle::Settling;
use super::tariff::{Catalog, Rule};
use super::time::{Span, Timestamp};
use super::units::Units;
use super::work::Work;

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
    /// How long a session may be idle before its consumer is asked whether it still lives.
    pub supervision: Span,
    /// How long that question may stay without an Update before the session is closed.
    pub probe_guard: Span,
    /// How long a consumer that was told to end may take for its Release.
    pub abort_guard: Span,
    /// How late a report may be after its quota's validity.
    pub validity_grace: Span,
    /// How long one record may collect before a partial one is written; `None` for as long as the session lives.
    pub record_open_max: Option<Span>,
    /// Octets that one record may collect, by an estimate on the safe side (see `parts`).
    pub record_octets_max: u32,
    /// Changes that a partial record is wanted after, besides those that always close one.
    pub partial_triggers: Vec<PartialTrigger>,
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

impl Rules {
    /// How long an open session's document lives after each write.
    pub fn open_life(&self) -> Span {
        self.supervision.plus(self.document_margin)
    }
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
        Command::Update(session, invocation) => update(context, account, session, invocation),
        Command::Release(session, invocation) => release(context, account, session, invocation),
    }
}

fn open(context: &Context<'_>, account: Option<Account>, create: Create<'_>) -> Result<Decision, Rejection> {
    let Create { invocation, service, subscriber, reference, .. } = create;
    if let Some(session) = create.repeated {
        return first_answer(&session, invocation);
    }
    // An event in a PDU session says nothing about the session that charges it.
    let one_time = kind_of_event(invocation, create.one_time);
    let is_event = matches!(one_time, Ok(Some(_)));
    let superseded = create.same_pdu_session.filter(|session| !is_event && !session.is_closed());
    if let Some(session) = &superseded
        && is_unused_copy(session, invocation)
    {
        return first_answer(session, invocation);
    }
    if subscriber.as_ref().is_some_and(|subscriber| subscriber.blocked) {
        return Err(Rejection::EndUserRequestDenied);
    }
    let one_time = one_time?;
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
    let untouched = one_time.is_some().then(|| account.clone());
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
    let mut listing = Listed::Opened;
    let mut worth_a_record = true;
    if one_time.is_some() {
        work.session.state = SessionState::Closed { at: context.now, cause: ClosingCause::Event };
        // An event that was refused happened nowhere: only its answer is kept, for a repetition of the request.
        let took_place = |result: &GroupResult| result.code.allows_use();
        let is_refused = !answer.results.is_empty() && !answer.results.iter().any(took_place);
        worth_a_record = one_time != Some(OneTime::Immediate) || !settled.reported.is_empty() || !is_refused;
        listing = if worth_a_record { Listed::Closed } else { Listed::Keep };
        // Without an entry nothing may move, not even what has expired: the next entry takes it out of the balances.
        if let Some(untouched) = untouched.filter(|_| !worth_a_record && old.is_none()) {
            work.account = untouched;
        }
    }
    let invoked = work.record(Operation::Create, invocation, 0, settled.reported, &answer);
    let event = Event::Opened { header: Box::new(header), invocation: Box::new(invoked) };
    // Always written where there is one: its version keeps two Creates for one PDU session from overlooking each other.
    work.account_changed = work.session.payer.is_some();
    if let Some(key) = pdu_session {
        work.add_index(IndexChange { key, leads_to: reference, lives_for: None });
    }
    let closes = one_time.map(|_| ClosingCause::Event.of_record());
    let mut changes = work.finish(worth_a_record.then_some(event), closes, listing);
    // The new session stands first: it is the one that the answer and a conflict speak of.
    changes.sessions.extend(old);
    Ok(Decision { answer, replayed: None, changes })
}

fn new_session(
    context: &Context<'_>,
    service: Service,
    subscriber: Option<Subscriber>,
    reference: ChargingDataRef,
    invocation: &Invocation,
    pdu_session: Option<u128>,
) -> Box<ChargingSession> {
    let payer = subscriber.map(|subscriber| Payer {
        named: invocation.subscriber.clone().filter(|named| *named != subscriber.id),
        plan_version: context.catalog.newest(&subscriber.plan).map_or(0, |plan| plan.plan.version),
        subscriber: subscriber.id,
        account: subscriber.account,
        plan: subscriber.plan,
        final_unit: subscriber.final_unit,
    });
    Box::new(ChargingSession {
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
        record: RecordSoFar::default(),
    })
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
        usage.containers = vec![Container::of_units(units)].into();
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
/// the same; else the consumer has started again. A retransmission that says something else is one of a request that
/// never arrived.
fn is_unused_copy(session: &ChargingSession, invocation: &Invocation) -> bool {
    let is_copy =
        |done: &Remembered| done.operation == Operation::Create && done.mark == invocation.fingerprint.content;
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
    mut session: Box<ChargingSession>,
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

    let quotas_before = session.quotas.len();
    let mut work = Work::start(context, account, session);
    work.note_sign_of_life();
    if let Some(uri) = &invocation.notify_uri {
        work.session.notify_uri = Some(uri.clone());
    }
    let settled = work.settle(invocation, Settling::Usual(None))?;
    let results = work.answer_requests(invocation, &settled.codes);
    let answer = work.answer(Outcome::Updated, invocation, results);
    let invoked = work.record(Operation::Update, invocation, quotas_before, settled.reported, &answer);
    let closes = parts::cause_to_split(context.rules, invocation);
    let changes = work.finish(Some(Event::Updated(Box::new(invoked))), closes, Listed::Keep);
    Ok(Decision { answer, replayed: None, changes })
}

fn release(
    context: &Context<'_>,
    account: Option<Account>,
    mut session: Box<ChargingSession>,
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

    let quotas_before = session.quotas.len();
    let mut work = Work::start(context, account, session);
    work.session.updated_at = context.now;
    let settled = work.settle(invocation, Settling::Usual(None))?;
    work.close(ClosingCause::Released);
    let answer = work.answer(Outcome::Released, invocation, Vec::new());
    let invoked = work.record(Operation::Release, invocation, quotas_before, settled.reported, &answer);
    let is_abnormal = invocation.triggers.iter().any(|trigger| trigger.is("ABNORMAL_RELEASE"));
    let closes = if is_abnormal { CauseForRecordClosing::AbnormalRelease } else { ClosingCause::Released.of_record() };
    let changes = work.finish(Some(Event::Released(Box::new(invoked))), Some(closes), Listed::Closed);
    Ok(Decision { answer, replayed: None, changes })
}

/// Usage that comes too late to change a grant is charged all the same; `given` is the answer that stays.
fn late(
    context: &Context<'_>,
    account: Option<Account>,
    session: Box<ChargingSession>,
    operation: Operation,
    invocation: &Invocation,
    given: Option<Answer>,
) -> Result<Decision, Rejection> {
    let account = payer_account(session.payer.is_some(), account)?;
    let after_closing = session.is_closed();
    let settling = if given.is_some() { Settling::Repeated } else { Settling::Late };
    let quotas_before = session.quotas.len();
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
    let invoked = work.record(operation, invocation, quotas_before, settled.reported, &answer);
    let event = Event::Late { invocation: Box::new(invoked), after_closing };
    // What comes after the end has a record of its own.
    let closes = after_closing.then_some(CauseForRecordClosing::NormalRelease);
    let changes = work.finish(Some(event), closes, Listed::Keep);
    Ok(Decision { answer, replayed: None, changes })
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

impl Decision {
    fn replay(answer: Answer, session: &ChargingSession) -> Self {
        Self { answer, replayed: Some(Box::new(session.clone())), changes: Changes::default() }
    }
}

fn halves(key: u128) -> (u64, u64) {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    (half(key >> 64), half(key))
}
