//! A model of Redis and Valkey: what their servers answer, what they tell their replicas and their disks, and what is
//! left of it when they fail.
//!
//! It is pure. Nothing here knows a clock, a socket or chance: who is heard, how far a replica follows, what a disk has
//! kept and who is promoted are decisions of the caller. The functions are the real ones, run by the same Lua. That the
//! answers are those of the servers is checked against both of them (`differential`).
//!
//! A connection is a [`Session`]; bytes become commands in a [`Decoder`], and [`Deployment::execute`] answers one
//! command. Start reading with [`Deployment`], then `server` for what a server refuses and runs.
//!
//! What is left out answers an error of its own and is counted (see [`Deployment::unmodelled`]).

mod about;
mod cluster;
mod command;
mod differential;
mod hashes;
mod keys;
mod keyspace;
mod lists;
mod number;
mod replication;
mod resp;
mod script;
mod sentinel;
mod server;
mod sorted_set;
mod streams;
mod strings;
pub mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;

pub use self::cluster::slot_of;
use self::cluster::{SLOTS, View};
use self::keyspace::Keyspace;
pub use self::keyspace::{Entry, Object};
use self::replication::{Disk, History, apply};
pub use self::resp::{Decoder, Reply};
use self::script::Scripts;
pub use self::sentinel::MASTER_NAME;
use self::sentinel::Sentinel;
pub use self::server::Role;
use self::server::{Server, Transaction};

/// Which server is modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Redis 7.0.15.
    Redis70,
    /// Valkey 9.1.2.
    Valkey9,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Redis70 => "Redis",
            Self::Valkey9 => "Valkey",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Redis70 => "7.0.15",
            Self::Valkey9 => "9.1.2",
        }
    }
}

/// How a store's servers stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Standalone,
    /// A master, its replicas, and who watches them.
    Sentinel {
        replicas: usize,
        sentinels: usize,
    },
    /// Masters that share the slots evenly, each with so many replicas.
    Cluster {
        masters: usize,
        replicas: usize,
    },
}

/// When a change is safe from a crash of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFsync {
    /// Before it is answered.
    Always,
    /// At the caller's [`Deployment::fsync`].
    Everysec,
    No,
    /// Never: a server comes back empty.
    Off,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub topology: Topology,
    pub flavour: Flavour,
    pub appendfsync: AppendFsync,
    /// With fewer good replicas a master refuses writes. 0 for never.
    pub min_replicas_to_write: usize,
    /// A replica is good that was heard of in so many seconds.
    pub min_replicas_max_lag_secs: u64,
    /// Whether a replica answers that has lost its master.
    pub serves_stale_data: bool,
    /// For the names of histories, and for what servers leave to chance.
    pub seed: u64,
}

impl Settings {
    pub fn new(topology: Topology, flavour: Flavour) -> Self {
        Self {
            topology,
            flavour,
            appendfsync: AppendFsync::Off,
            min_replicas_to_write: 0,
            min_replicas_max_lag_secs: 10,
            serves_stale_data: true,
            seed: 0,
        }
    }
}

/// A server, or a sentinel: these come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub usize);

/// A connection of a client.
pub struct Session {
    at: ServerId,
    incarnation: u64,
    /// Offset behind what this connection wrote, or, with older servers, behind what anybody had written by then.
    written_to: u64,
    is_asking: bool,
    transaction: Option<Transaction>,
}

/// What becomes of a command.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Reply(Reply),
    /// The answer is the number of replicas that have everything up to `offset` ([`Deployment::acknowledged`]), as soon
    /// as these are as many as needed, or when the time is over; 0 is no end. Nothing else of this connection is served
    /// before.
    Wait {
        needed: usize,
        offset: u64,
        timeout_ms: u64,
    },
    /// The connection is gone, and nothing was done.
    Closed,
}

impl Outcome {
    fn error(text: &'static str) -> Self {
        Self::Reply(Reply::error(text))
    }
}

/// Who is where, and who belongs together. Never changes.
struct Directory {
    /// Servers, then sentinels.
    addresses: Vec<(String, u16)>,
    names: Vec<String>,
    /// The shard of each server.
    shards: Vec<usize>,
}

