//! How a server is connected to: as bb8 does it, or over a network of another's making.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::ManageConnection;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisError};

use crate::network::Network;

/// Boxed, because it is rare and a deep future.
pub fn connect(
    network: Option<&Arc<dyn Network>>,
    info: ConnectionInfo,
) -> BoxFuture<'_, Result<MultiplexedConnection, RedisError>> {
    async move {
        match network {
            None => RedisConnectionManager::new(info)?.connect().await,
            Some(network) => connect_over(&**network, &info).await,
        }
    }
    .boxed()
}

/// The task that drives the connection ends with it.
async fn connect_over(network: &dyn Network, info: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
    let socket = network.connect(address(info.addr())?).await?;
    let (connection, driver) =
        MultiplexedConnection::new_with_config(info.redis_settings(), socket, AsyncConnectionConfig::new()).await?;
    tokio::spawn(driver);
    Ok(connection)
}

fn address(of: &ConnectionAddr) -> io::Result<SocketAddr> {
    match of {
        ConnectionAddr::Tcp(host, port) if let Ok(ip) = host.parse::<IpAddr>() => Ok(SocketAddr::new(ip, *port)),
        _ => Err(io::Error::other(format!("{of} is no IP address, and this network knows no names"))),
    }
}
