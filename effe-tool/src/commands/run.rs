//! `run`: compiles a lambda, and replaces this process by its loader.

use std::{os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Result, anyhow};

use crate::{cli::RunArgs, loader, serving, shell::Shell};

/// Compiles and serves the lambda, until the loader ends.
///
/// # Errors
/// The lambda doesn't compile, or there is no loader.
pub(crate) fn run(args: &RunArgs, shell: &mut Shell) -> Result<ExitCode> {
    let artifact = super::artifact(&args.path, &args.build, shell)?;
    let mut command = loader::command(&artifact)?;
    command.args(serving::loopback_flags(&args.loader_args)).args(&args.loader_args);
    shell.command(&command);
    // The loader replaces this process, so that signals and the exit code need no forwarding.
    let err = command.exec();
    Err(anyhow!(err).context(format!("cannot run {}", command.get_program().to_string_lossy())))
}
