//! What the model says by itself. That it is what servers say is for `differential`.

use bytes::Bytes;

use super::differential::commands::{Chance, Generator};
use super::*;

/// By their names.
pub const LIBRARIES: [(&str, &str); 2] = [
    ("nchf_1", include_str!("../../../migrations-redis/0001_commit_function.lua")),
    ("nchf_3", include_str!("../../../migrations-redis/0003_one_list.lua")),
];

/// The commit function's check that a document has this version or, where that is empty, that there is none.
pub fn versioned(at: [u8; 2], version: &[u8]) -> Vec<u8> {
    let letter: &[u8] = if version.is_empty() { b"n" } else { b"v" };
    [letter, &at, version].concat()
}

/// The commit function's write of what lives for so many milliseconds.
pub fn living(at: [u8; 2], millis: &str) -> Vec<u8> {
    [b"P", &at[..], &[millis.len() as u8], millis.as_bytes()].concat()
}

pub fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> Vec<Bytes> {
    words.into_iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn ask(deployment: &mut Deployment, session: &mut Session, command: &str) -> Reply {
    match deployment.execute(session, words(command.split(' ')), 1_000_000) {
        Outcome::Reply(reply) => reply,
        other => panic!("{command}: {other:?}"),
    }
}

fn standalone(flavour: Flavour) -> (Deployment, Session) {
    let mut deployment = Deployment::new(Settings::new(Topology::Standalone, flavour));
    let mut session = deployment.connect(ServerId(0)).unwrap();
    for (name, source) in LIBRARIES {
        let loaded = deployment.execute(&mut session, words(["FUNCTION", "LOAD", source]), 0);
        assert_eq!(loaded, Outcome::Reply(Reply::text(name)));
    }
    (deployment, session)
}

#[test]
fn commands_come_in_any_pieces() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\n*1\r\n$4\r\nPI\r\n\r\n";
    for size in 1..bytes.len() {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(size) {
            decoder.push(piece);
            while let Some(command) = decoder.next().unwrap() {
                found.push(command);
            }
        }
        assert_eq!(found, [words(["GET", "k"]), words(["PI\r\n"])]);
    }
}

#[test]
fn the_functions_work() {
    let (mut of, mut session) = standalone(Flavour::Redis70);
    let reply = of.execute(
        &mut session,
        vec!["FCALL", "nchf_commit_3", "2", "{a}a", "{a}j", "n\0\x01A\0\x02S\0\x01", "entry", "\0\0\0\0\0\0\0\x01doc"]
            .into_iter()
            .map(Bytes::from)
            .collect(),
        0,
    );
    assert_eq!(reply, Outcome::Reply(Reply::Int(1)));
    assert_eq!(ask(&mut of, &mut session, "LRANGE {a}j 0 -1"), Reply::texts(["entry"]));
    assert_eq!(ask(&mut of, &mut session, "GET {a}a"), Reply::text("\0\0\0\0\0\0\0\x01doc"));
    assert_eq!(ask(&mut of, &mut session, "ZADD t 5 a 6 b 7 c"), Reply::Int(3));
    assert_eq!(ask(&mut of, &mut session, "FCALL nchf_claim_1 1 t 6 9 10"), Reply::texts(["a", "5", "b", "6"]));
    assert_eq!(ask(&mut of, &mut session, "FCALL_RO nchf_page_1 1 t 7 c 2"), Reply::texts(["a", "9", "b", "9"]));
    assert_eq!(of.unmodelled(), [""; 0]);
}

/// A deployment, its clock, and connections that are made when they are needed.
struct World {
    of: Deployment,
    sessions: BTreeMap<ServerId, Session>,
    now: u64,
}

const A: ServerId = ServerId(0);
const B: ServerId = ServerId(1);
const C: ServerId = ServerId(2);

impl World {
    fn new(settings: Settings) -> Self {
        Self { of: Deployment::new(settings), sessions: BTreeMap::new(), now: 1_764_000_000_000 }
    }

