//! HTTP: the only place that knows axum, hyper, utoipa and JSON names.

pub mod admin;
pub mod admission;
pub mod auth;
pub mod health;
pub mod layers;
pub mod nchf;
pub mod openapi;
pub mod operator;
mod path;
pub mod problem;
pub mod server;
