//! One server: what it refuses, what it runs, and what it tells of itself.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::cluster::{Detour, Local, View};
use super::command::{
    self, AT_ONCE, Command, GROWS, Keys, WHILE_BUSY, WHILE_LOADING, WHILE_STALE, WRITES, integer, is,
};
use super::keyspace::{Answer, Change, Fault, Keyspace};
use super::replication::{Disk, Followers, History};
use super::resp::Reply;
use super::script::{Library, Registered, Run, Scripts, is_unmodelled};
use super::{Directory, Flavour, Outcome, ServerId, Session, Settings, number};

/// What a server is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    /// Of that server. Linked or not is for both to know.
    Replica(ServerId),
}

/// What keeps a server from its work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    pub memory_full: bool,
    /// A script runs for long.
    pub busy: bool,
    pub loading: bool,
    /// The file on disk cannot be written.
    pub disk_failing: bool,
}

pub struct Server {
    pub id: ServerId,
    pub settings: Rc<Settings>,
    pub directory: Rc<Directory>,
    pub is_alive: bool,
    pub is_frozen: bool,
    /// It was frozen, and has not looked at the clock yet.
    pub is_waking: bool,
    /// Grows when all connections are lost.
    pub incarnation: u64,
    pub role: Role,
    pub troubles: Troubles,
    /// As the operator has it now.
    pub min_replicas_to_write: usize,
    pub keys: Keyspace,
    pub libraries: BTreeMap<Bytes, Rc<Library>>,
    pub history: History,
    pub followers: Followers,
    pub disk: Disk,
    /// In a cluster.
    pub view: Option<Rc<View>>,
    /// Commands that the model does not know, or not in that form.
    pub unmodelled: Vec<String>,
    next_cron: u64,
    next_ping: u64,
}

/// Commands since MULTI.
#[derive(Default)]
pub struct Transaction {
    commands: Vec<(&'static Command, Vec<Bytes>)>,
    /// One was refused.
    is_spoilt: bool,
}

/// What is asked for, as far as the gates look at it.
#[derive(Clone, Copy)]
struct Wants {
    writes: bool,
    grows: bool,
}

impl Server {
    pub fn new(
        id: ServerId,
        settings: &Rc<Settings>,
        directory: &Rc<Directory>,
        role: Role,
        view: Option<View>,
    ) -> Self {
        let mut keys = Keyspace::new(settings.flavour, settings.seed ^ (id.0 as u64) << 32);
        let history = History::begin(&mut keys, directory.has_replicas());
        let disk = Disk::new(settings.appendfsync, &keys);
        keys.removes_expired = role == Role::Master;
        keys.keeps_changes = directory.has_replicas() || disk.is_behind();
        Self {
            id,
            settings: settings.clone(),
            directory: directory.clone(),
            is_alive: true,
            is_frozen: false,
            is_waking: false,
            incarnation: 0,
            role,
            troubles: Troubles::default(),
            min_replicas_to_write: settings.min_replicas_to_write,
            keys,
            libraries: BTreeMap::new(),
            history,
            followers: Followers::default(),
            disk,
            view: view.map(Rc::new),
            unmodelled: Vec::new(),
            next_cron: 0,
            next_ping: 0,
        }
    }

    /// What a server does once a second by itself.
    pub fn cron(&mut self, now: u64) {
        if now < self.next_cron {
            return;
        }
        self.next_cron = now / 1000 * 1000 + 1000;
        self.followers.look(&self.settings, now);
        if self.role == Role::Master && !self.followers.is_empty() && now >= self.next_ping {
            self.next_ping = now + 10_000;
            self.history.append_bytes(super::replication::PING);
        }
    }

