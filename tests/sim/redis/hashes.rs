//! Commands for hashes.

use bytes::Bytes;

use super::keyspace::{Answer, Fault, Keyspace, Object};
use super::resp::Reply;

type Fields = Vec<(Bytes, Bytes)>;

pub fn hset(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let pairs = &words[2..];
    if !pairs.len().is_multiple_of(2) {
        return Err(Fault::arity("hset"));
    }
    let mut created = 0;
    for pair in pairs.chunks(2) {
        created += i64::from(put(fields(keys, &words[1])?, &pair[0], &pair[1]));
    }
    keys.tell_same(words);
    Ok(Reply::Int(created))
}

pub fn hsetnx(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    if keys.hash(&words[1])?.is_some_and(|fields| find(fields, &words[2]).is_some()) {
        return Ok(Reply::Int(0));
    }
    put(fields(keys, &words[1])?, &words[2], &words[3]);
    keys.tell_same(words);
    Ok(Reply::Int(1))
}

pub fn hget(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    Ok(value(keys.hash(&words[1])?, &words[2]))
}

pub fn hmget(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let fields = keys.hash(&words[1])?;
    Ok(Reply::Array(words[2..].iter().map(|field| value(fields, field)).collect()))
}

pub fn hdel(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    if keys.hash(&words[1])?.is_none() {
        return Ok(Reply::Int(0));
    }
    let fields = fields(keys, &words[1])?;
    let before = fields.len();
    fields.retain(|(field, _)| !words[2..].contains(field));
    let (removed, is_empty) = (before - fields.len(), fields.is_empty());
    if is_empty {
        keys.take(&words[1]);
    }
    if removed > 0 {
        keys.tell_same(words);
    }
    Ok(Reply::Int(removed as i64))
}

pub fn hlen(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    Ok(Reply::Int(keys.hash(&words[1])?.map_or(0, Vec::len) as i64))
}

pub fn hgetall(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let fields = keys.hash(&words[1])?.into_iter().flatten();
    Ok(Reply::Array(fields.flat_map(|(field, value)| [field, value]).cloned().map(Reply::Bulk).collect()))
}

fn fields<'k>(keys: &'k mut Keyspace, key: &Bytes) -> Result<&'k mut Fields, Fault> {
    match &mut keys.find_or_put(key, || Object::Hash(Fields::new())).object {
        Object::Hash(fields) => Ok(fields),
        _ => Err(Fault::WRONG_TYPE),
    }
}

fn find<'f>(fields: &'f Fields, field: &Bytes) -> Option<&'f Bytes> {
    fields.iter().find(|(name, _)| name == field).map(|(_, value)| value)
}

fn value(fields: Option<&Fields>, field: &Bytes) -> Reply {
    fields.and_then(|fields| find(fields, field)).map_or(Reply::Nil, |value| Reply::Bulk(value.clone()))
}

/// Whether the field is new.
fn put(fields: &mut Fields, field: &Bytes, value: &Bytes) -> bool {
    match fields.iter_mut().find(|(name, _)| name == field) {
        Some((_, old)) => {
            *old = value.clone();
            false
        }
        None => {
            fields.push((field.clone(), value.clone()));
            true
        }
    }
}
