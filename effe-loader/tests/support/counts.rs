//! What the probe has counted: a line in a file for each call of each step.

use std::{fs, path::PathBuf};

use super::{Scratch, wait_until};

/// The file of one or more probes.
pub struct Counts {
    path: PathBuf,
    _directory: Scratch,
}

impl Counts {
    /// Nothing counted yet.
    pub fn new() -> Counts {
        let directory = Scratch::new();
        Counts { path: directory.join("counts"), _directory: directory }
    }

    /// The parameter that makes a probe count here.
    pub fn parameter(&self) -> String {
        format!("count={}", self.path.display())
    }

    /// All lines, in the order they were written.
    pub fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// How often a step was called.
    pub fn of(&self, step: &str) -> usize {
        self.lines().iter().filter(|line| *line == step).count()
    }

    /// Waits until a step was called so often.
    #[track_caller]
    pub fn wait_for(&self, step: &str, times: usize) {
        wait_until(&format!("{times} × {step}"), || self.of(step) >= times);
    }

    /// After the loader has ended: Init once and first, every Context stopped once, Retire once and last.
    #[track_caller]
    pub fn assert_complete(&self) {
        let lines = self.lines();
        assert_eq!(self.of("init"), 1, "Init exactly once");
        assert_eq!(lines.first().map(String::as_str), Some("init"), "Init first");
        assert_eq!(self.of("stop"), self.of("context"), "one Stop for every Context");
        assert_eq!(self.of("retire"), 1, "Retire exactly once");
        assert_eq!(lines.last().map(String::as_str), Some("retire"), "Retire last");
    }
}
