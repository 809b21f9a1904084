//! The real loader, started as an operator starts it, with real plugins, and talked to over real sockets.

mod failures;
mod lifecycle;
mod requests;
mod support;
