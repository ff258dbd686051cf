//! Why a session cost what it did and why each rating group got what it got, read from the session's journal: nothing
//! else is kept for it.

use super::command::{Container, QuotaKey};
use super::decision::GroupResult;
use super::ids::{BalanceId, RatingGroup, TariffPlanId};
use super::journal::{Entry, Event, Invoked, Move, MoveKind, Told};
use super::money::{Amount, BalanceUnit};
use super::session::ClosingCause;
use super::text::Text;
use super::time::Timestamp;
use super::units::Units;

/// A whole session's money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub opened_at: Timestamp,
    /// `None` while the session is open.
    pub closed: Option<(Timestamp, ClosingCause)>,
    pub currency: Option<Text>,
    pub plan: Option<TariffPlanId>,
    /// What the consumer was told between its messages, and when.
    pub told: Vec<(Timestamp, Told)>,
    /// Money charged.
    pub charged: Amount,
    /// In the order in which the session first named them.
    pub groups: Vec<GroupExplanation>,
}

/// What one rating group was given, what it used, and what that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupExplanation {
    pub rating_group: RatingGroup,
    /// The sum of all grants. Each took the place of what was left of the one before, so it may be more than could ever
    /// be used.
    pub granted: Units,
    /// The sum of all that was reported, each container once.
    pub used: Units,
    /// Balance by balance, in the order in which they were first touched.
    pub balances: Vec<BalanceExplanation>,
    pub quotas: Vec<QuotaExplanation>,
}

/// What moved on one balance for one rating group, in the balance's unit. Of what was `reserved`, so much was `released`
/// by reports and by the end of the session, so much `expired` because no report came, and the rest was charged or is
/// held still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceExplanation {
    pub balance: BalanceId,
    pub unit: BalanceUnit,
    pub reserved: Amount,
    pub released: Amount,
    pub expired: Amount,
    pub charged: Amount,
}

/// The latest of one quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaExplanation {
    pub key: QuotaKey,
    /// `None` when it was only reported.
    pub last_answer: Option<LastAnswer>,
    /// When a grant of it last expired without a report.
    pub expired_at: Option<Timestamp>,
}

/// What was answered about a quota, and to which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastAnswer {
    pub at: Timestamp,
    /// `invocationSequenceNumber`.
    pub number: u32,
    pub result: GroupResult,
}

/// Explains a session from its journal's entries; `None` when they do not begin with its Create.
pub fn explain(entries: &[Entry]) -> Option<Explanation> {
    let Some(Entry { at, event: Event::Opened { header, .. }, .. }) = entries.first() else { return None };
    let mut explanation = Explanation {
        opened_at: *at,
        closed: None,
        currency: header.currency.clone(),
        plan: header.plan.clone(),
        told: Vec::new(),
        charged: Amount::ZERO,
        groups: Vec::new(),
    };
    // By their positions, which answers speak of.
    let mut quotas: Vec<QuotaKey> = Vec::new();
    for entry in entries {
        if let Some(invocation) = entry.event.invocation() {
            quotas.extend(invocation.quotas.iter().cloned());
            explanation.add_invocation(entry.at, invocation, &quotas);
        }
        match &entry.event {
            Event::Opened { header, .. } if header.one_time => {
                explanation.closed = Some((entry.at, ClosingCause::Event));
            }
            Event::Released(_) => explanation.closed = Some((entry.at, ClosingCause::Released)),
            Event::Closed(cause) => explanation.closed = Some((entry.at, *cause)),
            Event::Maintained { expired, told } => {
                for key in expired {
                    explanation.quota(key).expired_at = Some(entry.at);
                }
                explanation.told.extend(told.clone().map(|told| (entry.at, told)));
            }
            Event::Opened { .. }
            | Event::Updated(_)
            | Event::Late { .. }
            | Event::Published(_)
            | Event::Credited { .. } => {}
        }
        entry.moves.iter().for_each(|one| explanation.add_move(one));
    }
    Some(explanation)
}

impl Explanation {
    fn add_invocation(&mut self, at: Timestamp, invocation: &Invoked, quotas: &[QuotaKey]) {
        for key in &invocation.quotas {
            self.quota(key);
        }
        for reported in &invocation.usage {
            let is_new = |at: usize| reported.repeated.iter().all(|repeated| usize::from(*repeated) != at);
            let fresh = reported.containers.iter().enumerate().filter(|(at, _)| is_new(*at));
            let used = fresh.fold(Units::default(), |sum, (_, Container { units, .. })| sum.plus(units));
            let group = self.group(reported.key.rating_group);
            group.used = group.used.plus(&used);
        }
        // A copy that grew repeats an answer that was given before.
        let is_its_own = invocation.answer.at == at;
        for result in invocation.answer.results.iter().filter(|_| is_its_own) {
            let Some(key) = quotas.get(usize::from(result.quota)) else { continue };
            if let Some(granted) = &result.granted {
                let group = self.group(key.rating_group);
                group.granted = group.granted.plus(granted);
            }
            let answer = LastAnswer { at, number: invocation.number, result: result.clone() };
            self.quota(key).last_answer = Some(answer);
        }
    }

    fn add_move(&mut self, one: &Move) {
        // What has none is a balance that expired, which has nothing to do with the session.
        let Some(rating_group) = one.rating_group else { return };
        if one.kind == MoveKind::Debit && one.unit == BalanceUnit::Money {
            self.charged = self.charged.plus(one.amount).unwrap_or(self.charged);
        }
        let balance = self.group(rating_group).balance(&one.balance, one.unit);
        let sum = match one.kind {
            MoveKind::Reserve => &mut balance.reserved,
            MoveKind::Release => &mut balance.released,
            MoveKind::Expire => &mut balance.expired,
            MoveKind::Debit => &mut balance.charged,
            MoveKind::Credit | MoveKind::Adjust => return,
        };
        *sum = sum.plus(one.amount).unwrap_or(*sum);
    }

    fn group(&mut self, rating_group: RatingGroup) -> &mut GroupExplanation {
        place(
            &mut self.groups,
            |group| group.rating_group == rating_group,
            || GroupExplanation {
                rating_group,
                granted: Units::default(),
                used: Units::default(),
                balances: Vec::new(),
                quotas: Vec::new(),
            },
        )
    }

    fn quota(&mut self, key: &QuotaKey) -> &mut QuotaExplanation {
        let quotas = &mut self.group(key.rating_group).quotas;
        let new = || QuotaExplanation { key: key.clone(), last_answer: None, expired_at: None };
        place(quotas, |quota| quota.key == *key, new)
    }
}

impl GroupExplanation {
    fn balance(&mut self, id: &BalanceId, unit: BalanceUnit) -> &mut BalanceExplanation {
        let zero = Amount::ZERO;
        place(
            &mut self.balances,
            |balance| balance.balance == *id,
            || BalanceExplanation {
                balance: id.clone(),
                unit,
                reserved: zero,
                released: zero,
                expired: zero,
                charged: zero,
            },
        )
    }
}

/// The one that is meant, made at the end when there is none.
fn place<T>(all: &mut Vec<T>, is_it: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = all.iter().position(is_it).unwrap_or_else(|| {
        all.push(new());
        all.len().saturating_sub(1)
    });
    &mut all[at]
}
