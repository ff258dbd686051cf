//! The imperative shell around the core: load → decide → commit → again on conflict.
//!
//! Two round trips for an Update or a Release; a Create reads its subscriber first. An operation whose outcome is
//! unknown is simply decided again over what is there now: every decision recognises its own effect.

use std::time::Duration;

use tokio::time::timeout;

use crate::app::{App, RequestLimits, Shared};
use crate::charging::account::Account;
use crate::charging::command::{Create, Credit, Invocation, OneTime, Subscriber};
use crate::charging::decide::{Command, Context, decide};
use crate::charging::decision::{Changes, Decision, IndexChange, Listed, Outgoing, Rejection, SessionChange, Timer};
use crate::charging::ids::{AccountId, ChargingDataRef, RatingGroup, TariffPlanId};
use crate::charging::journal::AbortReason;
use crate::charging::maintain::{Maintenance, maintain};
use crate::charging::money::Amount;
use crate::charging::operator::{self, Refusal};
use crate::charging::session::{ChargingSession, Operation, Service};
use crate::charging::tariff::Catalog;
use crate::charging::text::Text;
use crate::charging::time::Timestamp;
use crate::request::Continuation;
pub use crate::request::{Done, Failure, Fate};
use crate::store::partition::KeyedHash;
use crate::store::{
    self, AccountKey, Applied, Commit, Document, IndexKey, IndexWrite, List, Listing, Load, Origin, Partition, Queue,
    Reading, SessionWrite, Snapshot, TimerWrite, Version, record,
};

mod together;

use together::load_of;

/// A request to open a session or to charge an event.
pub struct Opening {
    pub invocation: Box<Invocation>,
    pub service: Service,
    pub one_time: Option<OneTime>,
    /// Identifiers under which the payer may be provisioned.
    pub identities: Vec<Text>,
    pub pdu_session: Option<u32>,
}

/// What a consumer asks for, to be decided as often as it takes.
enum Asked<'a> {
    Create { opening: &'a Opening, payer: Option<&'a Subscriber>, pdu_session: Option<IndexKey> },
    Continue { operation: Operation, service: Service, invocation: &'a Invocation },
}

impl Asked<'_> {
    fn index(&self) -> Vec<IndexKey> {
        match self {
            Self::Create { pdu_session, .. } => pdu_session.iter().copied().collect(),
            Self::Continue { .. } => Vec::new(),
        }
    }
}

impl<'a> From<&'a Continuation> for Asked<'a> {
    fn from(asked: &'a Continuation) -> Self {
        Self::Continue { operation: asked.operation, service: asked.service, invocation: &asked.invocation }
    }
}

/// Sessions of a list looked at in one go.
const PAGE: usize = 200;

/// Attempts of one operation. With the account's turn held, only other instances can conflict.
const ATTEMPTS: u32 = 16;

impl App {
    /// Opens a session or charges an event. Three round trips, four when it meets an earlier session.
    pub async fn create(&self, opening: &Opening) -> Result<Done, Failure> {
        let payer = self.payer(opening).await?;
        let account = match &payer {
            Some(subscriber) => self.shared.refs.account_key(&subscriber.account),
            None => AccountKey(opening.hash(self, "nobody").finish64()),
        };
        let reference = self.shared.refs.mint(account, opening.identity(self));
        let pdu_session = payer.as_ref().and_then(|payer| opening.pdu_session_key(self, payer));
        if let Some(payer) = &payer {
            self.know_plan(&payer.plan).await?;
        }
        let asked = Asked::Create { opening, payer: payer.as_ref(), pdu_session };
        let load = Load { account, session: Some(reference), index: asked.index() };
        let mut fate = Fate::begun(self.shared.clock.now());
        let RequestLimits { deadline_ms, waiting_per_account_max } = self.shared.limits;
        // Whoever has this account's turn may be waiting for the store.
        let turn = self.shared.turns.of(account).taken_unless_crowded(waiting_per_account_max);
        let turn = timeout(Duration::from_millis(u64::from(deadline_ms)), turn).await.ok().flatten();
        let _turn = turn.ok_or(Failure::Crowded)?;
        if self.spent_ms(&fate) > i64::from(deadline_ms) {
            // Whoever asked has given up: to do it now would only make those behind it late too.
            return Err(Failure::Crowded);
        }
        let done = self.attempt_to_commit(&load, asked, &mut fate).await;
        fate.tell(done)
    }

