//! The document of a session. Its times count from its last update.

use super::bytes::{Reader, Writer};
use super::{Compact, Result, Sparse, Unreadable};
use crate::charging::decision::{Answer, Outcome};
use crate::charging::ids::{ChargingDataRef, RatingGroup};
use crate::charging::session::{
    ChargingSession, ContainerMemory, Grant, Meter, Numbering, Operation, Payer, Quota, RecordSoFar, Remembered,
    SeenContainer, SessionState,
};
use crate::charging::text::Text;

/// Appends a session to `bytes`, without its reference: that is the key of the document.
pub fn write_session(session: &ChargingSession, bytes: Vec<u8>) -> Vec<u8> {
    let mut to = Writer::starting(bytes, session.updated_at, &[]);
    session.write(&mut to);
    to.finish()
}

/// Reads what [`write_session`] wrote and the store keeps under `reference`.
pub fn read_session(reference: &ChargingDataRef, bytes: &[u8]) -> Result<ChargingSession> {
    let mut from = Reader::starting(bytes)?;
    from.reference = Some(reference);
    let session = ChargingSession::read(&mut from)?;
    from.finish()?;
    Ok(session)
}

fields!(ChargingSession {
    reference, state, service, consumer, opened_at, updated_at, first_number, numbering, remembered, containers, quotas;
    payer, notify_uri, features, meters, blocks, charged, timer_at, pdu_session_key, record
});
fields!(Payer { subscriber, account, plan, plan_version; named, final_unit });
fields!(Grant { kind, granted, plan_version; used, reserved, valid_until });
fields!(Meter { rating_group, price; used });
fields!(RecordSoFar { ; part, opened_at, octets });

/// Known from elsewhere.
impl Compact for ChargingDataRef {
    fn write(&self, _: &mut Writer<'_>) {}

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        from.reference.cloned().ok_or(Unreadable::Damaged("a session outside of its document"))
    }
}

impl Compact for SessionState {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Active => to.number(0),
            Self::Probing { since } => {
                to.number(1);
                since.write(to);
            }
            Self::Aborting { since } => {
                to.number(2);
                since.write(to);
            }
            Self::Closed { at, cause } => {
                to.number(3);
                at.write(to);
                cause.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(match from.number()? {
            0 => Self::Active,
            1 => Self::Probing { since: Compact::read(from)? },
            2 => Self::Aborting { since: Compact::read(from)? },
            3 => Self::Closed { at: Compact::read(from)?, cause: Compact::read(from)? },
            _ => return Err(Unreadable::Newer),
        })
    }
}

impl Compact for Numbering {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Unknown => to.number(0),
            Self::Sequenced(ranges) => {
                to.number(1);
                ranges.write(to);
            }
            Self::Constant { forgotten } => {
                to.number(2);
                to.length(forgotten.len());
                forgotten.iter().for_each(|mark| to.mark(*mark));
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(match from.number()? {
            0 => Self::Unknown,
            1 => Self::Sequenced(Compact::read(from)?),
            2 => {
                let length = from.length()?;
                Self::Constant { forgotten: (0..length).map(|_| from.mark()).collect::<Result<_>>()? }
            }
            _ => return Err(Unreadable::Newer),
        })
    }
}

/// A range of numbers.
impl Compact for (u32, u32) {
    fn write(&self, to: &mut Writer<'_>) {
        let (first, last) = *self;
        to.number(first.into());
        to.difference(last.into(), first.into());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let first = Compact::read(from)?;
        Ok((first, read_near(first, from)?))
    }
}

/// A number that was written as its difference from another one.
fn read_near(other: u32, from: &mut Reader<'_>) -> Result<u32> {
    let number = from.difference(other.into())?;
    u32::try_from(number).map_err(|_| Unreadable::Damaged("a number does not fit into 32 bits"))
}

