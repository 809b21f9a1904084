//! What a lambda is built from on this machine: the packages that its manifest names by path, and the files that the
//! last build read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Error;
use cargo_metadata::{DependencyKind, Package};

use super::metadata::metadata;
use crate::cli::BuildArgs;

/// The packages on this machine that a lambda depends on.
#[derive(Debug, Default)]
pub(crate) struct LocalPackages {
    /// Their directories, also those that are missing.
    pub(crate) directories: Vec<PathBuf>,
    /// The directories of those that have a build script, the lambda's own among them: it may read any file there.
    pub(crate) scripted: Vec<PathBuf>,
    /// The manifests that could not be read, and why.
    pub(crate) failures: Vec<(PathBuf, Error)>,
}

/// Follows the paths in manifests, from that of a lambda on. Nothing is resolved: that would need the crates of every
/// platform and of the tests, and cargo fetches only those that it builds.
pub(crate) fn local_packages(manifest: &Path, args: &BuildArgs) -> LocalPackages {
    let mut found = LocalPackages::default();
    let mut known = BTreeMap::<PathBuf, Package>::new();
    let mut queue = vec![manifest.to_owned()];
    while let Some(manifest) = queue.pop() {
        if !known.contains_key(&manifest) {
            match metadata(&manifest, args) {
                // The whole workspace, so that cargo is asked once for it.
                Ok(metadata) => known
                    .extend(metadata.packages.into_iter().map(|one| (one.manifest_path.clone().into(), one))),
                Err(err) => found.failures.push((manifest.clone(), err)),
            }
        }
        let Some(package) = known.get(&manifest) else { continue };
        if package.targets.iter().any(|target| target.is_custom_build()) {
            found.scripted.extend(manifest.parent().map(Path::to_owned));
        }
        // The tests of a package are no part of the lambda.
        let built = package.dependencies.iter().filter(|one| one.kind != DependencyKind::Development);
        for directory in built.filter_map(|one| one.path.as_deref()) {
            let directory = directory.as_std_path();
            let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
            if !found.directories.contains(&directory) {
                queue.push(directory.join("Cargo.toml"));
                found.directories.push(directory);
            }
        }
    }
    found
}

/// The files that a build read, from the list that cargo writes beside what it built: sources, files that they include,
/// and what build scripts name. Empty if there is no such list.
pub(super) fn files(built: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(built.with_extension("d")).unwrap_or_default();
    // `include_str!("../../x")` is listed as `src/../../x`.
    parse(&text).into_iter().map(|path| path.canonicalize().unwrap_or(path)).collect()
}

/// Parses a rule for make: `built: one two`, where a space in a name is `\ `.
fn parse(text: &str) -> Vec<PathBuf> {
    let Some((_, list)) = text.trim_end().split_once(": ") else { return Vec::new() };
    let mut names = vec![String::new()];
    let mut chars = list.chars().peekable();
    while let Some(one) = chars.next() {
        match (one, chars.peek()) {
            ('\\', Some(' ')) => names.last_mut().expect("never empty").extend(chars.next()),
            (' ', _) => names.push(String::new()),
            _ => names.last_mut().expect("never empty").push(one),
        }
    }
    names.into_iter().filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_files_is_a_rule_for_make() {
        let files = parse("/t/lib\\ a.so: /a/src/lib.rs /a/b\\ c.txt /a/back\\slash\n");
        assert_eq!(files, ["/a/src/lib.rs", "/a/b c.txt", "/a/back\\slash"].map(PathBuf::from));
        assert_eq!(parse("/t/a.so:\n"), Vec::<PathBuf>::new());
        assert_eq!(parse(""), Vec::<PathBuf>::new());
    }
}
