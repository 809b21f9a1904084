//! `watch`: serves lambdas, rebuilds each one when its source changes, and makes its loader swap in the new build. If a
//! build fails, or the loader refuses it, the last good generation continues to serve.
//!
//! This file owns the event loop and the set of lambdas; [`served`] owns the building and serving of one.

mod served;
mod slot;
mod trigger;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use self::{
    served::{Event, Watched},
    slot::Slot,
    trigger::Outcome,
};
use super::columns;
use crate::{
    changes::{ChangeWatcher, Snapshot},
    cli::{BuildArgs, WatchArgs},
    lambda,
    loader::{self, PORT},
    serving::{self, RunningLoader, STOP_TIMEOUT},
    shell::Shell,
    source::{self, Source},
    usage::Usage,
};

/// A change is complete when nothing was written for this long: editors write several files, and some of them twice.
const QUIET: Duration = Duration::from_millis(100);
/// A file that changes all the time delays the look at the others no longer than this.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// A lambda that is replaced is gone for a moment; after this time, its loader is stopped.
const GONE: Duration = Duration::from_secs(1);

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
    let changes = ChangeWatcher::new(move |paths| drop(notice.send(Event::Change(paths))))?;
    // Without optimizations by default: during development, a short build matters more than a fast lambda.
    let build = BuildArgs { debug: !args.build.release, ..args.build.clone() };
    let target = lambda::target_directory(&args.path, &build)?;
    let slot = Slot::take(&target)?;
    let path = std::path::absolute(&args.path)?;
    let watch = Watch {
        args,
        is_crate: path.join("Cargo.toml").is_file(),
        path,
        build,
        target,
        slot,
        next_port: args.port.unwrap_or(PORT),
        ports: BTreeMap::new(),
        changes,
        noted: BTreeSet::new(),
        unseen: BTreeSet::new(),
        all: Snapshot::default(),
        sender,
        n_loaders: 0,
        lambdas: BTreeMap::new(),
        stopping: BTreeMap::new(),
    };
    watch.run(&events, shell)
}

struct Watch<'a> {
    args: &'a WatchArgs,
    /// The path that is watched.
    path: PathBuf,
    /// Whether it is a crate: without its manifest, it is gone.
    is_crate: bool,
    build: BuildArgs,
    target: PathBuf,
    slot: Slot,
    next_port: u16,
    /// The port of each lambda that was ever there.
    ports: BTreeMap<PathBuf, u16>,
    changes: ChangeWatcher,
    /// Paths that have changed since the last look.
    noted: BTreeSet<PathBuf>,
    /// Paths that have changed and that the last look did not see, such as those that a .gitignore names.
    unseen: BTreeSet<PathBuf>,
    /// All below `path`.
    all: Snapshot,
    sender: Sender<Event>,
    n_loaders: u64,
    lambdas: BTreeMap<PathBuf, Watched>,
    /// The loaders of removed lambdas, which are stopping, by their numbers. Dropping one would kill it.
    stopping: BTreeMap<u64, (PathBuf, RunningLoader)>,
}

/// When to look at the disk again.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    /// No later than this.
    latest: Instant,
}