/// Answers are alike: what is granted rarely changes from one to the next.
impl Compact for Remembered {
    fn write(&self, to: &mut Writer<'_>) {
        self.write_after(None, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Self::read_after(None, from)
    }

    fn write_after(&self, before: Option<&Self>, to: &mut Writer<'_>) {
        let Self { operation, number, mark, idempotency, answer } = self;
        let Answer { outcome, at, number: answered, features, results } = answer;
        let has_usual_outcome = *outcome == usual_outcome(*operation);
        let repeats_results = before.is_some_and(|before| before.answer.results == *results);
        to.bits(&[
            *operation == Operation::Create,
            *operation == Operation::Release,
            !has_usual_outcome,
            idempotency.is_there(),
            features.is_there(),
            repeats_results,
            answered == number,
        ]);
        if !has_usual_outcome {
            outcome.write(to);
        }
        if let Some(idempotency) = idempotency {
            to.mark(*idempotency);
        }
        to.sparse(features);
        to.difference((*number).into(), before.map_or(0, |before| before.number.into()));
        if answered != number {
            to.difference((*answered).into(), (*number).into());
        }
        to.mark(*mark);
        at.write(to);
        if !repeats_results {
            results.write(to);
        }
    }

    fn read_after(before: Option<&Self>, from: &mut Reader<'_>) -> Result<Self> {
        let mut there = from.bits(7)?;
        let operation = match (there.next(), there.next()) {
            (false, false) => Operation::Update,
            (true, false) => Operation::Create,
            (false, true) => Operation::Release,
            (true, true) => return Err(Unreadable::Newer),
        };
        let has_usual_outcome = !there.next();
        let outcome = if has_usual_outcome { usual_outcome(operation) } else { Compact::read(from)? };
        let idempotency = if there.next() { Some(from.mark()?) } else { None };
        let features = there.read(from)?;
        let (repeats_results, answers_number) = (there.next(), there.next());
        let number = read_near(before.map_or(0, |before| before.number), from)?;
        let answered = if answers_number { number } else { read_near(number, from)? };
        let mark = from.mark()?;
        let at = Compact::read(from)?;
        let results = match before {
            Some(before) if repeats_results => before.answer.results.clone(),
            None if repeats_results => return Err(Unreadable::Damaged("the first answer repeats another one")),
            Some(_) | None => Compact::read(from)?,
        };
        let answer = Answer { outcome, at, number: answered, features, results };
        Ok(Self { operation, number, mark, idempotency, answer })
    }
}

const fn usual_outcome(operation: Operation) -> Outcome {
    match operation {
        Operation::Create => Outcome::Created,
        Operation::Update => Outcome::Updated,
        Operation::Release => Outcome::Released,
    }
}

/// Most consumers report the same rating groups each time and number what they report in a row: then the first of each
/// say where all others stand, and only the hashes are left. Once each was written with its rating group and number, as
/// the first of the bits still says.
impl Compact for ContainerMemory {
    fn write(&self, to: &mut Writer<'_>) {
        let Self { grows, unreliable, seen } = self;
        to.bits(&[false, *grows, *unreliable, !seen.is_empty()]);
        if seen.is_empty() {
            return;
        }
        let period = period(seen);
        to.length(seen.len());
        to.length(period);
        let mut before = None;
        for one in seen.iter().take(period) {
            write_place(one, before, to);
            before = Some(one);
        }
        seen.iter().for_each(|one| to.short_mark(one.hash));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let mut there = from.bits(4)?;
        let mut seen: Vec<SeenContainer> = there.read(from)?;
        let (grows, unreliable) = (there.next(), there.next());
        if there.next() {
            let (length, period) = (from.length()?, from.length()?);
            if period == 0 || period > length {
                return Err(Unreadable::Damaged("containers without a first one"));
            }
            seen = Vec::with_capacity(length);
            for _ in 0..period {
                let (rating_group, number) = read_place(seen.last(), from)?;
                seen.push(SeenContainer { rating_group, number, hash: 0 });
            }
            for at in period..length {
                seen.extend(at.checked_sub(period).and_then(|at| seen.get(at)).map(next_after));
            }
            for one in &mut seen {
                one.hash = from.short_mark()?;
            }
        }
        Ok(Self { grows, unreliable, seen })
    }
}

/// The shortest distance at which each container follows another one: that of the same rating group with the number
/// before.
fn period(seen: &[SeenContainer]) -> usize {
    let follows = |(one, next): (&SeenContainer, &SeenContainer)| next.has_place_of(&next_after(one));
    (1..seen.len()).find(|period| seen.iter().zip(seen.iter().skip(*period)).all(follows)).unwrap_or(seen.len())
}

fn next_after(one: &SeenContainer) -> SeenContainer {
    SeenContainer { number: one.number.wrapping_add(1), ..*one }
}

/// Numbers grow by little.
fn write_place(one: &SeenContainer, before: Option<&SeenContainer>, to: &mut Writer<'_>) {
    one.rating_group.write(to);
    to.difference(one.number, before.map_or(0, |before| before.number));
}

fn read_place(before: Option<&SeenContainer>, from: &mut Reader<'_>) -> Result<(RatingGroup, i64)> {
    let rating_group = Compact::read(from)?;
    Ok((rating_group, from.difference(before.map_or(0, |before| before.number))?))
}

/// As an item of the list that was written once.
impl Compact for SeenContainer {
    fn write(&self, to: &mut Writer<'_>) {
        self.write_after(None, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Self::read_after(None, from)
    }

    fn write_after(&self, before: Option<&Self>, to: &mut Writer<'_>) {
        write_place(self, before, to);
        to.short_mark(self.hash);
    }

    fn read_after(before: Option<&Self>, from: &mut Reader<'_>) -> Result<Self> {
        let (rating_group, number) = read_place(before, from)?;
        Ok(Self { rating_group, number, hash: from.short_mark()? })
    }
}

impl Compact for Quota {
    fn write(&self, to: &mut Writer<'_>) {
        self.write_after(None, to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Self::read_after(None, from)
    }

    fn write_after(&self, before: Option<&Self>, to: &mut Writer<'_>) {
        let Self { key, grant, used, last_code, final_unit, expired } = self;
        key.write_after(before.map(|before| &before.key), to);
        to.bits(&[grant.is_there(), used.is_there(), last_code.is_there(), *final_unit, *expired]);
        to.sparse(grant);
        to.sparse(used);
        to.sparse(last_code);
    }

    fn read_after(before: Option<&Self>, from: &mut Reader<'_>) -> Result<Self> {
        let key = Compact::read_after(before.map(|before| &before.key), from)?;
        let mut there = from.bits(5)?;
        Ok(Self {
            key,
            grant: there.read(from)?,
            used: there.read(from)?,
            last_code: there.read(from)?,
            final_unit: there.next(),
            expired: there.next(),
        })
    }
}

/// The mark of a block.
impl Compact for (Text, u64) {
    fn write(&self, to: &mut Writer<'_>) {
        let (name, mark) = self;
        to.word(name);
        to.mark(*mark);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok((from.text()?, from.mark()?))
    }
}

/// Two halves of a hash.
impl Compact for (u64, u64) {
    fn write(&self, to: &mut Writer<'_>) {
        let (high, low) = *self;
        to.mark(high);
        to.mark(low);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok((from.mark()?, from.mark()?))
    }
}

impl Sparse for RecordSoFar {
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
