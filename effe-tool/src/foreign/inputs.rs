//! The files that a lambda in C, C++ or Zig is built from.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use super::compiler::{self, include_directory};
use crate::{
    inputs::{self, Surroundings},
    language::Language,
};

/// The files that a build read, of which the C compilers write the rule for make.
pub(super) fn of_build(file: &Path, language: Language, rule: &Path) -> Vec<PathBuf> {
    match language {
        Language::C | Language::Cpp => inputs_of_rule(rule),
        Language::Zig => imports(file),
    }
}

/// The files that a build will read, before it has succeeded once: also those that are missing, or that keep it from
/// succeeding.
pub(super) fn before_a_build(file: &Path, language: Language, target: &Path) -> Surroundings {
    let paths = match language {
        Language::C | Language::Cpp => preprocessed(file, language, target).unwrap_or_default(),
        Language::Zig => imports(file),
    };
    Surroundings { paths, ..Surroundings::default() }
}

fn inputs_of_rule(rule: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(rule).unwrap_or_default();
    inputs::of_rule(&text).into_iter().map(|path| path.canonicalize().unwrap_or(path)).collect()
}

/// What the preprocessor includes of a file, without the headers of the system.
fn preprocessed(file: &Path, language: Language, target: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = compiler::of(language, None)?.preprocessor(&include_directory(target)?);
    // `-MG`: a missing header counts as one that will come, and is listed as it is named.
    let output = command.args(["-MM", "-MG", "-MT", "plugin"]).arg(file).stdin(Stdio::null()).output()?;
    let listed = inputs::of_rule(&String::from_utf8_lossy(&output.stdout));
    let directory = file.parent().unwrap_or(Path::new("/"));
    Ok(listed.into_iter().map(|path| directory.join(path)).collect())
}

/// A file in Zig, and those that it imports or embeds by a path, directly and indirectly. The compiler doesn't list
/// them.
fn imports(file: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut queue = vec![file.to_owned()];
    while let Some(file) = queue.pop() {
        if !found.insert(file.clone()) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let directory = file.parent().unwrap_or(Path::new("/"));
        for call in ["@import(\"", "@embedFile(\""] {
            let names = text.split(call).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0));
            let is_path = |name: &&str| call != "@import(\"" || name.ends_with(".zig");
            let paths = names.filter(is_path).map(|name| directory.join(name));
            let paths = paths.map(|path| path.canonicalize().unwrap_or(path));
            match call {
                "@import(\"" => queue.extend(paths),
                _ => found.extend(paths),
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_in_zig_imports_is_found_through_other_files() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        fs::create_dir(path("deep")).unwrap();
        let text = "const std = @import(\"std\");\nconst a = @import(\"deep/a.zig\");\nconst b = @import(\"effe\");\n";
        fs::write(path("main.zig"), text).unwrap();
        fs::write(
            path("deep/a.zig"),
            "@import(\"../main.zig\") @embedFile(\"../page.html\") @import(\"b.zig\")",
        )
        .unwrap();
        let expected = ["deep/a.zig", "deep/b.zig", "main.zig", "deep/../page.html"].map(path);
        let mut found = imports(&path("main.zig"));
        found.sort();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(found, expected);
    }
}
