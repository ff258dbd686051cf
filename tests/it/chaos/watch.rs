//! When the store itself could have kept a change, so that its own absence is told apart from what comes after it. Asked
//! on connections of its own: a master that most sentinels name, or that has the slot, takes a write, and all replicas
//! confirm it that somebody has to wait for.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::{Connection, ErrorKind, RedisResult, cmd};

use super::timeline::Timeline;

/// A server, and a key of slots that it and its replicas have all the time.
pub struct Asked {
    pub port: u16,
    pub shard: usize,
    pub key: &'static str,
}

/// Whom to ask.
pub struct Whom {
    pub servers: Vec<Asked>,
    pub sentinels: Vec<u16>,
    /// Of each master.
    pub replicas: usize,
}

pub struct Watch {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// When each shard kept a change.
    kept: Vec<Vec<u32>>,
    /// When each server answered last.
    answered: HashMap<u16, u32>,
    /// What each sentinel says: where the master is, and which replicas are down.
    said: HashMap<u16, (u16, BTreeSet<u16>)>,
}

/// What a master answers to `ROLE`: last its replicas, by host and port.
type Role = (String, u64, Vec<(String, u16, u64)>);

/// Between two questions.
const EVERY: Duration = Duration::from_millis(25);

/// How long after its last answer a server still counts as one that answers, and a store as one that serves.
const SILENT_MAX: u32 = 150;

impl Watch {
    pub fn start(whom: Whom, timeline: &Arc<Timeline>) -> Self {
        let shards = whom.servers.iter().map(|server| server.shard + 1).max().unwrap_or_default();
        let seen = Arc::new(Mutex::new(Seen { kept: vec![Vec::new(); shards], ..Seen::default() }));
        let mut watch = Self { over: Arc::default(), threads: Vec::new(), seen: Arc::clone(&seen) };
        for port in whom.sentinels {
            let seen = Arc::clone(&seen);
            watch.ask_again_and_again(port, move |connection| {
                let said = master_and_down(connection)?;
                seen.lock().unwrap().said.insert(port, said);
                Ok(())
            });
        }
        let replicas = whom.replicas;
        for Asked { port, shard, key } in whom.servers {
            let (seen, timeline) = (Arc::clone(&seen), Arc::clone(timeline));
            watch.ask_again_and_again(port, move |connection| {
                let write: RedisResult<()> = cmd("SET").arg(key).arg(1).arg("PX").arg(60_000).query(connection);
                if write.as_ref().is_ok_and(|()| replicas == 0) {
                    seen.lock().unwrap().kept[shard].push(timeline.now());
                }
                if write.is_ok() && replicas > 0 {
                    let confirmed: usize = cmd("WAIT").arg(replicas).arg(50).query(connection)?;
                    let role: RedisResult<Role> = cmd("ROLE").query(connection);
                    let now = timeline.now();
                    let mut seen = seen.lock().unwrap();
                    if seen.is_master(port) && confirmed > 0 && confirmed + seen.excused(port, &role, now) >= replicas {
                        seen.kept[shard].push(now);
                    }
                }
                seen.lock().unwrap().answered.insert(port, timeline.now());
                write.or_else(|error| if error.kind() == ErrorKind::Io { Err(error) } else { Ok(()) })
            });
        }
        watch
    }

    /// When each shard kept a change.
    pub fn end(self) -> Vec<Vec<u32>> {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::mem::take(&mut self.seen.lock().unwrap().kept)
    }

    fn ask_again_and_again(
        &mut self,
        port: u16,
        mut ask: impl FnMut(&mut Connection) -> RedisResult<()> + Send + 'static,
    ) {
        let over = Arc::clone(&self.over);
        let connect = move || {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
            let connection = client.get_connection_with_timeout(EVERY * 10)?;
            // Longer than any pause: an answer comes in the moment that it ends.
            connection.set_read_timeout(Some(Duration::from_secs(6)))?;
            Ok(connection)
        };
        self.threads.push(std::thread::spawn(move || {
            let mut known: RedisResult<Connection> = connect();
            while !over.load(Ordering::Relaxed) {
                let outcome = known.as_mut().map_err(|_| ()).and_then(|connection| ask(connection).map_err(|_| ()));
                std::thread::sleep(EVERY);
                if outcome.is_err() {
                    known = connect();
                }
            }
        }));
    }
}

impl Seen {
    fn is_master(&self, port: u16) -> bool {
        let named = self.said.values().filter(|(master, _)| *master == port).count();
        self.said.is_empty() || named * 2 > self.said.len()
    }

    /// Replicas that nobody has to wait for: they do not follow, and are down, or say so themselves.
    fn excused(&self, master: u16, role: &RedisResult<Role>, now: u32) -> usize {
        let Ok((_, _, following)) = role else { return 0 };
        let answers = |port: u16| self.answered.get(&port).is_some_and(|at| now - at <= SILENT_MAX);
        let is_down =
            |port: u16| self.said.values().filter(|(_, down)| down.contains(&port)).count() * 2 > self.said.len();
        let others = self.answered.keys().copied().filter(|port| *port != master && !self.said.is_empty());
        let absent = others.filter(|port| !following.iter().any(|(_, following, _)| following == port));
        absent.filter(|port| answers(*port) || is_down(*port)).count()
    }
}

fn master_and_down(sentinel: &mut Connection) -> RedisResult<(u16, BTreeSet<u16>)> {
    let (_, master): (String, u16) = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg("main").query(sentinel)?;
    let replicas: Vec<HashMap<String, String>> = cmd("SENTINEL").arg("REPLICAS").arg("main").query(sentinel)?;
    let down = replicas.iter().filter(|replica| replica["flags"].contains("s_down"));
    Ok((master, down.map(|replica| replica["port"].parse().unwrap()).collect()))
}

/// How long of this time every shard could have kept a change.
pub fn served_between(kept: &[Vec<u32>], from: u32, to: u32) -> u32 {
    let serves = |moment: u32| {
        kept.iter().all(|kept| {
            let next = kept.partition_point(|kept| *kept < moment);
            let around = next.checked_sub(1).and_then(|before| Some((kept[before], *kept.get(next)?)));
            around.is_some_and(|(before, next)| next - before <= SILENT_MAX)
        })
    };
    (from..to).filter(|moment| serves(*moment)).count() as u32
}
