//! What many tests need: a charging function in memory, behind its real router.

pub mod world;

pub use world::{Answer, World};
