//! The integration tests: one binary, so that they link once.

mod cdr_file;
mod nchf;
mod openapi;
mod payloads;
mod scenarios;
mod server;
mod store;
mod support;
mod tidy;
