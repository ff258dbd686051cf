//! Faults that nchf does not have, each put in on purpose: a simulator that does not notice them proves nothing.

use std::sync::Arc;

use async_trait::async_trait;
use nchf::charging::account::Account;
use nchf::charging::money::Amount;
use nchf::charging::session::Service;
use nchf::charging::time::Span;
use nchf::store::redis::RedisStore;
use nchf::store::{Commit, Error, Listing, Load, Reading, Snapshot, Store, TimerWrite, record};

use super::behind::{Behind, Meddler};
use super::ice::Ice;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The program as it is.
    None,
    /// The function that commits compares no versions.
    NoVersionCheck,
    /// Answers are not kept in the session's document.
    NoReplayMemory,
    /// A timer's entry goes when it is claimed, and not when it is performed.
    RemovedAtClaim,
    /// Files are said to be durable and are not, so entries of the outbox go before their records are safe.
    TrimBeforeSync,
    /// Money is kept as a float of 32 bits.
    FloatMoney,
    /// Nobody waits for replicas.
    NoWait,
    /// What is answered again is not confirmed by replicas.
    NoConfirm,
    /// The documents of open sessions live for a minute.
    ShortLife,
    /// Sessions that are to be looked at later are forgotten.
    NoTimers,
    /// What a consumer has to be told, and which record is to be written, goes out only every other time.
    HalfAnOutbox,
    /// A session that ends leaves something reserved.
    KeepsReservation,
    /// What is only to be recorded costs something.
    OfflineIsCharged,
    /// Every lease is everybody's.
    NoLease,
}

impl Mutant {
    /// Those that do harm. A lease only saves work: what must not happen twice is guarded by versions.
    pub const HARMFUL: [Self; 12] = [
        Self::OfflineIsCharged,
        Self::KeepsReservation,
        Self::NoVersionCheck,
        Self::NoReplayMemory,
        Self::RemovedAtClaim,
        Self::TrimBeforeSync,
        Self::FloatMoney,
        Self::NoWait,
        Self::NoConfirm,
        Self::ShortLife,
        Self::NoTimers,
        Self::HalfAnOutbox,
    ];

    /// The text of the functions, as this mutant loads it.
    pub fn function(self, source: &str) -> String {
        let change = |from: &str, to: &str| {
            assert!(source.contains(from), "the function has changed, and this mutant with it: {from}");
            source.replace(from, to)
        };
        match self {
            Self::NoVersionCheck => change("if call('GETRANGE', key, 0, 7) ~= args[arg] then", "if false then"),
            Self::RemovedAtClaim => change(
                "redis.call('ZADD', keys[1], unpack(leased))",
                "for at = 1, #due, 2 do redis.call('ZREM', keys[1], due[at]) end",
            ),
            _ => source.to_owned(),
        }
    }

    /// The store of an instance that may be frozen.
    pub fn over(self, store: Arc<RedisStore>, ice: Ice) -> Arc<dyn Store> {
        Arc::new(Behind::new(Around { mutant: self, ice }, store))
    }
}

impl Mutant {
    fn changed(self, commit: &Commit) -> Commit {
        let mut commit = commit.clone();
        match self {
            Self::KeepsReservation => {
                let closes = commit.sessions.iter().any(|write| matches!(write.listing, Listing::Closed(_)));
                if closes {
                    change_account(&mut commit, |account| {
                        for balance in &mut account.balances {
                            balance.reserved = Amount::new(balance.reserved.steps() + 1);
                        }
                    });
                }
            }
            Self::OfflineIsCharged => {
                let is_offline = commit.sessions.iter().any(|write| {
                    let session = record::decode_session(&write.key, &write.document).expect("what was encoded");
                    session.service == Service::OfflineOnly
                });
                if is_offline {
                    change_account(&mut commit, |account| {
                        for balance in &mut account.balances {
                            balance.amount = Amount::new(balance.amount.steps() - 1);
                        }
                    });
                }
            }
            Self::NoReplayMemory => {
                for write in &mut commit.sessions {
                    let session = record::decode_session(&write.key, &write.document);
                    let mut session = session.expect("what was encoded");
                    session.remembered.clear();
                    write.document = record::encode_session(&session);
                }
            }
            Self::FloatMoney => {
                change_account(&mut commit, |account| {
                    for balance in &mut account.balances {
                        let euros = balance.amount.steps() as f32 / 1_000_000.0;
                        balance.amount = Amount::new((f64::from(euros) * 1_000_000.0) as i64);
                    }
                });
            }
            Self::ShortLife => {
                commit.sessions.iter_mut().for_each(|write| write.lives_for = Span::from_secs(60));
            }
            Self::NoTimers => {
                commit.sessions.iter_mut().for_each(|write| write.timer = TimerWrite::Keep);
            }
            Self::HalfAnOutbox => {
                let is_odd = commit.sessions.first().is_some_and(|write| write.document.len() % 2 == 1);
                if is_odd {
                    commit.outbox.clear();
                }
            }
            _ => {}
        }
        commit
    }
}

fn change_account(commit: &mut Commit, change: impl FnOnce(&mut Account)) {
    if let Some(document) = &mut commit.account_document {
        let mut account: Account = record::decode(document).expect("what was encoded");
        change(&mut account);
        *document = record::encode(&account);
    }
}

/// What stands between an instance and its store: the mutant's faults, and the ice that no call gets through.
struct Around {
    mutant: Mutant,
    ice: Ice,
}

#[async_trait]
impl Meddler for Around {
    async fn load(&self, store: &dyn Store, load: &Load) -> Result<Snapshot, Error> {
        self.ice.around(store.load(load)).await
    }

    async fn commit(&self, store: &dyn Store, commit: &Commit) -> Result<(), Error> {
        if self.mutant == Mutant::None {
            return self.ice.around(store.commit(commit)).await;
        }
        self.ice.around(store.commit(&self.mutant.changed(commit))).await
    }

    async fn confirm(&self, store: &dyn Store, read: &Reading) -> Result<(), Error> {
        if self.mutant == Mutant::NoConfirm {
            return Ok(());
        }
        self.ice.around(store.confirm(read)).await
    }

    async fn lease(&self, store: &dyn Store, what: &str, owner: &str, lives_for: Span) -> Result<bool, Error> {
        if self.mutant == Mutant::NoLease {
            return Ok(true);
        }
        self.ice.around(store.lease(what, owner, lives_for)).await
    }

    async fn meet<T: Send>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        self.ice.around(call).await
    }
}