impl Directory {
    fn of(topology: Topology) -> Self {
        let (shards, sentinels): (Vec<usize>, usize) = match topology {
            Topology::Standalone => (vec![0], 0),
            Topology::Sentinel { replicas, sentinels } => (vec![0; 1 + replicas], sentinels),
            Topology::Cluster { masters, replicas } => {
                ((0..masters * (1 + replicas)).map(|at| at % masters).collect(), 0)
            }
        };
        let server = |at: usize| (format!("10.0.0.{}", at + 1), 6379);
        let sentinel = |at: usize| (format!("10.0.1.{}", at + 1), 26379);
        let addresses = (0..shards.len()).map(server).chain((0..sentinels).map(sentinel));
        let names = (0..shards.len()).map(|at| format!("{at:040x}"));
        Self { addresses: addresses.collect(), names: names.collect(), shards }
    }

    fn address(&self, id: ServerId) -> (&str, u16) {
        let (host, port) = &self.addresses[id.0];
        (host, *port)
    }

    fn name(&self, id: ServerId) -> &str {
        &self.names[id.0]
    }

    fn servers(&self) -> usize {
        self.shards.len()
    }

    fn shards(&self) -> usize {
        self.shards.iter().max().map_or(0, |last| last + 1)
    }

    fn has_replicas(&self) -> bool {
        self.servers() > self.shards()
    }

    /// The other servers of its shard.
    fn beside(&self, id: ServerId) -> impl Iterator<Item = ServerId> {
        let all = (0..self.servers()).map(ServerId);
        all.filter(move |other| *other != id && self.shards[other.0] == self.shards[id.0])
    }
}

/// All servers of one store.
///
/// At the beginning the first server is the master, in a cluster the first of as many as there are masters; the replicas
/// of master `m` are every so-many-th server after it. All are empty, linked and even.
pub struct Deployment {
    settings: Rc<Settings>,
    directory: Rc<Directory>,
    servers: Vec<Server>,
    sentinels: Vec<Sentinel>,
    scripts: Scripts,
    /// The master of each shard, by the latest promotion.
    leaders: Vec<ServerId>,
    /// Counts promotions and slots that moved.
    epoch: u64,
    /// By the latest promotion and move; of a cluster.
    owners: Rc<Vec<ServerId>>,
    cut: BTreeSet<(ServerId, ServerId)>,
}

impl Deployment {
    pub fn new(settings: Settings) -> Self {
        let settings = Rc::new(settings);
        let directory = Rc::new(Directory::of(settings.topology));
        let shards = directory.shards();
        let is_cluster = matches!(settings.topology, Topology::Cluster { .. });
        let owner = |slot: usize| ServerId(if is_cluster { (slot * shards) / SLOTS } else { 0 });
        let owners = Rc::new((0..if is_cluster { SLOTS } else { 0 }).map(owner).collect::<Vec<_>>());
        let epoch = if is_cluster { shards as u64 } else { 0 };
        let servers = (0..directory.servers()).map(|at| {
            let shard = directory.shards[at];
            let role = if at == shard { Role::Master } else { Role::Replica(ServerId(shard)) };
            let (migrating, importing) = (BTreeMap::new(), BTreeMap::new());
            let view = View { owners: owners.clone(), epoch, migrating, importing, is_down: false };
            Server::new(ServerId(at), &settings, &directory, role, is_cluster.then_some(view))
        });
        let mut deployment = Self {
            servers: servers.collect(),
            sentinels: (directory.servers()..directory.addresses.len()).map(|_| Sentinel::new(ServerId(0))).collect(),
            scripts: Scripts::new(settings.flavour),
            leaders: (0..shards).map(ServerId).collect(),
            epoch,
            owners,
            cut: BTreeSet::new(),
            directory,
            settings,
        };
        for at in shards..deployment.servers.len() {
            deployment.replicate(ServerId(at), None, 0);
        }
        deployment
    }

    /// Host and port of every server, then of every sentinel, in the order of their ids.
    pub fn addresses(&self) -> &[(String, u16)] {
        &self.directory.addresses
    }

    pub fn at(&self, host: &str, port: u16) -> Option<ServerId> {
        self.addresses().iter().position(|address| address.0 == host && address.1 == port).map(ServerId)
    }

