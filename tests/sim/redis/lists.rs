//! Commands for lists.

use std::collections::VecDeque;

use bytes::Bytes;

use super::command::{integer, places};
use super::keyspace::{Answer, Fault, Keyspace, Object};
use super::resp::Reply;

pub fn rpush(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let entry = keys.find_or_put(&words[1], || Object::List(VecDeque::new()));
    let Object::List(list) = &mut entry.object else { return Err(Fault::WRONG_TYPE) };
    list.extend(words[2..].iter().cloned());
    let length = list.len();
    keys.tell_same(words);
    Ok(Reply::Int(length as i64))
}

pub fn llen(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    Ok(Reply::Int(keys.list(&words[1])?.map_or(0, VecDeque::len) as i64))
}

pub fn lrange(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let (start, end) = (integer(&words[2])?, integer(&words[3])?);
    let Some(list) = keys.list(&words[1])? else { return Ok(Reply::Array(Vec::new())) };
    let Some(places) = places(start, end, list.len()) else { return Ok(Reply::Array(Vec::new())) };
    Ok(Reply::Array(list.range(places).cloned().map(Reply::Bulk).collect()))
}
