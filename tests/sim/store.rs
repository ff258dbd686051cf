//! The store's servers as they stand in the simulated world, and what goes wrong with them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::chance::Chance;
use super::mutant::Mutant;
use super::options::Options;
use super::redis::{
    AppendFsync, Deployment, MASTER_NAME, Outcome, Reply, Role, ServerId, Session, Settings, Topology, slot_of,
};
use super::world::World;

pub struct Store {
    topology: Topology,
    mutant: Mutant,
    deployment: RefCell<Deployment>,
    /// Something was written that replicas do not have yet.
    written: Notify,
    /// A slot that is on its way.
    moving: RefCell<Option<(u16, ServerId, ServerId)>>,
    lag: RefCell<Chance>,
}

impl Store {
    pub fn new(options: &Options, mut chance: Chance, mutant: Mutant) -> Self {
        let replicas = replicas(options.topology);
        let settings = Settings {
            appendfsync: AppendFsync::Always,
            min_replicas_to_write: usize::from(replicas > 0),
            seed: chance.number(),
            ..Settings::new(options.topology, options.flavour)
        };
        let store = Self {
            topology: options.topology,
            mutant,
            deployment: RefCell::new(Deployment::new(settings)),
            written: Notify::new(),
            moving: RefCell::default(),
            lag: RefCell::new(chance.stream("lag", 0)),
        };
        store.found(&mut chance);
        store
    }

    /// The store's identity, which an instance would make up.
    fn found(&self, chance: &mut Chance) {
        let secret: Vec<u8> = [chance.number(), chance.number()].into_iter().flat_map(u64::to_be_bytes).collect();
        let id = "0b7e1c3a-6f1d-4f0e-8a55-2f0c6d7e9b10";
        let fields = [("secret", Bytes::from(secret)), ("instance_id", Bytes::from_static(id.as_bytes()))];
        for (name, value) in fields {
            let words = [Bytes::from_static(b"HSETNX"), Bytes::from_static(b"nchf:format"), Bytes::from(name), value];
            let servers = self.deployment.borrow().servers();
            let is_done = servers.into_iter().any(|server| {
                let mut session = self.connect(server).expect("it lives");
                matches!(self.execute(&mut session, words.to_vec(), 0), Outcome::Reply(Reply::Int(1)))
            });
            assert!(is_done, "no server takes the identity");
        }
        self.replicate(0);
    }

    pub fn replicas(&self) -> u32 {
        replicas(self.topology) as u32
    }

    pub fn url(&self) -> String {
        let deployment = self.deployment.borrow();
        let of = |servers: Vec<ServerId>| {
            let texts = servers.into_iter().map(|server| {
                let (host, port) = &deployment.addresses()[server.0];
                format!("{host}:{port}")
            });
            texts.collect::<Vec<_>>().join(",")
        };
        match self.topology {
            Topology::Standalone => format!("redis://{}", of(deployment.servers().collect())),
            Topology::Sentinel { .. } => {
                format!("redis+sentinel://{}/{MASTER_NAME}", of(deployment.sentinels().collect()))
            }
            Topology::Cluster { .. } => format!("redis+cluster://{}", of(deployment.servers().take(2).collect())),
        }
    }

    pub fn server_at(&self, address: SocketAddr) -> ServerId {
        let found = self.deployment.borrow().at(&address.ip().to_string(), address.port());
        found.unwrap_or_else(|| panic!("nobody is at {address}"))
    }

    pub fn connect(&self, server: ServerId) -> Option<Session> {
        self.deployment.borrow_mut().connect(server)
    }

