//! The only place that knows axum and hyper.

pub mod health;
pub mod layers;
pub mod problem;
pub mod server;
