//! Commands for streams.

use bytes::Bytes;

use super::command::{integer, is};
use super::keyspace::{Answer, Fault, Keyspace, Object, Stream};
use super::number::{id_part, until_zero};
use super::resp::Reply;

type Id = (u64, u64);

const ID_MAX: Id = (u64::MAX, u64::MAX);

pub fn xadd(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let (key, at, pairs) = (&words[1], &words[2], &words[3..]);
    if ["MAXLEN", "MINID", "NOMKSTREAM", "LIMIT"].iter().any(|option| is(at, option)) {
        return Err(Fault::unmodelled("an option of XADD"));
    }
    // Times alone, or with any sequence number, are given by nobody.
    let id = if at == "*" { None } else { Some(id(at, 0)?) };
    if !pairs.len().is_multiple_of(2) || pairs.is_empty() {
        return Err(Fault::arity("xadd"));
    }
    if id == Some((0, 0)) {
        return Err(Fault::of("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let now = keys.now as u64;
    let Object::Stream(stream) = &mut keys.find_or_put(key, || Object::Stream(Stream::default())).object else {
        return Err(Fault::WRONG_TYPE);
    };
    if stream.last_id == ID_MAX {
        return Err(Fault::of("ERR The stream has exhausted the last possible ID, unable to add more items"));
    }
    let id = id.unwrap_or_else(|| if now > stream.last_id.0 { (now, 0) } else { after(stream.last_id) });
    if id <= stream.last_id {
        return Err(Fault::of("ERR The ID specified in XADD is equal or smaller than the target stream top item"));
    }
    stream.last_id = id;
    stream.entries.insert(id, pairs.to_vec());
    let id = written(id);
    keys.tell(|| {
        let mut told = words.to_vec();
        told[2] = id.clone();
        told
    });
    Ok(Reply::Bulk(id))
}

pub fn xlen(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    Ok(Reply::Int(keys.stream(&words[1])?.map_or(0, |stream| stream.entries.len()) as i64))
}

pub fn xdel(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let Some(stream) = keys.stream_mut(&words[1])? else { return Ok(Reply::Int(0)) };
    let ids = words[2..].iter().map(|word| id(word, 0)).collect::<Result<Vec<_>, _>>()?;
    let deleted = ids.iter().filter(|id| stream.entries.remove(id).is_some()).count();
    if deleted > 0 {
        keys.tell_same(words);
    }
    Ok(Reply::Int(deleted as i64))
}

pub fn xrange(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let start = match excluded(&words[2]) {
        None => limit(&words[2], 0)?,
        Some(word) => {
            let outside = id(word, 0)?;
            (outside < ID_MAX)
                .then(|| after(outside))
                .ok_or_else(|| Fault::of("ERR invalid start ID for the interval"))?
        }
    };
    let end = match excluded(&words[3]) {
        None => limit(&words[3], u64::MAX)?,
        Some(word) => {
            let outside = id(word, u64::MAX)?;
            (outside > (0, 0))
                .then(|| before(outside))
                .ok_or_else(|| Fault::of("ERR invalid end ID for the interval"))?
        }
    };
    let mut count = None;
    for option in words[4..].chunks(2) {
        match option {
            [name, value] if is(name, "COUNT") => count = Some(integer(value)?.max(0) as usize),
            _ => return Err(Fault::SYNTAX),
        }
    }
    let Some(stream) = keys.stream(&words[1])? else { return Ok(Reply::Array(Vec::new())) };
    if count == Some(0) {
        return Ok(Reply::NilArray);
    }
    if start > end {
        return Ok(Reply::Array(Vec::new()));
    }
    let entries = stream.entries.range(start..=end).take(count.unwrap_or(usize::MAX)).map(|(id, pairs)| {
        let pairs = pairs.iter().cloned().map(Reply::Bulk).collect();
        Reply::Array(vec![Reply::Bulk(written(*id)), Reply::Array(pairs)])
    });
    Ok(Reply::Array(entries.collect()))
}

/// The end of an interval.
fn limit(word: &[u8], missing: u64) -> Result<Id, Fault> {
    match word {
        b"-" => Ok((0, 0)),
        b"+" => Ok(ID_MAX),
        word => id(word, missing),
    }
}

fn excluded(word: &Bytes) -> Option<&[u8]> {
    word.strip_prefix(b"(")
}

/// `missing` is the sequence number where there is none.
fn id(word: &[u8], missing: u64) -> Result<Id, Fault> {
    let mut parts = until_zero(word).splitn(2, |byte| *byte == b'-');
    let time = parts.next().and_then(id_part);
    let sequence = parts.next().map_or(Some(missing), id_part);
    time.zip(sequence).ok_or_else(|| Fault::of("ERR Invalid stream ID specified as stream command argument"))
}

fn after((time, sequence): Id) -> Id {
    sequence.checked_add(1).map_or((time + 1, 0), |sequence| (time, sequence))
}

fn before((time, sequence): Id) -> Id {
    sequence.checked_sub(1).map_or((time.wrapping_sub(1), u64::MAX), |sequence| (time, sequence))
}

pub fn written((time, sequence): Id) -> Bytes {
    format!("{time}-{sequence}").into()
}
