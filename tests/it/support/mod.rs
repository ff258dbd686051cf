//! What many tests need: a charging function in memory behind its real router, and the official schemas where they are.

pub mod authority;
pub mod behind;
pub mod disk;
pub mod faulty;
pub mod official;
pub mod splitmix;
pub mod world;

pub use world::{Answer, World};
