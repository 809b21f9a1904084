//! `completions`: prints the script by which a shell completes commands, flags and paths.

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

use crate::{
    cli::{Cli, CompletionsArgs},
    shell::Shell,
};

/// Prints the script.
///
/// # Errors
/// stdout is closed.
pub(crate) fn run(args: &CompletionsArgs, shell: &mut Shell) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "effe-tool", &mut text);
    shell.result(&text)?;
    Ok(ExitCode::SUCCESS)
}
