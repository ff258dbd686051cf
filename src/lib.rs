//! nchf, a 5G charging function: stateless instances over one store.
//!
//! A charging request is one pure decision over the account and the session, committed in one atomic step. Reading
//! order: [`charging::decide`] (what a request means), [`store`] (the contract that keeps what was decided),
//! [`transact`] (load, decide, commit, again on conflict), [`http`] (everything that knows HTTP and JSON),
//! [`serve`] (how the parts become a running instance). `ARCHITECTURE.md` has the map and the invariants.

pub mod app;
pub mod audit;
pub mod bench;
pub mod cdr_file;
pub mod charging;
pub mod clock;
pub mod config;
pub mod demo;
pub mod directory;
pub mod floor;
pub mod http;
pub mod ledger;
pub mod network;
pub mod notify;
pub mod random;
pub mod request;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod transact;
pub mod turns;
pub mod workers;
