//! The place of the store in memory: time passes when it is told to.

use std::sync::Arc;

use async_trait::async_trait;
use nchf::charging::time::{Span, Timestamp};
use nchf::clock::ManualClock;
use nchf::store::Store;
use nchf::store::memory::MemoryStore;

pub struct Place {
    clock: ManualClock,
    store: Arc<MemoryStore>,
}

impl Place {
    pub fn new() -> Self {
        let clock = ManualClock::at(Timestamp::from_secs(1_800_000_000));
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        Self { clock, store }
    }
}

#[async_trait]
impl super::place::Place for Place {
    async fn open(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn pass(&self, span: Span) {
        self.clock.advance(span);
    }
}
