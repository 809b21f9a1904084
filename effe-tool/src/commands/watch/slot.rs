//! A directory for the plugins of one watch. Two watches of the same lambda have the same target directory, and each
//! one decides by its own files what it serves already.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// A directory that no other watch uses while this value lives.
pub(super) struct Slot {
    pub(super) directory: PathBuf,
    /// Locked. The kernel unlocks it however this process ends, so that the next watch uses the directory again.
    _lock: File,
}

impl Slot {
    /// Takes the first free directory in `target`.
    ///
    /// # Errors
    /// The system's own, with the path.
    pub(super) fn take(target: &Path) -> Result<Slot> {
        let watches = target.join("watch");
        fs::create_dir_all(&watches).with_context(|| format!("cannot make {}", watches.display()))?;
        let mut n = 1;
        loop {
            let path = watches.join(format!("{n}.lock"));
            let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Slot { directory: watches.join(n.to_string()), _lock: lock }),
                Err(rustix::io::Errno::WOULDBLOCK) => n += 1,
                Err(err) => return Err(err).with_context(|| format!("cannot lock {}", path.display())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_watches_have_a_directory_each() {
        let target = tempfile::tempdir().unwrap();
        let take = || Slot::take(target.path()).unwrap();
        let (one, two) = (take(), take());
        assert_ne!(one.directory, two.directory);
        let first = one.directory.clone();
        drop(one);
        assert_eq!(take().directory, first);
    }
}
