//! What only the store on Redis promises: which servers it accepts, what its keys look like, what a call costs.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use nchf::charging::ids::AccountId;
use nchf::charging::time::Span;
use nchf::store::redis::{Migrations, RedisStore, Settings, State};
use nchf::store::{
    Applied, Commit, Durability, Error, IndexKey, IndexWrite, Listing, Load, OutboxId, Partition, Queue, RefCodec,
    ReferenceKind, SessionWrite, Store, Version,
};

use super::place::*;
use super::redis::settings;
use super::server::Server;

const ABSENT: Version = Version::ABSENT;

async fn open(server: &Server) -> RedisStore {
    RedisStore::open(settings(server)).await.unwrap()
}

/// The sentence of a refusal, which changed nothing.
fn refusal<T>(answer: Result<T, Error>) -> String {
    match answer {
        Err(error @ (Error::Corrupt(_) | Error::Unavailable { applied: Applied::No, .. })) => error.to_string(),
        Err(error) => panic!("another error was expected, not {error:?}"),
        Ok(_) => panic!("a refusal was expected"),
    }
}

fn usual_update(store: &dyn Store, number: u64, version: u64) -> Commit {
    let key = session(store, account(number), 1);
    Commit {
        sessions: vec![SessionWrite {
            journal: Some(Bytes::from("entry")),
            ..session_write(&key, Version(version), "session")
        }],
        ..writes(account(number), Version(version), "account")
    }
}

#[tokio::test]
async fn a_load_and_a_usual_commit_are_one_command_each() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    store.commit(&usual_update(&store, 7, 0)).await.unwrap();
    server.ask(&["CONFIG", "RESETSTAT"]);
    let mut load = Load { account: account(7), session: Some(session(&store, account(7), 1)), index: Vec::new() };
    store.load(&load).await.unwrap();
    store.commit(&usual_update(&store, 7, 1)).await.unwrap();
    assert_eq!((server.calls_of("mget"), server.calls_of("fcall")), (1, 1));
    // What the function itself runs: two versions compared, three values written.
    assert_eq!([server.calls_of("getrange"), server.calls_of("set"), server.calls_of("rpush")], [2, 2, 1]);
    assert_eq!([server.calls_of("zadd"), server.calls_of("llen"), server.calls_of("get")], [0, 0, 0]);
    // An index entry may lie in two places, and is looked for in both at once.
    load.index.push(IndexKey(1));
    store.load(&load).await.unwrap();
    assert_eq!(["mget", "hget", "exec"].map(|command| server.calls_of(command)), [2, 1, 1]);
}

#[tokio::test]
async fn an_index_entry_that_stays_is_packed_and_counts_before_one_that_ends() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    let write = async |value, lives_for| {
        let index = vec![IndexWrite { key: IndexKey(1), value: Bytes::from_static(value), lives_for }];
        store.commit(&Commit { index, ..leaves(account(7), ABSENT) }).await.unwrap();
    };
    let found = async || load_index(&store, account(7), &[1]).await.remove(0);
    let named = |part: &str| server.keys().into_iter().find(|name| name.contains(part));
    write(b"ends", Some(Span::from_secs(100))).await;
    let alone = named("}i:").unwrap();
    // As those that stay lay before there were shelves.
    server.ask(&["PERSIST", &alone]);
    assert_eq!(found().await, Some(Bytes::from("ends")));
    write(b"stays", None).await;
    assert_eq!(found().await, Some(Bytes::from("stays")));
    let shelf = named("}p:").unwrap();
    assert_eq!(server.ask_text(&["OBJECT", "ENCODING", &shelf]), "listpack");
    write(b"ends again", Some(Span::from_secs(100))).await;
    assert_eq!(found().await, Some(Bytes::from("ends again")));
    assert_eq!(named("}p:"), None);
    assert!((90..=100).contains(&server.ask_number(&["TTL", &alone])));
}