    /// The servers, without sentinels.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> + use<> {
        (0..self.servers.len()).map(ServerId)
    }

    pub fn sentinels(&self) -> impl Iterator<Item = ServerId> + use<> {
        (self.servers.len()..self.servers.len() + self.sentinels.len()).map(ServerId)
    }

    /// What the server takes itself for.
    pub fn role(&self, server: ServerId) -> Role {
        self.server(server).role
    }

    /// The server that was promoted last in the shard of this one.
    pub fn leader(&self, of: ServerId) -> ServerId {
        self.leaders[self.directory.shards[of.0]]
    }

    /// The end of the stream that the server writes, or has read.
    pub fn offset(&self, server: ServerId) -> u64 {
        self.server(server).history.offset
    }

    /// `None`: nobody listens. A frozen server's machine still takes connections.
    pub fn connect(&mut self, at: ServerId) -> Option<Session> {
        let (is_alive, incarnation) = self.life(at);
        is_alive.then_some(Session { at, incarnation, written_to: 0, is_asking: false, transaction: None })
    }

    /// Whether the server still has this connection: a crash ends all of them, and so does a change of role behind
    /// Sentinel.
    pub fn is_open(&self, session: &Session) -> bool {
        self.life(session.at) == (true, session.incarnation)
    }

    fn life(&self, of: ServerId) -> (bool, u64) {
        match of.0.checked_sub(self.servers.len()) {
            None => (self.server(of).is_alive, self.server(of).incarnation),
            Some(at) => (self.sentinels[at].is_alive, self.sentinels[at].incarnation),
        }
    }

    /// Runs one command. Nothing may be asked of a frozen server: bytes for it wait, or are lost.
    pub fn execute(&mut self, session: &mut Session, command: Vec<Bytes>, now_ms: u64) -> Outcome {
        if !self.is_open(session) {
            return Outcome::Closed;
        }
        assert!(!self.is_frozen(session.at), "a frozen server was asked");
        if command.is_empty() {
            return Outcome::Closed;
        }
        if let Some(at) = session.at.0.checked_sub(self.servers.len()) {
            let answer = self.sentinels[at].answer(&command, &self.settings, &self.directory);
            return Outcome::Reply(answer.unwrap_or_else(|| {
                self.servers[0].unmodelled.push(format!("{command:?} to a sentinel"));
                Reply::error("ERR unknown command")
            }));
        }
        self.servers[session.at.0].execute(&mut self.scripts, session, command, now_ms)
    }

    /// How many replicas have said that they have everything up to an offset. A server that is no master any more says 0.
    pub fn acknowledged(&self, server: ServerId, offset: u64) -> usize {
        self.server(server).followers.with(offset)
    }

    /// A replica takes what its master has written, up to an offset (`None`: all). It says so if it was asked to, as it is
    /// by a command that waits ([`Outcome::Wait`]), and else once a second: masters that count their good replicas want
    /// this called as often. It first links up again if it has to, with all data if it cannot go on where it was.
    /// Nothing happens while one of them is dead or frozen or the link is cut; answers whether something could.
    pub fn replicate(&mut self, replica: ServerId, up_to: Option<u64>, now_ms: u64) -> bool {
        let Role::Replica(master) = self.server(replica).role else { return false };
        let works = |server: &Server| server.is_alive && !server.is_frozen;
        if self.cut.contains(&(master, replica)) || !works(self.server(master)) || !works(self.server(replica)) {
            return false;
        }
        if master == replica || self.server(master).role != Role::Master {
            return false;
        }
        let [from, to] = self.servers.get_disjoint_mut([master.0, replica.0]).expect("two of them");
        if !to.followers.is_linked || !from.followers.has(replica) {
            link(from, to);
        }
        let logged: Vec<_> = match from.history.after(to.history.offset) {
            Some(logged) => {
                logged.take_while(|logged| up_to.is_none_or(|up_to| logged.end <= up_to)).cloned().collect()
            }
            None => Vec::new(),
        };
        let mut said = None;
        for logged in logged {
            apply(&logged.changes, &mut to.keys, &mut to.libraries);
            to.disk.append(&logged.changes);
            // What asked for it is not counted yet.
            said = if logged.asks_back { Some(to.history.offset) } else { said };
            to.history.push(logged);
        }
        if from.followers.is_due(replica, now_ms) {
            said = Some(to.history.offset);
        }
        if let Some(offset) = said {
            from.followers.heard(replica, offset, now_ms, &self.settings);
        }
        true
    }

    /// The disk has everything that was written so far.
    pub fn fsync(&mut self, server: ServerId) {
        self.server_mut(server).disk.fsync();
    }

    /// Ends a server or a sentinel, and all connections to it.
    pub fn crash(&mut self, server: ServerId) {
        if let Some(at) = server.0.checked_sub(self.servers.len()) {
            let sentinel = &mut self.sentinels[at];
            (sentinel.is_alive, sentinel.is_frozen) = (false, false);
            sentinel.incarnation += 1;
            return;
        }
        let crashed = self.server_mut(server);
        (crashed.is_alive, crashed.is_frozen) = (false, false);
        crashed.incarnation += 1;
        crashed.followers.clear();
        crashed.followers.is_linked = false;
        let role = crashed.role;
        if let Role::Replica(master) = role {
            self.server_mut(master).followers.drop_one(server);
        }
        for other in self.servers() {
            if self.server(other).role == Role::Replica(server) {
                self.server_mut(other).followers.is_linked = false;
            }
        }
    }

    /// It comes back with what its disk has, as what it was; a master begins a history that nobody knows.
    pub fn restart(&mut self, server: ServerId, now_ms: u64) {
        if let Some(at) = server.0.checked_sub(self.servers.len()) {
            self.sentinels[at].is_alive = true;
            return;
        }
        let has_replicas = self.directory.has_replicas();
        let server = self.server_mut(server);
        assert!(!server.is_alive, "it runs");
        let removes_expired = server.keys.removes_expired;
        match &server.disk {
            Disk::Even => {}
            Disk::Off => {
                server.keys = Keyspace::new(server.keys.flavour, server.keys.chance.0);
                server.libraries.clear();
            }
            Disk::Behind { keys, libraries, .. } => {
                let chance = server.keys.chance.clone();
                server.keys = (**keys).clone();
                server.keys.chance = chance;
                server.libraries = libraries.clone();
            }
        }
        server.disk.rewrite(&server.keys, &server.libraries);
        server.keys.now = now_ms as i64;
        server.keys.removes_expired = removes_expired;
        server.keys.keeps_changes = has_replicas || server.disk.is_behind();
        server.history = History::begin(&mut server.keys, has_replicas);
        server.troubles = server::Troubles::default();
        server.min_replicas_to_write = server.settings.min_replicas_to_write;
        server.is_alive = true;
    }

    /// It answers nothing, and everything it had stays as it is.
    pub fn freeze(&mut self, server: ServerId) {
        match server.0.checked_sub(self.servers.len()) {
            Some(at) => self.sentinels[at].is_frozen = true,
            None => self.server_mut(server).is_frozen = true,
        }
    }

    /// It goes on as if no time had passed: a master that was replaced meanwhile takes writes, and counts its replicas
    /// only after the first command.
    pub fn thaw(&mut self, server: ServerId) {
        match server.0.checked_sub(self.servers.len()) {
            Some(at) => self.sentinels[at].is_frozen = false,
            None => {
                let server = self.server_mut(server);
                server.is_waking |= std::mem::take(&mut server.is_frozen);
            }
        }
    }

    pub fn is_frozen(&self, server: ServerId) -> bool {
        match server.0.checked_sub(self.servers.len()) {
            Some(at) => self.sentinels[at].is_frozen,
            None => self.server(server).is_frozen,
        }
    }

    pub fn is_alive(&self, server: ServerId) -> bool {
        self.life(server).0
    }

    /// Nothing passes between them any more; both notice only by the silence.
    pub fn cut_link(&mut self, master: ServerId, replica: ServerId) {
        self.cut.insert((master, replica));
    }

    pub fn heal_link(&mut self, master: ServerId, replica: ServerId) {
        self.cut.remove(&(master, replica));
    }

    /// Makes a replica the master of its shard, with whatever it has. Those who are told know it at once: sentinels, or
    /// servers of a cluster; the others when they are told ([`Deployment::tell`]). The other replicas follow it, and
    /// the old master is one of them, when they are demoted ([`Deployment::demote`]).
    pub fn promote(&mut self, replica: ServerId, told: &[ServerId], now_ms: u64) {
        assert!(self.is_alive(replica) && !self.is_frozen(replica), "only who lives can be promoted");
        self.epoch += 1;
        let is_cluster = self.is_cluster();
        let server = &mut self.servers[replica.0];
        if let Role::Replica(master) = server.role {
            server.role = Role::Master;
            server.keys.removes_expired = true;
            server.keys.now = now_ms as i64;
            server.history.leave(&mut server.keys);
            server.followers.is_linked = false;
            if !is_cluster {
                server.incarnation += 1;
            }
            let old = &mut self.servers[master.0];
            old.followers.drop_one(replica);
        }
        let shard = self.directory.shards[replica.0];
        let old = std::mem::replace(&mut self.leaders[shard], replica);
        for owner in Rc::make_mut(&mut self.owners) {
            if *owner == old {
                *owner = replica;
            }
        }
        for one in [&[replica], told].concat() {
            self.tell(one, now_ms);
        }
    }

    /// A sentinel, or a server of a cluster, learns of all promotions and moves so far. A server of a cluster then
    /// follows whoever has its slots.
    pub fn tell(&mut self, who: ServerId, now_ms: u64) {
        if let Some(at) = who.0.checked_sub(self.servers.len()) {
            let sentinel = &mut self.sentinels[at];
            (sentinel.master, sentinel.epoch) = (self.leaders[0], self.epoch);
            return;
        }
        let (owners, epoch, leader) = (self.owners.clone(), self.epoch, self.leader(who));
        let server = self.server_mut(who);
        let Some(view) = &mut server.view else { return };
        let view = Rc::make_mut(view);
        (view.owners, view.epoch) = (owners, epoch);
        if leader != who && server.role != Role::Replica(leader) {
            self.demote(who, now_ms);
        }
    }

    /// Whether a sentinel can reach a server. What is frozen or dead is for the caller to tell, as late as it likes.
    pub fn set_down(&mut self, sentinel: ServerId, server: ServerId, is_down: bool) {
        let at = sentinel.0 - self.servers.len();
        if is_down {
            self.sentinels[at].down.insert(server);
        } else {
            self.sentinels[at].down.remove(&server);
        }
    }

    /// Makes a server a replica of the master of its shard. What it alone has is gone when it links up
    /// ([`Deployment::replicate`]).
    pub fn demote(&mut self, server: ServerId, now_ms: u64) {
        let leader = self.leader(server);
        assert!(leader != server, "nobody follows itself");
        let is_cluster = self.is_cluster();
        let demoted = self.server_mut(server);
        let old = std::mem::replace(&mut demoted.role, Role::Replica(leader));
        demoted.keys.removes_expired = false;
        demoted.keys.now = now_ms as i64;
        demoted.followers.clear();
        demoted.followers.is_linked = false;
        if !is_cluster && old == Role::Master {
            demoted.incarnation += 1;
        }
        if let Role::Replica(old) = old {
            self.server_mut(old).followers.drop_one(server);
        }
    }

    pub fn set_memory_full(&mut self, server: ServerId, is_full: bool) {
        self.server_mut(server).troubles.memory_full = is_full;
    }

    /// As an operator's `CONFIG SET`; a server that starts again has what the settings say.
    pub fn set_min_replicas_to_write(&mut self, server: ServerId, count: usize) {
        self.server_mut(server).min_replicas_to_write = count;
    }

    pub fn set_busy(&mut self, server: ServerId, is_busy: bool) {
        self.server_mut(server).troubles.busy = is_busy;
    }

    pub fn set_loading(&mut self, server: ServerId, is_loading: bool) {
        self.server_mut(server).troubles.loading = is_loading;
    }

    pub fn set_disk_failing(&mut self, server: ServerId, is_failing: bool) {
        self.server_mut(server).troubles.disk_failing = is_failing;
    }

    /// A server of a cluster sees too little of it to serve anything.
    pub fn set_cluster_down(&mut self, server: ServerId, is_down: bool) {
        if let Some(view) = &mut self.server_mut(server).view {
            Rc::make_mut(view).is_down = is_down;
        }
    }

    /// As after `FUNCTION FLUSH`, or on a server that was restored without them.
    pub fn lose_functions(&mut self, server: ServerId) {
        self.server_mut(server).libraries.clear();
    }

    /// A slot begins to move: both servers are told so.
    pub fn migrate_begin(&mut self, slot: u16, from: ServerId, to: ServerId) {
        self.view_mut(to).importing.insert(slot, from);
        self.view_mut(from).migrating.insert(slot, to);
    }

    /// Moves one key with all that it holds; whether it was there.
    pub fn migrate_key(&mut self, key: &Bytes, from: ServerId, to: ServerId, now_ms: u64) -> bool {
        let [source, target] = self.servers.get_disjoint_mut([from.0, to.0]).expect("two of them");
        (source.keys.now, target.keys.now) = (now_ms as i64, now_ms as i64);
        let Some(entry) = source.keys.take(key) else { return false };
        source.keys.tell(|| vec![Bytes::from_static(b"DEL"), key.clone()]);
        target.keys.tell_restored(key, &entry);
        target.keys.put(key, entry);
        for server in [source, target] {
            let changes = std::mem::take(&mut server.keys.changes);
            server.propagate(changes);
        }
        true
    }

    /// Moves so many keys of a slot; how many there were.
    pub fn migrate_keys(&mut self, slot: u16, count: usize, from: ServerId, to: ServerId, now_ms: u64) -> usize {
        let keys = self.server(from).keys.keys().filter(|key| cluster::slot_of(key) == slot);
        let keys: Vec<Bytes> = keys.take(count).cloned().collect();
        keys.iter().filter(|key| self.migrate_key(key, from, to, now_ms)).count()
    }

    /// The slot has moved. Both servers know it; others when they are told ([`Deployment::tell`]).
    pub fn migrate_end(&mut self, slot: u16, from: ServerId, to: ServerId) {
        self.epoch += 1;
        Rc::make_mut(&mut self.owners)[usize::from(slot)] = to;
        let (owners, epoch) = (self.owners.clone(), self.epoch);
        for server in [to, from] {
            let view = self.view_mut(server);
            (view.owners, view.epoch) = (owners.clone(), epoch);
            view.importing.remove(&slot);
            view.migrating.remove(&slot);
        }
    }

    /// Removes what has expired, as servers do by themselves now and then.
    pub fn remove_expired(&mut self, server: ServerId, now_ms: u64) {
        let server = self.server_mut(server);
        server.keys.now = now_ms as i64;
        if server.keys.removes_expired {
            server.keys.remove_expired();
            let changes = std::mem::take(&mut server.keys.changes);
            server.propagate(changes);
        }
    }

    /// A hash of all keys and what they hold. Keys that have expired count until they are removed, which any command
    /// may do that meets them.
    pub fn state_digest(&self, server: ServerId) -> u64 {
        self.server(server).keys.digest()
    }

    /// All keys of a server with what they hold, expired ones too until they are removed.
    pub fn contents(&self, server: ServerId) -> BTreeMap<Bytes, Entry> {
        self.server(server).keys.contents()
    }

    pub fn key_count(&self, server: ServerId) -> usize {
        self.server(server).keys.len()
    }

    /// Commands that the model does not know, or not in the form in which they came: a test that met any proves nothing.
    pub fn unmodelled(&self) -> Vec<&str> {
        self.servers.iter().flat_map(|server| &server.unmodelled).map(String::as_str).collect()
    }

    fn is_cluster(&self) -> bool {
        matches!(self.settings.topology, Topology::Cluster { .. })
    }

    fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.0]
    }

    fn server_mut(&mut self, id: ServerId) -> &mut Server {
        &mut self.servers[id.0]
    }

    fn view_mut(&mut self, id: ServerId) -> &mut View {
        Rc::make_mut(self.server_mut(id).view.as_mut().expect("a server of a cluster"))
    }
}

/// A replica finds its master again: it goes on where it was if it can, else it takes everything.
fn link(master: &mut Server, replica: &mut Server) {
    if master.history.continues(&replica.history) {
        replica.history.join(&master.history);
    } else {
        replica.keys.copy(&master.keys);
        replica.libraries = master.libraries.clone();
        replica.history.copy(&mut master.history);
        replica.disk.rewrite(&replica.keys, &replica.libraries);
    }
    replica.followers.is_linked = true;
}
