//! The compact form of what is stored most often: session documents and journal entries. Every octet of them is written,
//! replicated and kept for each request.
//!
//! Nothing in the bytes says what follows; the types do. Numbers take as many octets as they need, times are told
//! from the time of the document or entry, and what is mostly absent takes a bit. What stands in the key or in earlier
//! entries is not repeated: a session's reference, and the names of quotas that the session's journal has introduced.
//!
//! [`fields`] and [`codes`] give most types their form; what is written by what stands before it has its own functions,
//! in `session` and `journal`. A field that comes later goes to the end of those that may be absent: a program that does
//! not know it refuses the bytes and loses nothing. Any other change needs a new format in `store::record`.

// Before the modules that use them.

/// The form of a struct: which of the fields after the semicolon are there, the fields before it, then those.
macro_rules! fields {
    ($type:ty { $($field:ident),* $(; $($sparse:ident),+)? }) => {
        impl Compact for $type {
            fn write(&self, to: &mut Writer<'_>) {
                // All fields are named: none can be forgotten.
                let Self { $($field,)* $($($sparse,)+)? } = self;
                $(to.bits(&[$($sparse.is_there()),+]);)?
                $($field.write(to);)*
                $($(to.sparse($sparse);)+)?
            }

            fn read(from: &mut Reader<'_>) -> Result<Self> {
                $(let mut there = from.bits(0 $(+ one!($sparse))+)?;)?
                Ok(Self { $($field: Compact::read(from)?,)* $($($sparse: there.read(from)?,)+)? })
            }
        }
    };
}

/// Counts.
macro_rules! one {
    ($name:ident) => {
        1
    };
}

/// The form of an enum whose variants hold nothing. The numbers are stored: none is ever given to another variant.
macro_rules! codes {
    ($type:ty { $($variant:ident = $code:literal),+ }) => {
        impl Compact for $type {
            fn write(&self, to: &mut Writer<'_>) {
                to.number(match self { $(Self::$variant => $code),+ });
            }

            fn read(from: &mut Reader<'_>) -> Result<Self> {
                match from.number()? {
                    $($code => Ok(Self::$variant),)+
                    _ => Err(Unreadable::Newer),
                }
            }
        }
    };
}

mod bytes;
mod journal;
mod session;
#[cfg(test)]
mod tests;
mod words;

pub use bytes::Unreadable;
pub use journal::{read_entry, write_entry};
pub use session::{read_session, write_session};

use bytes::{Reader, Writer};

use super::account::Reservation;
use super::cdr::CauseForRecordClosing;
use super::command::{Block, Container, Indicator, QuotaKey, Trigger, TriggerCategory};
use super::decision::{Answer, GroupResult, Outcome, ResultCode};
use super::ids::{AccountId, BalanceId, RatingGroup, SubscriberId, TariffPlanId};
use super::lists::SharedList;
use super::money::{Amount, BalanceUnit};
use super::session::{ClosingCause, Consumer, Service};
use super::tariff::{FinalUnit, Price};
use super::text::Text;
use super::time::Timestamp;
use super::units::{UnitKind, Units};

type Result<T> = std::result::Result<T, Unreadable>;

