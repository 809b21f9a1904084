//! HTTP/1.1 and HTTP/2: what a request and an answer are on a connection.

pub mod canned;
pub mod h1;
#[cfg_attr(not(feature = "http2"), path = "http/h2/disabled.rs")]
pub mod h2;
pub mod head;
pub mod request;
pub mod request_guard;
pub mod request_id;
pub mod service;
pub mod validate;
