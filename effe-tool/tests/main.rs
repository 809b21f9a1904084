//! The real tool, started as a person starts it, with the real cargo and the real loader; without the network.

#![allow(clippy::print_stderr, reason = "a test says what it saw")]

mod compile;
mod docker;
mod guide;
mod inspect;
mod invoke;
mod new;
mod route;
mod support;
mod usage;
mod watch;

/// The loader's own tests of the life cycle, with a lambda that has the loader linked in.
#[path = "../../effe-loader/tests/lifecycle.rs"]
mod linked_lifecycle;

/// The same, with everything linked in.
#[expect(clippy::duplicate_mod, reason = "the module's name decides which program it tests")]
#[path = "../../effe-loader/tests/lifecycle.rs"]
mod static_lifecycle;
