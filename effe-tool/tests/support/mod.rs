//! Support for the tests: the tool, a loader, lambdas that are built once, and the loader's own test support.

#![expect(dead_code, reason = "the loader's tests use more of it")]

#[path = "../../../effe-loader/tests/support/counts.rs"]
pub mod counts;
#[path = "../../../effe-loader/tests/support/hammer.rs"]
pub mod hammer;
#[path = "../../../effe-loader/tests/support/http.rs"]
pub mod http;
pub mod loader;
pub mod plugins;
#[path = "../../../effe-loader/tests/support/scratch.rs"]
pub mod scratch;
pub mod tool;

use std::{
    thread,
    time::{Duration, Instant},
};

pub use self::{
    counts::Counts,
    hammer::Hammer,
    http::{Connection, Reply, load},
    loader::{Loader, Server},
    scratch::Scratch,
    tool::{Done, tool},
};

/// How long a test waits for anything: far longer than it ever takes.
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
