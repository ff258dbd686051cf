//! Bytes as what is done to the timers of one partition, beside a model of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use nchf::charging::ids::ChargingDataRef;
use nchf::charging::time::{Span, Timestamp};
use nchf::clock::{Clock, ManualClock};
use nchf::store::memory::MemoryStore;
use nchf::store::{AccountKey, Commit, Listing, Origin, Partition, RefCodec, SessionWrite, Store, TimerWrite, Version};

const SESSIONS: u8 = 6;

/// Three bytes are one operation: a letter, a session, and a number of seconds. `s` sets a timer, that many after a
/// minute ago; `k` writes the session and leaves the timer alone; `r` removes it; `t` lets time pass; `c` claims for some
/// seconds, no more entries than there are sessions before the one that is named. What is claimed is due, the earliest,
/// and all of it; what is not removed is handed out in the end.
pub fn timers(data: &[u8]) {
    const OPERATIONS_MAX: usize = 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        for [letter, session, seconds] in data.as_chunks().0.iter().take(OPERATIONS_MAX) {
            let (session, span) = (usize::from(session % SESSIONS), Span::from_secs(u32::from(*seconds)));
            match letter {
                b's' => {
                    let at = Timestamp::from_millis(world.clock.now().millis() - 60_000).after(span);
                    world.write(session, TimerWrite::At(at)).await;
                }
                b'k' => world.write(session, TimerWrite::Keep).await,
                b'r' => world.write(session, TimerWrite::Remove).await,
                b't' => world.clock.advance(span),
                _ => world.claim(session + 1, span).await,
            }
        }
        world.clock.advance(Span::from_secs(1000));
        world.claim(usize::from(SESSIONS), Span::from_secs(1)).await;
        assert!(world.timers.values().all(|at| *at > world.clock.now()), "a timer was never handed out");
    });
}

struct World {
    clock: ManualClock,
    store: MemoryStore,
    account: AccountKey,
    sessions: Vec<(ChargingDataRef, Version)>,
    /// The model.
    timers: BTreeMap<ChargingDataRef, Timestamp>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::at(Timestamp::from_secs(1_768_474_800));
        let store = MemoryStore::new(Arc::new(clock.clone()));
        let account = AccountKey(7);
        let refs = RefCodec::new(store.identity().secret);
        let sessions = (0..SESSIONS).map(|number| (refs.mint(account, [number; 12]), Version::ABSENT)).collect();
        Self { clock, store, account, sessions, timers: BTreeMap::new() }
    }

    fn partition(&self) -> Partition {
        self.account.partition()
    }

    async fn write(&mut self, session: usize, timer: TimerWrite) {
        let (key, version) = &mut self.sessions[session];
        let write = SessionWrite {
            key: key.clone(),
            expected: *version,
            document: b"a document".as_slice().into(),
            lives_for: Span::from_secs(1_000_000),
            timer,
            listing: Listing::Keep,
            journal: None,
        };
        let unchanged = Commit::unchanged(Origin::ANY, self.account, Version::ABSENT);
        let commit = Commit { sessions: vec![write], ..unchanged };
        self.store.commit(&commit).await.expect("nobody else writes");
        *version = version.next();
        match timer {
            TimerWrite::At(at) => drop(self.timers.insert(key.clone(), at)),
            TimerWrite::Remove => drop(self.timers.remove(key)),
            TimerWrite::Keep => {}
        }
    }

    async fn claim(&mut self, limit: usize, lease: Span) {
        let now = self.clock.now();
        // A lease that is over at once would be claimed for ever.
        let until = now.after(lease).max(now.after(Span::from_millis(1)));
        let claimed = self.store.claim(self.partition(), now, until, limit).await.unwrap();
        let mut due: Vec<_> = self.timers.values().copied().filter(|at| *at <= now).collect();
        due.sort_unstable();
        due.truncate(limit);
        assert_eq!(claimed.iter().map(|one| one.at).collect::<Vec<_>>(), due, "all that is due, the earliest first");
        for one in claimed {
            assert_eq!(self.timers.insert(one.key, until), Some(one.at), "as it was set");
        }
    }
}
