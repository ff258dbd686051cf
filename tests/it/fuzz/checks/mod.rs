//! What must hold whatever bytes come: one function for each fuzz target, which panics where something does not hold.
//!
//! `fuzz/` and the tests run the same functions. Beside the core's world in `tests/it/scenarios` they need nothing of the
//! tests.

mod config;
mod decide;
mod http;
mod json;
mod record;
mod request;
mod stored;
mod texts;
mod tlv;

pub use config::config;
pub use decide::decide;
pub use http::http;
pub use record::record;
pub use request::request;
pub use stored::stored;
pub use texts::texts;
