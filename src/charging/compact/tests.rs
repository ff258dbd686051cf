use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::charging::account::Reservation;
use crate::charging::ids::ChargingDataRef;
use crate::charging::journal::{
    AbortReason, Closing, Entry, Event, Header, Invoked, Move, MoveKind, Published, Reported, Told,
};
use crate::charging::session::{
    ChargingSession, ContainerMemory, Grant, Meter, Numbering, Operation, Payer, Quota, RecordSoFar, Remembered,
    SeenContainer, SessionState,
};
use crate::charging::text::Text;

// ---- Anything that can be stored ----

fn one_of<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(all.to_vec())
}

fn text() -> impl Strategy<Value = Text> {
    let usual = [
        "",
        "main",
        "SMF",
        "QUOTA_THRESHOLD",
        "HANDOVER_CANCEL",
        "imsi-001010000000001",
        "imsi-00101000000001",
        "imsi-+01010000000001",
        "192.0.2.10",
        "192.0.2.010",
        "344f52e6-7290-4be8-bf72-3f1c13ac3fea",
        "344F52E6-7290-4be8-bf72-3f1c13ac3fea",
        "344f52e672904be8bf723f1c13ac3fea",
        "nfConsumerIdentification",
        "{\"a\":\"ß\"}",
    ];
    prop_oneof![3 => one_of(&usual).prop_map(Into::into), 1 => ".{0,80}".prop_map(Into::into)]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..200u64, any::<u64>(), Just(u64::MAX)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![0..200u32, any::<u32>(), Just(u32::MAX)]
}

fn signed() -> impl Strategy<Value = i64> {
    prop_oneof![-100..100i64, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
}

fn amount() -> impl Strategy<Value = Amount> {
    signed().prop_map(Amount::new)
}

fn time() -> impl Strategy<Value = Timestamp> {
    let usual = 1_780_000_000_000..1_780_000_100_000i64;
    prop_oneof![usual.prop_map(Timestamp::from_millis), signed().prop_map(Timestamp::from_millis)]
}

fn instant() -> impl Strategy<Value = Text> {
    let usual = [
        "2026-06-15T10:00:00Z",
        "2026-06-15T10:00:00.000Z",
        "2026-06-15T10:00:00.120450Z",
        "2024-02-29T23:59:59.999999999Z",
        "1970-01-01T00:00:00.5Z",
        "9999-12-30T21:59:59.999Z",
        "9999-12-31T23:59:59.999Z",
        "1969-12-31T23:59:59.999Z",
        "2026-02-29T10:00:00Z",
        "2026-06-15T10:00:60Z",
        "2026-06-15T10:00:00.Z",
        "2026-06-15T10:00:00.1234567890Z",
        "2026-06-15T10:00:00.+12Z",
        "2026-06-15t10:00:00z",
        "2026-06-15T10:00:00+00:00",
        "2026-06-15 10:00:00Z",
        "+026-06-15T10:00:00Z",
        "soon",
    ];
    let spelled = (time(), 0..=9usize).prop_map(|(at, places)| {
        jiff::Timestamp::from_millisecond(at.millis()).map_or("".into(), |at| format!("{at:.places$}").into())
    });
    prop_oneof![one_of(&usual).prop_map(Into::into), spelled, text()]
}

fn key() -> impl Strategy<Value = QuotaKey> {
    (small(), of(text()), of(text()), of(text())).prop_map(|(group, upf, multihomed, mb_upf)| QuotaKey {
        rating_group: RatingGroup(group % 5),
        upf,
        multihomed,
        mb_upf,
    })
}

fn units() -> impl Strategy<Value = Units> {
    (of(number()), of(number()), of(number()), of(small()), of(number())).prop_map(
        |(total_volume, uplink_volume, downlink_volume, time, service_specific_units)| Units {
            total_volume,
            uplink_volume,
            downlink_volume,
            time,
            service_specific_units,
        },
    )
}

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    vec((text(), text(), number()).prop_map(|(name, json, hash)| Block { name, json, hash }), 0..3)
}

fn triggers() -> impl Strategy<Value = Vec<Trigger>> {
    let category = prop_oneof![
        Just(TriggerCategory::Immediate),
        Just(TriggerCategory::Deferred),
        text().prop_map(TriggerCategory::Other)
    ];
    vec((of(text()), category, blocks()).prop_map(|(name, category, others)| Trigger { name, category, others }), 0..3)
}

