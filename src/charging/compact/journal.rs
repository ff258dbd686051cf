//! Entries of journals. The times of an entry count from when it was made, and its quotas are told by their positions
//! in the session, as answers tell them.

use jiff::civil;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::Offset;

use super::bytes::{Reader, Writer};
use super::{Compact, Result, Sparse, Unreadable};
use crate::charging::command::QuotaKey;
use crate::charging::journal::{
    AbortReason, Closing, Entry, Event, Header, Invoked, Move, MoveKind, Published, Reported, Told,
};
use crate::charging::money::Amount;
use crate::charging::session::Quota;
use crate::charging::text::Text;
use crate::charging::time::Timestamp;

/// Appends an entry to `bytes`. `quotas` are those of the session as the entry leaves it; none for an account's own
/// journal.
pub fn write_entry(entry: &Entry, quotas: &[Quota], bytes: Vec<u8>) -> Vec<u8> {
    // Usage may come so late that the journal has ended: then it begins a new one, which introduces nothing before it.
    let quotas: &[Quota] = if matches!(entry.event, Event::Late { after_closing: true, .. }) { &[] } else { quotas };
    let mut to = Writer::starting(bytes, entry.at, quotas);
    let Entry { at: _, account_version, event, moves, closings } = entry;
    account_version.write(&mut to);
    event.write(&mut to);
    to.bits(&[moves.is_there(), closings.is_there()]);
    to.sparse(moves);
    to.sparse(closings);
    to.finish()
}

/// Reads what [`write_entry`] wrote. `quotas` are those that the entries before have introduced; then this one's too.
pub fn read_entry(bytes: &[u8], quotas: &mut Vec<QuotaKey>) -> Result<Entry> {
    let mut from = Reader::starting(bytes)?;
    from.quotas = std::mem::take(quotas);
    let entry = read(&mut from);
    *quotas = std::mem::take(&mut from.quotas);
    entry
}

fn read(from: &mut Reader<'_>) -> Result<Entry> {
    let account_version = Compact::read(from)?;
    let event = Compact::read(from)?;
    let mut there = from.bits(2)?;
    let (moves, closings) = (there.read(from)?, there.read(from)?);
    from.finish()?;
    Ok(Entry { at: from.since(), account_version, event, moves, closings })
}

fields!(Header { consumer, service; subscriber, account, currency, plan, one_time });
fields!(Closing { cause; containers });
fields!(Published { part, local_record_sequence_number, file });
codes!(AbortReason { Operator = 0, SubscriberBlocked = 1, SubscriberDeleted = 2 });
codes!(MoveKind { Credit = 0, Reserve = 1, Debit = 2, Release = 3, Expire = 4, Adjust = 5 });

impl Compact for Event {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Opened { header, invocation } => {
                to.number(0);
                header.write(to);
                invocation.write(to);
            }
            Self::Updated(invocation) => {
                to.number(1);
                invocation.write(to);
            }
            Self::Released(invocation) => {
                to.number(2);
                invocation.write(to);
            }
            Self::Late { invocation, after_closing } => {
                to.number(if *after_closing { 4 } else { 3 });
                invocation.write(to);
            }
            Self::Closed(cause) => {
                to.number(5);
                cause.write(to);
            }
            Self::Maintained { expired, told } => {
                to.number(6);
                to.length(expired.len());
                expired.iter().for_each(|key| to.quota(key));
                to.bits(&[told.is_there()]);
                to.sparse(told);
            }
            Self::Published(published) => {
                to.number(7);
                published.write(to);
            }
            Self::Credited { reference } => {
                to.number(8);
                reference.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(match from.number()? {
            0 => Self::Opened { header: Compact::read(from)?, invocation: Compact::read(from)? },
            1 => Self::Updated(Compact::read(from)?),
            2 => Self::Released(Compact::read(from)?),
            3 => Self::Late { invocation: Compact::read(from)?, after_closing: false },
            4 => Self::Late { invocation: Compact::read(from)?, after_closing: true },
            5 => Self::Closed(Compact::read(from)?),
            6 => {
                let length = from.length()?;
                let expired = (0..length).map(|_| from.quota()).collect::<Result<_>>()?;
                Self::Maintained { expired, told: from.bits(1)?.read(from)? }
            }
            7 => Self::Published(Compact::read(from)?),
            8 => Self::Credited { reference: Compact::read(from)? },
            _ => return Err(Unreadable::Newer),
        })
    }
}

