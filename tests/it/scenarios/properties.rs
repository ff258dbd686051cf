//! What holds for every schedule of requests. Each commit in these worlds is checked as in every scenario: balances
//! follow their moves, what is reserved is what open grants hold, and no grant makes the available money negative.
//!
//! Prices are rated a second time here, by an arithmetic of its own that shares nothing with the product.

use std::collections::BTreeMap;

use nchf::charging::command::{Container, Credit, Indicator, OneTime, Trigger, TriggerCategory, UnitUsage};
use nchf::charging::decision::{Rejection, ResultCode};
use nchf::charging::explain::explain;
use nchf::charging::ids::{BalanceId, ChargingDataRef, RatingGroup};
use nchf::charging::journal::AbortReason;
use nchf::charging::maintain::Maintenance;
use nchf::charging::money::Amount;
use nchf::charging::session::{Operation, SessionState};
use nchf::charging::time::{Span, Timestamp};
use nchf::charging::units::Units;
use proptest::prelude::*;

use super::world::{Done, Request, World, consumer, key};

const MIB: i128 = 1_048_576;

/// The demo prices by hand: millionths of a euro.
#[derive(Default)]
struct Rater {
    money: i128,
    bundle: i128,
    /// Usage of each (session, rating group, price).
    meters: BTreeMap<(usize, u32, i128), i128>,
    tiered_this_month: i128,
}

impl Rater {
    fn step(&mut self, session: usize, group: u32, units: i128, price: i128, block: i128) {
        let used = self.meters.entry((session, group, price)).or_default();
        let blocks = |used: i128| (used + block - 1) / block;
        self.money -= (blocks(*used + units) - blocks(*used)) * price;
        *used += units;
    }

    /// `mine` is what of the bundle no other quota holds.
    fn use_up(&mut self, session: usize, group: u32, units: i128, mine: i128) {
        match group {
            10 => self.step(session, group, units, 10_000, MIB),
            20 => self.step(session, group, units, 100_000, 60),
            30 => self.step(session, group, units, 50_000, 1),
            80 => {
                let cheap = (self.tiered_this_month + units - 100 * MIB).clamp(0, units);
                self.tiered_this_month += units;
                self.step(session, group, units - cheap, 10_000, MIB);
                self.step(session, group, cheap, 2_000, MIB);
            }
            90 => {
                let in_kind = units.min(mine.max(0));
                self.bundle -= in_kind;
                self.step(session, group, units - in_kind, 10_000, MIB);
            }
            _ => {}
        }
    }

    /// What one more unit than `used` costs, for tariffs with one price.
    fn next_unit(&self, session: usize, group: u32, granted: i128) -> i128 {
        let (price, block) = match group {
            10 => (10_000, MIB),
            20 => (100_000, 60),
            _ => (50_000, 1),
        };
        let used = self.meters.get(&(session, group, price)).copied().unwrap_or(0) + granted;
        if used % block == 0 { price } else { 0 }
    }

    fn one_more_block(&self, session: usize, group: u32) -> i128 {
        self.next_unit(session, group, 0).max(match group {
            10 => 10_000,
            20 => 100_000,
            _ => 50_000,
        })
    }
}

/// One rating group of a request: what was used, what is asked for (zero leaves it open).
#[derive(Clone, Debug)]
struct Item {
    group: u32,
    used: Vec<u64>,
    asked: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Send {
        session: usize,
        items: Vec<Item>,
    },
    Release {
        session: usize,
        items: Vec<Item>,
    },
    /// Repeats an earlier request, counted from the latest.
    Repeat {
        back: usize,
    },
    Wait {
        secs: u32,
    },
    Credit {
        amount: i64,
    },
    /// Something happens to a session between its messages.
    Between {
        session: usize,
        cause: Cause,
    },
}

#[derive(Clone, Copy, Debug)]
enum Cause {
    Timer,
    Reauthorize,
    Abort,
    Gone,
    Split,
}

impl Cause {
    fn maintenance(self) -> Maintenance {
        match self {
            Self::Timer => Maintenance::Due,
            Self::Reauthorize => Maintenance::Reauthorize { groups: Some(vec![RatingGroup(10), RatingGroup(90)]) },
            Self::Abort => Maintenance::Abort { reason: AbortReason::Operator },
            Self::Gone => Maintenance::ConsumerGone { notify_uri: "http://a".into() },
            Self::Split => Maintenance::CloseRecord,
        }
    }
}

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        8 => Just(Cause::Timer),
        1 => Just(Cause::Reauthorize),
        1 => Just(Cause::Abort),
        1 => Just(Cause::Gone),
        1 => Just(Cause::Split),
    ]
}