fn container() -> impl Strategy<Value = Container> {
    let indicator = prop_oneof![
        Just(Indicator::Online),
        Just(Indicator::Offline),
        Just(Indicator::Suspended),
        text().prop_map(Indicator::Other)
    ];
    let times = (of(time()), of(time()), of(time()));
    (signed(), of(indicator), units(), triggers(), times, of(small()), blocks()).prop_map(
        |(local_sequence_number, indicator, units, triggers, times, service_id, others)| Container {
            local_sequence_number,
            indicator,
            units,
            triggers,
            closed_at: times.0,
            first_usage: times.1,
            last_usage: times.2,
            service_id,
            others,
        },
    )
}

fn final_unit() -> impl Strategy<Value = FinalUnit> {
    prop_oneof![
        Just(FinalUnit::Terminate),
        (text(), text()).prop_map(|(address_type, address)| FinalUnit::Redirect { address_type, address }),
        (vec(text(), 0..3), vec(text(), 0..3))
            .prop_map(|(filter_rules, filter_ids)| FinalUnit::RestrictAccess { filter_rules, filter_ids }),
    ]
}

const CODES: [ResultCode; 7] = [
    ResultCode::Success,
    ResultCode::EndUserServiceDenied,
    ResultCode::QuotaManagementNotApplicable,
    ResultCode::QuotaLimitReached,
    ResultCode::RatingFailed,
    ResultCode::EndUserServiceRejected,
    ResultCode::QuotaManagement,
];
const UNITS: [BalanceUnit; 4] = [BalanceUnit::Money, BalanceUnit::Octets, BalanceUnit::Seconds, BalanceUnit::Events];

fn answer() -> impl Strategy<Value = Answer> {
    let outcome = one_of(&[Outcome::Created, Outcome::Updated, Outcome::Released, Outcome::Gone]);
    let numbers = (of(small()), of(small()), of(number()));
    let result = (0..9u16, one_of(&CODES), of(units()), numbers, of(time()), of(final_unit())).prop_map(
        |(quota, code, granted, numbers, tariff_change, final_unit)| GroupResult {
            quota,
            code,
            granted,
            validity_secs: numbers.0,
            holding_secs: numbers.1,
            threshold: numbers.2,
            tariff_change,
            final_unit,
        },
    );
    // Few results, so that neighbours have the same.
    let results = prop_oneof![Just(Vec::new()), vec(result, 0..3)];
    (outcome, time(), small(), of(number()), results).prop_map(|(outcome, at, number, features, results)| Answer {
        outcome,
        at,
        number,
        features,
        results: results.into(),
    })
}

fn consumer() -> impl Strategy<Value = Consumer> {
    (text(), of(text()), of(text())).prop_map(|(functionality, name, address)| Consumer {
        functionality,
        name,
        address,
    })
}

fn quotas() -> impl Strategy<Value = Vec<Quota>> {
    let reservation = (text(), one_of(&UNITS), amount()).prop_map(|(balance, unit, amount)| Reservation {
        balance: BalanceId::new(balance),
        unit,
        amount,
    });
    let kind = one_of(&[UnitKind::Octets, UnitKind::Seconds, UnitKind::Events]);
    let grant = (kind, number(), number(), vec(reservation, 0..3), of(time()), small()).prop_map(
        |(kind, granted, used, reserved, valid_until, plan_version)| Grant {
            kind,
            granted,
            used,
            reserved,
            valid_until,
            plan_version,
        },
    );
    let quota = (key(), of(grant), number(), of(one_of(&CODES)), any::<bool>(), any::<bool>()).prop_map(
        |(key, grant, used, last_code, final_unit, expired)| Quota { key, grant, used, last_code, final_unit, expired },
    );
    let same_names = vec((any::<bool>(), quota), 0..4);
    same_names.prop_map(|quotas| {
        let mut made: Vec<Quota> = Vec::new();
        for (same, mut quota) in quotas {
            if let Some(before) = made.last().filter(|_| same) {
                quota.key = QuotaKey { rating_group: quota.key.rating_group, ..before.key.clone() };
            }
            if made.iter().all(|one| one.key != quota.key) {
                made.push(quota);
            }
        }
        made
    })
}

