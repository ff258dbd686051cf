//! Repeated, late and lost requests: what a request is to its session.
//!
//! Real consumers decide the rules. Most number their requests; some send the same number for ever; some change the
//! number of what they repeat; some merge what failed into the next request. The numbering is recognised at the
//! first Update and kept with the session.

use super::command::{Container, Fingerprint, Invocation, QuotaKey};
use super::decision::{Answer, Rejection};
use super::session::{ChargingSession, Numbering, Operation, Remembered, SeenContainer};

/// What a request is to its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    New,
    /// Done before: the same answer, nothing changes.
    Replayed(Answer),
    /// A marked retransmission whose content grew: the same answer, and what is new in it is charged late.
    Grown(Answer),
    /// Overtaken by newer requests, or after the end: usage is charged, no grant changes.
    Late,
}

/// Recognises a request. The first Update of a session settles its `numbering`.
///
/// # Errors
///
/// The rejections about numbers and keys, when the request contradicts what is remembered.
pub fn standing(
    session: &mut ChargingSession,
    operation: Operation,
    invocation: &Invocation,
) -> Result<Standing, Rejection> {
    if let (Numbering::Unknown, Operation::Update) = (&session.numbering, operation) {
        session.numbering = if invocation.number == session.first_number {
            Numbering::Constant { forgotten: Vec::new() }
        } else {
            Numbering::Sequenced(Vec::new())
        };
    }
    let found = found(session, operation, invocation)?;
    Ok(if found == Standing::New && session.is_closed() { Standing::Late } else { found })
}

/// The hash by which copies of a request are recognised. Where requests have the number of the Create, only the time
/// stamps or the consumer's own key tell two equal reports apart; a consumer that counts its Updates anew, from the
/// Create's number on, is recognised by the others. A session is released once, so its Release is recognised
/// whenever a copy was sent. The content names the number too.
pub fn mark(session: &ChargingSession, operation: Operation, invocation: &Invocation) -> u64 {
    let is_constant = matches!(session.numbering, Numbering::Constant { .. });
    let says_too_little = operation == Operation::Update && is_constant && invocation.number == session.first_number;
    let Fingerprint { content, exact } = invocation.fingerprint;
    match invocation.idempotency {
        Some(key) if says_too_little => content ^ key,
        None if says_too_little => exact,
        Some(_) | None => content,
    }
}

fn found(session: &ChargingSession, operation: Operation, invocation: &Invocation) -> Result<Standing, Rejection> {
    let mut done = session.remembered.iter().filter(|done| done.operation == operation);
    let mark = mark(session, operation, invocation);
    let replayed = |done: &Remembered| Ok(Standing::Replayed(done.answer.clone()));

    if let Some(key) = invocation.idempotency
        && let Some(done) = done.clone().find(|done| done.idempotency == Some(key))
    {
        return if done.mark == mark { replayed(done) } else { Err(Rejection::IdempotencyKeyReused) };
    }
    if let Some(done) = done.clone().find(|done| done.mark == mark) {
        return replayed(done);
    }
    if let (Operation::Update, Numbering::Constant { forgotten }) = (operation, &session.numbering) {
        return if forgotten.contains(&mark) { Err(Rejection::NumberForgotten) } else { Ok(Standing::New) };
    }

    let says_something = match session.numbering {
        Numbering::Sequenced(_) => true,
        Numbering::Unknown => invocation.number != session.first_number,
        Numbering::Constant { .. } => false,
    };
    match done.find(|done| done.number == invocation.number) {
        Some(done) if invocation.retransmission => return Ok(Standing::Grown(done.answer.clone())),
        Some(_) if says_something => return Err(Rejection::NumberReused),
        Some(_) | None => {}
    }
    Ok(match operation {
        Operation::Release => Standing::New,
        Operation::Create | Operation::Update if session.numbering.has_seen(invocation.number) => {
            return Err(Rejection::NumberForgotten);
        }
        Operation::Create | Operation::Update if session.numbering.is_behind(invocation.number) => Standing::Late,
        Operation::Create | Operation::Update => Standing::New,
    })
}

/// What identifies a container: rating group and number, and a hash of the rest that cannot change on the way.
pub fn seen_container(key: &QuotaKey, container: &Container) -> SeenContainer {
    use std::hash::{Hash, Hasher};

    // A fixed key: the hash is stored, and compared by other instances.
    let mut hasher = siphasher::sip::SipHasher13::new();
    (key, &container.units, container.closed_at, container.service_id).hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    SeenContainer {
        rating_group: key.rating_group,
        number: container.local_sequence_number,
        hash: u32::from_be_bytes([a, b, c, d]),
    }
}
