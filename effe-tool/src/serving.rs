//! A loader of our own, for as long as a command needs it, and no longer than this process lives.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{self, Child, Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde_json::Value;

use crate::{artifact::Artifact, loader, shell::Shell};

/// How long a lambda may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to stop, past what the loader itself allows.
pub(crate) const FAREWELL: Duration = Duration::from_secs(40);

/// The first argument of a process of ours that is to become a loader.
const TETHER: &str = "--tethered-to";

/// The same command, which the system tells to stop when this thread ends, however it does. It must be the main one.
///
/// To ask the system for that between fork and exec is unsafe; so this program is executed first, asks, and becomes
/// the other one.
fn tethered(command: &Command) -> Command {
    let mut tethered = Command::new("/proc/self/exe");
    tethered.arg(TETHER).arg(process::id().to_string()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tethered.env(name, value),
            None => tethered.env_remove(name),
        };
    }
    tethered
}

/// Becomes what [`tethered`] has in its arguments, if this process was started for that; the exit code if it can't.
pub(crate) fn become_tethered(args: &[OsString]) -> Option<ExitCode> {
    let [_, tether, parent, program, args @ ..] = args else { return None };
    if tether != TETHER {
        return None;
    }
    let is_parent = |pid: Pid| OsStr::new(&pid.as_raw_nonzero().to_string()) == parent;
    let err = match set_parent_process_death_signal(Some(Signal::TERM)) {
        // Whoever wanted it has ended meanwhile.
        Ok(()) if !getppid().is_some_and(is_parent) => return Some(ExitCode::FAILURE),
        Ok(()) => Command::new(program).args(args).exec(),
        Err(err) => err.into(),
    };
    Shell::plain().error(format_args!("cannot run {}: {err}", program.display()));
    Some(ExitCode::FAILURE)
}

/// Loopback: whoever tries a lambda serves nobody else, unless told to.
pub(crate) fn at_home(given: &[OsString]) -> Vec<OsString> {
    let has_host = given.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == "--host" || arg.starts_with("--host=")
    });
    if has_host || env::var_os("EFFE_HOST").is_some() {
        return Vec::new();
    }
    ["--host", "127.0.0.1"].map(OsString::from).to_vec()
}

/// A loader that listens. Dropping it kills it; [`Serving::stop`] is the polite way.
pub(crate) struct Serving {
    child: Child,
    lines: Receiver<String>,
    address: String,
}

impl Serving {
    /// Starts a loader on a free port of loopback, and waits until it listens.
    ///
    /// # Errors
    /// It ends before that; its reason has been shown.
    pub(crate) fn start(artifact: &Artifact, args: &[OsString], shell: &mut Shell) -> Result<Serving> {
        let mut command = loader::command(artifact)?;
        command.args(["--host", "127.0.0.1", "--port", "0"]).args(args);
        Serving::by(command, artifact, shell)
    }

    /// The same with a command that says where.
    ///
    /// # Errors
    /// As [`Serving::start`].
    pub(crate) fn by(mut command: Command, artifact: &Artifact, shell: &mut Shell) -> Result<Serving> {
        command.args(["--syslog", "none", "--log-format", "json"]);
        shell.command(&command);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut command = tethered(&command);
        // Ctrl-C is for this process alone: a second signal would have the loader drop what it does.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
        let stderr = child.stderr.take().ok_or_else(|| anyhow!("{program} has no stderr"))?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut serving = Serving { child, lines, address: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while serving.address.is_empty() {
            match serving.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => match address(&line) {
                    Some(address) => serving.address = address,
                    None => show(&line, shell),
                },
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("{} does not listen after {PATIENCE:?}", artifact.path.display())
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status =
                        serving.child.wait().with_context(|| format!("cannot wait for {program}"))?;
                    bail!("{} is not served: the loader ended ({status})", artifact.path.display());
                }
            }
        }
        Ok(serving)
    }

    /// `127.0.0.1:40001`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Hands everything on that the loader says from now on, from a thread of its own, and `None` when it has ended.
    pub(crate) fn forward(&mut self, mut to: impl FnMut(Option<String>) + Send + 'static) {
        let lines = std::mem::replace(&mut self.lines, mpsc::channel().1);
        thread::spawn(move || {
            lines.iter().for_each(|line| to(Some(line)));
            to(None);
        });
    }

    /// Sends a signal; that it has ended already is for others to see.
    pub(crate) fn tell(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// How it has ended.
    ///
    /// # Errors
    /// The system doesn't know.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for the loader")
    }

    /// Stops the loader as an operator does, and shows what the lambda has reported meanwhile.
    ///
    /// # Errors
    /// It does not stop, or did not stop every Context.
    pub(crate) fn stop(mut self, shell: &mut Shell) -> Result<()> {
        self.tell(Signal::TERM);
        let deadline = Instant::now() + FAREWELL;
        // Its stderr is closed when it has ended.
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            show(&line, shell);
        }
        if Instant::now() >= deadline {
            bail!("the loader does not stop; it is killed");
        }
        let status = self.wait()?;
        if !status.success() {
            bail!("the loader failed ({status})");
        }
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["source"] != "loader" || !line["message"].as_str()?.starts_with("listening on ") {
        return None;
    }
    line["address"].as_str().map(str::to_owned)
}

/// The generation that a line of the loader's says to serve from now on.
pub(crate) fn generation(line: &str) -> Option<u64> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["source"] != "loader" || !line["message"].as_str()?.starts_with("generation ") {
        return None;
    }
    line["generation"].as_str()?.parse().ok()
}

/// What the lambda reports, and what the loader has to complain of.
pub(crate) fn show(line: &str, shell: &mut Shell) {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
        // Not the journal's: printed by the lambda itself, or before there was a journal.
        return shell.passed_on(line);
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    let (level, source, message) = (text("level"), text("source"), text("message"));
    if source == "loader" && ["debug", "info", "notice"].contains(&level) {
        return;
    }
    match level {
        "debug" | "info" | "notice" => shell.note(format_args!("the {source} says: {message}")),
        "warning" => shell.warning(format_args!("the {source} says: {message}")),
        _ => shell.error(format_args!("the {source} says: {message}")),
    }
}
