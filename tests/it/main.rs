//! The integration tests: one binary, so that they link once.

mod admin;
mod audit;
mod bench;
mod cdr_file;
mod chaos;
mod exporter;
mod fuzz;
mod metrics;
mod nchf;
mod notify;
mod openapi;
mod outage;
mod overload;
mod payloads;
mod processes;
mod program;
mod scenarios;
mod server;
mod store;
mod support;
mod tidy;
mod together;
mod workers;
