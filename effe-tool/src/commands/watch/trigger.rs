//! Decides which changed files start a build of a lambda. A file that the lambda isn't built from starts none, however
//! often it changes, and neither does what a build itself writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::changes::{Snapshot, Stamp};

/// The file that cargo itself writes beside the sources.
const LOCK: &str = "Cargo.lock";
/// After so many builds that changed nothing, a file that started them starts no other.
const IDLE_BUILDS: u32 = 3;
/// After so many builds in a row that were started by what the one before changed, this ends.
const OWN_BUILDS: u32 = 3;

/// The clock of a file system is less exact than that of a process.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// What came of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A plugin that differs from the one that is served.
    New,
    /// The plugin that is served already.
    Same,
    Failed,
}

/// The files of a lambda, as its last build saw them, and what is known of them.
#[derive(Default)]
pub(super) struct Trigger {
    seen: Snapshot,
    /// The files and directories that the last good build read.
    inputs: Vec<PathBuf>,
    /// The directories from which a build may read more than `inputs` says: all, unless the last build was good.
    may_read: Vec<PathBuf>,
    /// When the last build began.
    began: Option<SystemTime>,
    /// When the one before it began.
    began_before: Option<SystemTime>,
    /// The files that started the last build.
    started_by: BTreeSet<PathBuf>,
    /// The files that changed while the last build ran.
    meanwhile: BTreeSet<PathBuf>,
    /// The state and the content in which a build left the files that changed while it ran.
    left: BTreeMap<PathBuf, (Option<Stamp>, Vec<u8>)>,
    /// How many builds in a row were started by what the one before changed.
    n_own: u32,
    /// The files that every build writes.
    written: BTreeSet<PathBuf>,
    /// How many builds a file has started that changed nothing.
    n_idle: BTreeMap<PathBuf, u32>,
    /// The files that start no build any more.
    idle: BTreeSet<PathBuf>,
}

impl Trigger {
    /// Begins a build if a file has changed that calls for one. Returns whether it did.
    pub(super) fn begin(&mut self, now: Snapshot) -> bool {
        let mut changed = self.seen.differences(&now);
        changed.retain(|path| self.counts(path));
        if changed.is_empty() && self.began.is_some() {
            return false;
        }
        self.seen = now;
        self.began_before = self.began.replace(SystemTime::now());
        self.started_by = changed;
        true
    }

    /// Ends a build. `later` is a snapshot after it, of which the files below `known` were watched while it ran; what
    /// else there is, only the build has shown. `inputs` are the files that it read, and below `may_read` it may have
    /// read others. Returns what the user should know.
    pub(super) fn end(
        &mut self,
        outcome: Outcome,
        later: &Snapshot,
        known: &[PathBuf],
        inputs: Vec<PathBuf>,
        may_read: Vec<PathBuf>,
    ) -> Vec<String> {
        if outcome != Outcome::Failed {
            self.inputs = inputs;
        }
        let knows_inputs = outcome != Outcome::Failed && !self.inputs.is_empty();
        self.may_read = if knows_inputs { may_read } else { vec![PathBuf::from("/")] };
        let mut notes = Vec::new();
        notes.extend(self.note_own(later, known));
        notes.extend(self.note_idle(outcome));
        notes.extend(self.note_old(outcome));
        notes
    }

    /// Whether a change of this file may call for a build.
    pub(super) fn counts(&self, path: &Path) -> bool {
        let may_be_read = || self.may_read.iter().any(|directory| path.starts_with(directory));
        self.is_input(path) || (may_be_read() && !self.idle.contains(path))
    }

    /// The files as the last build saw them.
    pub(super) fn seen(&self) -> &Snapshot {
        &self.seen
    }

    /// Whether the lambda is built from a file: cargo says so, or its name does.
    fn is_input(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let directory = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        name.ends_with(".rs")
            || ["Cargo.toml", LOCK, "rust-toolchain", "rust-toolchain.toml"].contains(&name)
            || directory == Some(".cargo")
            || self.inputs.iter().any(|input| path.starts_with(input))
    }

