//! Whether what was answered is still there after another server became the master.
//!
//! Every master writes a history: a name, and an offset that grows with each byte that its replicas have to hear. A
//! replica that is promoted begins a history of its own and keeps the name of the one before and the offset where it
//! left that. So whoever remembers how far a history reached when a change was answered can tell exactly whether the next
//! master has it. What cannot be told is said, too: a server that starts anew remembers no history before its own. That
//! alone is no loss, as long as it answers nothing: it may have been replaced meanwhile, and be the last one to know.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, cmd};

use crate::store::{Durability, Origin};

/// What a server says of its history, in `INFO replication`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    pub is_master: bool,
    pub history: Box<str>,
    /// The history before, and the first offset of it that this server does not have.
    pub before: Box<str>,
    pub left_before_at: Option<u64>,
    pub replicas: u32,
    /// Of a replica: the master's host and port, and whether it has what that had when they connected.
    pub follows: Option<Box<str>>,
    pub is_up: bool,
}

impl Replication {
    /// Asks a server.
    pub async fn of(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let info: String = cmd("INFO").arg("replication").query_async(connection).await?;
        let unreadable = || RedisError::from((ErrorKind::UnexpectedReturnType, "Redis does not tell its history"));
        Self::read(&info).ok_or_else(unreadable)
    }

    /// What is read from it is told apart from what another history says.
    pub fn origin(&self) -> Origin {
        // Random hexadecimal digits, of which these are enough.
        let digits = self.history.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        Origin(digits.unwrap_or_default())
    }

    /// By its own word it has no connection to this master, and was not made a master in its place.
    pub fn strays_from(&self, master: &str, history: &str) -> bool {
        if self.is_master {
            *self.history != *history && *self.before != *history
        } else {
            !self.is_up && self.follows.as_deref() == Some(master)
        }
    }

    pub fn read(info: &str) -> Option<Self> {
        let lines: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let number = |name| lines.get(name)?.parse().ok();
        Some(Self {
            is_master: *lines.get("role")? == "master",
            history: (*lines.get("master_replid")?).into(),
            before: (*lines.get("master_replid2")?).into(),
            // -1 where there is no history before.
            left_before_at: number("second_repl_offset"),
            replicas: number("connected_slaves").and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
            follows: lines.get("master_host").zip(lines.get("master_port")).map(|(h, p)| format!("{h}:{p}").into()),
            is_up: lines.get("master_link_status") == Some(&"up"),
        })
    }
}

/// Changes that were answered and may be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The master has the history up to `kept`, and answers were given up to `answered`: bytes of the replication stream.
    Behind { answered: u64, kept: u64 },
    /// The master began anew, and nobody can tell.
    Untold { answered: u64 },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { answered, kept } => write!(
                f,
                "changes that were answered are lost: the new master has the history up to {kept}, and it was answered up \
                 to {answered}"
            ),
            Self::Untold { answered } => write!(
                f,
                "changes that were answered may be lost: the master began a new history, and of the one before it was \
                 answered up to {answered}"
            ),
        }
    }
}

/// How far each history reached when something was answered. Shared by all stores of an instance: one of them alone may
/// have nothing to write for a while, and then miss a whole history.
#[derive(Default)]
pub struct Histories {
    known: Mutex<Vec<Known>>,
    /// Promotions after which changes that were answered are, or may be, gone.
    losses: AtomicU64,
}

struct Known {
    history: Box<str>,
    /// The server that writes it.
    server: Box<str>,
    /// Which history it goes on with, and its own first offset.
    after: Option<(Box<str>, u64)>,
    answered: u64,
    /// What comes at or after this offset is not part of any history that goes on.
    ended_at: Option<u64>,
    /// What the same server wrote before it began anew, until it answers.
    forgot: Option<Box<str>>,
}

/// Histories that have ended are remembered for those who do not know it yet, the latest ones only.
const ENDED_MAX: usize = 64;

impl Histories {
    /// How many there have been since this was asked last.
    pub fn take_losses(&self) -> u64 {
        self.losses.swap(0, Ordering::Relaxed)
    }

    /// A connection to this server was made.
    pub fn met(&self, server: &str, found: &Replication, durability: Durability) {
        if let Some(loss) = self.compare(server, found, durability) {
            self.report(&loss);
        }
    }

    /// A change was answered when the history reached this offset.
    pub fn answered(&self, history: &str, offset: u64) {
        if let Some(loss) = self.remember(history, offset) {
            self.report(&loss);
        }
    }

    fn report(&self, loss: &Loss) {
        self.losses.fetch_add(1, Ordering::Relaxed);
        tracing::error!(store.loss = ?loss, "{loss}");
    }

