//! The decision over one charging request: pure and total. Checks first, each with its own rejection; then the
//! changes, which do not fail.
//!
//! Reading order: [`decide`], then [`open`], [`update`] and [`release`], then what they share: [`Work::settle`]
//! (debits of reported usage) and [`Work::answer_requests`] (new grants). All debits of a request come before its
//! first grant, so that no grant takes money that usage of another rating group needs.

use std::mem;

use super::account::Account;
use super::command::{Block, Container, Create, Indicator, Invocation, OneTime, UnitUsage};
use super::decision::{
    Answer, Decision, GroupResult, IndexChange, Listed, Outcome, Outgoing, Rejection, ResultCode, SessionChange, Timer,
};
use super::ids::ChargingDataRef;
use super::journal::{Entry, Event, Header, Invoked, Move, Reported};
use super::rating::{Rated, UsedDuring, release_kind};
use super::replay::{self, Standing};
use super::session::{ChargingSession, ClosingCause, Grant, Numbering, Operation, Payer, Remembered, SessionState};
use super::tariff::{Catalog, Metered, PlanInForce, Rule};
use super::time::{Span, Timestamp};
use super::units::{Units, share};

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
    /// Optional features that we support, as a bit mask.
    pub features: u64,
    /// Quotas that one session may have.
    pub quotas_max: usize,
    /// Refuse a Create whose every requested rating group is out of credit.
    pub refuse_create_without_credit: bool,
}

/// A charging request, with the session it speaks of.
pub enum Command {
    Create(Box<Create>),
    Update(Box<ChargingSession>, Box<Invocation>),
    Release(Box<ChargingSession>, Box<Invocation>),
}

/// Decides one charging request.
///
/// # Errors
///
/// A `Rejection` refuses the whole request; nothing is to be written then.
pub fn decide(context: &Context<'_>, account: Account, command: Command) -> Result<Decision, Rejection> {
    match command {
        Command::Create(create) => open(context, account, *create),
        Command::Update(session, invocation) => update(context, account, *session, *invocation),
        Command::Release(session, invocation) => release(context, account, *session, *invocation),
    }
}

fn open(context: &Context<'_>, account: Account, create: Create) -> Result<Decision, Rejection> {
    let Create { invocation, one_time, subscriber, account: account_id, reference, keys, repeated, same_pdu_session } =
        create;
    if let Some(session) = repeated {
        return first_answer(&session, &invocation);
    }
    let superseded = match same_pdu_session {
        Some(session) if !session.is_closed() => {
            let untouched = session.remembered.iter().all(|done| done.operation == Operation::Create);
            let used = session.quotas.iter().any(|quota| quota.used > 0);
            if untouched && !used && session.first_number == invocation.number {
                return first_answer(&session, &invocation);
            }
            Some(session)
        }
        _ => None,
    };
    if subscriber.as_ref().is_some_and(|subscriber| subscriber.blocked) {
        return Err(Rejection::EndUserRequestDenied);
    }
    let has_units = |usage: &UnitUsage| usage.requested.is_some() || !usage.containers.is_empty();
    let one_time = one_time.filter(|_| {
        invocation.usages.iter().any(has_units) || invocation.blocks.iter().any(Block::describes_a_service)
    });
    if one_time.is_none() && create_is_empty_event(&invocation, create.one_time) {
        return Err(Rejection::NothingToCharge);
    }

    let header = Header {
        subscriber: subscriber.as_ref().map(|subscriber| subscriber.id.clone()),
        account: Some(account_id.clone()),
        plan: subscriber.as_ref().map(|subscriber| subscriber.plan.clone()),
        consumer: invocation.consumer.clone(),
        one_time: one_time.is_some(),
    };
    let payer = subscriber.map(|subscriber| Payer {
        named: invocation.subscriber.clone().filter(|named| *named != subscriber.id),
        plan_version: context.catalog.newest(&subscriber.plan).map_or(0, |plan| plan.plan.version),
        subscriber: subscriber.id,
        plan: subscriber.plan,
        final_unit: subscriber.final_unit,
    });
    let session = ChargingSession {
        reference: reference.clone(),
        state: SessionState::Active,
        payer,
        account: account_id,
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
        pdu_session_key: keys.pdu_session.filter(|_| one_time.is_none()).map(halves),
    };

    let mut work = Work::start(context, account, session);
    let mut sessions = Vec::new();
    let mut outbox = Vec::new();
    if let Some(old) = superseded {
        outbox.push(Outgoing::Closed(old.reference.clone()));
        sessions.push(work.close_other(old, ClosingCause::Superseded));
    }
    let usage = work.settle(&invocation, Settling::Usual(one_time))?;
    let results = match one_time {
        Some(OneTime::Immediate) => work.debit_requests(&invocation, usage.codes),
        Some(OneTime::Post) | None => work.answer_requests(&invocation, usage.codes),
    };
    let asked = invocation.usages.iter().any(|usage| usage.requested.is_some());
    let out_of_credit = |result: &GroupResult| result.code == ResultCode::QuotaLimitReached;
    if context.rules.refuse_create_without_credit && asked && results.iter().all(out_of_credit) {
        return Err(Rejection::QuotaLimitReached);
    }

    let answer = work.answer(Outcome::Created, &invocation, results);
    let mut index =
        vec![IndexChange { key: keys.copy, leads_to: reference.clone(), lives_for: Some(context.rules.tombstone) }];
    if one_time.is_some() {
        work.session.state = SessionState::Closed { at: context.now, cause: ClosingCause::Event };
        outbox.push(Outgoing::Closed(reference.clone()));
    } else if let Some(key) = keys.pdu_session {
        index.push(IndexChange { key, leads_to: reference, lives_for: None });
    }
    let invoked = work.record(Operation::Create, invocation, usage.reported, &answer);
    let event = Event::Opened { header: Box::new(header), invocation: Box::new(invoked) };
    let listed = if one_time.is_some() { Listed::Closed } else { Listed::Opened };
    // Always written: two Creates of one account must not overlook each other's index entries.
    work.account_changed = true;
    let mut decision = work.finish(answer, event, listed, outbox, index);
    sessions.extend(mem::take(&mut decision.sessions));
    // The new session stands first: it is the one that the answer and a conflict speak of.
    sessions.reverse();
    decision.sessions = sessions;
    Ok(decision)
}

