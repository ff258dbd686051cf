mod openapi;
mod support;