    /// Charges an Update or a Release of a session. Two round trips, which those share that wait for the same account.
    pub async fn continue_session(
        &self,
        operation: Operation,
        service: Service,
        reference: &str,
        invocation: Box<Invocation>,
    ) -> Result<Done, Failure> {
        let account = self.shared.refs.account_of(reference).ok_or(Rejection::UnknownSession)?;
        let reference = ChargingDataRef::new(reference);
        let asked = Continuation { operation, service, account, reference, invocation };
        let mut fate = Fate::begun(self.shared.clock.now());
        match self.shared.turns.of(account).taken_at_once() {
            Some(_turn) => {
                let done = self.continue_alone(&asked, &mut fate).await;
                fate.tell(done)
            }
            // Rare, and much larger than what goes on in the other case.
            None => Box::pin(self.continue_in_line(asked, fate)).await,
        }
    }

    /// The caller has the account's turn.
    async fn continue_alone(&self, asked: &Continuation, fate: &mut Fate) -> Result<Done, Failure> {
        self.attempt_to_commit(&load_of(asked), Asked::from(asked), fate).await
    }

    /// Reads, decides and commits until the commit holds, nothing is left to commit, or it is too late.
    async fn attempt_to_commit(&self, load: &Load, asked: Asked<'_>, fate: &mut Fate) -> Result<Done, Failure> {
        let mut snapshot = self.store.load(load).await?;
        for _ in 0..ATTEMPTS {
            let account = account_of(load.account, &snapshot)?;
            let version = Version::of(snapshot.account.as_ref());
            let command = self.command(&asked, load, &snapshot).await;
            let catalog = self.shared.catalog();
            let context = self.context(&catalog, version.next());
            let decided = command.and_then(|(command, second_version)| {
                let decision = decide(&context, account, command)?;
                Ok((decision, second_version))
            });
            let (decision, second_version) = match decided {
                // What was read may be of a master that was replaced, and then it does not say what was done since.
                Err(Failure::Rejected(rejection)) => {
                    match self.settled(self.store.confirm(&reading(&snapshot, load)).await, load, fate).await? {
                        None => return Err(rejection.into()),
                        Some(current) => snapshot = current,
                    }
                    continue;
                }
                decided => decided?,
            };
            if let Some(session) = decision.replayed {
                // The answer stands in what was read: it is given again only when that is as safe as the first time.
                match self.confirm(&snapshot, load, fate).await? {
                    None => return Ok(Done { answer: decision.answer, session, replayed: true }),
                    Some(current) => snapshot = current,
                }
                continue;
            }
            let versions = [Version::of(snapshot.session.as_ref()), second_version];
            let commit = self.commit_of(load.account, &snapshot, versions, &decision.changes, context.now);
            drop(snapshot);
            let done = done(decision);
            match self.commit(&commit, load, fate).await? {
                None => return Ok(done),
                Some(current) => snapshot = current,
            }
        }
        Err(Failure::Contended)
    }

    /// Does to a session what follows from a cause other than a message. Answers whether anything did. Two round trips.
    pub async fn maintain(&self, reference: &ChargingDataRef, cause: &Maintenance) -> Result<bool, Failure> {
        let Some(account) = self.shared.refs.account_of(reference.as_str()) else { return Ok(false) };
        let load = Load { account, session: Some(reference.clone()), index: Vec::new() };
        let mut fate = Fate::begun(self.shared.clock.now());
        let _turn = self.shared.turns.of(account).taken().await;
        let done = self.attempt_to_maintain(&load, cause, &mut fate).await;
        fate.tell(done)
    }

    async fn attempt_to_maintain(&self, load: &Load, cause: &Maintenance, fate: &mut Fate) -> Result<bool, Failure> {
        let mut snapshot = self.store.load(load).await?;
        for _ in 0..ATTEMPTS {
            let Some(session) = session_of(&snapshot, load)? else { return Ok(false) };
            let account = account_of(load.account, &snapshot)?;
            let version = Version::of(snapshot.account.as_ref());
            let catalog = self.shared.catalog();
            let context = self.context(&catalog, version.next());
            let Some(changes) = maintain(&context, account, session, cause.clone()) else {
                match self.confirm(&snapshot, load, fate).await? {
                    None => return Ok(false),
                    Some(current) => snapshot = current,
                }
                continue;
            };
            let versions = [Version::of(snapshot.session.as_ref()), Version::ABSENT];
            let commit = self.commit_of(load.account, &snapshot, versions, &changes, context.now);
            match self.commit(&commit, load, fate).await? {
                None => return Ok(true),
                Some(current) => snapshot = current,
            }
        }
        Err(Failure::Contended)
    }