/// A one-time event that says nothing of what happened.
fn create_is_empty_event(invocation: &Invocation, one_time: Option<OneTime>) -> bool {
    one_time.is_some() && invocation.usages.is_empty() && !invocation.blocks.iter().any(Block::describes_a_service)
}

/// The stored answer of a session's Create.
fn first_answer(session: &ChargingSession, invocation: &Invocation) -> Result<Decision, Rejection> {
    let done = session.remembered.iter().find(|done| done.operation == Operation::Create);
    let done = done.ok_or(Rejection::NumberForgotten)?;
    let by_key = invocation.idempotency.is_some() && done.idempotency == invocation.idempotency;
    if by_key && done.fingerprint.content != invocation.fingerprint.content {
        return Err(Rejection::IdempotencyKeyReused);
    }
    Ok(Decision::replay(done.answer.clone(), session.reference.clone()))
}

fn update(
    context: &Context<'_>,
    account: Account,
    mut session: ChargingSession,
    invocation: Invocation,
) -> Result<Decision, Rejection> {
    check_identity(&session, &invocation)?;
    let reference = session.reference.clone();
    let (settling, given) = match replay::standing(&mut session, Operation::Update, &invocation)? {
        Standing::Replayed(answer) => return Ok(Decision::replay(answer, reference)),
        Standing::Grown(answer) => (Settling::Late { repeated: true }, Some(answer)),
        Standing::Late => (Settling::Late { repeated: false }, None),
        Standing::New => (Settling::Usual(None), None),
    };
    if matches!(settling, Settling::Late { .. }) {
        return late(context, account, session, invocation, settling, given);
    }

    let mut work = Work::start(context, account, session);
    work.session.updated_at = context.now;
    if let Some(uri) = &invocation.notify_uri {
        work.session.notify_uri = Some(uri.clone());
    }
    if let SessionState::Probing { .. } = work.session.state {
        work.session.state = SessionState::Active;
    }
    let usage = work.settle(&invocation, settling)?;
    let results = work.answer_requests(&invocation, usage.codes);
    let answer = work.answer(Outcome::Updated, &invocation, results);
    let invoked = work.record(Operation::Update, invocation, usage.reported, &answer);
    Ok(work.finish(answer, Event::Updated(Box::new(invoked)), Listed::Keep, Vec::new(), Vec::new()))
}

