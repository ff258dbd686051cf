//! How a change travels to a master that has replicas: in batches, on connections that carry nothing else, so that one
//! `WAIT` at the end of a batch speaks for all of it.
//!
//! `WAIT` answers for the connection it is asked on, and holds up whatever comes after it there: so it can neither be
//! asked on another connection than the one that wrote, nor on one that is shared with requests that only read. What
//! arrives while a batch is on its way makes the next one. Each batch also learns how far the master's history reaches,
//! so that a promotion that fell short of it can be told (see `history`).
//!
//! Replicas that stay silent may be gone, or follow another master by now, and then waiting for them is in vain. So a
//! batch does not wait for them in one go: every now and then it asks the sentinels, and goes on with what they say.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::bb8::Pool;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::history::{Histories, Replication};
use super::node::{Hot, Link, Manager, Question, Said};
use super::reply;
use super::sentinel::{Lost, Sentinels};
use crate::store::{Durability, Origin};

/// Batches under way at once: one may be filled while another waits for the replicas.
const LANES: usize = 2;

/// Most changes that one batch holds: enough that waiting for the replicas is shared, few enough for Redis to serve
/// others in between.
const BATCH_MAX: usize = 64;

/// Changes that may wait for a place in a batch; more wait for a place here, within their deadline.
const QUEUE_MAX: usize = 1024;

/// How much earlier than the deadline Redis stops waiting for its replicas, so that its answer arrives.
const ANSWER_TAKES: Duration = Duration::from_millis(20);

/// How long replicas may be silent before the sentinels are asked about them: longer than a replica that works takes, and
/// short beside the deadline, within which the change has to be made elsewhere if this is the master no more.
const SILENT_FOR: Duration = Duration::from_millis(200);

/// The lanes to one server.
pub struct Lanes {
    queue: mpsc::Sender<Job>,
}

/// Which answers wait for whom.
#[derive(Clone)]
pub struct Promise {
    pub durability: Durability,
    /// So many replicas have to have a change before it is answered; 0 to wait for none.
    pub replicas: u32,
    /// Who says which of them need not.
    pub sentinels: Option<Sentinels>,
    pub histories: Arc<Histories>,
}

impl Promise {
    /// Replicas of this master that nobody has to wait for, if they do not follow it.
    async fn lost(&self, master: &str, history: &str) -> Arc<[Lost]> {
        match &self.sentinels {
            Some(sentinels) if self.replicas > 0 => sentinels.lost(master, history).await,
            _ => Arc::default(),
        }
    }

    fn is_replaced(&self, master: &str) -> bool {
        self.sentinels.as_ref().is_some_and(|sentinels| sentinels.is_replaced(master))
    }

    /// How many replicas have to have a change, if these are lost and these follow.
    fn needed(&self, lost: &[Lost], followers: &[Follower]) -> u32 {
        let follows = |lost: &Lost| followers.iter().any(|follower| follower.address == lost.address);
        let excused = lost.iter().filter(|lost| lost.is_down || !follows(lost)).count();
        // Somebody must have it when the master is gone.
        self.replicas.saturating_sub(excused as u32).max(self.replicas.min(1))
    }
}

/// A replica that a master names, and how much of its history that has.
struct Follower {
    address: Box<str>,
    has: u64,
}

/// What is known of a batch and the replicas.
struct Heard {
    kept: Result<(), Box<str>>,
    /// Waiting on may help: some have not confirmed it yet.
    is_short: bool,
}

/// What one caller asks for.
#[derive(Clone)]
pub enum Asked {
    /// A call that makes a change and answers 1, or makes none and answers something else, which nobody has to keep.
    /// It follows from what was read there.
    Change(Cmd, Origin),
    /// A question whose answer must be kept like a change: the second command is one that the replicas hear of.
    Covered(Cmd, Cmd),
}

struct Job {
    asked: Asked,
    /// The server takes over the slot, and is told that we know.
    asking: bool,
    until: Instant,
    answer: oneshot::Sender<Result<Said, Failure>>,
}

