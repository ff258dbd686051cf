//! Bytes as what a Redis answers that has lost its mind, or is none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nchf::charging::time::{Span, Timestamp};
use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{
    self, AccountKey, Commit, Durability, IndexKey, JournalKey, List, Load, Origin, Queue, ReferenceKind, Store,
    Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::panics;

const DEADLINE: Duration = Duration::from_millis(100);

/// Far beyond the deadline: machines are slow at times. A call that hangs, hangs longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first byte says what a store asks that was opened as it should be, and whether the connection ends after the
/// answer (its highest bit) or goes on in silence; the rest is the answer, on this connection and on the next one. The
/// call ends in time, with a sentence where it fails, and nothing panics.
pub fn replies(data: &[u8]) {
    let Some((asked, soup)) = data.split_first() else { return };
    panics::are_watched();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(None));
        tokio::spawn(accept(listener, Arc::clone(&says)));
        let mut settings = Settings::new(format!("redis://{address}"));
        (settings.deadline, settings.connect_timeout) = (DEADLINE, DEADLINE);
        settings.durability = Durability::Memory;
        // A machine that stands still for so long is not what this is about.
        let Ok(store) = RedisStore::open(settings).await else { return };
        let answer = Answer { octets: soup.into(), ends: asked & 0x80 != 0 };
        *says.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        let asking = tokio::time::timeout(PATIENCE, ask(&store, asked & 0x7f));
        if let Err(error) = asking.await.expect("a call ends") {
            assert!(!error.to_string().is_empty());
        }
    });
    drop(runtime);
    assert!(!panics::happened_on(std::thread::current().id()), "the connection panicked");
}

async fn ask(store: &RedisStore, what: u8) -> Result<(), store::Error> {
    let account = AccountKey(7);
    let (partition, now) = (account.partition(), Timestamp::from_secs(1_768_474_800));
    let session = store::RefCodec::new([7; 16]).mint(account, [7; 12]);
    match what % 15 {
        0 => {
            let load = Load { account, session: Some(session), index: vec![IndexKey(7)] };
            store.load(&load).await.map(drop)
        }
        1 => {
            let commit = Commit {
                account_document: Some(b"a document".as_slice().into()),
                ..Commit::unchanged(Origin::ANY, account, Version(1))
            };
            store.commit(&commit).await
        }
        2 => store.sessions(account, &[session.clone(), session]).await.map(drop),
        3 => store.journal(&JournalKey::Session(account, session)).await.map(drop),
        4 => store.due(partition, now, 10).await.map(drop),
        5 => store.claim(partition, now, now.after(Span::from_secs(9)), 10).await.map(drop),
        6 => store.look(&[partition], now).await.map(drop),
        7 => store.outbox(partition, Queue::Records, None, 10).await.map(drop),
        8 => store.scan(None, 10).await.map(drop),
        9 => store.indexes(account, &session).await.map(drop),
        10 => store.lease("what", "owner", Span::from_secs(9)).await.map(drop),
        11 => store.reference(ReferenceKind::Subscriber, "one").await.map(drop),
        12 => store.put_reference(ReferenceKind::Subscriber, "one", Version::ABSENT, Some("x".into())).await,
        13 => store.list(&List::OpenSessions(partition), None, 10).await.map(drop),
        _ => store.ready().await,
    }
}

struct Answer {
    octets: Box<[u8]>,
    ends: bool,
}

type Says = Arc<Mutex<Option<Answer>>>;

async fn accept(listener: TcpListener, says: Says) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(converse(socket, Arc::clone(&says)));
    }
}

/// Answers commands as a Redis does that was empty, until there is something else to say.
async fn converse(mut socket: TcpStream, says: Says) {
    let mut received = Vec::new();
    while socket.read_buf(&mut received).await.is_ok_and(|octets| octets > 0) {
        let soup = says.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|answer| {
            let octets = answer.octets.clone();
            (octets, answer.ends)
        });
        if let Some((octets, ends)) = soup {
            let _may_be_gone = socket.write_all(&octets).await;
            if ends {
                return;
            }
            received.clear();
            continue;
        }
        while let Some((command, length)) = command(&received) {
            received.drain(..length);
            if socket.write_all(of_an_empty_redis(&command)).await.is_err() {
                return;
            }
        }
    }
}

fn of_an_empty_redis(command: &[String]) -> &'static [u8] {
    let is = |at: usize, word: &str| command.get(at).is_some_and(|found| found == word);
    match command.first().map(String::as_str) {
        Some("HGET") => b"$-1\r\n",
        Some("HGETALL") => b"*0\r\n",
        Some("FUNCTION") if is(1, "LIST") => b"*0\r\n",
        Some("FUNCTION") => b"$6\r\nnchf_1\r\n",
        Some("HMGET") => b"*2\r\n$16\r\n0123456789abcdef\r\n$36\r\n6a1c0e52-7f0b-4a7e-9f3e-0d2c5b1a4e88\r\n",
        Some("HSET" | "HSETNX" | "EVAL" | "DEL") => b":1\r\n",
        _ => b"+OK\r\n",
    }
}

/// The first of the commands that have come whole, and its length.
fn command(received: &[u8]) -> Option<(Vec<String>, usize)> {
    let mut at = 0;
    let number = |mark: u8, at: &mut usize| -> Option<usize> {
        let rest = &received[*at..];
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        assert_eq!(rest[0], mark, "a store speaks in lists of texts");
        *at += end + 2;
        std::str::from_utf8(&rest[1..end]).unwrap().parse().ok()
    };
    let words = number(b'*', &mut at)?;
    let mut command = Vec::with_capacity(words);
    for _ in 0..words {
        let length = number(b'$', &mut at)?;
        let word = received.get(at..at + length)?;
        received.get(at + length..at + length + 2)?;
        command.push(String::from_utf8_lossy(word).into_owned());
        at += length + 2;
    }
    Some((command, at))
}
