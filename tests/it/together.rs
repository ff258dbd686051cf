//! Requests for one account that wait for each other are decided in one go: the same answers and the same ledger as if
//! they had been served one by one, whatever the store does meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::join_all;
use nchf::charging::time::Span;
use nchf::clock::{Clock, ManualClock};
use nchf::config::Config;
use nchf::store::memory::MemoryStore;
use nchf::store::{AccountKey, Applied, Commit, Error, Load, Snapshot, Store, Version};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::behind::{Behind, Meddler};
use crate::support::world::{START, request};
use crate::support::{Answer, World};

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    None,
    /// Another instance has changed the account in between.
    Overtaken,
    /// It is not made, and says so.
    Refused,
    /// It is not made, and nobody knows.
    Lost,
    /// It is made, and nobody knows.
    AnswerLost,
}

/// Lets loads wait, counts commits and spoils some of them.
struct Spoiler {
    held: watch::Sender<bool>,
    mishaps: Mutex<VecDeque<Mishap>>,
    /// The sessions of each commit that was made.
    made: Mutex<Vec<usize>>,
}

#[async_trait]
impl Meddler for Spoiler {
    async fn load(&self, store: &dyn Store, load: &Load) -> Result<Snapshot, Error> {
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        store.load(load).await
    }

    async fn commit(&self, store: &dyn Store, commit: &Commit) -> Result<(), Error> {
        let unknown = || Error::unavailable(Applied::Unknown, "the answer is lost");
        let mishap = self.mishaps.lock().unwrap().pop_front().unwrap_or(Mishap::None);
        match mishap {
            Mishap::None | Mishap::AnswerLost => {}
            Mishap::Overtaken => touch(store, commit.account).await,
            Mishap::Refused => return Err(Error::unavailable(Applied::No, "refused")),
            Mishap::Lost => return Err(unknown()),
        }
        store.commit(commit).await?;
        self.made.lock().unwrap().push(commit.sessions.len());
        if mishap == Mishap::AnswerLost { Err(unknown()) } else { Ok(()) }
    }
}

/// Writes the account as it is.
async fn touch(store: &dyn Store, account: AccountKey) {
    let read = store.load(&Load { account, session: None, index: Vec::new() }).await.unwrap();
    let commit = Commit {
        account_document: read.account.as_ref().map(|account| account.bytes.clone()),
        ..Commit::unchanged(read.origin, account, Version::of(read.account.as_ref()))
    };
    store.commit(&commit).await.unwrap();
}

struct Scene {
    world: World,
    clock: ManualClock,
    store: Arc<Behind<Spoiler>>,
    sessions: Vec<Answer>,
}

impl Scene {
    /// So many sessions on one account, each with a grant of 10 MB at 0.01 for each begun million octets.
    async fn with(sessions: usize) -> Self {
        let clock = ManualClock::at(START.parse::<jiff::Timestamp>().unwrap().into());
        let spoiler = Spoiler { held: watch::Sender::new(false), mishaps: Mutex::default(), made: Mutex::default() };
        let store = Arc::new(Behind::new(spoiler, Arc::new(MemoryStore::new(Arc::new(clock.clone())))));
        let world = World::over(Arc::clone(&store) as Arc<_>, clock.clone(), Config::default()).await;
        let mut opened = Vec::new();
        for number in 0..sessions {
            let asks = json!({ "invocationSequenceNumber": number, "multipleUnitUsage": usage(None) });
            let created = world.create(&request(0, asks)).await;
            created.expect(201);
            opened.push(created);
        }
        store.made.lock().unwrap().clear();
        Self { world, clock, store, sessions: opened }
    }

    fn update(number: u32) -> Value {
        request(number, json!({ "multipleUnitUsage": usage(Some(number)) }))
    }

    /// Sends all of them while the store stands still, then lets it go on with these mishaps.
    async fn at_once(&self, requests: impl Iterator<Item = (&Answer, Value)>, mishaps: &[Mishap]) -> Vec<Answer> {
        self.store.held.send_replace(true);
        self.store.mishaps.lock().unwrap().extend(mishaps);
        let requests: Vec<_> = requests.collect();
        let answers = join_all(requests.iter().map(|(session, body)| self.world.update(session, body)));
        let let_go = async {
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            self.store.held.send_replace(false);
        };
        tokio::join!(answers, let_go).0
    }

    fn made(&self) -> Vec<usize> {
        std::mem::take(&mut *self.store.made.lock().unwrap())
    }