impl Lanes {
    /// Belongs to the runtime it is called on, and ends when it is dropped.
    pub(super) fn open(pool: &Pool<Manager>, promise: &Promise) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..LANES {
            let lane = Lane {
                jobs: Arc::clone(&jobs),
                pool: pool.clone(),
                hot: Hot::default(),
                known: None,
                followers: Vec::new(),
                promise: promise.clone(),
            };
            tokio::spawn(lane.run());
        }
        Self { queue }
    }

    /// Sends the commands and waits for what was promised. When this future is dropped they are sent all the same, or
    /// not at all.
    pub async fn ask(&self, asked: Asked, asking: bool, until: Instant) -> Result<Said, Failure> {
        let (answer, answered) = oneshot::channel();
        let job = Job { asked, asking, until, answer };
        match timeout_at(until, self.queue.send(job)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failure::NotSent("the runtime of this connection has ended".into())),
            Err(_) => return Err(Failure::NotSent("too many changes wait for Redis".into())),
        }
        // The lane was dropped with its runtime, and nobody knows how far it came.
        timeout_at(until, answered).await.map_err(|_| Failure::Late)?.unwrap_or(Err(Failure::Late))
    }
}

struct Lane {
    jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    pool: Pool<Manager>,
    hot: Hot,
    /// The connection whose server's history is known.
    known: Option<Link>,
    /// Of that server, as it said last.
    followers: Vec<Follower>,
    promise: Promise,
}

impl Lane {
    async fn run(mut self) {
        while let Some(jobs) = self.batch().await {
            let until = jobs.iter().map(|job| job.until).min().unwrap_or_else(Instant::now);
            match timeout_at(until, self.connect())
                .await
                .unwrap_or(Err(Failure::NotSent("no connection in time".into())))
            {
                Ok((link, found)) => self.send(jobs, &link, &found.history, until).await,
                Err(failure) => {
                    for job in jobs {
                        let _nobody_waits = job.answer.send(Err(failure.clone()));
                    }
                }
            }
        }
    }

    /// Waits for a first one and takes what is there with it. `None` when nobody will send any more.
    async fn batch(&self) -> Option<Vec<Job>> {
        let mut jobs = self.jobs.lock().await;
        let mut batch = Vec::new();
        while batch.is_empty() {
            let first = jobs.recv().await?;
            // Whoever else is ready to send does it now.
            tokio::task::yield_now().await;
            batch.push(first);
            while batch.len() < BATCH_MAX
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            // Given up before it was sent: then it was not made.
            batch.retain(|job| !job.answer.is_closed());
        }
        Some(batch)
    }

    /// A connection, and what its server said of its history.
    async fn connect(&mut self) -> Result<(Link, Arc<Replication>), Failure> {
        let link = self.hot.mend(&self.pool).await.map_err(Failure::NotSent)?;
        let found = link.replication();
        let found = found.ok_or_else(|| Failure::NotSent("Redis does not tell its history".into()))?;
        if !self.known.as_ref().is_some_and(|known| known.is(&link)) {
            self.promise.histories.met(link.address(), &found, self.promise.durability);
            self.known = Some(link.clone());
            self.followers.clear();
        }
        Ok((link, found))
    }

    /// Refuses what follows from another history than the one that this connection would change. What is read next is
    /// read where changes are made: the connection that was made last makes all that lead elsewhere be made anew.
    fn refuse_foreign(jobs: Vec<Job>, link: &Link) -> Vec<Job> {
        let is_foreign = |job: &Job| matches!(job.asked, Asked::Change(_, origin) if !origin.fits(link.origin()));
        let (foreign, own): (Vec<_>, Vec<_>) = jobs.into_iter().partition(is_foreign);
        for job in foreign {
            let _nobody_waits = job.answer.send(Err(Failure::Elsewhere));
        }
        own
    }