fn session() -> impl Strategy<Value = ChargingSession> {
    let state = prop_oneof![
        Just(SessionState::Active),
        time().prop_map(|since| SessionState::Probing { since }),
        time().prop_map(|since| SessionState::Aborting { since }),
        (time(), one_of(&CAUSES)).prop_map(|(at, cause)| SessionState::Closed { at, cause }),
    ];
    let payer = (text(), of(text()), text(), text(), small(), of(final_unit())).prop_map(
        |(subscriber, named, account, plan, plan_version, final_unit)| Payer {
            subscriber: SubscriberId::new(subscriber),
            named: named.map(SubscriberId::new),
            account: AccountId::new(account),
            plan: TariffPlanId::new(plan),
            plan_version,
            final_unit,
        },
    );
    let numbering = prop_oneof![
        Just(Numbering::Unknown),
        vec((small(), small()), 0..3).prop_map(Numbering::Sequenced),
        vec(number(), 0..3).prop_map(|forgotten| Numbering::Constant { forgotten }),
    ];
    let operation = one_of(&[Operation::Create, Operation::Update, Operation::Release]);
    let remembered = (operation, small(), number(), of(number()), answer()).prop_map(
        |(operation, number, mark, idempotency, answer)| Remembered { operation, number, mark, idempotency, answer },
    );
    let seen = (small(), signed(), small()).prop_map(|(group, number, hash)| SeenContainer {
        rating_group: RatingGroup(group),
        number,
        hash,
    });
    let containers = (any::<bool>(), any::<bool>(), vec(seen, 0..4))
        .prop_map(|(grows, unreliable, seen)| ContainerMemory { grows, unreliable, seen });
    let meter = (small(), amount(), number(), number()).prop_map(|(group, amount, per, used)| Meter {
        rating_group: RatingGroup(group),
        price: Price { amount, per },
        used,
    });
    let record =
        (small(), of(time()), small()).prop_map(|(part, opened_at, octets)| RecordSoFar { part, opened_at, octets });
    let who = (of(payer), consumer(), of(text()), number());
    let when = (time(), time(), small(), numbering);
    let memory = (vec(remembered, 0..4), containers, quotas(), vec(meter, 0..3), vec((text(), number()), 0..3));
    let rest = (amount(), of(time()), of((number(), number())), record);
    (state, one_of(&[Service::Converged, Service::OfflineOnly]), who, when, memory, rest).prop_map(
        |(state, service, who, when, memory, rest)| ChargingSession {
            reference: ChargingDataRef::new("reference"),
            state,
            service,
            payer: who.0,
            consumer: who.1,
            notify_uri: who.2,
            features: who.3,
            opened_at: when.0,
            updated_at: when.1,
            first_number: when.2,
            numbering: when.3,
            remembered: memory.0,
            containers: memory.1,
            quotas: memory.2,
            meters: memory.3,
            blocks: memory.4,
            charged: rest.0,
            timer_at: rest.1,
            pdu_session_key: rest.2,
            record: rest.3,
        },
    )
}

const CAUSES: [ClosingCause; 7] = [
    ClosingCause::Released,
    ClosingCause::Event,
    ClosingCause::Superseded,
    ClosingCause::Idle,
    ClosingCause::AbortUnanswered,
    ClosingCause::Aborted,
    ClosingCause::ConsumerGone,
];

/// What an entry says of a session with these quotas, of which it is the first to name all but `known`.
fn event(quotas: &[Quota], known: usize) -> impl Strategy<Value = Event> + use<> {
    let keys: Vec<QuotaKey> = quotas.iter().map(|quota| quota.key.clone()).collect();
    let news: Vec<QuotaKey> = keys.iter().skip(known).cloned().collect();
    let named = move || match keys.is_empty() {
        true => key().boxed(),
        false => prop_oneof![one_of(&keys), key()].boxed(),
    };
    let reported = (named(), vec(container(), 0..3), vec(0..9u16, 0..2), blocks()).prop_map(
        |(key, containers, repeated, others)| Reported { key, containers: containers.into(), repeated, others },
    );
    let invoked = (small(), instant(), triggers(), vec(reported, 0..3), blocks(), answer()).prop_map(
        move |(number, timestamp, triggers, usage, blocks, answer)| {
            let quotas = news.clone();
            Box::new(Invoked { number, timestamp, triggers, usage, blocks, answer, quotas })
        },
    );
    let invoked = invoked.boxed();
    let header = (of(text()), of(text()), of(text()), of(text()), consumer(), any::<bool>()).prop_map(
        |(subscriber, account, currency, plan, consumer, one_time)| Header {
            subscriber: subscriber.map(SubscriberId::new),
            account: account.map(AccountId::new),
            currency,
            plan: plan.map(TariffPlanId::new),
            consumer,
            service: if one_time { Service::OfflineOnly } else { Service::Converged },
            one_time,
        },
    );
    let told = prop_oneof![
        Just(Told::Probe),
        vec(small().prop_map(RatingGroup), 0..3).prop_map(Told::Reauthorize),
        one_of(&[AbortReason::Operator, AbortReason::SubscriberBlocked, AbortReason::SubscriberDeleted])
            .prop_map(Told::Abort),
    ];
    let published = (small(), small(), text()).prop_map(|(part, local_record_sequence_number, file)| {
        Event::Published(Published { part, local_record_sequence_number, file })
    });
    prop_oneof![
        (header, invoked.clone())
            .prop_map(|(header, invocation)| Event::Opened { header: Box::new(header), invocation }),
        invoked.clone().prop_map(Event::Updated),
        invoked.clone().prop_map(Event::Released),
        (invoked, any::<bool>()).prop_map(|(invocation, after_closing)| Event::Late { invocation, after_closing }),
        one_of(&CAUSES).prop_map(Event::Closed),
        (vec(named(), 0..3), of(told)).prop_map(|(expired, told)| Event::Maintained { expired, told }),
        published,
        text().prop_map(|reference| Event::Credited { reference }),
    ]
}

