//! The heads of messages, in the one form that they have from the socket to the lambda and back.

pub mod fields;
#[cfg_attr(not(feature = "aws"), path = "message/invocation/disabled.rs")]
pub mod invocation;
pub mod request;
pub mod request_id;
pub mod response;
