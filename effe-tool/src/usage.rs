//! The error of wrong usage.

use std::fmt;

/// Wrong usage that clap can't see, such as flags that exclude each other. The exit code is 2, as for clap's own
/// errors.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}
