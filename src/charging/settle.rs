//! Debits of reported usage: every container once, whatever it was merged with, at the price of the time of use.

use smallvec::smallvec;

use super::command::{Container, Indicator, Invocation, OneTime, UnitUsage};
use super::decision::{Rejection, ResultCode};
use super::journal::Reported;
use super::lists::Few;
use super::rating::{Rated, UsedDuring};
use super::replay::seen_container;
use super::session::{Quota, SeenContainer, Service};
use super::tariff::{PlanInForce, Rule};
use super::units::{UnitKind, Units};
use super::work::Work;

/// How reported usage is to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settling {
    Usual(Option<OneTime>),
    /// Overtaken by newer requests or by the end of the session: reservations are left alone.
    Late,
    /// As late, in a copy of a request: what was seen before is not charged, whatever the containers' numbers say.
    Repeated,
}

/// What settling found.
pub(super) struct Settled {
    pub reported: Vec<Reported>,
    /// By position in the request's usages: why usage could not be charged.
    pub codes: Few<Option<ResultCode>>,
}

/// Positions of a container: in the request's usages, and in that usage's containers.
type Position = (usize, usize);

impl<'a> Work<'a> {
    /// Debits all reported usage, container by container in the order of their numbers.
    pub(super) fn settle(&mut self, invocation: &Invocation, settling: Settling) -> Result<Settled, Rejection> {
        self.check_number_of_quotas(invocation)?;

        let quotas: Few<usize> = invocation.usages.iter().map(|usage| self.session.quota_at(&usage.key)).collect();
        let mut codes: Few<_> = smallvec![None; invocation.usages.len()];
        let mut repeated = Few::new();
        for ((at, container), seen_before) in self.in_order(invocation, settling) {
            if seen_before {
                repeated.push((at, container));
                continue;
            }
            if let (Some(usage), Some(quota)) = (invocation.usages.get(at), quotas.get(at))
                && let Some(container) = usage.containers.get(container)
                && let Err(code) = self.settle_container(*quota, usage, container, invocation, settling)
                && let Some(slot) = codes.get_mut(at)
            {
                *slot = Some(code);
            }
        }
        Ok(Settled { reported: reported(invocation, &repeated), codes })
    }

    fn check_number_of_quotas(&self, invocation: &Invocation) -> Result<(), Rejection> {
        let mut new: Vec<_> = (invocation.usages.iter().map(|usage| &usage.key))
            .filter(|key| self.session.quotas.iter().all(|quota| quota.key != **key))
            .collect();
        if self.session.quotas.len().saturating_add(new.len()) > self.context.rules.quotas_max {
            // Only now is it worth knowing which of them are the same.
            new.sort_unstable();
            new.dedup();
            if self.session.quotas.len().saturating_add(new.len()) > self.context.rules.quotas_max {
                return Err(Rejection::TooManyQuotas);
            }
        }
        Ok(())
    }

    /// The containers of all usages in the order of their numbers (the order of the arrays says nothing), and
    /// whether each was reported before.
    fn in_order(&mut self, invocation: &Invocation, settling: Settling) -> Few<(Position, bool)> {
        let mut all: Few<(Position, &UnitUsage, &Container)> = Few::new();
        for (at, usage) in invocation.usages.iter().enumerate() {
            all.extend(usage.containers.iter().enumerate().map(|(position, one)| ((at, position), usage, one)));
        }
        all.sort_by_key(|(_, _, container)| (container.local_sequence_number, container.closed_at));
        let seen: Few<SeenContainer> =
            all.iter().map(|(_, usage, container)| seen_container(&usage.key, container)).collect();
        let known = self.session.containers.known(&seen);
        let told = self.session.containers.take(&seen);
        let is_repeated = |((container, known), told): ((&Container, bool), bool)| {
            // Two containers that were closed at one time are one, whether or not the numbers say so.
            told || known && (settling == Settling::Repeated || container.closed_at.is_some())
        };
        let containers = all.iter().map(|(_, _, container)| *container);
        let repeated = containers.zip(known).zip(told).map(is_repeated);
        all.iter().map(|(position, _, _)| *position).zip(repeated).collect()
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
        let rule = plan.and_then(|plan| plan.tariff(usage.key.rating_group)).map(|tariff| &tariff.rule);
        let metered = match rule {
            Some(Rule::Metered(metered)) => Some(metered),
            Some(Rule::Flat | Rule::Barred | Rule::NotCharged) | None => None,
        };
        let units = match metered {
            Some(metered) => container.units.of(metered.kind).unwrap_or(0),
            None => any_units(&container.units),
        };
        let is_charged = self.is_charged(quota, usage, container, invocation, settling);
        let Some(state) = self.session.quotas.get_mut(quota) else { return Ok(()) };
        state.used = state.used.saturating_add(units);
        if !is_charged {
            return Ok(());
        }
        let (Some(plan), Some(_)) = (plan, rule) else { return Err(ResultCode::RatingFailed) };
        let Some(metered) = metered else { return Ok(()) };

        // The grant stands aside while its reservation is spent, so that account and session can be changed too.
        let mut grant = state.grant.take();
        let covered = matches!(settling, Settling::Usual(_)) && container.indicator != Some(Indicator::Suspended);
        let mut nothing = Vec::new();
        let held = match &mut grant {
            Some(grant) if covered => &mut grant.reserved,
            Some(_) | None => &mut nothing,
        };
        let rated = Rated { plan, rating_group: usage.key.rating_group, tariff: metered };
        let during = used_during(container, invocation);
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
        self.moved(moves);
        Ok(())
    }

