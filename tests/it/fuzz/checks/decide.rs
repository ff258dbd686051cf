//! Bytes as requests, timers, credits and time against the pure core.

use nchf::charging::command::{Container, Credit, Indicator, OneTime, Trigger, TriggerCategory, UnitUsage};
use nchf::charging::decision::{Answer, Outcome};
use nchf::charging::explain::explain;
use nchf::charging::ids::{BalanceId, ChargingDataRef};
use nchf::charging::journal::AbortReason;
use nchf::charging::maintain::Maintenance;
use nchf::charging::money::Amount;
use nchf::charging::session::Operation;
use nchf::charging::time::Span;
use nchf::charging::units::Units;

use crate::scenarios::world::{Done, Request, World, key};

/// After each step the world checks that balances are what their moves say, that what is reserved is what grants hold,
/// and that no grant took what is not there. A repeated request gets its answer again. In the end time closes
/// everything, nothing stays held, and the records have what the sessions cost.
pub fn decide(data: &[u8]) {
    const STEPS_MAX: usize = 48;
    let mut play = Play { world: World::demo(), input: data, sessions: Vec::new(), last: None, number: 0 };
    play.world.rules.record_octets_max = 300;
    play.world.rules.quotas_max = 6;
    for _ in 0..STEPS_MAX {
        if play.input.is_empty() {
            break;
        }
        play.step();
    }
    play.end();
}

struct Play<'d> {
    world: World,
    input: &'d [u8],
    sessions: Vec<ChargingDataRef>,
    last: Option<(Request, Option<ChargingDataRef>, Done)>,
    number: u32,
}

