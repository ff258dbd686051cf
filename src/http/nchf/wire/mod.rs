pub mod member;
pub mod request;
