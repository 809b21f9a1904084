//! What a crate is built from on this machine: the packages that its manifest names by path, and the files that the
//! last build read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Package};

use super::metadata::metadata;
use crate::{
    cli::BuildArgs,
    inputs::{self, Surroundings},
    package::Crate,
};

/// The packages on this machine that a crate depends on, and the files of its workspace. A package with a build script
/// may read any file of its directory.
///
/// This follows the paths in manifests, from the crate's own on. Nothing is resolved: that would need the crates of
/// every platform and of the tests, and cargo fetches only those that it builds.
pub(crate) fn surroundings(lambda: &Crate, args: &BuildArgs) -> Surroundings {
    let workspace = ["Cargo.toml", "Cargo.lock"].map(|name| lambda.workspace.join(name));
    let mut found = Surroundings { paths: workspace.into(), ..Surroundings::default() };
    let mut known = BTreeMap::<PathBuf, Package>::new();
    let mut queue = vec![lambda.manifest.clone()];
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
            found.may_read.extend(manifest.parent().map(Path::to_owned));
        }
        // The tests of a package are no part of the lambda.
        let built = package.dependencies.iter().filter(|one| one.kind != DependencyKind::Development);
        for directory in built.filter_map(|one| one.path.as_deref()) {
            let directory = directory.as_std_path();
            let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
            if !found.paths.contains(&directory) {
                queue.push(directory.join("Cargo.toml"));
                found.paths.push(directory);
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
    inputs::of_rule(&text).into_iter().map(|path| path.canonicalize().unwrap_or(path)).collect()
}