    /// The plan that rates usage of a quota: the one it was granted by.
    fn plan_of_usage(&self, quota: usize) -> Option<&'a PlanInForce> {
        let payer = self.session.payer.as_ref()?;
        let granted = self.session.quotas.get(quota).and_then(|quota| quota.grant.as_ref());
        let version = granted.map_or(payer.plan_version, |grant| grant.plan_version);
        self.context.catalog.version(&payer.plan, version).map(|plan| &**plan)
    }

    /// Whether usage costs, or is only recorded.
    fn is_charged(
        &self,
        quota: usize,
        usage: &UnitUsage,
        container: &Container,
        invocation: &Invocation,
        settling: Settling,
    ) -> bool {
        if self.session.payer.is_none() || self.session.service == Service::OfflineOnly {
            return false;
        }
        match &container.indicator {
            Some(Indicator::Online | Indicator::Suspended) => true,
            Some(Indicator::Offline) => false,
            // Read from its context.
            Some(Indicator::Other(_)) | None => match settling {
                Settling::Usual(Some(_)) => true,
                Settling::Usual(None) => self.is_online(usage, invocation),
                // The grant that covered it may be replaced or released by now.
                Settling::Late | Settling::Repeated => {
                    let was_granted = |quota: &Quota| quota.last_code.is_some_and(ResultCode::allows_use);
                    self.is_online(usage, invocation) || self.session.quotas.get(quota).is_some_and(was_granted)
                }
            },
        }
    }

    /// The rating group holds a grant in the session, or asks for one in the request, wherever it is metered.
    fn is_online(&self, usage: &UnitUsage, invocation: &Invocation) -> bool {
        let group = usage.key.rating_group;
        let asks = |other: &UnitUsage| other.key.rating_group == group && other.requested.is_some();
        self.session.holds_grant(group) || invocation.usages.iter().any(asks)
    }
}

/// By the consumer's time stamps: first and last usage, when the container was closed, when the request was made.
fn used_during(container: &Container, invocation: &Invocation) -> UsedDuring {
    let start = container.first_usage;
    let end = container.last_usage.or(container.closed_at).unwrap_or(invocation.invoked_at);
    UsedDuring {
        start,
        end: start.map_or(end, |start| end.max(start)),
        closed_by_tariff_change: container.has_trigger("TARIFF_TIME_CHANGE"),
    }
}

fn reported(invocation: &Invocation, repeated: &[Position]) -> Vec<Reported> {
    let with_containers = invocation.usages.iter().enumerate().filter(|(_, usage)| !usage.containers.is_empty());
    with_containers
        .map(|(at, usage)| Reported {
            key: usage.key.clone(),
            containers: usage.containers.clone(),
            repeated: (repeated.iter().filter(|(usage, _)| *usage == at))
                .filter_map(|(_, container)| u16::try_from(*container).ok())
                .collect(),
            others: usage.others.clone(),
        })
        .collect()
}

/// Where no tariff says what counts: the first kind that is named.
fn any_units(units: &Units) -> u64 {
    [UnitKind::Octets, UnitKind::Seconds, UnitKind::Events].into_iter().find_map(|kind| units.of(kind)).unwrap_or(0)
}
