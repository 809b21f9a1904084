//! `run`: compiles a lambda and becomes its loader.

use std::{os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Result, anyhow};

use crate::{cli::RunArgs, loader, serving, shell::Shell};

/// Compiles and serves, until the loader ends.
///
/// # Errors
/// It doesn't compile, or there is no loader.
pub(crate) fn run(args: &RunArgs, shell: &mut Shell) -> Result<ExitCode> {
    let artifact = super::artifact(&args.path, &args.build, shell)?;
    let mut command = loader::command(&artifact)?;
    command.args(serving::at_home(&args.loader_args)).args(&args.loader_args);
    shell.command(&command);
    // In the place of this process: signals and the exit code need nobody between.
    let err = command.exec();
    Err(anyhow!(err).context(format!("cannot run {}", command.get_program().to_string_lossy())))
}
