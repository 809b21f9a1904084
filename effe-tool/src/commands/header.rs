//! `header`: prints the C header of lambdas.

use std::process::ExitCode;

use anyhow::Result;

use crate::{language::HEADER, shell::Shell};

/// Prints `effe.h`.
///
/// # Errors
/// stdout can't be written.
pub(crate) fn run(shell: &mut Shell) -> Result<ExitCode> {
    shell.result(HEADER.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
