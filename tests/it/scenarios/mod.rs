//! Scenarios: the rules of charging as tables, played against the pure core. One table for each rule.
//!
//! The language is described in [`table`]. What no table can list, because it holds for every schedule of requests,
//! is in [`properties`].

mod between;
pub mod demo;
mod events;
mod final_units;
mod partial;
mod properties;
mod quotas;
mod rating;
mod records;
mod replays;
mod results;
mod sessions;
mod sizes;
mod stored;

mod table;
pub mod world;

use table::{check, play};
