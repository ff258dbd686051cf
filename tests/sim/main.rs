//! The simulator: one binary, so that its parts link once.

#[allow(dead_code, unused_imports, reason = "used by the parts beside it")]
mod redis;