const GROUPS: [u32; 8] = [10, 20, 30, 40, 50, 60, 80, 90];

fn item() -> impl Strategy<Value = Item> {
    let amount = |group: u32| match group {
        20 => 0..400u64,
        30 => 0..5u64,
        _ => 0..40_000_000u64,
    };
    prop::sample::select(&GROUPS[..]).prop_flat_map(move |group| {
        let used = prop::collection::vec(amount(group), 0..3);
        let more = if group == 10 { 2_000_000_000u64 } else { 5000 };
        let asked = prop::option::of(prop_oneof![4 => amount(group), 1 => 0..more]);
        (used, asked).prop_map(move |(used, asked)| Item { group, used, asked })
    })
}

/// Items of different rating groups.
fn items() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec(item(), 1..4).prop_map(|mut items| {
        items.sort_by_key(|item| item.group);
        items.dedup_by_key(|item| item.group);
        items
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3usize, items()).prop_map(|(session, items)| Step::Send { session, items }),
        2 => (0..3usize, items()).prop_map(|(session, items)| Step::Release { session, items }),
        2 => (0..6usize).prop_map(|back| Step::Repeat { back }),
        1 => (0..4000u32).prop_map(|secs| Step::Wait { secs }),
        1 => (1..3_000_000i64).prop_map(|amount| Step::Credit { amount }),
        3 => (0..3usize, cause()).prop_map(|(session, cause)| Step::Between { session, cause }),
    ]
}

fn units_of(group: u32, amount: u64) -> Units {
    match group {
        20 => Units { time: Some(u32::try_from(amount).unwrap()), ..Units::default() },
        30 => Units { service_specific_units: Some(amount), ..Units::default() },
        _ => Units { total_volume: Some(amount), ..Units::default() },
    }
}

/// A world and the books kept beside it.
struct Books {
    world: World,
    rater: Rater,
    numbers: u32,
    containers: i64,
    /// By position: the open session, if there is one, and how many there were.
    open: [Option<(ChargingDataRef, usize)>; 3],
    opened: usize,
    sent: Vec<(Request, Option<ChargingDataRef>, Done)>,
    /// Numbers of the containers that were reported, by session.
    reported: BTreeMap<ChargingDataRef, Vec<i64>>,
}

impl Books {
    fn new() -> Self {
        let mut world = World::demo();
        // Little enough to run out of.
        let mut account = world.account_of("bundle").clone();
        account.balances[0].amount = Amount::new(3_000_000);
        account.balances[1].amount = Amount::new(100_000_000);
        world.set_account(account);
        // Short enough to happen, and small enough to be cut.
        world.rules.supervision = Span::from_secs(5000);
        world.rules.record_open_max = Some(Span::from_secs(7000));
        world.rules.record_octets_max = 600;
        let rater = Rater { money: 3_000_000, bundle: 100_000_000, ..Rater::default() };
        Self {
            world,
            rater,
            numbers: 0,
            containers: 0,
            open: [None, None, None],
            opened: 0,
            sent: Vec::new(),
            reported: BTreeMap::new(),
        }
    }