#[tokio::test]
async fn a_session_is_one_document_with_a_life_that_each_write_renews() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    let key = session(&store, account(7), 1);
    let write = |version, secs| Commit {
        sessions: vec![SessionWrite {
            lives_for: Span::from_secs(secs),
            ..session_write(&key, Version(version), "session")
        }],
        ..leaves(account(7), ABSENT)
    };
    store.commit(&write(0, 100)).await.unwrap();
    let named: Vec<String> = server.keys().into_iter().filter(|name| name.contains(key.as_str())).collect();
    let [name] = named.as_slice() else { panic!("one key holds the reference, not {named:?}") };
    assert_eq!(server.ask_text(&["TYPE", name]), "string");
    assert!((90..=100).contains(&server.ask_number(&["TTL", name])));
    store.commit(&write(1, 1000)).await.unwrap();
    assert!((990..=1000).contains(&server.ask_number(&["TTL", name])));
    // The shortest life there is: a write never fails because of it.
    store.commit(&write(2, 0)).await.unwrap();
}

#[tokio::test]
async fn no_key_tells_an_identity() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    let refs = RefCodec::new(store.identity().secret);
    let (account_id, supi) = ("msisdn-32470000001", "imsi-001010000000001");
    let of = refs.account_key(&AccountId::new(account_id));
    store.commit(&changes_everything(&store, of, ABSENT, [ABSENT; 2])).await.unwrap();
    put(&store, ReferenceKind::Subscriber, &refs.subscriber_key(supi), 0, "subscriber").await;
    assert!(server.keys().len() > 12, "{:?}", server.keys());
    for name in server.keys() {
        assert!(name.starts_with("nchf"), "{name}");
        assert!(!name.contains("32470000001") && !name.contains("001010000000001"), "{name}");
    }
}

#[tokio::test]
async fn all_keys_of_a_partition_carry_one_tag() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    store.commit(&changes_everything(&store, account(7), ABSENT, [ABSENT; 2])).await.unwrap();
    let tags: BTreeSet<String> =
        server.keys().iter().filter_map(|name| Some(name.split_once('{')?.1.split_once('}')?.0.to_owned())).collect();
    assert_eq!(tags.len(), 1, "{tags:?}");
}

#[tokio::test]
async fn a_key_of_another_type_is_found_before_anything_is_written() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    store.commit(&changes_everything(&store, account(7), ABSENT, [ABSENT; 2])).await.unwrap();
    let names: Vec<String> = server.keys().into_iter().filter(|name| name.starts_with("nchf{")).collect();
    assert_eq!(names.len(), 13, "account, 2 sessions, 3 journals, index, timers, 3 listings, 2 outboxes: {names:?}");
    for wrong in &names {
        for name in &names {
            server.ask(&["DEL", name]);
        }
        let is_hash = wrong.contains("}p:");
        let another: &[&str] = if is_hash { &["SET", wrong, "type"] } else { &["HSET", wrong, "another", "type"] };
        server.ask(another);
        let before = server.content();
        let error = refusal(store.commit(&changes_everything(&store, account(7), ABSENT, [ABSENT; 2])).await);
        assert!(error.contains("another type"), "{wrong}: {error}");
        assert_eq!(server.content(), before, "{wrong} was found too late");
    }
}

#[tokio::test]
async fn a_look_at_all_partitions_is_sixteen_round_trips() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    let all: Vec<Partition> = Partition::all().collect();
    store.look(&all, at(0)).await.unwrap();
    let before = server.reads();
    store.look(&all, at(0)).await.unwrap();
    let after = server.reads();
    // Each round trip is read in a few pieces, and the asking itself in one.
    assert!(after - before < 16 * 4, "{} reads", after - before);
    assert_eq!(server.calls_of("zcount"), 2 * 1024);
    assert_eq!(server.calls_of("xlen"), 2 * 2 * 1024);
}