    pub fn execute(&mut self, scripts: &mut Scripts, session: &mut Session, words: Vec<Bytes>, now: u64) -> Outcome {
        let has_slept = std::mem::take(&mut self.is_waking);
        if !has_slept {
            self.cron(now);
        }
        self.keys.now = now as i64;
        let (was_asking, before) = (session.is_asking, self.history.offset);
        let outcome = self.accept(scripts, session, words);
        // Newer servers remember for each connection how far the stream was when it wrote.
        if self.settings.flavour == Flavour::Valkey9 && self.history.offset != before {
            session.written_to = self.history.offset;
        }
        if has_slept {
            self.cron(now);
        }
        if was_asking && session.transaction.is_none() {
            session.is_asking = false;
        }
        if let Outcome::Reply(reply) = &outcome
            && is_unmodelled(reply)
        {
            self.unmodelled.push(format!("{reply:?}"));
        }
        // Replicas are asked at once how far they are, which is part of the stream.
        if matches!(outcome, Outcome::Wait { .. }) {
            self.history.append_bytes(super::replication::GETACK);
        }
        outcome
    }

    fn accept(&mut self, scripts: &mut Scripts, session: &mut Session, words: Vec<Bytes>) -> Outcome {
        let Some(command) = command::find(&words[0]) else {
            self.unmodelled.push(String::from_utf8_lossy(&words[0]).into_owned());
            return refused(session, None, unknown(&words));
        };
        let checked = command.check(&words, self.settings.flavour);
        if let Err(fault) = checked.and_then(|()| self.gates(session, command, &words)) {
            return refused(session, Some(command), fault);
        }
        if let Some(transaction) = &mut session.transaction
            && !command.has(AT_ONCE)
        {
            transaction.commands.push((command, words));
            return Outcome::Reply(Reply::Status("QUEUED".into()));
        }
        let outcome = self.call(scripts, session, command, &words);
        let changes = std::mem::take(&mut self.keys.changes);
        self.propagate(changes);
        // Older ones remember how far it is after any command, whoever wrote to it.
        if self.settings.flavour == Flavour::Redis70 {
            session.written_to = self.history.offset;
        }
        outcome
    }

    /// All that may refuse a command before anything runs, in the order in which servers look.
    fn gates(&self, session: &Session, command: &Command, words: &[Bytes]) -> Result<(), Fault> {
        let wants = self.wants(session, command, words);
        self.route(session, command, words)?;
        let troubles = self.troubles;
        // Older servers count what they have to remember of a transaction.
        let is_queued = self.settings.flavour == Flavour::Redis70
            && session.transaction.is_some()
            && !matches!(command.name, "exec" | "discard");
        if troubles.memory_full && (wants.grows || is_queued) {
            return Err(Fault::of(MEMORY_FULL));
        }
        if wants.writes {
            self.writes_refused()?;
        }
        let is_master = self.role == Role::Master;
        if troubles.disk_failing && is_master && command.name == "ping" {
            return Err(Fault::of(DISK_FAILING));
        }
        let is_stale = !is_master && !self.settings.serves_stale_data && !self.followers.is_linked;
        if is_stale && !command.has(WHILE_STALE) {
            return Err(Fault::of("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."));
        }
        let name = self.settings.flavour.name();
        if troubles.loading && !command.has(WHILE_LOADING) {
            return Err(Fault::of(format!("LOADING {name} is loading the dataset in memory")));
        }
        if troubles.busy && !command.has(WHILE_BUSY) {
            return Err(Fault::of(format!(
                "BUSY {name} is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
            )));
        }
        Ok(())
    }

    fn wants(&self, session: &Session, command: &Command, words: &[Bytes]) -> Wants {
        let of = |command: &Command| Wants { writes: command.has(WRITES), grows: command.has(GROWS) };
        match (command.name, &session.transaction) {
            ("exec", Some(transaction)) => {
                let each = || transaction.commands.iter().map(|(command, words)| self.wants_of(command, words));
                Wants { writes: each().any(|wants| wants.writes), grows: each().any(|wants| wants.grows) }
            }
            ("fcall" | "fcall_ro" | "function", _) => self.wants_of(command, words),
            _ => of(command),
        }
    }

    fn wants_of(&self, command: &Command, words: &[Bytes]) -> Wants {
        let may_write = match command.name {
            "fcall" | "fcall_ro" => self.function(&words[1]).is_some_and(|function| function.may_write),
            "function" => is(&words[1], "LOAD"),
            _ => return Wants { writes: command.has(WRITES), grows: command.has(GROWS) },
        };
        Wants { writes: may_write, grows: may_write }
    }

