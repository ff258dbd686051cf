//! What moved on an account, and why: read from the journals of the account and of its sessions, where every commit
//! left its entry. Nothing else is kept for it.

use crate::app::App;
use crate::charging::cdr::Cdr;
use crate::charging::ids::{ChargingDataRef, TariffPlanId};
use crate::charging::journal::{Entry, Event, Move};
use crate::charging::text::Text;
use crate::charging::time::Timestamp;
use crate::store::{self, AccountKey, JournalKey, List, record};

/// One change of one balance, with what caused it.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    pub position: Position,
    pub at: Timestamp,
    pub change: Move,
    /// The session, and the request's number in it; `None` for what operators did.
    pub session: Option<(ChargingDataRef, Option<u32>)>,
    /// The plan whose version stands in `change`.
    pub plan: Option<TariffPlanId>,
    /// The credit's own reference.
    pub reference: Option<Text>,
}

/// Orders all entries of one account: by commit, then inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub account_version: u64,
    pub index: u32,
}

/// Sessions whose journals are looked up at a time.
const PAGE: usize = 200;

impl App {
    /// The newest entries before `before`, at most `limit`, newest first; and whether there are more.
    ///
    /// Reads the journals of all the account's sessions: one round trip for each.
    pub async fn ledger(
        &self,
        account: AccountKey,
        before: Option<Position>,
        limit: usize,
    ) -> Result<(Vec<LedgerEntry>, bool), store::Error> {
        let mut entries = Vec::new();
        for entry in self.journal(&JournalKey::Account(account)).await? {
            add(&mut entries, None, None, &entry);
        }
        for list in [List::ClosedSessionsOf(account), List::OpenSessionsOf(account)] {
            let mut cursor: Option<Box<str>> = None;
            loop {
                let page = self.store.list(&list, cursor.as_deref(), PAGE).await?;
                for reference in page.items {
                    let reference = ChargingDataRef::new(reference);
                    let journal = self.journal(&JournalKey::Session(account, reference.clone())).await?;
                    let plan = journal.first().and_then(Entry::plan).cloned();
                    journal.iter().for_each(|entry| add(&mut entries, Some(&reference), plan.as_ref(), entry));
                }
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
        }
        number(&mut entries);
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.position));
        entries.retain(|entry| before.is_none_or(|before| entry.position < before));
        let more = entries.len() > limit;
        entries.truncate(limit);
        Ok((entries, more))
    }

    /// The closed records of a session, in order.
    pub async fn cdrs(&self, account: AccountKey, reference: &ChargingDataRef) -> Result<Vec<Cdr>, store::Error> {
        let journal = self.journal(&JournalKey::Session(account, reference.clone())).await?;
        Ok(Cdr::of_journal(reference, &journal))
    }

    /// All entries of a session's journal, in order.
    pub async fn session_journal(
        &self,
        account: AccountKey,
        reference: &ChargingDataRef,
    ) -> Result<Vec<Entry>, store::Error> {
        self.journal(&JournalKey::Session(account, reference.clone())).await
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<Entry>, store::Error> {
        record::decode_journal(&self.store.journal(key).await?).map_err(|error| match key {
            JournalKey::Session(_, session) => error.about(&format!("session {session}")),
            JournalKey::Account(account) => error.about(&format!("account {account}")),
        })
    }
}

fn add(entries: &mut Vec<LedgerEntry>, session: Option<&ChargingDataRef>, plan: Option<&TariffPlanId>, entry: &Entry) {
    let reference = match &entry.event {
        Event::Credited { reference } => Some(reference.clone()),
        Event::Opened { .. }
        | Event::Updated(_)
        | Event::Released(_)
        | Event::Late { .. }
        | Event::Closed(_)
        | Event::Maintained { .. }
        | Event::Published(_) => None,
    };
    let number = entry.event.invocation().map(|invocation| invocation.number);
    entries.extend(entry.moves.iter().map(|change| LedgerEntry {
        position: Position { account_version: entry.account_version, index: 0 },
        at: entry.at,
        change: change.clone(),
        session: session.map(|reference| (reference.clone(), number)),
        plan: plan.cloned(),
        reference: reference.clone(),
    }));
}

/// Numbers the moves of each commit. One commit can stand in two journals, when a session supersedes another: the old
/// one is closed first, and its entry bears no number of a request.
fn number(entries: &mut [LedgerEntry]) {
    entries.sort_by_key(|entry| {
        let opens = entry.session.as_ref().is_some_and(|(_, number)| number.is_some());
        (entry.position.account_version, opens)
    });
    let mut last = (0, 0);
    for entry in entries {
        let version = entry.position.account_version;
        last = if last.0 == version { (version, last.1 + 1) } else { (version, 0) };
        entry.position.index = last.1;
    }
}