impl Compact for Told {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Probe => to.number(0),
            Self::Reauthorize(groups) => {
                to.number(1);
                groups.write(to);
            }
            Self::Abort(reason) => {
                to.number(2);
                reason.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(match from.number()? {
            0 => Self::Probe,
            1 => Self::Reauthorize(Compact::read(from)?),
            2 => Self::Abort(Compact::read(from)?),
            _ => return Err(Unreadable::Newer),
        })
    }
}

impl Compact for Invoked {
    fn write(&self, to: &mut Writer<'_>) {
        let Self { number, timestamp, triggers, usage, blocks, answer, quotas } = self;
        number.write(to);
        write_instant(timestamp, to);
        to.bits(&[quotas.is_there(), triggers.is_there(), usage.is_there(), blocks.is_there()]);
        if let Some(first) = quotas.first() {
            to.length(to.position(first).map_or(0, |position| position.saturating_add(1)));
            quotas.write(to);
        }
        to.sparse(triggers);
        to.sparse(usage);
        to.sparse(blocks);
        answer.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let number = Compact::read(from)?;
        let timestamp = read_instant(from)?;
        let mut there = from.bits(4)?;
        let quotas = if there.next() { introduce_quotas(from)? } else { Vec::new() };
        Ok(Self {
            number,
            timestamp,
            quotas,
            triggers: there.read(from)?,
            usage: there.read(from)?,
            blocks: there.read(from)?,
            answer: Compact::read(from)?,
        })
    }
}

/// The quotas that an entry is the first to speak of, which its position among the journal's entries must fit.
fn introduce_quotas(from: &mut Reader<'_>) -> Result<Vec<QuotaKey>> {
    let position: usize = from.small()?;
    let first = position.checked_sub(1).unwrap_or(from.quotas.len());
    let quotas: Vec<QuotaKey> = Compact::read(from)?;
    // An entry that is there twice introduces nothing new.
    let (known, new) = quotas.split_at(from.quotas.len().saturating_sub(first).min(quotas.len()));
    if !from.quotas.get(first..).is_some_and(|there| there.starts_with(known)) {
        return Err(Unreadable::Damaged("an entry before has introduced other quotas"));
    }
    from.quotas.extend_from_slice(new);
    Ok(quotas)
}

impl Compact for Reported {
    fn write(&self, to: &mut Writer<'_>) {
        let Self { key, containers, repeated, others } = self;
        to.quota(key);
        containers.write(to);
        to.bits(&[repeated.is_there(), others.is_there()]);
        to.sparse(repeated);
        to.sparse(others);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let key = from.quota()?;
        let containers = Compact::read(from)?;
        let mut there = from.bits(2)?;
        Ok(Self { key, containers, repeated: there.read(from)?, others: there.read(from)? })
    }
}

