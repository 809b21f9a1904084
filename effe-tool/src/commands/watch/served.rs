//! One lambda of a watch: the files that it is built from, its build, and the loader that serves it.
//!
//! [`super`] decides when it is built.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
};

use anyhow::Result;
use rustix::process::Signal;

use crate::{
    artifact::Artifact,
    cargo,
    changes::Snapshot,
    cli::{BuildArgs, WatchArgs},
    lambda, loader,
    package::{self, Lambda},
    serving::{self, RunningLoader},
    shell::Shell,
    source::Source,
};

/// An event that the loop of a watch waits for.
pub(super) enum Event {
    /// Something on disk has changed.
    Change,
    /// A line that the loader with this number wrote; `None` if that loader has ended.
    Line(u64, Option<String>),
    /// A signal says to stop.
    Stop,
}

/// A lambda and the loader that serves it.
pub(super) struct Watched {
    pub(super) source: Source,
    /// The file that its loader opens; each build replaces it.
    pub(super) plugin: PathBuf,
    pub(super) port: u16,
    pub(super) serving: Option<RunningLoader>,
    /// The loader's number.
    pub(super) loader: u64,
    pub(super) generation: u64,
    /// The files and directories that it is built from.
    pub(super) roots: Vec<PathBuf>,
    pub(super) seen: Snapshot,
}

impl Watched {
    /// Builds the lambda. Returns false if the result is the same file that is served already.
    pub(super) fn build(
        &mut self,
        target: &Path,
        args: &BuildArgs,
        shell: &mut Shell,
    ) -> Result<(Lambda, bool)> {
        let lambda = lambda::prepare(&self.source, target, args)?;
        let built = cargo::plugin(&lambda, target, args, shell)?;
        self.plugin = target.join("watch").join(package::unique_name(&lambda)).with_extension("so");
        let is_the_same = self.serving.is_some()
            && fs::read(&built).is_ok_and(|new| fs::read(&self.plugin).is_ok_and(|old| old == new));
        if is_the_same {
            return Ok((lambda, false));
        }
        cargo::replace_file(&built, &self.plugin)?;
        Ok((lambda, true))
    }

    /// Makes the loader swap in the new build, or starts a loader if none runs.
    pub(super) fn serve(
        &mut self,
        args: &WatchArgs,
        number: u64,
        sender: &Sender<Event>,
        shell: &mut Shell,
    ) -> Result<()> {
        if let Some(serving) = &self.serving {
            serving.signal(Signal::HUP);
            return Ok(());
        }
        let artifact = Artifact::read(&self.plugin)?;
        let mut command = loader::command(&artifact)?;
        command.args(serving::loopback_flags(&args.loader_args)).arg("--port").arg(self.port.to_string());
        command.args::<_, &OsString>(&args.loader_args);
        let mut serving = RunningLoader::spawn(command, &artifact, shell)?;
        let sender = sender.clone();
        serving.forward(move |line| drop(sender.send(Event::Line(number, line))));
        self.serving = Some(serving);
        self.loader = number;
        self.generation = 1;
        self.print_address(shell);
        Ok(())
    }

    pub(super) fn print_address(&self, shell: &mut Shell) {
        if let Some(serving) = &self.serving {
            let (path, address) = (self.source.path.display(), serving.address());
            shell.status(
                "Serving",
                format_args!("{path} at http://{address}, generation {}", self.generation),
            );
        }
    }
}

/// Everything on this machine that a lambda is built from, except what cargo wrote.
pub(super) fn roots(source: &Source, lambda: &Lambda, target: &Path) -> Vec<PathBuf> {
    let mut roots: Vec<_> = source.path.canonicalize().into_iter().collect();
    let workspace = ["Cargo.toml", "Cargo.lock"].map(|name| lambda.workspace.join(name));
    let others = cargo::local_packages(&lambda.manifest).unwrap_or_default();
    for path in workspace.into_iter().chain(others) {
        let is_new = !roots.iter().any(|root| path.starts_with(root));
        if is_new && !path.starts_with(target) {
            roots.push(path);
        }
    }
    roots
}
