//! A charging function with some of everything that an audit looks at, and record files beside it.

use std::path::Path;
use std::sync::Arc;

use nchf::audit::{self, Report, Rule};
use nchf::cdr_file::Format;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::time::{Span, Timestamp};
use nchf::clock::{Clock, ManualClock};
use nchf::config::Config;
use nchf::notify::policy::Allowed;
use nchf::notify::retry::RetryPolicy;
use nchf::notify::{Notifier, Outside, Settings};
use nchf::store::{AccountKey, Partition, Store};
use nchf::workers::Workers;
use nchf::workers::notifications::Notifications;
use nchf::workers::records::{Records, Times};
use nchf::workers::sweep::Sweep;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::world::{START, request};
use crate::support::{Answer, World};

pub const RETENTION: Span = Span::from_secs(90 * 86_400);

pub struct Workload {
    pub world: World,
    pub clock: ManualClock,
    pub directory: TempDir,
    workers: Workers,
    sweep: Sweep,
}

pub fn clock() -> ManualClock {
    ManualClock::at(START.parse::<jiff::Timestamp>().unwrap().into())
}

impl Workload {
    pub async fn over(store: Arc<dyn Store>, clock: ManualClock, formats: &[Format]) -> Self {
        let world = World::over(store, clock.clone(), Config::default()).await;
        let settings = Settings { allow: Allowed::loopback().into(), ..Default::default() };
        let notifier = Notifier::new(settings, Outside::new(Arc::new(clock.clone())));
        let notifications = Notifications::new(notifier.unwrap(), RetryPolicy::default());
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.cdr.formats = formats.to_vec();
        let times = Times { retention: RETENTION, attended: Span::from_secs(30) };
        let records = Records::new(world.app.clone(), directory.path().to_owned(), config.cdr_files(), times).unwrap();
        let workers = Workers { app: world.app.clone(), notifications, records };
        Self { world, clock, directory, workers, sweep: Sweep::default() }
    }

    pub fn store(&self) -> &dyn Store {
        &*self.world.app.store
    }

    pub fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn audit(&self) -> Report {
        self.audit_with(&[self.directory.path()]).await
    }

    pub async fn audit_with(&self, directories: &[&Path]) -> Report {
        let directories = directories.iter().map(|path| path.to_path_buf()).collect();
        let settings = audit::Settings { now: self.clock.now(), retention: RETENTION, directories };
        audit::audit(self.store(), &settings).await.unwrap()
    }

    pub async fn round(&mut self) {
        self.workers.round(&Partition::all().collect::<Vec<_>>(), &mut self.sweep).await.unwrap();
    }

    /// What has closed appears in a file.
    pub async fn export(&mut self) {
        self.round().await;
        self.world.tick(900);
        self.round().await;
    }

    pub fn account_of(&self, reference: &ChargingDataRef) -> AccountKey {
        self.world.app.shared.refs.account_of(reference.as_str()).unwrap()
    }

    /// A session of a subscriber from its Create on, which asks for quota.
    pub async fn open(&self, subscriber: u32, others: Value) -> Answer {
        let created = self.world.create(&says(1, subscriber, others)).await;
        created.expect(201);
        created
    }

    /// Reports what was used, asks for more, and perhaps says more.
    pub async fn update(&self, session: &Answer, subscriber: u32, number: u32, octets: u64, others: Value) {
        let body = says(number, subscriber, uses(number, octets, others));
        self.world.update(session, &body).await.expect(200);
    }

    pub async fn release(&self, session: &Answer, subscriber: u32, number: u32, octets: u64) {
        let mut body = says(number, subscriber, uses(number, octets, json!({})));
        body["multipleUnitUsage"][0].as_object_mut().unwrap().remove("requestedUnit");
        self.world.release(session, &body).await.expect(204);
    }

