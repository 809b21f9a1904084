//! Container engines (docker, podman, buildah): finds one that answers, and makes it load or build an image.

use std::{
    fs::File,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{cli::Engine, shell::Shell};

/// How long an engine may take to answer. One whose daemon hangs counts as absent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The engine that the user named, or the first that answers.
///
/// # Errors
/// No engine answers.
pub(crate) fn find(asked: Option<Engine>) -> Result<Engine> {
    let all = [Engine::Docker, Engine::Podman, Engine::Buildah];
    if let Some(engine) = asked {
        if !answers(engine) {
            bail!("{} does not answer; start it, or write an archive with --oci FILE", program(engine));
        }
        return Ok(engine);
    }
    match all.into_iter().find(|engine| answers(*engine)) {
        Some(engine) => Ok(engine),
        None => bail!("neither docker nor podman nor buildah answers; write an archive with --oci FILE"),
    }
}

/// Loads an image from an archive, under its tag.
///
/// # Errors
/// The engine's own.
pub(crate) fn load(engine: Engine, archive: &Path, tag: &str, shell: &mut Shell) -> Result<()> {
    match engine {
        Engine::Docker | Engine::Podman => {
            let file = File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
            let mut command = Command::new(program(engine));
            output(command.arg("load").stdin(file), shell)?;
        }
        Engine::Buildah => {
            let mut pull = Command::new(program(engine));
            let archive = format!("oci-archive:{}", archive.display());
            let pulled = output(pull.args(["pull", "--quiet", &archive]), shell)?;
            let pulled = String::from_utf8_lossy(&pulled.stdout).trim().to_owned();
            output(Command::new(program(engine)).args(["tag", &pulled, tag]), shell)?;
        }
    }
    Ok(())
}

/// Builds an image from a directory that has a Dockerfile.
///
/// # Errors
/// The engine's own.
pub(crate) fn build(engine: Engine, context: &Path, tag: &str, shell: &mut Shell) -> Result<()> {
    let mut command = Command::new(program(engine));
    command.args(["build", "--tag", tag]).arg(context);
    output(&mut command, shell).map(|_| ())
}

/// The name of the engine's program.
pub(crate) fn program(engine: Engine) -> &'static str {
    match engine {
        Engine::Docker => "docker",
        Engine::Podman => "podman",
        Engine::Buildah => "buildah",
    }
}

fn answers(engine: Engine) -> bool {
    let mut command = Command::new(program(engine));
    match engine {
        // The client prints its own version even without a daemon, so ask for the server's.
        Engine::Docker => command.args(["version", "--format", "{{.Server.Version}}"]),
        Engine::Podman | Engine::Buildah => command.arg("info"),
    };
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return false };
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

fn output(command: &mut Command, shell: &mut Shell) -> Result<Output> {
    shell.command(command);
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}
