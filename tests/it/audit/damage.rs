//! Every damage is found, and under its rule.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nchf::audit::Rule;
use nchf::cdr_file::Format;
use nchf::charging::account::Account;
use nchf::charging::decision::Outgoing;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::journal::{Entry, Event, MoveKind, Published};
use nchf::charging::money::Amount;
use nchf::charging::session::{ChargingSession, SessionState};
use nchf::charging::time::{Span, Timestamp};
use nchf::store::memory::MemoryStore;
use nchf::store::{
    AccountKey, Commit, JournalKey, List, Listing, Load, Origin, Partition, Queue, SessionWrite, Store, TimerWrite,
    Version, record,
};

use super::workload::{Workload, clock, rules};

async fn in_memory(formats: &[Format]) -> (Workload, ChargingDataRef) {
    let clock = clock();
    let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
    let mut workload = Workload::over(store, clock, formats).await;
    let open = workload.run().await;
    (workload, open)
}

/// What can be done to a session behind the back of the charging function.
struct Hand<'a> {
    workload: &'a Workload,
    account: AccountKey,
    session: ChargingDataRef,
}

impl<'a> Hand<'a> {
    fn on(workload: &'a Workload, session: ChargingDataRef) -> Self {
        Self { account: workload.account_of(&session), workload, session }
    }

    fn store(&self) -> &dyn Store {
        self.workload.store()
    }

    async fn documents(&self) -> ((Account, Version), (Box<ChargingSession>, Version)) {
        let load = Load { account: self.account, session: Some(self.session.clone()), index: Vec::new() };
        let found = self.store().load(&load).await.unwrap();
        let (account, session) = (found.account.unwrap(), found.session.unwrap());
        let decoded = (record::decode(&account.bytes).unwrap(), account.version);
        (decoded, (record::decode_session(&self.session, &session.bytes).unwrap(), session.version))
    }

    async fn commit(&self, account: Option<Bytes>, session: Option<SessionWrite>) {
        let ((_, account_expected), _) = self.documents().await;
        let commit = Commit {
            account_document: account,
            sessions: session.into_iter().collect(),
            ..Commit::unchanged(Origin::ANY, self.account, account_expected)
        };
        self.store().commit(&commit).await.unwrap();
    }

    async fn change_account(&self, change: impl FnOnce(&mut Account)) {
        let ((mut account, _), _) = self.documents().await;
        change(&mut account);
        self.commit(Some(record::encode(&account)), None).await;
    }

    async fn write(&self, change: impl FnOnce(&mut SessionWrite)) {
        let (_, (session, expected)) = self.documents().await;
        let mut write = SessionWrite {
            key: self.session.clone(),
            expected,
            document: record::encode_session(&session),
            lives_for: Span::from_secs(1_000_000),
            timer: TimerWrite::Keep,
            listing: Listing::Keep,
            journal: None,
        };
        change(&mut write);
        self.commit(None, Some(write)).await;
    }

    async fn change_session(&self, change: impl FnOnce(&mut ChargingSession)) {
        let (_, (mut session, _)) = self.documents().await;
        change(&mut session);
        self.write(|write| write.document = record::encode_session(&session)).await;
    }

    async fn journal(&self) -> Vec<Entry> {
        let key = JournalKey::Session(self.account, self.session.clone());
        record::decode_journal(&self.store().journal(&key).await.unwrap()).unwrap()
    }

    /// Without a time to live, as the journal of an open session.
    async fn append(&self, entry: Bytes) {
        self.write(|write| write.journal = Some(entry)).await;
    }

    async fn change_journal(&self, change: impl FnOnce(&mut Vec<Entry>)) {
        let mut entries = self.journal().await;
        change(&mut entries);
        self.store().retire(self.account, &self.session, None, Span::from_millis(1)).await.unwrap();
        self.workload.clock.advance(Span::from_millis(10));
        for entry in entries {
            self.append(record::encode(&entry)).await;
        }
    }

    async fn waiting(&self) -> (nchf::store::OutboxId, Partition) {
        let partition = self.account.partition();
        let entries = self.store().outbox(partition, Queue::Records, None, 1000).await.unwrap();
        let is_mine = |bytes: &Bytes| match record::decode(bytes) {
            Ok(Outgoing::Record { session, .. }) => session == self.session,
            Ok(Outgoing::Notify(_) | Outgoing::Credited { .. }) | Err(_) => false,
        };
        (entries.into_iter().find(|(_, bytes)| is_mine(bytes)).unwrap().0, partition)
    }
}

