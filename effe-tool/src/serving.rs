//! Runs a loader as a child of this process, reads its log, and stops it. The child never outlives this process.
//!
//! [`crate::loader`] finds the loader and makes the command line.

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

use crate::{
    artifact::Artifact,
    loader::{self, DRAIN_TIMEOUT, STOP_MARGIN},
    shell::Shell,
};

/// How long a loader may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a loader with default flags may take to stop, before it is killed.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs((DRAIN_TIMEOUT + STOP_MARGIN) as u64);

/// The first argument of a process of this program that becomes a loader; see [`bound`].
const BIND_FLAG: &str = "--bound-to";

/// The same command, bound to this thread: when the thread ends, for whatever reason, the kernel sends SIGTERM to the
/// command's process (`PR_SET_PDEATHSIG`). Call it from the main thread, which ends with the process.
///
/// The child itself must ask the kernel for this signal. Code between fork and exec would be unsafe, so the child first
/// executes this program again, which asks for the signal and then executes the command ([`become_bound`]).
fn bound(command: &Command) -> Command {
    let mut bound = Command::new("/proc/self/exe");
    bound.arg(BIND_FLAG).arg(process::id().to_string()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}

/// If [`bound`] started this process, executes the command in the arguments. Returns the exit code if that fails, and
/// `None` if this process was started in another way.
pub(crate) fn become_bound(args: &[OsString]) -> Option<ExitCode> {
    let [_, flag, parent, program, args @ ..] = args else { return None };
    if flag != BIND_FLAG {
        return None;
    }
    let is_parent = |pid: Pid| OsStr::new(&pid.as_raw_nonzero().to_string()) == parent;
    let err = match set_parent_process_death_signal(Some(Signal::TERM)) {
        // The parent has ended before the kernel was asked.
        Ok(()) if !getppid().is_some_and(is_parent) => return Some(ExitCode::FAILURE),
        Ok(()) => Command::new(program).args(args).exec(),
        Err(err) => err.into(),
    };
    Shell::plain().error(format_args!("cannot run {}: {err}", program.display()));
    Some(ExitCode::FAILURE)
}

/// Flags that bind the loader to loopback, unless flags or the environment name a host: a lambda that is being tried
/// out isn't open to the network.
pub(crate) fn loopback_flags(given: &[OsString]) -> Vec<OsString> {
    let has_host = given.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == "--host" || arg.starts_with("--host=")
    });
    if has_host || env::var_os("EFFE_HOST").is_some() {
        return Vec::new();
    }
    ["--host", "127.0.0.1"].map(OsString::from).to_vec()
}

/// A loader that listens. Dropping it kills the process; [`RunningLoader::stop`] stops it gracefully.
pub(crate) struct RunningLoader {
    child: Child,
    lines: Receiver<String>,
    address: String,
}

impl RunningLoader {
    /// Starts a loader on a free port of loopback, and waits until it listens.
    ///
    /// # Errors
    /// The loader ends before it listens; what it said was shown. Or it doesn't listen within 60 s.
    pub(crate) fn start(artifact: &Artifact, args: &[OsString], shell: &mut Shell) -> Result<RunningLoader> {
        let mut command = loader::command(artifact)?;
        command.args(["--host", "127.0.0.1", "--port", "0"]).args(args);
        RunningLoader::spawn(command, artifact, shell)
    }

    /// Starts a loader by a command that has the address, and waits until it listens.
    ///
    /// # Errors
    /// As [`RunningLoader::start`].
    pub(crate) fn spawn(
        mut command: Command,
        artifact: &Artifact,
        shell: &mut Shell,
    ) -> Result<RunningLoader> {
        command.args(["--syslog", "none", "--log-format", "json"]);
        shell.command(&command);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut command = bound(&command);
        // In a process group of its own, the loader doesn't get Ctrl-C from the terminal. This process passes it on; a
        // second signal would make the loader stop at once.
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
        let mut serving = RunningLoader { child, lines, address: String::new() };
        let deadline = Instant::now() + START_TIMEOUT;
        while serving.address.is_empty() {
            match serving.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => match address(&line) {
                    Some(address) => serving.address = address,
                    None => show(&line, shell),
                },
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("{} does not listen after {START_TIMEOUT:?}", artifact.path.display())
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

    /// The address that it listens on, such as `127.0.0.1:40001`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// From now on, calls `to` with each line that the loader writes, and with `None` when it has ended. `to` runs on a
    /// thread of its own.
    pub(crate) fn forward(&mut self, mut to: impl FnMut(Option<String>) + Send + 'static) {
        let lines = std::mem::replace(&mut self.lines, mpsc::channel().1);
        thread::spawn(move || {
            lines.iter().for_each(|line| to(Some(line)));
            to(None);
        });
    }

    /// Sends a signal. If the process has ended already, nothing happens: [`RunningLoader::wait`] tells.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// The system's own.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for the loader")
    }

    /// Stops the loader by SIGTERM, as an operator does, and shows what it still writes.
    ///
    /// # Errors
    /// It doesn't stop in time and is killed, or its exit code isn't 0, because it could not stop every Context, for
    /// example.
    pub(crate) fn stop(mut self, timeout: Duration, shell: &mut Shell) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + timeout;
        // The channel closes when the loader has ended and its stderr with it.
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

impl Drop for RunningLoader {
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

/// The generation in a line of the loader's log that says that a new generation serves.
pub(crate) fn generation(line: &str) -> Option<u64> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["source"] != "loader" || !line["message"].as_str()?.starts_with("generation ") {
        return None;
    }
    line["generation"].as_str()?.parse().ok()
}

/// Shows a line of the loader's log: everything from the lambda, and from the loader only warnings and errors.
pub(crate) fn show(line: &str, shell: &mut Shell) {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
        // No line of the log: the lambda printed it, or the loader did before its log was open.
        return shell.relay(line);
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
