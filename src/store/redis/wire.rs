//! How a server is connected to: as bb8 does it, through TLS, or over a network of another's making.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::ManageConnection;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Settings;
use super::address::is_encrypted;
use crate::network::{Network, Socket};
use crate::store::{Applied, Error};
use crate::tls::{self, Authorities};

/// Over what the servers of a store are reached.
#[derive(Clone)]
pub enum Wire {
    Tcp,
    /// All servers alike, sentinels too.
    Tls(TlsConnector),
    Other(Arc<dyn Network>),
}

impl Wire {
    /// # Errors
    ///
    /// Certificates that cannot be read, or TLS over a network that has none.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        match (&settings.network, is_encrypted(&settings.url)) {
            (None, false) => Ok(Self::Tcp),
            (Some(network), false) => Ok(Self::Other(Arc::clone(network))),
            (Some(_), true) => Err(Error::unavailable(Applied::No, "this network knows no TLS")),
            (None, true) => tls::connector(settings.ca.as_deref(), settings.identity.as_ref(), &[])
                .map(Self::Tls)
                .map_err(|error| Error::unavailable(Applied::No, error)),
        }
    }

    /// Boxed, because it is rare and a deep future.
    pub fn connect(&self, info: ConnectionInfo) -> BoxFuture<'_, Result<MultiplexedConnection, RedisError>> {
        async move {
            match self {
                Self::Tcp => RedisConnectionManager::new(info)?.connect().await,
                Self::Tls(connector) => begin(encrypted(connector, info.addr()).await?, &info).await,
                Self::Other(network) => begin(network.connect(address(info.addr())?).await?, &info).await,
            }
        }
        .boxed()
    }
}

/// The task that drives the connection ends with it.
async fn begin(socket: Box<dyn Socket>, info: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
    let (connection, driver) =
        MultiplexedConnection::new_with_config(info.redis_settings(), socket, AsyncConnectionConfig::new()).await?;
    tokio::spawn(driver);
    Ok(connection)
}

async fn encrypted(connector: &TlsConnector, to: &ConnectionAddr) -> io::Result<Box<dyn Socket>> {
    let ConnectionAddr::Tcp(host, port) = to else { return Err(io::Error::other(format!("{to} has no TLS"))) };
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    let socket = TcpStream::connect((host.as_str(), *port)).await?;
    socket.set_nodelay(true)?;
    let stream = connector.connect(name, socket).await.map_err(|error| {
        let reason = tls::failure(&error, Authorities::Store);
        reason.map_or(error, |reason| io::Error::other(format!("TLS: {reason}")))
    })?;
    Ok(Box::new(stream))
}

fn address(of: &ConnectionAddr) -> io::Result<SocketAddr> {
    match of {
        ConnectionAddr::Tcp(host, port) if let Ok(ip) = host.parse::<IpAddr>() => Ok(SocketAddr::new(ip, *port)),
        _ => Err(io::Error::other(format!("{of} is no IP address, and this network knows no names"))),
    }
}
