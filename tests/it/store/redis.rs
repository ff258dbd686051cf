//! The place of the store on Redis: time passes by waiting.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nchf::charging::time::Span;
use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{Durability, Store};

use super::server::Server;

pub struct Place {
    server: Server,
}

impl Place {
    pub fn redis() -> Self {
        Self { server: Server::redis(&[]) }
    }

    /// `None` where there is no Valkey on this machine.
    pub fn valkey() -> Option<Self> {
        Server::valkey(&[]).map(|server| Self { server })
    }
}

/// What the tests open: patient with a busy machine, and without demands on the server's persistence.
pub fn settings(server: &Server) -> Settings {
    Settings {
        deadline: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        durability: Durability::Memory,
        ..Settings::new(server.url())
    }
}

#[async_trait]
impl super::place::Place for Place {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(RedisStore::open(settings(&self.server)).await.unwrap())
    }

    async fn pass(&self, span: Span) {
        tokio::time::sleep(Duration::from_millis(span.millis().unsigned_abs())).await;
    }
}
