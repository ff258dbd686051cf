//! Keeps its own books of what consumers were told and compares them with what is left in the end. It knows prices and
//! sums, and no rule of the charging function.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

/// A charging session or an event, as its consumer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub u64);

/// One request, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation(pub usize);

/// Usage that is reported once, though perhaps in several requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    pub group: u32,
    pub number: u32,
    pub units: u64,
}

/// What a consumer got back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub body: Bytes,
}

/// Which of the two services a consumer calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Converged,
    /// What is reported is recorded; nothing is granted, held or charged.
    OfflineOnly,
}

struct Book {
    account: u64,
    service: Service,
    operations: Vec<Operation>,
}

struct Entry {
    key: Key,
    containers: Vec<Container>,
    /// What was asked for, by rating group.
    asked: BTreeMap<u32, u64>,
    answer: Option<Answer>,
}

#[derive(Default)]
struct Account {
    deposited: i64,
    /// What may have been used without having been granted, in millionths.
    beyond: i64,
}

#[derive(Default)]
pub struct Auditor {
    books: BTreeMap<Key, Book>,
    entries: Vec<Entry>,
    accounts: BTreeMap<u64, Account>,
    violations: Vec<String>,
    trace: u64,
    pub answers: u64,
    pub retransmissions: u64,
    /// Tells what happens.
    is_talkative: bool,
}

/// How a rating group is charged: an amount in millionths for each started block, over all of a session.
pub const PRICES: &[Price] = &[
    Price { group: 10, amount: 1_000, per: 1_000, unit: "octets" },
    Price { group: 20, amount: 7, per: 1, unit: "octets" },
    Price { group: 30, amount: 50_000, per: 1, unit: "events" },
    Price { group: 40, amount: 0, per: 1_000, unit: "octets" },
    Price { group: SECONDS, amount: 100, per: 60, unit: "seconds" },
    Price { group: MESSAGES, amount: 30_000, per: 1, unit: "events" },
    // The plan knows a price for it, and whoever reports it says that it is not to be charged.
    Price { group: RECORDED, amount: 9, per: 1, unit: "octets" },
];

/// The rating group of one-time events.
pub const EVENTS: u32 = 30;

/// The rating group of events that are reserved before they happen, and reported after.
pub const MESSAGES: u32 = 35;

/// The rating group that is metered in seconds.
pub const SECONDS: u32 = 50;

/// The rating group whose usage is reported as charged offline.
pub const RECORDED: u32 = 60;

pub struct Price {
    pub group: u32,
    pub amount: i64,
    pub per: u64,
    pub unit: &'static str,
}

impl Price {
    fn of(&self, units: u64) -> i64 {
        i64::try_from(units.div_ceil(self.per)).expect("a small number") * self.amount
    }
}

/// What usage costs that is to be charged.
pub fn price(group: u32, units: u64) -> i64 {
    if group == RECORDED {
        return 0;
    }
    PRICES.iter().find(|price| price.group == group).map_or(0, |price| price.of(units))
}

/// What there is in the end.
#[derive(Default)]
pub struct Found {
    /// Lines of record files.
    pub records: Vec<Value>,
    /// Amount and reservation of each account, in millionths.
    pub accounts: BTreeMap<u64, (i64, i64)>,
}

impl Auditor {
    pub fn new(is_talkative: bool) -> Self {
        Self { is_talkative, ..Self::default() }
    }

    pub fn open_account(&mut self, account: u64) {
        self.accounts.entry(account).or_default();
    }

    /// A credit that was confirmed.
    pub fn deposited(&mut self, account: u64, amount: i64) {
        self.accounts.entry(account).or_default().deposited += amount;
    }

    pub fn begin(&mut self, account: u64, service: Service) -> Key {
        let key = Key(self.books.len() as u64);
        self.books.insert(key, Book { account, service, operations: Vec::new() });
        key
    }

    /// `beyond` are containers of the request that no grant is known to cover.
    pub fn submit(
        &mut self,
        key: Key,
        containers: &[Container],
        asked: BTreeMap<u32, u64>,
        beyond: &[Container],
    ) -> Operation {
        let operation = Operation(self.entries.len());
        if self.is_talkative {
            println!("{operation:?} of {key:?}: reports {containers:?}, asks for {asked:?}");
        }
        self.entries.push(Entry { key, containers: containers.to_vec(), asked, answer: None });
        let book = self.books.get_mut(&key).expect("a session that was begun");
        book.operations.push(operation);
        if book.service == Service::OfflineOnly {
            return operation;
        }
        let account = self.accounts.entry(book.account).or_default();
        // One more block each, where usage begins within one.
        account.beyond += beyond.iter().map(|one| price(one.group, one.units) + price(one.group, 1)).sum::<i64>();
        operation
    }