    fn watched(settings: impl FnOnce(&mut Settings)) -> Self {
        let mut chosen = Settings::new(Topology::Sentinel { replicas: 2, sentinels: 3 }, Flavour::Valkey9);
        settings(&mut chosen);
        Self::new(chosen)
    }

    fn run(&mut self, at: ServerId, command: Vec<Bytes>) -> Outcome {
        let session = self.sessions.remove(&at).filter(|session| self.of.is_open(session));
        let mut session = session.unwrap_or_else(|| self.of.connect(at).expect("it lives"));
        let outcome = self.of.execute(&mut session, command, self.now);
        self.sessions.insert(at, session);
        outcome
    }

    fn reply(&mut self, at: ServerId, command: Vec<Bytes>) -> Reply {
        match self.run(at, command) {
            Outcome::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, at: ServerId, command: &str) -> Reply {
        self.reply(at, words(command.split(' ')))
    }

    fn set(&mut self, at: ServerId, key: &str) -> bool {
        self.ask(at, &format!("SET {key} v")) == Reply::OK
    }

    fn has(&mut self, at: ServerId, key: &str) -> bool {
        self.ask(at, &format!("GET {key}")) != Reply::Nil
    }

    fn load(&mut self, at: ServerId) {
        for (name, source) in LIBRARIES {
            assert_eq!(self.reply(at, words(["FUNCTION", "LOAD", source])), Reply::text(name));
        }
    }
}

#[test]
fn a_call_that_answers_an_error_has_written_nothing() {
    let mut world = World::new(Settings::new(Topology::Standalone, Flavour::Redis70));
    let mut generator = Generator::new(Chance::new(3));
    world.load(A);
    let (mut refused, mut made) = (0, 0);
    for round in 0..20_000 {
        if round % 10 == 0 {
            // Other kinds under the keys.
            let command: Vec<Bytes> = generator.command().into_iter().map(|word| word.real).collect();
            if !["MULTI", "WAIT", "SELECT"].iter().any(|name| command[0] == name) {
                world.run(A, command);
            }
        }
        let call = if round % 3 == 0 { generator.wild_call() } else { generator.sound_commit() };
        let before = world.of.state_digest(A);
        let reply = world.reply(A, call.clone());
        let is_same = world.of.state_digest(A) == before;
        assert!(is_same || !reply.is_error(), "{call:?}: {reply:?}");
        // Nor has a conflict, which answers documents.
        assert!(is_same || call[1] != "nchf_commit_3" || reply == Reply::Int(1), "{call:?}: {reply:?}");
        *if reply.is_error() { &mut refused } else { &mut made } += 1;
    }
    assert!(refused > 3000 && made > 3000, "{refused} refused, {made} made");
}

#[test]
fn what_replicas_and_disks_have_is_what_the_master_had() {
    for flavour in [Flavour::Redis70, Flavour::Valkey9] {
        for seed in 0..20 {
            let topology = Topology::Sentinel { replicas: 2, sentinels: 0 };
            let appendfsync = AppendFsync::Everysec;
            let mut world = World::new(Settings { seed, appendfsync, ..Settings::new(topology, flavour) });
            let mut chance = Chance::new(seed);
            let mut generator = Generator::new(Chance::new(seed));
            world.load(A);
            for _ in 0..600 {
                let command: Vec<Bytes> = generator.command().into_iter().map(|word| word.real).collect();
                world.run(A, command);
                if chance.is_one_in(5) {
                    let up_to = world.of.offset(B) + chance.below(300) as u64;
                    world.of.replicate(B, Some(up_to), world.now);
                }
                if chance.is_one_in(50) {
                    world.of.fsync(A);
                }
                world.now += chance.below(50) as u64;
            }
            let contents = world.of.contents(A);
            for replica in [B, C] {
                assert!(world.of.replicate(replica, None, world.now));
                assert_eq!(world.of.contents(replica), contents, "seed {seed}");
                assert_eq!(world.of.offset(replica), world.of.offset(A));
            }
            world.of.fsync(A);
            world.of.crash(A);
            world.of.restart(A, world.now);
            assert_eq!(world.of.contents(A), contents, "seed {seed}");
        }
    }
}

#[test]
fn a_crash_leaves_what_the_disk_has() {
    // Whether what was written before and after an fsync is there.
    let rows = [
        (AppendFsync::Always, [true, true]),
        (AppendFsync::Everysec, [true, false]),
        (AppendFsync::No, [true, false]),
        (AppendFsync::Off, [false, false]),
    ];
    for (appendfsync, expected) in rows {
        let mut world = World::new(Settings { appendfsync, ..Settings::new(Topology::Standalone, Flavour::Redis70) });
        world.load(A);
        world.set(A, "before");
        world.of.fsync(A);
        world.set(A, "after");
        let mut session = world.of.connect(A).unwrap();
        world.of.crash(A);
        assert!(world.of.connect(A).is_none());
        assert_eq!(world.of.execute(&mut session, words(["PING"]), 0), Outcome::Closed);
        world.of.restart(A, world.now);
        assert_eq!(["before", "after"].map(|key| world.has(A, key)), expected, "{appendfsync:?}");
        let has_functions = world.ask(A, "FUNCTION LIST LIBRARYNAME nchf_1") != Reply::Array(Vec::new());
        assert_eq!(has_functions, expected[0], "{appendfsync:?}");
        assert_eq!(world.of.execute(&mut session, words(["PING"]), 0), Outcome::Closed);
    }
}

#[test]
fn a_replica_that_is_behind_is_promoted_with_what_it_has() {
    let mut world = World::watched(|_| {});
    world.set(A, "everywhere");
    world.of.replicate(B, None, world.now);
    world.of.replicate(C, None, world.now);
    world.of.cut_link(A, B);
    world.set(A, "late");
    assert!(!world.of.replicate(B, None, world.now) && world.of.replicate(C, None, world.now));
    world.of.freeze(A);
    world.of.promote(B, &[ServerId(3)], world.now);
    let told = |world: &mut World, sentinel: usize| {
        let Reply::Array(parts) = world.ask(ServerId(sentinel), "SENTINEL MASTER main") else { panic!("unknown") };
        [3, 13].map(|at| parts[at].clone())
    };
    assert_eq!(told(&mut world, 3), [Reply::text("10.0.0.2"), Reply::text("1")]);
    assert_eq!(told(&mut world, 4), [Reply::text("10.0.0.1"), Reply::text("0")]);
    world.of.tell(ServerId(4), world.now);
    assert_eq!(told(&mut world, 4), [Reply::text("10.0.0.2"), Reply::text("1")]);
    // The other replica was further, and begins anew.
    assert!(world.has(C, "late"));
    world.of.demote(C, world.now);
    assert!(world.has(C, "late"));
    world.of.replicate(C, None, world.now);
    assert!(world.has(C, "everywhere") && !world.has(C, "late"));
    // The old master wakes and takes what nobody will have.
    world.of.thaw(A);
    assert!(world.set(A, "stale") && world.set(B, "new"));
    let mut session = world.of.connect(A).unwrap();
    world.of.demote(A, world.now);
    assert_eq!(world.of.execute(&mut session, words(["PING"]), world.now), Outcome::Closed);
    world.of.replicate(A, None, world.now);
    assert_eq!(world.of.contents(A), world.of.contents(B));
    assert!(!world.set(A, "replica"));
}

#[test]
fn a_master_that_hears_of_no_replica_refuses_writes_soon() {
    let mut world = World::watched(|settings| {
        settings.min_replicas_to_write = 1;
        settings.min_replicas_max_lag_secs = 1;
    });
    assert!(world.set(A, "k"));
    world.now += 1000;
    assert!(world.set(A, "k"));
    world.now += 1000;
    assert_eq!(world.ask(A, "SET k v"), Reply::error("NOREPLICAS Not enough good replicas to write."));
    world.of.replicate(B, None, world.now);
    world.now += 1000;
    assert!(world.set(A, "k"));
    // One that wakes after long takes one more before it looks.
    world.of.freeze(A);
    world.now += 10_000;
    world.of.thaw(A);
    assert!(world.set(A, "k") && !world.set(A, "k"));
}

#[test]
fn waiting_ends_when_the_replicas_were_asked_and_have_it() {
    let mut world = World::watched(|_| {});
    for replica in [B, C] {
        world.of.replicate(replica, None, world.now);
    }
    world.set(A, "k");
    let outcome = world.run(A, words(["WAIT", "2", "500"]));
    let Outcome::Wait { needed: 2, offset, timeout_ms: 500 } = outcome else { panic!("{outcome:?}") };
    assert_eq!(world.of.acknowledged(A, offset), 0);
    world.of.replicate(B, None, world.now);
    assert_eq!(world.of.acknowledged(A, offset), 1);
    // One that has it but not the question says nothing yet.
    world.of.replicate(C, Some(offset), world.now);
    assert_eq!(world.of.acknowledged(A, offset), 1);
    world.of.replicate(C, None, world.now);
    assert_eq!(world.of.acknowledged(A, offset), 2);
    assert_eq!(world.ask(A, "WAIT 2 500"), Reply::Int(2));
}

#[test]
fn keys_expire_by_the_clock_that_is_given() {
    let mut world = World::watched(|_| {});
    world.ask(A, "SET k v PX 100");
    world.of.replicate(B, None, world.now);
    world.now += 100;
    assert!(world.has(A, "k") && world.has(B, "k"));
    world.now += 1;
    // A replica hides it and waits to be told.
    assert!(!world.has(B, "k"));
    assert_eq!(world.of.key_count(B), 1);
    world.of.remove_expired(A, world.now);
    assert_eq!(world.of.key_count(A), 0);
    world.of.replicate(B, None, world.now);
    assert_eq!(world.of.key_count(B), 0);
}

#[test]
fn servers_in_trouble_say_so() {
    let mut world = World::watched(|settings| settings.serves_stale_data = false);
    type Set = fn(&mut Deployment, ServerId, bool);
    let rows: [(Set, &str); 4] = [
        (Deployment::set_memory_full, "OOM "),
        (Deployment::set_busy, "BUSY "),
        (Deployment::set_loading, "LOADING "),
        (Deployment::set_disk_failing, "MISCONF "),
    ];
    for (set, code) in rows {
        set(&mut world.of, A, true);
        let reply = world.ask(A, "SET k v");
        assert!(matches!(&reply, Reply::Error(text) if text.starts_with(code)), "{reply:?}");
        set(&mut world.of, A, false);
        assert!(world.set(A, "k"));
    }
    world.of.crash(A);
    let reply = world.ask(B, "GET k");
    assert!(matches!(&reply, Reply::Error(text) if text.starts_with("MASTERDOWN ")), "{reply:?}");
}

#[test]
fn a_cluster_follows_promotions_as_it_hears_of_them() {
    let topology = Topology::Cluster { masters: 2, replicas: 1 };
    let mut world = World::new(Settings::new(topology, Flavour::Redis70));
    // In a slot of the first master.
    let key = (0..).map(|at| format!("k{at}")).find(|key| cluster::slot_of(key.as_bytes()) < 8192).unwrap();
    assert!(world.set(A, &key));
    let moved = |to: usize| Reply::error(format!("MOVED {} 10.0.0.{to}:6379", cluster::slot_of(key.as_bytes())));
    let get = format!("GET {key}");
    assert_eq!([B, C].map(|at| world.ask(at, &get)), [moved(1), moved(1)]);
    world.of.replicate(C, None, world.now);
    world.of.promote(C, &[], world.now);
    assert_eq!(world.ask(C, &get), Reply::text("v"));
    assert_eq!([A, B].map(|at| world.ask(at, &get)), [Reply::text("v"), moved(1)]);
    assert!(world.set(A, &key), "it does not know yet");
    world.of.tell(B, world.now);
    world.of.tell(A, world.now);
    assert_eq!([A, B].map(|at| world.ask(at, &get)), [moved(3), moved(3)]);
    world.of.set_cluster_down(C, true);
    assert_eq!(world.ask(C, &get), Reply::error("CLUSTERDOWN The cluster is down"));
}