    fn has_good_replicas(&self) -> bool {
        let needed = self.min_replicas_to_write;
        needed == 0 || self.settings.min_replicas_max_lag_secs == 0 || self.followers.good >= needed
    }

    fn local(&self, session: &Session) -> Option<Local> {
        let view = self.view.clone()?;
        Some(Local { view, me: self.id, is_asking: session.is_asking, may_stray: false, slot: None })
    }

    /// In a cluster, whether the keys are here.
    fn route(&self, session: &Session, command: &Command, words: &[Bytes]) -> Result<(), Fault> {
        let Some(local) = self.local(session) else { return Ok(()) };
        // What is queued is looked for when it is run; older servers look at once.
        let is_queued = session.transaction.is_some() && !command.has(AT_ONCE);
        let is_left = is_queued && self.settings.flavour == Flavour::Valkey9;
        let has = |key: &Bytes| is_left || self.keys.has(key);
        let routed = match (command.name, &session.transaction) {
            ("exec", Some(transaction)) => {
                let keys = transaction.commands.iter().flat_map(|(command, words)| command.keys_of(words));
                local.route(keys, has)
            }
            _ if command.keys == Keys::None => return Ok(()),
            _ => local.route(command.keys_of(words).iter(), has),
        };
        routed.map(drop).map_err(|detour| self.pointed(detour))
    }

    fn pointed(&self, detour: Detour) -> Fault {
        let of = |code: &str, slot: u16, server: ServerId| {
            let (host, port) = self.directory.address(server);
            Fault::of(format!("{code} {slot} {host}:{port}"))
        };
        match detour {
            Detour::Apart | Detour::Strayed => Fault::of("CROSSSLOT Keys in request don't hash to the same slot"),
            Detour::Down => Fault::of("CLUSTERDOWN The cluster is down"),
            Detour::Halfway => Fault::of("TRYAGAIN Multiple keys request during rehashing of slot"),
            Detour::Importing(slot, server) => of("ASK", slot, server),
            Detour::Elsewhere(slot, server) => of("MOVED", slot, server),
        }
    }

    fn call(
        &mut self,
        scripts: &mut Scripts,
        session: &mut Session,
        command: &'static Command,
        words: &[Bytes],
    ) -> Outcome {
        match command.name {
            "multi" if session.transaction.is_some() => Outcome::error("ERR MULTI calls can not be nested"),
            "multi" => {
                session.transaction = Some(Transaction::default());
                Outcome::Reply(Reply::OK)
            }
            "discard" => match session.transaction.take() {
                Some(_) => Outcome::Reply(Reply::OK),
                None => Outcome::error("ERR DISCARD without MULTI"),
            },
            "exec" => Outcome::Reply(self.exec(scripts, session)),
            "wait" => match self.wait(session, words) {
                Ok((heard, needed, timeout_ms)) if (heard as i64) < needed => {
                    Outcome::Wait { needed: needed as usize, offset: session.written_to, timeout_ms }
                }
                Ok((heard, ..)) => Outcome::Reply(Reply::Int(heard as i64)),
                Err(fault) => Outcome::Reply(Reply::Error(fault.0)),
            },
            "asking" if self.view.is_some() => {
                session.is_asking = true;
                Outcome::Reply(Reply::OK)
            }
            _ => Outcome::Reply(self.answer(scripts, session, command, words)),
        }
    }

    fn exec(&mut self, scripts: &mut Scripts, session: &mut Session) -> Reply {
        let Some(transaction) = session.transaction.take() else { return Reply::error("ERR EXEC without MULTI") };
        if transaction.is_spoilt {
            return Reply::error("EXECABORT Transaction discarded because of previous errors.");
        }
        let commands = transaction.commands.into_iter();
        Reply::Array(commands.map(|(command, words)| self.answer(scripts, session, command, &words)).collect())
    }