    pub async fn thawed(&self, server: ServerId) {
        while self.deployment.borrow().is_frozen(server) {
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn execute(&self, session: &mut Session, mut command: Vec<Bytes>, now: u64) -> Outcome {
        if command.len() > 2 && command[0].eq_ignore_ascii_case(b"FUNCTION") && command[1].eq_ignore_ascii_case(b"LOAD")
        {
            let source = command.last_mut().expect("a text");
            *source = Bytes::from(self.mutant.function(&String::from_utf8_lossy(source)));
        }
        let outcome = self.deployment.borrow_mut().execute(session, command, now);
        self.written.notify_one();
        match outcome {
            Outcome::Wait { needed, .. } if self.mutant == Mutant::NoWait => Outcome::Reply(Reply::Int(needed as i64)),
            outcome => outcome,
        }
    }

    pub fn acknowledged(&self, server: ServerId, offset: u64) -> usize {
        self.deployment.borrow().acknowledged(server, offset)
    }

    pub fn unmodelled(&self) -> Vec<String> {
        self.deployment.borrow().unmodelled().into_iter().map(str::to_owned).collect()
    }

    /// Replicas take what their masters have; sometimes not all of it.
    pub fn replicate(&self, now: u64) {
        let mut deployment = self.deployment.borrow_mut();
        for server in deployment.servers() {
            let Role::Replica(master) = deployment.role(server) else { continue };
            let reached = deployment.offset(server);
            let behind = deployment.offset(master).saturating_sub(reached);
            let mut lag = self.lag.borrow_mut();
            let up_to = if lag.permille(300) { Some(reached + lag.below(behind + 1)) } else { None };
            deployment.replicate(server, up_to, now);
        }
    }

    /// Replicas take all that their masters have.
    fn catch_up(&self, now: u64) {
        let mut deployment = self.deployment.borrow_mut();
        for server in deployment.servers() {
            deployment.replicate(server, None, now);
        }
    }

    /// Until there is something to replicate; at the latest after a second, because masters want to hear of their
    /// replicas.
    pub async fn wait_for_writes(&self) {
        let _written = timeout(Duration::from_secs(1), self.written.notified()).await;
    }

    // --- what goes wrong ----------------------------------------------------------------------------------------------

    /// One trouble from its beginning to its end.
    pub async fn trouble(&self, world: &World, chance: &mut Chance) {
        let masters = self.masters();
        let master = *chance.one_of(&masters);
        match chance.below(if self.replicas() > 0 { 10 } else { 4 }) {
            0 => self.full(master, chance).await,
            1 => self.lose_functions(master),
            2 if self.replicas() == 0 => self.crash(world, master, chance).await,
            3 if self.replicas() == 0 => self.freeze(master, chance).await,
            4 | 5 if self.is_cluster() => self.move_slot(world, chance).await,
            2..=5 => self.replica_away(world, master, chance).await,
            _ => self.failover(world, master, chance).await,
        }
    }

    fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster { .. })
    }

    fn masters(&self) -> Vec<ServerId> {
        let deployment = self.deployment.borrow();
        deployment.servers().filter(|server| deployment.leader(*server) == *server).collect()
    }

    fn replicas_of(&self, master: ServerId) -> Vec<ServerId> {
        let deployment = self.deployment.borrow();
        deployment.servers().filter(|one| *one != master && deployment.leader(*one) == master).collect()
    }

    async fn full(&self, master: ServerId, chance: &mut Chance) {
        let trouble = *chance.one_of(&[
            Deployment::set_memory_full as fn(&mut Deployment, ServerId, bool),
            Deployment::set_busy,
            Deployment::set_loading,
            Deployment::set_disk_failing,
        ]);
        trouble(&mut self.deployment.borrow_mut(), master, true);
        sleep(super::faults::away(chance)).await;
        trouble(&mut self.deployment.borrow_mut(), master, false);
    }

    fn lose_functions(&self, master: ServerId) {
        self.deployment.borrow_mut().lose_functions(master);
    }

    async fn crash(&self, world: &World, server: ServerId, chance: &mut Chance) {
        self.deployment.borrow_mut().crash(server);
        self.miss(server, chance).await;
        sleep(super::faults::away(chance)).await;
        self.deployment.borrow_mut().restart(server, world.wall_millis());
        self.meet(server, chance).await;
    }

    async fn freeze(&self, server: ServerId, chance: &mut Chance) {
        self.deployment.borrow_mut().freeze(server);
        self.miss(server, chance).await;
        sleep(super::faults::away(chance)).await;
        self.deployment.borrow_mut().thaw(server);
        self.meet(server, chance).await;
    }

