//! What happens between messages, by the workers of an instance: time passes, operators act, consumers answer.

use std::path::Path;

use axum::body::Body;
use axum::http::Method;
use nchf::cdr_file::directory::{self, Directory};
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::time::Span;
use nchf::clock::SystemClock;
use nchf::config::Config;
use nchf::notify::retry::RetryPolicy;
use nchf::notify::{Notifier, Outside, policy::Allowed};
use nchf::store::{
    Commit, Listing, Load, Origin, Partition, Queue, ReferenceKind, SessionWrite, TimerWrite, Version, record,
};
use nchf::workers::Workers;
use nchf::workers::export_state::{ExportState, Taken};
use nchf::workers::notifications::Notifications;
use nchf::workers::records::{Records, Times};
use nchf::workers::sweep::Sweep;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::notify::stub::{Says, Stub};
use crate::support::world::request;
use crate::support::{Answer, World};

/// A world with workers, which do a round when they are told to.
pub struct Running {
    pub world: World,
    /// Of record files.
    directory: tempfile::TempDir,
    workers: Workers,
    sweep: Sweep,
}

impl Running {
    pub async fn new() -> Self {
        let world = World::new().await;
        let settings = nchf::notify::Settings { allow: Allowed::loopback().into(), ..Default::default() };
        let notifier = Notifier::new(settings, Outside::new(std::sync::Arc::new(SystemClock))).unwrap();
        let notifications = Notifications::new(notifier, RetryPolicy::default());
        let directory = tempfile::tempdir().unwrap();
        let records = records(&world, directory.path());
        let workers = Workers { app: world.app.clone(), notifications, records };
        Self { world, directory, workers, sweep: Sweep::default() }
    }

    pub async fn round(&mut self) {
        self.workers.round(&Partition::all().collect::<Vec<_>>(), &mut self.sweep).await.unwrap();
    }