/// Has a compact form.
trait Compact: Sized {
    fn write(&self, to: &mut Writer<'_>);
    fn read(from: &mut Reader<'_>) -> Result<Self>;

    /// As an item of a list. It need not repeat what it has in common with the item before.
    fn write_after(&self, _before: Option<&Self>, to: &mut Writer<'_>) {
        self.write(to);
    }

    fn read_after(_before: Option<&Self>, from: &mut Reader<'_>) -> Result<Self> {
        Self::read(from)
    }
}

/// May be absent: its default takes no octet, but a bit among those of its struct.
trait Sparse: Default {
    fn is_there(&self) -> bool;
    /// Only where it is there.
    fn write_there(&self, to: &mut Writer<'_>);
    fn read_there(from: &mut Reader<'_>) -> Result<Self>;
}

codes!(Service { Converged = 0, OfflineOnly = 1 });
codes!(ClosingCause {
    Released = 0, Event = 1, Superseded = 2, Idle = 3, AbortUnanswered = 4, Aborted = 5, ConsumerGone = 6
});
codes!(Outcome { Created = 0, Updated = 1, Released = 2, Gone = 3 });
codes!(UnitKind { Octets = 0, Seconds = 1, Events = 2 });
codes!(BalanceUnit { Money = 0, Octets = 1, Seconds = 2, Events = 3 });
codes!(ResultCode {
    Success = 0, EndUserServiceDenied = 1, QuotaManagementNotApplicable = 2, QuotaLimitReached = 3, RatingFailed = 4,
    EndUserServiceRejected = 5, QuotaManagement = 6
});

fields!(Units { ; total_volume, uplink_volume, downlink_volume, time, service_specific_units });
fields!(Price { amount, per });
fields!(Reservation { balance, unit, amount });
fields!(Consumer { functionality; name, address });
fields!(Trigger { category; name, others });
fields!(Container {
    units; local_sequence_number, indicator, triggers, closed_at, first_usage, last_usage, service_id, others
});
fields!(GroupResult { quota, code; granted, validity_secs, holding_secs, threshold, tariff_change, final_unit });

fields!(Answer { outcome, at, number; features, results });

/// Sessions use the quotas of one user plane function most of the time.
impl Compact for QuotaKey {
    fn write(&self, to: &mut Writer<'_>) {
        self.write_after(None, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Self::read_after(None, from)
    }

    fn write_after(&self, before: Option<&Self>, to: &mut Writer<'_>) {
        let Self { rating_group, upf, multihomed, mb_upf } = self;
        rating_group.write(to);
        let has_same_names = |before: &Self| {
            let Self { rating_group: _, upf: their_upf, multihomed: their_multihomed, mb_upf: their_mb_upf } = before;
            (their_upf, their_multihomed, their_mb_upf) == (upf, multihomed, mb_upf)
        };
        if before.is_some_and(has_same_names) {
            return to.bits(&[true]);
        }
        to.bits(&[false, upf.is_there(), multihomed.is_there(), mb_upf.is_there()]);
        [upf, multihomed, mb_upf].into_iter().for_each(|name| to.sparse(name));
    }

    fn read_after(before: Option<&Self>, from: &mut Reader<'_>) -> Result<Self> {
        let rating_group = Compact::read(from)?;
        let mut there = from.bits(4)?;
        if there.next() {
            let before = before.ok_or(Unreadable::Damaged("the first quota has no names before it"))?;
            return Ok(Self { rating_group, ..before.clone() });
        }
        Ok(Self { rating_group, upf: there.read(from)?, multihomed: there.read(from)?, mb_upf: there.read(from)? })
    }
}

impl Compact for Block {
    fn write(&self, to: &mut Writer<'_>) {
        let Self { name, json, hash } = self;
        to.word(name);
        to.text(json);
        to.mark(*hash);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { name: from.text()?, json: from.text()?, hash: from.mark()? })
    }
}

impl Compact for Indicator {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Online => to.number(0),
            Self::Offline => to.number(1),
            Self::Suspended => to.number(2),
            Self::Other(text) => {
                to.number(3);
                to.text(text);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(match from.number()? {
            0 => Self::Online,
            1 => Self::Offline,
            2 => Self::Suspended,
            3 => Self::Other(from.text()?),
            _ => return Err(Unreadable::Newer),
        })
    }
}

impl Compact for TriggerCategory {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Immediate => to.number(0),
            Self::Deferred => to.number(1),
            Self::Other(text) => {
                to.number(2);
                to.text(text);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(match from.number()? {
            0 => Self::Immediate,
            1 => Self::Deferred,
            2 => Self::Other(from.text()?),
            _ => return Err(Unreadable::Newer),
        })
    }
}

impl Compact for FinalUnit {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Terminate => to.number(0),
            Self::Redirect { address_type, address } => {
                to.number(1);
                to.text(address_type);
                to.text(address);
            }
            Self::RestrictAccess { filter_rules, filter_ids } => {
                to.number(2);
                filter_rules.write(to);
                filter_ids.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(match from.number()? {
            0 => Self::Terminate,
            1 => Self::Redirect { address_type: from.text()?, address: from.text()? },
            2 => Self::RestrictAccess { filter_rules: Compact::read(from)?, filter_ids: Compact::read(from)? },
            _ => return Err(Unreadable::Newer),
        })
    }
}

impl Compact for CauseForRecordClosing {
    fn write(&self, to: &mut Writer<'_>) {
        to.number(self.code().into());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let code: u8 = from.small()?;
        code.try_into().map_err(|_| Unreadable::Newer)
    }
}

impl Compact for Timestamp {
    fn write(&self, to: &mut Writer<'_>) {
        to.time(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        from.time()
    }
}

impl Compact for Amount {
    fn write(&self, to: &mut Writer<'_>) {
        to.signed(self.steps());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self::new(from.signed()?))
    }
}

impl Compact for RatingGroup {
    fn write(&self, to: &mut Writer<'_>) {
        to.number(self.0.into());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(from.small()?))
    }
}

impl Compact for i64 {
    fn write(&self, to: &mut Writer<'_>) {
        to.signed(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        from.signed()
    }
}

impl Compact for Text {
    fn write(&self, to: &mut Writer<'_>) {
        to.word(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        from.text()
    }
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Compact for $type {
            fn write(&self, to: &mut Writer<'_>) {
                to.number((*self).into());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self> {
                from.small()
            }
        }
    )+};
}
numbers!(u16, u32, u64);

macro_rules! ids {
    ($($type:ty),+) => {$(
        impl Compact for $type {
            fn write(&self, to: &mut Writer<'_>) {
                to.word(self.as_str());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self> {
                Ok(Self::new(from.text()?))
            }
        }
    )+};
}
ids!(AccountId, SubscriberId, BalanceId, TariffPlanId);

fn write_list<T: Compact>(items: &[T], to: &mut Writer<'_>) {
    to.length(items.len());
    let mut before = None;
    for item in items {
        item.write_after(before, to);
        before = Some(item);
    }
}

impl<T: Compact> Compact for Vec<T> {
    fn write(&self, to: &mut Writer<'_>) {
        write_list(self, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let length = from.length()?;
        let mut items = Self::with_capacity(length);
        for _ in 0..length {
            let item = T::read_after(items.last(), from)?;
            items.push(item);
        }
        Ok(items)
    }
}

impl<T: Compact> Compact for SharedList<T> {
    fn write(&self, to: &mut Writer<'_>) {
        write_list(self, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Vec::read(from).map(Self::from)
    }
}

impl<T: Compact> Compact for Box<T> {
    fn write(&self, to: &mut Writer<'_>) {
        T::write(self, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        T::read(from).map(Self::new)
    }
}

impl<T: Compact> Sparse for Option<T> {
    fn is_there(&self) -> bool {
        self.is_some()
    }

    fn write_there(&self, to: &mut Writer<'_>) {
        if let Some(value) = self {
            value.write(to);
        }
    }

    fn read_there(from: &mut Reader<'_>) -> Result<Self> {
        T::read(from).map(Some)
    }
}

macro_rules! sparse_lists {
    ($($list:ident),+) => {$(
        impl<T: Compact> Sparse for $list<T> {
            fn is_there(&self) -> bool {
                !self.is_empty()
            }

            fn write_there(&self, to: &mut Writer<'_>) {
                self.write(to);
            }

            fn read_there(from: &mut Reader<'_>) -> Result<Self> {
                Compact::read(from)
            }
        }
    )+};
}
sparse_lists!(Vec, SharedList);

/// A flag that is there is set.
impl Sparse for bool {
    fn is_there(&self) -> bool {
        *self
    }

    fn write_there(&self, _: &mut Writer<'_>) {}

    fn read_there(_: &mut Reader<'_>) -> Result<Self> {
        Ok(true)
    }
}

macro_rules! sparse_numbers {
    ($($type:ty),+) => {$(
        impl Sparse for $type {
            fn is_there(&self) -> bool {
                *self != Self::default()
            }

            fn write_there(&self, to: &mut Writer<'_>) {
                self.write(to);
            }

            fn read_there(from: &mut Reader<'_>) -> Result<Self> {
                Compact::read(from)
            }
        }
    )+};
}
sparse_numbers!(u32, u64, i64, Amount);
