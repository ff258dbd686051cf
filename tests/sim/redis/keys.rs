//! Commands for keys of any kind.

use bytes::Bytes;

use super::Flavour;
use super::command::{integer, is};
use super::keyspace::{Answer, Fault, Keyspace};
use super::number;
use super::resp::Reply;

pub fn del(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let removed = words[1..].iter().filter(|key| keys.take(key).is_some()).count();
    if removed > 0 {
        keys.tell_same(words);
    }
    Ok(Reply::Int(removed as i64))
}

/// What replicas of some servers hear of expired keys.
pub fn unlink(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    del(keys, words)
}

pub fn exists(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let found = words[1..].iter().filter(|key| keys.contains(key)).count();
    Ok(Reply::Int(found as i64))
}

pub fn pexpire(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let now = keys.now;
    expire(keys, words, now, "pexpire")
}

/// As servers tell their replicas.
pub fn pexpireat(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    expire(keys, words, 0, "pexpireat")
}

fn expire(keys: &mut Keyspace, words: &[Bytes], after: i64, name: &str) -> Answer {
    if let Some(option) = words.get(3) {
        if ["NX", "XX", "GT", "LT"].iter().any(|known| is(option, known)) {
            return Err(Fault::unmodelled("conditions of an expiry"));
        }
        return Err(Fault::of(format!("ERR Unsupported option {}", number::quoted(option))));
    }
    let at = integer(&words[2])?.checked_add(after);
    let at = at.ok_or_else(|| Fault::of(format!("ERR invalid expire time in '{name}' command")))?;
    let key = &words[1];
    if !keys.contains(key) {
        return Ok(Reply::Int(0));
    }
    if at <= keys.now && keys.removes_expired {
        keys.take(key);
        keys.tell_removed(key);
        return Ok(Reply::Int(1));
    }
    if let Some(entry) = keys.find_mut(key) {
        entry.expires_at = Some(at);
    }
    keys.tell(|| vec![Bytes::from_static(b"PEXPIREAT"), key.clone(), at.to_string().into()]);
    Ok(Reply::Int(1))
}

pub fn scan(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let cursor = match keys.flavour {
        Flavour::Redis70 => number::cursor(&words[1]),
        Flavour::Valkey9 => number::id_part(number::until_zero(&words[1])),
    };
    let cursor = cursor.ok_or_else(|| Fault::of("ERR invalid cursor"))?;
    let (mut pattern, mut count) = (None, 10);
    for option in words[2..].chunks(2) {
        match option {
            [name, value] if is(name, "COUNT") => count = integer(value)?,
            [name, value] if is(name, "MATCH") => pattern = Some(value),
            [name, _] if is(name, "TYPE") => return Err(Fault::unmodelled("SCAN by type")),
            _ => return Err(Fault::SYNTAX),
        }
        if count < 1 {
            return Err(Fault::SYNTAX);
        }
    }
    let (mut found, next) = keys.scan(cursor, count as usize);
    if let Some(pattern) = pattern {
        found.retain(|key| matches(pattern, key));
    }
    let found = found.into_iter().map(Reply::Bulk).collect();
    Ok(Reply::Array(vec![Reply::text(next.to_string()), Reply::Array(found)]))
}

/// Whether a name is of a pattern of stars and single characters.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', rest @ ..] => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        [b'?', rest @ ..] => !name.is_empty() && matches(rest, &name[1..]),
        [b'\\', exact, rest @ ..] | [exact, rest @ ..] => name.first() == Some(exact) && matches(rest, &name[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_servers_do() {
        let rows: [(&str, &str, bool); 7] = [
            ("nchf{*}s:*", "nchf{12ab}s:x", true),
            ("nchf{*}s:*", "nchf{12ab}a:x", false),
            ("nchf{*}s:*", "nchf{}s:", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a\\*", "a*", true),
        ];
        for (pattern, name, expected) in rows {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