    /// The sentinels notice, one after the other, that they cannot reach a server.
    async fn miss(&self, server: ServerId, chance: &mut Chance) {
        let sentinels = self.deployment.borrow().sentinels();
        for sentinel in sentinels {
            sleep(chance.millis(50, 300)).await;
            self.deployment.borrow_mut().set_down(sentinel, server, true);
        }
    }

    /// And that they can again.
    async fn meet(&self, server: ServerId, chance: &mut Chance) {
        let sentinels = self.deployment.borrow().sentinels();
        for sentinel in sentinels {
            sleep(chance.millis(10, 200)).await;
            self.deployment.borrow_mut().set_down(sentinel, server, false);
        }
    }

    /// Whom the sentinels, or the other masters, make the master: of those that live the one with the longest history.
    fn heir(&self, master: ServerId, chance: &mut Chance) -> Option<ServerId> {
        let replicas = self.replicas_of(master);
        let deployment = self.deployment.borrow();
        let lives = |one: &ServerId| deployment.is_alive(*one) && !deployment.is_frozen(*one);
        let longest = replicas.iter().filter(|one| lives(one)).map(|one| deployment.offset(*one)).max()?;
        let heirs: Vec<ServerId> =
            replicas.into_iter().filter(|one| lives(one) && deployment.offset(*one) == longest).collect();
        Some(*chance.one_of(&heirs))
    }

    async fn replica_away(&self, world: &World, master: ServerId, chance: &mut Chance) {
        let replica = *chance.one_of(&self.replicas_of(master));
        match chance.below(3) {
            0 => self.crash(world, replica, chance).await,
            1 => self.freeze(replica, chance).await,
            _ => {
                self.deployment.borrow_mut().cut_link(master, replica);
                sleep(super::faults::away(chance)).await;
                self.deployment.borrow_mut().heal_link(master, replica);
            }
        }
    }

    /// A master dies, freezes, or is merely given up; some replica takes its place, not all hear of it at once, and the
    /// old one may wake and take itself for the master still.
    async fn failover(&self, world: &World, master: ServerId, chance: &mut Chance) {
        let dies = chance.below(3);
        match dies {
            0 => self.deployment.borrow_mut().crash(master),
            1 => self.deployment.borrow_mut().freeze(master),
            // Cut off from its replicas, and still there for everybody else.
            _ => self.cut_off(master, true),
        }
        if dies < 2 {
            self.miss(master, chance).await;
        } else if chance.permille(700) {
            // Somebody may have read from it what nobody else will ever have, and go on only after it was replaced.
            sleep(chance.millis(0, 3000)).await;
            super::faults::freeze(world, chance);
        }
        sleep(chance.millis(0, 2000)).await;
        if let Some(heir) = self.heir(master, chance) {
            self.enthrone(world, heir, master, chance).await;
        }
        sleep(chance.millis(0, 4000)).await;
        match dies {
            0 => self.deployment.borrow_mut().restart(master, world.wall_millis()),
            1 => self.deployment.borrow_mut().thaw(master),
            _ => {}
        }
        self.meet(master, chance).await;
        // A stale master for a while.
        sleep(chance.millis(0, 5000)).await;
        self.cut_off(master, false);
        self.follow(master, world.wall_millis());
        // Sentinels compare how much replicas have, and not of which history: a master that fails before this may lose
        // its place to the one that it replaced, as README says.
        self.deployment.borrow_mut().replicate(master, None, world.wall_millis());
    }

    async fn enthrone(&self, world: &World, heir: ServerId, master: ServerId, chance: &mut Chance) {
        let (at_once, later): (Vec<_>, Vec<_>) = self.tellers(heir).into_iter().partition(|_| chance.permille(600));
        self.deployment.borrow_mut().promote(heir, &at_once, world.wall_millis());
        sleep(chance.millis(0, 1500)).await;
        for one in later {
            self.deployment.borrow_mut().tell(one, world.wall_millis());
        }
        for other in self.replicas_of(heir).into_iter().filter(|one| *one != master) {
            self.follow(other, world.wall_millis());
        }
    }

