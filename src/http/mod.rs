pub mod admin;
pub mod auth;
pub mod health;
pub mod layers;
pub mod nchf;
pub mod problem;
