//! Which commands there are, and what is known of each before it runs.

use bytes::Bytes;

use super::Flavour;
use super::keyspace::{Answer, Fault, Keyspace};
use super::{hashes, keys, lists, number, sorted_set, streams, strings};

/// A command as the servers' table has it.
pub struct Command {
    pub name: &'static str,
    /// Words of a call, the name included; less than zero for at least so many.
    arity: i32,
    pub traits: u16,
    pub keys: Keys,
    /// What works on keys alone; everything else is for the server to do.
    pub run: Option<fn(&mut Keyspace, &[Bytes]) -> Answer>,
}

/// Changes keys.
pub const WRITES: u16 = 1;
/// May need memory, and is refused when that is full.
pub const GROWS: u16 = 1 << 1;
/// Allowed while the server loads its data.
pub const WHILE_LOADING: u16 = 1 << 2;
/// Allowed on a replica that has lost its master and must not answer from old data.
pub const WHILE_STALE: u16 = 1 << 3;
/// Allowed while a script runs for long.
pub const WHILE_BUSY: u16 = 1 << 4;
/// Not queued after MULTI.
pub const AT_ONCE: u16 = 1 << 5;
/// Concerns the connection or the server, not the data.
const ALWAYS: u16 = WHILE_LOADING | WHILE_STALE;

/// Which words are keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    None,
    First,
    All,
    /// The second word says how many, and they follow it.
    Counted,
}

const fn data(
    name: &'static str,
    arity: i32,
    traits: u16,
    keys: Keys,
    run: fn(&mut Keyspace, &[Bytes]) -> Answer,
) -> Command {
    Command { name, arity, traits, keys, run: Some(run) }
}

const fn serving(name: &'static str, arity: i32, traits: u16, keys: Keys) -> Command {
    Command { name, arity, traits, keys, run: None }
}

/// In the order of their names.
const COMMANDS: &[Command] = &[
    serving("asking", 1, 0, Keys::None),
    serving("auth", -2, ALWAYS | WHILE_BUSY, Keys::None),
    serving("client", -2, ALWAYS, Keys::None),
    serving("cluster", -2, WHILE_STALE | WHILE_LOADING, Keys::None),
    serving("config", -2, ALWAYS, Keys::None),
    data("del", -2, WRITES, Keys::All, keys::del),
    serving("discard", 1, ALWAYS | WHILE_BUSY | AT_ONCE, Keys::None),
    serving("eval", -3, WHILE_STALE, Keys::Counted),
    serving("exec", 1, ALWAYS | AT_ONCE, Keys::None),
    data("exists", -2, 0, Keys::All, keys::exists),
    serving("fcall", -3, WHILE_STALE, Keys::Counted),
    serving("fcall_ro", -3, WHILE_STALE, Keys::Counted),
    serving("function", -2, 0, Keys::None),
    data("get", 2, 0, Keys::First, strings::get),
    data("getrange", 4, 0, Keys::First, strings::getrange),
    data("hdel", -3, WRITES, Keys::First, hashes::hdel),
    serving("hello", -1, ALWAYS | WHILE_BUSY, Keys::None),
    data("hget", 3, 0, Keys::First, hashes::hget),
    data("hgetall", 2, 0, Keys::First, hashes::hgetall),
    data("hlen", 2, 0, Keys::First, hashes::hlen),
    data("hmget", -3, 0, Keys::First, hashes::hmget),
    data("hset", -4, WRITES | GROWS, Keys::First, hashes::hset),
    data("hsetnx", 4, WRITES | GROWS, Keys::First, hashes::hsetnx),
    serving("info", -1, ALWAYS, Keys::None),
    data("llen", 2, 0, Keys::First, lists::llen),
    data("lrange", 4, 0, Keys::First, lists::lrange),
    data("mget", -2, 0, Keys::All, strings::mget),
    serving("multi", 1, ALWAYS | WHILE_BUSY | AT_ONCE, Keys::None),
    data("pexpire", -3, WRITES, Keys::First, keys::pexpire),
    data("pexpireat", -3, WRITES, Keys::First, keys::pexpireat),
    serving("ping", -1, 0, Keys::None),
    serving("role", 1, ALWAYS, Keys::None),
    data("rpush", -3, WRITES | GROWS, Keys::First, lists::rpush),
    data("scan", -2, 0, Keys::None, keys::scan),
    serving("select", 2, ALWAYS, Keys::None),
    data("set", -3, WRITES | GROWS, Keys::First, strings::set),
    data("unlink", -2, WRITES, Keys::All, keys::unlink),
    serving("wait", 3, 0, Keys::None),
    data("xadd", -5, WRITES | GROWS, Keys::First, streams::xadd),
    data("xdel", -3, WRITES, Keys::First, streams::xdel),
    data("xlen", 2, 0, Keys::First, streams::xlen),
    data("xrange", -4, 0, Keys::First, streams::xrange),
    data("zadd", -4, WRITES | GROWS, Keys::First, sorted_set::zadd),
    data("zcard", 2, 0, Keys::First, sorted_set::zcard),
    data("zcount", 4, 0, Keys::First, sorted_set::zcount),
    data("zrandmember", -2, 0, Keys::First, sorted_set::zrandmember),
    data("zrange", -4, 0, Keys::First, sorted_set::zrange),
    data("zrem", -3, WRITES, Keys::First, sorted_set::zrem),
    data("zscore", 3, 0, Keys::First, sorted_set::zscore),
];

