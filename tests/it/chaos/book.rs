//! What the consumers were told, added up by themselves; and whether the ledger, the balances and the record files say
//! the same. Nothing here knows a rule of the charging core but the price.

use std::collections::BTreeMap;

use serde_json::Value;

use super::consumers::Reply;
use super::payers::Payers;
use crate::processes::network_function::{MIB, Way, micros};

/// Prices in millionths: of a started MiB of a session, and of an event.
const MIB_COSTS: u64 = 10_000;
const EVENT_COSTS: u64 = 50_000;

/// A message and its answer.
#[derive(Clone)]
pub struct Sent {
    pub path: String,
    pub body: Value,
    pub reply: Reply,
}

/// A session that was released, or an event.
pub struct Booked {
    account: String,
    /// Octets that were reported and acknowledged, by local sequence number.
    used: BTreeMap<u64, u64>,
    pub events: u64,
    pub sent: Vec<Sent>,
}

impl Booked {
    pub fn new(account: String) -> Self {
        Self { account, used: BTreeMap::new(), events: 0, sent: Vec::new() }
    }

    pub fn used(&mut self, number: u32, octets: u64) {
        if octets > 0 {
            self.used.insert(u64::from(number), octets);
        }
    }

    /// Messages that nobody needs to recognise any more.
    pub fn forget_all_but(&mut self, count: u64) {
        if self.sent.len() as u64 > count {
            self.sent.clear();
        }
    }

    fn costs(&self) -> u64 {
        self.used.values().sum::<u64>().div_ceil(MIB) * MIB_COSTS + self.events * EVENT_COSTS
    }

    /// A refused event leaves none.
    fn has_record(&self) -> bool {
        self.events > 0 || self.sent.first().is_none_or(|sent| sent.body["oneTimeEvent"].is_null())
    }
}

#[derive(Default)]
pub struct Book {
    booked: BTreeMap<String, Booked>,
    /// In the order of their end.
    order: Vec<String>,
}

/// What is not as it was booked.
#[derive(Default)]
pub struct Differences {
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
}

impl Differences {
    /// Of something that should be so much.
    fn compare(&mut self, what: &str, expected: u64, found: u64) {
        let sentence = || format!("{what}: expected {expected}, found {found}");
        if found < expected {
            self.lost.push(sentence());
        } else if found > expected {
            self.doubled.push(sentence());
        }
    }
}

impl Book {
    pub fn add(&mut self, reference: String, booked: Booked) {
        self.order.push(reference.clone());
        self.booked.insert(reference, booked);
    }

    pub fn records(&self) -> usize {
        self.booked.values().filter(|booked| booked.has_record()).count()
    }

    /// The messages that were sent last.
    pub fn latest(&self, count: usize) -> impl Iterator<Item = &Sent> {
        self.order.iter().rev().flat_map(|reference| &self.booked[reference].sent).take(count)
    }

    /// Ledger and balances against the book.
    pub async fn compare_accounts(&self, way: &Way, payers: Payers) -> Differences {
        let mut differences = Differences::default();
        for (account, given) in payers.accounts() {
            let mut debited = BTreeMap::<String, u64>::new();
            for debit in way.debits(&account).await {
                *debited.entry(debit["ref"].as_str().unwrap_or_default().to_owned()).or_default() +=
                    micros(&debit["amount"]);
            }
            let mut spent = 0;
            for (reference, booked) in self.booked.iter().filter(|(_, booked)| booked.account == account) {
                let found = debited.remove(reference).unwrap_or_default();
                differences.compare(&format!("{account}: debits of {reference}"), booked.costs(), found);
                spent += booked.costs();
            }
            for (reference, found) in debited {
                differences.compare(&format!("{account}: debits of {reference}, which nobody opened"), 0, found);
            }
            let found = way.get(&format!("accounts/{account}")).await["balances"][0].clone();
            // What is missing was taken twice.
            differences.compare(&format!("{account}: spent"), spent, given - micros(&found["amount"]));
            differences.compare(&format!("{account}: reserved when nothing is open"), 0, micros(&found["reserved"]));
        }
        differences
    }

    /// Records against the book: each session once, with each container once.
    pub fn compare_records(&self, records: &[Value]) -> Differences {
        let mut differences = Differences::default();
        let mut by_session = BTreeMap::<&str, Vec<&Value>>::new();
        for record in records {
            by_session.entry(record["ref"].as_str().unwrap()).or_default().push(record);
        }
        for (reference, booked) in self.booked.iter().filter(|(_, booked)| booked.has_record()) {
            let of_session = by_session.remove(reference.as_str()).unwrap_or_default();
            differences.compare(&format!("records of {reference}"), 1, of_session.len() as u64);
            let charged = of_session.iter().map(|record| micros(&record["charged"])).sum();
            differences.compare(&format!("{reference}: charged in records"), booked.costs(), charged);
            let mut found = BTreeMap::<u64, Vec<u64>>::new();
            for container in of_session.iter().flat_map(|record| containers(record)) {
                let number = container["localSequenceNumber"].as_u64().unwrap_or_default();
                found.entry(number).or_default().push(container["totalVolume"].as_u64().unwrap_or_default());
            }
            if booked.events > 0 {
                continue;
            }
            for (number, octets) in &booked.used {
                let found = found.remove(number).unwrap_or_default();
                differences.compare(&format!("{reference}: container {number} in records"), 1, found.len() as u64);
                differences.compare(&format!("{reference}: octets of container {number}"), *octets, found.iter().sum());
            }
            let unknown = found.into_values().flatten().filter(|octets| *octets > 0).count() as u64;
            differences.compare(&format!("{reference}: containers that nobody sent"), 0, unknown);
        }
        for (reference, of_session) in by_session {
            differences.compare(&format!("records of {reference}, which nobody opened"), 0, of_session.len() as u64);
        }
        differences
    }
}

fn containers(record: &Value) -> impl Iterator<Item = &Value> {
    let usage = record["listOfMultipleUnitUsage"].as_array().into_iter().flatten();
    usage.flat_map(|usage| usage["usedUnitContainers"].as_array().into_iter().flatten())
}