impl Play<'_> {
    /// Zero when there is nothing left.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.input.split_first() else { return 0 };
        self.input = rest;
        *first
    }

    fn long(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn amount(&mut self) -> u64 {
        const MIB: u64 = 1 << 20;
        match self.byte() {
            0 => 0,
            1 => u64::MAX,
            2 => self.long(),
            3 => i64::MAX as u64,
            few @ 4..64 => u64::from(few),
            mib @ 64..192 => u64::from(mib - 63) * MIB,
            odd => u64::from(odd) * MIB + 1,
        }
    }

    fn units(&mut self) -> Units {
        let present = self.byte();
        let mut one = |bit: u8| (present & 1 << bit != 0).then(|| self.amount());
        Units {
            total_volume: one(0),
            time: one(1).map(|secs| u32::try_from(secs >> 12).unwrap_or(u32::MAX)),
            service_specific_units: one(2),
            uplink_volume: one(3),
            downlink_volume: one(4),
        }
    }

    fn step(&mut self) {
        let at = self.byte();
        let session = self.sessions.get(usize::from(at >> 4) % self.sessions.len().max(1)).cloned();
        match (at % 16, session) {
            (0..4, _) | (_, None) => self.send(Operation::Create, None),
            (4..9, session) => self.send(Operation::Update, session),
            (9, session) => self.send(Operation::Release, session),
            (10 | 11, Some(session)) => {
                let cause = self.cause();
                self.world.maintain(&session, cause);
            }
            (12, _) => self.repeat(),
            (13, _) => self.credit(),
            (14.., _) => {
                let secs = u32::from(self.byte()).pow(2);
                self.world.now = self.world.now.after(Span::from_secs(secs));
                for session in self.sessions.clone() {
                    let is_due = self.world.sessions[&session].timer_at.is_some_and(|at| at <= self.world.now);
                    if is_due {
                        self.world.maintain(&session, Maintenance::Due);
                    }
                }
            }
        }
    }

    fn cause(&mut self) -> Maintenance {
        match self.byte() % 6 {
            0 | 1 => Maintenance::Reauthorize { groups: None },
            2 => Maintenance::Abort { reason: AbortReason::Operator },
            3 => Maintenance::ConsumerGone { notify_uri: "http://a".into() },
            4 => Maintenance::Moved { from: "http://a".into(), to: "http://b".into() },
            _ => Maintenance::CloseRecord,
        }
    }

    fn send(&mut self, operation: Operation, session: Option<ChargingDataRef>) {
        let how = self.byte();
        self.number += 1;
        let number = match how % 8 {
            0 => u32::from(self.byte()),
            1 => u32::MAX,
            _ => self.number,
        };
        let mut request = Request::new(operation, number, self.world.now);
        request.subscriber = Some(["user", "bundle", "postpaid", "low", "mother", "father"][usize::from(how) % 6]);
        request.invocation.retransmission = how & 16 != 0;
        request.invocation.notify_uri = (how & 32 != 0).then(|| "http://a".into());
        request.pdu_session = (how & 64 != 0).then_some(u32::from(how) % 3);
        if operation == Operation::Create && how & 128 != 0 {
            request.one_time = [Some(OneTime::Immediate), Some(OneTime::Post), None][usize::from(how) % 3];
        }
        for _ in 0..self.byte() % 4 {
            let usage = self.usage();
            request.invocation.usages.push(usage);
        }
        if let Ok(done) = self.world.send(&request, session.as_ref()) {
            if !self.sessions.contains(&done.reference) {
                self.sessions.push(done.reference.clone());
            }
            self.last = Some((request, session, done));
        }
    }

    fn usage(&mut self) -> UnitUsage {
        let which = self.byte();
        let group = [10, 20, 30, 40, 50, 60, 70, 80, 90, 99][usize::from(which) % 10];
        let requested = (which & 64 != 0).then(|| self.units());
        let containers = (0..self.byte() % 3).map(|_| self.container()).collect::<Vec<_>>().into();
        UnitUsage { key: key(group, (which & 128 != 0).then_some("A")), requested, containers, others: Vec::new() }
    }

    fn container(&mut self) -> Container {
        let what = self.byte();
        let indicator = match what % 4 {
            0 => None,
            1 | 2 => Some(Indicator::Online),
            _ if what & 16 == 0 => Some(Indicator::Offline),
            _ => Some(Indicator::Suspended),
        };
        let name = ["QHT", "FINAL", "TARIFF_TIME_CHANGE", "QUOTA_EXHAUSTED"][usize::from(what >> 6)];
        let trigger = Trigger { name: Some(name.into()), category: TriggerCategory::Immediate, others: Vec::new() };
        let ago = Span::from_secs(u32::from(what) * 16);
        Container {
            local_sequence_number: i64::from(if what & 8 == 0 { u32::from(self.byte()) } else { self.number }),
            indicator,
            triggers: (what & 32 != 0).then_some(trigger).into_iter().collect(),
            closed_at: (what & 4 != 0).then(|| self.world.now.before(ago)),
            ..Container::of_units(self.units())
        }
    }

    fn repeat(&mut self) {
        let Some((request, session, before)) = self.last.clone() else { return };
        let commits = self.world.commits;
        if let Ok(again) = self.world.send(&request, session.as_ref())
            && again.replayed
        {
            // That a session is gone is answered without a time, so none is kept for it.
            let at = if before.answer.outcome == Outcome::Gone { again.answer.at } else { before.answer.at };
            assert_eq!(again.answer, Answer { at, ..before.answer });
            assert_eq!(again.reference, before.reference);
            assert_eq!(self.world.commits, commits);
        }
    }

    fn credit(&mut self) {
        let which = self.byte();
        let amount = Amount::of(self.amount()).filter(|amount| amount.is_positive());
        let Some(amount) = amount else { return };
        let balance = BalanceId::new(if which & 8 == 0 { "main" } else { "data-bundle" });
        let lives_for = Span::from_secs(u32::from(which) * 600);
        let credit = Credit {
            balance,
            unit: None,
            amount,
            expires_at: (which & 16 != 0).then(|| self.world.now.after(lives_for)),
            priority: None,
            reference: format!("credit {}", self.number).into(),
        };
        // What does not fit is refused.
        let _ = self.world.credit(["user", "bundle", "postpaid", "low"][usize::from(which) % 4], &credit);
    }

    fn end(mut self) {
        const ROUNDS_MAX: usize = 8;
        for _ in 0..ROUNDS_MAX {
            self.world.now = self.world.now.after(self.world.rules.supervision);
            for session in &self.sessions {
                if self.world.sessions[session].timer_at.is_some_and(|at| at <= self.world.now) {
                    self.world.maintain(session, Maintenance::Due);
                }
            }
        }
        for reference in &self.sessions {
            let session = &self.world.sessions[reference];
            assert!(session.is_closed(), "time closes every session: {session:?}");
            let records = self.world.records(reference);
            let charged = records.iter().fold(Amount::ZERO, |sum, record| sum.plus(record.charged).unwrap());
            assert_eq!(charged, session.charged, "the records have what the session cost");
            // An event that was refused has left nothing.
            assert!(self.world.journals.get(reference).is_none_or(|journal| explain(journal).is_some()));
        }
        for account in self.world.accounts.values() {
            assert!(account.balances.iter().all(|balance| balance.reserved.is_zero()), "something stays held");
        }
    }
}
