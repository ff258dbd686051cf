//! From a host's name to its addresses.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

/// Finds the addresses of a host. Asked once for each connection.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver, which also reads what looks like an address only at second sight, such as `2130706433`.
pub struct SystemResolver {
    under_way: Arc<Semaphore>,
}

/// Look-ups at once. Each holds a thread until the system gives up, long after the call that asked for it.
const LOOK_UPS_MAX: usize = 32;

impl Default for SystemResolver {
    fn default() -> Self {
        Self { under_way: Arc::new(Semaphore::new(LOOK_UPS_MAX)) }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.under_way).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let look_up = tokio::task::spawn_blocking(move || {
            let _counted = permit;
            let found = (host.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        });
        look_up.await.map_err(io::Error::other)?
    }
}
