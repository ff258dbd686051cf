//! Accounts, sessions, journals and the index as plain maps: a store's place without a store, for tests of the pure
//! core. Every commit checks what must hold after any decision, so that each test checks it too.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use nchf::charging::account::Account;
use nchf::charging::cdr::Cdr;
use nchf::charging::command::{Create, Credit, Fingerprint, Invocation, OneTime, QuotaKey, Subscriber};
use nchf::charging::decide::{Command, Context, Rules, decide};
use nchf::charging::decision::{Answer, Changes, Outgoing, Rejection, Timer};
use nchf::charging::ids::{AccountId, BalanceId, ChargingDataRef, RatingGroup};
use nchf::charging::journal::{Entry, Event, Move, MoveKind};
use nchf::charging::maintain::{Maintenance, maintain};
use nchf::charging::money::{Amount, BalanceUnit};
use nchf::charging::operator::{self, Refusal};
use nchf::charging::session::{ChargingSession, Consumer, Operation, Service};
use nchf::charging::tariff::{Catalog, PlanInForce, TariffPlan};
use nchf::charging::time::{Span, Timestamp};
use nchf::http::nchf::fingerprint::fingerprint;
use nchf::store::record::{self, JournalReader};

use super::demo;

pub struct World {
    pub now: Timestamp,
    pub rules: Rules,
    pub catalog: Catalog,
    pub subscribers: BTreeMap<&'static str, Subscriber>,
    pub accounts: BTreeMap<AccountId, Account>,
    pub sessions: BTreeMap<ChargingDataRef, Box<ChargingSession>>,
    pub journals: BTreeMap<ChargingDataRef, Vec<Entry>>,
    /// Those that have read the journals so far.
    readers: BTreeMap<ChargingDataRef, JournalReader>,
    pub index: BTreeMap<u128, ChargingDataRef>,
    /// The entries and the outgoing work of the last commit.
    pub last_entries: Vec<Entry>,
    pub last_outbox: Vec<Outgoing>,
    pub commits: u64,
    /// The records that were announced, as they were then.
    closed: BTreeMap<ChargingDataRef, Vec<Cdr>>,
    /// What each balance must hold, carried forward move by move.
    carried: BTreeMap<(AccountId, BalanceId), Amount>,
}

/// A request as a network function would send it.
#[derive(Clone, Debug)]
pub struct Request {
    pub operation: Operation,
    /// Short name of the subscriber that a Create names; `None` names nobody.
    pub subscriber: Option<&'static str>,
    pub one_time: Option<OneTime>,
    pub service: Service,
    pub pdu_session: Option<u32>,
    pub invocation: Invocation,
}

/// An answer, and the session that it speaks of.
#[derive(Clone, Debug)]
pub struct Done {
    pub answer: Answer,
    pub reference: ChargingDataRef,
    pub replayed: bool,
}

impl Request {
    pub fn new(operation: Operation, number: u32, at: Timestamp) -> Self {
        let invocation = Invocation {
            number,
            invoked_at: at,
            timestamp: at.millis().to_string().into(),
            retransmission: false,
            fingerprint: Fingerprint { content: 0, exact: 0 },
            idempotency: None,
            subscriber: None,
            consumer: consumer("smf1"),
            notify_uri: None,
            features: None,
            triggers: Vec::new(),
            usages: Vec::new(),
            blocks: Vec::new(),
        };
        Self { operation, subscriber: None, one_time: None, service: Service::Converged, pdu_session: None, invocation }
    }

    pub fn invoked_at(&mut self, at: Timestamp) {
        self.invocation.invoked_at = at;
        self.invocation.timestamp = at.millis().to_string().into();
    }
}

pub fn consumer(name: &str) -> Consumer {
    Consumer { functionality: "SMF".into(), name: Some(name.into()), address: None }
}

pub fn key(rating_group: u32, upf: Option<&str>) -> QuotaKey {
    QuotaKey { rating_group: RatingGroup(rating_group), upf: upf.map(Into::into), multihomed: None, mb_upf: None }
}

