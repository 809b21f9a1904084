//! HTTP/1.1 and HTTP/2: from the bytes of a connection to a request, and from an answer to bytes. A `Service` answers;
//! the protocols know nothing else of it.

pub mod canned;
pub mod h1;
#[cfg_attr(not(feature = "http2"), path = "http/h2/disabled.rs")]
pub mod h2;
pub mod private;
pub mod response;
pub mod service;
mod target;
pub mod validate;
