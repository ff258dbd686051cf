//! The program: what it prints, and how it ends.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use nchf::charging::account::Account;
use nchf::charging::ids::AccountId;
use nchf::charging::money::Amount;
use nchf::clock::{ManualClock, SystemClock};
use nchf::config::Config;
use nchf::store::embedded::{EmbeddedStore, Settings};
use nchf::store::{Commit, Load, Origin, RefCodec, Store, record};

use crate::store::redis::settings;
use crate::store::server::Server;
use crate::support::World;

fn audit(store: &str, cdr_dir: &Path, further: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nchf"));
    command.args(["audit", "--store", store, "--cdr-dir"]).arg(cdr_dir).args(further).output().unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32, printed: &str, error: &str) {
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*said, &*complained), (Some(code), printed, error));
}

async fn demo(store: Arc<dyn Store>) {
    World::over(store, ManualClock::at(nchf::clock::Clock::now(&SystemClock)), Config::default()).await;
}

/// One millionth appears from nowhere.
async fn enrich(store: &dyn Store) {
    let account = RefCodec::new(store.identity().secret).account_key(&AccountId::new("demo-0001"));
    let load = Load { account, session: None, index: Vec::new() };
    let document = store.load(&load).await.unwrap().account.unwrap();
    let mut richer: Account = record::decode(&document.bytes).unwrap();
    richer.balances[0].amount = Amount::new(10_000_001);
    let commit = Commit {
        account_document: Some(record::encode(&richer)),
        ..Commit::unchanged(Origin::ANY, account, document.version)
    };
    store.commit(&commit).await.unwrap();
}

const VIOLATED: &str = "\
amount: account demo-0001: balance main, by its moves and by its document: expected 10.000000, found 10.000001
looked at 1007 accounts, 0 sessions, 1005 journal entries, 0 records in 0 files
violations: 1, not proven: 0
";
const HOLDS: &str = "\
looked at 1007 accounts, 0 sessions, 1005 journal entries, 0 records in 0 files
violations: 0, not proven: 0
";

#[tokio::test]
async fn an_embedded_store_is_audited_when_nobody_uses_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}", directory.path().display());
    let missing = format!("nchf: there is no store in {}\n", directory.path().display());
    ends(&audit(&store, directory.path(), &[]), 1, "", &missing);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0, "and none is made");

    let opened = EmbeddedStore::open(&Settings::at(directory.path()), Arc::new(SystemClock)).unwrap();
    demo(Arc::new(opened.clone())).await;
    let in_use = format!(
        "nchf: the store in {} is open in another process: only one nchf can use it at a time; stop it, or use a \
         snapshot of the directory\n",
        directory.path().display()
    );
    ends(&audit(&store, directory.path(), &[]), 1, "", &in_use);
    drop(opened);
    ends(&audit(&store, directory.path(), &[]), 0, HOLDS, "");

    let opened = EmbeddedStore::open(&Settings::at(directory.path()), Arc::new(SystemClock)).unwrap();
    enrich(&opened).await;
    drop(opened);
    ends(&audit(&store, directory.path(), &[]), 1, VIOLATED, "");
    let json = audit(&store, directory.path(), &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let violation = serde_json::json!({
        "rule": "amount", "subject": { "account": "demo-0001" },
        "of": "balance main, by its moves and by its document", "expected": "10.000000", "found": "10.000001",
    });
    assert_eq!((json.status.code(), &report["violations"][0]), (Some(1), &violation));
    assert_eq!(report["counts"]["violations"], 1);
}

#[tokio::test]
async fn a_redis_is_audited_while_it_is_used() {
    let mut server = Server::redis(&[]);
    let files = tempfile::tempdir().unwrap();
    let url = server.url();
    let without = audit(&url, files.path(), &[]);
    assert_eq!(without.status.code(), Some(1), "{without:?}");
    assert!(server.keys().is_empty(), "nothing is made of what is not there");
    let store = Arc::new(nchf::store::redis::RedisStore::open(settings(&server)).await.unwrap());
    demo(store.clone()).await;
    let before = server.content();
    ends(&audit(&url, files.path(), &[]), 0, HOLDS, "");
    assert!(before == server.content(), "an audit changes nothing");
    enrich(&*store).await;
    ends(&audit(&url, files.path(), &[]), 1, VIOLATED, "");
    server.kill();
    let away = audit(&url, files.path(), &[]);
    let complaint = String::from_utf8_lossy(&away.stderr);
    assert!(away.status.code() == Some(1) && complaint.contains("cannot connect to Redis"), "{away:?}");
}

#[test]
fn directories_that_are_not_there_and_bad_settings_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}", directory.path().display());
    drop(EmbeddedStore::open(&Settings::at(directory.path()), Arc::new(SystemClock)).unwrap());
    let missing = directory.path().join("missing");
    let complaint = format!(
        "nchf: cannot read the record files in {}: No such file or directory (os error 2)\n",
        missing.display()
    );
    ends(&audit(&store, &missing, &[]), 1, "", &complaint);
    ends(&audit(&store, directory.path(), &[missing.to_str().unwrap()]), 1, "", &complaint);
    let empty =
        "looked at 0 accounts, 0 sessions, 0 journal entries, 0 records in 0 files\nviolations: 0, not proven: 0\n";
    ends(&audit(&store, &missing, &[directory.path().to_str().unwrap()]), 0, empty, "");
    let output = audit("memory:", directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