fn entry(quotas: &[Quota], known: usize) -> impl Strategy<Value = Entry> + use<> {
    use MoveKind::{Adjust, Credit, Debit, Expire, Release, Reserve};
    let what = (one_of(&[Credit, Debit, Expire, Release, Reserve, Adjust]), text(), one_of(&UNITS));
    let how = (of(small().prop_map(RatingGroup)), of(number()), of(small()));
    let one = (what, (amount(), amount(), amount()), how).prop_map(
        |((kind, balance, unit), (amount, before, after), (rating_group, units, plan_version))| Move {
            kind,
            balance: BalanceId::new(balance),
            unit,
            amount,
            before: kind.before(amount, after).filter(|_| units.is_some()).unwrap_or(before),
            after,
            rating_group,
            units,
            plan_version,
        },
    );
    let closing = (0..25u8, of(small()))
        .prop_filter_map("a cause", |(code, containers)| Some(Closing { cause: code.try_into().ok()?, containers }));
    (time(), number(), event(quotas, known), vec(one, 0..4), vec(closing, 0..3))
        .prop_map(|(at, account_version, event, moves, closings)| Entry { at, account_version, event, moves, closings })
}

/// A journal, and after each entry the quotas of the session.
fn journal() -> impl Strategy<Value = Vec<(Entry, Vec<Quota>)>> {
    quotas().prop_flat_map(|quotas| {
        let entries: Vec<_> = (0..=quotas.len())
            .map(|count| {
                let there = quotas[..count].to_vec();
                entry(&there, count.saturating_sub(1)).prop_map(move |entry| (entry, there.clone()))
            })
            .collect();
        entries
    })
}

// ---- What must hold ----

fn written(journal: &[(Entry, Vec<Quota>)]) -> Vec<Vec<u8>> {
    journal.iter().map(|(entry, quotas)| write_entry(entry, quotas, Vec::new())).collect()
}

/// Reads entries, whose quotas are those that the ones before have introduced.
fn read_all(entries: &[Vec<u8>]) -> Result<Vec<Entry>> {
    let mut quotas = Vec::new();
    entries.iter().map(|entry| read_entry(entry, &mut quotas)).collect()
}

proptest! {
    #[test]
    fn any_session_reads_as_it_was_written(session in session()) {
        let bytes = write_session(&session, Vec::new());
        prop_assert_eq!(read_session(&session.reference, &bytes), Ok(session));
    }

    #[test]
    fn any_journal_reads_as_it_was_written(journal in journal()) {
        // Not every kind of event introduces what is new.
        let introduces = |(entry, quotas): &(Entry, Vec<Quota>)| quotas.is_empty() || entry.event.invocation().is_some();
        let journal: Vec<_> = journal.into_iter().take_while(introduces).collect();
        let entries: Vec<Entry> = journal.iter().map(|(entry, _)| entry.clone()).collect();
        prop_assert_eq!(read_all(&written(&journal)), Ok(entries));
    }

    #[test]
    fn cut_or_changed_bytes_are_an_error_or_something_else_and_never_a_panic(
        session in session(), entry in entry(&[], 0), at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let reference = session.reference.clone();
        let bytes = write_session(&session, Vec::new());
        prop_assert!(read_session(&reference, &bytes[..at.index(bytes.len())]).is_err());
        let changed = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes
        };
        if let Ok(other) = read_session(&reference, &changed(bytes)) {
            prop_assert_eq!(read_session(&reference, &write_session(&other, Vec::new())), Ok(other));
        }
        if let Ok(other) = read_entry(&changed(write_entry(&entry, &[], Vec::new())), &mut Vec::new()) {
            prop_assert_eq!(read_entry(&write_entry(&other, &[], Vec::new()), &mut Vec::new()), Ok(other));
        }
    }
}