/// Most moves of an entry are of one balance, one after the other.
impl Compact for Move {
    fn write(&self, to: &mut Writer<'_>) {
        self.write_after(None, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Self::read_after(None, from)
    }

    fn write_after(&self, before: Option<&Self>, to: &mut Writer<'_>) {
        let Self { kind, balance, unit, amount, before: was, after, rating_group, units, plan_version } = self;
        let same = before.filter(|before| before.balance == *balance && before.unit == *unit);
        let says_before = kind.before(*amount, *after) != Some(*was);
        to.bits(&[same.is_some(), says_before, rating_group.is_there(), units.is_there(), plan_version.is_there()]);
        kind.write(to);
        if same.is_none() {
            balance.write(to);
            unit.write(to);
        }
        amount.write(to);
        to.difference(after.steps(), same.map_or(0, |same| same.after.steps()));
        if says_before {
            was.write(to);
        }
        to.sparse(rating_group);
        to.sparse(units);
        to.sparse(plan_version);
    }

    fn read_after(before: Option<&Self>, from: &mut Reader<'_>) -> Result<Self> {
        let mut there = from.bits(5)?;
        let same = there.next();
        let says_before = there.next();
        let kind: MoveKind = Compact::read(from)?;
        let (balance, unit, last) = match before {
            Some(before) if same => (before.balance.clone(), before.unit, before.after.steps()),
            None if same => return Err(Unreadable::Damaged("the first move has no balance before it")),
            Some(_) | None => (Compact::read(from)?, Compact::read(from)?, 0),
        };
        let amount = Compact::read(from)?;
        let after = Amount::new(from.difference(last)?);
        let was = if says_before { Some(Compact::read(from)?) } else { kind.before(amount, after) };
        Ok(Self {
            kind,
            balance,
            unit,
            amount,
            before: was.ok_or(Unreadable::Damaged("a move from nowhere"))?,
            after,
            rating_group: there.read(from)?,
            units: there.read(from)?,
            plan_version: there.read(from)?,
        })
    }
}

/// The text of a time in UTC takes as many octets as its time does; any other text is written as it is after a 0.
fn write_instant(text: &str, to: &mut Writer<'_>) {
    match Instant::read(text) {
        Some(Instant { millis, nanos, places }) => {
            to.number(u64::from(places).saturating_add(1));
            millis.write(to);
            if places > MILLIS {
                to.number(nanos.into());
            }
        }
        None => {
            to.number(0);
            to.text(text);
        }
    }
}

fn read_instant(from: &mut Reader<'_>) -> Result<Text> {
    let Some(places) = from.number()?.checked_sub(1) else { return from.text() };
    let places = u8::try_from(places).ok().filter(|places| *places <= NANOS).ok_or(Unreadable::Newer)?;
    let millis = Compact::read(from)?;
    let nanos = if places > MILLIS { from.small()? } else { 0 };
    if nanos >= NANOS_OF_MILLI {
        return Err(Unreadable::Damaged("a millisecond has no more than a million nanoseconds"));
    }
    Instant { millis, nanos, places }.text().ok_or(Unreadable::Damaged("a time that no calendar has"))
}

/// Places behind the decimal point of the second.
const MILLIS: u8 = 3;
const NANOS: u8 = 9;

/// What `2026-01-15T11:00:00.250Z` says, with so many places of the second.
struct Instant {
    millis: Timestamp,
    /// Beyond the millisecond.
    nanos: u32,
    places: u8,
}

impl Instant {
    /// `None` for any text that [`Instant::text`] would not give back as it is.
    fn read(text: &str) -> Option<Self> {
        let (whole, fraction) = text.strip_suffix('Z')?.split_at_checked("2026-01-15T11:00:00".len())?;
        let digits = match fraction.strip_prefix('.') {
            Some(digits) if !digits.is_empty() && digits.len() <= usize::from(NANOS) => digits,
            None if fraction.is_empty() => fraction,
            Some(_) | None => return None,
        };
        let missing = u32::try_from(digits.len()).ok().and_then(|there| u32::from(NANOS).checked_sub(there))?;
        let nanos: i32 =
            if digits.is_empty() { 0 } else { number::<i32>(digits)?.checked_mul(10i32.checked_pow(missing)?)? };
        let mut parts = whole.split(['-', 'T', ':']);
        let mut part = |length: usize| parts.next().filter(|part| part.len() == length);
        let (year, month, day) = (part(4)?, part(2)?, part(2)?);
        let (hour, minute, second) = (part(2)?, part(2)?, part(2)?);
        let separators = [4, 7, 10, 13, 16].map(|at| whole.as_bytes().get(at).copied());
        if separators != *b"--T::".map(Some).as_slice() {
            return None;
        }
        let at = civil::DateTime::new(
            number(year)?,
            number(month)?,
            number(day)?,
            number(hour)?,
            number(minute)?,
            number(second)?,
            nanos,
        );
        let at = Offset::UTC.to_timestamp(at.ok()?).ok()?;
        let millis = Timestamp::from_millis(at.as_millisecond());
        let is_kept = at.as_second() >= 0 && millis.millis() == at.as_millisecond();
        let instant = Self {
            millis,
            nanos: u32::try_from(at.subsec_nanosecond()).ok()?.checked_rem(NANOS_OF_MILLI)?,
            places: u8::try_from(digits.len()).ok()?,
        };
        is_kept.then_some(instant)
    }

    fn text(&self) -> Option<Text> {
        let beyond = jiff::SignedDuration::from_nanos(self.nanos.into());
        let at = jiff::Timestamp::from_millisecond(self.millis.millis()).ok()?.checked_add(beyond).ok()?;
        Some(DateTimePrinter::new().precision(Some(self.places)).timestamp_to_string(&at).into())
    }
}

const NANOS_OF_MILLI: u32 = 1_000_000;

/// Of digits alone: no sign.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    if digits.bytes().all(|digit| digit.is_ascii_digit()) { digits.parse().ok() } else { None }
}
