//! A deterministic simulation of everything: production instances over a modelled store, network, clocks and disks, with
//! consumers of every kind, faults of every kind, and an auditor with books of its own. A run follows from its seed.
//!
//! Start reading at `world` (one run), then `faults` and `options` (what goes wrong), `auditor` (what must hold), and
//! `seeds` (the tests).

mod arguments;
mod auditor;
#[path = "../it/support/behind.rs"]
mod behind;
mod chance;
mod consumer;
#[path = "../it/support/disk.rs"]
mod disk;
mod faults;
mod ice;
mod instance;
mod mutant;
mod network;
mod options;
mod redis;
mod seeds;
#[path = "../it/support/splitmix.rs"]
mod splitmix;
mod store;
mod world;
