//! Asks cargo what it knows about a crate.

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use cargo_metadata::Metadata;

use crate::cli::BuildArgs;

/// What cargo knows about a crate and its workspace. Dependencies are not resolved, so no network is needed.
///
/// # Errors
/// cargo's own.
pub(crate) fn metadata(manifest: &Path, args: &BuildArgs) -> Result<Metadata> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"]).arg(manifest);
    if args.offline {
        command.arg("--offline");
    }
    if let Some(directory) = manifest.parent() {
        command.current_dir(directory);
    }
    let output = command.output().context("cannot run cargo; is it installed and in PATH?")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{}", text.trim().trim_start_matches("error: "));
    }
    let text = String::from_utf8(output.stdout).context("cargo metadata printed no text")?;
    cargo_metadata::MetadataCommand::parse(text).context("cargo metadata printed what can't be read")
}

/// The command to which arguments are added.
pub(super) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
