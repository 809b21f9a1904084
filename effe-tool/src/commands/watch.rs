//! `watch`: serves lambdas, builds each again when its source changes, and has its loader swap the new one in. What
//! doesn't build, or can't be loaded, leaves the last good generation serving.

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
    Usage,
    changes::{Notices, Snapshot},
    cli::{BuildArgs, WatchArgs},
    lambda, loader,
    serving::{self, FAREWELL, Serving},
    shell::Shell,
    source,
};

/// An editor writes several files at once, and some of them twice: quiet for so long is the end of a change.
const QUIET: Duration = Duration::from_millis(100);
/// The first port.
const PORT: u16 = 8080;

/// Serves until told to stop.
///
/// # Errors
/// There is nothing to watch, or no loader.
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
    let notices = Notices::new(move || drop(notice.send(Event::Change)))?;
    // Who watches wants to see the change soon, not to see it run fast.
    let build = BuildArgs { debug: !args.build.release, ..args.build.clone() };
    let target = lambda::target_directory(&args.path, &build)?;
    let next_port = args.port.unwrap_or(PORT);
    let (lambdas, leaving, n_loaders) = (BTreeMap::new(), Vec::new(), 0);
    let watch = Watch { args, build, target, next_port, notices, sender, n_loaders, lambdas, leaving };
    watch.run(&events, shell)
}

struct Watch<'a> {
    args: &'a WatchArgs,
    build: BuildArgs,
    target: PathBuf,
    next_port: u16,
    notices: Notices,
    sender: Sender<Event>,
    n_loaders: u64,
    lambdas: BTreeMap<PathBuf, Watched>,
    /// Of lambdas that are gone. Dropping one would kill it.
    leaving: Vec<Serving>,
}

impl Watch<'_> {
    fn run(mut self, events: &Receiver<Event>, shell: &mut Shell) -> Result<ExitCode> {
        self.look(shell)?;
        if self.lambdas.is_empty() {
            bail!("{} holds no lambda; make one with effe-tool new NAME", self.args.path.display());
        }
        loop {
            match events.recv().context("nobody is left to wait for")? {
                Event::Stop => break,
                Event::Said(loader, line) => self.heard(loader, line, shell)?,
                Event::Change => {
                    if self.settle(events, shell)? {
                        break;
                    }
                    self.look(shell)?;
                }
            }
        }
        self.stop(events, shell)
    }

    /// Waits until nothing has changed for a while; whether it is time to go.
    fn settle(&mut self, events: &Receiver<Event>, shell: &mut Shell) -> Result<bool> {
        let mut quiet_at = Instant::now() + QUIET;
        loop {
            match events.recv_timeout(quiet_at.saturating_duration_since(Instant::now())) {
                Ok(Event::Change) => quiet_at = Instant::now() + QUIET,
                Ok(Event::Said(loader, line)) => self.heard(loader, line, shell)?,
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(true),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
            }
        }
    }

    /// Takes up what has changed: lambdas that came, went, or are to be built again.
    fn look(&mut self, shell: &mut Shell) -> Result<()> {
        let found = match source::all(&self.args.path, &self.target) {
            Ok(found) => found.sources,
            // It may be on its way from one place to another.
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
                serving.tell(Signal::TERM);
                shell.status("Stopping", path.display());
                self.leaving.push(serving);
            }
        }
        self.notices.watch(&Snapshot::of([self.args.path.as_path()]))?;
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
            shell.result(self.table().as_bytes())?;
        }
        Ok(())
    }

    /// Builds one lambda again if its files differ from those that it was last built from.
    fn refresh(&mut self, path: &Path, shell: &mut Shell) -> Result<()> {
        let Some(watched) = self.lambdas.get_mut(path) else { return Ok(()) };
        let now = Snapshot::of(watched.roots.iter().map(PathBuf::as_path));
        self.notices.watch(&now)?;
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
            // Only now it is known what else on this machine it is made of.
            watched.roots = roots(&watched.source, lambda, &self.target);
        }
        let later = Snapshot::of(watched.roots.iter().map(PathBuf::as_path));
        self.notices.watch(&later)?;
        let known = [watched.source.path.canonicalize().unwrap_or_default()];
        watched.seen.take_over(later, &known);
        if let Err(err) = served {
            let goes_on = match watched.serving {
                Some(_) => format!("generation {} goes on serving", watched.generation),
                None => "it isn't served; it will be once it is mended".to_owned(),
            };
            shell.error(format_args!("{}: {err:#}; {goes_on}", path.display()));
        }
        Ok(())
    }

    /// A port for one lambda more.
    fn port(&mut self) -> Result<u16> {
        if self.next_port == 0 {
            return Ok(0);
        }
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).context("there are no ports left; give a lower --port")?;
            // Whoever gave a port wants that one, or to hear that it is taken.
            if self.args.port.is_some() || TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
    }

    fn heard(&mut self, loader: u64, line: Option<String>, shell: &mut Shell) -> Result<()> {
        let Some(watched) = self.lambdas.values_mut().find(|watched| watched.loader == loader) else {
            return Ok(());
        };
        match line {
            Some(line) => match serving::generation(&line) {
                Some(generation) => {
                    watched.generation = generation;
                    watched.say(shell);
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

    /// Which lambda is where.
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

    /// Stops every loader as an operator does. A second order to stop is one to leave them behind dead.
    fn stop(mut self, events: &Receiver<Event>, shell: &mut Shell) -> Result<ExitCode> {
        let serving = |watch: &Watch<'_>| watch.lambdas.values().filter(|one| one.serving.is_some()).count();
        for watched in self.lambdas.values() {
            watched.serving.iter().for_each(|serving| serving.tell(Signal::TERM));
        }
        let deadline = Instant::now() + FAREWELL;
        let mut failed = false;
        while serving(&self) > 0 {
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Said(loader, Some(line))) => self.heard(loader, Some(line), shell)?,
                Ok(Event::Said(loader, None)) => {
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