    /// Everything that comes back, whether or not the consumer still waits for it. Whether it settles the operation.
    pub fn answered(&mut self, operation: Operation, answer: &Answer, at_millis: u64) -> bool {
        self.answers += 1;
        if self.is_talkative {
            let body = String::from_utf8_lossy(&answer.body);
            println!("{at_millis} ms: {operation:?} is answered {} {body}", answer.status);
        }
        self.note(at_millis);
        self.note(operation.0 as u64);
        self.note(u64::from(answer.status));
        answer.body.iter().for_each(|octet| self.note(u64::from(*octet)));
        match answer.status {
            200 | 201 | 204 | 410 => {
                self.check_grants(operation, answer);
                match self.entries[operation.0].answer.clone() {
                    None => self.entries[operation.0].answer = Some(answer.clone()),
                    Some(first) if first == *answer || first.status == 400 => {}
                    Some(first) => self.violated(format!("{operation:?} was answered {first:?} and then {answer:?}")),
                }
                true
            }
            // Its answer was forgotten, so it was given.
            400 if is_forgotten(&answer.body) && self.others_of_session(operation) >= REMEMBERED => {
                self.entries[operation.0].answer.get_or_insert_with(|| answer.clone());
                true
            }
            429 | 503 | 504 => false,
            _ => {
                self.violated(format!("{operation:?} was answered {answer:?}"));
                true
            }
        }
    }

    pub fn is_settled(&self, operation: Operation) -> bool {
        self.entries[operation.0].answer.is_some()
    }

    /// Besides its Create; in which order they were done is for the network to say.
    fn others_of_session(&self, operation: Operation) -> usize {
        self.books[&self.entries[operation.0].key].operations.len().saturating_sub(2)
    }

    fn check_grants(&mut self, operation: Operation, answer: &Answer) {
        let service = self.books[&self.entries[operation.0].key].service;
        if service == Service::OfflineOnly && String::from_utf8_lossy(&answer.body).contains("multipleUnitInformation")
        {
            self.violated(format!("{operation:?} was told of quotas, though it is only recorded: {answer:?}"));
        }
        let granted = grants(answer);
        let asked = &self.entries[operation.0].asked;
        let too_much: Vec<_> =
            granted.into_iter().filter(|(group, units)| asked.get(group).is_none_or(|asked| asked < units)).collect();
        if !too_much.is_empty() {
            self.violated(format!("{operation:?} was granted more than it asked for: {too_much:?}"));
        }
    }

    pub fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// A hash of everything that was seen so far, in its order.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    pub fn note(&mut self, number: u64) {
        self.trace = (self.trace ^ number).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    }

    /// Compares the books with what was found when all was over.
    pub fn close(&mut self, found: &Found) {
        self.check_numbers(found);
        if self.is_talkative {
            found.records.iter().for_each(|record| println!("{record}"));
        }
        let mut by_key = BTreeMap::<Key, Vec<&Value>>::new();
        for record in &found.records {
            match record["serviceSpecificationInfo"].as_str().and_then(|key| key.parse().ok()) {
                Some(key) if self.books.contains_key(&Key(key)) => by_key.entry(Key(key)).or_default().push(record),
                _ => self.violated(format!("a record of nobody's session: {record}")),
            }
        }
        let mut charged = BTreeMap::<u64, i64>::new();
        let keys: Vec<Key> = self.books.keys().copied().collect();
        for key in keys {
            let records = by_key.remove(&key).unwrap_or_default();
            let amount = self.check_session(key, &records);
            *charged.entry(self.books[&key].account).or_default() += amount;
        }
        let accounts: Vec<u64> = self.accounts.keys().copied().collect();
        for account in accounts {
            let Account { deposited, beyond, .. } = self.accounts[&account];
            let charged = charged.get(&account).copied().unwrap_or_default();
            match found.accounts.get(&account) {
                None => self.violated(format!("account {account} is gone")),
                Some((amount, reserved)) => {
                    if *reserved != 0 {
                        self.violated(format!("account {account} still has {reserved} reserved"));
                    }
                    if deposited - charged != *amount {
                        self.violated(format!(
                            "account {account} has {amount}: {deposited} deposited, {charged} charged by records"
                        ));
                    }
                    if *amount < -beyond {
                        self.violated(format!(
                            "account {account} has {amount}, though only {beyond} was used ungranted"
                        ));
                    }
                }
            }
        }
    }

    /// Records are numbered from 0 without a gap, and none comes twice.
    fn check_numbers(&mut self, found: &Found) {
        let mut numbers: Vec<_> =
            found.records.iter().map(|record| record["localRecordSequenceNumber"].as_u64()).collect();
        numbers.sort_unstable();
        let expected: Vec<_> = (0..numbers.len() as u64).map(Some).collect();
        if numbers != expected {
            self.violated(format!("records are numbered {numbers:?}"));
        }
    }

    /// What the records of one session charge, in millionths.
    fn check_session(&mut self, key: Key, records: &[&Value]) -> i64 {
        let refs: BTreeSet<_> = records.iter().map(|record| record["ref"].to_string()).collect();
        if refs.len() > 1 {
            self.violated(format!("{key:?} was opened as {refs:?}"));
        }
        let mut recorded = BTreeMap::<Container, u32>::new();
        let mut totals = BTreeMap::<u32, u64>::new();
        for container in records.iter().flat_map(|record| containers(record)) {
            *recorded.entry(container).or_default() += 1;
            *totals.entry(container.group).or_default() += container.units;
        }
        let operations = self.books[&key].operations.clone();
        if let Some(twice) =
            recorded.iter().find(|(one, times)| **times > 1 && !self.may_be_forgotten(&operations, **one))
        {
            self.violated(format!("{key:?}: {twice:?} times recorded"));
        }
        let mut known = BTreeSet::new();
        for operation in &operations {
            let Entry { containers, answer, .. } = &self.entries[operation.0];
            known.extend(containers.iter().copied());
            let there = containers.iter().filter(|container| recorded.contains_key(container)).count();
            let is_whole = there == containers.len();
            if answer.is_some() && !is_whole {
                let what =
                    format!("{key:?}: {operation:?} was acknowledged, and of {containers:?} {there} are recorded");
                self.violated(what);
            }
        }
        if answered_without_record(&operations, &self.entries) && records.is_empty() {
            self.violated(format!("{key:?} has no record"));
        }
        if let Some(foreign) = recorded.keys().find(|container| !known.contains(container)) {
            self.violated(format!("{key:?}: {foreign:?} was never reported"));
        }
        let charged: i64 = records.iter().map(|record| millionths(&record["charged"])).sum();
        let is_charged = self.books[&key].service == Service::Converged;
        let expected: i64 = totals.iter().filter(|_| is_charged).map(|(group, units)| price(*group, *units)).sum();
        let expected = expected..=expected + self.events(key);
        let is_exact = operations.iter().all(|operation| self.is_settled(*operation));
        if !expected.contains(&charged) || (is_exact && charged != *expected.end()) {
            self.violated(format!("{key:?} is charged {charged} and not {expected:?} for {totals:?}"));
        }
        charged
    }

    /// A container that was put into several requests is recognised among so many that came after it.
    fn may_be_forgotten(&self, operations: &[Operation], container: Container) -> bool {
        let of_session = || operations.iter().map(|operation| &self.entries[operation.0].containers);
        let is_merged = of_session().filter(|containers| containers.contains(&container)).count() > 1;
        let newest = of_session().flatten().map(|one| one.number).max().unwrap_or_default();
        is_merged && newest >= container.number + CONTAINERS_KEPT
    }

    /// What events before the fact cost: what was granted, or at most what was asked for where no answer came.
    fn events(&self, key: Key) -> i64 {
        let of_session = self.books[&key].operations.iter().map(|operation| &self.entries[operation.0]);
        let units = of_session.filter_map(|entry| {
            let asked = *entry.asked.get(&EVENTS)?;
            Some(entry.answer.as_ref().map_or(asked, |answer| grants(answer).get(&EVENTS).copied().unwrap_or_default()))
        });
        price(EVENTS, units.sum())
    }
}

