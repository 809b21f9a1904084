//! What cargo knows about a lambda's crate, and unique names for the files that are built from it.
//!
//! [`crate::crates`] makes these values; [`crate::cargo`] builds from them.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::effe_abi::EffeAbi;

/// A crate that holds a lambda.
#[derive(Debug)]
pub(crate) struct Crate {
    /// The absolute path of its Cargo.toml.
    pub(crate) manifest: PathBuf,
    /// The directory to run cargo in: cargo looks for its configuration and the toolchain file from there upwards.
    pub(crate) directory: PathBuf,
    /// The package's name.
    pub(crate) package: String,
    /// The package's version.
    pub(crate) version: String,
    /// The library's name.
    pub(crate) library: String,
    /// Whether another crate can link it.
    pub(crate) links: bool,
    /// The crate types in its manifest.
    pub(crate) crate_types: Vec<String>,
    /// The directory of the workspace's Cargo.toml and Cargo.lock.
    pub(crate) workspace: PathBuf,
    /// The effe-abi that it depends on.
    pub(crate) effe_abi: EffeAbi,
    /// For a single file that is compiled as a copy: the copy, and the file that messages name in its place.
    pub(crate) stands_for: Option<(PathBuf, PathBuf)>,
}

/// A file name for what is built from a lambda, different from that of every other lambda: `source` is its manifest or
/// its file.
pub(crate) fn unique_name(stem: &str, source: &Path) -> String {
    format!("{stem}-{}", short_hash(source))
}

/// The start of the hash of a path: different for files of the same name.
pub(crate) fn short_hash(path: &Path) -> String {
    hex(&Sha256::digest(path.as_os_str().as_encoded_bytes()))[..8].to_owned()
}

/// A file's stem as a name that cargo accepts for a package.
pub(crate) fn package_name(stem: &str) -> String {
    let name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' })
        .collect();
    match name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => name,
        false => format!("lambda-{name}"),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
