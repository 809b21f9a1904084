//! One lambda of a watch: the files that it is built from, its build, and the loader that serves it.
//!
//! [`super`] decides when to look at it, [`super::trigger`] whether it is built.

use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::mpsc::Sender,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use super::trigger::{Outcome, Trigger};
use crate::{
    artifact::Artifact,
    changes::Snapshot,
    cli::{BuildArgs, WatchArgs},
    inputs::Surroundings,
    lambda::Lambda,
    loader,
    package::short_hash,
    serving::{self, RunningLoader},
    shell::Shell,
    source::Source,
};

/// An event that the loop of a watch waits for.
pub(super) enum Event {
    /// These paths have changed, or any: the system has lost count of them.
    Change(Vec<PathBuf>),
    /// A line that the loader with this number wrote; `None` if that loader has ended.
    Line(u64, Option<String>),
    /// A signal says to stop.
    Stop,
}

/// A lambda and the loader that serves it.
pub(super) struct Watched {
    pub(super) source: Source,
    /// The file that its loader opens. Its name stays when the package is renamed.
    plugin: PathBuf,
    /// 0 until the system has picked one.
    pub(super) port: u16,
    pub(super) serving: Option<RunningLoader>,
    /// The loader's number.
    pub(super) loader: u64,
    pub(super) generation: u64,
    /// Whether its loader has ended and was started again since the last build.
    pub(super) restarted: bool,
    /// The hash of the plugin that the loader was told to serve.
    told: Option<Vec<u8>>,
    /// The hash of the plugin that it serves.
    serves: Option<Vec<u8>>,
    /// The files and directories that it is built from; the first one is the source.
    roots: Vec<PathBuf>,
    pub(super) trigger: Trigger,
    /// Since when it is gone.
    pub(super) gone_since: Option<Instant>,
}

/// What a build of a lambda was.
pub(super) struct Built {
    pub(super) result: Result<Outcome>,
    inputs: Vec<PathBuf>,
    surroundings: Surroundings,
}

impl Watched {
    /// A lambda that wasn't built yet. `directory` is where its plugin comes.
    pub(super) fn new(source: Source, directory: &Path, port: u16) -> Watched {
        let path = source.path.canonicalize().unwrap_or_else(|_| source.path.clone());
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let plugin = directory.join(format!("{stem}-{}.so", short_hash(&path)));
        Watched {
            source,
            plugin,
            port,
            serving: None,
            loader: 0,
            generation: 0,
            restarted: false,
            told: None,
            serves: None,
            roots: vec![path],
            trigger: Trigger::default(),
            gone_since: None,
        }
    }

    /// Everything on this machine that it is built from, except what cargo wrote.
    pub(super) fn roots(&mut self) -> Vec<PathBuf> {
        // The path may be a link that leads elsewhere now.
        if let Ok(path) = self.source.path.canonicalize() {
            self.roots[0] = path;
        }
        self.roots.clone()
    }

    /// Whether a path is below one of the roots.
    pub(super) fn is_built_from(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
    }

    /// Whether a path is below one of the roots, or above one, which goes and comes with it.
    pub(super) fn is_near(&self, path: &Path) -> bool {
        self.is_built_from(path) || self.roots.iter().any(|root| root.starts_with(path))
    }

    /// Builds the lambda.
    pub(super) fn build(&mut self, target: &Path, args: &BuildArgs, shell: &mut Shell) -> Built {
        self.restarted = false;
        let mut built =
            Built { result: Ok(Outcome::Failed), inputs: Vec::new(), surroundings: Surroundings::default() };
        built.result = Lambda::of(&self.source, target, args).and_then(|lambda| {
            // Before the build, so that one of them that keeps it from succeeding is watched, too.
            built.surroundings = lambda.surroundings(target, args);
            let new = self.plugin.with_extension("new");
            let inputs = lambda.plugin_at(&new, target, args, shell);
            built.inputs = inputs.as_deref().unwrap_or_default().to_vec();
            self.learn(&built, target);
            inputs?;
            self.take(&new)
        });
        built
    }

    /// Adds to the roots what a build has shown.
    fn learn(&mut self, built: &Built, target: &Path) {
        let shown = built.surroundings.paths.iter().chain(&built.inputs).cloned();
        // A failed build shows not all of them.
        let before = if built.inputs.is_empty() { self.roots.clone() } else { Vec::new() };
        self.roots.truncate(1);
        for path in shown.chain(before) {
            let is_new = !self.roots.iter().any(|root| path.starts_with(root));
            if is_new && !path.starts_with(target) {
                self.roots.push(path);
            }
        }
    }

    /// Takes a new plugin, unless it is the one that is served.
    fn take(&mut self, new: &Path) -> Result<Outcome> {
        let bytes = fs::read(new).with_context(|| format!("cannot read {}", new.display()))?;
        let hash = Some(Sha256::digest(bytes).to_vec());
        // If it was told of another one since, that one is on its way, or was refused.
        if self.serving.is_some() && self.serves == hash && self.told == hash {
            return Ok(Outcome::Same);
        }
        let plugin = &self.plugin;
        fs::rename(new, plugin).with_context(|| format!("cannot write {}", plugin.display()))?;
        self.told = hash;
        Ok(Outcome::New)
    }

    /// Ends the build for the trigger, with a look at the files after it. Returns what the user should know.
    pub(super) fn end_build(
        &mut self,
        built: Built,
        later: &Snapshot,
        known: &[PathBuf],
    ) -> Result<(Outcome, Vec<String>)> {
        let Built { result, inputs, surroundings } = built;
        let outcome = *result.as_ref().unwrap_or(&Outcome::Failed);
        // What a package that can't be asked about reads, nobody knows.
        let may_read =
            if surroundings.failures.is_empty() { surroundings.may_read } else { vec![PathBuf::from("/")] };
        let mut notes = self.trigger.end(outcome, later, known, inputs, may_read);
        // If the build failed, too, its own error says why.
        if outcome != Outcome::Failed {
            notes.extend(surroundings.failures.iter().map(|(manifest, err)| {
                format!("what {} depends on is not watched: {err:#}", manifest.display())
            }));
        }
        result.map(|outcome| (outcome, notes))
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
        // A port that the system picked once may be another's now.
        let is_taken = args.port == Some(0) && TcpListener::bind(("127.0.0.1", self.port)).is_err();
        let port = if is_taken { 0 } else { self.port };
        command.args(serving::loopback_flags(&args.loader_args)).arg("--port").arg(port.to_string());
        command.args::<_, &OsString>(&args.loader_args);
        let mut serving = RunningLoader::spawn(command, &artifact, shell)?;
        let sender = sender.clone();
        serving.forward(move |line| drop(sender.send(Event::Line(number, line))));
        if let Some(port) = serving.address().rsplit(':').next().and_then(|port| port.parse().ok()) {
            self.port = port;
        }
        self.serving = Some(serving);
        self.loader = number;
        self.generation = 0;
        self.serves_generation(1, shell);
        Ok(())
    }

    /// Its loader serves what it was told to.
    pub(super) fn serves_generation(&mut self, generation: u64, shell: &mut Shell) {
        self.generation = generation;
        self.serves.clone_from(&self.told);
        if let Some(serving) = &self.serving {
            let (path, address) = (self.source.path.display(), serving.address());
            shell.status("Serving", format_args!("{path} at http://{address}, generation {generation}"));
        }
    }

    /// Its loader has ended.
    pub(super) fn reap(&mut self) -> Result<ExitStatus> {
        let mut serving = self.serving.take().ok_or_else(|| anyhow!("there is no loader"))?;
        self.serves = None;
        serving.wait()
    }
}
