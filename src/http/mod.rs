//! HTTP: the only place that knows axum, utoipa and JSON names.

pub mod nchf;
pub mod openapi;
