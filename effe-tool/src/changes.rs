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

/// A file that marks directories of files that can be made again, such as cargo's target directory.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// The state of a file: the time of its last change, and its size.
pub(crate) type Stamp = (Option<SystemTime>, u64);

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

    /// The files that were added, removed or changed from one snapshot to the other.
    pub(crate) fn differences(&self, other: &Snapshot) -> BTreeSet<PathBuf> {
        let differs = |path: &&PathBuf| self.files.get(*path) != other.files.get(*path);
        self.files.keys().chain(other.files.keys()).filter(differs).cloned().collect()
    }

    /// The state of a file, if the file is there.
    pub(crate) fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.files.get(path).copied()
    }

    /// Takes the state of one file from a later snapshot.
    pub(crate) fn take_over(&mut self, path: &Path, later: &Snapshot) {
        match later.stamp(path) {
            Some(stamp) => self.files.insert(path.to_owned(), stamp),
            None => self.files.remove(path),
        };
    }

    /// Whether a file or directory is part of it.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.files.contains_key(path) || self.has_directory(path)
    }

    /// Whether a directory is part of it.
    pub(crate) fn has_directory(&self, path: &Path) -> bool {
        self.directories.contains(path)
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.modified().ok(), metadata.len())
}

/// Calls back when something in the watched directories changes. A new [`Snapshot`] shows whether that matters.
pub(crate) struct ChangeWatcher(RecommendedWatcher);

impl ChangeWatcher {
    /// A watcher that calls `notice` on a thread of its own after each change, with the paths that changed. There are
    /// no paths if the system has lost count of them.
    ///
    /// # Errors
    /// The system offers no notifications.
    pub(crate) fn new(notice: impl Fn(Vec<PathBuf>) + Send + 'static) -> Result<ChangeWatcher> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            // Taking a snapshot is an access itself; it must not lead to the next snapshot.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) => notice(event.paths),
            Err(_) => notice(Vec::new()),
        });
        let watcher = watcher.context("cannot watch for changes")?;
        Ok(ChangeWatcher(watcher))
    }

    /// Takes a snapshot of `roots`, and watches all that it has: each directory, but not those below it, because a
    /// .gitignore may name them, and what is above each root, because a root may go and come back. A directory that was
    /// removed and made again is another one for the system, so this is done anew for each snapshot.
    ///
    /// # Errors
    /// The system's own, with the directory.
    pub(crate) fn look(&mut self, roots: &[PathBuf]) -> Result<Snapshot> {
        let paths = || roots.iter().map(PathBuf::as_path);
        let mut snapshot = Snapshot::of(paths());
        loop {
            for root in paths() {
                // If all of them are gone, the one that is there sees the next one come.
                if let Some(above) = root.ancestors().skip(1).find(|above| above.is_dir()) {
                    self.watch(above)?;
                }
            }
            for directory in &snapshot.directories {
                self.watch(directory)?;
            }
            // What came before it was watched is seen now.
            let later = Snapshot::of(paths());
            if later.directories == snapshot.directories {
                return Ok(later);
            }
            snapshot = later;
        }
    }

    fn watch(&mut self, directory: &Path) -> Result<()> {
        match self.0.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(()),
            // The directory was removed since; its parent's notification says so.
            Err(err) if matches!(err.kind, notify::ErrorKind::PathNotFound) => Ok(()),
            Err(err) => Err(err).with_context(|| {
                format!(
                    "cannot watch {}; the limit is /proc/sys/fs/inotify/max_user_watches",
                    directory.display()
                )
            }),
        }
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
    fn what_differs_is_named_and_can_be_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let file = |name: &str| root.join(name);
        for name in ["kept", "changed", "removed"] {
            write(&file(name), "");
        }
        let mut before = Snapshot::of([root]);
        write(&file("changed"), "1");
        write(&file("added"), "");
        fs::remove_file(file("removed")).unwrap();
        let later = Snapshot::of([root]);
        assert_eq!(before.differences(&later), ["added", "changed", "removed"].map(file).into());
        before.take_over(&file("removed"), &later);
        before.take_over(&file("added"), &later);
        assert_eq!(before.differences(&later), [file("changed")].into());
    }

    #[test]
    fn what_is_watched_is_noticed_also_in_a_new_directory_and_after_all_of_it_was_gone() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let hello = root.join("hello");
        let (sender, notices) = mpsc::channel();
        let notice = move |paths: Vec<PathBuf>| paths.into_iter().for_each(|path| drop(sender.send(path)));
        let mut watcher = ChangeWatcher::new(notice).unwrap();
        let mut look = || watcher.look(std::slice::from_ref(&hello)).unwrap();
        let hear = |path: &Path| while notices.recv_timeout(Duration::from_secs(10)).unwrap() != path {};
        assert_eq!(look(), Snapshot::default());
        for _ in 0..2 {
            fs::create_dir(&hello).unwrap();
            hear(&hello);
            look();
            fs::create_dir(hello.join("new")).unwrap();
            hear(&hello.join("new"));
            look();
            write(&hello.join("new/file"), "");
            hear(&hello.join("new/file"));
            assert!(look().has(&hello.join("new/file")));
            fs::remove_dir_all(&hello).unwrap();
            while notices.recv_timeout(Duration::from_secs(10)).unwrap() != hello || hello.exists() {}
            look();
        }
    }
}
