//! Tests of the tool as a program, with cargo and the loader, without the network.

#![allow(clippy::print_stderr, reason = "a test says what it saw")]

mod compile;
mod completions;
mod debug;
mod docker;
mod guide;
mod inspect;
mod invoke;
mod languages;
mod moving;
mod new;
mod package;
mod route;
mod support;
mod usage;
mod watch;

/// The loader's own lifecycle tests, with a lambda that has the loader linked in.
#[path = "../../effe-loader/tests/lifecycle.rs"]
mod linked_lifecycle;

/// The same, with a static program.
#[expect(clippy::duplicate_mod, reason = "the module's name decides which program it tests")]
#[path = "../../effe-loader/tests/lifecycle.rs"]
mod static_lifecycle;

/// What these are about.
mod fixtures {
    pub use crate::support::plugins::probe;
}
