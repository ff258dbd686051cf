//! A deterministic simulation of everything: production instances over a modelled store, network, clocks and disks, with
//! consumers of every kind, faults of every kind, and an auditor with books of its own. A run follows from its seed.
//!
//! Start reading at `world` (one run), then `faults` and `options` (what goes wrong), `auditor` (what must hold), and
//! `seeds` (the tests).

// Whole instances are deep futures.
#![recursion_limit = "256"]

mod auditor;
mod chance;
mod consumer;
#[path = "../it/support/disk.rs"]
mod disk;
mod faults;
mod instance;
mod mutant;
mod network;
mod options;
#[allow(dead_code, unused_imports, reason = "it can do more than a run needs")]
mod redis;
mod seeds;
mod store;
mod world;
