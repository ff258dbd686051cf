//! The only place that knows axum and hyper.

pub mod health;
pub mod problem;
