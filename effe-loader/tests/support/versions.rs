//! A plugin in a file of its own, in whose place its next versions are put.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Scratch, plugins::patched};

/// What the fixtures that take connections over say to `version?`, of 16 bytes, the last of them the version.
const FIRSTS: [&str; 2] = ["upgrader, vers 1", "async upgrader 1"];

/// One of those fixtures, as a loader serves it from here.
pub struct Versions {
    scratch: Scratch,
    file: PathBuf,
    bytes: Vec<u8>,
    first: &'static str,
}

impl Versions {
    /// Of this plugin, with its first version in place.
    pub fn of(plugin: &Path) -> Versions {
        let (scratch, bytes) = (Scratch::new(), fs::read(plugin).unwrap());
        let is_its = |first: &&str| bytes.windows(first.len()).any(|window| window == first.as_bytes());
        let first = FIRSTS.into_iter().find(is_its).expect("a fixture that says its version");
        let file = scratch.write("served.so", &bytes);
        Versions { scratch, file, bytes, first }
    }

    /// The file that is served.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What a version says of itself. Of its number it has the last digit.
    pub fn name(&self, n: usize) -> String {
        format!("{}{}", &self.first[..self.first.len() - 1], n % 10)
    }

    /// Puts a version in place, at once.
    pub fn put(&self, n: usize) {
        let next = patched(&self.bytes, self.first.as_bytes(), self.name(n).as_bytes());
        fs::rename(self.scratch.write("new.so", next), &self.file).unwrap();
    }
}