    fn compare(&self, server: &str, found: &Replication, durability: Durability) -> Option<Loss> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.is_master {
            return None;
        }
        if let Some(same) = known.iter_mut().find(|known| known.history == found.history) {
            same.server = server.into();
            return None;
        }
        let (history, server) = (found.history.clone(), Box::from(server));
        let mut begun = Known { history, server, after: None, answered: 0, ended_at: None, forgot: None };
        // Whoever was promoted meanwhile has lost its place to one that never followed it.
        let mut loss = end_branches(&mut known, &found.before);
        if let Some(before) = known.iter_mut().find(|known| known.history == found.before) {
            let left_at = found.left_before_at.unwrap_or_default();
            begun.after = Some((found.before.clone(), left_at));
            before.ended_at = Some(left_at);
            // Offsets go on where the history before was left.
            let kept = left_at.saturating_sub(1);
            begun.answered = before.answered.min(kept);
            loss =
                loss.or_else(|| (before.answered > kept).then_some(Loss::Behind { answered: before.answered, kept }));
            // Whoever forgot it was replaced.
            for stray in known.iter_mut().filter(|known| known.forgot.as_ref() == Some(&found.before)) {
                (stray.ended_at, stray.forgot) = (Some(0), None);
            }
        } else if let Some(before) = known.iter_mut().rfind(|known| known.server == begun.server && known.goes_on()) {
            // Started again, with what is on its disk.
            let is_on_disk = durability == Durability::Fsync;
            let forgot = before.forgot.take();
            if is_on_disk || before.answered == 0 {
                before.ended_at = Some(0);
                begun.forgot = forgot;
            } else {
                begun.forgot = Some(before.history.clone());
            }
        }
        known.push(begun);
        if known.len() > ENDED_MAX
            && let Some(oldest) = known.iter().position(|known| known.ended_at.is_some())
        {
            known.remove(oldest);
        }
        loss
    }

    fn remember(&self, history: &str, offset: u64) -> Option<Loss> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let this = known.iter_mut().find(|known| &*known.history == history)?;
        this.answered = this.answered.max(offset);
        if let Some(ended_at) = this.ended_at {
            let kept = ended_at.saturating_sub(1);
            return (offset > kept).then_some(Loss::Behind { answered: offset, kept });
        }
        let forgot = this.forgot.take()?;
        let before = known.iter_mut().find(|known| known.history == forgot && known.goes_on())?;
        before.ended_at = Some(0);
        Some(Loss::Untold { answered: before.answered })
    }
}

/// Ends all that goes on with this history, because something else does now. Answers whether anything was answered there.
fn end_branches(known: &mut [Known], from: &str) -> Option<Loss> {
    let mut loss = None;
    for at in 0..known.len() {
        let Some(begun_at) = known[at].goes_on().then(|| begun_after(known, at, from)).flatten() else { continue };
        let kept = begun_at.saturating_sub(1);
        known[at].ended_at = Some(begun_at);
        loss = loss.or((known[at].answered > kept).then_some(Loss::Behind { answered: known[at].answered, kept }));
    }
    loss
}

/// Where the branch of `from` that leads to the history at this position begins.
fn begun_after(known: &[Known], mut at: usize, from: &str) -> Option<u64> {
    // No history goes on with itself, so none comes twice.
    for _ in 0..known.len() {
        let (before, begun_at) = known[at].after.as_ref()?;
        if &**before == from {
            return Some(*begun_at);
        }
        at = known.iter().position(|known| known.history == *before)?;
    }
    None
}

impl Known {
    fn goes_on(&self) -> bool {
        self.ended_at.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histories() -> Histories {
        Histories::default()
    }

    fn master(history: &str, before: &str, left_before_at: u64) -> Replication {
        let (history, before) = (history.into(), before.into());
        Replication { is_master: true, history, before, left_before_at: Some(left_before_at), ..Replication::default() }
    }

    fn compare(histories: &Histories, server: &str, found: &Replication) -> Option<Loss> {
        histories.compare(server, found, Durability::Replicated)
    }

    #[test]
    fn info_is_read_as_redis_writes_it() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nmaster_replid:aa\r\nmaster_replid2:bb\r\n\
                    master_repl_offset:120\r\nsecond_repl_offset:101\r\n";
        assert_eq!(Replication::read(info), Some(Replication { replicas: 2, ..master("aa", "bb", 101) }));
        let first = info.replace("second_repl_offset:101", "second_repl_offset:-1");
        assert_eq!(Replication::read(&first).unwrap().left_before_at, None);
        assert_eq!(Replication::read("role:master"), None);
    }