impl World {
    /// The demo data at noon of a summer's day.
    pub fn demo() -> Self {
        let mut world = Self {
            now: "2026-06-15T10:00:00Z".parse::<jiff::Timestamp>().unwrap().into(),
            rules: Rules {
                supervision: Span::from_secs(86_400),
                probe_guard: Span::from_secs(60),
                abort_guard: Span::from_secs(60),
                validity_grace: Span::from_secs(60),
                record_open_max: None,
                record_octets_max: 32_768,
                partial_triggers: Vec::new(),
                tombstone: Span::from_secs(3600),
                document_margin: Span::from_secs(7 * 86_400),
                features: 0x273BF,
                quotas_max: 64,
                refuse_create_without_credit: false,
            },
            catalog: Catalog::default(),
            subscribers: BTreeMap::new(),
            accounts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            journals: BTreeMap::new(),
            readers: BTreeMap::new(),
            index: BTreeMap::new(),
            last_entries: Vec::new(),
            last_outbox: Vec::new(),
            commits: 0,
            closed: BTreeMap::new(),
            carried: BTreeMap::new(),
        };
        world.add_plan(demo::plan());
        for name in demo::NAMES {
            let (subscriber, account) = demo::subscriber(name);
            world.subscribers.insert(name, subscriber);
            world.set_account(account);
        }
        world
    }

    pub fn add_plan(&mut self, plan: TariffPlan) {
        self.catalog.add(PlanInForce::new(plan).expect("a known time zone"));
    }

    /// Puts an account there as it is, without a credit.
    pub fn set_account(&mut self, account: Account) {
        for balance in &account.balances {
            self.carried.insert((account.id.clone(), balance.id.clone()), balance.amount);
        }
        self.accounts.insert(account.id.clone(), account);
    }

    pub fn account_of(&self, subscriber: &str) -> &Account {
        &self.accounts[&self.subscribers[subscriber].account]
    }

    /// Decides a request and commits what was decided. `session` names the session of an Update or a Release.
    pub fn send(&mut self, request: &Request, session: Option<&ChargingDataRef>) -> Result<Done, Rejection> {
        let mut invocation = request.invocation.clone();
        let subscriber = request.subscriber.map(|name| self.subscribers[name].clone());
        if request.operation == Operation::Create && invocation.subscriber.is_none() {
            invocation.subscriber = subscriber.as_ref().map(|subscriber| subscriber.id.clone());
        }
        invocation.fingerprint = fingerprint(&invocation);
        let (command, account) = match request.operation {
            Operation::Create => {
                let create = self.create(request, &invocation, subscriber);
                let account = create.subscriber.as_ref().map(|subscriber| subscriber.account.clone());
                (Command::Create(Box::new(create)), account)
            }
            Operation::Update | Operation::Release => {
                let session = session.and_then(|reference| self.sessions.get(reference)).cloned();
                let session = session.ok_or(Rejection::UnknownSession)?;
                let account = session.payer.as_ref().map(|payer| payer.account.clone());
                let command = match request.operation {
                    Operation::Release => Command::Release(session, &invocation),
                    Operation::Create | Operation::Update => Command::Update(session, &invocation),
                };
                (command, account)
            }
        };
        let account = account.and_then(|id| self.accounts.get(&id)).cloned();
        let context =
            Context { now: self.now, catalog: &self.catalog, rules: &self.rules, account_version: self.commits + 1 };
        let id = account.as_ref().map(|account| account.id.clone());
        let decision = decide(&context, account, command)?;
        let done = Done {
            answer: decision.answer.clone(),
            reference: decision.session().reference.clone(),
            replayed: decision.replayed.is_some(),
        };
        if decision.replayed.is_some() {
            let Changes { account, sessions, outbox, index } = &decision.changes;
            let nothing = account.is_none() && sessions.is_empty() && outbox.is_empty() && index.is_empty();
            assert!(nothing, "a replay changes nothing");
        } else {
            self.commit(id, decision.changes);
        }
        Ok(done)
    }