    fn play(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send { session, items } => self.send(*session, items, false),
            Step::Release { session, items } => self.send(*session, items, true),
            Step::Repeat { back } => self.repeat(*back),
            Step::Wait { secs } => {
                self.world.now = self.world.now.after(Span::from_secs(*secs));
                Ok(())
            }
            Step::Credit { amount } => {
                let credit = Credit {
                    balance: BalanceId::new("main"),
                    unit: None,
                    amount: Amount::new(*amount),
                    expires_at: None,
                    priority: None,
                    reference: "top-up".into(),
                };
                self.world.credit("bundle", &credit).unwrap();
                self.rater.money += i128::from(*amount);
                self.compare()
            }
            Step::Between { session, cause } => self.between(*session, cause.maintenance()),
        }
    }

    /// Nothing that happens between messages costs anything.
    fn between(&mut self, at: usize, cause: Maintenance) -> Result<(), TestCaseError> {
        let Some((reference, _)) = self.open[at].clone() else { return Ok(()) };
        self.world.maintain(&reference, cause);
        if self.world.sessions[&reference].is_closed() {
            self.open[at] = None;
        }
        self.compare()
    }

    /// Lets time alone end what is still open.
    fn outlive(&mut self) -> Result<(), TestCaseError> {
        for at in 0..self.open.len() {
            for _ in 0..8 {
                let Some((reference, _)) = &self.open[at] else { break };
                let due = self.world.sessions[reference].due_at(&self.world.rules).expect("an open session is due");
                self.world.now = self.world.now.max(due);
                self.between(at, Maintenance::Due)?;
            }
            prop_assert!(self.open[at].is_none(), "eight firings end a session");
        }
        Ok(())
    }

    /// Every session has ended with its records, each container is in exactly one of them, and together they cost what
    /// the session did.
    fn check_records(&self) -> Result<(), TestCaseError> {
        for (reference, session) in &self.world.sessions {
            prop_assert!(session.is_closed());
            let records = self.world.records(reference);
            let last = records.last().expect("a closed session has a record");
            prop_assert_eq!(last.closed_at, self.world.journals[reference].last().unwrap().at);
            let is_split = records.len() > 1;
            for (at, record) in (0..).zip(&records) {
                prop_assert_eq!(record.part, at);
                let held = record.usage.iter().map(|usage| usage.containers.len()).sum::<usize>();
                prop_assert!(held <= 4, "{} containers of 120 octets or more in 600", held);
                prop_assert_eq!(record.sequence_number, is_split.then_some(at + 1));
            }
            for pair in records.windows(2) {
                prop_assert_eq!(pair[0].closed_at, pair[1].opened_at);
            }
            let charged = records.iter().fold(Amount::ZERO, |sum, record| sum.plus(record.charged).unwrap());
            prop_assert_eq!(charged, session.charged);
            let usage = records.iter().flat_map(|record| &record.usage);
            let containers = usage.flat_map(|usage| &usage.containers).map(|one| one.local_sequence_number);
            let mut recorded: Vec<i64> = containers.collect();
            recorded.sort_unstable();
            let reported = self.reported.get(reference).map_or(&[][..], Vec::as_slice);
            prop_assert_eq!(&recorded[..], reported);

            let why = explain(&self.world.journals[reference]).expect("a session's journal");
            prop_assert!(why.closed.is_some());
            prop_assert_eq!(why.charged, session.charged);
            for balance in why.groups.iter().flat_map(|group| &group.balances) {
                let given_back = balance.released.plus(balance.expired).unwrap();
                let settled = balance.reserved.minus(given_back).unwrap();
                prop_assert!(Amount::ZERO <= settled && settled <= balance.charged, "{:?}", balance);
            }
        }
        Ok(())
    }

    fn send(&mut self, at: usize, items: &[Item], release: bool) -> Result<(), TestCaseError> {
        let open = self.open[at].clone();
        let operation = match (&open, release) {
            (None, true) => return Ok(()),
            (None, false) => Operation::Create,
            (Some(_), true) => Operation::Release,
            (Some(_), false) => Operation::Update,
        };
        self.numbers += 1;
        let mut request = Request::new(operation, self.numbers, self.world.now);
        request.invocation.consumer = consumer(["a", "b", "c"][at]);
        request.subscriber = (operation == Operation::Create).then_some("bundle");
        for item in items {
            let mut containers = Vec::new();
            for used in &item.used {
                self.containers += 1;
                containers.push(Container {
                    local_sequence_number: self.containers,
                    indicator: Some(Indicator::Online),
                    ..Container::of_units(units_of(item.group, *used))
                });
            }
            let asked = item.asked.map(|asked| if asked == 0 { Units::default() } else { units_of(item.group, asked) });
            let usage = UnitUsage {
                key: key(item.group, None),
                requested: asked,
                containers: containers.into(),
                others: Vec::new(),
            };
            request.invocation.usages.push(usage);
        }
        // The second of the three cannot be notified.
        request.invocation.notify_uri = (operation == Operation::Create && at != 1).then(|| "http://a".into());
        let name = open.as_ref().map_or(self.opened, |(_, name)| *name);
        let held_by_others = self.held_by_others(at);
        let reference = open.map(|(reference, _)| reference);
        let done = self.world.send(&request, reference.as_ref()).map_err(|why| fail(&format!("refused: {why:?}")))?;
        prop_assert!(!done.replayed);
        let containers = request.invocation.usages.iter().flat_map(|usage| &usage.containers);
        let numbers = containers.map(|container| container.local_sequence_number);
        self.reported.entry(done.reference.clone()).or_default().extend(numbers);
        for item in items {
            for used in &item.used {
                let mine = self.rater.bundle - held_by_others;
                self.rater.use_up(name, item.group, i128::from(*used), mine);
            }
        }
        match operation {
            Operation::Create => {
                self.open[at] = Some((done.reference.clone(), name));
                self.opened += 1;
            }
            Operation::Release => self.open[at] = None,
            Operation::Update => {}
        }
        self.compare()?;
        if !matches!(self.world.sessions[&done.reference].state, SessionState::Aborting { .. }) {
            self.check_grants(name, items, &done)?;
        }
        self.sent.push((request, reference, done));
        Ok(())
    }

    /// What quotas of other sessions hold of the bundle.
    fn held_by_others(&self, at: usize) -> i128 {
        let others =
            self.open.iter().enumerate().filter(|(other, _)| *other != at).filter_map(|(_, open)| open.as_ref());
        let quotas = others.flat_map(|(reference, _)| &self.world.sessions[reference].quotas);
        let parts = quotas.filter_map(|quota| quota.grant.as_ref()).flat_map(|grant| &grant.reserved);
        let of_bundle = parts.filter(|part| part.balance.as_str() == "data-bundle");
        of_bundle.map(|part| i128::from(part.amount.steps())).sum()
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let account = self.world.account_of("bundle");
        let amount = |id: &str| i128::from(account.balance(&BalanceId::new(id)).unwrap().amount.steps());
        prop_assert_eq!(amount("main"), self.rater.money);
        prop_assert_eq!(amount("data-bundle"), self.rater.bundle);
        Ok(())
    }

    /// No grant is larger than what was asked for and what the tariff allows, and the final unit indication stands
    /// exactly where the account could not cover one more block.
    fn check_grants(&self, name: usize, items: &[Item], done: &Done) -> Result<(), TestCaseError> {
        let available = i128::from(self.world.account_of("bundle").money_available().steps());
        let results = &done.answer.results;
        let asking: Vec<_> = items.iter().filter(|item| item.asked.is_some() || !item.used.is_empty()).collect();
        if results.is_empty() {
            return Ok(());
        }
        prop_assert_eq!(results.len(), asking.len());
        for (at, (result, item)) in results.iter().zip(&asking).enumerate() {
            let granted = result.granted.map(|units| match item.group {
                20 => u64::from(units.time.unwrap()),
                30 => units.service_specific_units.unwrap(),
                _ => units.total_volume.unwrap(),
            });
            let (default, largest) = match item.group {
                20 => (300, 3600),
                30 => (1, 100),
                _ => (10_485_760, 1_073_741_824),
            };
            let asked = item.asked.map_or(0, |asked| if asked == 0 { default } else { asked }).min(largest);
            prop_assert!(granted.is_none_or(|granted| granted <= asked && granted > 0), "{granted:?} of {asked}");
            // Grants after this one change what is left.
            if at + 1 == results.len() && [10, 20, 30].contains(&item.group) && item.asked.is_some() {
                match (result.code, granted) {
                    (ResultCode::Success, Some(granted)) => {
                        let is_last = available < self.rater.one_more_block(name, item.group);
                        prop_assert_eq!(result.final_unit.is_some(), is_last, "available {}", available);
                        prop_assert!(granted == asked || available < self.rater.one_more_block(name, item.group));
                    }
                    (ResultCode::QuotaLimitReached, None) => {
                        prop_assert!(available < self.rater.next_unit(name, item.group, 0));
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
        Ok(())
    }

    fn repeat(&mut self, back: usize) -> Result<(), TestCaseError> {
        let Some((request, reference, before)) = self.sent.iter().rev().nth(back).cloned() else { return Ok(()) };
        let commits = self.world.commits;
        match self.world.send(&request, reference.as_ref()) {
            Ok(again) => {
                prop_assert!(again.replayed);
                prop_assert_eq!(again.answer, before.answer);
                prop_assert_eq!(again.reference, before.reference);
            }
            // Too old to be answered, and not charged again.
            Err(rejection) => prop_assert_eq!(rejection, Rejection::NumberForgotten),
        }
        prop_assert_eq!(self.world.commits, commits);
        self.compare()
    }
}

fn fail(why: &str) -> TestCaseError {
    TestCaseError::fail(why.to_owned())
}

/// A session of one rating group: a grant now and then, and usage in reports of these sizes.
fn balance_after(group: u32, reports: &[Vec<u64>], granted: bool) -> (i128, i128) {
    let mut world = World::demo();
    let mut create = Request::new(Operation::Create, 1, world.now);
    create.subscriber = Some("bundle");
    let asked = granted.then(|| units_of(group, 1));
    let usage = |containers: Vec<Container>| UnitUsage {
        key: key(group, None),
        requested: asked,
        containers: containers.into(),
        others: Vec::new(),
    };
    create.invocation.usages.push(usage(Vec::new()));
    let reference = world.send(&create, None).unwrap().reference;
    let mut container = 0;
    for (number, report) in (2..).zip(reports) {
        let is_last = number as usize == reports.len() + 1;
        let operation = if is_last { Operation::Release } else { Operation::Update };
        let mut request = Request::new(operation, number, world.now);
        let containers = report.iter().map(|used| {
            container += 1;
            Container {
                local_sequence_number: container,
                indicator: Some(Indicator::Online),
                ..Container::of_units(units_of(group, *used))
            }
        });
        request.invocation.usages.push(usage(containers.collect()));
        world.send(&request, Some(&reference)).unwrap();
    }
    let account = world.account_of("bundle");
    let amount = |id: &str| i128::from(account.balance(&BalanceId::new(id)).unwrap().amount.steps());
    assert_eq!(i128::from(world.sessions[&reference].charged.steps()), 10_000_000 - amount("main"));
    let records = world.records(&reference);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].charged, world.sessions[&reference].charged);
    (amount("main"), amount("data-bundle"))
}

fn any_units() -> impl Strategy<Value = Units> {
    let volume = || prop::option::of(prop_oneof![0..10u64, any::<u64>(), Just(u64::MAX), 0..200_000_000u64]);
    (prop::option::of(any::<u32>()), volume(), volume(), volume(), volume()).prop_map(
        |(time, total, up, down, events)| Units {
            time,
            total_volume: total,
            uplink_volume: up,
            downlink_volume: down,
            service_specific_units: events,
        },
    )
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        3 => (0..4_000_000i64).prop_map(|secs| Timestamp::from_secs(1_780_000_000 + secs)),
        1 => any::<i64>().prop_map(Timestamp::from_millis),
    ]
}