    /// Rounds until something holds: deliveries take their time.
    async fn until(&mut self, what: &str, condition: impl AsyncFn(&World) -> bool) {
        for _ in 0..500 {
            self.round().await;
            if condition(&self.world).await {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("this does not happen: {what}");
    }

    async fn state(&self, session: &Answer) -> String {
        let answer = self.world.get(&format!("/admin/v1/charging-sessions/{}", session.reference())).await;
        answer.json()["state"].as_str().unwrap().to_owned()
    }
}

fn records(world: &World, directory: &Path) -> Records {
    records_with(world, directory, Config::default().cdr_files())
}

fn records_with(world: &World, directory: &Path, settings: directory::Settings) -> Records {
    let times = Times { retention: Span::from_secs(86_400), attended: Span::from_secs(30) };
    Records::new(world.app.clone(), directory.to_owned(), settings, times).unwrap()
}

fn asks(number: u32, notify_uri: &str) -> Value {
    let usage = json!([{ "ratingGroup": 10, "requestedUnit": {} }]);
    request(number, json!({ "multipleUnitUsage": usage, "notifyUri": notify_uri }))
}

fn bodies(stub: &Stub) -> Vec<Value> {
    stub.received().iter().map(|received| serde_json::from_slice(&received.body).unwrap()).collect()
}

#[tokio::test]
async fn a_reservation_ends_with_its_validity_and_the_money_is_available_again() {
    let mut running = Running::new().await;
    let created = running.world.create(&asks(1, "http://127.0.0.1:9/")).await;
    created.expect(201);
    running.world.tick(3600 + 59);
    running.round().await;
    assert_eq!(running.world.balance("demo-0001", "main", "reserved").await, "0.100000", "not before the grace");
    running.world.tick(1);
    running.round().await;
    assert_eq!(running.world.balance("demo-0001", "main", "reserved").await, "0.000000");
    assert_eq!(running.state(&created).await, "active");
    let entries = running.world.get("/admin/v1/accounts/demo-0001/entries?limit=1").await.json();
    assert_eq!(entries["items"][0]["kind"], "expire");
}

#[tokio::test]
async fn an_idle_session_is_probed_and_then_closed_with_its_record() {
    let stub = Stub::always(Says::Status(204)).await;
    let mut running = Running::new().await;
    let created = running.world.create(&asks(1, &stub.uri("/callback/1"))).await;
    running.world.tick(86_400);
    running.until("the consumer is probed", async |_| !stub.received().is_empty()).await;
    assert_eq!(
        bodies(&stub),
        [json!({ "notificationType": "REAUTHORIZATION", "reauthorizationDetails": [{ "ratingGroup": 10 }] })]
    );
    assert_eq!(running.state(&created).await, "probing");
    running.world.tick(60);
    running.round().await;
    assert_eq!(running.state(&created).await, "closed");
    let records = running.world.get(&format!("/admin/v1/cdrs?ref={}", created.reference())).await.json();
    assert_eq!(records["items"][0]["causeForRecClosing"], 4);
    running.world.update(&created, &asks(2, &stub.uri("/callback/1"))).await.expect(410);
}

#[tokio::test]
async fn an_update_ends_a_probe() {
    let stub = Stub::always(Says::Status(204)).await;
    let mut running = Running::new().await;
    let created = running.world.create(&asks(1, &stub.uri("/"))).await;
    running.world.tick(86_400);
    running.round().await;
    running.world.update(&created, &asks(2, &stub.uri("/"))).await.expect(200);
    running.world.tick(60);
    running.round().await;
    assert_eq!(running.state(&created).await, "active");
}

#[tokio::test]
async fn a_credit_brings_back_whoever_ran_out() {
    let stub = Stub::always(Says::Status(204)).await;
    let mut running = Running::new().await;
    let poor = |number: u32| {
        let mut body = asks(number, &stub.uri("/notify?of=low"));
        body["subscriberIdentifier"] = json!("imsi-001010000009003");
        body
    };
    let created = running.world.create(&poor(1)).await;
    assert_eq!(created.group(10)["finalUnitIndication"]["finalUnitAction"], "TERMINATE");
    running.round().await;
    assert!(stub.received().is_empty(), "the credit of the demo data concerned nobody");

    let credit = json!({ "balanceId": "main", "amount": "5", "reference": "r1" });
    running.world.post("/admin/v1/accounts/demo-low/credits", &credit).await.expect(201);
    running.until("the consumer is asked to come back", async |_| !stub.received().is_empty()).await;
    assert!(stub.received()[0].uri.ends_with("/notify?of=low"), "exactly where it wants to be told");
    let granted = running.world.update(&created, &poor(2)).await;
    assert_eq!(granted.group(10)["resultCode"], "SUCCESS");
    assert!(granted.group(10)["finalUnitIndication"].is_null());
    for _ in 0..5 {
        running.round().await;
    }
    assert_eq!(stub.received().len(), 1, "told once");
}

#[tokio::test]
async fn an_abort_grants_nothing_more_and_ends_with_a_release_or_by_itself() {
    let stub = Stub::always(Says::Status(204)).await;
    let mut running = Running::new().await;
    let one = running.world.create(&asks(1, &stub.uri("/1"))).await;
    let mut body = asks(1, &stub.uri("/2"));
    body["subscriberIdentifier"] = json!("imsi-001010000000002");
    let other = running.world.create(&body).await;
    let path = |session: &Answer| format!("/admin/v1/charging-sessions/{}/abort", session.reference());
    for session in [&one, &other] {
        running.world.request(Method::POST, &path(session), Body::empty()).await.expect(202);
        running.world.request(Method::POST, &path(session), Body::empty()).await.expect(409);
    }
    running.until("both are told", async |_| stub.received().len() == 2).await;
    assert_eq!(bodies(&stub)[0], json!({ "notificationType": "ABORT_CHARGING" }));

    let updated = running.world.update(&one, &asks(2, &stub.uri("/1"))).await;
    assert_eq!(updated.group(10)["resultCode"], "END_USER_SERVICE_DENIED");
    running.world.release(&one, &request(3, json!({}))).await.expect(204);
    running.world.tick(60);
    running.round().await;
    assert_eq!(running.state(&other).await, "closed");
    assert_eq!(running.world.balance("demo-0002", "main", "reserved").await, "0.000000");
}

#[tokio::test]
async fn a_blocked_or_deleted_subscriber_loses_its_sessions() {
    let stub = Stub::always(Says::Status(204)).await;
    let mut running = Running::new().await;
    let created = running.world.create(&asks(1, &stub.uri("/"))).await;
    let path = "/admin/v1/subscribers/imsi-001010000000001";
    let blocked = json!({ "accountId": "demo-0001", "tariffPlanId": "demo", "status": "blocked" });
    running.world.put(path, &blocked).await.expect(200);
    assert_eq!(running.state(&created).await, "aborting");
    running.world.create(&asks(9, &stub.uri("/"))).await.expect_problem(403, "END_USER_REQUEST_DENIED");
    running.world.request(Method::DELETE, path, Body::empty()).await.expect(204);
    running.until("the consumer is told", async |_| stub.received().len() == 1).await;
}

#[tokio::test]
async fn what_the_consumer_answers_has_its_consequence() {
    for (says, state) in [
        (Says::Status(404), "closed"),
        (Says::Status(410), "closed"),
        (Says::With(400, r#"{"status":400,"cause":"RESOURCE_CONTEXT_NOT_FOUND"}"#), "closed"),
        (Says::With(400, r#"{"status":400,"cause":"RE_AUTHORIZATION_FAILED"}"#), "active"),
        (Says::With(200, "{}"), "active"),
    ] {
        let stub = Stub::always(says.clone()).await;
        let mut running = Running::new().await;
        let created = running.world.create(&asks(1, &stub.uri("/"))).await;
        let path = format!("/admin/v1/charging-sessions/{}/reauthorize", created.reference());
        running.world.request(Method::POST, &path, Body::empty()).await.expect(202);
        running.until("it is told", async |_| !stub.received().is_empty()).await;
        let path = format!("/admin/v1/charging-sessions/{}", created.reference());
        running.until("it has its consequence", async |world| world.get(&path).await.json()["state"] == state).await;
        assert_eq!(stub.received().len(), 1, "{says:?}");
    }
}

#[tokio::test]
async fn a_changed_tariff_asks_only_those_whom_it_concerns() {
    let stub = Stub::always(Says::Status(204)).await;
    let mut running = Running::new().await;
    running.world.create(&asks(1, &stub.uri("/10"))).await.expect(201);
    let mut voice = asks(1, &stub.uri("/20"));
    voice["subscriberIdentifier"] = json!("imsi-001010000000002");
    voice["multipleUnitUsage"][0]["ratingGroup"] = json!(20);
    running.world.create(&voice).await.expect(201);

    let mut plan = running.world.get("/admin/v1/tariff-plans/demo").await.json();
    for answered in ["id", "version"] {
        plan.as_object_mut().unwrap().remove(answered);
    }
    plan["tariffs"][1]["price"]["amount"] = json!("0.2");
    running.world.put("/admin/v1/tariff-plans/demo", &plan).await.expect(200);
    running.until("voice is asked", async |_| !stub.received().is_empty()).await;
    for _ in 0..5 {
        running.round().await;
    }
    let received = stub.received();
    assert_eq!(received.len(), 1);
    assert!(received[0].uri.ends_with("/20"));
}

/// Writes a session's document anew, as a hand may do it that knows the store.
async fn rewrite(world: &World, session: &Answer, change: impl FnOnce(&mut SessionWrite)) {
    rewrite_at(world, &session.reference(), change).await;
}

async fn rewrite_at(world: &World, reference: &str, change: impl FnOnce(&mut SessionWrite)) {
    let reference = ChargingDataRef::new(reference);
    let app = &world.app;
    let account = app.shared.refs.account_of(reference.as_str()).unwrap();
    let load = Load { account, session: Some(reference.clone()), index: Vec::new() };
    let snapshot = app.store.load(&load).await.unwrap();
    let document = snapshot.session.unwrap();
    let mut write = SessionWrite {
        key: reference,
        expected: document.version,
        document: document.bytes,
        lives_for: Span::from_secs(86_400),
        timer: TimerWrite::Keep,
        listing: Listing::Keep,
        journal: None,
    };
    change(&mut write);
    let expected = snapshot.account.unwrap().version;
    let commit = Commit { sessions: vec![write], ..Commit::unchanged(Origin::ANY, account, expected) };
    app.store.commit(&commit).await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_a_session_harms_no_other_session_of_its_account() {
    let mut running = Running::new().await;
    let asks = |number| asks(number, "http://127.0.0.1:9/");
    let damaged = running.world.create(&asks(1)).await;
    let sound = running.world.create(&asks(7)).await;
    assert_eq!(running.world.balance("demo-0001", "main", "reserved").await, "0.200000");
    rewrite(&running.world, &damaged, |write| {
        let mut document = write.document.to_vec();
        let middle = document.len() / 2;
        document[middle] ^= 1;
        write.document = document.into();
    })
    .await;

    running.world.update(&damaged, &asks(2)).await.expect(500);
    running.world.update(&sound, &asks(8)).await.expect(200);
    running.world.tick(3600 + 60);
    running.round().await;
    // What the damaged one holds stays held; the other's time is over.
    assert_eq!(running.world.balance("demo-0001", "main", "reserved").await, "0.100000");
    let error = running.world.app.session(&ChargingDataRef::new(damaged.reference())).await.unwrap_err().to_string();
    assert!(error.contains(&damaged.reference()) && error.contains("damaged"), "{error}");
}

#[tokio::test]
async fn a_session_that_an_index_has_lost_is_put_back() {
    let mut running = Running::new().await;
    let created = running.world.create(&asks(1, "http://127.0.0.1:9/")).await;
    let reference = ChargingDataRef::new(created.reference());
    let app = running.world.app.clone();
    let account = app.shared.refs.account_of(reference.as_str()).unwrap();
    let before = app.store.indexes(account, &reference).await.unwrap();
    running.round().await;
    assert_eq!(app.shared.metrics.index_drift.get(), 0);

    rewrite(&running.world, &created, |write| write.timer = TimerWrite::Remove).await;
    assert_eq!(app.store.indexes(account, &reference).await.unwrap().timer, None);
    running.round().await;
    assert_eq!(app.store.indexes(account, &reference).await.unwrap(), before);
    running.round().await;
    assert_eq!(app.shared.metrics.index_drift.get(), 1, "once");
}

/// All records in published files, in the order of their numbers; fails where a number is missing or twice.
fn published(directory: &Path) -> Vec<Value> {
    let records = in_files(directory);
    for (at, record) in records.iter().enumerate() {
        assert_eq!(record["localRecordSequenceNumber"], at, "{records:#?}");
    }
    records
}

fn in_files(directory: &Path) -> Vec<Value> {
    let mut records = files(directory).concat();
    records.sort_by_key(|record| record["localRecordSequenceNumber"].as_u64().unwrap());
    records
}

/// The records of each published file.
fn files(directory: &Path) -> Vec<Vec<Value>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl")
            && !path.file_name().unwrap().to_str().unwrap().starts_with('.')
        {
            let text = std::fs::read_to_string(path).unwrap();
            files.push(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect());
        }
    }
    files
}

impl Running {
    /// A session from create to release, which leaves a record.
    async fn charge(&self, subscriber: u32) -> String {
        let mut create = asks(1, "http://127.0.0.1:9/");
        create["subscriberIdentifier"] = json!(format!("imsi-00101{subscriber:010}"));
        let created = self.world.create(&create).await;
        let release = request(2, json!({ "subscriberIdentifier": null }));
        self.world.release(&created, &release).await.expect(204);
        created.reference()
    }
}

#[tokio::test]
async fn closed_records_come_out_once_in_a_file_when_it_is_full() {
    let mut running = Running::new().await;
    running.round().await;
    let mut expected = Vec::new();
    for subscriber in 1..=5 {
        expected.push(running.charge(subscriber).await);
    }
    running.round().await;
    assert!(published(running.directory.path()).is_empty(), "they wait for more");
    expected.push(running.charge(6).await);
    running.world.tick(900);
    running.round().await;
    let records = published(running.directory.path());
    let mut found: Vec<_> = records.iter().map(|record| record["ref"].as_str().unwrap().to_owned()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);

    let listed = running.world.get(&format!("/admin/v1/cdrs?ref={}", expected[0])).await.json();
    assert!(listed["items"][0]["localRecordSequenceNumber"].is_u64(), "the number can be read: {listed}");
    running.world.tick(900);
    running.round().await;
    assert_eq!(published(running.directory.path()).len(), 6, "nothing comes out again");
}

#[tokio::test]
async fn a_record_that_cannot_be_made_keeps_back_no_other_partition() {
    let mut running = Running::new().await;
    running.round().await;
    let partition = |reference: &str| running.world.app.shared.refs.account_of(reference).unwrap().partition();
    let before = running.charge(1).await;
    let created = running.world.create(&asks(1, "http://127.0.0.1:9/of-another-session")).await;
    running.world.release(&created, &request(2, json!({ "subscriberIdentifier": null }))).await.expect(204);
    let damaged = created.reference();
    assert_eq!(partition(&damaged), partition(&before));
    let mut elsewhere = Vec::new();
    for subscriber in 2..=6 {
        elsewhere.push(running.charge(subscriber).await);
    }
    elsewhere.retain(|other| partition(other) != partition(&damaged));
    assert!(!elsewhere.is_empty());
    rewrite_at(&running.world, &damaged, |write| write.journal = Some("no entry".into())).await;

    running.round().await;
    running.world.tick(900);
    running.round().await;
    let records = published(running.directory.path());
    let mut found: Vec<_> = records.iter().map(|record| record["ref"].as_str().unwrap()).collect();
    found.sort_unstable();
    let mut expected: Vec<_> = elsewhere.iter().map(String::as_str).chain([before.as_str()]).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_the_process_before_left_waits_no_longer() {
    let mut running = Running::new().await;
    running.charge(1).await;
    running.round().await;
    assert_eq!(published(running.directory.path()).len(), 1);
}

#[tokio::test]
async fn a_file_has_no_more_records_than_it_may_have() {
    let mut running = Running::new().await;
    running.round().await;
    for subscriber in [1, 9006, 9007, 9008, 2] {
        running.charge(subscriber).await;
    }
    let settings = directory::Settings { records_max: 2, ..Config::default().cdr_files() };
    let other = tempfile::tempdir().unwrap();
    running.workers.records = records_with(&running.world, other.path(), settings);
    running.round().await;
    assert_eq!(published(other.path()).len(), 5);
    let mut lengths: Vec<_> = files(other.path()).iter().map(Vec::len).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 2, 2]);
}

impl Running {
    /// What a writer that has taken all that waits into its first file knows.
    async fn all_taken_by(&self, writer: Uuid) -> ExportState {
        let store = &self.world.app.store;
        let mut state = ExportState::default();
        let mut taken = Vec::new();
        for partition in Partition::all() {
            let entries = store.outbox(partition, Queue::Records, None, 100).await.unwrap();
            let Some((upto, _)) = entries.last() else { continue };
            let records = u32::try_from(entries.len()).unwrap();
            taken.push(Taken { partition, after: None, upto: upto.clone(), records });
        }
        state.take(writer, 1, &self.world.app.shared.instance_id, &taken).unwrap();
        state
    }

    /// Goes on as if `state` were the truth about files.
    async fn believe(&self, state: &ExportState) {
        let store = &self.world.app.store;
        let known = store.reference(ReferenceKind::ExportState, "export").await.unwrap();
        let version = known.map_or(Version::ABSENT, |document| document.version);
        let state = Some(record::encode(state));
        store.put_reference(ReferenceKind::ExportState, "export", version, state).await.unwrap();
    }
}

#[tokio::test]
async fn a_process_that_ends_in_the_midst_of_a_file_leaves_its_records_to_the_next_one() {
    let mut running = Running::new().await;
    running.charge(1).await;
    // The process is gone, and all it knew.
    let path = running.directory.path().to_owned();
    drop(std::mem::replace(&mut running.workers.records, records(&running.world, tempfile::tempdir().unwrap().path())));
    let writer = Directory::open(&path, Config::default().cdr_files()).unwrap().writer();
    running.believe(&running.all_taken_by(writer).await).await;
    running.workers.records = records(&running.world, &path);
    running.charge(2).await;
    running.round().await;
    running.world.tick(900);
    running.round().await;
    assert_eq!(published(&path).len(), 2);
}

#[tokio::test]
async fn a_file_that_is_acknowledged_again_takes_nothing_along_that_came_after_it() {
    let mut running = Running::new().await;
    running.charge(1).await;
    let path = running.directory.path().to_owned();
    drop(std::mem::replace(&mut running.workers.records, records(&running.world, tempfile::tempdir().unwrap().path())));
    let writer = Directory::open(&path, Config::default().cdr_files()).unwrap().writer();
    running.workers.records = records(&running.world, &path);
    // As a process leaves it that ends before it forgets the file, or as another exporter has read it.
    let mut out = running.all_taken_by(writer).await;
    assert!(out.announce(writer, 1) && out.published(writer, 1));
    running.round().await;
    assert_eq!(published(running.directory.path()).len(), 1);

    let mut create = asks(7, "http://127.0.0.1:9/");
    create["pDUSessionChargingInformation"] = json!({ "pduSessionInformation": { "pduSessionID": 7, "dnnId": "x" } });
    let created = running.world.create(&create).await;
    running.world.release(&created, &request(8, json!({ "subscriberIdentifier": null }))).await.expect(204);
    running.believe(&out).await;
    running.round().await;
    running.world.tick(900);
    running.round().await;
    let records = published(running.directory.path());
    assert_eq!(records.len(), 2);
    assert_eq!(records[1]["ref"], created.reference());
}

#[tokio::test]
async fn an_exporter_that_is_gone_for_good_is_replaced_by_another_directory() {
    let mut running = Running::new().await;
    running.charge(1).await;
    let gone = Uuid::new_v4();
    running.world.app.store.lease(&format!("records/{gone}"), "it", Span::from_secs(30)).await.unwrap();
    running.believe(&running.all_taken_by(gone).await).await;
    running.charge(2).await;
    running.round().await;
    let only_the_second: Vec<_> = in_files(running.directory.path());
    assert_eq!(only_the_second.len(), 1, "the first is somebody's");
    // The lease of the directory that is gone ends.
    running.world.tick(31);
    running.charge(3).await;
    let path = running.directory.path().to_owned();
    running
        .until("all come out", async |world| {
            world.tick(900);
            in_files(&path).len() == 3
        })
        .await;
    published(&path);
}
