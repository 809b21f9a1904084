//! The plugin's file: it is found and opened here, and paths that can't be a plugin are refused. What is in
//! the file is checked by `elf.rs`, who may change it by `ownership.rs`.

use std::{
    env,
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::policy::Policy;
use crate::error::{Error, Refusal, Unloaded};

/// Bytes. No lambda is that large; a wrong path may be.
pub const MAX_SIZE: u64 = 1 << 30;

/// A plugin's file, open. The policy agrees with who may change it; its content has not been checked.
pub struct PluginFile {
    /// The path as the operator gave it, for messages.
    pub path: PathBuf,
    pub file: File,
    /// A sentence for the operator.
    pub warning: Option<String>,
}

impl PluginFile {
    /// Opens a plugin's file. It is refused if it is missing, no regular file, unreadable or larger than 1 GiB,
    /// and if the policy refuses it because of who may change it.
    /// An error of the system's is none of the plugin's.
    pub fn open(path: &Path, policy: &Policy) -> Result<PluginFile, Error> {
        let refuse = |reason: String| Error::from(Refusal::new(path, reason));
        let failed = |err: io::Error| Unloaded::from(err).of(path);
        // Non-blocking: opening a FIFO would wait for a writer for ever.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(path);
        let file = file.map_err(|err| match err.kind() {
            io::ErrorKind::NotFound => refuse(missing(path)),
            io::ErrorKind::PermissionDenied => {
                refuse("permission denied; make it readable for this user".into())
            }
            _ => failed(err),
        })?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(refuse(directory(path)));
        }
        if !metadata.is_file() {
            return Err(refuse("it is not a regular file; name the built library".into()));
        }
        if metadata.len() > MAX_SIZE {
            return Err(refuse(format!("it has {} bytes; no lambda is larger than 1 GiB", metadata.len())));
        }
        let warning = policy.owned(path, &file).map_err(refuse)?;
        let warning = warning.map(|what| format!("{}: {what}", path.display()));
        Ok(PluginFile { path: path.to_owned(), file, warning })
    }

    /// The file's name, which /proc/PID/maps and perf show for the copy.
    pub fn name(&self) -> String {
        self.path.file_name().map_or_else(|| "lambda".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

fn missing(path: &Path) -> String {
    if let Some(nearly) = nearly(path) {
        return format!("no such file; did you mean {}?", nearly.display());
    }
    if path.is_absolute() {
        return "no such file".to_owned();
    }
    let place = env::current_dir().map_or(String::new(), |dir| format!(" in {}", dir.display()));
    format!("no such file{place}; build the lambda with cargo build --release")
}

fn directory(path: &Path) -> String {
    let inside =
        ["target/release", "target/debug", "."].into_iter().find_map(|place| only_library(&path.join(place)));
    match inside {
        Some(library) => format!("it is a directory; did you mean {}?", library.display()),
        None => "it is a directory; name the built library, such as target/release/libfoo.so".to_owned(),
    }
}

/// The one `lib*.so` of a directory.
fn only_library(directory: &Path) -> Option<PathBuf> {
    let names = directory.read_dir().ok()?.flatten().map(|entry| entry.file_name());
    let mut libraries = names.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("lib") && name.ends_with(".so")
    });
    let first = libraries.next()?;
    libraries.next().is_none().then(|| directory.join(first))
}

/// A file that the operator may have meant: in another directory of cargo's, with `_` for `-`, or with the
/// prefix and the suffix of a library.
fn nearly(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy();
    let stem = name.strip_suffix(".so").unwrap_or(&name);
    let stem = stem.strip_prefix("lib").unwrap_or(stem).replace('-', "_");
    let library = format!("lib{stem}.so");
    let here = path.parent().unwrap_or(Path::new(""));
    let places =
        ["", "target/release", "target/debug", "../release", "../debug"].map(|place| here.join(place));
    let top = ["target/release", "target/debug"].map(PathBuf::from);
    let mut candidates = places.into_iter().chain(top).map(|place| place.join(&library));
    candidates.find(|candidate| candidate != path && candidate.is_file())
}
