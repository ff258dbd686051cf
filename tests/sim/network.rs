//! The wires between instances, servers of the store, and consumers. They delay, break and stall; what an instance that
//! has died still sends reaches nobody.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use nchf::network::{Network, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use super::ice::{Ice, Iced};
use super::redis::{Decoder, Outcome, Reply, ServerId, Session};
use super::world::World;

/// An instance from one start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life(pub u64);

/// Who asks to be connected.
pub struct Dial {
    life: Life,
    to: SocketAddr,
    answer: oneshot::Sender<io::Result<DuplexStream>>,
}

/// One instance's end of all wires.
#[derive(Clone, Debug)]
pub struct Cable {
    pub life: Life,
    pub ice: Ice,
    pub dials: mpsc::UnboundedSender<Dial>,
}

#[async_trait]
impl Network for Cable {
    async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn Socket>> {
        let (answer, answered) = oneshot::channel();
        self.dials.send(Dial { life: self.life, to, answer }).map_err(io::Error::other)?;
        let socket = answered.await.map_err(io::Error::other)??;
        Ok(Box::new(Iced { socket, ice: self.ice.clone() }))
    }
}

/// What is known of the wires of one life.
#[derive(Default)]
struct Line {
    is_cut: bool,
    held_until: Option<Instant>,
    /// Commands until the instance dies.
    dies_in: Option<u64>,
}

#[derive(Default)]
pub struct Lines(RefCell<BTreeMap<Life, Line>>);

impl Lines {
    fn with<T>(&self, life: Life, act: impl FnOnce(&mut Line) -> T) -> T {
        act(self.0.borrow_mut().entry(life).or_default())
    }

    pub fn cut(&self, life: Life) {
        self.with(life, |line| line.is_cut = true);
    }

    pub fn is_cut(&self, life: Life) -> bool {
        self.with(life, |line| line.is_cut)
    }

    /// Nothing travels until then.
    pub fn hold(&self, life: Life, until: Instant) {
        self.with(life, |line| line.held_until = Some(until));
    }

    pub async fn released(&self, life: Life) {
        if let Some(until) = self.with(life, |line| line.held_until) {
            sleep_until(until).await;
        }
    }

    pub fn die_in(&self, life: Life, commands: u64) {
        self.with(life, |line| line.dies_in = Some(commands));
    }

    /// Counts a command: whether the instance dies with it.
    fn dies(&self, life: Life) -> bool {
        self.with(life, |line| {
            line.dies_in = line.dies_in.map(|commands| commands.saturating_sub(1));
            line.dies_in == Some(0)
        })
    }
}

/// Octets under way in one direction; whoever sends more waits.
const CAPACITY: usize = 1 << 20;

/// Connects whoever asks.
pub async fn switchboard(world: Rc<World>, mut dials: mpsc::UnboundedReceiver<Dial>) {
    while let Some(dial) = dials.recv().await {
        spawn_local(connect(Rc::clone(&world), dial));
    }
}

async fn connect(world: Rc<World>, Dial { life, to, answer }: Dial) {
    world.travel(life).await;
    if world.lines.is_cut(life) {
        // The caller is no more, and waits for nothing.
        return;
    }
    let (near, far) = tokio::io::duplex(CAPACITY);
    if let Some(consumer) = world.consumer_at(to) {
        if consumer.listens() {
            let _gone = answer.send(Ok(near));
            consumer.serve(far, life, world).await;
        } else {
            let _gone = answer.send(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        return;
    }
    let server = world.store.server_at(to);
    world.store.thawed(server).await;
    match world.store.connect(server) {
        Some(session) => {
            let _gone = answer.send(Ok(near));
            Wire { world, life, server, session }.serve(far).await;
        }
        None => {
            let _gone = answer.send(Err(io::ErrorKind::ConnectionRefused.into()));
        }
    }
}

/// A connection of an instance to a server of the store.
struct Wire {
    world: Rc<World>,
    life: Life,
    server: ServerId,
    session: Session,
}

/// What happens to a command besides its being performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Usual,
    BreaksBefore,
    BreaksAfter,
    Stalls,
}

impl Wire {
    /// Ends when either side does.
    async fn serve(mut self, mut stream: DuplexStream) {
        let mut decoder = Decoder::default();
        let mut received = vec![0; 16 * 1024];
        while let Ok(octets @ 1..) = stream.read(&mut received).await {
            decoder.push(&received[..octets]);
            self.world.travel(self.life).await;
            let mut answers = Vec::new();
            while let Ok(Some(command)) = decoder.next() {
                match self.perform(command).await {
                    Some(reply) => reply.write_to(&mut answers),
                    None => return,
                }
            }
            if answers.is_empty() {
                continue;
            }
            self.world.travel(self.life).await;
            if self.world.lines.is_cut(self.life) || stream.write_all(&answers).await.is_err() {
                return;
            }
        }
    }

    /// `None` when the connection ends with it.
    async fn perform(&mut self, command: Vec<bytes::Bytes>) -> Option<Reply> {
        let fate = self.fate(&command);
        // What was on its way when an instance died may arrive all the same.
        let is_too_late = self.world.lines.is_cut(self.life) && self.world.wire_chance(500);
        if is_too_late || fate == Fate::BreaksBefore {
            return None;
        }
        if fate == Fate::Stalls {
            sleep(Duration::from_secs(3)).await;
        }
        self.world.store.thawed(self.server).await;
        let outcome = self.world.store.execute(&mut self.session, command, self.world.wall_millis());
        let reply = match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Wait { needed, offset, timeout_ms } => self.wait(needed, offset, timeout_ms).await,
            Outcome::Closed => return None,
        };
        (fate != Fate::BreaksAfter && !self.world.lines.is_cut(self.life)).then_some(reply)
    }

    fn fate(&self, command: &[bytes::Bytes]) -> Fate {
        if self.world.lines.dies(self.life) {
            self.world.kill(self.life);
            return if self.world.wire_chance(500) { Fate::BreaksBefore } else { Fate::BreaksAfter };
        }
        if !self.world.is_faulty() || is_a_look(command) {
            return Fate::Usual;
        }
        let options = &self.world.options;
        if self.world.wire_chance(options.broken) {
            return if self.world.wire_chance(500) { Fate::BreaksBefore } else { Fate::BreaksAfter };
        }
        if self.world.wire_chance(options.stalled) { Fate::Stalls } else { Fate::Usual }
    }

    async fn wait(&self, needed: usize, offset: u64, timeout_ms: u64) -> Reply {
        let until = Instant::now() + Duration::from_millis(timeout_ms);
        loop {
            let heard = self.world.store.acknowledged(self.server, offset);
            if heard >= needed || Instant::now() >= until {
                return Reply::Int(heard as i64);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The workers look at every partition again and again; faults are for what does something.
fn is_a_look(command: &[bytes::Bytes]) -> bool {
    command.first().is_some_and(|name| matches!(&name[..], b"ZCOUNT" | b"XLEN"))
}
