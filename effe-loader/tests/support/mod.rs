//! What the tests have in common: the real loader as a child, an HTTP client that shows every byte, plugins built
//! by cargo, and waits that are on a condition and end at a deadline.

pub mod admin;
pub mod counts;
pub mod daemon;
#[cfg(feature = "http2")]
pub mod h2;
pub mod hammer;
pub mod http;
pub mod loader;
pub mod metrics;
pub mod plugins;
#[cfg(feature = "processes")]
pub mod processes;
pub mod remote;
#[cfg(feature = "aws")]
pub mod runtime_api;
pub mod scratch;
#[cfg(feature = "tls")]
pub mod tls;
pub mod versions;
pub mod websocket;

use std::{
    thread,
    time::{Duration, Instant},
};

pub use self::{
    counts::Counts,
    daemon::Daemon,
    hammer::Hammer,
    http::{Connection, Reply, load},
    loader::{Loader, Server},
    scratch::Scratch,
};

/// How long anything may take that always comes: far longer than it ever does.
pub const LONG: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
