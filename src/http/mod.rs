pub mod nchf;
pub mod problem;
