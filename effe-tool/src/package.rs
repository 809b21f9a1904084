//! What cargo knows of a lambda's crate, and the names of the files that are made of it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::template::EffeAbi;

/// A crate with a lambda in it.
#[derive(Debug)]
pub(crate) struct Lambda {
    /// Its Cargo.toml, absolute.
    pub(crate) manifest: PathBuf,
    /// Where cargo is to be run: its configuration and toolchain file are looked up from there.
    pub(crate) directory: PathBuf,
    /// The package's name and version.
    pub(crate) package: String,
    pub(crate) version: String,
    /// The library's name.
    pub(crate) library: String,
    /// Whether another crate can link it in.
    pub(crate) links: bool,
    /// The crate-type that its manifest gives.
    pub(crate) crate_types: Vec<String>,
    /// Where the workspace's Cargo.toml and Cargo.lock lie.
    pub(crate) workspace: PathBuf,
    /// The effe-abi that it depends on.
    pub(crate) effe_abi: EffeAbi,
    /// A copied file, and the one that messages are to name in its place.
    pub(crate) stands_for: Option<(PathBuf, PathBuf)>,
}

/// A file's name for what is made of a lambda: that of no other one.
pub(crate) fn distinct(lambda: &Lambda) -> String {
    format!("{}-{}", lambda.library, digest(&lambda.manifest))
}

/// Tells files of the same name apart.
pub(crate) fn digest(path: &Path) -> String {
    hex(&Sha256::digest(path.as_os_str().as_encoded_bytes()))[..8].to_owned()
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
