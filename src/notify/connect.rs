//! From an origin to an HTTP/2 connection: resolve, judge, connect to what was judged, TLS, preface.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::outcome::{Denial, Failure};
use super::policy::Policy;
use super::resolve::Resolve;
use super::settings::ConnectionLimits;
use super::target::Origin;
use crate::network::{Network, Socket};
use crate::tls::{self, Authorities, NoHttp2};

pub(super) type Sender = SendRequest<Full<Bytes>>;
pub(super) type Driver = http2::Connection<TokioIo<Heard>, Full<Bytes>, Tasks>;

pub(super) struct Connector {
    pub policy: Policy,
    pub resolver: Arc<dyn Resolve>,
    pub network: Arc<dyn Network>,
    pub tls: TlsConnector,
    pub limits: ConnectionLimits,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    Denied(Denial),
    Failed(Failure),
}

/// A connection that nobody drives yet.
pub(super) struct Opened {
    pub sender: Sender,
    pub driver: Driver,
    pub tasks: Tasks,
    pub answers_http1: Arc<AtomicBool>,
}

/// Addresses of one name that are tried. More than a few only divide the time there is.
const ADDRESSES_MAX: usize = 4;
/// What a stream and a connection may have under way unread. A little more than an answer may be long: whatever a peer
/// sends beyond it stays with the peer.
const STREAM_WINDOW_OCTETS: u32 = 32 * 1024;
const CONNECTION_WINDOW_OCTETS: u32 = 256 * 1024;
/// Longest header list of an answer.
const HEADER_OCTETS_MAX: u32 = 16 * 1024;

impl Connector {
    pub(super) async fn connect(&self, origin: &Origin, deadline: Instant) -> Result<Opened, NoConnection> {
        let addresses = self.addresses(origin).await?;
        let socket = self.connect_to(&addresses, deadline).await.map_err(NoConnection::Failed)?;
        let socket: Box<dyn Socket> = match origin.is_tls() {
            false => socket,
            true => Box::new(self.secure(origin, socket).await.map_err(NoConnection::Failed)?),
        };
        let answers_http1 = Arc::new(AtomicBool::new(false));
        let socket = Heard { socket, first: Vec::new(), answers_http1: Arc::clone(&answers_http1) };
        let tasks = Tasks::default();
        let handshake = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_OCTETS)
            .initial_connection_window_size(CONNECTION_WINDOW_OCTETS)
            .max_header_list_size(HEADER_OCTETS_MAX)
            .keep_alive_interval(self.limits.ping_interval)
            .keep_alive_timeout(self.limits.ping_deadline)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(socket));
        let (sender, driver) = handshake.await.map_err(|_| NoConnection::Failed(Failure::Lost))?;
        Ok(Opened { sender, driver, tasks, answers_http1 })
    }

    /// Those of the host's addresses that may be reached.
    async fn addresses(&self, origin: &Origin) -> Result<Vec<SocketAddr>, NoConnection> {
        let found = match origin.literal() {
            Some(ip) => vec![ip],
            None => self.resolver.resolve(origin.host()).await.unwrap_or_default(),
        };
        let mut denied = None;
        let mut allowed = Vec::with_capacity(found.len().min(ADDRESSES_MAX));
        for ip in found {
            let address = socket_address(ip, origin.port());
            match self.policy.judge(origin.host(), address) {
                Ok(()) if allowed.len() < ADDRESSES_MAX && !allowed.contains(&address) => allowed.push(address),
                Ok(()) => {}
                Err(denial) => denied = denied.or(Some(denial)),
            }
        }
        match denied {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(denial) => Err(NoConnection::Denied(denial)),
            None => Err(NoConnection::Failed(Failure::NameUnknown)),
        }
    }

    async fn secure(
        &self,
        origin: &Origin,
        socket: Box<dyn Socket>,
    ) -> Result<tokio_rustls::client::TlsStream<Box<dyn Socket>>, Failure> {
        let name = ServerName::try_from(origin.host().to_owned());
        let name = name.map_err(|_| Failure::Tls("no certificate can name this host"))?;
        tls::over(&self.tls, name, socket).await.map_err(|failure| match failure {
            NoHttp2::NotAgreed => Failure::NotHttp2,
            NoHttp2::Handshake(error) => tls::failure(&error, Authorities::Notify).map_or(Failure::Lost, Failure::Tls),
        })
    }

    /// The first address that answers, each given an equal share of the time that is left.
    async fn connect_to(&self, addresses: &[SocketAddr], deadline: Instant) -> Result<Box<dyn Socket>, Failure> {
        let mut failure = Failure::NameUnknown;
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(1);
            let now = Instant::now();
            let share = now + deadline.saturating_duration_since(now) / left;
            failure = match timeout_at(share, self.network.connect(*address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => Failure::Connect(error.kind()),
                Err(_) => Failure::TimedOut,
            };
        }
        Err(failure)
    }
}

/// What is judged is what is connected to: an IPv4 address in its own form, without a scope or a flow.
fn socket_address(ip: IpAddr, port: u16) -> SocketAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, 0).into(),
    }
}

/// A socket that listens to the first words of its peer: an answer in HTTP/1 tells more than the error that HTTP/2 makes
/// of it.
pub(super) struct Heard {
    socket: Box<dyn Socket>,
    first: Vec<u8>,
    answers_http1: Arc<AtomicBool>,
}

const HTTP1: &[u8] = b"HTTP/1.";

impl AsyncRead for Heard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buf);
        if this.first.len() < HTTP1.len() {
            this.first.extend(buf.filled()[before..].iter().take(HTTP1.len() - this.first.len()));
            if this.first == HTTP1 {
                this.answers_http1.store(true, Ordering::Relaxed);
            }
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The tasks of one connection. hyper moves the socket into a task of its own, which this can end when the peer does not
/// let it end by itself.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until all have ended by themselves.
    pub(super) async fn ended(&self) {
        std::future::poll_fn(|cx| {
            loop {
                match self.set().poll_join_next(cx) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    pub(super) fn abort(&self) {
        self.set().abort_all();
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut set = self.set();
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }
}
