//! `docker`
use crate::{cli::DockerArgs, shell::Shell};
use std::process::ExitCode;
pub(crate) fn run(_args: &DockerArgs, _shell: &mut Shell) -> anyhow::Result<ExitCode> {
    anyhow::bail!("it comes next")
}