/// A session of an account that closed last.
async fn closed(workload: &Workload, account: &str) -> ChargingDataRef {
    let key = workload.world.app.shared.refs.account_key(&nchf::charging::ids::AccountId::new(account));
    let page = workload.store().list(&List::ClosedSessionsOf(key), None, 100).await.unwrap();
    ChargingDataRef::new(page.items.last().unwrap().clone())
}

fn one_more(amount: Amount) -> Amount {
    amount.plus(Amount::new(1)).unwrap()
}

/// Damages a store; checks that the rules are violated, and no others.
async fn violates(what: &str, expected: &[Rule], damage: impl AsyncFnOnce(&Workload, Hand<'_>)) {
    let (workload, open) = in_memory(&[Format::Jsonl]).await;
    damage(&workload, Hand::on(&workload, open)).await;
    let report = workload.audit().await;
    assert_eq!(rules(&report), expected, "{what}:\n{report}");
}

#[tokio::test]
async fn what_balances_hold_follows_from_moves() {
    violates("a millionth more", &[Rule::Amount], async |_, hand| {
        hand.change_account(|account| account.balances[0].amount = one_more(account.balances[0].amount)).await;
    })
    .await;
    violates("an entry is gone", &[Rule::Amount, Rule::Charged], async |_, hand| {
        hand.change_journal(|entries| drop(entries.remove(1))).await;
    })
    .await;
    violates("the whole journal is gone", &[Rule::Journal, Rule::Amount], async |_, hand| {
        hand.change_journal(Vec::clear).await;
    })
    .await;
    violates("a debit is larger", &[Rule::Amount, Rule::Charged], async |_, hand| {
        let enlarge = |entries: &mut Vec<Entry>| {
            let mut moves = entries.iter_mut().flat_map(|entry| &mut entry.moves);
            let debit = moves.find(|change| change.kind == MoveKind::Debit).unwrap();
            debit.amount = one_more(debit.amount);
        };
        hand.change_journal(enlarge).await;
    })
    .await;
    violates("an entry is there twice", &[Rule::Journal, Rule::Amount, Rule::Charged], async |_, hand| {
        let last = hand.journal().await.pop().unwrap();
        hand.append(record::encode(&last)).await;
    })
    .await;
    violates("the account is older than its journals", &[Rule::Journal, Rule::Amount], async |_, hand| {
        let ahead = |entries: &mut Vec<Entry>| {
            let mut last = entries.pop().unwrap();
            last.account_version += 5;
            entries.push(last);
        };
        hand.change_journal(ahead).await;
        hand.change_account(|account| account.balances[0].amount = one_more(account.balances[0].amount)).await;
    })
    .await;
}

#[tokio::test]
async fn what_balances_show_as_reserved_is_what_sessions_hold() {
    violates("the balance shows more", &[Rule::Reserved], async |_, hand| {
        hand.change_account(|account| account.balances[0].reserved = one_more(account.balances[0].reserved)).await;
    })
    .await;
    violates("a session has forgotten its grant", &[Rule::Reserved], async |_, hand| {
        hand.change_session(|session| session.quotas[0].grant = None).await;
    })
    .await;
    violates("both hold more than was reserved", &[Rule::Reserved], async |_, hand| {
        hand.change_account(|account| account.balances[0].reserved = one_more(account.balances[0].reserved)).await;
        let more = |session: &mut ChargingSession| {
            let held = &mut session.quotas[0].grant.as_mut().unwrap().reserved[0];
            held.amount = one_more(held.amount);
        };
        hand.change_session(more).await;
        // Now only the moves tell.
        let nothing_reserved = |entries: &mut Vec<Entry>| {
            let moves = entries.iter_mut().flat_map(|entry| &mut entry.moves);
            moves.filter(|change| change.kind == MoveKind::Reserve).for_each(|change| change.amount = Amount::ZERO);
        };
        hand.change_journal(nothing_reserved).await;
    })
    .await;
}

#[tokio::test]
async fn sessions_journals_timers_and_listings_tell_the_same() {
    violates("charged a millionth more", &[Rule::Charged], async |_, hand| {
        hand.change_session(|session| session.charged = one_more(session.charged)).await;
    })
    .await;
    violates("a record more", &[Rule::Closing], async |_, hand| {
        hand.change_session(|session| session.record.part += 1).await;
    })
    .await;
    violates("no timer", &[Rule::Timer], async |_, hand| hand.write(|write| write.timer = TimerWrite::Remove).await)
        .await;
    violates("a timer too late", &[Rule::Timer], async |_, hand| {
        hand.write(|write| write.timer = TimerWrite::At(Timestamp::LATEST)).await;
    })
    .await;
    violates("listed as closed", &[Rule::Listing], async |_, hand| {
        hand.write(|write| write.listing = Listing::Closed(Timestamp::default())).await;
    })
    .await;
    violates("a timer of a closed session", &[Rule::Timer], async |workload, _| {
        let hand = Hand::on(workload, closed(workload, "demo-0005").await);
        hand.write(|write| write.timer = TimerWrite::At(workload.clock_now())).await;
    })
    .await;
    violates("a closed session is listed as open", &[Rule::Listing], async |workload, _| {
        let hand = Hand::on(workload, closed(workload, "demo-0005").await);
        hand.write(|write| write.listing = Listing::Open(Timestamp::default())).await;
    })
    .await;
    let all = [Rule::Reserved, Rule::Closing, Rule::Timer, Rule::Listing];
    violates("the document of an open session is gone", &all, async |workload, hand| {
        hand.write(|write| write.lives_for = Span::from_millis(1)).await;
        workload.clock.advance(Span::from_millis(10));
    })
    .await;
    violates("a session that is closed by its document only", &all, async |workload, hand| {
        let at = workload.clock_now();
        let cause = nchf::charging::session::ClosingCause::Released;
        hand.change_session(|session| session.state = SessionState::Closed { at, cause }).await;
    })
    .await;
    let all = [Rule::Closing, Rule::Timer, Rule::Listing];
    violates("a session that is open again", &all, async |workload, _| {
        let hand = Hand::on(workload, closed(workload, "demo-0005").await);
        hand.change_session(|session| session.state = SessionState::Active).await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_a_finding() {
    violates("an account's document", &[Rule::Unreadable], async |_, hand| {
        hand.commit(Some(Bytes::from("x")), None).await;
    })
    .await;
    violates("a session's document", &[Rule::Unreadable], async |_, hand| {
        hand.write(|write| write.document = Bytes::new()).await;
    })
    .await;
    violates("an entry", &[Rule::Unreadable], async |_, hand| hand.append(Bytes::from("x")).await).await;
}

#[tokio::test]
async fn closed_records_are_in_journals_and_on_their_way() {
    let twice = [Rule::Journal, Rule::Closing, Rule::Record];
    violates("a session that closes twice", &twice, async |workload, _| {
        let hand = Hand::on(workload, closed(workload, "demo-0005").await);
        let is_closing = |entry: &Entry| matches!(entry.event, Event::Released(_));
        let mut closing = hand.journal().await.into_iter().find(is_closing).unwrap();
        closing.moves.clear();
        hand.append(record::encode(&closing)).await;
    })
    .await;
    violates("a session that closes without a record", &[Rule::Closing], async |workload, _| {
        let hand = Hand::on(workload, closed(workload, "demo-0005").await);
        hand.change_session(|session| session.record.part = 0).await;
        let (id, partition) = hand.waiting().await;
        hand.store().acknowledge(partition, Queue::Records, &[id]).await.unwrap();
        // Listed as closed again, because its journal ends in between.
        hand.change_journal(|entries| entries.last_mut().unwrap().closings.clear()).await;
        hand.write(|write| write.listing = Listing::Closed(Timestamp::default())).await;
    })
    .await;
    violates("a record that waits for nothing", &[Rule::Record], async |workload, _| {
        let hand = Hand::on(workload, closed(workload, "demo-0005").await);
        let (id, partition) = hand.waiting().await;
        hand.store().acknowledge(partition, Queue::Records, &[id]).await.unwrap();
    })
    .await;
    for (part, local_record_sequence_number) in [(0, 1000), (7, 0)] {
        violates("a record that was published otherwise", &[Rule::Record], async |workload, _| {
            let hand = Hand::on(workload, closed(workload, "demo-0004").await);
            let published = Published { part, local_record_sequence_number, file: "x/1".into() };
            hand.append(record::encode(&Entry::published(workload.clock_now(), published))).await;
        })
        .await;
    }
}

/// The record files of a directory, as lines.
struct Lines(Vec<(PathBuf, Vec<String>)>);

impl Lines {
    fn of(directory: &Path) -> Self {
        let mut files: Vec<PathBuf> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();
        let lines = |path: &PathBuf| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        Self(files.into_iter().map(|path| (path.clone(), lines(&path))).collect())
    }

    fn write_to(&self, directory: &Path) {
        for (path, lines) in &self.0 {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(directory.join(path.file_name().unwrap()), text).unwrap();
        }
    }

    /// A record with a charge that is neither the first nor the last, and not the only one of its session.
    fn one(&mut self) -> (&mut Vec<String>, usize) {
        let is_one = |line: &String| line.contains("-1\"") && line.contains("\"causeForRecClosing\":0");
        let (_, lines) = self.0.iter_mut().find(|(_, lines)| lines.iter().any(is_one)).unwrap();
        let at = lines.iter().position(is_one).unwrap();
        (lines, at)
    }
}

fn member<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap();
    rest.split([',', '}']).next().unwrap().trim_matches('"')
}

#[tokio::test]
async fn files_hold_each_record_once_as_its_journal_tells_it() {
    let (workload, open) = in_memory(&[Format::Jsonl]).await;
    type Damage<'a> = Box<dyn Fn(&mut Lines) + 'a>;
    let change = |change: Box<dyn Fn(&str) -> String>| -> Damage<'static> {
        Box::new(move |lines| {
            let (lines, at) = lines.one();
            lines[at] = change(&lines[at]);
        })
    };
    let stranger = workload.store();
    let foreign = nchf::store::RefCodec::new(*b"another's secret").mint(AccountKey(7), [7; 12]);
    let unknown = nchf::store::RefCodec::new(stranger.identity().secret).mint(AccountKey(7), [7; 12]);
    let instead = |other: String| -> Damage<'static> {
        change(Box::new(move |line: &str| line.replace(member(line, "ref"), &other)))
    };
    let cases: Vec<(&str, &[Rule], Damage)> = vec![
        ("nothing", &[], Box::new(|_| {})),
        (
            "a line is gone",
            &[Rule::Record, Rule::Sequence],
            Box::new(|lines| {
                let (lines, at) = lines.one();
                lines.remove(at);
            }),
        ),
        (
            "a line is there twice",
            &[Rule::Record, Rule::Sequence],
            Box::new(|lines| {
                let (lines, at) = lines.one();
                lines.insert(at, lines[at].clone());
            }),
        ),
        (
            "a file is there twice",
            &[Rule::Record, Rule::Sequence],
            Box::new(|lines| {
                let again = (PathBuf::from("again.jsonl"), lines.0[1].1.clone());
                lines.0.push(again);
            }),
        ),
        (
            "another charge",
            &[Rule::Charged],
            change(Box::new(|line| {
                line.replace(&format!("\"charged\":\"{}\"", member(line, "charged")), "\"charged\":\"0.012345\"")
            })),
        ),
        (
            "another cause",
            &[Rule::Record],
            change(Box::new(|line| line.replace("\"causeForRecClosing\":0", "\"causeForRecClosing\":4"))),
        ),
        (
            "another number",
            &[Rule::Record, Rule::Sequence],
            change(Box::new(|line| {
                let number = format!("\"localRecordSequenceNumber\":{}", member(line, "localRecordSequenceNumber"));
                line.replace(&number, "\"localRecordSequenceNumber\":0")
            })),
        ),
        (
            "no number",
            &[Rule::Sequence],
            change(Box::new(|line| {
                let number = format!("\"localRecordSequenceNumber\":{},", member(line, "localRecordSequenceNumber"));
                line.replace(&number, "")
            })),
        ),
        ("an open session's record", &[Rule::Record], instead(open.to_string())),
        ("a session's that was never opened", &[Rule::Record], instead(unknown.to_string())),
        ("another store's record", &[Rule::Record], instead(foreign.to_string())),
        ("no record", &[Rule::Unreadable, Rule::Record, Rule::Sequence], change(Box::new(|_| "{}".to_owned()))),
        (
            "a record of two sessions",
            &[Rule::Unreadable, Rule::Record, Rule::Sequence],
            change(Box::new(|line| line.replacen(member(line, "id"), "another-0", 1))),
        ),
    ];
    for (what, expected, damage) in cases {
        let directory = tempfile::tempdir().unwrap();
        let mut lines = Lines::of(workload.directory.path());
        damage(&mut lines);
        lines.write_to(directory.path());
        let report = workload.audit_with(&[directory.path()]).await;
        assert_eq!(rules(&report), expected, "{what}:\n{report}");
    }
}

#[tokio::test]
async fn files_that_mediation_has_collected_are_no_loss() {
    let (workload, _) = in_memory(&[Format::Jsonl]).await;
    let lines = Lines::of(workload.directory.path());
    for kept in 0..=lines.0.len() {
        let directory = tempfile::tempdir().unwrap();
        Lines(lines.0[lines.0.len() - kept..].to_vec()).write_to(directory.path());
        let report = workload.audit_with(&[directory.path()]).await;
        assert!(report.holds(), "{kept} files left:\n{report}");
        assert_eq!(report.unproven.is_empty(), kept == lines.0.len(), "and it is said: {report}");
    }
    // Of several directories, each has some; one that is named twice counts once.
    let [one, other] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    Lines(lines.0[..1].to_vec()).write_to(one.path());
    Lines(lines.0[1..].to_vec()).write_to(other.path());
    let report = workload.audit_with(&[one.path(), other.path(), &one.path().join(".")]).await;
    assert!(report.holds() && report.unproven.is_empty(), "{report}");
}

#[tokio::test]
async fn files_in_ber_are_read_by_their_frames() {
    let (workload, _) = in_memory(&Format::ALL).await;
    let in_ber: Vec<PathBuf> = workload.directory.path().read_dir().unwrap().map(|one| one.unwrap().path()).collect();
    let mut in_ber: Vec<PathBuf> =
        in_ber.into_iter().filter(|path| path.extension().is_some_and(|e| e == "ber")).collect();
    in_ber.sort();
    let sound = std::fs::read(&in_ber[1]).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, &[Rule], Damage); 4] = [
        ("one more by its header", &[Rule::File], |octets| octets[21] += 1),
        ("longer by its header", &[Rule::File], |octets| octets[3] += 1),
        ("cut short", &[Rule::Unreadable, Rule::File], |octets| octets.truncate(octets.len() - 1)),
        ("an impossible header", &[Rule::Unreadable], |octets| octets[4] = 0xff),
    ];
    for (what, expected, damage) in cases {
        let mut octets = sound.clone();
        damage(&mut octets);
        std::fs::write(&in_ber[1], octets).unwrap();
        let report = workload.audit().await;
        assert_eq!(rules(&report), expected, "{what}:\n{report}");
    }
    std::fs::write(&in_ber[1], sound).unwrap();

    // Both formats of a file hold the same; and where there is only BER, it tells the money as well.
    let mut lines = Lines::of(workload.directory.path());
    let (damaged, at) = lines.one();
    damaged[at] = damaged[at].replace("\"charged\":\"0.0", "\"charged\":\"1.0");
    lines.write_to(workload.directory.path());
    assert_eq!(rules(&workload.audit().await), [Rule::Charged, Rule::File]);
    for (path, _) in &lines.0 {
        std::fs::remove_file(path).unwrap();
    }
    let report = workload.audit().await;
    assert!(report.holds() && report.unproven.is_empty(), "{report}");
    let text = std::fs::read(&in_ber[1]).unwrap();
    let needle = b"\"charged\":\"0.0";
    let at = text.windows(needle.len()).position(|window| window == needle).unwrap();
    let mut octets = text.clone();
    octets[at + needle.len() - 3] = b'7';
    std::fs::write(&in_ber[1], octets).unwrap();
    assert_eq!(rules(&workload.audit().await), [Rule::Charged]);
}