    /// What a decision may know now. `account` is the version that the account has after it.
    fn context<'a>(&'a self, catalog: &'a Catalog, account: Version) -> Context<'a> {
        let Shared { clock, rules, .. } = &*self.shared;
        Context { now: clock.now(), catalog, rules, account_version: account.0 }
    }

    /// Commits. Answers what is there instead, when it did not hold or nobody knows: decided again over that, it either
    /// turns out to be done or is done for the first time.
    async fn commit(&self, commit: &Commit, load: &Load, fate: &mut Fate) -> Result<Option<Snapshot>, Failure> {
        self.settled(self.store.commit(commit).await, load, fate).await
    }

    /// As [`App::commit`], for an answer that is given from what was read: something was done, whatever fails now.
    async fn confirm(&self, read: &Snapshot, load: &Load, fate: &mut Fate) -> Result<Option<Snapshot>, Failure> {
        fate.is_unknown = true;
        self.settled(self.store.confirm(&reading(read, load)).await, load, fate).await
    }

    async fn settled(
        &self,
        outcome: Result<(), store::Error>,
        load: &Load,
        fate: &mut Fate,
    ) -> Result<Option<Snapshot>, Failure> {
        match outcome {
            Ok(()) => Ok(None),
            Err(store::Error::Conflict(current)) => {
                self.shared.metrics.conflicts.inc();
                Ok(Some(match current {
                    Some(current) if load.index.is_empty() => *current,
                    _ => self.store.load(load).await?,
                }))
            }
            Err(unknown @ store::Error::Unavailable { applied: Applied::Unknown, .. }) => {
                fate.is_unknown = true;
                if self.spent_ms(fate) >= i64::from(self.shared.limits.deadline_ms) {
                    return Err(unknown.into());
                }
                Ok(Some(self.store.load(load).await.map_err(|_| unknown)?))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn spent_ms(&self, fate: &Fate) -> i64 {
        self.shared.clock.now().since(fate.begun).millis()
    }

    /// Maintains each open session of some lists for which `cause` finds one. One that cannot be read is an error, but
    /// only after all others.
    pub async fn maintain_each(
        &self,
        lists: impl IntoIterator<Item = List, IntoIter: Send>,
        cause: impl Fn(&ChargingSession) -> Option<Maintenance>,
    ) -> Result<(), Failure> {
        let mut unreadable = None;
        for list in lists {
            let mut cursor: Option<Box<str>> = None;
            loop {
                let page = self.store.list(&list, cursor.as_deref(), PAGE).await?;
                for reference in page.items.into_iter().map(ChargingDataRef::new) {
                    match self.maintain_for(&reference, &cause).await {
                        Err(error @ Failure::Store(store::Error::Corrupt(_))) => unreadable = Some(error),
                        done => done?,
                    }
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        unreadable.map_or(Ok(()), Err)
    }

    async fn maintain_for(
        &self,
        reference: &ChargingDataRef,
        cause: impl Fn(&ChargingSession) -> Option<Maintenance>,
    ) -> Result<(), Failure> {
        let session = self.session(reference).await?;
        if let Some(cause) = session.as_deref().and_then(cause) {
            self.maintain(reference, &cause).await?;
        }
        Ok(())
    }

    /// Ends the sessions that a subscriber pays for. Safe to repeat: a session is told once.
    pub async fn abort_sessions_of(&self, subscriber: &Subscriber, reason: AbortReason) -> Result<(), Failure> {
        let list = List::OpenSessionsOf(self.shared.refs.account_key(&subscriber.account));
        let is_paid_by =
            |session: &ChargingSession| session.payer.as_ref().is_some_and(|payer| payer.subscriber == subscriber.id);
        self.maintain_each([list], |session| is_paid_by(session).then_some(Maintenance::Abort { reason })).await
    }

    /// Asks for new quota wherever one of these rating groups was granted by an older version of the plan.
    pub async fn reauthorize_plan(&self, plan: &TariffPlanId, changed: &[RatingGroup]) -> Result<(), Failure> {
        let cause = |session: &ChargingSession| {
            session.payer.as_ref().filter(|payer| payer.plan == *plan)?;
            let groups: Vec<_> = session.granted_groups().filter(|group| changed.contains(group)).collect();
            (!groups.is_empty()).then_some(Maintenance::Reauthorize { groups: Some(groups) })
        };
        self.maintain_each(Partition::all().map(List::OpenSessions), cause).await
    }

    /// The session behind a reference, open or closed, as long as its document lives.
    pub async fn session(&self, reference: &ChargingDataRef) -> Result<Option<Box<ChargingSession>>, store::Error> {
        let Some(account) = self.shared.refs.account_of(reference.as_str()) else { return Ok(None) };
        let found = self.store.sessions(account, std::slice::from_ref(reference)).await?;
        let found = found.iter().flatten().next();
        found.map(|document| record::decode_session(reference, &document.bytes)).transpose()
    }

    /// What to decide over what was read, and the version of the second session that it may change.
    async fn command<'a>(
        &self,
        asked: &Asked<'a>,
        load: &Load,
        snapshot: &Snapshot,
    ) -> Result<(Command<'a>, Version), Failure> {
        let session = session_of(snapshot, load)?;
        match asked {
            Asked::Create { opening, payer, pdu_session } => {
                let (same_pdu_session, superseded_version) = match snapshot.index.first().and_then(Option::as_ref) {
                    Some(known) if session.is_none() => {
                        Box::pin(self.session_of_index(load.account, known, snapshot.origin)).await?
                    }
                    _ => (None, Version::ABSENT),
                };
                let create = Create {
                    invocation: &opening.invocation,
                    one_time: opening.one_time,
                    service: opening.service,
                    subscriber: payer.cloned(),
                    reference: load.session.clone().ok_or(Rejection::UnknownSession)?,
                    repeated: session,
                    pdu_session: pdu_session.map(|key| key.0),
                    same_pdu_session,
                };
                Ok((Command::Create(Box::new(create)), superseded_version))
            }
            Asked::Continue { operation, service, invocation } => {
                let session = session.filter(|session| session.service == *service);
                let session = session.ok_or(Rejection::UnknownSession)?;
                for (plan, version) in session.plan_versions() {
                    self.know_plan_version(plan, version).await?;
                }
                let command = match operation {
                    Operation::Release => Command::Release(session, invocation),
                    Operation::Create | Operation::Update => Command::Update(session, invocation),
                };
                Ok((command, Version::ABSENT))
            }
        }
    }

    /// Who pays, if the request names anybody who is provisioned.
    async fn payer(&self, opening: &Opening) -> Result<Option<Subscriber>, Failure> {
        for identity in &opening.identities {
            if let Some(subscriber) = self.subscriber(identity).await? {
                return Ok(Some(subscriber));
            }
        }
        // A subscriber must be known; a tenant, or nobody at all as in an emergency, is recorded without paying.
        if opening.invocation.subscriber.is_some() { Err(Rejection::UserUnknown.into()) } else { Ok(None) }
    }

    async fn session_of_index(
        &self,
        account: AccountKey,
        known: &[u8],
        origin: Origin,
    ) -> Result<(Option<Box<ChargingSession>>, Version), Failure> {
        let reference = ChargingDataRef::new(String::from_utf8_lossy(known));
        let load = Load { account, session: Some(reference), index: Vec::new() };
        let found = self.store.load(&load).await?;
        if !found.origin.fits(origin) {
            return Err(store::Error::unavailable(Applied::No, "the store was replaced in between").into());
        }
        Ok((session_of(&found, &load)?, Version::of(found.session.as_ref())))
    }

    fn commit_of(
        &self,
        account: AccountKey,
        read: &Snapshot,
        versions: [Version; 2],
        changes: &Changes,
        now: Timestamp,
    ) -> Commit {
        let mut commit = unchanged(account, read);
        commit.account_document = changes.account.as_ref().map(record::encode);
        add_changes(&mut commit, versions, changes, now);
        commit
    }

    /// Opens an account or changes its limit. Answers the account, and whether it is new.
    pub async fn set_account(
        &self,
        id: &AccountId,
        currency: &str,
        credit_limit: Amount,
    ) -> Result<Result<(Account, bool), Refusal>, Failure> {
        let key = self.shared.refs.account_key(id);
        let _turn = self.shared.turns.of(key).taken().await;
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.load(&Load { account: key, session: None, index: Vec::new() }).await?;
            let before = account_of(key, &snapshot)?;
            let is_new = before.is_none();
            let account = match operator::set_account(before, id.clone(), currency, credit_limit) {
                Ok(account) => account,
                Err(refusal) => return Ok(Err(refusal)),
            };
            match self.store.commit(&account_commit(key, &snapshot, &account)).await {
                Ok(()) => return Ok(Ok((account, is_new))),
                Err(store::Error::Conflict(_)) => {}
                // Setting is the same however often it is done.
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure::Contended)
    }

    /// Opens an account with what it has from the start; one that is there stays as it is.
    pub async fn open_account(
        &self,
        id: &AccountId,
        currency: &str,
        credit_limit: Amount,
        credits: &[Credit],
    ) -> Result<Result<(), Refusal>, Failure> {
        let key = self.shared.refs.account_key(id);
        if self.account(key).await?.0.is_some() {
            return Ok(Ok(()));
        }
        let now = self.shared.clock.now();
        let (account, entry) = match operator::open_account(now, id.clone(), currency, credit_limit, credits) {
            Ok(opened) => opened,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let commit = Commit {
            account_journal: entry.as_ref().map(|entry| record::encode_entry(entry, &[])),
            ..account_commit(key, &Snapshot::default(), &account)
        };
        match self.store.commit(&commit).await {
            // Somebody else was faster.
            Ok(()) | Err(store::Error::Conflict(_)) => Ok(Ok(())),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds value to a balance, once for each reference. `None` when there is no such account; else the account and
    /// whether the credit is new.
    pub async fn credit(
        &self,
        id: &AccountId,
        credit: &Credit,
    ) -> Result<Option<Result<(Account, bool), Refusal>>, Failure> {
        let key = self.shared.refs.account_key(id);
        let reference = self.shared.refs.index_key("credit", &[id.as_str().as_bytes(), credit.reference.as_bytes()]);
        let load = Load { account: key, session: None, index: vec![reference] };
        let mut fate = Fate::begun(self.shared.clock.now());
        let _turn = self.shared.turns.of(key).taken().await;
        let credited = self.attempt_to_credit(&load, reference, credit, &mut fate).await;
        fate.tell(credited)
    }

    async fn attempt_to_credit(
        &self,
        load: &Load,
        reference: IndexKey,
        credit: &Credit,
        fate: &mut Fate,
    ) -> Result<Option<Result<(Account, bool), Refusal>>, Failure> {
        let key = load.account;
        let mut snapshot = self.store.load(load).await?;
        for _ in 0..ATTEMPTS {
            let Some(document) = &snapshot.account else { return Ok(None) };
            let account = decode_account(key, document)?;
            if let Some(Some(_)) = snapshot.index.first() {
                match self.confirm(&snapshot, load, fate).await? {
                    None => return Ok(Some(Ok((account, false)))),
                    Some(current) => snapshot = current,
                }
                continue;
            }
            let now = self.shared.clock.now();
            let (account, entry) = match operator::credit(now, document.version.next().0, account, credit) {
                Ok(credited) => credited,
                Err(refusal) => return Ok(Some(Err(refusal))),
            };
            let outgoing = Outgoing::Credited { account: key.to_string().into() };
            let commit = Commit {
                account_journal: Some(record::encode_entry(&entry, &[])),
                outbox: vec![outbox_entry(&outgoing)],
                // For ever: a reference credits once, however late it comes again.
                index: vec![IndexWrite { key: reference, value: record::encode(&now), lives_for: None }],
                ..account_commit(key, &snapshot, &account)
            };
            match self.commit(&commit, load, fate).await? {
                None => return Ok(Some(Ok((account, true)))),
                Some(current) => snapshot = current,
            }
        }
        Err(Failure::Contended)
    }

    /// The account as it is, and its version.
    pub async fn account(&self, key: AccountKey) -> Result<(Option<Account>, Version), store::Error> {
        let snapshot = self.store.load(&Load { account: key, session: None, index: Vec::new() }).await?;
        let account = account_of(key, &snapshot)?;
        Ok((account, Version::of(snapshot.account.as_ref())))
    }
}

impl Opening {
    /// What makes two requests the same Create: an idempotency key, else everything they say.
    fn hash(&self, app: &App, purpose: &str) -> KeyedHash {
        let Invocation { consumer, fingerprint, idempotency, .. } = &*self.invocation;
        // One consumer may use both services for one PDU session: these are two sessions.
        let hash = app.shared.refs.hash(purpose).part(self.service_name()).part(consumer.functionality.as_bytes());
        let name = [consumer.name.as_deref(), consumer.address.as_deref()];
        let hash = name.iter().fold(hash, |hash, name| hash.part(name.unwrap_or_default().as_bytes()));
        let hash = self.identities.iter().fold(hash, |hash, identity| hash.part(identity.as_bytes()));
        match idempotency {
            Some(key) => hash.part(b"key").part(&key.to_be_bytes()),
            None => hash.part(&fingerprint.content.to_be_bytes()).part(&fingerprint.exact.to_be_bytes()),
        }
    }

    /// As it is hashed: never to be changed.
    fn service_name(&self) -> &'static [u8] {
        match self.service {
            Service::Converged => b"converged",
            Service::OfflineOnly => b"offline-only",
        }
    }

    fn identity(&self, app: &App) -> [u8; 12] {
        let [identity @ .., _, _, _, _] = self.hash(app, "create").finish128().to_be_bytes();
        identity
    }

    fn pdu_session_key(&self, app: &App, payer: &Subscriber) -> Option<IndexKey> {
        let consumer = &self.invocation.consumer;
        let name = consumer.name.as_deref().or(consumer.address.as_deref()).unwrap_or_default();
        let session = self.pdu_session?.to_be_bytes();
        let payer = payer.id.as_str().as_bytes();
        let parts = [self.service_name(), consumer.functionality.as_bytes(), name.as_bytes(), payer, &session];
        Some(app.shared.refs.index_key("pdu session", &parts))
    }
}

fn done(mut decision: Decision) -> Done {
    let session = decision.changes.sessions.swap_remove(0).session;
    Done { answer: decision.answer, session, replayed: false }
}

fn decode_account(key: AccountKey, document: &Document) -> Result<Account, store::Error> {
    record::decode(&document.bytes).map_err(|error| error.about(&format!("account {key}")))
}

fn account_of(key: AccountKey, snapshot: &Snapshot) -> Result<Option<Account>, store::Error> {
    snapshot.account.as_ref().map(|document| decode_account(key, document)).transpose()
}

fn session_of(snapshot: &Snapshot, load: &Load) -> Result<Option<Box<ChargingSession>>, store::Error> {
    let found = load.session.as_ref().zip(snapshot.session.as_ref());
    found.map(|(reference, document)| record::decode_session(reference, &document.bytes)).transpose()
}

fn reading(snapshot: &Snapshot, load: &Load) -> Reading {
    Reading {
        origin: snapshot.origin,
        account: load.account,
        account_version: Version::of(snapshot.account.as_ref()),
        session: load.session.clone().map(|key| (key, Version::of(snapshot.session.as_ref()))),
    }
}

fn account_commit(key: AccountKey, read: &Snapshot, account: &Account) -> Commit {
    Commit { account_document: Some(record::encode(account)), ..unchanged(key, read) }
}

/// A commit that follows from what was read, and changes nothing of it yet.
fn unchanged(account: AccountKey, read: &Snapshot) -> Commit {
    Commit::unchanged(read.origin, account, Version::of(read.account.as_ref()))
}

/// What a decision changes besides the account. `versions` are those of its sessions.
fn add_changes(commit: &mut Commit, versions: [Version; 2], changes: &Changes, now: Timestamp) {
    commit.sessions.extend(changes.sessions.iter().zip(versions).map(|(change, read)| write(change, read, now)));
    commit.outbox.extend(changes.outbox.iter().map(outbox_entry));
    commit.index.extend(changes.index.iter().map(index_write));
}

fn write(change: &SessionChange, expected: Version, now: Timestamp) -> SessionWrite {
    SessionWrite {
        key: change.session.reference.clone(),
        expected,
        document: record::encode_session(&change.session),
        lives_for: change.lives_for,
        timer: match change.timer {
            Timer::Keep => TimerWrite::Keep,
            Timer::At(at) => TimerWrite::At(at),
            Timer::Remove => TimerWrite::Remove,
        },
        listing: match change.listing {
            Listed::Keep => Listing::Keep,
            Listed::Opened => Listing::Open(change.session.opened_at),
            Listed::Closed => Listing::Closed(now),
        },
        journal: change.entry.as_ref().map(|entry| record::encode_entry(entry, &change.session.quotas)),
    }
}

/// Each kind of work goes to those who do it.
fn outbox_entry(outgoing: &Outgoing) -> (Queue, bytes::Bytes) {
    let queue = match outgoing {
        Outgoing::Record { .. } => Queue::Records,
        Outgoing::Notify(_) | Outgoing::Credited { .. } => Queue::Notifications,
    };
    (queue, record::encode(outgoing))
}

fn index_write(change: &IndexChange) -> IndexWrite {
    IndexWrite {
        key: IndexKey(change.key),
        value: bytes::Bytes::copy_from_slice(change.leads_to.as_str().as_bytes()),
        lives_for: change.lives_for,
    }
}
