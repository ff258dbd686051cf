pub mod fingerprint;
pub mod parse;
pub mod wire;
