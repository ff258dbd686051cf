//! Identifiers. Each is valid because it exists: the edge parses, the core trusts.

use std::fmt;

use super::text::Text;
use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Text);

        impl $name {
            /// Wraps a text that the edge has found acceptable.
            pub fn new(text: impl Into<Text>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// Identity of a charging data resource, the last segment of its URL (TS 32.291 6.1.3).
    /// At most 48 characters of `[a-z0-9-]`, carries no identity of a subscriber, safe to log.
    ChargingDataRef
}
text_id! {
    /// Whose money: the operator's own name for an account. May hold a phone number, so it is never logged.
    AccountId
}
text_id! {
    /// Who is charged: a SUPI where the sender follows the schema, else whatever identifier was provisioned.
    SubscriberId
}
text_id! {
    /// One bucket of value inside an account, `main` by custom for money.
    BalanceId
}
text_id! {
    /// The operator's name of a tariff plan.
    TariffPlanId
}

macro_rules! shown {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}
shown!(ChargingDataRef, BalanceId, TariffPlanId);

macro_rules! masked {
    ($($name:ident),+) => {$(
        /// Identities never reach a log, whatever formats them.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("***")
            }
        }
    )+};
}
masked!(AccountId, SubscriberId);

/// Key that selects a tariff (TS 32.291 `ratingGroup`), 0 to 4294967295.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RatingGroup(pub u32);