    async fn send(&mut self, jobs: Vec<Job>, link: &Link, history: &str, until: Instant) {
        let lost = self.promise.lost(link.address(), history).await;
        let replicas = self.promise.needed(&lost, &self.followers);
        let jobs = Self::refuse_foreign(jobs, link);
        if jobs.is_empty() {
            return;
        }
        let mut batch = Pipeline::with_capacity(2 * jobs.len() + 2);
        let mut waiting = Vec::with_capacity(jobs.len());
        for Job { asked, asking, answer, .. } in jobs {
            let mut add = |command| {
                if asking {
                    batch.cmd("ASKING");
                }
                batch.add_command(command);
                batch.len() - 1
            };
            let (at, is_covered) = match asked {
                Asked::Change(call, _) => (add(call), false),
                Asked::Covered(question, touch) => {
                    let at = add(question);
                    add(touch);
                    (at, true)
                }
            };
            waiting.push((at, is_covered, answer));
        }
        let role_at = batch.len();
        batch.cmd("ROLE");
        if replicas > 0 {
            add_wait(&mut batch, replicas, until);
        }
        if !lost.is_empty() {
            batch.cmd("ROLE");
        }
        let mut answers = match link.ask(Question::Each(&batch)).await {
            Ok(Value::Array(answers)) => answers,
            Ok(_) => Vec::new(),
            Err(error) => {
                for (.., answer) in waiting {
                    let _nobody_waits = answer.send(Err(Failure::Asked(error.clone())));
                }
                return;
            }
        };
        let reached = answers.get(role_at).and_then(offset);
        let role_after = if lost.is_empty() { None } else { answers.pop() };
        let waited = if replicas > 0 { answers.pop() } else { None };
        let mut heard = self.judge(waited, role_after, replicas, &lost, reached);
        let is_made = |at: usize| answers.get(at) == Some(&Value::Int(1));
        if waiting.iter().any(|(at, is_covered, _)| *is_covered || is_made(*at)) {
            while heard.kept.is_err()
                && heard.is_short
                && let Some(more) = Box::pin(self.wait_on(link, history, reached, until)).await
            {
                heard = more;
            }
        }
        let kept = heard.kept;
        if kept.is_err() {
            if let Some(sentinels) = &self.promise.sentinels {
                sentinels.doubt();
            }
            // It may be a master no more, or one that nobody follows any more.
            link.give_up();
        }
        if kept.is_ok() && waiting.iter().any(|(at, ..)| answers.get(*at) == Some(&Value::Int(1))) {
            self.promise.histories.answered(history, reached.unwrap_or_default());
        }
        for (at, is_covered, answer) in waiting {
            let value = answers.get_mut(at).map_or(Value::Nil, |value| std::mem::replace(value, Value::Nil));
            let result = match (value.extract_error(), &kept) {
                (Err(error), _) => Err(link.note(error)),
                (Ok(value), Err(reason)) if is_covered || value == Value::Int(1) => {
                    drop(value);
                    Err(Failure::NotKept(reason.clone()))
                }
                (Ok(value), _) => Ok(Said { value, origin: link.origin() }),
            };
            let _nobody_waits = answer.send(result);
        }
    }

    /// Asks the sentinels about replicas that are silent, and waits for those that still count. `None` when it is in vain:
    /// this is the master no more, or it is too late.
    async fn wait_on(&mut self, link: &Link, history: &str, reached: Option<u64>, until: Instant) -> Option<Heard> {
        if let Some(sentinels) = &self.promise.sentinels {
            sentinels.doubt();
        }
        let lost = self.promise.lost(link.address(), history).await;
        if self.promise.is_replaced(link.address()) || Instant::now() + ANSWER_TAKES >= until {
            return None;
        }
        let replicas = self.promise.needed(&lost, &self.followers);
        let mut question = Pipeline::with_capacity(3);
        add_wait(&mut question, replicas, until);
        question.cmd("ROLE");
        question.cmd("INFO").arg("replication");
        let Ok(Value::Array(mut answers)) = link.ask(Question::Each(&question)).await else { return None };
        // Between two questions it may have been a replica, and then what its replicas confirm is another history.
        let info = reply::text(answers.pop()?).ok()?;
        if Replication::read(&info)?.origin() != link.origin() {
            return None;
        }
        let role_after = answers.pop();
        Some(self.judge(answers.pop(), role_after, replicas, &lost, reached))
    }

