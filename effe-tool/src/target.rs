//! The directory that the tool builds in: what is where in it, its lock, and how files get in and out.
//!
//! [`crate::lambda`] knows where it is.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::{cli::BuildArgs, shell::Shell};

/// The directory below it into which cargo and other compilers put what they build.
pub(crate) fn profile_directory(target: &Path, args: &BuildArgs) -> PathBuf {
    let mut directory = target.to_owned();
    directory.extend(args.target.as_deref());
    directory.push(if args.debug { "debug" } else { "release" });
    directory
}

/// Locks the target directory against other processes of this tool, until the returned file is dropped. cargo's own
/// lock doesn't suffice: it ends before the built file is copied.
pub(crate) fn lock(target: &Path, shell: &mut Shell) -> Result<File> {
    make(target)?;
    let path = target.join(".turn");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        shell.status("Blocking", format_args!("waiting for another effe-tool in {}", target.display()));
        flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Makes a directory in it, and all above.
///
/// # Errors
/// It can't be made there.
pub(crate) fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}; name another place with --target-dir", directory.display()))
}

/// Writes a file only if its text differs, so that cargo rebuilds only what has changed.
///
/// # Errors
/// The file can't be written.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    make(path.parent().unwrap_or(Path::new("/")))?;
    replace(path, |draft| fs::write(draft, text))
}

/// Copies a file to `path`.
///
/// # Errors
/// The file can't be written.
pub(crate) fn replace_file(file: &Path, path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    replace(path, |draft| fs::copy(file, draft).map(drop))
}

/// Replaces a file by way of a temporary file and a rename: a loader may have the old file open, and another process of
/// this tool may read it.
fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.tmp", std::process::id()));
    let draft = Path::new(&draft);
    let written = write(draft).and_then(|()| fs::rename(draft, path));
    if written.is_err() {
        let _ = fs::remove_file(draft);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| {
        let place = env::current_dir().map_or(String::new(), |place| format!(" (in {})", place.display()));
        format!("cannot find {}{}", path.display(), if path.is_absolute() { "" } else { &place })
    })
}