fn release(
    context: &Context<'_>,
    account: Account,
    mut session: ChargingSession,
    invocation: Invocation,
) -> Result<Decision, Rejection> {
    check_identity(&session, &invocation)?;
    let reference = session.reference.clone();
    match replay::standing(&mut session, Operation::Release, &invocation)? {
        Standing::Replayed(answer) => return Ok(Decision::replay(answer, reference)),
        Standing::Late | Standing::Grown(_) => {
            return late(context, account, session, invocation, Settling::Late { repeated: false }, None);
        }
        Standing::New => {}
    }

    let mut work = Work::start(context, account, session);
    work.session.updated_at = context.now;
    let usage = work.settle(&invocation, Settling::Usual(None))?;
    work.close(ClosingCause::Released);
    let answer = work.answer(Outcome::Released, &invocation, Vec::new());
    let invoked = work.record(Operation::Release, invocation, usage.reported, &answer);
    let index = work.session.pdu_session_key.map(|key| forget(key, &reference));
    let outbox = vec![Outgoing::Closed(reference)];
    Ok(work.finish(answer, Event::Released(Box::new(invoked)), Listed::Closed, outbox, index.into_iter().collect()))
}

/// Usage that comes too late to change a grant is charged all the same; `given` is the answer that stays.
fn late(
    context: &Context<'_>,
    account: Account,
    session: ChargingSession,
    invocation: Invocation,
    settling: Settling,
    given: Option<Answer>,
) -> Result<Decision, Rejection> {
    let after_closing = session.is_closed();
    let mut work = Work::start(context, account, session);
    let usage = work.settle(&invocation, settling)?;
    let reference = work.session.reference.clone();
    let nothing_new = usage.reported.iter().all(|reported| reported.repeated.len() == reported.containers.len());
    let keeps_memory = given.is_none() && !after_closing;
    let answer = match given {
        Some(answer) => answer,
        None if after_closing => work.answer(Outcome::Gone, &invocation, Vec::new()),
        None => {
            let results = work.results_without_grants(&invocation, usage.codes);
            work.answer(Outcome::Updated, &invocation, results)
        }
    };
    if nothing_new && !keeps_memory {
        return Ok(Decision::replay(answer, reference));
    }
    let outbox = if after_closing { vec![Outgoing::LateUsage(reference)] } else { Vec::new() };
    let invoked = work.record(Operation::Update, invocation, usage.reported, &answer);
    let event = Event::Late { invocation: Box::new(invoked), after_closing };
    Ok(work.finish(answer, event, Listed::Keep, outbox, Vec::new()))
}

fn check_identity(session: &ChargingSession, invocation: &Invocation) -> Result<(), Rejection> {
    if session.is_event() {
        return Err(Rejection::UnknownSession);
    }
    match (&session.payer, &invocation.subscriber) {
        (Some(payer), Some(named)) if *named != payer.subscriber && Some(named) != payer.named.as_ref() => {
            Err(Rejection::SubscriberChanged)
        }
        (None, Some(_)) => Err(Rejection::SubscriberChanged),
        _ => Ok(()),
    }
}

/// How reported usage is to be treated.
#[derive(Clone, Copy)]
enum Settling {
    Usual(Option<OneTime>),
    /// Leaves reservations alone. `repeated`: containers seen before are not charged, whatever their numbers say.
    Late {
        repeated: bool,
    },
}

/// What settling found, by position in the request's usages.
struct Settled {
    reported: Vec<Reported>,
    /// Usage that could not be charged.
    codes: Vec<Option<ResultCode>>,
}

/// Account and session while a decision is made.
struct Work<'a> {
    context: &'a Context<'a>,
    account: Account,
    account_changed: bool,
    session: ChargingSession,
    moves: Vec<Move>,
}

impl<'a> Work<'a> {
    fn start(context: &'a Context<'a>, mut account: Account, session: ChargingSession) -> Self {
        let moves = account.expire(context.now);
        Self { context, account_changed: !moves.is_empty(), account, session, moves }
    }

    fn moved(&mut self, moves: impl IntoIterator<Item = Move>) {
        let before = self.moves.len();
        self.moves.extend(moves);
        self.account_changed |= self.moves.len() > before;
    }

