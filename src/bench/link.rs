//! Connections to the target, and what can go wrong with a request on one.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{HeaderMap, LOCATION, RETRY_AFTER};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, join};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Error;
use super::message::Wrong;

/// Real consumers give up after a few seconds; what takes longer counts as no answer.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Answers are some kilobytes; what is longer than this is not read.
const ANSWER_OCTETS_MAX: usize = 1024 * 1024;
/// Room for what one connection sends at once: 32 requests of 2 kB.
const GATHERED_OCTETS: usize = 64 * 1024;

/// Where to connect, and what URLs begin with.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) authority: String,
    pub(super) root: String,
}

impl Target {
    pub(super) fn new(flag: &'static str, uri: &Uri) -> Result<Self, Error> {
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(Error::Target { flag, uri: uri.clone() });
        };
        let root = format!("http://{authority}{}", uri.path().trim_end_matches('/'));
        let port = authority.port_u16().unwrap_or(80);
        let target = Self { authority: format!("{}:{port}", authority.host()), root };
        // A target that is not there is said at once instead of counted for the whole time.
        std::net::TcpStream::connect(&target.authority)
            .map_err(|source| Error::Connect { target: uri.clone(), source })?;
        Ok(target)
    }
}

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// A connection that several streams share and whoever finds it closed opens again.
pub(super) struct Link {
    authority: String,
    sender: Mutex<Option<Sender>>,
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn location(&self) -> Option<&str> {
        self.headers.get(LOCATION)?.to_str().ok()
    }

    /// The server says that it did nothing, and when to come again.
    pub(super) fn is_refusal(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE && self.headers.contains_key(RETRY_AFTER)
    }
}

impl Link {
    pub(super) fn new(authority: String) -> Self {
        Self { authority, sender: Mutex::new(None) }
    }

    /// Sends a request and waits for the whole answer. `mine` keeps the caller's handle on the connection.
    pub(super) async fn ask(&self, mine: &mut Option<Sender>, request: Request<Full<Bytes>>) -> Result<Answer, Fault> {
        timeout(ANSWER_DEADLINE, self.ask_for_ever(mine, request)).await.unwrap_or(Err(Fault::TimedOut))
    }

    async fn ask_for_ever(&self, mine: &mut Option<Sender>, request: Request<Full<Bytes>>) -> Result<Answer, Fault> {
        let sender = match mine {
            Some(sender) if !sender.is_closed() => sender,
            closed => closed.insert(self.sender().await?),
        };
        let response = sender.send_request(request).await.map_err(|_| Fault::Lost)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_OCTETS_MAX).collect().await;
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.map_err(|_| Fault::Lost)?.to_bytes() })
    }

    async fn sender(&self) -> Result<Sender, Fault> {
        let mut shared = self.sender.lock().await;
        match &*shared {
            Some(sender) if !sender.is_closed() => Ok(sender.clone()),
            _ => {
                let sender = connect(&self.authority).await?;
                Ok(shared.insert(sender).clone())
            }
        }
    }
}

async fn connect(authority: &str) -> Result<Sender, Fault> {
    let socket = TcpStream::connect(authority).await.map_err(Fault::Connect)?;
    socket.set_nodelay(true).map_err(Fault::Connect)?;
    let (from_target, to_target) = socket.into_split();
    let (gather, gathered) = duplex(GATHERED_OCTETS);
    tokio::spawn(send_gathered(gathered, to_target));
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(join(from_target, gather))).await;
    let (sender, connection) = handshake.map_err(|_| Fault::Lost)?;
    tokio::spawn(async move {
        // The streams on it see the error too, and count it.
        let _ended = connection.await;
    });
    Ok(sender)
}

/// What the streams of a connection have to send at one time leaves in one call, headers and bodies. h2 alone would make
/// a call for each of these, and each would be a packet that wakes the target.
async fn send_gathered(mut gathered: DuplexStream, mut to_target: OwnedWriteHalf) -> io::Result<()> {
    let mut octets = BytesMut::with_capacity(GATHERED_OCTETS);
    while gathered.read_buf(&mut octets).await? > 0 {
        // Until all others have had their turn: bodies follow their headers one turn later.
        yield_now().await;
        let _rest = gathered.read_buf(&mut octets).now_or_never();
        to_target.write_all_buf(&mut octets).await?;
        octets.reserve(GATHERED_OCTETS);
    }
    Ok(())
}

/// Why a request did not get the answer it should have.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("cannot connect: {}", .0.kind())]
    Connect(io::Error),
    #[error("connection or stream ended before the answer")]
    Lost,
    #[error("no answer within {} s", ANSWER_DEADLINE.as_secs())]
    TimedOut,
    /// Nothing was done: 503 with `Retry-After`. Not a wrong answer, but less than all.
    #[error("refused")]
    Refused,
    #[error("status {0}")]
    Status(StatusCode),
    #[error("created without a Location of its own")]
    NoLocation,
    #[error(transparent)]
    Wrong(#[from] Wrong),
}
