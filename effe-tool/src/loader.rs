//! Finds the loader, makes its command line, and asks it for a lambda's Info.
//!
//! [`crate::serving`] starts a loader that serves.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::artifact::{Artifact, Info, Kind};

/// The loader's default port.
pub(crate) const PORT: u16 = 8080;
/// The loader's default `--run-timeout`, in seconds: it answers 504 after it.
pub(crate) const RUN_TIMEOUT: u16 = 60;
/// The loader's default `--drain-timeout`, in seconds: how long requests may take to finish once it stops.
pub(crate) const DRAIN_TIMEOUT: u16 = 30;
/// How many seconds Stop, Retire and the end of the process may take after the drain.
pub(crate) const STOP_MARGIN: u16 = 10;
/// The loader's exit code for a plugin that it refuses.
const REFUSED: i32 = 78;

/// Finds the loader: the file that `EFFE_LOADER` names, or else one beside this tool, or else one in `PATH`.
///
/// # Errors
/// There is no loader in any of these places.
pub(crate) fn find() -> Result<PathBuf> {
    if let Some(path) = env::var_os("EFFE_LOADER").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("the variable EFFE_LOADER names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let beside = env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let beside = beside.and_then(|path| path.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    let places = beside.into_iter().chain(env::split_paths(&path));
    let mut candidates = places.map(|place| place.join("effe-loader"));
    let Some(found) = candidates.find(|candidate| candidate.is_file()) else {
        bail!(
            "there is no effe-loader beside this tool or in PATH; \
             install it (cargo install effe-loader), or set EFFE_LOADER to its path"
        );
    };
    Ok(found)
}

/// The version of a loader, by its own word.
///
/// # Errors
/// It can't be run, or says something else.
pub(crate) fn version(loader: &Path) -> Result<String> {
    let output = Command::new(loader).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", loader.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split_whitespace().nth(1) {
        Some(version) if output.status.success() => Ok(version.to_owned()),
        _ => bail!("{} --version says no version ({})", loader.display(), output.status),
    }
}

/// The command that serves an artifact: the loader with the plugin, or the executable alone.
///
/// # Errors
/// There is no loader.
pub(crate) fn command(artifact: &Artifact) -> Result<Command> {
    let path = std::path::absolute(&artifact.path)?;
    Ok(match artifact.kind {
        Kind::Executable => {
            let mut command = Command::new(path);
            command.env_remove("EFFE_PLUGIN");
            command
        }
        Kind::Plugin => {
            let mut command = Command::new(find()?);
            command.arg("--plugin").arg(path);
            command
        }
    })
}

/// The Info of an artifact, as the loader prints it.
///
/// # Errors
/// The loader refuses the artifact, or there is no loader.
pub(crate) fn info(artifact: &Artifact) -> Result<Info> {
    accepted(artifact, ask(artifact)?)
}

/// The same of an artifact that was just built. The loader opens it in a child, which shows what its file doesn't, such
/// as a symbol that no library has.
///
/// # Errors
/// As [`info`].
pub(crate) fn info_of_build(artifact: &Artifact) -> Result<Info> {
    let flags: &[&str] = if artifact.kind == Kind::Plugin { &["--strict-plugin"] } else { &[] };
    accepted(artifact, ask_with(artifact, flags)?)
}

fn accepted(artifact: &Artifact, verdict: Verdict) -> Result<Info> {
    match verdict {
        Verdict::Accepts(text) => Info::parse(&text).with_context(|| artifact.path.display().to_string()),
        Verdict::Refuses(line) => bail!("{line}"),
    }
}

/// The loader's answer about an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The loader would serve it; the text of its Info.
    Accepts(String),
    /// The loader can't use it; the one line that says why.
    Refuses(String),
}

/// Asks the loader for an artifact's Info. The loader reads it from the file's notes, and runs nothing of it. A file
/// that has none, or is a program, is opened: that runs its constructors, and nothing else of the lambda.
///
/// # Errors
/// There is no loader, it can't be run, or it fails for another reason than the artifact.
pub(crate) fn ask(artifact: &Artifact) -> Result<Verdict> {
    ask_with(artifact, &[])
}

fn ask_with(artifact: &Artifact, flags: &[&str]) -> Result<Verdict> {
    let mut command = command(artifact)?;
    // Variables that are set for serving must not change the answer.
    for (key, _) in env::vars_os() {
        if key.to_string_lossy().starts_with("EFFE_") {
            command.env_remove(key);
        }
    }
    let program = command.get_program().to_owned();
    let output = command.arg("--info").args(flags).output();
    let output = output.with_context(|| format!("cannot run {}", Path::new(&program).display()))?;
    if output.status.success() {
        let text = String::from_utf8(output.stdout).context("the loader printed no text")?;
        return Ok(Verdict::Accepts(text.trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.trim().lines().next_back().unwrap_or("it says nothing");
    let line = line.strip_prefix("effe-loader: ").unwrap_or(line).to_owned();
    if output.status.code() == Some(REFUSED) {
        return Ok(Verdict::Refuses(line));
    }
    bail!("{} --info failed ({}): {line}", artifact.path.display(), output.status);
}
