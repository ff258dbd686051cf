pub mod member;
pub mod request;
pub mod response;
