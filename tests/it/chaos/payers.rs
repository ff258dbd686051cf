//! Who pays: accounts of one subscriber, accounts of three, and accounts that run out.

use crate::processes::Random;
use crate::processes::network_function::Way;

/// What an account was given, in millionths.
const RICH: u64 = 1_000_000_000;
const POOR: u64 = 300_000;

#[derive(Clone, Copy)]
pub struct Payers {
    alone: u32,
    shared: u32,
    poor: u32,
}

/// Subscribers of a shared account.
const SHARE: u32 = 3;

impl Payers {
    pub fn usual() -> Self {
        Self { alone: 30, shared: 2, poor: 6 }
    }

    pub async fn provision(self, way: &Way) {
        way.provision_plan().await;
        for (account, amount) in self.accounts() {
            way.provision_account(&account, &format!("{}.{:06}", amount / 1_000_000, amount % 1_000_000)).await;
        }
        for subscriber in 1..=self.count() {
            way.provision_subscriber(subscriber, &self.account(subscriber)).await;
        }
    }

    fn count(self) -> u32 {
        self.alone + self.poor + self.shared * SHARE
    }

    pub fn one(self, random: &mut Random) -> u32 {
        1 + u32::try_from(random.below(u64::from(self.count()))).unwrap()
    }

    pub fn account(self, subscriber: u32) -> String {
        let at = subscriber - 1;
        match at.checked_sub(self.alone) {
            None => format!("alone-{subscriber}"),
            Some(at) if at < self.poor => format!("poor-{}", at + 1),
            Some(at) => format!("shared-{}", (at - self.poor) / SHARE + 1),
        }
    }

    /// Each account, and what it was given.
    pub fn accounts(self) -> Vec<(String, u64)> {
        let mut accounts: Vec<_> = (1..=self.count()).map(|subscriber| self.account(subscriber)).collect();
        accounts.dedup();
        let given = |account: &String| if account.starts_with("poor") { POOR } else { RICH };
        accounts.into_iter().map(|account| (account.clone(), given(&account))).collect()
    }
}
