//! Sorted sets, and the commands for them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::Flavour;
use super::command::{integer, is, places};
use super::keyspace::{Answer, Fault, Keyspace, Object};
use super::number;
use super::resp::Reply;

/// Members by score, and within a score by their bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SortedSet {
    scores: BTreeMap<Bytes, f64>,
    order: Vec<(f64, Bytes)>,
}

impl SortedSet {
    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &(f64, Bytes)> {
        self.order.iter()
    }

    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    fn put(&mut self, member: &Bytes, score: f64) {
        self.remove(member);
        // Small sets keep whole numbers as such, where zero has no sign.
        let score = if score == 0.0 { 0.0 } else { score };
        let at = self.place(score, member).unwrap_or_else(|at| at);
        self.order.insert(at, (score, member.clone()));
        self.scores.insert(member.clone(), score);
    }

    fn remove(&mut self, member: &Bytes) -> bool {
        let Some(score) = self.scores.remove(member) else { return false };
        if let Ok(at) = self.place(score, member) {
            self.order.remove(at);
        }
        true
    }

    fn place(&self, score: f64, member: &Bytes) -> Result<usize, usize> {
        self.order.binary_search_by(|(other, name)| {
            other.partial_cmp(&score).unwrap_or(Ordering::Equal).then_with(|| name.cmp(member))
        })
    }

    /// Those with scores in a range. It may be one that ends before it begins.
    fn between(&self, range: &Scores) -> &[(f64, Bytes)] {
        let from = self.order.partition_point(|(score, _)| !range.begins_before(*score));
        let to = self.order.partition_point(|(score, _)| range.ends_after(*score));
        self.order.get(from..to).unwrap_or_default()
    }
}

/// A range of scores, as it is asked for.
struct Scores {
    min: (f64, bool),
    max: (f64, bool),
}

impl Scores {
    fn of(min: &[u8], max: &[u8]) -> Result<Self, Fault> {
        let range = number::score_limit(min).zip(number::score_limit(max));
        let (min, max) = range.ok_or_else(|| Fault::of("ERR min or max is not a float"))?;
        Ok(Self { min, max })
    }

    fn begins_before(&self, score: f64) -> bool {
        let (min, is_excluded) = self.min;
        if is_excluded { score > min } else { score >= min }
    }

    fn ends_after(&self, score: f64) -> bool {
        let (max, is_excluded) = self.max;
        if is_excluded { score < max } else { score <= max }
    }
}

/// The end of a range of members.
#[derive(PartialEq)]
enum Name {
    First,
    Last,
    Included(Bytes),
    Excluded(Bytes),
}

impl Name {
    fn of(word: &Bytes) -> Result<Self, Fault> {
        match &word[..] {
            b"-" => Ok(Self::First),
            b"+" => Ok(Self::Last),
            [b'[', ..] => Ok(Self::Included(word.slice(1..))),
            [b'(', ..] => Ok(Self::Excluded(word.slice(1..))),
            _ => Err(Fault::of("ERR min or max not valid string range item")),
        }
    }

    fn begins_before(&self, member: &Bytes) -> bool {
        match self {
            Self::First => true,
            Self::Last => false,
            Self::Included(name) => member >= name,
            Self::Excluded(name) => member > name,
        }
    }

    fn ends_after(&self, member: &Bytes) -> bool {
        match self {
            Self::First => false,
            Self::Last => true,
            Self::Included(name) => member <= name,
            Self::Excluded(name) => member < name,
        }
    }
}

#[derive(Default)]
struct AddOptions {
    only_new: bool,
    only_known: bool,
    only_greater: bool,
    only_less: bool,
    counts_changed: bool,
}

impl AddOptions {
    /// Takes an option; whether the word is one.
    fn take(&mut self, word: &[u8]) -> Result<bool, Fault> {
        let options = [
            ("NX", &mut self.only_new),
            ("XX", &mut self.only_known),
            ("GT", &mut self.only_greater),
            ("LT", &mut self.only_less),
            ("CH", &mut self.counts_changed),
        ];
        for (name, option) in options {
            if is(word, name) {
                *option = true;
                return Ok(true);
            }
        }
        if is(word, "INCR") { Err(Fault::unmodelled("an option of ZADD")) } else { Ok(false) }
    }

