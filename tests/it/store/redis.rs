//! The place of the store on Redis: time passes by waiting.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nchf::charging::time::Span;
use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{Durability, Store};

use super::cluster::Clustered;
use super::sentinel::Watched;
use super::server::{Program, Server};

/// Where the servers of one test are.
pub enum Place {
    Single(Server),
    Sentinel(Kept<Watched>),
    Cluster(Kept<Clustered>),
}

impl Place {
    pub fn single(program: Program) -> Self {
        Self::Single(Server::start(program, &[]))
    }

    pub fn sentinel(program: Program) -> Self {
        let watched = Kept::take(&SENTINEL, &program, |program| Watched::new(program, 1, 1, &[]));
        watched.servers[0].empty();
        Self::Sentinel(watched)
    }

    pub fn cluster(program: Program) -> Self {
        let clustered = Kept::take(&CLUSTER, &program, |program| Clustered::new(program, false, &[]));
        clustered.empty();
        Self::Cluster(clustered)
    }
}

/// Several servers, which take seconds to know one another: kept for the next test of the same program. The tests'
/// shells end them with the process.
pub struct Kept<T: 'static> {
    kept: Option<T>,
    program: Program,
    of: &'static Keep<T>,
}

pub type Keep<T> = Mutex<Vec<(Program, T)>>;

static SENTINEL: Keep<Watched> = Keep::new(Vec::new());
static CLUSTER: Keep<Clustered> = Keep::new(Vec::new());

impl<T> Kept<T> {
    pub fn take(of: &'static Keep<T>, program: &Program, new: impl FnOnce(&Program) -> T) -> Self {
        let mut kept = of.lock().unwrap();
        let at = kept.iter().position(|(of, _)| of == program);
        let servers = at.map(|at| kept.swap_remove(at).1);
        drop(kept);
        Self { kept: Some(servers.unwrap_or_else(|| new(program))), program: program.clone(), of }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.kept.as_ref().unwrap()
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.of.lock().unwrap().extend(self.kept.take().map(|servers| (self.program.clone(), servers)));
        }
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
        let settings = match self {
            Self::Single(server) => settings(server),
            Self::Sentinel(watched) => watched.settings(),
            Self::Cluster(clustered) => clustered.settings(),
        };
        Arc::new(RedisStore::open(settings).await.unwrap())
    }

    async fn pass(&self, span: Span) {
        tokio::time::sleep(Duration::from_millis(span.millis().unsigned_abs())).await;
    }
}
