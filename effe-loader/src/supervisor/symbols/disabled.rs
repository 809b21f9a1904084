//! The names of places in a loader that is built without processes: nobody asks for them.

use std::fs::File;

/// What a place is called.
#[derive(Clone, Debug, Default)]
pub struct Location {
    pub function: Option<String>,
    /// File and line.
    pub line: Option<(String, u32)>,
}

pub fn locate(_: &File, _: u64) -> Option<Location> {
    None
}
