//! nchf, a 5G charging function.

pub mod bench;
pub mod charging;
pub mod clock;
pub mod http;
pub mod store;
