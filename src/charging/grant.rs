//! Answers to what a request asks for, rating group by rating group: one's refusal never fails the others.

use super::command::{Container, Indicator, Invocation, Trigger, UnitUsage};
use super::decision::{GroupResult, ResultCode};
use super::journal::MoveKind;
use super::rating::Rated;
use super::session::{Grant, Service, SessionState};
use super::tariff::{FinalUnit, Metered, PlanInForce, Rule};
use super::time::Span;
use super::units::{Units, share};
use super::work::Work;

/// TS 32.291 6.1.8: the consumer understands that quota management may stop and start again.
const FEATURE_CHFCQM: u64 = 1;

impl<'a> Work<'a> {
    /// Gives back what a report ends, then grants what is asked for, in the order of the request. `failed` are the
    /// rating groups whose usage could not be charged.
    pub(super) fn answer_requests(
        &mut self,
        invocation: &Invocation,
        failed: &[Option<ResultCode>],
    ) -> Vec<GroupResult> {
        for usage in self.answerable(invocation) {
            let quota = self.session.quota_at(&usage.key);
            if wanted(usage).is_none() && ends_grant(invocation, usage) {
                self.give_back(quota);
            }
            if let Some(quota) = self.session.quotas.get_mut(quota)
                && !usage.containers.is_empty()
            {
                quota.expired = false;
            }
        }
        let mut results = Vec::new();
        for (usage, failed) in self.answerable(invocation).iter().zip(failed) {
            let quota = self.session.quota_at(&usage.key);
            if let Some(asked) = wanted(usage) {
                // The new grant replaces the remainder of the old one.
                self.give_back(quota);
                let result = match *failed {
                    Some(code) => GroupResult::without_grant(quota, code),
                    None => self.grant(quota, usage, asked),
                };
                self.remember_result(quota, &result);
                results.push(result);
            } else if !usage.containers.is_empty() {
                results.push(GroupResult::without_grant(quota, failed.unwrap_or(self.standing_code(quota, usage))));
            }
        }
        results
    }

    /// As `answer_requests`, for usage that is too late to be granted anything.
    pub(super) fn results_without_grants(
        &mut self,
        invocation: &Invocation,
        failed: &[Option<ResultCode>],
    ) -> Vec<GroupResult> {
        let mut results = Vec::new();
        for (usage, failed) in self.answerable(invocation).iter().zip(failed) {
            let quota = self.session.quota_at(&usage.key);
            results.push(GroupResult::without_grant(quota, failed.unwrap_or(self.standing_code(quota, usage))));
        }
        results
    }

    /// Debits what an immediate event asks for, or refuses it.
    pub(super) fn debit_requests(
        &mut self,
        invocation: &Invocation,
        failed: &[Option<ResultCode>],
    ) -> Vec<GroupResult> {
        let mut results = Vec::new();
        for (usage, failed) in self.answerable(invocation).iter().zip(failed) {
            let quota = self.session.quota_at(&usage.key);
            let result = match (usage.requested, *failed) {
                (_, Some(code)) => GroupResult::without_grant(quota, code),
                (Some(asked), None) => self.debit_at_once(quota, usage, asked),
                (None, None) => GroupResult::without_grant(quota, self.standing_code(quota, usage)),
            };
            self.remember_result(quota, &result);
            results.push(result);
        }
        results
    }

