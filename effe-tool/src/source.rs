//! Finds lambdas to compile: single files and crates, named by the user or found in a directory. It reads manifests
//! only to decide whether a crate is a lambda; [`crate::lambda`] makes a source ready to be built.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use walkdir::{DirEntry, WalkDir};

use crate::language::Language;

/// What a file can be, for messages.
pub(crate) const FILES: &str = "a .rs, .c, .cc or .zig file";

/// Something to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file or the crate's directory, as the user wrote it.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) kind: Kind,
    /// The folder for its result, below the output directory.
    pub(crate) folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The directory of a crate.
    Crate,
    /// A file in Rust, with its manifest at its top.
    Rust,
    /// A file in another language.
    Foreign(Language),
}

impl Kind {
    /// What a file is, by its extension.
    pub(crate) fn of_file(path: &Path) -> Option<Kind> {
        match path.extension().and_then(OsStr::to_str) {
            Some("rs") => Some(Kind::Rust),
            _ => Language::of(path).map(Kind::Foreign),
        }
    }

    /// What stands in each file that is a lambda, and why one without it is none.
    fn mark(self) -> (&'static str, &'static str) {
        match self {
            Kind::Foreign(language) => language.mark(),
            Kind::Crate | Kind::Rust => ("effe_abi", "it doesn't use effe_abi"),
        }
    }
}

/// What was found in a directory.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) sources: Vec<Source>,
    /// Files and crates that are not lambdas, and why.
    pub(crate) skipped: Vec<(PathBuf, &'static str)>,
}

/// The one source that `path` names.
///
/// # Errors
/// The path is missing, or neither a file in a known language nor a crate.
pub(crate) fn one(path: &Path) -> Result<Source> {
    let metadata = match fs::metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            bail!("there is no {}{}", path.display(), how_to_make(path))
        }
        metadata => metadata.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let source = |kind| Source { path: path.to_owned(), kind, folder: PathBuf::new() };
    if metadata.is_dir() {
        if path.join("Cargo.toml").is_file() {
            return Ok(source(Kind::Crate));
        }
        bail!("{} holds no Cargo.toml; name a crate, {FILES} or a plugin", path.display());
    }
    if path.file_name().is_some_and(|name| name == "Cargo.toml") {
        let path = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok(Source { path: path.to_owned(), ..source(Kind::Crate) });
    }
    match Kind::of_file(path) {
        Some(kind) => Ok(source(kind)),
        None => bail!("{} is no source of a lambda; name {FILES} or a crate", path.display()),
    }
}

/// The remedy for a path that is missing, which depends on what its name says that it is.
fn how_to_make(path: &Path) -> String {
    match path.extension().and_then(OsStr::to_str) {
        Some("so") => "; make a plugin of a crate or a file with effe-tool compile PATH".to_owned(),
        Some(_) if Kind::of_file(path).is_none() => format!("; name a crate, {FILES} or a plugin"),
        _ => format!("; make it with effe-tool new {}", path.display()),
    }
}

/// All sources at or below `path`, sorted by name. The directory `dirout` is skipped.
///
/// # Errors
/// The path is missing, can't be read, or is neither a file in a known language nor a directory.
pub(crate) fn all(path: &Path, dirout: &Path) -> Result<Found> {
    if !path.is_dir() {
        return Ok(Found { sources: vec![one(path)?], ..Found::default() });
    }
    if let Ok(manifest) = Manifest::read(path)
        && manifest.is_package
        && !manifest.is_workspace
    {
        return Ok(Found { sources: vec![one(path)?], ..Found::default() });
    }
    let mut found = Found::default();
    // The directories of crates: no file in them is a single-file lambda.
    let mut crates = Vec::new();
    let dirout = dirout.canonicalize().ok();
    let mut walk = WalkDir::new(path).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.with_context(|| format!("cannot read all of {}", path.display()))?;
        let at = entry.path();
        if entry.file_type().is_dir() {
            if entry.depth() > 0 && (is_excluded(&entry) || at.canonicalize().ok() == dirout) {
                walk.skip_current_dir();
                continue;
            }
            if !at.join("Cargo.toml").is_file() {
                continue;
            }
            let (reason, is_workspace) = match Manifest::read(at) {
                // Compiling it fails and reports the error.
                Err(_) => (None, false),
                Ok(manifest) => (manifest.why_no_lambda(), manifest.is_workspace),
            };
            match reason {
                None => found.sources.push(Source {
                    path: at.to_owned(),
                    kind: Kind::Crate,
                    folder: folder(path, at),
                }),
                Some("") => {}
                Some(reason) => found.skipped.push((at.to_owned(), reason)),
            }
            match is_workspace {
                true => crates.push(at.to_owned()),
                false => walk.skip_current_dir(),
            }
        } else if let Some(kind) = Kind::of_file(at)
            && !crates.iter().any(|directory| at.starts_with(directory))
        {
            let text = fs::read(at).with_context(|| format!("cannot read {}", at.display()))?;
            let (mark, why_none) = kind.mark();
            match text.windows(mark.len()).any(|window| window == mark.as_bytes()) {
                true => found.sources.push(Source { path: at.to_owned(), kind, folder: folder(path, at) }),
                false => found.skipped.push((at.to_owned(), why_none)),
            }
        }
    }
    Ok(found)
}

/// The folder of `at`, relative to `root`.
fn folder(root: &Path, at: &Path) -> PathBuf {
    at.parent().and_then(|parent| parent.strip_prefix(root).ok()).unwrap_or(Path::new("")).to_owned()
}

/// Whether a directory is hidden or holds what cargo built.
fn is_excluded(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    name.starts_with('.') || name == "target" || entry.path().join("CACHEDIR.TAG").is_file()
}

/// The parts of a manifest that decide whether its crate is a lambda.
struct Manifest {
    is_package: bool,
    is_workspace: bool,
    uses_effe_abi: bool,
    is_cdylib: bool,
}

impl Manifest {
    fn read(directory: &Path) -> Result<Manifest> {
        let path = directory.join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: toml::Table =
            text.parse().with_context(|| format!("{} is no manifest", path.display()))?;
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        let uses_effe_abi = dependencies.is_some_and(|dependencies| {
            let renamed = |value: &toml::Value| value.get("package")?.as_str().map(|name| name == "effe-abi");
            dependencies.iter().any(|(name, value)| name == "effe-abi" || renamed(value) == Some(true))
        });
        let crate_types =
            manifest.get("lib").and_then(|lib| lib.get("crate-type").or_else(|| lib.get("crate_type")));
        let crate_types = crate_types.and_then(toml::Value::as_array);
        Ok(Manifest {
            is_package: manifest.contains_key("package"),
            is_workspace: manifest.contains_key("workspace"),
            uses_effe_abi,
            is_cdylib: crate_types
                .is_some_and(|types| types.iter().any(|kind| kind.as_str() == Some("cdylib"))),
        })
    }

    /// Why the crate is no lambda; empty if it isn't a package, which needs no explanation.
    fn why_no_lambda(&self) -> Option<&'static str> {
        match (self.is_package, self.uses_effe_abi, self.is_cdylib) {
            (false, ..) => Some(""),
            (_, false, _) => Some("it doesn't depend on effe-abi"),
            (_, _, false) => Some("its [lib] has no crate-type = [\"cdylib\"]"),
            _ => None,
        }
    }
}
