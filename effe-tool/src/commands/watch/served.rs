//! One lambda of a watch: what it is built from, and the loader that serves it.

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
    serving::{self, Serving},
    shell::Shell,
    source::Source,
};

/// What a watch waits for.
pub(super) enum Event {
    /// Something on disk has changed.
    Change,
    /// A line of the loader with this number; none if it has ended.
    Said(u64, Option<String>),
    /// It is time to go.
    Stop,
}

/// A lambda, and who serves it.
pub(super) struct Watched {
    pub(super) source: Source,
    /// What its loader is told to open; a new one takes its place.
    pub(super) plugin: PathBuf,
    pub(super) port: u16,
    pub(super) serving: Option<Serving>,
    /// The loader's number.
    pub(super) loader: u64,
    pub(super) generation: u64,
    /// What it is made of.
    pub(super) roots: Vec<PathBuf>,
    pub(super) seen: Snapshot,
}

impl Watched {
    /// Builds it; false if what came of it is what is served already.
    pub(super) fn build(
        &mut self,
        target: &Path,
        args: &BuildArgs,
        shell: &mut Shell,
    ) -> Result<(Lambda, bool)> {
        let lambda = lambda::prepare(&self.source, target, args)?;
        let built = cargo::plugin(&lambda, target, args, shell)?;
        self.plugin = target.join("watch").join(package::distinct(&lambda)).with_extension("so");
        let is_the_same = self.serving.is_some()
            && fs::read(&built).is_ok_and(|new| fs::read(&self.plugin).is_ok_and(|old| old == new));
        if is_the_same {
            return Ok((lambda, false));
        }
        cargo::put(&built, &self.plugin)?;
        Ok((lambda, true))
    }

    /// Has its loader swap it in, or starts one.
    pub(super) fn serve(
        &mut self,
        args: &WatchArgs,
        number: u64,
        sender: &Sender<Event>,
        shell: &mut Shell,
    ) -> Result<()> {
        if let Some(serving) = &self.serving {
            serving.tell(Signal::HUP);
            return Ok(());
        }
        let artifact = Artifact::read(&self.plugin)?;
        let mut command = loader::command(&artifact)?;
        command.args(serving::at_home(&args.loader_args)).arg("--port").arg(self.port.to_string());
        command.args::<_, &OsString>(&args.loader_args);
        let mut serving = Serving::by(command, &artifact, shell)?;
        let sender = sender.clone();
        serving.forward(move |line| drop(sender.send(Event::Said(number, line))));
        self.serving = Some(serving);
        self.loader = number;
        self.generation = 1;
        self.say(shell);
        Ok(())
    }

    pub(super) fn say(&self, shell: &mut Shell) {
        if let Some(serving) = &self.serving {
            let (path, address) = (self.source.path.display(), serving.address());
            shell.status(
                "Serving",
                format_args!("{path} at http://{address}, generation {}", self.generation),
            );
        }
    }
}

/// Everything on this machine that a lambda is made of, and that cargo didn't make.
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