    fn answer(&mut self, scripts: &mut Scripts, session: &Session, command: &Command, words: &[Bytes]) -> Reply {
        let answer = match (command.run, command.name) {
            (Some(run), _) => run(&mut self.keys, words),
            (None, "fcall") => self.fcall(scripts, session, words, true),
            (None, "fcall_ro") => self.fcall(scripts, session, words, false),
            (None, "eval") => self.eval(scripts, session, words),
            (None, "function") => self.function_command(scripts, words),
            // In a transaction it does not wait.
            (None, "wait") => self.wait(session, words).map(|(heard, ..)| Reply::Int(heard as i64)),
            (None, _) => self.tell(words),
        };
        answer.unwrap_or_else(|fault| Reply::Error(fault.0))
    }

    /// How many replicas have all that the connection wrote, how many are needed, and how long they are waited for.
    fn wait(&self, session: &Session, words: &[Bytes]) -> Result<(usize, i64, u64), Fault> {
        if self.role != Role::Master {
            let since = if self.settings.flavour == Flavour::Redis70 { "since Redis 4.0 " } else { "" };
            return Err(Fault::of(format!(
                "ERR WAIT cannot be used with replica instances. Please also note that {since}{NO_WAIT}"
            )));
        }
        let (needed, timeout_ms) = (integer(&words[1])?, timeout(&words[2])?);
        Ok((self.followers.with(session.written_to), needed, timeout_ms))
    }

    fn function(&self, name: &[u8]) -> Option<&Registered> {
        let functions = self.libraries.values().flat_map(|library| &library.functions);
        functions.into_iter().find(|function| function.name == name)
    }

    fn fcall(&mut self, scripts: &mut Scripts, session: &Session, words: &[Bytes], may_write: bool) -> Answer {
        let function = self.function(&words[1]).ok_or_else(|| Fault::of("ERR Function not found"))?.clone();
        let (keys, arguments) = counted(words)?;
        if !may_write && function.may_write {
            return Err(Fault::of("ERR Can not execute a script with write flag using *_ro command."));
        }
        self.run(session, |run| scripts.call(&function, run, keys, arguments), function.may_write, |_| {})
    }

    /// Whether a script writes is found out when it does.
    fn eval(&mut self, scripts: &mut Scripts, session: &Session, words: &[Bytes]) -> Answer {
        let (keys, arguments) = counted(words)?;
        let refuses_writes = self.writes_refused().err();
        let memory_full = self.troubles.memory_full;
        self.run(
            session,
            |run| scripts.eval(&words[1], run, keys, arguments),
            true,
            |run| {
                run.refuses_writes = refuses_writes;
                if let Some(local) = &mut run.local {
                    local.may_stray = true;
                }
                run.refuses_growth = memory_full.then(|| Fault::of(MEMORY_FULL));
            },
        )
    }

    /// What would refuse any write, apart from memory and from where keys are.
    fn writes_refused(&self) -> Result<(), Fault> {
        match self.role {
            Role::Replica(_) => Err(Fault::of("READONLY You can't write against a read only replica.")),
            Role::Master if self.troubles.disk_failing => Err(Fault::of(DISK_FAILING)),
            Role::Master if !self.has_good_replicas() => {
                Err(Fault::of("NOREPLICAS Not enough good replicas to write."))
            }
            Role::Master => Ok(()),
        }
    }

    fn run(
        &mut self,
        session: &Session,
        body: impl FnOnce(Run) -> (Run, Answer),
        may_write: bool,
        prepare: impl FnOnce(&mut Run),
    ) -> Answer {
        let vacant = self.keys.vacant();
        let keys = std::mem::replace(&mut self.keys, vacant);
        let mut run = Run::new(keys, may_write, self.local(session));
        prepare(&mut run);
        let (run, answer) = body(run);
        self.keys = run.keys;
        answer
    }

    fn function_command(&mut self, scripts: &mut Scripts, words: &[Bytes]) -> Answer {
        match &words[1..] {
            [sub, code] if is(sub, "LOAD") => self.load(scripts, code, false, words),
            [sub, replace, code] if is(sub, "LOAD") && is(replace, "REPLACE") => self.load(scripts, code, true, words),
            [sub, option, ..] if is(sub, "LOAD") => {
                Err(Fault::of(format!("ERR Unknown option given: {}", number::quoted(option))))
            }
            [_, options @ ..] => self.list_functions(options),
            [] => Err(Fault::arity("function")),
        }
    }

