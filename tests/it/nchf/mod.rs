//! The charging services through their router: what consumers see.

mod errors;
mod replays;
mod sessions;