fn any_container() -> impl Strategy<Value = Container> {
    const TRIGGERS: [&str; 5] = ["QHT", "FINAL", "TARIFF_TIME_CHANGE", "RAT_CHANGE", "QUOTA_EXHAUSTED"];
    let indicator = prop_oneof![
        Just(None),
        Just(Some(Indicator::Online)),
        Just(Some(Indicator::Offline)),
        Just(Some(Indicator::Suspended)),
        Just(Some(Indicator::Other("X".into()))),
    ];
    let number = prop_oneof![0..5i64, any::<i64>()];
    let times = (prop::option::of(any_time()), prop::option::of(any_time()), prop::option::of(any_time()));
    let trigger = prop::option::of(prop::sample::select(&TRIGGERS[..]));
    (any_units(), indicator, number, times, trigger).prop_map(|(units, indicator, number, times, name)| Container {
        local_sequence_number: number,
        indicator,
        triggers: name
            .map(|name| Trigger { name: Some(name.into()), category: TriggerCategory::Immediate, others: Vec::new() })
            .into_iter()
            .collect(),
        closed_at: times.0,
        first_usage: times.1,
        last_usage: times.2,
        ..Container::of_units(units)
    })
}

fn any_usage() -> impl Strategy<Value = UnitUsage> {
    let group = prop::sample::select(&[10u32, 20, 30, 40, 50, 60, 70, 80, 90, 99][..]);
    let upf = prop::sample::select(&[None, Some("A"), Some("B")][..]);
    let containers = prop::collection::vec(any_container(), 0..4);
    (group, upf, prop::option::of(any_units()), containers).prop_map(|(group, upf, requested, containers)| UnitUsage {
        key: key(group, upf),
        requested,
        containers: containers.into(),
        others: Vec::new(),
    })
}