    /// Some of everything. Answers an open session that holds a grant and has reported usage.
    pub async fn run(&mut self) -> ChargingDataRef {
        // Time closes it.
        self.open(10, json!({})).await;
        self.world.tick(86_400);
        self.round().await;
        self.export().await;

        // One in two records, and usage that came late.
        let session = self.open(1, json!({})).await;
        let limit = json!({ "triggers": [{ "triggerType": "VOLUME_LIMIT", "triggerCategory": "IMMEDIATE_REPORT" }] });
        self.update(&session, 1, 2, 8_388_608, limit).await;
        self.update(&session, 1, 3, 3_000_000, json!({})).await;
        self.release(&session, 1, 4, 1_000_000).await;
        let late = says(5, 1, uses(5, 2_000_000, json!({})));
        self.world.update(&session, &late).await.expect(410);
        self.export().await;

        // Events, charged and refused, and one session that takes the place of another.
        let event = |subscriber: u32| {
            let usage = json!([{ "ratingGroup": 30, "requestedUnit": { "serviceSpecificUnits": 2 } }]);
            let event = json!({ "oneTimeEvent": true, "oneTimeEventType": "IEC", "multipleUnitUsage": usage });
            says(1, subscriber, event)
        };
        self.world.create(&event(2)).await.expect(201);
        self.world.create(&event(9002)).await.expect(201);
        let pdu_session = |id: &str| {
            let information = json!({ "pduSessionInformation": { "pduSessionID": 5, "dnnId": id } });
            json!({ "pDUSessionChargingInformation": information })
        };
        let old = self.open(3, pdu_session("internet")).await;
        self.update(&old, 3, 2, 1_000_000, json!({})).await;
        self.open(3, pdu_session("other")).await;

        // A shared balance, a bundle, a credit with an end that comes while it is held, a validity that ends.
        for subscriber in [9006, 9007, 9008] {
            let session = self.open(subscriber, json!({})).await;
            self.update(&session, subscriber, 2, 5_000_000, json!({})).await;
            if subscriber == 9008 {
                self.release(&session, subscriber, 3, 500_000).await;
            }
        }
        let bundle = json!([{ "ratingGroup": 90, "requestedUnit": {} }]);
        let session = self.open(9009, json!({ "multipleUnitUsage": bundle })).await;
        let usage = json!([{ "localSequenceNumber": 2, "totalVolume": 1_073_741_824u64 + 5_000_000 }]);
        let usage = json!([{ "ratingGroup": 90, "requestedUnit": {}, "usedUnitContainer": usage }]);
        self.world.update(&session, &says(2, 9009, json!({ "multipleUnitUsage": usage }))).await.expect(200);
        let ends = jiff::Timestamp::from_millisecond(self.clock.now().millis() + 1_800_000).unwrap().to_string();
        let credit = json!({ "balanceId": "promotion", "amount": "1", "reference": "r1", "expiresAt": ends });
        self.world.post("/admin/v1/accounts/demo-0004/credits", &credit).await.expect(201);
        self.world.post("/admin/v1/accounts/demo-0007/credits", &credit).await.expect(201);
        let session = self.open(4, json!({})).await;
        self.world.tick(3600 + 60);
        // Refused, so it leaves no entry, although something has expired by now.
        let mut barred = event(7);
        barred["multipleUnitUsage"][0]["ratingGroup"] = json!(60);
        self.world.create(&barred).await.expect(201);
        self.round().await;
        self.update(&session, 4, 2, 2_000_000, json!({})).await;
        self.release(&session, 4, 3, 0).await;
        self.export().await;

        // What waits for a file, and what goes on.
        let session = self.open(5, json!({})).await;
        self.release(&session, 5, 2, 1_000_000).await;
        let session = self.open(6, json!({})).await;
        self.update(&session, 6, 2, 4_000_000, json!({})).await;
        ChargingDataRef::new(session.reference())
    }
}

fn says(number: u32, subscriber: u32, others: Value) -> Value {
    let mut all = json!({
        "subscriberIdentifier": format!("imsi-00101{subscriber:010}"),
        "multipleUnitUsage": [{ "ratingGroup": 10, "requestedUnit": {} }],
    });
    all.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
    request(number, all)
}

fn uses(number: u32, octets: u64, others: Value) -> Value {
    let container = json!([{ "localSequenceNumber": number, "totalVolume": octets }]);
    let mut all = others;
    all["multipleUnitUsage"] = json!([{ "ratingGroup": 10, "requestedUnit": {}, "usedUnitContainer": container }]);
    all
}

/// The rules that a report says were violated, each once.
pub fn rules(report: &Report) -> Vec<Rule> {
    let mut rules: Vec<Rule> = report.violations.iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}
