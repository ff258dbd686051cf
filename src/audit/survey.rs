//! Everything that a store names, before it is looked at account by account: sessions by their documents, by the
//! listings and by the timers, so that one that any of them has lost is found by another.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::report::{Report, Rule, Subject};
use crate::charging::decision::Outgoing;
use crate::charging::ids::ChargingDataRef;
use crate::store::{self, AccountKey, List, OutboxId, Page, Partition, Queue, RefCodec, Store, record};

/// What is asked of the store in one go.
const PAGE: usize = 1000;

pub struct Survey {
    /// The sessions that anything names, by account.
    pub accounts: BTreeMap<AccountKey, BTreeSet<ChargingDataRef>>,
    /// Closed records that are in no file yet, or in one that is not acknowledged.
    pub waiting: HashSet<(ChargingDataRef, u32)>,
}

impl Survey {
    /// Holds the name of each session in memory, and nothing else of it.
    pub async fn of(store: &dyn Store, refs: &RefCodec, report: &mut Report) -> Result<Self, store::Error> {
        let mut survey = Self { accounts: BTreeMap::new(), waiting: HashSet::new() };
        for key in all(async |cursor| store.accounts(cursor, PAGE).await).await? {
            match AccountKey::parse(&key) {
                Some(key) => drop(survey.accounts.entry(key).or_default()),
                None => report.unreadable(Subject::Account(key.into()), "the key of its document", "no account's key"),
            }
        }
        for reference in all(async |cursor| store.scan(cursor, PAGE).await).await? {
            survey.add(refs, reference, None, report);
        }
        for partition in Partition::all() {
            for (list, rule) in [
                (List::Timers(partition), Rule::Timer),
                (List::OpenSessions(partition), Rule::Listing),
                (List::ClosedSessions(partition), Rule::Listing),
            ] {
                for reference in all(async |cursor| store.list(&list, cursor, PAGE).await).await? {
                    survey.add(refs, reference, Some(rule), report);
                }
            }
            survey.waiting.extend(waiting(store, partition, report).await?);
        }
        Ok(survey)
    }

    fn add(&mut self, refs: &RefCodec, reference: Box<str>, named_by: Option<Rule>, report: &mut Report) {
        match refs.account_of(&reference) {
            Some(account) => {
                self.accounts.entry(account).or_default().insert(ChargingDataRef::new(reference));
            }
            None => {
                let rule = named_by.unwrap_or(Rule::Unreadable);
                let subject = Subject::Session(reference.into());
                report.violated(rule, subject, "its reference", "one of this store", "one that was not made here");
            }
        }
    }
}

/// The records that wait in a partition's outbox.
pub async fn waiting(
    store: &dyn Store,
    partition: Partition,
    report: &mut Report,
) -> Result<HashSet<(ChargingDataRef, u32)>, store::Error> {
    let mut found = HashSet::new();
    let mut after: Option<OutboxId> = None;
    loop {
        let entries = store.outbox(partition, Queue::Records, after.as_ref(), PAGE).await?;
        let Some((last, _)) = entries.last() else { return Ok(found) };
        after = Some(last.clone());
        for (id, bytes) in entries {
            match record::decode(&bytes) {
                Ok(Outgoing::Record { session, part, .. }) => drop(found.insert((session, part))),
                Ok(Outgoing::Notify(_) | Outgoing::Credited { .. }) => {}
                Err(error) => {
                    let what = format!("entry {} of the outbox of partition {}", id.0, partition.0);
                    report.unreadable(Subject::Store, &what, error);
                }
            }
        }
    }
}

/// The items of all pages, each once.
pub async fn all(
    page: impl AsyncFn(Option<&str>) -> Result<Page, store::Error>,
) -> Result<BTreeSet<Box<str>>, store::Error> {
    let mut items = BTreeSet::new();
    let mut cursor: Option<Box<str>> = None;
    loop {
        let page = page(cursor.as_deref()).await?;
        items.extend(page.items);
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(items),
        }
    }
}