    /// Who has to hear of a promotion: sentinels, or the other servers of a cluster.
    fn tellers(&self, promoted: ServerId) -> Vec<ServerId> {
        let deployment = self.deployment.borrow();
        if self.is_cluster() {
            let shard = self.replicas_of(promoted);
            deployment.servers().filter(|one| *one != promoted && !shard.contains(one)).collect()
        } else {
            deployment.sentinels().collect()
        }
    }

    fn cut_off(&self, master: ServerId, is_cut: bool) {
        let mut deployment = self.deployment.borrow_mut();
        for other in deployment.servers().filter(|other| *other != master) {
            if is_cut {
                deployment.cut_link(master, other);
            } else {
                deployment.heal_link(master, other);
                deployment.heal_link(other, master);
            }
        }
    }

    /// The server learns who is the master of its shard, unless it is the one.
    fn follow(&self, server: ServerId, now: u64) {
        let mut deployment = self.deployment.borrow_mut();
        let leader = deployment.leader(server);
        if leader == server || deployment.role(server) == Role::Replica(leader) {
            return;
        }
        if self.is_cluster() {
            deployment.tell(server, now);
        } else {
            deployment.demote(server, now);
        }
    }

    /// A slot that has keys moves from one master to another, key by key.
    async fn move_slot(&self, world: &World, chance: &mut Chance) {
        let masters = self.masters();
        let from = *chance.one_of(&masters);
        let to = *chance.one_of(&masters);
        let keys: Vec<Bytes> = self.deployment.borrow().contents(from).into_keys().collect();
        if from == to || keys.is_empty() {
            return;
        }
        let slot = slot_of(chance.one_of::<Bytes>(&keys));
        *self.moving.borrow_mut() = Some((slot, from, to));
        self.deployment.borrow_mut().migrate_begin(slot, from, to);
        loop {
            sleep(chance.millis(0, 300)).await;
            if self.deployment.borrow_mut().migrate_keys(slot, 1, from, to, world.wall_millis()) == 0 {
                break;
            }
            // Servers move keys without waiting for replicas: who moves slots had better see to that before the next fault.
            self.catch_up(world.wall_millis());
        }
        self.end_move(world.wall_millis());
    }

    fn end_move(&self, now: u64) {
        let Some((slot, from, to)) = self.moving.borrow_mut().take() else { return };
        let mut deployment = self.deployment.borrow_mut();
        deployment.migrate_keys(slot, usize::MAX, from, to, now);
        deployment.migrate_end(slot, from, to);
        for server in deployment.servers().filter(|server| ![from, to].contains(server)) {
            deployment.tell(server, now);
        }
        drop(deployment);
        self.catch_up(now);
    }

    /// Everything works again.
    pub fn heal(&self, now: u64) {
        {
            let mut deployment = self.deployment.borrow_mut();
            let everybody: Vec<ServerId> = deployment.servers().chain(deployment.sentinels()).collect();
            let sentinels: Vec<ServerId> = deployment.sentinels().collect();
            for server in &everybody {
                for sentinel in &sentinels {
                    deployment.set_down(*sentinel, *server, false);
                }
                deployment.thaw(*server);
                if !deployment.is_alive(*server) {
                    deployment.restart(*server, now);
                }
            }
            for server in deployment.servers() {
                deployment.set_memory_full(server, false);
                deployment.set_busy(server, false);
                deployment.set_loading(server, false);
                deployment.set_disk_failing(server, false);
                for other in deployment.servers() {
                    deployment.heal_link(server, other);
                }
            }
            everybody.into_iter().for_each(|one| deployment.tell(one, now));
        }
        let servers = self.deployment.borrow().servers();
        servers.for_each(|server| self.follow(server, now));
        self.end_move(now);
    }
}

fn replicas(topology: Topology) -> usize {
    match topology {
        Topology::Standalone => 0,
        Topology::Sentinel { replicas, .. } | Topology::Cluster { replicas, .. } => replicas,
    }
}