    fn load(&mut self, scripts: &mut Scripts, code: &Bytes, may_replace: bool, words: &[Bytes]) -> Answer {
        let library = scripts.library(code)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !may_replace && self.libraries.contains_key(&library.name) {
            return Err(Fault::of(format!("ERR Library '{}' already exists", text(&library.name))));
        }
        let others = self.libraries.values().filter(|other| other.name != library.name);
        for taken in others.flat_map(|other| &other.functions) {
            if library.functions.iter().any(|function| function.name == taken.name) {
                return Err(Fault::of(format!("ERR Function {} already exists", text(&taken.name))));
            }
        }
        self.libraries.insert(library.name.clone(), library.clone());
        if self.keys.keeps_changes {
            self.keys.changes.push(Change::Loaded(library.clone(), super::resp::length_of(words)));
        }
        Ok(Reply::Bulk(library.name.clone()))
    }

    /// Replicas and disk hear of what changed.
    pub fn propagate(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let changes: Rc<[Change]> = changes.into();
        self.history.append(&changes);
        self.disk.append(&changes);
    }
}

const DISK_FAILING: &str = "MISCONF Errors writing to the AOF file: No space left on device";
const MEMORY_FULL: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const NO_WAIT: &str = "if a replica is configured to be writable (which is not the default) writes to replicas are just \
                       local and are not propagated.";

/// What is refused, spoils the transaction that it is part of.
fn refused(session: &mut Session, command: Option<&Command>, fault: Fault) -> Outcome {
    if command.is_none_or(|command| command.name != "exec") {
        if let Some(transaction) = &mut session.transaction {
            transaction.is_spoilt = true;
        }
        return Outcome::Reply(Reply::Error(fault.0));
    }
    session.transaction = None;
    if is_detour(&fault) {
        return Outcome::Reply(Reply::Error(fault.0));
    }
    let reason = fault.0.strip_prefix("ERR ").unwrap_or(&fault.0);
    Outcome::Reply(Reply::error(format!("EXECABORT Transaction discarded because of: {reason}")))
}

fn unknown(words: &[Bytes]) -> Fault {
    let shown = |word: &Bytes, length: usize| {
        let word = number::until_zero(word);
        String::from_utf8_lossy(&word[..word.len().min(length)]).into_owned()
    };
    let mut arguments = String::new();
    for word in &words[1..] {
        if arguments.len() >= SHOWN_MAX {
            break;
        }
        arguments.push_str(&format!("'{}' ", shown(word, SHOWN_MAX - arguments.len())));
    }
    let name = shown(&words[0], SHOWN_MAX);
    Fault::of(format!("ERR unknown command '{name}', with args beginning with: {arguments}"))
}

/// So much of an unknown command is quoted.
const SHOWN_MAX: usize = 128;

/// Answers that lead elsewhere end a transaction without being wrapped.
fn is_detour(fault: &Fault) -> bool {
    ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT"].iter().any(|code| fault.0.starts_with(code))
}

fn timeout(word: &[u8]) -> Result<u64, Fault> {
    let timeout = number::integer(word).ok_or_else(|| Fault::of("ERR timeout is not an integer or out of range"))?;
    u64::try_from(timeout).map_err(|_| Fault::of("ERR timeout is negative"))
}

/// Keys and arguments of a call that counts its keys.
fn counted(words: &[Bytes]) -> Result<(&[Bytes], &[Bytes]), Fault> {
    let rest = &words[3..];
    let is_eval = is(&words[0], "EVAL");
    let count = number::integer(&words[2]);
    let count = match count {
        Some(count) => count,
        None if is_eval => return Err(Fault::of("ERR value is not an integer or out of range")),
        None => return Err(Fault::of("ERR Bad number of keys provided")),
    };
    if count > rest.len() as i64 {
        return Err(Fault::of("ERR Number of keys can't be greater than number of args"));
    }
    let count = usize::try_from(count).map_err(|_| Fault::of("ERR Number of keys can't be negative"))?;
    Ok(rest.split_at(count))
}
