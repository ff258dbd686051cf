//! Reads what Redis answers. Anything of another shape is `Corrupt`, and never quoted: it may hold an identity.

use bytes::Bytes;
use redis::Value;

use super::steps::VERSION_LENGTH;
use crate::charging::ids::ChargingDataRef;
use crate::charging::time::Timestamp;
use crate::store::{Document, Due, Error, OutboxId, Version};

/// A member of a sorted set with its score, as Redis wrote it: the next call gives it back unchanged.
pub struct Scored {
    pub member: Box<str>,
    pub score: Box<str>,
}

impl Scored {
    pub fn is_at(&self, score: i64) -> bool {
        self.score.parse::<f64>().is_ok_and(|found| found as i64 == score)
    }
}

pub fn due(entry: Scored) -> Result<Due, Error> {
    let at = time(&entry.score)?;
    Ok(Due { key: ChargingDataRef::new(entry.member), at })
}

/// The score of a timer entry.
pub fn time(score: &str) -> Result<Timestamp, Error> {
    score.parse().map(Timestamp::from_millis).map_err(|_| Error::corrupt(format!("a timer at {score}")))
}

pub fn count(value: &Value) -> Result<u64, Error> {
    match value {
        Value::Int(count) => u64::try_from(*count).map_err(|_| Error::corrupt("a count below nothing")),
        _ => Err(Error::corrupt("a count of another shape")),
    }
}

pub fn outbox_entry(value: Value) -> Result<(OutboxId, Bytes), Error> {
    let unreadable = || Error::corrupt("an outbox entry of another shape");
    let mut entry = array(value)?.into_iter();
    let id = text(entry.next().ok_or_else(unreadable)?)?;
    let (millis, sequence) = id.split_once('-').ok_or_else(unreadable)?;
    let numbers = (millis.parse::<u64>(), sequence.parse::<u64>());
    let (Ok(millis), Ok(sequence)) = numbers else { return Err(unreadable()) };
    let fields = array(entry.next().ok_or_else(unreadable)?)?;
    // One field, written by the commit function.
    let value = fields.into_iter().nth(1).ok_or_else(unreadable)?;
    Ok((OutboxId(format!("{millis:016x}{sequence:016x}").into()), bytes(value)?))
}

/// The id as Redis knows it; `None` for a text that [`outbox_entry`] never made. Ours are of fixed length, so that they
/// sort as texts.
pub fn stream_id(id: &OutboxId) -> Option<String> {
    let (millis, sequence) = id.0.split_at_checked(16).filter(|_| id.0.len() == 32)?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(format!("{}-{}", number(millis)?, number(sequence)?))
}

pub fn document(value: Value) -> Result<Option<Document>, Error> {
    let Some(mut bytes) = optional_bytes(value)? else { return Ok(None) };
    let version = bytes.first_chunk::<VERSION_LENGTH>().copied().map(u64::from_be_bytes);
    let version = version.ok_or_else(|| Error::corrupt("a document too short to hold its version"))?;
    Ok(Some(Document { version: Version(version), bytes: bytes.split_off(VERSION_LENGTH) }))
}

/// The versions of the documents that a refused call answers with.
pub fn versions(current: Value) -> Result<Vec<Version>, Error> {
    let documents = array(current)?.into_iter().map(document);
    documents.map(|found| Ok(found?.map_or(Version::ABSENT, |found| found.version))).collect()
}

pub fn optional_bytes(value: Value) -> Result<Option<Bytes>, Error> {
    match value {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}

pub fn bytes(value: Value) -> Result<Bytes, Error> {
    match value {
        Value::BulkString(bytes) => Ok(Bytes::from(bytes)),
        other => Err(unexpected(&other)),
    }
}

pub fn text(value: Value) -> Result<Box<str>, Error> {
    match value {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map(Into::into).map_err(|_| Error::corrupt("a name in the store that is no text"))
        }
        Value::SimpleString(text) => Ok(text.into()),
        other => Err(unexpected(&other)),
    }
}

pub fn array(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected(&other)),
    }
}

pub fn scored(value: Value) -> Result<Vec<Scored>, Error> {
    let mut values = array(value)?.into_iter();
    let mut entries = Vec::with_capacity(values.len() / 2);
    while let (Some(member), Some(score)) = (values.next(), values.next()) {
        entries.push(Scored { member: text(member)?, score: text(score)? });
    }
    Ok(entries)
}

/// Names the kind of answer, never its content.
fn unexpected(value: &Value) -> Error {
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "a text",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    Error::corrupt(format!("Redis answered {kind} where another kind of answer was due"))
}