/// A session after ten updates, in the form in which each container has its place and each answer its number.
const FORM_BEFORE: &[&str] = &[
    "80d9ed97f866fb030000031301344f52e672904be8bf723f1c13ac3fea05c000020aff9aee0200000101011204010000562d",
    "411e8f8ad372ff9aee02010f000001808040901cac02b3e60c201000285fce3a6a1262b2ff9e4920020071cd57b2f939c036",
    "bfcf2420020041b702b62edb4e880003080a06f63d116d0a02f63d116d0a02f63d116d0a02f63d116d0a02f63d116d0a02f6",
    "3d116d0a02f63d116d0a02f63d116d010a02017e8d3a520f4b4a379d3c5b1f6f0f9a0107060080804001011100a09c0180ba",
    "b70380c00200000381e8c3c5b21d1264656d6f2d303030310864656d6f0132687474703a2f2f3132372e302e302e313a392f",
    "6e6f7469667901010aa09c0180804080c00202176fc425bf103b008c19156dffde1fd902dea09c01c0c850ffef6f48531762",
    "226c2c512736bb708a04d80e",
];

#[test]
fn a_session_in_the_form_before_reads_as_it_did_and_becomes_shorter() {
    let digits = FORM_BEFORE.concat();
    let octet = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    let (before, reference) = (digits.as_bytes().chunks(2).map(octet).collect::<Vec<_>>(), "reference");
    let reference = ChargingDataRef::new(reference);
    let session = read_session(&reference, &before).unwrap();
    let seen = |one: &SeenContainer| (one.rating_group.0, one.number, one.hash);
    let all: Vec<_> = session.containers.seen.iter().map(seen).collect();
    assert_eq!(all, (3..=10).map(|number| (10, number, 0xf63d_116d)).collect::<Vec<_>>());
    assert_eq!((session.containers.grows, session.containers.unreliable), (true, false));
    let answered: Vec<_> = session.remembered.iter().map(|done| (done.number, done.answer.number)).collect();
    assert_eq!(answered, [(0, 0), (8, 8), (9, 9), (10, 10)]);
    let now = write_session(&session, Vec::new());
    assert_eq!(read_session(&reference, &now).as_ref(), Ok(&session));
    assert_eq!((before.len(), now.len()), (312, 295));
}

/// Rating group and number of each, then how many octets they take besides their hashes.
#[test]
fn containers_that_follow_others_take_their_hashes_alone() {
    let rows: &[(&[(u32, i64)], usize)] = &[
        (&[], 1),
        (&[(10, 7)], 5),
        (&[(10, 3), (10, 4), (10, 5), (10, 6)], 5),
        (&[(10, 3), (40, 3), (10, 4), (40, 4), (10, 5)], 7),
        (&[(10, 1), (20, 2), (10, 3), (20, 4)], 11),
        (&[(10, 5), (10, 5)], 7),
        (&[(10, i64::MAX), (10, i64::MIN)], 14),
    ];
    for (places, octets) in rows {
        let one = |(rating_group, number): &(u32, i64)| SeenContainer {
            rating_group: RatingGroup(*rating_group),
            number: *number,
            hash: 7,
        };
        let memory = ContainerMemory { grows: true, unreliable: false, seen: places.iter().map(one).collect() };
        let mut to = Writer::starting(Vec::new(), Timestamp::from_millis(0), &[]);
        memory.write(&mut to);
        let bytes = to.finish();
        assert_eq!(bytes.len() - 1 - 4 * places.len(), *octets, "{places:?}");
        assert_eq!(ContainerMemory::read(&mut Reader::starting(&bytes).unwrap()), Ok(memory));
    }
}

