//! Who may change a file, and so decide what this process runs: checks mode and owner of the file and of the
//! directories above it.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Write permission.
const ANYONE: u32 = 0o002;
const GROUP: u32 = 0o020;
/// In a directory that has it, only a file's owner may rename or remove the file.
const STICKY: u32 = 0o1000;

/// Checks an open file and the directories on its path. If anyone may write one of them, it is refused where
/// this process is root, and the operator is warned otherwise. The group may write. A warning and a refusal are
/// one sentence each, with a remedy.
///
/// With `strict`, as OpenSSH checks its keys: the file and every directory above its real path must belong to
/// this user or to root, and nobody else may write them, the group included.
pub fn check(path: &Path, file: &File, strict: bool) -> Result<Option<String>, String> {
    let user = rustix::process::geteuid().as_raw();
    let real = path.canonicalize();
    if strict {
        let safe = real.map_err(|err| err.to_string()).and_then(|real| is_safe(&real, file, user));
        return safe.map(|()| None).map_err(|reason| format!("--strict-ownership: {reason}"));
    }
    let loose = loose_file(file).or_else(|| {
        // For a symbolic link, both directories count: replacing the link replaces the plugin, too.
        let places = [Some(path.to_owned()), real.ok()].into_iter().flatten();
        places.filter_map(|place| place.parent().map(here)).find_map(|place| loose_directory(&place))
    });
    match loose {
        None => Ok(None),
        Some(what) if user == 0 => Err(format!("{what}, and the loader runs as root")),
        Some(what) => Ok(Some(format!("{what}, and so run code as this user"))),
    }
}

fn loose_file(file: &File) -> Option<String> {
    let mode = file.metadata().ok()?.mode();
    (mode & ANYONE != 0)
        .then(|| format!("anyone may write it (mode {:04o}; chmod o-w mends that)", bits(mode)))
}

fn loose_directory(place: &Path) -> Option<String> {
    let mode = place.metadata().ok()?.mode();
    (mode & ANYONE != 0 && mode & STICKY == 0).then(|| {
        let (place, mode) = (place.display(), bits(mode));
        format!("anyone may replace it: its directory {place} has mode {mode:04o} (chmod o-w mends that)")
    })
}

fn is_safe(real: &Path, file: &File, user: u32) -> Result<(), String> {
    let unreadable = |place: &Path, err: io::Error| format!("{}: {err}", place.display());
    let open = file.metadata().map_err(|err| unreadable(real, err))?;
    let named = real.metadata().map_err(|err| unreadable(real, err))?;
    if (open.dev(), open.ino()) != (named.dev(), named.ino()) {
        return Err("it was replaced while it was opened; try again".to_owned());
    }
    is_ours(real, &open, user)?;
    for place in real.ancestors().skip(1) {
        is_ours(place, &place.metadata().map_err(|err| unreadable(place, err))?, user)?;
    }
    Ok(())
}

fn is_ours(place: &Path, metadata: &Metadata, user: u32) -> Result<(), String> {
    let (owner, mode, place) = (metadata.uid(), metadata.mode(), place.display());
    if owner != 0 && owner != user {
        return Err(format!("{place} belongs to user {owner}; it must belong to root or to user {user}"));
    }
    if mode & (ANYONE | GROUP) == 0 {
        return Ok(());
    }
    let mode = bits(mode);
    Err(format!("others than its owner may write {place} (mode {mode:04o}); chmod go-w mends that"))
}

/// The directory of a bare name is the working directory.
fn here(place: &Path) -> PathBuf {
    if place.as_os_str().is_empty() { PathBuf::from(".") } else { place.to_owned() }
}

fn bits(mode: u32) -> u32 {
    mode & 0o7777
}