/// Answers that a session remembers beside the one to its Create.
const REMEMBERED: usize = 3;

/// Containers that a session remembers.
const CONTAINERS_KEPT: u32 = 8;

fn is_forgotten(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("was charged long ago")
}

fn answered_without_record(operations: &[Operation], entries: &[Entry]) -> bool {
    let is_done = |operation: &&Operation| {
        let entry = &entries[operation.0];
        entry.answer.is_some() && !is_refused_event(entry)
    };
    operations.iter().any(|operation| is_done(&operation))
}

/// An event before the fact that got nothing happened nowhere.
fn is_refused_event(entry: &Entry) -> bool {
    let answer = entry.answer.as_ref();
    answer.is_some_and(|answer| answer.status == 201 && entry.asked.contains_key(&EVENTS) && grants(answer).is_empty())
}

/// Units granted by rating group.
pub fn grants(answer: &Answer) -> BTreeMap<u32, u64> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let groups = body["multipleUnitInformation"].as_array().cloned().unwrap_or_default();
    let granted = groups.iter().filter_map(|group| {
        let units = &group["grantedUnit"];
        let granted = amount(units)?;
        Some((group["ratingGroup"].as_u64()? as u32, granted))
    });
    granted.collect()
}

fn containers(record: &Value) -> Vec<Container> {
    let mut found = Vec::new();
    for usage in record["listOfMultipleUnitUsage"].as_array().into_iter().flatten() {
        let group = usage["ratingGroup"].as_u64().unwrap_or_default() as u32;
        for container in usage["usedUnitContainers"].as_array().into_iter().flatten() {
            let units = amount(container);
            let number = container["localSequenceNumber"].as_u64().unwrap_or_default() as u32;
            found.push(Container { group, number, units: units.unwrap_or_default() });
        }
    }
    found
}

/// In which member units of a rating group are said.
pub fn unit(group: u32) -> &'static str {
    match group {
        EVENTS | MESSAGES => "serviceSpecificUnits",
        SECONDS => "time",
        _ => "totalVolume",
    }
}

fn amount(units: &Value) -> Option<u64> {
    ["totalVolume", "serviceSpecificUnits", "time"].into_iter().find_map(|name| units[name].as_u64())
}

/// A decimal string with six places.
pub fn millionths(amount: &Value) -> i64 {
    let text = amount.as_str().unwrap_or_default();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction:0<6}");
    digits.parse().unwrap_or_else(|_| panic!("{amount} is no amount"))
}