    /// Takes over the states of the files that the build itself wrote. Every other file keeps the state that it had
    /// before the build, so that an edit during the build still counts as a change.
    fn note_own(&mut self, later: &Snapshot, known: &[PathBuf]) -> Option<String> {
        let mut meanwhile = BTreeSet::new();
        for path in self.seen.differences(later) {
            let is_known = known.iter().any(|root| path.starts_with(root));
            let is_lock = path.file_name().is_some_and(|name| name == LOCK);
            let mut is_own = !is_known || is_lock || self.written.contains(&path);
            if !is_own {
                let content = content(&path);
                let before = self.left.insert(path.clone(), (later.stamp(&path), content.clone()));
                // The build wrote what was there before.
                is_own = before == Some((self.seen.stamp(&path), content));
            }
            match is_own {
                true => self.seen.take_over(&path, later),
                false => _ = meanwhile.insert(path),
            }
        }
        let is_own = self.started_by.is_subset(&self.meanwhile)
            && self.started_by.iter().any(|path| self.is_input(path));
        self.n_own = if is_own { self.n_own + 1 } else { 0 };
        self.meanwhile = meanwhile;
        if self.n_own < OWN_BUILDS || self.meanwhile.is_empty() {
            return None;
        }
        self.n_own = 0;
        let names = names(&self.meanwhile);
        for path in std::mem::take(&mut self.meanwhile) {
            self.seen.take_over(&path, later);
            self.written.insert(path);
        }
        Some(format!("each build changes {names}; what a build changes there starts no other one any more"))
    }

    fn note_idle(&mut self, outcome: Outcome) -> Option<String> {
        if outcome == Outcome::New || self.started_by.iter().any(|path| self.is_input(path)) {
            return None;
        }
        let mut idle = BTreeSet::new();
        for path in &self.started_by {
            let n = self.n_idle.entry(path.clone()).or_default();
            *n += 1;
            if *n >= IDLE_BUILDS {
                idle.insert(path.clone());
            }
        }
        let text = (!idle.is_empty()).then(|| {
            format!(
                "{} changed {IDLE_BUILDS} times and the build didn't; that starts no build any more",
                names(&idle)
            )
        });
        self.idle.extend(idle);
        text
    }

    /// cargo regards a file that is older than its last build as one that was built.
    fn note_old(&self, outcome: Outcome) -> Option<String> {
        let built = self.began_before?;
        let is_old = |path: &&PathBuf| {
            self.inputs.iter().any(|input| path.starts_with(input))
                && self
                    .seen
                    .stamp(path)
                    .and_then(|stamp| stamp.0)
                    .is_some_and(|changed| changed + CLOCKS_DIFFER < built)
        };
        let old: BTreeSet<_> = self.started_by.iter().filter(is_old).cloned().collect();
        (outcome == Outcome::Same && !old.is_empty()).then(|| {
            format!(
                "{} changed, but is older than the last build, and so cargo leaves it out: touch it",
                names(&old)
            )
        })
    }
}

/// The hash of a file's content, or nothing.
fn content(path: &Path) -> Vec<u8> {
    fs::read(path).map(|bytes| Sha256::digest(bytes).to_vec()).unwrap_or_default()
}