    fn check(&self) -> Result<(), Fault> {
        if self.only_new && self.only_known {
            return Err(Fault::of("ERR XX and NX options at the same time are not compatible"));
        }
        let limits = [self.only_greater, self.only_less, self.only_new];
        if limits.into_iter().filter(|limit| *limit).count() > 1 {
            return Err(Fault::of("ERR GT, LT, and/or NX options at the same time are not compatible"));
        }
        Ok(())
    }

    fn allows(&self, old: Option<f64>, new: f64) -> bool {
        match old {
            None => !self.only_known,
            Some(old) => {
                let is_better = (!self.only_greater || new > old) && (!self.only_less || new < old);
                !self.only_new && new != old && is_better
            }
        }
    }
}

pub fn zadd(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let (mut options, mut at) = (AddOptions::default(), 2);
    while at < words.len() && options.take(&words[at])? {
        at += 1;
    }
    let pairs = &words[at..];
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Fault::SYNTAX);
    }
    options.check()?;
    let score = |pair: &[Bytes]| number::score(&pair[0]).ok_or_else(|| Fault::of("ERR value is not a valid float"));
    let scores = pairs.chunks(2).map(score).collect::<Result<Vec<_>, _>>()?;
    if keys.sorted_set(&words[1])?.is_none() && options.only_known {
        return Ok(Reply::Int(0));
    }
    let object = &mut keys.find_or_put(&words[1], || Object::SortedSet(SortedSet::default())).object;
    let Object::SortedSet(set) = object else { return Err(Fault::WRONG_TYPE) };
    let (mut added, mut moved) = (0, 0);
    for (pair, score) in pairs.chunks(2).zip(scores) {
        let old = set.score(&pair[1]);
        if options.allows(old, score) {
            set.put(&pair[1], score);
            *if old.is_none() { &mut added } else { &mut moved } += 1;
        }
    }
    if added + moved > 0 {
        keys.tell_same(words);
    }
    Ok(Reply::Int(if options.counts_changed { added + moved } else { added }))
}

pub fn zrem(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let Some(set) = keys.sorted_set_mut(&words[1])? else { return Ok(Reply::Int(0)) };
    let removed = words[2..].iter().filter(|member| set.remove(member)).count();
    if set.len() == 0 {
        keys.take(&words[1]);
    }
    if removed > 0 {
        keys.tell_same(words);
    }
    Ok(Reply::Int(removed as i64))
}

pub fn zcard(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    Ok(Reply::Int(keys.sorted_set(&words[1])?.map_or(0, SortedSet::len) as i64))
}

pub fn zcount(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let range = Scores::of(&words[2], &words[3])?;
    Ok(Reply::Int(keys.sorted_set(&words[1])?.map_or(0, |set| set.between(&range).len()) as i64))
}

pub fn zscore(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let flavour = keys.flavour;
    let score = keys.sorted_set(&words[1])?.and_then(|set| set.score(&words[2]));
    Ok(score.map_or(Reply::Nil, |score| Reply::Bulk(number::written(flavour, score))))
}

/// Which ones is for chance, and so is their order: a count below zero draws every time from all.
pub fn zrandmember(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let (key, flavour) = (&words[1], keys.flavour);
    let Some(count) = words.get(2) else {
        let length = keys.sorted_set(key)?.map_or(0, SortedSet::len);
        let drawn = keys.draw(length);
        let member = keys.sorted_set(key)?.and_then(|set| set.order.get(drawn));
        return Ok(member.map_or(Reply::Nil, |(_, member)| Reply::Bulk(member.clone())));
    };
    let count = integer(count)?;
    if count == i64::MIN {
        return Err(Fault::of(format!("ERR value is out of range, value must between {} and {}", -i64::MAX, i64::MAX)));
    }
    let with_scores = match &words[3..] {
        [] => false,
        [option] if is(option, "WITHSCORES") => true,
        _ => return Err(Fault::SYNTAX),
    };
    let length = keys.sorted_set(key)?.map_or(0, SortedSet::len);
    let mut places: Vec<usize> = (0..length).collect();
    if count < 0 {
        let wanted = if length == 0 { 0 } else { count.unsigned_abs() as usize };
        places = (0..wanted).map(|_| keys.draw(length)).collect();
    }
    while places.len() as u64 > count.unsigned_abs() {
        let at = keys.draw(places.len());
        places.remove(at);
    }
    let order = keys.sorted_set(key)?.map_or(&[][..], |set| &set.order);
    Ok(members(places.into_iter().map(|at| &order[at]), with_scores, flavour))
}