type AnyRequest = (u8, u8, u32, bool, Option<u64>, Timestamp, Vec<UnitUsage>, u8);

fn any_request() -> impl Strategy<Value = AnyRequest> {
    (
        0..15u8,
        0..4u8,
        prop_oneof![0..6u32, any::<u32>()],
        any::<bool>(),
        prop::option::weighted(0.2, 0..3u64),
        any_time(),
        prop::collection::vec(any_usage(), 0..5),
        0..10u8,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn money_and_bundle_are_what_an_independent_rater_says(steps in prop::collection::vec(step(), 1..40)) {
        let mut books = Books::new();
        for step in &steps {
            books.play(step)?;
        }
        books.send(0, &[], true)?;
        books.outlive()?;
        let account = books.world.account_of("bundle");
        prop_assert!(account.balances.iter().all(|balance| balance.reserved.is_zero()), "the end leaves nothing held");
        books.check_records()?;
    }

    #[test]
    fn splitting_usage_into_more_reports_never_changes_the_price(
        group in prop::sample::select(&[10u32, 20, 30, 40, 80, 90][..]),
        usage in prop::collection::vec(0..60_000_000u64, 1..12),
        cuts in prop::collection::vec(1..4usize, 1..8),
        granted in any::<bool>(),
    ) {
        let usage: Vec<u64> = match group {
            20 | 30 => usage.iter().map(|used| used / 100_000).collect(),
            _ => usage,
        };
        let whole = balance_after(group, &[vec![usage.iter().sum()]], granted);
        let mut reports = Vec::new();
        let mut rest = &usage[..];
        for cut in cuts {
            let (report, more) = rest.split_at(cut.min(rest.len()));
            reports.push(report.to_vec());
            rest = more;
        }
        reports.push(rest.to_vec());
        prop_assert_eq!(balance_after(group, &reports, granted), whole);
    }

    #[test]
    fn every_request_is_answered_or_refused_whatever_it_holds(requests in prop::collection::vec(any_request(), 1..25)) {
        let mut world = World::demo();
        world.rules.record_octets_max = 300;
        world.rules.record_open_max = Some(Span::from_secs(9000));
        let mut sessions: Vec<ChargingDataRef> = Vec::new();
        for (kind, at, number, marked, key, time, usages, wait) in requests {
            let operation = match kind {
                0..4 => Operation::Create,
                4..10 => Operation::Update,
                10..12 => Operation::Release,
                _ => {
                    let causes = [Cause::Timer, Cause::Reauthorize, Cause::Abort, Cause::Gone, Cause::Split];
                    if let Some(reference) = sessions.get(usize::from(at)) {
                        world.maintain(reference, causes[usize::from(wait) % 5].maintenance());
                    }
                    continue;
                }
            };
            let mut request = Request::new(operation, number, time);
            request.invocation.retransmission = marked;
            request.invocation.idempotency = key;
            request.invocation.usages = usages;
            request.subscriber = Some(["user", "bundle", "postpaid", "low"][usize::from(at)]);
            request.invocation.notify_uri = marked.then(|| "http://a".into());
            request.pdu_session = (wait < 3).then_some(u32::from(wait));
            request.one_time = match (operation, kind) {
                (Operation::Create, 0) => Some(OneTime::Immediate),
                (Operation::Create, 1) => Some(OneTime::Post),
                _ => None,
            };
            let target = sessions.get(usize::from(at)).cloned();
            if let Ok(done) = world.send(&request, target.as_ref()) {
                prop_assert!(done.answer.results.iter().all(|result| result.validity_secs != Some(0)));
                if operation == Operation::Create {
                    sessions.insert(0, done.reference);
                }
            }
            world.now = world.now.after(Span::from_secs(u32::from(wait) * 600));
        }
        for reference in &sessions {
            let records = world.records(reference);
            let charged = records.iter().fold(Amount::ZERO, |sum, record| sum.plus(record.charged).unwrap());
            let session = &world.sessions[reference];
            prop_assert!(charged <= session.charged && (charged == session.charged || !session.is_closed()));
            prop_assert!(world.journals.get(reference).is_none_or(|journal| explain(journal).is_some()));
        }
    }
}