    fn create<'a>(&self, request: &Request, invocation: &'a Invocation, subscriber: Option<Subscriber>) -> Create<'a> {
        let mut identity = DefaultHasher::new();
        (&invocation.consumer, &invocation.subscriber).hash(&mut identity);
        match invocation.idempotency {
            Some(key) => key.hash(&mut identity),
            None => invocation.fingerprint.hash(&mut identity),
        }
        let reference = ChargingDataRef::new(format!("{:040x}", identity.finish()));
        let pdu_session = request.pdu_session.map(|id| {
            let mut key = DefaultHasher::new();
            (&invocation.consumer, &invocation.subscriber, id).hash(&mut key);
            u128::from(key.finish())
        });
        let at_index = pdu_session.and_then(|key| self.index.get(&key));
        let repeated = self.sessions.get(&reference).cloned();
        Create {
            invocation,
            one_time: request.one_time,
            service: request.service,
            subscriber,
            same_pdu_session: at_index.and_then(|known| self.sessions.get(known)).cloned(),
            reference,
            repeated,
            pdu_session,
        }
    }

    /// Lets time, an operator or a consumer's answer act on a session, and commits what follows. Answers whether
    /// anything did.
    pub fn maintain(&mut self, session: &ChargingDataRef, cause: Maintenance) -> bool {
        let session = self.sessions[session].clone();
        let account = session.payer.as_ref().and_then(|payer| self.accounts.get(&payer.account)).cloned();
        let id = account.as_ref().map(|account| account.id.clone());
        let context =
            Context { now: self.now, catalog: &self.catalog, rules: &self.rules, account_version: self.commits + 1 };
        let is_timer = cause == Maintenance::Due;
        let reference = session.reference.clone();
        let changes = maintain(&context, account, session, cause);
        self.forget_last();
        let Some(changes) = changes else { return false };
        assert!(!is_timer || changes.sessions[0].timer != Timer::Keep, "a claim has moved the timer's entry");
        self.commit(id, changes);
        if is_timer {
            let session = self.sessions[&reference].clone();
            assert_eq!(session.timer_at, session.due_at(&self.rules), "the timer is set exactly");
            assert!(session.due_at(&self.rules).is_none_or(|due| due > self.now), "all that was due is done");
            let account = session.payer.as_ref().and_then(|payer| self.accounts.get(&payer.account)).cloned();
            let context = Context { now: self.now, catalog: &self.catalog, rules: &self.rules, account_version: 0 };
            assert!(maintain(&context, account, session, Maintenance::Due).is_none(), "firing twice changes nothing");
        }
        true
    }

    fn forget_last(&mut self) {
        self.last_entries.clear();
        self.last_outbox.clear();
    }

    fn commit(&mut self, account: Option<AccountId>, changes: Changes) {
        self.forget_last();
        self.last_outbox = changes.outbox.iter().map(stored).collect();
        self.commits += 1;
        // A session that was superseded was closed before the new one was granted anything.
        let entries = changes.sessions.iter().rev().filter_map(|change| change.entry.as_ref());
        let moves: Vec<Move> = entries.flat_map(|entry| entry.moves.clone()).collect();
        if let Some(account) = changes.account {
            self.accounts.insert(account.id.clone(), stored(&account));
        } else {
            assert!(moves.is_empty(), "moves are written with their account: {moves:?}");
        }
        for change in changes.sessions {
            let reference = change.session.reference.clone();
            if let Some(entry) = change.entry {
                self.last_entries.push(entry.clone());
                let reader = self.readers.entry(reference.clone()).or_default();
                let stored = record::encode_entry(&entry, &change.session.quotas);
                assert_eq!(reader.decode(&stored).unwrap(), entry);
                self.journals.entry(reference.clone()).or_default().push(entry);
            }
            let stored = record::encode_session(&change.session);
            assert_eq!(record::decode_session(&reference, &stored).unwrap(), change.session);
            self.sessions.insert(reference, change.session);
        }
        for change in changes.index {
            self.index.insert(change.key, change.leads_to);
        }
        self.check_records();
        if let Some(account) = account {
            self.check_account(&account, &moves);
        }
        self.check_sessions();
    }

    /// Each record that closed is announced once, and can be read from the journal as it is now.
    fn check_records(&mut self) {
        for outgoing in &self.last_outbox {
            let Outgoing::Record { session, part, .. } = outgoing else { continue };
            let record = Cdr::part(session, &self.journals[session], *part).expect("an announced record has closed");
            let announced = self.closed.entry(session.clone()).or_default();
            assert_eq!(usize::try_from(*part).unwrap(), announced.len(), "records are announced in order");
            announced.push(record);
        }
        for (session, announced) in &self.closed {
            assert_eq!(*announced, self.records(session), "a closed record stays as it is");
        }
    }

    pub fn credit(&mut self, subscriber: &str, credit: &Credit) -> Result<(), Refusal> {
        let account = self.account_of(subscriber).clone();
        let (account, entry) = operator::credit(self.now, self.commits + 1, account, credit)?;
        self.commits += 1;
        let id = account.id.clone();
        self.accounts.insert(id.clone(), stored(&account));
        self.check_account(&id, &entry.moves);
        Ok(())
    }

    pub fn records(&self, reference: &ChargingDataRef) -> Vec<Cdr> {
        Cdr::of_journal(reference, self.journals.get(reference).map_or(&[], Vec::as_slice))
    }

    /// The balances are what the moves say; what is reserved is what the grants of open sessions hold; and nothing
    /// was reserved that is not there.
    fn check_account(&mut self, id: &AccountId, moves: &[Move]) {
        for one in moves {
            let carried = self.carried.entry((id.clone(), one.balance.clone())).or_default();
            assert_eq!(one.before, *carried, "moves follow one another: {one:?}");
            let after = match one.kind {
                MoveKind::Credit => carried.plus(one.amount),
                MoveKind::Reserve | MoveKind::Release => Some(*carried),
                // Of a reservation it names the rating group.
                MoveKind::Expire if one.rating_group.is_some() => Some(*carried),
                MoveKind::Debit | MoveKind::Expire => carried.minus(one.amount),
                MoveKind::Adjust => unreachable!("nothing adjusts"),
            };
            assert_eq!(Some(one.after), after, "a move adds up: {one:?}");
            assert!(one.amount.is_positive(), "a move moves something: {one:?}");
            *carried = one.after;
        }
        let account = &self.accounts[id];
        for balance in &account.balances {
            let carried = self.carried.get(&(id.clone(), balance.id.clone())).copied().unwrap_or_default();
            assert_eq!(balance.amount, carried, "balance {} is what its moves say", balance.id);
            assert_eq!(balance.reserved, self.held(id, &balance.id), "reserved of {}", balance.id);
            if balance.unit != BalanceUnit::Money {
                assert!(
                    balance.reserved <= balance.amount && balance.amount >= Amount::ZERO,
                    "allowance {}",
                    balance.id
                );
            }
        }
        let reserves_money = |one: &Move| one.kind == MoveKind::Reserve && one.unit == BalanceUnit::Money;
        if moves.iter().any(reserves_money) {
            assert!(account.money_available() >= Amount::ZERO, "a grant made available negative: {account:?}");
        }
    }

    fn held(&self, account: &AccountId, balance: &BalanceId) -> Amount {
        let sessions = self
            .sessions
            .values()
            .filter(|session| session.payer.as_ref().is_some_and(|payer| payer.account == *account));
        let grants = sessions.flat_map(|session| &session.quotas).filter_map(|quota| quota.grant.as_ref());
        let held = grants.flat_map(|grant| &grant.reserved).filter(|held| held.balance == *balance);
        held.fold(Amount::ZERO, |sum, held| sum.plus(held.amount).unwrap())
    }

    fn check_sessions(&self) {
        for (reference, session) in &self.sessions {
            assert_eq!(session.reference, *reference);
            let granted = session.quotas.iter().any(|quota| quota.grant.is_some());
            assert!(!session.is_closed() || !granted, "a closed session holds nothing");
            let due = session.due_at(&self.rules);
            match (due, session.timer_at) {
                (Some(due), Some(armed)) => assert!(armed <= due, "the timer comes in time"),
                (None, None) => {}
                other => panic!("due and armed do not agree: {other:?}"),
            }
        }
        for entries in self.journals.values() {
            assert!(matches!(entries.first().unwrap().event, Event::Opened { .. }), "journals begin with the Create");
            let of_commits = entries.iter().filter(|entry| !matches!(entry.event, Event::Published(_)));
            assert!(of_commits.is_sorted_by_key(|entry| entry.account_version));
        }
    }
}

/// The document as it comes back from a store.
fn stored<T: serde::Serialize + serde::de::DeserializeOwned>(document: &T) -> T {
    record::decode(&record::encode(document)).expect("what was encoded decodes")
}
