//! The languages besides Rust: how a file in one of them is recognized, and the header that all include.
//!
//! [`crate::foreign`] compiles them, [`crate::template`] has what `new` writes.

use std::{ffi::OsStr, path::Path};

/// The C header that is the contract of all of them.
pub(crate) const HEADER: &str = include_str!("../include/effe.h");

/// A language that a lambda can be written in as a single file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Cpp,
    Zig,
}

impl Language {
    /// The language of a file, by its extension.
    pub(crate) fn of(path: &Path) -> Option<Language> {
        match path.extension().and_then(OsStr::to_str)? {
            "c" => Some(Language::C),
            "cc" | "cpp" | "cxx" => Some(Language::Cpp),
            "zig" => Some(Language::Zig),
            _ => None,
        }
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Language::C => "C",
            Language::Cpp => "C++",
            Language::Zig => "Zig",
        }
    }

    /// What stands in each file that is a lambda, and why one without it is none.
    pub(crate) fn mark(self) -> (&'static str, &'static str) {
        match self {
            Language::C | Language::Cpp => ("effe.h", "it doesn't include effe.h"),
            Language::Zig => ("effe_lambda_v1", "it doesn't export effe_lambda_v1"),
        }
    }
}