    /// The plan that rates usage of a quota: the one it was granted by.
    fn plan_of_usage(&self, quota: usize) -> Option<&'a PlanInForce> {
        let payer = self.session.payer.as_ref()?;
        let granted = self.session.quotas.get(quota).and_then(|quota| quota.grant.as_ref());
        let version = granted.map_or(payer.plan_version, |grant| grant.plan_version);
        self.context.catalog.version(&payer.plan, version).map(|plan| &**plan)
    }

    /// Debits all reported usage, container by container in the order of their numbers.
    fn settle(&mut self, invocation: &Invocation, settling: Settling) -> Result<Settled, Rejection> {
        let mut new_keys: Vec<_> = (invocation.usages.iter().map(|usage| &usage.key))
            .filter(|key| self.session.quotas.iter().all(|quota| quota.key != **key))
            .collect();
        new_keys.dedup();
        if self.session.quotas.len().saturating_add(new_keys.len()) > self.context.rules.quotas_max {
            return Err(Rejection::TooManyQuotas);
        }

        let mut settled = Settled { reported: Vec::new(), codes: vec![None; invocation.usages.len()] };
        let repeated = self.repeated(invocation, settling);
        for (position, usage) in invocation.usages.iter().enumerate() {
            let quota = self.session.quota_at(&usage.key);
            let repeated = repeated.get(position).map_or(&[][..], Vec::as_slice);
            let mut order: Vec<usize> = (0..usage.containers.len()).collect();
            order.sort_by_key(|at| usage.containers.get(*at).map(|one| (one.local_sequence_number, one.closed_at)));
            for at in order {
                let seen_before = repeated.get(at).copied().unwrap_or(false);
                if let Some(container) = usage.containers.get(at)
                    && !seen_before
                {
                    let code = self.settle_container(quota, usage, container, invocation, settling);
                    if let Some(code) = code.err()
                        && let Some(slot) = settled.codes.get_mut(position)
                    {
                        *slot = Some(code);
                    }
                }
            }
            if !usage.containers.is_empty() {
                let positions = repeated.iter().enumerate().filter(|(_, repeated)| **repeated);
                settled.reported.push(Reported {
                    key: usage.key.clone(),
                    containers: usage.containers.clone(),
                    repeated: positions.filter_map(|(at, _)| u16::try_from(at).ok()).collect(),
                });
            }
        }
        Ok(settled)
    }

    /// Which containers were reported before, by position in the usages and in their containers.
    fn repeated(&mut self, invocation: &Invocation, settling: Settling) -> Vec<Vec<bool>> {
        let lists = || {
            invocation.usages.iter().map(|usage| {
                usage
                    .containers
                    .iter()
                    .map(|container| replay::seen_container(&usage.key, container))
                    .collect::<Vec<_>>()
            })
        };
        let known: Vec<Vec<bool>> =
            lists().map(|list| list.iter().map(|one| self.session.containers.seen.contains(one)).collect()).collect();
        let mut all: Vec<_> = lists().flatten().collect();
        // The order in the arrays says nothing about the order of the numbers.
        let mut ranked: Vec<usize> = (0..all.len()).collect();
        ranked.sort_by_key(|at| all.get(*at).map(|one| one.number));
        let sorted: Vec<_> = ranked.iter().filter_map(|at| all.get(*at).copied()).collect();
        let told = self.session.containers.take(&sorted);
        if matches!(settling, Settling::Late { repeated: true }) {
            return known;
        }
        let mut by_position = vec![false; all.len()];
        for (at, told) in ranked.into_iter().zip(told) {
            if let Some(slot) = by_position.get_mut(at) {
                *slot = told;
            }
        }
        all.clear();
        let mut flat = by_position.into_iter();
        known.iter().map(|list| flat.by_ref().take(list.len()).collect()).collect()
    }

    /// Charges one container. `Err` says why its rating group cannot be charged; the usage is recorded all the same.
    fn settle_container(
        &mut self,
        quota: usize,
        usage: &UnitUsage,
        container: &Container,
        invocation: &Invocation,
        settling: Settling,
    ) -> Result<(), ResultCode> {
        let plan = self.plan_of_usage(quota);
        let tariff = plan.and_then(|plan| plan.tariff(usage.key.rating_group));
        let metered = tariff.and_then(|tariff| match &tariff.rule {
            Rule::Metered(metered) => Some(metered),
            Rule::Flat | Rule::Barred => None,
        });
        let units = match metered {
            Some(metered) => container.units.of(metered.kind).unwrap_or(0),
            None => any_units(&container.units),
        };
        let charged = self.is_charged(quota, usage, container, settling);
        if let Some(quota) = self.session.quotas.get_mut(quota) {
            quota.used = quota.used.saturating_add(units);
        }
        if !charged || self.session.payer.is_none() {
            return Ok(());
        }
        let (Some(plan), Some(tariff)) = (plan, tariff) else { return Err(ResultCode::RatingFailed) };
        let Some(metered) = metered else { return Ok(()) };

        let rated = Rated { plan, rating_group: usage.key.rating_group, tariff: metered };
        let during = UsedDuring {
            start: container.first_usage,
            end: container.last_usage.or(container.closed_at).unwrap_or(invocation.invoked_at),
            closed_by_tariff_change: container.has_trigger("TARIFF_TIME_CHANGE"),
        };
        let covered = matches!(settling, Settling::Usual(_)) && container.indicator != Some(Indicator::Suspended);
        let mut grant = self.session.quotas.get_mut(quota).and_then(|quota| quota.grant.take());
        let mut nothing = Vec::new();
        let held = match &mut grant {
            Some(grant) if covered => &mut grant.reserved,
            _ => &mut nothing,
        };
        let outcome = rated.charge(self.context.now, units, during, &mut self.account, &mut self.session, held);
        if let Some(grant) = &mut grant
            && covered
        {
            grant.used = grant.used.saturating_add(units);
        }
        if let Some(quota) = self.session.quotas.get_mut(quota) {
            quota.grant = grant;
        }
        let (_, moves) = outcome.map_err(|_| ResultCode::RatingFailed)?;
        // A price of zero moves nothing but may still have advanced a tier's counter.
        self.account_changed |= units > 0;
        let _ = tariff;
        self.moved(moves);
        Ok(())
    }

    /// Whether usage costs, or is only recorded.
    fn is_charged(&self, quota: usize, usage: &UnitUsage, container: &Container, settling: Settling) -> bool {
        match &container.indicator {
            Some(Indicator::Online | Indicator::Suspended) => true,
            Some(Indicator::Offline) => false,
            // Read from its context.
            Some(Indicator::Other(_)) | None => {
                let granted = |quota: &super::session::Quota| {
                    quota.grant.is_some() || quota.last_code == Some(ResultCode::Success)
                };
                match settling {
                    Settling::Usual(Some(_)) => true,
                    Settling::Usual(None) => usage.requested.is_some() || self.session.holds_grant(&usage.key),
                    // The grant that covered it may be replaced or released by now.
                    Settling::Late { .. } => {
                        usage.requested.is_some() || self.session.quotas.get(quota).is_some_and(granted)
                    }
                }
            }
        }
    }

    /// Grants what is asked for, rating group by rating group in the order of the request; gives back what a report
    /// ends. `failed` are rating groups whose usage could not be charged.
    fn answer_requests(&mut self, invocation: &Invocation, failed: Vec<Option<ResultCode>>) -> Vec<GroupResult> {
        let mut results = Vec::new();
        for (usage, failed) in invocation.usages.iter().zip(failed) {
            let quota = self.session.quota_at(&usage.key);
            let result = if let Some(asked) = wanted(usage) {
                self.give_back(quota, false);
                let result = match failed {
                    Some(code) => GroupResult::refused(quota, code),
                    None => self.grant(quota, usage, asked),
                };
                if let Some(quota) = self.session.quotas.get_mut(quota) {
                    quota.last_code = Some(result.code);
                }
                result
            } else if usage.containers.is_empty() {
                continue;
            } else {
                if ends_grant(invocation, usage) {
                    self.give_back(quota, false);
                }
                GroupResult::refused(quota, failed.unwrap_or_else(|| self.standing_code(usage)))
            };
            results.push(result);
        }
        results
    }

    /// As `answer_requests`, for usage that comes too late to be granted anything.
    fn results_without_grants(&mut self, invocation: &Invocation, failed: Vec<Option<ResultCode>>) -> Vec<GroupResult> {
        let mut results = Vec::new();
        for (usage, failed) in invocation.usages.iter().zip(failed) {
            let quota = self.session.quota_at(&usage.key);
            results.push(GroupResult::refused(quota, failed.unwrap_or_else(|| self.standing_code(usage))));
        }
        results
    }

    /// What is said of a rating group that asks for nothing.
    fn standing_code(&self, usage: &UnitUsage) -> ResultCode {
        let Some(payer) = &self.session.payer else { return ResultCode::QuotaManagementNotApplicable };
        let plan = self.context.catalog.newest(&payer.plan);
        match plan.and_then(|plan| plan.tariff(usage.key.rating_group)).map(|tariff| &tariff.rule) {
            Some(Rule::Metered(_)) => ResultCode::Success,
            Some(Rule::Flat) => ResultCode::QuotaManagementNotApplicable,
            Some(Rule::Barred) => ResultCode::EndUserServiceDenied,
            None => ResultCode::RatingFailed,
        }
    }

    /// The tariff that a new grant follows: always of the newest version of the plan.
    fn newest_tariff(&self, usage: &UnitUsage) -> Result<(&'a PlanInForce, &'a Metered), ResultCode> {
        let Some(payer) = &self.session.payer else { return Err(ResultCode::QuotaManagementNotApplicable) };
        let plan = self.context.catalog.newest(&payer.plan).ok_or(ResultCode::RatingFailed)?;
        match &plan.tariff(usage.key.rating_group).ok_or(ResultCode::RatingFailed)?.rule {
            Rule::Metered(metered) => Ok((plan, metered)),
            Rule::Flat => Err(ResultCode::QuotaManagementNotApplicable),
            Rule::Barred => Err(ResultCode::EndUserServiceDenied),
        }
    }

    fn grant(&mut self, quota: usize, usage: &UnitUsage, asked: Units) -> GroupResult {
        if let SessionState::Aborting { .. } = self.session.state {
            return GroupResult::refused(quota, ResultCode::EndUserServiceDenied);
        }
        let (plan, tariff) = match self.newest_tariff(usage) {
            Ok(found) => found,
            Err(code) => return GroupResult::refused(quota, code),
        };
        let rated = Rated { plan, rating_group: usage.key.rating_group, tariff };
        let amount = asked_amount(&asked, tariff);
        let outstanding = (self.session.quotas.iter())
            .filter(|other| other.key.rating_group == usage.key.rating_group && other.key != usage.key)
            .filter_map(|other| other.grant.as_ref())
            .fold(0u64, |sum, grant| sum.saturating_add(grant.granted.saturating_sub(grant.used)));
        let now = self.context.now;
        let Some(offer) = rated.grant(now, amount, outstanding, &mut self.account, &self.session) else {
            return GroupResult {
                final_unit: self.final_unit(tariff).filter(|action| action.acts_on_refusal()),
                ..GroupResult::refused(quota, ResultCode::QuotaLimitReached)
            };
        };
        self.moved(offer.moves);
        let final_unit = offer.final_unit.then(|| self.final_unit(tariff)).flatten();
        if let Some(payer) = &mut self.session.payer {
            payer.plan_version = plan.plan.version;
        }
        if let Some(quota) = self.session.quotas.get_mut(quota) {
            quota.grant = Some(Grant {
                kind: tariff.kind,
                granted: offer.units,
                used: 0,
                reserved: offer.reserved,
                valid_until: offer.validity_secs.map(|secs| now.after(Span::from_secs(secs))),
                final_unit: final_unit.is_some(),
                plan_version: plan.plan.version,
            });
        }
        // A report before the end of a last grant would ask for what cannot be given.
        let threshold = tariff.threshold_percent.filter(|_| final_unit.is_none());
        let threshold = threshold.map(|percent| share(offer.units, u64::from(percent), 100));
        GroupResult {
            granted: Some(Units::answering(&asked, tariff.kind, offer.units)),
            validity_secs: offer.validity_secs,
            holding_secs: tariff.holding_secs,
            threshold: threshold.filter(|remaining| *remaining > 0 && *remaining < offer.units),
            tariff_change: offer.tariff_change,
            final_unit,
            ..GroupResult::refused(quota, ResultCode::Success)
        }
    }

    /// Debits what an immediate event asks for, or refuses it.
    fn debit_requests(&mut self, invocation: &Invocation, failed: Vec<Option<ResultCode>>) -> Vec<GroupResult> {
        let mut results = Vec::new();
        for (usage, failed) in invocation.usages.iter().zip(failed) {
            let quota = self.session.quota_at(&usage.key);
            let result = match (usage.requested, failed) {
                (_, Some(code)) => GroupResult::refused(quota, code),
                (Some(asked), None) => self.debit_at_once(quota, usage, asked, invocation),
                (None, None) if usage.containers.is_empty() => continue,
                (None, None) => GroupResult::refused(quota, self.standing_code(usage)),
            };
            if let Some(quota) = self.session.quotas.get_mut(quota) {
                quota.last_code = Some(result.code);
            }
            results.push(result);
        }
        results
    }

    fn debit_at_once(&mut self, quota: usize, usage: &UnitUsage, asked: Units, invocation: &Invocation) -> GroupResult {
        let (plan, tariff) = match self.newest_tariff(usage) {
            Ok(found) => found,
            Err(code) => return GroupResult::refused(quota, code),
        };
        let rated = Rated { plan, rating_group: usage.key.rating_group, tariff };
        let amount = asked_amount(&asked, tariff).min(tariff.largest_grant);
        let during = UsedDuring { start: None, end: invocation.invoked_at, closed_by_tariff_change: false };
        let outcome = rated.debit_at_once(self.context.now, amount, during, &mut self.account, &mut self.session);
        match outcome {
            Err(_) => GroupResult::refused(quota, ResultCode::RatingFailed),
            Ok(None) => GroupResult::refused(quota, ResultCode::QuotaLimitReached),
            Ok(Some((moves, last))) => {
                self.moved(moves);
                if let Some(quota) = self.session.quotas.get_mut(quota) {
                    quota.used = quota.used.saturating_add(amount);
                }
                GroupResult {
                    granted: Some(Units::answering(&asked, tariff.kind, amount)),
                    final_unit: last.then(|| self.final_unit(tariff)).flatten(),
                    ..GroupResult::refused(quota, ResultCode::Success)
                }
            }
        }
    }

    fn final_unit(&self, tariff: &Metered) -> Option<super::tariff::FinalUnit> {
        let own = self.session.payer.as_ref().and_then(|payer| payer.final_unit.clone());
        Some(own.unwrap_or_else(|| tariff.final_unit.clone()))
    }

    /// Ends a quota's grant and gives back what is still held for it.
    fn give_back(&mut self, quota: usize, expired: bool) {
        let Some(quota) = self.session.quotas.get_mut(quota) else { return };
        let Some(grant) = quota.grant.take() else { return };
        let (rating_group, version) = (quota.key.rating_group, grant.plan_version);
        let moves = self.account.release(grant.reserved, release_kind(expired));
        self.moved(moves.into_iter().map(|one| one.for_usage(rating_group, None, Some(version))));
    }

    fn close(&mut self, cause: ClosingCause) {
        for quota in 0..self.session.quotas.len() {
            self.give_back(quota, false);
        }
        self.session.state = SessionState::Closed { at: self.context.now, cause };
    }

    /// Closes another session of the account in the same commit.
    fn close_other(&mut self, other: ChargingSession, cause: ClosingCause) -> SessionChange {
        let mine = mem::replace(&mut self.session, other);
        let moves = mem::take(&mut self.moves);
        self.close(cause);
        let mut closed = mem::replace(&mut self.session, mine);
        let closing = mem::replace(&mut self.moves, moves);
        let entry = self.entry(Event::Closed(cause), closing);
        let timer = timer(&mut closed, self.context.rules);
        SessionChange {
            session: closed,
            entry,
            timer,
            listing: Listed::Closed,
            lives_for: self.context.rules.tombstone,
        }
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
        invocation: Invocation,
        usage: Vec<Reported>,
        answer: &Answer,
    ) -> Invoked {
        self.session.remember(Remembered {
            operation,
            number: invocation.number,
            fingerprint: invocation.fingerprint,
            idempotency: invocation.idempotency,
            answer: answer.clone(),
        });
        let mut blocks = invocation.blocks;
        blocks.retain(|block| {
            let hash = block.hash();
            match self.session.blocks.iter_mut().find(|(name, _)| *name == block.name) {
                Some((_, known)) if *known == hash => false,
                Some((_, known)) => {
                    *known = hash;
                    true
                }
                None => {
                    self.session.blocks.push((block.name.clone(), hash));
                    true
                }
            }
        });
        Invoked { number: invocation.number, timestamp: invocation.timestamp, usage, blocks, answer: answer.clone() }
    }

    fn entry(&self, event: Event, moves: Vec<Move>) -> Entry {
        Entry { at: self.context.now, account_version: self.context.account_version, event, moves }
    }

    fn finish(
        mut self,
        answer: Answer,
        event: Event,
        listing: Listed,
        outbox: Vec<Outgoing>,
        index: Vec<IndexChange>,
    ) -> Decision {
        let rules = self.context.rules;
        let timer = timer(&mut self.session, rules);
        let lives_for =
            if self.session.is_closed() { rules.tombstone } else { rules.supervision.plus(rules.document_margin) };
        let moves = mem::take(&mut self.moves);
        let entry = self.entry(event, moves);
        let reference = self.session.reference.clone();
        Decision {
            answer,
            reference,
            account: self.account_changed.then_some(self.account),
            sessions: vec![SessionChange { session: self.session, entry, timer, listing, lives_for }],
            outbox,
            index,
            replayed: false,
        }
    }
}