#[tokio::test]
async fn records_stand_in_for_journals_that_have_ended() {
    let (mut workload, _) = in_memory(&[Format::Jsonl]).await;
    for _ in 0..3 {
        workload.world.tick(86_400);
        workload.export().await;
    }
    workload.world.tick(91 * 86_400);
    let report = workload.audit().await;
    assert!(report.holds(), "{report}");
    assert_eq!(report.counts.sessions, 0, "nothing is left of them: {report}");
    // A credit that had ended was taken out of a balance, of which no record tells.
    let unproven: Vec<String> = report.unproven.iter().map(|one| one.subject.to_string()).collect();
    assert_eq!(unproven, ["account demo-bundle", "account demo-0004"], "{report}");

    // Without the files nothing stands in, and that is said of each account that paid.
    let nothing = tempfile::tempdir().unwrap();
    let report = workload.audit_with(&[nothing.path()]).await;
    assert!(report.holds() && report.counts.unproven > 4, "{report}");
    // What was never debited cannot have been charged.
    let mut lines = Lines::of(workload.directory.path());
    let (damaged, at) = lines.one();
    let (reference, idle) = (member(&damaged[at], "ref").to_owned(), AccountKey(7));
    let idle = workload.world.app.shared.refs.mint(
        workload.world.app.shared.refs.account_key(&nchf::charging::ids::AccountId::new("demo-0999")),
        idle.0.to_be_bytes().repeat(2)[..12].try_into().unwrap(),
    );
    damaged[at] = damaged[at].replace(&reference, idle.as_str());
    lines.write_to(nothing.path());
    assert_eq!(rules(&workload.audit_with(&[nothing.path()]).await), [Rule::Charged]);
}
