//! The trial: a plugin is opened in a child process first. A damaged file may pass every check of its headers
//! and still kill the process that opens it; in a child, this is a refusal.
//!
//! While the process has one thread, the child is a fork, which costs a tenth of starting a program. Later,
//! for a swap, the child runs the loader's own program again.
#![expect(unsafe_code, reason = "opening a plugin runs foreign code, here in a child")]

use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeReader, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid},
};
use serde_json::{Value, json};

use super::{copy::PrivateCopy, ffi};
use crate::error::Unloaded;

/// A library whose constructors take longer than this is refused.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The first argument of a loader that was started for a trial. It is no part of the command line.
const ARGUMENT: &str = "--trial";
/// What the child writes before it opens the library. A child that dies before says nothing about the library.
const BEGUN: &[u8] = b"trying ";
/// The child's exit code if it can't write what it has found: EX_IOERR.
const UNTOLD: i32 = 74;

fn failed(source: io::Error) -> Unloaded {
    Unloaded::system("it can't be tried in a child process", source)
}

/// Opens the library in a forked child, which reads what the plugin says of itself and calls nothing. Returns
/// the lambda's Info. An error is the child's reason to refuse it, or says that the child died or hung.
///
/// # Safety
/// As [`ffi::open`], and the process has one thread.
pub unsafe fn forked(path: &Path) -> Result<String, Unloaded> {
    let (reader, writer) = io::pipe().map_err(failed)?;
    // SAFETY: one thread, as the caller says.
    let Some(child) = unsafe { ffi::fork() }.map_err(failed)? else {
        drop(reader);
        // SAFETY: the caller trusts the file.
        unsafe { report(path, writer) }
    };
    drop(writer);
    outcome(child, reader)
}

/// Does the same as [`forked`] in a new process that runs this program.
pub fn executed(copy: &PrivateCopy) -> Result<String, Unloaded> {
    let (path, stdin) = copy.path_in_child().map_err(failed)?;
    let (reader, writer) = io::pipe().map_err(failed)?;
    // The file that this process was started from, even if another file has its path now.
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).arg(path).stdin(stdin).stdout(writer).stderr(Stdio::null());
    let child = command.spawn().map_err(failed)?;
    // This closes our copy of the pipe's writing end. The child's is closed when the child ends.
    drop(command);
    outcome(Pid::from_child(&child), reader)
}

/// The library that this process was started to try, if it was started for a trial.
pub fn asked_for(mut args: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    (args.nth(1).as_deref() == Some(OsStr::new(ARGUMENT))).then(|| args.next())?.map(PathBuf::from)
}

/// Tries a library, writes to stdout what was found, and ends the process.
///
/// # Safety
/// As [`ffi::open`].
pub unsafe fn answer(path: &Path) -> ! {
    match io::stdout().as_fd().try_clone_to_owned() {
        // SAFETY: the caller's duty is the callee's condition.
        Ok(stdout) => unsafe { report(path, std::fs::File::from(stdout)) },
        Err(_) => ffi::exit_now(UNTOLD),
    }
}

/// The child's part: opens the library, writes what was found, and ends the process.
///
/// # Safety
/// As [`ffi::open`].
unsafe fn report(path: &Path, mut writer: impl Write) -> ! {
    // The dynamic linker and the library's constructors may print. The operator gets one line, from the
    // parent.
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    if writer.write_all(BEGUN).is_err() {
        ffi::exit_now(UNTOLD);
    }
    // SAFETY: the caller's duty is the callee's condition.
    let info =
        unsafe { ffi::open(path, false) }.and_then(|entries| Ok(checked_info(entries.info, entries.build)?));
    let message = match info {
        Ok(info) => json!({"info": info}),
        Err(Unloaded::Refused(reason)) => json!({"reason": reason}),
        Err(Unloaded::System { what, source }) => json!({"failed": what, "errno": source.raw_os_error()}),
    };
    let told = writer.write_all(message.to_string().as_bytes());
    ffi::exit_now(if told.is_ok() { 0 } else { UNTOLD })
}

/// The lambda's Info. A plugin is refused if it is built with panic=abort, or if its Info is not a JSON object.
pub fn checked_info<'a>(info: &'a str, build: &str) -> Result<&'a str, String> {
    if build.split("; ").any(|part| part == "panic=abort") {
        return Err("it is built with panic=abort, so that a panic would end the server; \
                    remove panic = \"abort\" from its profile"
            .to_owned());
    }
    match serde_json::from_str(info) {
        Ok(Value::Object(_)) => Ok(info),
        Ok(_) => Err("its Info is not a JSON object; give export! or EFFE_LAMBDA one".to_owned()),
        Err(err) => {
            Err(format!("its Info is not JSON ({err}); correct what export! or EFFE_LAMBDA is given"))
        }
    }
}

/// The parent's part: reads what the child wrote, and waits for its end.
fn outcome(child: Pid, mut reader: PipeReader) -> Result<String, Unloaded> {
    let mut message = Vec::new();
    let complete = read_until_closed(&mut reader, &mut message, Instant::now() + TIMEOUT);
    if !matches!(complete, Ok(true)) {
        let _ = kill_process(child, Signal::KILL);
    }
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => break Some(status),
            Err(Errno::INTR) | Ok(None) => {}
            Err(_) => break None,
        }
    };
    if !complete.map_err(failed)? {
        let timeout = TIMEOUT.as_secs();
        let reason = format!("opening it took longer than {timeout} s; see what its constructors wait for");
        return Err(reason.into());
    }
    let after_begin = message.strip_prefix(BEGUN);
    let said = after_begin.and_then(|message| serde_json::from_slice::<Value>(message).ok());
    let text = |key: &str| Some(said.as_ref()?.get(key)?.as_str()?.to_owned());
    if let Some(what) = text("failed") {
        let errno = said.as_ref().and_then(|said| said.get("errno")?.as_i64()?.try_into().ok());
        let source = errno.map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
        return Err(Unloaded::System { what, source });
    }
    match (text("info"), text("reason")) {
        (_, Some(reason)) => Err(reason.into()),
        (Some(info), None) => Ok(info),
        (None, None) => Err(died(status, after_begin.is_some())),
    }
}

/// Why a child has not said what it found. It is the library's fault only if the child had begun to open it, and was
/// not killed from outside, as the system does where memory is short.
fn died(status: Option<WaitStatus>, had_begun: bool) -> Unloaded {
    let signal = status.and_then(|status| status.terminating_signal());
    let code = status.and_then(|status| status.exit_status());
    let how = match (signal, code) {
        (Some(signal), _) => format!("kills the process (signal {signal})"),
        (_, Some(code)) => format!("ends the process (exit code {code})"),
        _ => "ends the process".to_owned(),
    };
    if !had_begun {
        return failed(io::Error::other(format!("to start it {how}; is memory short?")));
    }
    if signal == Some(Signal::KILL.as_raw()) {
        return failed(io::Error::other("something has killed that process (signal 9); is memory short?"));
    }
    if code == Some(UNTOLD) {
        return failed(io::Error::other("that process can't say what it has found"));
    }
    format!("opening it {how}; it is damaged, copy or build it again").into()
}

/// Reads until the other end is closed; false if the deadline passes first.
fn read_until_closed(reader: &mut PipeReader, message: &mut Vec<u8>, deadline: Instant) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let ready = {
            let mut fds = [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)];
            poll(&mut fds, Some(&timeout))
        };
        match ready {
            Ok(0) => return Ok(false),
            Ok(_) => match reader.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(n) => message.extend_from_slice(&buffer[..n]),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            },
            Err(Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}