    /// What is answered rating group by rating group: everything, where quota is managed at all.
    fn answerable<'b>(&self, invocation: &'b Invocation) -> &'b [UnitUsage] {
        match self.session.service {
            Service::Converged => &invocation.usages,
            Service::OfflineOnly => &[],
        }
    }

    /// Ends a quota's grant and gives back what is still held for it. What expired while it was held is gone.
    pub(super) fn give_back(&mut self, quota: usize) {
        self.let_go(quota, MoveKind::Release);
    }

    /// As `give_back`, because nothing was reported in time.
    pub(super) fn expire(&mut self, quota: usize) {
        self.let_go(quota, MoveKind::Expire);
        if let Some(quota) = self.session.quotas.get_mut(quota) {
            quota.expired = true;
        }
    }

    fn let_go(&mut self, quota: usize, kind: MoveKind) {
        let Some(quota) = self.session.quotas.get_mut(quota) else { return };
        let Some(grant) = quota.grant.take() else { return };
        let (rating_group, version) = (quota.key.rating_group, grant.plan_version);
        let moves = self.account.release(grant.reserved, kind);
        self.moved(moves.into_iter().map(|one| one.for_usage(rating_group, None, Some(version))));
        let expired = self.account.expire(self.context.now);
        self.moved(expired);
    }

    /// Keeps what later requests and a credit must know of an answer.
    fn remember_result(&mut self, quota: usize, result: &GroupResult) {
        if let Some(quota) = self.session.quotas.get_mut(quota) {
            quota.last_code = Some(result.code);
            quota.final_unit = result.granted.is_some() && result.final_unit.is_some();
        }
    }

    /// The tariff that a new grant follows: always of the newest version of the plan.
    fn tariff(&self, usage: &UnitUsage) -> Result<(&'a PlanInForce, &'a Metered), ResultCode> {
        let Some(payer) = &self.session.payer else { return Err(ResultCode::QuotaManagementNotApplicable) };
        let plan = self.context.catalog.newest(&payer.plan).ok_or(ResultCode::RatingFailed)?;
        match &plan.tariff(usage.key.rating_group).ok_or(ResultCode::RatingFailed)?.rule {
            Rule::Metered(metered) => Ok((plan, metered)),
            Rule::Flat | Rule::NotCharged => Err(ResultCode::QuotaManagementNotApplicable),
            Rule::Barred => Err(ResultCode::EndUserServiceDenied),
        }
    }

    /// As `tariff`, where it may be used now.
    fn tariff_now(&self, usage: &UnitUsage) -> Result<(&'a PlanInForce, &'a Metered), ResultCode> {
        let (plan, tariff) = self.tariff(usage)?;
        match plan.calendar().is_sold(&tariff.sold, self.context.now) {
            true => Ok((plan, tariff)),
            false => Err(ResultCode::EndUserServiceRejected),
        }
    }

    /// What is said of a rating group that asks for nothing.
    fn standing_code(&self, quota: usize, usage: &UnitUsage) -> ResultCode {
        self.tariff(usage).map_or_else(|code| code, |_| self.success(quota))
    }

    fn success(&self, quota: usize) -> ResultCode {
        let told = self.session.quotas.get(quota).and_then(|quota| quota.last_code);
        let understood = self.session.features & FEATURE_CHFCQM != 0;
        match told {
            Some(ResultCode::QuotaManagementNotApplicable) if understood => ResultCode::QuotaManagement,
            _ => ResultCode::Success,
        }
    }

    fn grant(&mut self, quota: usize, usage: &UnitUsage, asked: Units) -> GroupResult {
        if let SessionState::Aborting { .. } = self.session.state {
            return GroupResult::without_grant(quota, ResultCode::EndUserServiceDenied);
        }
        let (plan, tariff) = match self.tariff_now(usage) {
            Ok(found) => found,
            Err(code) => return GroupResult::without_grant(quota, code),
        };
        let rated = Rated { plan, rating_group: usage.key.rating_group, tariff };
        let now = self.context.now;
        let outstanding = self.held_elsewhere(usage);
        let offer = rated.grant(now, asked_amount(&asked, tariff), outstanding, &mut self.account, &self.session);
        let Some(offer) = offer else {
            return GroupResult {
                final_unit: Some(self.final_unit(tariff)).filter(FinalUnit::acts_on_refusal),
                ..GroupResult::without_grant(quota, ResultCode::QuotaLimitReached)
            };
        };
        self.moved(offer.moves);
        let final_unit = offer.final_unit.then(|| self.final_unit(tariff));
        if let Some(payer) = &mut self.session.payer {
            payer.plan_version = plan.plan.version;
        }
        let code = self.success(quota);
        if let Some(quota) = self.session.quotas.get_mut(quota) {
            quota.expired = false;
            quota.grant = Some(Grant {
                kind: tariff.kind,
                granted: offer.units,
                used: 0,
                reserved: offer.reserved,
                valid_until: offer.validity_secs.map(|secs| now.after(Span::from_secs(secs))),
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
            ..GroupResult::without_grant(quota, code)
        }
    }

    /// Units of the same rating group that other quotas of the session still hold.
    fn held_elsewhere(&self, usage: &UnitUsage) -> u64 {
        (self.session.quotas.iter())
            .filter(|other| other.key.rating_group == usage.key.rating_group && other.key != usage.key)
            .filter_map(|other| other.grant.as_ref())
            .fold(0u64, |sum, grant| sum.saturating_add(grant.granted.saturating_sub(grant.used)))
    }

    fn debit_at_once(&mut self, quota: usize, usage: &UnitUsage, asked: Units) -> GroupResult {
        let (plan, tariff) = match self.tariff_now(usage) {
            Ok(found) => found,
            Err(code) => return GroupResult::without_grant(quota, code),
        };
        let rated = Rated { plan, rating_group: usage.key.rating_group, tariff };
        let amount = asked_amount(&asked, tariff).min(tariff.largest_grant);
        let outcome = rated.debit_at_once(self.context.now, amount, &mut self.account, &mut self.session);
        let (moves, is_last) = match outcome {
            Err(_) => return GroupResult::without_grant(quota, ResultCode::RatingFailed),
            Ok(None) => return GroupResult::without_grant(quota, ResultCode::QuotaLimitReached),
            Ok(Some(done)) => done,
        };
        self.moved(moves);
        let code = self.success(quota);
        if let Some(quota) = self.session.quotas.get_mut(quota) {
            quota.used = quota.used.saturating_add(amount);
        }
        GroupResult {
            granted: Some(Units::answering(&asked, tariff.kind, amount)),
            final_unit: is_last.then(|| self.final_unit(tariff)),
            ..GroupResult::without_grant(quota, code)
        }
    }

    /// What the subscriber's own profile says comes before what the tariff says.
    fn final_unit(&self, tariff: &Metered) -> FinalUnit {
        let own = self.session.payer.as_ref().and_then(|payer| payer.final_unit.clone());
        own.unwrap_or_else(|| tariff.final_unit.clone())
    }
}

impl GroupResult {
    fn without_grant(quota: usize, code: ResultCode) -> Self {
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

/// What is asked for, unless nothing is named and everything reported says that quota is not managed: such consumers
/// send the empty request out of habit.
fn wanted(usage: &UnitUsage) -> Option<Units> {
    let offline = |container: &Container| container.indicator == Some(Indicator::Offline);
    let all_offline = !usage.containers.is_empty() && usage.containers.iter().all(offline);
    usage.requested.filter(|asked| !(all_offline && *asked == Units::default()))
}

/// The amount asked for in the tariff's unit; the tariff's default when the consumer leaves it open.
fn asked_amount(asked: &Units, tariff: &Metered) -> u64 {
    asked.of(tariff.kind).filter(|amount| *amount > 0).unwrap_or(tariff.default_grant)
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
    if usage.containers.is_empty() {
        return false;
    }
    let ends = |trigger: &Trigger| trigger.name.as_deref().is_some_and(|name| ENDING_TRIGGERS.contains(&name));
    let mut own = usage.containers.iter().flat_map(|container| &container.triggers).peekable();
    // The session's triggers may be another rating group's; they count where the containers say nothing.
    if own.peek().is_some() { own.any(ends) } else { invocation.triggers.iter().any(ends) }
}
