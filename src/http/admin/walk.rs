//! Pages over sessions, of one account or of all partitions: each session gives any number of items, and a page ends
//! wherever it is full.

use super::Answer;
use super::page::{Page, PageQuery, invalid_cursor};
use crate::app::App;
use crate::charging::ids::ChargingDataRef;
use crate::store::{AccountKey, List, Partition};

/// Whose sessions.
#[derive(Clone, Copy)]
pub enum Whose {
    Everybody,
    Account(AccountKey),
}

/// Which sessions.
#[derive(Clone, Copy)]
pub enum Which {
    Open,
    Closed,
}

/// Sessions looked at in one go. A cursor counts items from the start of such a batch, so it is part of every cursor
/// handed out.
const BATCH: usize = 50;

/// Where a page starts: the list, the position of a batch in it, items of that batch to leave out.
struct Start {
    list: u16,
    batch: Option<String>,
    skipped: usize,
}

impl Start {
    fn of(query: &PageQuery) -> Answer<Self> {
        let Some([list, skipped, batch]) = query.parts()? else {
            return Ok(Self { list: 0, batch: None, skipped: 0 });
        };
        Ok(Self {
            list: list.parse().map_err(|_| invalid_cursor())?,
            skipped: skipped.parse().map_err(|_| invalid_cursor())?,
            batch: Some(batch).filter(|batch| !batch.is_empty()),
        })
    }

    fn cursor(&self) -> String {
        format!("{}.{}.{}", self.list, self.skipped, self.batch.as_deref().unwrap_or_default())
    }
}

/// One page; `read` makes items of a batch of sessions.
pub async fn page<T, F>(
    app: &App,
    whose: Whose,
    which: Which,
    query: &PageQuery,
    read: impl Fn(Vec<ChargingDataRef>) -> F,
) -> Answer<Page<T>>
where
    F: Future<Output = Answer<Vec<T>>>,
{
    let limit = query.limit()?;
    let mut start = Start::of(query)?;
    let mut items = Vec::new();
    while let Some(list) = list(whose, which, start.list) {
        loop {
            let found = app.store.list(&list, start.batch.as_deref(), BATCH).await?;
            let references = found.items.into_iter().map(ChargingDataRef::new).collect();
            for item in read(references).await?.into_iter().skip(start.skipped) {
                if items.len() == limit {
                    return Ok(Page { items, next_cursor: Some(start.cursor()) });
                }
                items.push(item);
                start.skipped += 1;
            }
            start.skipped = 0;
            start.batch = found.next.map(Into::into);
            if start.batch.is_none() {
                break;
            }
        }
        start.list += 1;
    }
    Ok(Page { items, next_cursor: None })
}

fn list(whose: Whose, which: Which, at: u16) -> Option<List> {
    match (whose, which) {
        (Whose::Everybody, Which::Open) => Partition::all().nth(usize::from(at)).map(List::OpenSessions),
        (Whose::Everybody, Which::Closed) => Partition::all().nth(usize::from(at)).map(List::ClosedSessions),
        (Whose::Account(account), Which::Open) => (at == 0).then_some(List::OpenSessionsOf(account)),
        (Whose::Account(account), Which::Closed) => (at == 0).then_some(List::ClosedSessionsOf(account)),
    }
}

/// The account that a filter names, by subscriber or by account. `Err(None)` when it names nobody: the list is empty.
pub async fn whose(
    app: &App,
    supi: Option<&str>,
    account_id: Option<&str>,
) -> Answer<Option<(Whose, Option<crate::charging::command::Subscriber>)>> {
    use crate::charging::ids::AccountId;

    let key = |id: &AccountId| app.shared.refs.account_key(id);
    let subscriber = match supi {
        Some(supi) => match app.subscriber(supi).await? {
            Some(subscriber) => Some(subscriber),
            None => return Ok(None),
        },
        None => None,
    };
    let of_subscriber = subscriber.as_ref().map(|subscriber| key(&subscriber.account));
    let of_account = account_id.map(|id| key(&AccountId::new(id)));
    let whose = match (of_subscriber, of_account) {
        (Some(one), Some(other)) if one != other => return Ok(None),
        (Some(account), _) | (None, Some(account)) => Whose::Account(account),
        (None, None) => Whose::Everybody,
    };
    Ok(Some((whose, subscriber)))
}
