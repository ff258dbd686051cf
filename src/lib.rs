//! nchf, a 5G charging function.

pub mod app;
pub mod bench;
pub mod charging;
pub mod clock;
pub mod config;
pub mod demo;
pub mod directory;
pub mod http;
pub mod ledger;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod transact;