    /// Checks that each entry of the ledger begins where the one before has ended, and that the books agree. Answers
    /// how many times a session was debited.
    async fn debits(&self) -> usize {
        let mut entries: Vec<Value> = Vec::new();
        let mut path = "/admin/v1/accounts/demo-0001/entries?limit=500".to_owned();
        loop {
            let page = self.world.get(&path).await.json();
            entries.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            path = format!("/admin/v1/accounts/demo-0001/entries?limit=500&cursor={cursor}");
        }
        for pair in entries.windows(2) {
            assert_eq!(pair[0]["before"], pair[1]["after"], "{} follows {}", pair[0], pair[1]);
        }
        let settings = nchf::audit::Settings {
            now: self.clock.now(),
            retention: Span::from_secs(90 * 86_400),
            directories: Vec::new(),
        };
        let report = nchf::audit::audit(&*self.store, &settings).await.unwrap();
        assert!(report.holds(), "{report}");
        entries.iter().filter(|entry| entry["kind"] == "debit").count()
    }
}

/// A container of the number's own, and a request for more.
fn usage(number: Option<u32>) -> Value {
    let container: Vec<_> =
        number.iter().map(|number| json!({ "localSequenceNumber": number, "totalVolume": 1_000_000 })).collect();
    let mut usage = json!([{ "ratingGroup": 10, "requestedUnit": { "totalVolume": 1_000_000 } }]);
    if !container.is_empty() {
        usage[0]["usedUnitContainer"] = json!(container);
    }
    usage
}

#[tokio::test]
async fn those_who_wait_for_one_account_share_a_commit() {
    let scene = Scene::with(150).await;
    let all = scene.sessions.iter().map(|session| (session, Scene::update(1)));
    for answer in scene.at_once(all, &[]).await {
        assert_eq!(answer.expect(200).group(10)["grantedUnit"]["totalVolume"], 1_000_000);
    }
    // The first one had the turn before the others came.
    assert_eq!(scene.made(), [1, 64, 64, 21]);
    assert_eq!(scene.debits().await, 150);
}

#[tokio::test]
async fn whatever_happens_to_a_shared_commit_each_is_charged_once() {
    use Mishap::{AnswerLost, Lost, None, Overtaken, Refused};
    for (mishaps, made) in [
        (&[None, Overtaken][..], &[1, 9][..]),
        (&[None, Overtaken, Overtaken, Lost], &[1, 9]),
        (&[None, Lost], &[1, 9]),
        (&[None, AnswerLost], &[1, 9]),
        (&[AnswerLost, AnswerLost], &[1, 9]),
    ] {
        let scene = Scene::with(10).await;
        let all = scene.sessions.iter().map(|session| (session, Scene::update(1)));
        for answer in scene.at_once(all, mishaps).await {
            answer.expect(200);
        }
        assert_eq!((scene.made().as_slice(), scene.debits().await), (made, 10), "{mishaps:?}");
    }

    // A store that refuses has done nothing, and everybody is told so.
    let scene = Scene::with(10).await;
    let all = || scene.sessions.iter().map(|session| (session, Scene::update(1)));
    let answers = scene.at_once(all(), &[None, Refused]).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 503).count(), 9);
    assert_eq!(scene.debits().await, 1);
    for answer in scene.at_once(all(), &[]).await {
        answer.expect(200);
    }
    assert_eq!(scene.debits().await, 10);
}

#[tokio::test]
async fn each_is_answered_for_itself() {
    let scene = Scene::with(4).await;
    let [first, second, third, fourth] = scene.sessions.as_slice() else { panic!("four sessions") };
    let before = scene.world.update(second, &Scene::update(1)).await;
    scene.made();
    let mut stranger = Scene::update(1);
    stranger["subscriberIdentifier"] = json!("imsi-001010000000002");
    let answers = scene
        .at_once(
            [
                (first, Scene::update(1)),
                // A copy of what was answered before, two copies of one, another subscriber, and two in a row.
                (second, Scene::update(1)),
                (first, Scene::update(1)),
                (third, stranger),
                (fourth, Scene::update(1)),
                (fourth, Scene::update(2)),
            ]
            .into_iter(),
            &[],
        )
        .await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses[..3], [200; 3]);
    assert!((400..500).contains(&statuses[3]), "{statuses:?}");
    assert_eq!(statuses[4..], [200; 2]);
    assert_eq!(answers[1].bytes, before.bytes);
    assert_eq!(answers[0].bytes, answers[2].bytes);
    assert_eq!(scene.debits().await, 4);
}