impl Decision {
    fn replay(answer: Answer, reference: ChargingDataRef) -> Self {
        Self {
            answer,
            reference,
            account: None,
            sessions: Vec::new(),
            outbox: Vec::new(),
            index: Vec::new(),
            replayed: true,
        }
    }
}

impl GroupResult {
    /// A result without a grant.
    fn refused(quota: usize, code: ResultCode) -> Self {
        Self {
            // Quotas are fewer than `Rules::quotas_max`.
            quota: u16::try_from(quota).unwrap_or(u16::MAX),
            code,
            granted: None,
            validity_secs: None,
            holding_secs: None,
            threshold: None,
            tariff_change: None,
            final_unit: None,
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

/// What is asked for, unless everything reported says that quota is not managed: such consumers name an empty
/// request out of habit.
fn wanted(usage: &UnitUsage) -> Option<Units> {
    let offline = |container: &Container| container.indicator == Some(Indicator::Offline);
    let all_offline = !usage.containers.is_empty() && usage.containers.iter().all(offline);
    usage.requested.filter(|_| !all_offline)
}

/// The amount asked for in the tariff's unit; the tariff's default when the consumer leaves it open.
fn asked_amount(asked: &Units, tariff: &Metered) -> u64 {
    asked.of(tariff.kind).filter(|amount| *amount > 0).unwrap_or(tariff.default_grant)
}

fn any_units(units: &Units) -> u64 {
    use super::units::UnitKind::{Events, Octets, Seconds};
    [Octets, Seconds, Events].into_iter().find_map(|kind| units.of(kind)).unwrap_or(0)
}

/// Reports after which the consumer uses no more of its grant, unless it asks for a new one. After others, such as
/// a change of location, it goes on with what it has.
const ENDING_TRIGGERS: [&str; 8] = [
    "QHT",
    "FINAL",
    "QUOTA_EXHAUSTED",
    "VALIDITY_TIME",
    "FORCED_REAUTHORISATION",
    "OTHER_QUOTA_TYPE",
    "UNUSED_QUOTA_TIMER",
    "ABNORMAL_RELEASE",
];

fn ends_grant(invocation: &Invocation, usage: &UnitUsage) -> bool {
    let triggers = usage.containers.iter().flat_map(|container| &container.triggers).chain(&invocation.triggers);
    triggers.filter_map(|trigger| trigger.name.as_deref()).any(|name| ENDING_TRIGGERS.contains(&name))
}

fn halves(key: u128) -> (u64, u64) {
    let bytes = key.to_be_bytes();
    let (high, low) = bytes.split_at(8);
    let half = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    (half(high), half(low))
}

/// Lets the entry that leads to a session by its PDU session go.
fn forget((high, low): (u64, u64), reference: &ChargingDataRef) -> IndexChange {
    IndexChange {
        key: (u128::from(high) << 64) | u128::from(low),
        leads_to: reference.clone(),
        lives_for: Some(Span::from_secs(1)),
    }
}