/// The first of some paths, and how many there are beside it.
fn names(paths: &BTreeSet<PathBuf>) -> String {
    let first = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    match paths.len() {
        0 | 1 => first,
        n => format!("{first} (and {} other files)", n - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with sources, and builds of it.
    struct Case {
        root: tempfile::TempDir,
        trigger: Trigger,
    }

    impl Case {
        /// Sources that were built once.
        fn new() -> Case {
            let mut case = Case { root: tempfile::tempdir().unwrap(), trigger: Trigger::default() };
            case.write("src/lib.rs", "");
            assert_eq!(case.build(true, Outcome::New, |_| {}), Some(vec![]));
            assert_eq!(case.build(true, Outcome::New, |_| {}), None);
            case
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// Builds if anything calls for it. Returns what is said of the build.
        fn build(
            &mut self,
            knows_all: bool,
            outcome: Outcome,
            act: impl FnOnce(&Case),
        ) -> Option<Vec<String>> {
            let root = self.root.path().to_owned();
            if !self.trigger.begin(Snapshot::of([root.as_path()])) {
                return None;
            }
            act(self);
            let later = Snapshot::of([root.as_path()]);
            let inputs = vec![root.join("src/lib.rs"), root.join("page.html")];
            let may_read = if knows_all { vec![root.join("scripted")] } else { vec![root.clone()] };
            Some(self.trigger.end(outcome, &later, &[root], inputs, may_read))
        }
    }

    #[test]
    fn a_file_that_is_no_part_of_the_build_starts_none() {
        let mut case = Case::new();
        case.write("app.log", "1");
        assert_eq!(case.build(true, Outcome::Same, |_| {}), None);
        for input in ["page.html", "scripted/data", "src/other.rs", "Cargo.toml", ".cargo/config.toml"] {
            case.write(input, "1");
            assert_eq!(case.build(true, Outcome::New, |_| {}), Some(vec![]), "{input}");
        }
        // A failed build may lack any file.
        case.write("src/lib.rs", "1");
        assert_eq!(case.build(true, Outcome::Failed, |_| {}), Some(vec![]));
        case.write("app.log", "22");
        assert_eq!(case.build(true, Outcome::Failed, |_| {}), Some(vec![]));
    }

    #[test]
    fn a_file_that_changes_nothing_again_and_again_starts_no_build_any_more() {
        let mut case = Case::new();
        case.write("src/lib.rs", "1");
        // A build script may read any file.
        assert_eq!(case.build(false, Outcome::New, |_| {}), Some(vec![]));
        let mut text = String::new();
        let mut grow = |case: &mut Case, name| {
            text.push('x');
            case.write(name, &text);
            case.build(false, Outcome::Same, |_| {})
        };
        assert_eq!((grow(&mut case, "app.log"), grow(&mut case, "app.log")), (Some(vec![]), Some(vec![])));
        let said = grow(&mut case, "app.log").unwrap().concat();
        assert!(said.contains("app.log changed 3 times"), "{said}");
        assert_eq!(grow(&mut case, "app.log"), None);
        // What the build reads counts always.
        for _ in 0..5 {
            assert_eq!(grow(&mut case, "page.html"), Some(vec![]));
        }
    }

    #[test]
    fn what_a_build_writes_as_it_was_is_no_change_and_an_edit_meanwhile_is_one() {
        let mut case = Case::new();
        case.write("src/lib.rs", "1");
        let generate = |case: &Case| {
            case.write("Cargo.lock", "");
            // Written anew, with the same content.
            let _ = fs::remove_file(case.root.path().join("src/made.rs"));
            case.write("src/made.rs", "made");
        };
        assert_eq!(case.build(false, Outcome::New, generate), Some(vec![]));
        // The first time it was new. The second time it is what it was.
        assert_eq!(case.build(false, Outcome::New, generate), Some(vec![]));
        assert_eq!(case.build(false, Outcome::New, generate), None);
        case.write("src/lib.rs", "22");
        let edit = |case: &Case| {
            generate(case);
            case.write("src/lib.rs", "333");
        };
        assert_eq!(case.build(false, Outcome::New, edit), Some(vec![]));
        assert_eq!(case.build(false, Outcome::New, generate), Some(vec![]));
        assert_eq!(case.build(false, Outcome::New, generate), None);
    }

    #[test]
    fn a_build_that_always_writes_something_else_starts_itself_three_times() {
        let mut case = Case::new();
        let mut text = String::new();
        let mut build = |case: &mut Case| {
            text.push('x');
            case.build(false, Outcome::New, |case| case.write("src/made.rs", &text))
        };
        case.write("src/lib.rs", "1");
        for _ in 0..3 {
            assert_eq!(build(&mut case), Some(vec![]));
        }
        let said = build(&mut case).unwrap().concat();
        assert!(said.contains("each build changes") && said.contains("src/made.rs"), "{said}");
        assert_eq!(build(&mut case), None);
        // Known now, but a change that no build made still counts.
        case.write("src/lib.rs", "22");
        assert_eq!((build(&mut case), build(&mut case)), (Some(vec![]), None));
        case.write("src/made.rs", "by hand");
        assert_eq!((build(&mut case), build(&mut case)), (Some(vec![]), None));
    }

    #[test]
    fn a_file_from_before_the_last_build_is_named() {
        let mut case = Case::new();
        case.write("src/lib.rs", "old");
        let file = fs::File::options().write(true).open(case.root.path().join("src/lib.rs")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let said = case.build(true, Outcome::Same, |_| {}).unwrap().concat();
        assert!(said.contains("src/lib.rs changed, but is older"), "{said}");
    }
}
