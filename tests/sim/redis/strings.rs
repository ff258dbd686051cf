//! Commands for strings.

use bytes::Bytes;

use super::command::{integer, is, places};
use super::keyspace::{Answer, Entry, Fault, Keyspace, Object};
use super::resp::Reply;

pub fn get(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    Ok(keys.string(&words[1])?.map_or(Reply::Nil, |bytes| Reply::Bulk(bytes.clone())))
}

pub fn mget(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    // A key of another kind is as good as none.
    let one = |key| keys.string(key).ok().flatten().map_or(Reply::Nil, |bytes| Reply::Bulk(bytes.clone()));
    Ok(Reply::Array(words[1..].iter().map(one).collect()))
}

pub fn getrange(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let (start, end) = (integer(&words[2])?, integer(&words[3])?);
    let Some(bytes) = keys.string(&words[1])? else { return Ok(Reply::Bulk(Bytes::new())) };
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::Bulk(Bytes::new()));
    }
    // An end before the beginning is the beginning.
    let end = if end < 0 { end.saturating_add(bytes.len() as i64).max(0) } else { end };
    Ok(Reply::Bulk(places(start, end, bytes.len()).map_or_else(Bytes::new, |places| bytes.slice(places))))
}

#[derive(Default)]
struct SetOptions {
    if_absent: bool,
    if_present: bool,
    keeps_expiry: bool,
    /// When it expires, and whether that counts from now.
    expires: Option<(Bytes, bool)>,
}

pub fn set(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let (key, value) = (&words[1], &words[2]);
    let options = set_options(&words[3..])?;
    let expires_at = match &options.expires {
        None => None,
        Some((time, is_relative)) => {
            let time = integer(time)?;
            let at = time.checked_add(if *is_relative { keys.now } else { 0 }).filter(|_| time > 0);
            Some(at.ok_or_else(|| Fault::of("ERR invalid expire time in 'set' command"))?)
        }
    };
    if (options.if_absent && keys.contains(key)) || (options.if_present && !keys.contains(key)) {
        return Ok(Reply::Nil);
    }
    let kept = if options.keeps_expiry { keys.find(key).and_then(|entry| entry.expires_at) } else { None };
    keys.put(key, Entry { object: Object::String(value.clone()), expires_at: expires_at.or(kept) });
    match expires_at {
        None => keys.tell_same(words),
        Some(at) => keys.tell(|| {
            let word = Bytes::from_static;
            vec![word(b"SET"), key.clone(), value.clone(), word(b"PXAT"), at.to_string().into()]
        }),
    }
    Ok(Reply::OK)
}

fn set_options(words: &[Bytes]) -> Result<SetOptions, Fault> {
    let mut options = SetOptions::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let has_expiry = options.expires.is_some() || options.keeps_expiry;
        if is(word, "NX") && !options.if_present {
            options.if_absent = true;
        } else if is(word, "XX") && !options.if_absent {
            options.if_present = true;
        } else if is(word, "KEEPTTL") && !has_expiry {
            options.keeps_expiry = true;
        } else if (is(word, "PX") || is(word, "PXAT")) && !has_expiry {
            let time = words.next().ok_or(Fault::SYNTAX)?;
            options.expires = Some((time.clone(), is(word, "PX")));
        } else if ["GET", "EX", "EXAT", "IFEQ"].iter().any(|other| is(word, other)) {
            return Err(Fault::unmodelled("an option of SET"));
        } else {
            return Err(Fault::SYNTAX);
        }
    }
    Ok(options)
}
