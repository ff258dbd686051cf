//! Bytes as frames of HTTP/2, sent to the server through a real socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::thread::ThreadId;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::any;
use nchf::http::server::{Server, Settings, Workers};

use super::panics;

/// Longer than any deadline of the server below, and by far longer than what is asked for takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Octets of answers to one conversation: bodies of all its requests, and what frames they come in.
const ANSWERS_MAX: u64 = 1 << 20;

/// A peer sends what the bytes say (see [`conversation`]) and then no more. Its connection ends, with answers or without;
/// somebody else is served meanwhile, and nothing panics.
pub fn frames(data: &[u8]) {
    let hall = Hall::open();
    let mut peer = hall.connect();
    // Whoever has had enough closes, in the midst of it or after it.
    let _may_be_cut = peer.write_all(&conversation(data));
    let _may_be_gone = peer.shutdown(Shutdown::Write);
    hall.serves_others();
    let mut answers = Vec::new();
    match Read::by_ref(&mut peer).take(ANSWERS_MAX).read_to_end(&mut answers) {
        Ok(_) => assert!((answers.len() as u64) < ANSWERS_MAX, "answers without end"),
        Err(error) if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) => {}
        Err(error) => panic!("the connection does not end: {error}"),
    }
    assert!(!panics::happened_on(hall.worker), "the server panicked");
}

/// A server that answers with what it was sent, for as long as the process lives.
struct Hall {
    address: SocketAddr,
    worker: ThreadId,
    _workers: Workers,
    _server: Server,
}

impl Hall {
    fn open() -> &'static Self {
        static HALL: OnceLock<Hall> = OnceLock::new();
        HALL.get_or_init(|| {
            panics::are_watched();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let workers = Workers::start(1).unwrap();
                let worker = workers.run_on_first(async { std::thread::current().id() }).await;
                let router = Router::new().route("/", any(async |body: Bytes| body));
                let settings = Settings { body_deadline: Duration::from_millis(500), ..Settings::default() };
                let here = ([127, 0, 0, 1], 0).into();
                let server = workers.listen(here, None, settings, vec![router]).await.unwrap();
                Self { address: server.address(), worker, _workers: workers, _server: server }
            })
        })
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("the server accepts");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn serves_others(&self) {
        let mut other = self.connect();
        other
            .write_all(b"POST / HTTP/1.1\r\nhost: nchf\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
            .expect("another peer may send");
        let mut answer = String::new();
        other.read_to_string(&mut answer).expect("another peer is answered");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
}

/// What a peer sends: the preface and its settings, then pieces as the bytes say. The first byte leaves the preface out,
/// if it is `-`. Each piece begins with a letter:
///
/// - `f`, type, flags, stream, length: a frame with as many of the next bytes
/// - `F`, the same with three octets of a length that need not be true: a frame of the 8 next bytes
/// - `g`, stream: a whole request; `h`, stream: one whose body is to follow
/// - `d`, stream, length: some of such a body; `e`, stream: its end
/// - `r`, stream: its reset
/// - any other letter: a length, and so many of the next bytes as they are
pub fn conversation(data: &[u8]) -> Vec<u8> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    // By numbers of HPACK's static table: GET or POST, http, /; then the authority.
    const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'n'];
    const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'n'];
    let mut bytes = Next(data);
    let mut sent = Vec::new();
    if data.first() == Some(&b'-') {
        bytes.one();
    } else {
        sent.extend_from_slice(PREFACE);
        frame(&mut sent, SETTINGS, 0, 0, &[]);
    }
    while let Some(letter) = bytes.one() {
        match letter {
            b'f' => {
                let [kind, flags, stream, length] = bytes.some();
                frame(&mut sent, kind, flags, stream, bytes.many(length));
            }
            b'F' => {
                let [kind, flags, stream, high, middle, low] = bytes.some();
                sent.extend([high, middle, low, kind, flags, 0, 0, 0, stream]);
                sent.extend_from_slice(bytes.many(8));
            }
            b'g' => frame(&mut sent, HEADERS, END_HEADERS | END_STREAM, bytes.some::<1>()[0], GET),
            b'h' => frame(&mut sent, HEADERS, END_HEADERS, bytes.some::<1>()[0], POST),
            b'd' => {
                let [stream, length] = bytes.some();
                frame(&mut sent, DATA, 0, stream, bytes.many(length));
            }
            b'e' => frame(&mut sent, DATA, END_STREAM, bytes.some::<1>()[0], &[]),
            b'r' => frame(&mut sent, RST_STREAM, 0, bytes.some::<1>()[0], &[0, 0, 0, 8]),
            _ => {
                let [length] = bytes.some();
                sent.extend_from_slice(bytes.many(length));
            }
        }
    }
    sent
}

fn frame(sent: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    let length = u8::try_from(payload.len()).expect("a payload is as long as a byte says");
    sent.extend([0, 0, length, kind, flags, 0, 0, 0, stream]);
    sent.extend_from_slice(payload);
}

struct Next<'a>(&'a [u8]);

impl<'a> Next<'a> {
    fn one(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Zeros where the bytes end.
    fn some<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.one().unwrap_or(0))
    }

    fn many(&mut self, length: u8) -> &'a [u8] {
        let (many, rest) = self.0.split_at(usize::from(length).min(self.0.len()));
        self.0 = rest;
        many
    }
}
