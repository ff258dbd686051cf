//! How connections to others come about, for whoever puts another network in the place of the system's.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Both directions of a connection.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for S {}

/// Opens connections.
#[async_trait]
pub trait Network: Debug + Send + Sync + 'static {
    /// Dropping the future leaves nothing behind.
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Socket>>;
}

/// The system's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Socket>> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Box::new(socket))
    }
}