fn members<'m>(found: impl Iterator<Item = &'m (f64, Bytes)>, with_scores: bool, flavour: Flavour) -> Reply {
    let mut answer = Vec::with_capacity(found.size_hint().0 * (1 + usize::from(with_scores)));
    for (score, member) in found {
        answer.push(Reply::Bulk(member.clone()));
        if with_scores {
            answer.push(Reply::Bulk(number::written(flavour, *score)));
        }
    }
    Reply::Array(answer)
}

/// How a range is meant.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Place,
    Score,
    Name,
}

struct RangeOptions {
    by: By,
    with_scores: bool,
    is_reverse: bool,
    /// How many to skip, and how many to answer.
    limit: Option<(i64, i64)>,
}

pub fn zrange(keys: &mut Keyspace, words: &[Bytes]) -> Answer {
    let options = range_options(&words[4..])?;
    let (key, flavour) = (&words[1], keys.flavour);
    let (min, max) =
        if options.is_reverse && options.by != By::Place { (&words[3], &words[2]) } else { (&words[2], &words[3]) };
    let found: Vec<&(f64, Bytes)> = match options.by {
        By::Place => {
            let (start, end) = (integer(min)?, integer(max)?);
            let set = keys.sorted_set(key)?;
            let places = set.and_then(|set| places(start, end, set.len()));
            let Some((set, places)) = set.zip(places) else { return Ok(Reply::Array(Vec::new())) };
            let from_front = |at: usize| if options.is_reverse { set.len() - 1 - at } else { at };
            places.map(|at| &set.order[from_front(at)]).collect()
        }
        By::Score => {
            let range = Scores::of(min, max)?;
            let found = keys.sorted_set(key)?.map_or(&[][..], |set| set.between(&range));
            limited(found, &options)
        }
        By::Name => {
            let (min, max) = (Name::of(min)?, Name::of(max)?);
            let found = keys.sorted_set(key)?.map_or(&[][..], |set| named_between(&set.order, &min, &max));
            limited(found, &options)
        }
    };
    Ok(members(found.into_iter(), options.with_scores, flavour))
}

fn range_options(words: &[Bytes]) -> Result<RangeOptions, Fault> {
    let mut options = RangeOptions { by: By::Place, with_scores: false, is_reverse: false, limit: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if is(word, "WITHSCORES") {
            options.with_scores = true;
        } else if is(word, "LIMIT") && words.len() >= 2 {
            let mut number = || words.next().map_or(Err(Fault::SYNTAX), |word| integer(word));
            options.limit = Some((number()?, number()?));
        } else if is(word, "REV") {
            options.is_reverse = true;
        } else if is(word, "BYSCORE") {
            options.by = By::Score;
        } else if is(word, "BYLEX") {
            options.by = By::Name;
        } else {
            return Err(Fault::SYNTAX);
        }
    }
    if options.limit.is_some_and(|(_, count)| count != -1) && options.by == By::Place {
        return Err(Fault::of("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"));
    }
    if options.with_scores && options.by == By::Name {
        return Err(Fault::of("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
    }
    Ok(options)
}

fn limited<'s>(found: &'s [(f64, Bytes)], options: &RangeOptions) -> Vec<&'s (f64, Bytes)> {
    let (skipped, count) = options.limit.unwrap_or((0, -1));
    // Fewer than none are skipped by going on until nothing is left.
    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if options.is_reverse {
        found.iter().rev().skip(skipped).take(count).collect()
    } else {
        found.iter().skip(skipped).take(count).collect()
    }
}

/// Makes sense where all scores are equal; otherwise as the servers do it for small sets.
fn named_between<'s>(order: &'s [(f64, Bytes)], min: &Name, max: &Name) -> &'s [(f64, Bytes)] {
    let is_in_range = order.last().is_some_and(|(_, last)| min.begins_before(last))
        && order.first().is_some_and(|(_, first)| max.ends_after(first));
    if !is_in_range {
        return &[];
    }
    let from = order.iter().position(|(_, member)| min.begins_before(member)).unwrap_or(order.len());
    let length = order[from..].iter().position(|(_, member)| !max.ends_after(member));
    &order[from..length.map_or(order.len(), |length| from + length)]
}

/// For those who look at a set from outside.
pub fn with_scores(set: &SortedSet, flavour: Flavour) -> Vec<(Bytes, Bytes)> {
    set.iter().map(|(score, member)| (member.clone(), number::written(flavour, *score))).collect()
}