    #[test]
    fn whoever_is_promoted_or_follows_another_one_does_not_stray() {
        // An old master, one that was started again, and one that was promoted in place of `a`.
        assert!(master("old", "", 0).strays_from("here:1", "a"));
        assert!(master("new", "0000", 0).strays_from("here:1", "a"));
        assert!(!master("b", "a", 101).strays_from("here:1", "a"));
        let follows = |text: &str, is_up| Replication { follows: Some(text.into()), is_up, ..Replication::default() };
        assert!(follows("here:1", false).strays_from("here:1", "a"));
        assert!(!follows("here:1", true).strays_from("here:1", "a"));
        assert!(!follows("there:1", false).strays_from("here:1", "a"));
        let info = "role:slave\r\nmaster_host:here\r\nmaster_port:1\r\nmaster_link_status:down\r\n\
                    master_replid:a\r\nmaster_replid2:0000\r\n";
        let found = Replication::read(info).unwrap();
        assert_eq!((found.follows.as_deref(), found.is_up), (Some("here:1"), false));
    }

    #[test]
    fn a_promoted_replica_that_has_all_that_was_answered_lost_nothing() {
        let of = histories();
        assert_eq!(compare(&of, "one", &master("a", "", 0)), None);
        assert_eq!(of.remember("a", 100), None);
        // The first byte that it does not have is the one after the last that was answered.
        assert_eq!(compare(&of, "two", &master("b", "a", 101)), None);
        assert_eq!(of.remember("b", 130), None);
        assert_eq!(compare(&of, "one", &master("c", "b", 131)), None);
    }

    #[test]
    fn one_byte_short_is_a_loss_and_told_once() {
        let of = histories();
        compare(&of, "one", &master("a", "", 0));
        of.remember("a", 100);
        let promoted = master("b", "a", 100);
        assert_eq!(compare(&of, "two", &promoted), Some(Loss::Behind { answered: 100, kept: 99 }));
        assert_eq!(compare(&of, "two", &promoted), None);
    }

    #[test]
    fn a_master_that_was_replaced_and_comes_back_in_its_place_is_a_loss_of_what_was_answered_meanwhile() {
        let of = histories();
        compare(&of, "one", &master("a", "", 0));
        of.remember("a", 100);
        assert_eq!(compare(&of, "two", &master("b", "a", 101)), None);
        of.remember("b", 130);
        // It wrote more than the other one, and had not taken over anything of that when it was promoted.
        let back = master("c", "a", 151);
        assert_eq!(compare(&of, "one", &back), Some(Loss::Behind { answered: 130, kept: 100 }));
        assert_eq!(compare(&of, "one", &back), None);
        assert_eq!(of.remember("b", 140), Some(Loss::Behind { answered: 140, kept: 100 }));
        // Where nothing was answered in between, nothing is lost.
        assert_eq!(compare(&of, "two", &master("d", "c", 161)), None);
        assert_eq!(compare(&of, "one", &master("e", "c", 171)), None);
        assert_eq!(of.remember("e", 180), None);
    }

    #[test]
    fn so_it_is_after_two_promotions() {
        let of = histories();
        compare(&of, "one", &master("a", "", 0));
        compare(&of, "two", &master("b", "a", 101));
        compare(&of, "three", &master("c", "b", 121));
        of.remember("c", 130);
        assert_eq!(compare(&of, "one", &master("d", "a", 151)), Some(Loss::Behind { answered: 130, kept: 100 }));
    }

    #[test]
    fn an_answer_of_a_master_that_was_replaced_is_a_loss() {
        let of = histories();
        compare(&of, "one", &master("a", "", 0));
        compare(&of, "two", &master("b", "a", 100));
        assert_eq!(of.remember("a", 99), None);
        assert_eq!(of.remember("a", 100), Some(Loss::Behind { answered: 100, kept: 99 }));
    }

    #[test]
    fn a_server_that_began_anew_cannot_tell_unless_it_has_a_disk() {
        let of = histories();
        compare(&of, "one", &master("a", "", 0));
        of.remember("a", 100);
        assert_eq!(of.compare("one", &master("b", "", 0), Durability::Fsync), None);
        assert_eq!(of.remember("b", 10), None);
        // Begun twice, and nothing was answered in between.
        assert_eq!(compare(&of, "one", &master("c", "", 0)), None);
        assert_eq!(compare(&of, "one", &master("d", "", 0)), None);
        assert_eq!(of.remember("d", 3), Some(Loss::Untold { answered: 10 }));
        assert_eq!(of.remember("d", 4), None);
        // Another server that joins a cluster has a history of its own.
        assert_eq!(compare(&of, "two", &master("e", "", 0)), None);
        assert_eq!(of.remember("e", 5), None);
    }

    #[test]
    fn a_server_that_began_anew_and_was_replaced_meanwhile_is_no_loss() {
        let of = histories();
        compare(&of, "one", &master("a", "", 0));
        of.remember("a", 100);
        // It is met before the one that took its place.
        assert_eq!(compare(&of, "one", &master("b", "", 0)), None);
        assert_eq!(compare(&of, "two", &master("c", "a", 101)), None);
        assert_eq!(of.remember("c", 130), None);
        // What it answers nevertheless is lost.
        assert_eq!(of.remember("b", 10), Some(Loss::Behind { answered: 10, kept: 0 }));
    }
}
