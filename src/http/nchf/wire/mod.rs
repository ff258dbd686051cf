//! What the charging services look like on the wire.

pub mod schemas;