impl Watch<'_> {
    fn run(mut self, events: &Receiver<Event>, shell: &mut Shell) -> Result<ExitCode> {
        let mut due = self.look(shell)?;
        if self.lambdas.is_empty() {
            bail!("{} holds no lambda; make one with effe-tool new NAME", self.args.path.display());
        }
        loop {
            // First, because the events of a file that changes all the time never end.
            if due.is_some_and(|due| due.at <= Instant::now()) {
                due = self.look(shell)?;
                continue;
            }
            let event = match due {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(Due { at, .. }) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Change(paths)) => due = self.on_change(paths, due),
                Ok(Event::Line(loader, line)) => self.on_line(loader, line, shell)?,
                Ok(Event::Stop) => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("no source of events is left"),
            }
        }
        self.stop(events, shell)
    }

    /// When to look after a change. Files that the last look could not see, such as ignored ones, never put it off.
    fn on_change(&mut self, paths: Vec<PathBuf>, due: Option<Due>) -> Option<Due> {
        let now = Instant::now();
        let is_unknown = paths.is_empty();
        let paths: Vec<_> = paths.into_iter().filter(|path| self.concerns(path)).collect();
        if paths.is_empty() && !is_unknown {
            return due;
        }
        let puts_off = is_unknown || paths.iter().any(|path| !self.unseen.contains(path));
        self.noted.extend(paths);
        let latest = due.map_or(now + MAX_WAIT, |due| due.latest);
        let at = match puts_off {
            true => (now + QUIET).min(latest),
            false => due.map_or(latest, |due| due.at),
        };
        Some(Due { at, latest })
    }

    /// Whether a change of this path may matter for anything that is watched.
    fn concerns(&self, path: &Path) -> bool {
        let mut built_from = self.lambdas.values().filter(|watched| watched.is_built_from(path)).peekable();
        let is_directory = path.is_dir() || self.seen().any(|seen| seen.has_directory(path));
        if built_from.peek().is_some() && !is_directory {
            return built_from.any(|watched| watched.trigger.counts(path));
        }
        path.starts_with(&self.path)
            || self.path.starts_with(path)
            || self.lambdas.values().any(|watched| watched.is_near(path))
    }

    /// All that the last look has seen.
    fn seen(&self) -> impl Iterator<Item = &Snapshot> {
        self.lambdas.values().map(|watched| watched.trigger.seen()).chain([&self.all])
    }

    /// The lambdas that are there now.
    fn find(&self) -> Result<Vec<Source>> {
        let is_gone = !self.path.exists() || (self.is_crate && !self.path.join("Cargo.toml").exists());
        if is_gone && !self.ports.is_empty() {
            return Ok(Vec::new());
        }
        Ok(source::all(&self.args.path, &self.target)?.sources)
    }

    /// Looks at the disk: serves new lambdas, stops removed ones, and rebuilds changed ones. Returns when to look again
    /// even if nothing changes.
    fn look(&mut self, shell: &mut Shell) -> Result<Option<Due>> {
        self.all = self.changes.look(std::slice::from_ref(&self.path))?;
        let found = match self.find() {
            Ok(found) => found,
            Err(err) if !self.ports.is_empty() => {
                shell.error(format_args!("{err:#}; what is served goes on"));
                return Ok(None);
            }
            Err(err) => return Err(err),
        };
        let (mut changed, mut due) = (false, None);
        let is_gone = |path: &PathBuf| !found.iter().any(|source| source.path == *path);
        let gone: Vec<_> = self.lambdas.keys().filter(|path| is_gone(path)).cloned().collect();
        for path in gone {
            match self.remove(&path, shell) {
                Some(at) => due = Some(Due { at, latest: at }),
                None => changed = true,
            }
        }
        for source in found {
            let path = source.path.clone();
            if !self.lambdas.contains_key(&path) {
                changed = true;
                let port = match self.ports.get(&path) {
                    Some(port) => *port,
                    None => self.port()?,
                };
                self.ports.insert(path.clone(), port);
                self.lambdas.insert(path.clone(), Watched::new(source, &self.slot.directory, port));
            }
            self.refresh(&path, shell)?;
        }
        let mut unseen = std::mem::take(&mut self.unseen);
        unseen.append(&mut self.noted);
        unseen.retain(|path| path.exists() && !self.seen().any(|seen| seen.has(path)));
        self.unseen = unseen;
        if changed && !self.ports.contains_key(&self.args.path) {
            shell.table(&self.table())?;
        }
        Ok(due)
    }

    /// Removes a lambda that is gone and stops its loader, unless it went only now: then this returns when to look
    /// again.
    fn remove(&mut self, path: &Path, shell: &mut Shell) -> Option<Instant> {
        let watched = self.lambdas.get_mut(path)?;
        let since = *watched.gone_since.get_or_insert_with(Instant::now);
        if since.elapsed() < GONE {
            return Some(since + GONE);
        }
        if let Some(Watched { serving: Some(serving), loader, .. }) = self.lambdas.remove(path) {
            serving.signal(Signal::TERM);
            shell.status("Stopping", format_args!("{}, which is gone", path.display()));
            self.stopping.insert(loader, (path.to_owned(), serving));
        }
        None
    }

    /// Rebuilds a lambda if its files differ from those of its last build.
    fn refresh(&mut self, path: &Path, shell: &mut Shell) -> Result<()> {
        let Some(watched) = self.lambdas.get_mut(path) else { return Ok(()) };
        watched.gone_since = None;
        // It has the port until it has ended; then this is called again.
        if self.stopping.values().any(|(stopping, _)| stopping == path) {
            return Ok(());
        }
        let known = watched.roots();
        let now = self.changes.look(&known)?;
        if !watched.trigger.begin(now) {
            return Ok(());
        }
        let built = watched.build(&self.target, &self.build, shell);
        let later = self.changes.look(&watched.roots())?;
        let served = watched.end_build(built, &later, &known).and_then(|(outcome, notes)| {
            notes.iter().for_each(|note| shell.warning(format_args!("{}: {note}", path.display())));
            match outcome {
                Outcome::New => self.serve(path, shell),
                Outcome::Same | Outcome::Failed => Ok(()),
            }
        });
        if let (Err(err), Some(watched)) = (served, self.lambdas.get(path)) {
            let goes_on = match watched.serving {
                Some(_) => format!("generation {} goes on serving", watched.generation),
                None => "it is tried again after the next change".to_owned(),
            };
            shell.error(format_args!("{}: {err:#}; {goes_on}", path.display()));
        }
        Ok(())
    }

    fn serve(&mut self, path: &Path, shell: &mut Shell) -> Result<()> {
        let Some(watched) = self.lambdas.get_mut(path) else { return Ok(()) };
        self.n_loaders += 1;
        watched.serve(self.args, self.n_loaders, &self.sender, shell)?;
        self.ports.insert(path.to_owned(), watched.port);
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
        if self.stopping.contains_key(&loader) {
            return match line {
                Some(line) => {
                    serving::show(&line, shell);
                    Ok(())
                }
                None => self.on_stopped(loader, shell),
            };
        }
        let Some(watched) = self.lambdas.values_mut().find(|watched| watched.loader == loader) else {
            return Ok(());
        };
        match line {
            Some(line) => match serving::generation(&line) {
                Some(generation) => watched.serves_generation(generation, shell),
                None => serving::show(&line, shell),
            },
            None if watched.serving.is_some() => {
                let status = watched.reap()?;
                let path = watched.source.path.clone();
                let is_first = !std::mem::replace(&mut watched.restarted, true);
                let when = if is_first { "again" } else { "again after the next change" };
                let path_text = path.display();
                shell.error(format_args!(
                    "{path_text}: its loader has ended ({status}); it is started {when}"
                ));
                if is_first && let Err(err) = self.serve(&path, shell) {
                    shell
                        .error(format_args!("{path_text}: {err:#}; it is tried again after the next change"));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// The loader of a removed lambda has ended. If the lambda is back, it is served now.
    fn on_stopped(&mut self, loader: u64, shell: &mut Shell) -> Result<()> {
        let Some((path, mut serving)) = self.stopping.remove(&loader) else { return Ok(()) };
        let status = serving.wait()?;
        if !status.success() {
            shell.error(format_args!("{}: its loader failed ({status})", path.display()));
        }
        self.refresh(&path, shell)
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
        for (path, watched) in std::mem::take(&mut self.lambdas) {
            if let Some(serving) = watched.serving {
                serving.signal(Signal::TERM);
                self.stopping.insert(watched.loader, (path, serving));
            }
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut failed = false;
        while !self.stopping.is_empty() {
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Line(_, Some(line))) => serving::show(&line, shell),
                Ok(Event::Line(loader, None)) => {
                    if let Some((_, mut serving)) = self.stopping.remove(&loader) {
                        failed |= !serving.wait()?.success();
                    }
                }
                Ok(Event::Change(_)) => {}
                Ok(Event::Stop) => bail!("told to stop again: {} loaders are killed", self.stopping.len()),
                Err(_) => bail!("{} loaders do not stop; they are killed", self.stopping.len()),
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
