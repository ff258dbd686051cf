//! Audits: nothing is found where nothing is wrong, on every store, and every damage is found under its rule.

mod damage;
mod program;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nchf::cdr_file::Format;
use nchf::store::Store;
use nchf::store::embedded::{EmbeddedStore, Settings};
use nchf::store::memory::MemoryStore;
use nchf::store::redis::RedisStore;
use serde_json::json;

use self::workload::{Workload, clock};
use crate::store::redis::settings;
use crate::store::server::Server;

async fn finds_nothing(store: Arc<dyn Store>, clock: nchf::clock::ManualClock, formats: &[Format]) {
    let mut workload = Workload::over(store, clock, formats).await;
    let report = workload.audit().await;
    assert_eq!((report.violations, report.unproven), (vec![], vec![]), "at the beginning");
    workload.run().await;
    let report = workload.audit().await;
    assert!(report.holds() && report.unproven.is_empty(), "{report}");
    let counts = report.counts;
    assert!(counts.accounts > 1000 && counts.sessions >= 13 && counts.files >= 3 && counts.records >= 8, "{report}");
    // What is left open ends by itself, and all of it gets out.
    for _ in 0..3 {
        workload.world.tick(86_400);
        workload.export().await;
        let report = workload.audit().await;
        assert!(report.holds() && report.unproven.is_empty(), "{report}");
    }
}

#[tokio::test]
async fn a_sound_store_in_memory_violates_nothing() {
    let clock = clock();
    finds_nothing(Arc::new(MemoryStore::new(Arc::new(clock.clone()))), clock, &[Format::Jsonl]).await;
}

#[tokio::test]
async fn a_sound_embedded_store_violates_nothing() {
    let (clock, directory) = (clock(), tempfile::tempdir().unwrap());
    let store = EmbeddedStore::open(&Settings::at(directory.path()), Arc::new(clock.clone())).unwrap();
    finds_nothing(Arc::new(store), clock, &[Format::Ber]).await;
}

#[tokio::test]
async fn a_sound_redis_violates_nothing() {
    let server = Server::redis(&[]);
    let store = RedisStore::open(settings(&server)).await.unwrap();
    finds_nothing(Arc::new(store), clock(), &Format::ALL).await;
}

#[tokio::test]
async fn a_redis_that_is_at_work_violates_nothing() {
    let server = Server::redis(&[]);
    let store = RedisStore::open(settings(&server)).await.unwrap();
    let mut workload = Workload::over(Arc::new(store), clock(), &[Format::Jsonl]).await;
    workload.round().await;
    let (is_over, workload) = (AtomicBool::new(false), &workload);
    // Sessions come and go on few accounts, so that many readings find one changed.
    let charge = async |subscriber: u32| {
        for at in 0.. {
            let session = workload.open(subscriber, json!({ "invocationSequenceNumber": at })).await;
            for number in 1..4 {
                workload.update(&session, subscriber, at + number, 1_000_000, json!({})).await;
            }
            workload.release(&session, subscriber, at + 4, 1_000_000).await;
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let audits = async {
        let report = workload.audit().await;
        is_over.store(true, Ordering::Relaxed);
        assert!(report.holds(), "{report}");
    };
    tokio::join!(charge(1), charge(2), charge(9006), charge(9007), audits);
    let report = workload.audit().await;
    assert!(report.holds() && report.unproven.is_empty() && report.counts.sessions > 20, "{report}");
}
