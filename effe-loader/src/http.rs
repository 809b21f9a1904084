//! HTTP/1.1 and HTTP/2: from the bytes of a connection to a request, and from an answer to bytes. A `Service` answers;
//! the protocols know nothing else of it.

pub mod canned;
pub mod h1;
#[cfg_attr(not(feature = "http2"), path = "http/h2/disabled.rs")]
pub mod h2;
pub mod head;
#[cfg_attr(not(feature = "aws"), path = "http/invocation/disabled.rs")]
pub mod invocation;
pub mod private;
pub mod request_id;
pub mod service;
pub mod validate;
