//! What the model says by itself. That it is what servers say is for `differential`.

use bytes::Bytes;

use super::*;

pub const LIBRARY: &str = include_str!("../../../migrations-redis/0001_commit_function.lua");

pub fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> Vec<Bytes> {
    words.into_iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn ask(deployment: &mut Deployment, session: &mut Session, command: &str) -> Reply {
    match deployment.execute(session, words(command.split(' ')), 1_000_000) {
        Outcome::Reply(reply) => reply,
        other => panic!("{command}: {other:?}"),
    }
}

fn standalone(flavour: Flavour) -> (Deployment, Session) {
    let mut deployment = Deployment::new(Settings::new(Topology::Standalone, flavour));
    let mut session = deployment.connect(ServerId(0)).unwrap();
    let load = ["FUNCTION", "LOAD", LIBRARY];
    assert_eq!(deployment.execute(&mut session, words(load), 0), Outcome::Reply(Reply::text("nchf_1")));
    (deployment, session)
}

#[test]
fn commands_come_in_any_pieces() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\n*1\r\n$4\r\nPI\r\n\r\n";
    for size in 1..bytes.len() {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(size) {
            decoder.push(piece);
            while let Some(command) = decoder.next().unwrap() {
                found.push(command);
            }
        }
        assert_eq!(found, [words(["GET", "k"]), words(["PI\r\n"])]);
    }
}

#[test]
fn the_functions_work() {
    let (mut of, mut session) = standalone(Flavour::Redis70);
    let reply = of.execute(
        &mut session,
        vec![
            "FCALL",
            "nchf_commit_1",
            "2",
            "{a}a",
            "{a}j",
            "v\0\x01",
            "",
            "A\0\x02S\0\x01",
            "entry",
            "\0\0\0\0\0\0\0\x01doc",
        ]
        .into_iter()
        .map(Bytes::from)
        .collect(),
        0,
    );
    assert_eq!(reply, Outcome::Reply(Reply::Int(1)));
    assert_eq!(ask(&mut of, &mut session, "LRANGE {a}j 0 -1"), Reply::texts(["entry"]));
    assert_eq!(ask(&mut of, &mut session, "GET {a}a"), Reply::text("\0\0\0\0\0\0\0\x01doc"));
    assert_eq!(ask(&mut of, &mut session, "ZADD t 5 a 6 b 7 c"), Reply::Int(3));
    assert_eq!(ask(&mut of, &mut session, "FCALL nchf_claim_1 1 t 6 9 10"), Reply::texts(["a", "5", "b", "6"]));
    assert_eq!(ask(&mut of, &mut session, "FCALL_RO nchf_page_1 1 t 7 c 2"), Reply::texts(["a", "9", "b", "9"]));
    assert_eq!(of.unmodelled(), [""; 0]);
}
