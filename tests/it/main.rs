//! The integration tests: one binary, so that they link once.

mod nchf;
mod store;
mod support;