/// By name, however it is spelt.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    let mut spelt = [0; 12];
    let spelt = spelt.get_mut(..name.len())?;
    spelt.copy_from_slice(name);
    spelt.make_ascii_lowercase();
    let at = COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(spelt)).ok()?;
    Some(&COMMANDS[at])
}

/// Commands of commands: name, sub-command, and words of a call as in [`Command`].
const SUB_COMMANDS: &[(&str, &str, i32)] = &[
    ("client", "setinfo", 4),
    ("cluster", "info", 2),
    ("cluster", "keyslot", 3),
    ("cluster", "myid", 2),
    ("cluster", "slots", 2),
    ("config", "get", -3),
    ("function", "list", -2),
    ("function", "load", -3),
];

impl Command {
    /// Whether the command takes these words, and knows the sub-command among them.
    pub fn check(&self, words: &[Bytes], flavour: Flavour) -> Result<(), Fault> {
        if !takes(self.arity, words.len()) {
            return Err(Fault::arity(self.name));
        }
        let mut subs = SUB_COMMANDS.iter().filter(|(of, ..)| *of == self.name).peekable();
        if subs.peek().is_none() {
            return Ok(());
        }
        // Younger than the older servers.
        let is_known = |sub: &str| sub != "setinfo" || flavour == Flavour::Valkey9;
        match subs.find(|(_, sub, _)| is(&words[1], sub) && is_known(sub)) {
            Some((_, _, arity)) if takes(*arity, words.len()) => Ok(()),
            Some((of, sub, _)) => Err(Fault::arity(&format!("{of}|{sub}"))),
            None => {
                let (sub, name) = (number::quoted(&words[1]), self.name.to_ascii_uppercase());
                Err(Fault::of(format!("ERR unknown subcommand '{sub}'. Try {name} HELP.")))
            }
        }
    }

    pub fn has(&self, of: u16) -> bool {
        self.traits & of != 0
    }

    pub fn takes(&self, words: usize) -> bool {
        takes(self.arity, words)
    }

    /// The keys among the words. What they cannot be told from names none.
    pub fn keys_of<'w>(&self, words: &'w [Bytes]) -> &'w [Bytes] {
        match self.keys {
            Keys::None => &[],
            Keys::First => &words[1..2],
            Keys::All => &words[1..],
            Keys::Counted => {
                let count = number::integer(&words[2]).and_then(|count| usize::try_from(count).ok());
                count.and_then(|count| words.get(3..3 + count)).unwrap_or_default()
            }
        }
    }
}

fn takes(arity: i32, words: usize) -> bool {
    let least = arity.unsigned_abs() as usize;
    if arity < 0 { words >= least } else { words == least }
}

pub fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

pub fn integer(word: &[u8]) -> Result<i64, Fault> {
    number::integer(word).ok_or(Fault::NO_INTEGER)
}

/// First and last place of a list of `length`, as a range that counts from either end; `None` where nothing is in it.
pub fn places(start: i64, end: i64, length: usize) -> Option<std::ops::RangeInclusive<usize>> {
    let length = length as i64;
    let from_end = |place: i64| if place < 0 { place.saturating_add(length) } else { place };
    let (start, end) = (from_end(start).max(0), from_end(end));
    (start <= end && start < length).then(|| start as usize..=end.min(length - 1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name() {
        assert!(
            COMMANDS
                .iter()
                .all(|command| find(command.name.as_bytes()).is_some_and(|found| found.name == command.name))
        );
        assert!(find(b"ZrAnGe").is_some());
        assert!(find(b"").is_none() && find(b"a name beyond all length").is_none());
    }
}
