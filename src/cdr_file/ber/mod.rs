//! Placeholder for the encoder.
use super::Record;
pub fn encode(record: &Record) -> Vec<u8> {
    super::json::line(record).into_bytes()
}