#[test]
fn numbers_take_the_octets_that_they_need() {
    for (number, octets) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
        let mut to = Writer::starting(Vec::new(), Timestamp::from_millis(0), &[]);
        to.number(number);
        let bytes = to.finish();
        assert_eq!(bytes.len(), 1 + octets, "{number}");
        assert_eq!(Reader::starting(&bytes).unwrap().number(), Ok(number));
    }
    for too_large in [[&[0xFF; 9][..], &[2]].concat(), [0x80; 10].to_vec(), vec![0xFF; 11]] {
        let bytes = [&[0][..], &too_large].concat();
        assert!(Reader::starting(&bytes).unwrap().number().is_err(), "{too_large:?}");
    }
}

#[test]
fn what_documents_repeat_has_a_short_spelling() {
    for (text, octets) in [
        ("344f52e6-7290-4be8-bf72-3f1c13ac3fea", 17),
        ("344F52E6-7290-4BE8-BF72-3F1C13AC3FEA", 37),
        ("344f52e672904be8bf723f1c13ac3fea", 33),
        ("imsi-001010000000095", 7),
        ("imsi-00101000000009", 20),
        ("192.0.2.10", 5),
        ("192.0.2.010", 12),
        ("main", 1),
        ("QUOTA_THRESHOLD", 1),
        ("HANDOVER_CANCEL", 1),
        ("A_NEW_ONE", 10),
        ("", 1),
    ] {
        let mut to = Writer::starting(Vec::new(), Timestamp::from_millis(0), &[]);
        to.word(text);
        let bytes = to.finish();
        assert_eq!(bytes.len(), 1 + octets, "{text}");
        assert_eq!(Reader::starting(&bytes).unwrap().text().as_deref(), Ok(text));
    }
}

#[test]
fn a_field_that_this_program_does_not_know_is_refused_and_not_lost() {
    let mut to = Writer::starting(Vec::new(), Timestamp::from_millis(0), &[]);
    to.bits(&[false, false, false, false, false, true]);
    let bytes = to.finish();
    assert_eq!(Units::read(&mut Reader::starting(&bytes).unwrap()), Err(Unreadable::Newer));
}

#[test]
fn an_entry_speaks_of_quotas_that_entries_before_have_introduced() {
    let at = Timestamp::from_millis(1_780_000_000_000);
    let keys = [10, 20].map(|group| QuotaKey {
        rating_group: RatingGroup(group),
        upf: Some("344f52e6-7290-4be8-bf72-3f1c13ac3fea".into()),
        multihomed: None,
        mb_upf: None,
    });
    let quotas =
        keys.clone().map(|key| Quota { key, grant: None, used: 0, last_code: None, final_unit: false, expired: false });
    // Reports of the last quota that the session has, and is the first to name all but `known`.
    let event = |known: usize, has: usize| {
        let key = keys[has - 1].clone();
        let reported = Reported { key, containers: SharedList::default(), repeated: Vec::new(), others: Vec::new() };
        let invoked = Invoked {
            number: 1,
            timestamp: "".into(),
            triggers: Vec::new(),
            usage: vec![reported],
            blocks: Vec::new(),
            answer: Answer { outcome: Outcome::Updated, at, number: 1, features: None, results: SharedList::default() },
            quotas: keys[known..has].to_vec(),
        };
        Box::new(invoked)
    };
    let written = |event: Event, has: usize| {
        let entry = Entry { at, account_version: 1, event, moves: Vec::new(), closings: Vec::new() };
        write_entry(&entry, &quotas[..has], Vec::new())
    };
    let entry = |known: usize, has: usize| written(Event::Updated(event(known, has)), has);
    let (first, second, later) = (entry(0, 1), entry(1, 2), entry(2, 2));
    assert!(later.len() + 17 < first.len());
    let read = |entries: &[&Vec<u8>]| read_all(&entries.iter().map(|entry| (*entry).clone()).collect::<Vec<_>>());
    assert!(read(&[&first, &second, &later, &later]).is_ok());
    assert!(read(&[&first, &first, &second]).is_ok(), "an entry that is there twice");
    for lost in [&[&second][..], &[&later], &[&first, &later], &[&second, &first]] {
        assert!(read(lost).is_err(), "an entry that is not there");
    }
    // What comes after the closing may be the first entry that is there.
    for (known, has) in [(1, 1), (2, 2), (1, 2)] {
        let late = Event::Late { invocation: event(known, has), after_closing: true };
        let alone = read(&[&written(late.clone(), has)]).unwrap();
        assert_eq!(alone[0].event, late);
    }
    let other = QuotaKey { rating_group: RatingGroup(30), ..keys[0].clone() };
    assert!(read_entry(&second, &mut vec![other.clone(), other]).is_err(), "another quota in its place");
}
