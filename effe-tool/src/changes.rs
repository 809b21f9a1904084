//! Detects changes of source files: snapshots of the files below some directories, without those that a .gitignore
//! names, and notifications from the system (inotify) that say when to take a new snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Metadata,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result};
use ignore::WalkBuilder;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// The file that cargo itself writes beside the sources.
const LOCK: &str = "Cargo.lock";
/// A file that marks directories of files that can be made again, such as cargo's target directory.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// The state of a file: the time of its last change, and its size.
type Stamp = (Option<SystemTime>, u64);

/// The files below some directories, with their states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    files: BTreeMap<PathBuf, Stamp>,
    directories: BTreeSet<PathBuf>,
}

impl Snapshot {
    /// Takes a snapshot of all files below `roots` that no .gitignore names. Files that can't be read are left out.
    pub(crate) fn of<'a>(roots: impl IntoIterator<Item = &'a Path>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for root in roots {
            let n_files = snapshot.files.len();
            snapshot.add(root, true);
            if snapshot.files.len() == n_files {
                // A .gitignore above the root names all of it. The user has named the root, so its files count.
                snapshot.add(root, false);
            }
        }
        snapshot
    }

    fn add(&mut self, root: &Path, as_parents_say: bool) {
        let mut walk = WalkBuilder::new(root);
        // Hidden files count, because .cargo/config.toml is one.
        walk.hidden(false).require_git(false).parents(as_parents_say).filter_entry(|entry| {
            let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
            !(is_directory && (entry.file_name() == ".git" || entry.path().join(CACHE_TAG).is_file()))
        });
        for entry in walk.build().filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                self.directories.insert(entry.into_path());
            } else {
                self.files.insert(entry.into_path(), stamp(&metadata));
            }
        }
        if root.is_file() {
            self.directories.extend(root.parent().map(Path::to_owned));
        }
    }

    /// Whether a file was added, removed or changed.
    pub(crate) fn differs_from(&self, other: &Snapshot) -> bool {
        self.files != other.files
    }

    /// Takes from `later`, a snapshot after a build, the states of the files that the build itself wrote (Cargo.lock)
    /// and of files outside `roots`, which only the build has shown to matter. Every other file keeps the state that it
    /// had before the build, so that an edit during the build still counts as a change.
    pub(crate) fn take_over(&mut self, later: Snapshot, roots: &[PathBuf]) {
        for (path, stamp) in later.files {
            let is_known = roots.iter().any(|root| path.starts_with(root));
            if !is_known || path.file_name().is_some_and(|name| name == LOCK) {
                self.files.insert(path, stamp);
            }
        }
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.modified().ok(), metadata.len())
}

/// Calls back when something in the watched directories changes. A new [`Snapshot`] shows what it was.
pub(crate) struct ChangeWatcher(RecommendedWatcher);

impl ChangeWatcher {
    /// A watcher that calls `notice` on a thread of its own after each change.
    ///
    /// # Errors
    /// The system offers no notifications.
    pub(crate) fn new(notice: impl Fn() + Send + 'static) -> Result<ChangeWatcher> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Taking a snapshot is an access itself; it must not lead to the next snapshot.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                notice();
            }
        });
        let watcher = watcher.context("cannot watch for changes")?;
        Ok(ChangeWatcher(watcher))
    }

    /// Watches each directory of a snapshot, but not those below it, because a .gitignore may name them. Call it with
    /// every new snapshot: if a directory was removed and made again, the system regards it as another one.
    ///
    /// # Errors
    /// The system's own, with the directory.
    pub(crate) fn watch(&mut self, snapshot: &Snapshot) -> Result<()> {
        for directory in &snapshot.directories {
            match self.0.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // The directory was removed since; its parent's notification says so.
                Err(err) if matches!(err.kind, notify::ErrorKind::PathNotFound) => {}
                Err(err) => {
                    return Err(err).with_context(|| {
                        format!(
                            "cannot watch {}; the limit is /proc/sys/fs/inotify/max_user_watches",
                            directory.display()
                        )
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, time::Duration};

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_is_ignored_is_not_seen() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for file in [".gitignore", "src/lib.rs", ".cargo/config.toml", "notes/a.log", ".git/HEAD", "made/x"] {
            write(&root.join(file), "");
        }
        write(&root.join(".gitignore"), "*.log\n");
        write(&root.join("made").join(CACHE_TAG), "");
        let snapshot = Snapshot::of([root]);
        let names: Vec<_> = snapshot.files.keys().map(|path| path.strip_prefix(root).unwrap()).collect();
        assert_eq!(names, [".cargo/config.toml", ".gitignore", "src/lib.rs"].map(Path::new));
    }

    #[test]
    fn a_root_in_an_ignored_directory_is_seen_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join(".gitignore"), "scratch\n");
        write(&root.path().join("scratch/hello/lib.rs"), "");
        assert!(Snapshot::of([root.path()]).files.len() == 1);
        assert!(Snapshot::of([root.path().join("scratch/hello").as_path()]).files.len() == 1);
    }

    #[test]
    fn a_lock_file_that_a_build_wrote_is_no_change_and_an_edit_meanwhile_is_one() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(&root.join("src/lib.rs"), "1");
        let mut before = Snapshot::of([root]);
        write(&root.join(LOCK), "");
        let roots = [root.to_owned()];
        before.take_over(Snapshot::of([root]), &roots);
        assert!(!before.differs_from(&Snapshot::of([root])));
        write(&root.join("src/lib.rs"), "22");
        before.take_over(Snapshot::of([root]), &roots);
        assert!(before.differs_from(&Snapshot::of([root])));
    }

    #[test]
    fn a_file_in_a_new_directory_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let (sender, notices) = mpsc::channel();
        let mut watcher = ChangeWatcher::new(move || sender.send(()).unwrap_or_default()).unwrap();
        let patience = Duration::from_secs(10);
        watcher.watch(&Snapshot::of([root])).unwrap();
        fs::create_dir(root.join("new")).unwrap();
        notices.recv_timeout(patience).unwrap();
        watcher.watch(&Snapshot::of([root])).unwrap();
        while notices.try_recv().is_ok() {}
        write(&root.join("new/file"), "");
        notices.recv_timeout(patience).unwrap();
    }
}
