//! The real loader, started as an operator starts it, with real plugins, and talked to over real sockets.
#![allow(clippy::duplicate_mod, reason = "the suites of `in_c.rs` are those of this file")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test says what it saw")]

mod access_log;
mod admin;
mod asynchronous;
#[cfg(feature = "aws")]
mod aws_clients;
#[cfg(feature = "aws")]
mod aws_events;
#[cfg(feature = "aws")]
mod aws_runtime;
mod command_line;
#[cfg(feature = "processes")]
mod confined;
mod contract;
#[cfg(feature = "processes")]
mod crashes;
mod damaged;
mod debuggers;
mod drain;
mod early;
#[cfg(feature = "processes")]
mod edges;
mod examples;
mod failures;
mod faults;
mod files;
mod frozen;
#[cfg(feature = "http2")]
mod grpc;
mod health;
mod held;
#[cfg(feature = "http2")]
mod http2;
#[cfg(feature = "http2")]
mod http2_upgrades;
mod in_c;
mod layers;
mod lifecycle;
mod limits;
mod listeners;
mod metrics;
mod misdeeds;
mod modes;
#[cfg(feature = "processes")]
mod processes;
#[cfg(feature = "processes")]
mod recycling;
mod refusals;
mod requests;
#[cfg(feature = "processes")]
mod sleep;
mod starts;
mod streams;
mod support;
mod swap;
mod syslog;
mod syslog_remote;
mod systemd;
mod template;
#[cfg(feature = "tls")]
mod tls;
mod trailers;
mod trust;
mod tunnels;
mod upgrade;
#[cfg(feature = "processes")]
mod upgrades;
mod websocket;
mod websocket_cases;
#[cfg(any(feature = "processes", feature = "tls"))]
mod websocket_places;
mod wire;

/// What the suites are about that `in_c.rs` has once more.
mod fixtures {
    pub use crate::support::plugins::{pipe, probe, spout, ticker};

    /// Where the probe says that it fails.
    pub const SOURCE: &str = "probe/src/lib.rs:";
}
