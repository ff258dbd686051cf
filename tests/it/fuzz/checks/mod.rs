//! What must hold whatever bytes come: one function for each fuzz target, which panics where something does not hold.
//!
//! `fuzz/` and the tests run the same functions. Beside the core's world in `tests/it/scenarios` they need nothing of the
//! tests.

mod config;
mod decide;
mod frames;
mod http;
mod json;
mod panics;
mod record;
mod recover;
mod replies;
mod request;
mod stored;
mod texts;
mod timers;
mod tlv;

pub use config::config;
pub use decide::decide;
pub use frames::frames;
pub use http::http;
pub use record::record;
pub use recover::recover;
pub use replies::replies;
pub use request::request;
pub use stored::stored;
pub use texts::texts;
pub use timers::timers;
