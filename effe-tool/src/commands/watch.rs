//! `watch`: serves lambdas, rebuilds each one when its source changes, and makes its loader swap in the new build. If a
//! build fails, or the loader refuses it, the last good generation continues to serve.
//!
//! This file owns the event loop and the set of lambdas; [`served`] owns the building and serving of one.

mod served;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use self::served::{Event, Watched, roots};
use super::columns;
use crate::{
    changes::{ChangeWatcher, Snapshot},
    cli::{BuildArgs, WatchArgs},
    lambda,
    loader::{self, PORT},
    serving::{self, RunningLoader, STOP_TIMEOUT},
    shell::Shell,
    source,
    usage::Usage,
};

/// A change is complete when nothing was written for this long: editors write several files, and some of them twice.
const QUIET: Duration = Duration::from_millis(100);

/// Serves until a signal says to stop.
///
/// # Errors
/// There is nothing to watch or no loader, or the flags are wrong. A lambda that doesn't build is no error.
pub(crate) fn run(args: &WatchArgs, shell: &mut Shell) -> Result<ExitCode> {
    let has_port = args.loader_args.iter().any(|arg| arg.to_string_lossy().starts_with("--port"));
    if has_port {
        return Err(Usage("--port is a flag of watch itself: write it before `--`".to_owned()).into());
    }
    loader::find()?;
    let (sender, events) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
    let stop = sender.clone();
    thread::spawn(move || signals.forever().try_for_each(|_| stop.send(Event::Stop)));
    let notice = sender.clone();
    let changes = ChangeWatcher::new(move || drop(notice.send(Event::Change)))?;
    // Without optimizations by default: during development, a short build matters more than a fast lambda.
    let build = BuildArgs { debug: !args.build.release, ..args.build.clone() };
    let target = lambda::target_directory(&args.path, &build)?;
    let next_port = args.port.unwrap_or(PORT);
    let (lambdas, stopping, n_loaders) = (BTreeMap::new(), Vec::new(), 0);
    let watch = Watch { args, build, target, next_port, changes, sender, n_loaders, lambdas, stopping };
    watch.run(&events, shell)
}

struct Watch<'a> {
    args: &'a WatchArgs,
    build: BuildArgs,
    target: PathBuf,
    next_port: u16,
    changes: ChangeWatcher,
    sender: Sender<Event>,
    n_loaders: u64,
    lambdas: BTreeMap<PathBuf, Watched>,
    /// The loaders of removed lambdas, which are stopping. Dropping one would kill it.
    stopping: Vec<RunningLoader>,
}