    /// Whether enough replicas have a batch, by what `WAIT` and, after it, `ROLE` answered.
    fn judge(
        &mut self,
        waited: Option<Value>,
        role_after: Option<Value>,
        replicas: u32,
        lost: &[Lost],
        reached: Option<u64>,
    ) -> Heard {
        let mut is_short = matches!(waited, Some(Value::Int(heard)) if heard < i64::from(replicas));
        let mut kept = if replicas > 0 { kept(waited, replicas) } else { Ok(()) };
        if let Some(role) = role_after {
            self.followers = followers(&role);
            if !lost.is_empty() {
                kept = kept.and_then(|()| self.kept_by_others(lost, reached));
                // One of the lost has come back, and was not waited for yet.
                is_short |= self.promise.needed(lost, &self.followers) > replicas;
            }
        }
        Heard { kept, is_short }
    }

    /// `WAIT` counts whoever has it; where some are lost it must be the others.
    fn kept_by_others(&self, lost: &[Lost], reached: Option<u64>) -> Result<(), Box<str>> {
        let is_down = |follower: &&Follower| lost.iter().any(|lost| lost.is_down && lost.address == follower.address);
        let has = |follower: &&Follower| reached.is_some_and(|reached| follower.has >= reached);
        let heard = self.followers.iter().filter(|follower| has(follower) && !is_down(follower)).count();
        let needed = self.promise.needed(lost, &self.followers);
        if heard >= needed as usize {
            return Ok(());
        }
        Err(format!("made, but {heard} of {needed} replicas that are not lost have it").into())
    }
}

/// Waits for so many replicas, and not longer than they may be silent.
fn add_wait(commands: &mut Pipeline, replicas: u32, until: Instant) {
    let patience = until.saturating_duration_since(Instant::now()).saturating_sub(ANSWER_TAKES).min(SILENT_FOR);
    // None at all would be for ever.
    commands.cmd("WAIT").arg(replicas).arg(patience.as_millis().max(1) as u64);
}

/// What `WAIT` answered: how many replicas have everything that its connection wrote.
fn kept(answer: Option<Value>, replicas: u32) -> Result<(), Box<str>> {
    match answer.map(Value::extract_error) {
        Some(Ok(Value::Int(heard))) if heard >= i64::from(replicas) => Ok(()),
        Some(Ok(Value::Int(heard))) => Err(format!("made, but {heard} of {replicas} replicas have it").into()),
        Some(Err(error)) => Err(format!("made, but the replicas may not have it: {error}").into()),
        Some(Ok(_)) | None => Err("made, but Redis does not say which replicas have it".into()),
    }
}

/// The replicas of a master, as `ROLE` says.
fn followers(role: &Value) -> Vec<Follower> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    let follower = |value: &Value| {
        let Value::Array(parts) = value else { return None };
        let [host, port, has] = parts.as_slice() else { return None };
        let address = format!("{}:{}", text(host)?, text(port)?).into();
        Some(Follower { address, has: text(has)?.parse().ok()? })
    };
    match role {
        Value::Array(parts) => match parts.as_slice() {
            [_, _, Value::Array(replicas)] => replicas.iter().filter_map(follower).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// How far a master's history reaches, as `ROLE` says.
fn offset(role: &Value) -> Option<u64> {
    match role {
        Value::Array(parts) => match parts.as_slice() {
            [Value::BulkString(role), Value::Int(offset), ..] if role == b"master" => u64::try_from(*offset).ok(),
            _ => None,
        },
        _ => None,
    }
}
