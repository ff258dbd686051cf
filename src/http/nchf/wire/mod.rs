//! What the charging services look like on the wire: what is read, what is written, and the schemas of all of it.

pub mod member;
pub mod request;
pub mod response;
pub mod schemas;