impl Watch<'_> {
    fn run(mut self, events: &Receiver<Event>, shell: &mut Shell) -> Result<ExitCode> {
        self.rescan(shell)?;
        if self.lambdas.is_empty() {
            bail!("{} holds no lambda; make one with effe-tool new NAME", self.args.path.display());
        }
        loop {
            match events.recv().context("no source of events is left")? {
                Event::Stop => break,
                Event::Line(loader, line) => self.on_line(loader, line, shell)?,
                Event::Change => {
                    if self.wait_until_quiet(events, shell)? {
                        break;
                    }
                    self.rescan(shell)?;
                }
            }
        }
        self.stop(events, shell)
    }

    /// Waits until nothing has changed for [`QUIET`]. Returns true if a signal says to stop.
    fn wait_until_quiet(&mut self, events: &Receiver<Event>, shell: &mut Shell) -> Result<bool> {
        let mut quiet_at = Instant::now() + QUIET;
        loop {
            match events.recv_timeout(quiet_at.saturating_duration_since(Instant::now())) {
                Ok(Event::Change) => quiet_at = Instant::now() + QUIET,
                Ok(Event::Line(loader, line)) => self.on_line(loader, line, shell)?,
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(true),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
            }
        }
    }

    /// Looks at the disk again: serves new lambdas, stops removed ones, and rebuilds changed ones.
    fn rescan(&mut self, shell: &mut Shell) -> Result<()> {
        let found = match source::all(&self.args.path, &self.target) {
            Ok(found) => found.sources,
            // The path may be missing only for a moment, while it is replaced.
            Err(err) if !self.lambdas.is_empty() => {
                shell.error(format_args!("{err:#}"));
                return Ok(());
            }
            Err(err) => return Err(err),
        };
        let is_gone = |path: &PathBuf| !found.iter().any(|source| source.path == *path);
        let gone: Vec<_> = self.lambdas.keys().filter(|path| is_gone(path)).cloned().collect();
        let mut changed = !gone.is_empty();
        for path in gone {
            if let Some(Watched { serving: Some(serving), .. }) = self.lambdas.remove(&path) {
                serving.signal(Signal::TERM);
                shell.status("Stopping", path.display());
                self.stopping.push(serving);
            }
        }
        self.changes.watch(&Snapshot::of([self.args.path.as_path()]))?;
        for source in found {
            let path = source.path.clone();
            if !self.lambdas.contains_key(&path) {
                changed = true;
                let roots = vec![path.canonicalize().unwrap_or_else(|_| path.clone())];
                let port = self.port()?;
                self.lambdas.insert(
                    path.clone(),
                    Watched {
                        source,
                        plugin: PathBuf::new(),
                        port,
                        serving: None,
                        loader: 0,
                        generation: 0,
                        roots,
                        seen: Snapshot::default(),
                    },
                );
            }
            self.refresh(&path, shell)?;
        }
        let is_one = self.lambdas.contains_key(&self.args.path);
        if changed && !is_one {
            shell.table(&self.table())?;
        }
        Ok(())
    }

    /// Rebuilds a lambda if its files differ from those of its last build.
    fn refresh(&mut self, path: &Path, shell: &mut Shell) -> Result<()> {
        let Some(watched) = self.lambdas.get_mut(path) else { return Ok(()) };
        let now = Snapshot::of(watched.roots.iter().map(PathBuf::as_path));
        self.changes.watch(&now)?;
        if !now.differs_from(&watched.seen) {
            return Ok(());
        }
        watched.seen = now;
        self.n_loaders += 1;
        let built = watched.build(&self.target, &self.build, shell);
        let served = match built {
            Ok((_, false)) => Ok(()),
            Ok((_, true)) => watched.serve(self.args, self.n_loaders, &self.sender, shell),
            Err(ref err) => Err(anyhow!("{err:#}")),
        };
        if let Ok((lambda, _)) = &built {
            // Only a build tells which other packages on this machine it depends on.
            watched.roots = roots(&watched.source, lambda, &self.target);
        }
        let later = Snapshot::of(watched.roots.iter().map(PathBuf::as_path));
        self.changes.watch(&later)?;
        let known = [watched.source.path.canonicalize().unwrap_or_default()];
        watched.seen.take_over(later, &known);
        if let Err(err) = served {
            let goes_on = match watched.serving {
                Some(_) => format!("generation {} goes on serving", watched.generation),
                None => "it is served once it builds and loads".to_owned(),
            };
            shell.error(format_args!("{}: {err:#}; {goes_on}", path.display()));
        }
        Ok(())
    }

    /// A port for the next lambda.
    fn port(&mut self) -> Result<u16> {
        if self.next_port == 0 {
            return Ok(0);
        }
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).context("there are no ports left; give a lower --port")?;
            // A port that the user gave is used even if it is taken: the loader's error then says so.
            if self.args.port.is_some() || TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
    }

    fn on_line(&mut self, loader: u64, line: Option<String>, shell: &mut Shell) -> Result<()> {
        let Some(watched) = self.lambdas.values_mut().find(|watched| watched.loader == loader) else {
            return Ok(());
        };
        match line {
            Some(line) => match serving::generation(&line) {
                Some(generation) => {
                    watched.generation = generation;
                    watched.print_address(shell);
                }
                None => serving::show(&line, shell),
            },
            None => {
                if let Some(mut serving) = watched.serving.take() {
                    let status = serving.wait()?;
                    shell.error(format_args!(
                        "{}: its loader has ended ({status}); it is started again after the next change",
                        watched.source.path.display()
                    ));
                }
            }
        }
        Ok(())
    }

    /// The table of lambdas and their addresses.
    fn table(&self) -> String {
        let mut rows = vec![["LAMBDA", "ADDRESS", "GENERATION"].map(str::to_owned).to_vec()];
        for (path, watched) in &self.lambdas {
            let (address, generation) = match &watched.serving {
                Some(serving) => (format!("http://{}", serving.address()), watched.generation.to_string()),
                None => ("-".to_owned(), "-".to_owned()),
            };
            rows.push(vec![path.display().to_string(), address, generation]);
        }
        columns(&rows)
    }

    /// Stops all loaders by SIGTERM, as an operator does. At a second signal, they are killed.
    fn stop(mut self, events: &Receiver<Event>, shell: &mut Shell) -> Result<ExitCode> {
        let serving = |watch: &Watch<'_>| watch.lambdas.values().filter(|one| one.serving.is_some()).count();
        for watched in self.lambdas.values() {
            watched.serving.iter().for_each(|serving| serving.signal(Signal::TERM));
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut failed = false;
        while serving(&self) > 0 {
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Line(loader, Some(line))) => self.on_line(loader, Some(line), shell)?,
                Ok(Event::Line(loader, None)) => {
                    let watched = self.lambdas.values_mut().find(|watched| watched.loader == loader);
                    if let Some(mut serving) = watched.and_then(|watched| watched.serving.take()) {
                        failed |= !serving.wait()?.success();
                    }
                }
                Ok(Event::Change) => {}
                Ok(Event::Stop) => bail!("told to stop again: {} loaders are killed", serving(&self)),
                Err(_) => bail!("{} loaders do not stop; they are killed", serving(&self)),
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
