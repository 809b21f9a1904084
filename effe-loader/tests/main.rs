//! The real loader, started as an operator starts it, with real plugins, and talked to over real sockets.

mod command_line;
mod damaged;
mod drain;
mod failures;
mod files;
mod lifecycle;
mod refusals;
mod requests;
mod support;
mod syslog;
mod template;