#[tokio::test]
async fn outbox_ids_grow_across_a_restart() {
    let mut server = Server::redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut last = OutboxId("".into());
    for round in 0..3 {
        let store = open(&server).await;
        store.commit(&sends(account(7), Queue::Records, &["a", "b"].map(Bytes::from))).await.unwrap();
        let found = store.outbox(Partition(7), Queue::Records, None, 10).await.unwrap();
        assert!(last < found[0].0, "round {round}");
        last = found[1].0.clone();
        store.acknowledge(Partition(7), Queue::Records, &[found[0].0.clone(), last.clone()]).await.unwrap();
        if round == 1 {
            // Written anew from what is in memory, where no entry is left to tell of the ids.
            server.ask(&["BGREWRITEAOF"]);
            while server.ask_text(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:1") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        server.kill();
        server.restart();
    }
    // And were the clock to go back, as after a failover to a machine whose clock is slow.
    let store = open(&server).await;
    let ahead = u64::from_str_radix(&last.0[..16], 16).unwrap() + 3_600_000;
    let key = server.keys().into_iter().find(|name| name.ends_with("}x")).unwrap();
    server.ask(&["XADD", &key, &format!("{ahead}-5"), "d", "from a clock that is ahead"]);
    store.commit(&sends(account(7), Queue::Records, &[Bytes::from("c")])).await.unwrap();
    let found = store.outbox(Partition(7), Queue::Records, None, 10).await.unwrap();
    assert_eq!(&*found[1].0.0, format!("{ahead:016x}{:016x}", 6));
}

#[tokio::test]
async fn retired_sessions_leave_no_keys_behind() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    let brief = Span::from_millis(50);
    // Some are never retired, and are the oldest: they must not hide the others.
    for number in 0..200u8 {
        let key = session(&store, account(7), number);
        let write = SessionWrite {
            lives_for: brief,
            journal: Some(Bytes::from("closed")),
            listing: Listing::Closed(at(i64::from(number))),
            ..session_write(&key, ABSENT, "session")
        };
        store.commit(&Commit { sessions: vec![write], ..leaves(account(7), ABSENT) }).await.unwrap();
        if number >= 20 {
            store.retire(account(7), &key, None, brief).await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The retirements of others sweep, though they know nothing of these.
    for _ in 0..300 {
        store.retire(account(7), &session(&store, account(7), 255), None, brief).await.unwrap();
    }
    let listings: Vec<String> =
        server.keys().into_iter().filter(|name| name.contains("}c") || name.contains("}k:")).collect();
    assert_eq!(listings.len(), 2);
    for listing in listings {
        let left = server.ask_number(&["ZCARD", &listing]);
        assert!((20..30).contains(&left), "{left} left in {listing}");
    }
    assert_eq!(server.keys().iter().filter(|name| name.contains("}j:")).count(), 20);
}

#[tokio::test]
async fn a_retirement_that_redis_refuses_changes_nothing() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    let of = account(7);
    store.commit(&changes_everything(&store, of, ABSENT, [ABSENT; 2])).await.unwrap();
    let key = session(&store, of, 2);
    let retire = || store.retire(of, &key, Some(Bytes::from("published")), Span::from_secs(1));
    let before = server.content();
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    refusal(retire().await);
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(server.content(), before);
    let journal = server.keys().into_iter().find(|name| name.contains("}j:") && name.ends_with(key.as_str())).unwrap();
    server.ask(&["SET", &journal, "another type"]);
    assert!(refusal(retire().await).contains("another type"));
}

#[tokio::test]
async fn an_evicting_server_is_never_ready() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    store.ready().await.unwrap();
    for policy in ["allkeys-lru", "volatile-ttl"] {
        server.ask(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let error = refusal(store.ready().await);
        assert!(error.contains(policy) && error.contains("noeviction"), "{error}");
    }
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    store.ready().await.unwrap();
}

#[tokio::test]
async fn durability_is_demanded_of_the_server() {
    let with = |server: &Server, durability| RedisStore::open(Settings { durability, ..settings(server) });
    let forgetful = Server::redis(&[]);
    let error = refusal(with(&forgetful, Durability::Fsync).await.unwrap().ready().await);
    assert!(error.contains("appendonly no"), "{error}");
    let error = refusal(with(&forgetful, Durability::Replicated).await);
    assert!(error.contains("a single Redis cannot promise"), "{error}");

    let every_second = Server::redis(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let error = refusal(with(&every_second, Durability::Fsync).await.unwrap().ready().await);
    assert!(error.contains("appendfsync everysec"), "{error}");

    let always = Server::redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    with(&always, Durability::Fsync).await.unwrap().ready().await.unwrap();
}

#[tokio::test]
async fn a_store_of_another_partition_count_is_refused() {
    let server = Server::redis(&[]);
    open(&server).await;
    server.ask(&["HSET", "nchf:format", "partitions", "512"]);
    let before = server.content();
    let error = refusal(RedisStore::open(settings(&server)).await);
    assert!(error.contains("512") && error.contains("1024"), "{error}");
    assert_eq!(server.content(), before);
}

#[tokio::test]
async fn a_store_that_needs_a_newer_program_is_refused_and_one_that_does_not_is_served() {
    let server = Server::redis(&[]);
    open(&server).await;
    server.ask(&["HSET", "nchf:migrations", "4", "2 0123456789abcdef adds_something"]);
    open(&server).await;
    let status = Migrations::of(&settings(&server)).unwrap().status().await.unwrap();
    let states: Vec<State> = status.iter().map(|status| status.state).collect();
    assert_eq!(states, [State::Applied, State::Applied, State::Applied, State::Unknown]);
    assert_eq!(&*status[3].name, "0004_adds_something");

    server.ask(&["HSET", "nchf:migrations", "5", "4 0123456789abcdef takes_something_away"]);
    let error = refusal(RedisStore::open(settings(&server)).await);
    assert!(error.contains("newer") && error.contains("takes_something_away"), "{error}");
}

#[tokio::test]
async fn migrations_say_where_a_store_stands() {
    let server = Server::redis(&[]);
    let by_hand = Settings { migrate: false, ..settings(&server) };
    let migrations = Migrations::of(&by_hand).unwrap();
    assert!(refusal(RedisStore::open(by_hand.clone()).await).contains("nchf migrate up"));
    assert!(refusal(migrations.verify().await).contains("nchf migrate up"));
    assert_eq!(migrations.status().await.unwrap()[0].state, State::Pending);
    assert!(server.keys().is_empty(), "asking changes nothing");

    let names: Vec<String> = migrations.up().await.unwrap().into_iter().map(String::from).collect();
    assert_eq!(names, ["0001_commit_function", "0002_packed_index", "0003_one_list"]);
    assert!(migrations.up().await.unwrap().is_empty(), "a second time changes nothing");
    migrations.verify().await.unwrap();
    assert_eq!(server.keys(), ["nchf:format", "nchf:migrations"], "the lock is given back");
    RedisStore::open(by_hand.clone()).await.unwrap().ready().await.unwrap();

    server.ask(&["FUNCTION", "LOAD", "REPLACE", "#!lua name=nchf_1\nredis.register_function('x', function() end)"]);
    assert!(refusal(migrations.verify().await).contains("nchf_1"));
    server.ask(&["HSET", "nchf:migrations", "1", "1 0123456789abcdef commit_function"]);
    assert_eq!(migrations.status().await.unwrap()[0].state, State::Differs);
    assert!(refusal(RedisStore::open(by_hand).await).contains("edited"));
}

#[tokio::test]
async fn a_store_from_before_the_newest_migration_is_brought_up_to_it() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    server.ask(&["FUNCTION", "DELETE", "nchf_3"]);
    server.ask(&["HDEL", "nchf:migrations", "3"]);
    let by_hand = Settings { migrate: false, ..settings(&server) };
    assert!(refusal(RedisStore::open(by_hand).await).contains("0003_one_list"));
    open(&server).await;
    store.commit(&usual_update(&store, 7, 0)).await.unwrap();
    Migrations::of(&settings(&server)).unwrap().verify().await.unwrap();
}

#[tokio::test]
async fn instances_that_open_a_new_store_at_once_agree() {
    let server = Server::redis(&[]);
    let (first, second, third) = tokio::join!(
        RedisStore::open(settings(&server)),
        RedisStore::open(settings(&server)),
        RedisStore::open(settings(&server)),
    );
    let secrets: BTreeSet<[u8; 16]> =
        [first, second, third].into_iter().map(|store| store.unwrap().identity().secret).collect();
    assert_eq!(secrets.len(), 1);
}

#[tokio::test]
async fn lost_functions_are_noticed_and_loaded_again_where_that_is_allowed() {
    let server = Server::redis(&[]);
    let by_itself = open(&server).await;
    let by_hand = RedisStore::open(Settings { migrate: false, ..settings(&server) }).await.unwrap();
    server.ask(&["FUNCTION", "FLUSH"]);
    let error = refusal(by_itself.commit(&usual_update(&by_itself, 7, 0)).await);
    assert!(error.contains("not applied"), "{error}");
    assert!(refusal(by_hand.ready().await).contains("nchf_1"));
    assert!(refusal(RedisStore::open(Settings { migrate: false, ..settings(&server) }).await).contains("nchf_1"));
    by_itself.ready().await.unwrap();
    by_hand.ready().await.unwrap();
    by_itself.commit(&usual_update(&by_itself, 7, 0)).await.unwrap();
}

#[tokio::test]
async fn an_emptied_server_is_noticed() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    server.ask(&["FLUSHALL"]);
    assert!(refusal(store.ready().await).contains("lost"));
    let another = open(&server).await;
    another.ready().await.unwrap();
    assert!(refusal(store.ready().await).contains("another store"));
}

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let server = Server::redis(&[]);
    server.ask(&["ACL", "SETUSER", "nchf", "on", ">open-sesame", "~nchf*", "+@all"]);
    server.ask(&["ACL", "SETUSER", "default", "-fcall", "+acl"]);
    let as_user = |password: &str| Settings {
        url: server.url().replace("redis://", &format!("redis://nchf:{password}@")),
        ..settings(&server)
    };
    let store = RedisStore::open(as_user("open-sesame")).await.unwrap();
    store.commit(&usual_update(&store, 7, 0)).await.unwrap();
    let error = refusal(RedisStore::open(as_user("wrong-word")).await);
    assert!(!error.contains("wrong-word") && !error.contains("not found"), "{error}");
    assert!(!format!("{:?}", as_user("open-sesame")).contains("sesame"));
    let refused = open(&server).await;
    let error = refusal(refused.commit(&usual_update(&refused, 8, 0)).await);
    assert!(error.contains("NOPERM") || error.to_lowercase().contains("permission"), "{error}");
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_a_sentence() {
    for url in ["", "localhost", "http://localhost", "redis://"] {
        let settings = Settings { durability: Durability::Memory, ..Settings::new(url) };
        if let Err(error) = RedisStore::open(settings).await {
            assert!(matches!(error, Error::Unavailable { applied: Applied::No, .. }), "{url}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_cursor_that_no_page_gave_leads_nowhere() {
    let server = Server::redis(&[]);
    let store = open(&server).await;
    store.commit(&changes_everything(&store, account(7), ABSENT, [ABSENT; 2])).await.unwrap();
    let list = nchf::store::List::OpenSessions(account(7).partition());
    for cursor in ["", ":", "x:y", "nan:", "inf:", "1", "9e99:"] {
        assert_eq!(store.list(&list, Some(cursor), 10).await.unwrap().items.len(), 0, "{cursor:?}");
    }
}
