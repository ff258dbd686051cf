//! A network function that receives notifications, and peers that answer everything wrong.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nchf::notify::resolve::Resolve;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};
use tokio_rustls::TlsAcceptor;

pub const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    /// With scheme and authority, as HTTP/2 carries them.
    pub uri: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What the network function says.
#[derive(Clone, Debug)]
pub enum Says {
    Status(u16),
    With(u16, &'static str),
    Header(u16, &'static str, String),
    /// This many octets.
    Long(u64),
    /// An octet now and then, for ever.
    Drips,
    Never,
    /// After the gate was opened.
    Gated(u16),
}

/// A network function behind a real socket. It ends when this is dropped.
pub struct Stub {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    acceptor: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    received: Mutex<Vec<Received>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
    gate: Notify,
    leave: Notify,
}

impl Stub {
    pub async fn start(says: impl Fn(&Received) -> Says + Send + Sync + 'static) -> Self {
        Self::serve(LOCAL, None, says).await
    }

    pub async fn always(says: Says) -> Self {
        Self::start(move |_| says.clone()).await
    }

    pub async fn serve(
        ip: IpAddr,
        tls: Option<TlsAcceptor>,
        says: impl Fn(&Received) -> Says + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, says) = (Arc::new(Seen::default()), Arc::new(says));
        let shared = Arc::clone(&seen);
        let acceptor = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (seen, says, tls) = (Arc::clone(&shared), Arc::clone(&says), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(socket, &seen, says).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                converse(socket, &seen, says).await;
                            }
                        }
                    }
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen, acceptor }
    }

    pub fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.seen.received.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    pub fn under_way(&self) -> usize {
        self.seen.under_way.load(Ordering::SeqCst)
    }

    pub fn under_way_max(&self) -> usize {
        self.seen.under_way_max.load(Ordering::SeqCst)
    }

    pub fn open_gate(&self) {
        self.seen.gate.notify_waiters();
    }

    /// Ends all connections with a GOAWAY and serves new ones.
    pub fn leave(&self) {
        self.seen.leave.notify_waiters();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn converse<S>(socket: S, seen: &Arc<Seen>, says: Arc<impl Fn(&Received) -> Says + Send + Sync + 'static>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let leave = seen.leave.notified();
    let service = {
        let seen = Arc::clone(seen);
        service_fn(move |request| answer(Arc::clone(&seen), Arc::clone(&says), request))
    };
    // Nothing but HTTP/2 with prior knowledge.
    let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection, leave);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = leave => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}

async fn answer(
    seen: Arc<Seen>,
    says: Arc<impl Fn(&Received) -> Says>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let (head, body) = request.into_parts();
    let received = Received {
        method: head.method.to_string(),
        uri: head.uri.to_string(),
        version: head.version,
        headers: head.headers,
        body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
    };
    let says = says(&received);
    seen.received.lock().unwrap().push(received);
    let under_way = UnderWay::begin(&seen);
    let response = |status: u16, body| Response::builder().status(status).body(body).unwrap();
    Ok(match says {
        Says::Status(status) => response(status, Answer::Octets(0)),
        Says::With(status, text) => response(status, Answer::Text(Bytes::from_static(text.as_bytes()))),
        Says::Header(status, name, value) => {
            let mut response = response(status, Answer::Octets(0));
            response.headers_mut().insert(name, value.parse().unwrap());
            response
        }
        Says::Long(octets) => response(200, Answer::Octets(octets)),
        Says::Drips => response(200, Answer::Drips(Box::pin(sleep(Duration::ZERO)))),
        Says::Never => {
            let _held = under_way;
            std::future::pending().await
        }
        Says::Gated(status) => {
            seen.gate.notified().await;
            response(status, Answer::Octets(0))
        }
    })
}

struct UnderWay(Arc<Seen>);

impl UnderWay {
    fn begin(seen: &Arc<Seen>) -> Self {
        let now = seen.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        seen.under_way_max.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(seen))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

enum Answer {
    Text(Bytes),
    Octets(u64),
    Drips(Pin<Box<Sleep>>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Self::Text(text) if text.is_empty() => None,
            Self::Text(text) => Some(std::mem::take(text)),
            Self::Octets(0) => None,
            Self::Octets(left) => {
                let now = (*left).min(16_384);
                *left -= now;
                Some(Bytes::from(vec![b' '; usize::try_from(now).unwrap()]))
            }
            Self::Drips(pause) => {
                std::task::ready!(pause.as_mut().poll(cx));
                *pause = Box::pin(sleep(Duration::from_millis(20)));
                Some(Bytes::from_static(b" "))
            }
        };
        Poll::Ready(next.map(|octets| Ok(Frame::data(octets))))
    }
}

// ---- Peers that are no network functions ----

/// Does `treat` to every connection.
pub struct Peer {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    acceptor: JoinHandle<()>,
}

impl Peer {
    pub async fn start<F>(treat: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let acceptor = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(treat(socket));
            }
        });
        Self { address, accepted, acceptor }
    }

    /// Says `octets` when it has heard something, and nothing else.
    pub async fn saying(octets: &'static [u8]) -> Self {
        Self::start(async |mut socket: TcpStream| {
            let _heard = socket.read(&mut [0; 1024]).await;
            let _said = socket.write_all(octets).await;
            sleep(Duration::from_secs(60)).await;
        })
        .await
    }

    pub fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// An address on which nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind((LOCAL, 0)).await.unwrap().local_addr().unwrap()
}

// ---- Names ----

/// Answers each name with its lists in turn, the last one again and again; never answers for `silent.example`.
#[derive(Default)]
pub struct Names {
    answers: Mutex<HashMap<&'static str, Vec<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Names {
    pub fn of(name: &'static str, answers: &[&[&str]]) -> Arc<Self> {
        let list = |addresses: &&[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        let answers = HashMap::from([(name, answers.iter().map(list).collect())]);
        Arc::new(Self { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if host == "silent.example" {
            std::future::pending::<()>().await;
        }
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}
