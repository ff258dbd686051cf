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
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, join, split};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::args::Args;
use super::message::Wrong;
use super::{Error, single_threaded};
use crate::tls::{self, Authorities, Identity, NoHttp2, TlsError};

/// Real consumers give up after a few seconds; what takes longer counts as no answer.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Answers are some kilobytes; what is longer than this is not read.
const ANSWER_OCTETS_MAX: usize = 1024 * 1024;
/// Room for what one connection sends at once: 32 requests of 2 kB.
const GATHERED_OCTETS: usize = 64 * 1024;

/// Where to connect, and what URLs begin with.
#[derive(Clone)]
pub(super) struct Target {
    authority: String,
    tls: Option<Tls>,
    pub(super) root: String,
}

/// TLS towards a target, and whom its certificate must name.
#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Both ways of a connection; what goes through them is large against a call that is not known when this is compiled.
type Ways = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    #[error("{}", .0.kind())]
    Socket(#[from] io::Error),
    #[error("{0}")]
    Tls(&'static str),
    #[error("the target does not agree to HTTP/2")]
    NotHttp2,
}

impl Target {
    pub(super) fn new(flag: &'static str, uri: &Uri, args: &Args) -> Result<Self, Error> {
        let wrong = || Error::Target { flag, uri: uri.clone() };
        let authority = uri.authority().ok_or_else(wrong)?;
        let (scheme, usual_port, tls) = match uri.scheme_str() {
            Some("http") => ("http", 80, None),
            Some("https") => ("https", 443, Some(Tls::new(authority.host(), args).map_err(Error::Tls)?)),
            _ => return Err(wrong()),
        };
        let root = format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'));
        let port = authority.port_u16().unwrap_or(usual_port);
        let target = Self { authority: format!("{}:{port}", authority.host()), tls, root };
        // A target that is not there is said at once instead of counted for the whole time.
        let reached = single_threaded()?.block_on(async { timeout(ANSWER_DEADLINE, target.connect()).await });
        let reached = reached.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        reached.map_err(|source| Error::Connect { target: uri.clone(), source })?;
        Ok(target)
    }

    async fn connect(&self) -> Result<Ways, NoConnection> {
        let socket = TcpStream::connect(&self.authority).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            None => {
                let (from_target, to_target) = socket.into_split();
                Ok((Box::new(from_target), Box::new(to_target)))
            }
            Some(tls) => {
                let (from_target, to_target) = split(tls.over(socket).await?);
                Ok((Box::new(from_target), Box::new(to_target)))
            }
        }
    }
}

impl Tls {
    fn new(host: &str, args: &Args) -> Result<Self, TlsError> {
        let identity = Identity::of(&args.certificate, &args.key);
        let connector = tls::connector(args.ca.as_deref(), identity.as_ref(), &[b"h2"])?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsError::Unnamed { host: host.to_owned() })?;
        Ok(Self { connector, name })
    }

    async fn over(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, NoConnection> {
        tls::over(&self.connector, self.name.clone(), socket).await.map_err(|failure| match failure {
            NoHttp2::NotAgreed => NoConnection::NotHttp2,
            NoHttp2::Handshake(error) => {
                tls::failure(&error, Authorities::Bench).map_or(NoConnection::Socket(error), NoConnection::Tls)
            }
        })
    }
}

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// A connection that several streams share and whoever finds it closed opens again.
pub(super) struct Link {
    target: Target,
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
    pub(super) fn new(target: Target) -> Self {
        Self { target, sender: Mutex::new(None) }
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
                let sender = speak(self.target.connect().await?).await?;
                Ok(shared.insert(sender).clone())
            }
        }
    }
}

async fn speak((from_target, to_target): Ways) -> Result<Sender, Fault> {
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
async fn send_gathered(mut gathered: DuplexStream, mut to_target: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut octets = BytesMut::with_capacity(GATHERED_OCTETS);
    while gathered.read_buf(&mut octets).await? > 0 {
        // Until all others have had their turn: bodies follow their headers one turn later.
        yield_now().await;
        let _rest = gathered.read_buf(&mut octets).now_or_never();
        to_target.write_all_buf(&mut octets).await?;
        // TLS may hold some of it back.
        to_target.flush().await?;
        octets.reserve(GATHERED_OCTETS);
    }
    Ok(())
}

/// Why a request did not get the answer it should have.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("cannot connect: {0}")]
    Connect(#[from] NoConnection),
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
