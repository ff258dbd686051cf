//! The integration tests: one binary, so that they link once.

mod nchf;
mod notify;
mod openapi;
mod payloads;
mod scenarios;
mod server;
mod store;
mod support;
mod tidy;
