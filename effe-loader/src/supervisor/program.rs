//! The loader's program in its file: where that is, whether what is there now could go on in this one's place, and how
//! it is executed.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::{self, Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
};
use serde_json::{Value, json};

use super::process::VARIABLE;
use crate::process::link::VERSION;

/// The first argument of a program that is asked whether it could go on. The version follows, and then the command
/// line.
const ARGUMENT: &str = "--can-go-on";
/// How long a program may take to say so.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of what it says.
const MOST: u64 = 4096;

/// Where the file is that this program was started from: as it was named, so that a symbolic link is followed again, or
/// else what the system calls it. `None` if another file has its place by now.
pub fn path_of(named: Option<&OsStr>) -> Option<PathBuf> {
    let id = |file: fs::Metadata| (file.dev(), file.ino());
    let this = id(fs::metadata("/proc/self/exe").ok()?);
    // Without a slash, it was looked for on the PATH.
    let named = named.map(Path::new).filter(|path| path.as_os_str().as_encoded_bytes().contains(&b'/'));
    let named = named.and_then(|path| path::absolute(path).ok());
    let known = fs::read_link("/proc/self/exe").ok();
    let mut paths = named.into_iter().chain(known);
    paths.find(|path| fs::metadata(path).is_ok_and(|file| id(file) == this))
}

/// The file with the program that is there now, to be executed, whoever may read it.
pub fn open(path: &Path) -> io::Result<File> {
    let descriptor = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(File::from(descriptor))
}

/// Asks the program in a file whether it could go on with what this one has, under the same command line; why not. It
/// may take seconds: not for the supervisor's own thread.
pub fn ask(program: &File, args: &[OsString]) -> Result<(), String> {
    let failed = |err: io::Error| format!("it can't be started: {err}");
    let (name, args) = args.split_first().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let mut command = Command::new(in_this(program.as_raw_fd()));
    command.arg0(name).arg(ARGUMENT).arg(VERSION.to_string()).args(args);
    command.env_remove("NOTIFY_SOCKET").env_remove(VARIABLE);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(failed)?;
    let said = child.stdout.take().map(read_all);
    let _ = child.kill();
    let ended = child.wait().map_err(failed)?;
    let Some(Ok(said)) = said else {
        return Err("it does not say whether it could go on".to_owned());
    };
    match serde_json::from_slice::<Value>(&said) {
        Ok(said) if said["goes_on"] == true => Ok(()),
        Ok(said) if said["why"].is_string() => Err(said["why"].as_str().unwrap_or_default().to_owned()),
        _ => Err(format!("it is no loader with --processes that knows of upgrades ({ended})")),
    }
}

/// All that comes, until the end or for so long.
fn read_all(mut stdout: ChildStdout) -> io::Result<Vec<u8>> {
    let (deadline, mut said) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut piece = [0; 512];
        match stdout.read(&mut piece)? {
            0 => return Ok(said),
            n => said.extend_from_slice(&piece[..n]),
        }
        if said.len() as u64 > MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Takes the question out of the arguments, if this program was asked: the version of who asks.
pub fn asked(args: &mut Vec<OsString>) -> Option<u64> {
    if args.get(1).is_none_or(|arg| arg != ARGUMENT) {
        return None;
    }
    let version = args.get(2)?.to_str()?.parse().ok()?;
    args.drain(1..3);
    Some(version)
}

/// What this program says to one of that version that asks; `config` is what it makes of the command line.
pub fn answer<T>(version: u64, config: Result<T, String>) -> String {
    let config = config.map(drop).map_err(|why| why.replace('\n', " "));
    let outcome = match version {
        VERSION => config,
        _ => Err(format!(
            "it goes on only where a loader of its own version serves ({VERSION}, not {version})"
        )),
    };
    match outcome {
        Ok(()) => json!({ "goes_on": true }),
        Err(why) => json!({ "goes_on": false, "why": why }),
    }
    .to_string()
}

/// Goes on as the program in a file, which is told the numbers of two descriptors. Returns only if that fails.
pub fn execute(program: RawFd, args: &[OsString], state: [RawFd; 2]) -> io::Error {
    let Some((name, args)) = args.split_first() else { return io::ErrorKind::InvalidInput.into() };
    let mut command = Command::new(in_this(program));
    command.arg0(name).args(args).env(VARIABLE, format!("{} {}", state[0], state[1]));
    command.exec()
}

/// The path of a descriptor of this process. A child has it, too, until it executes something.
fn in_this(descriptor: RawFd) -> String {
    format!("/proc/self/fd/{descriptor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_file_is_found_by_any_name_that_leads_to_it() {
        let this = std::env::current_exe().unwrap();
        assert_eq!(path_of(None), Some(this.clone()));
        assert_eq!(path_of(Some(OsStr::new("loader"))), Some(this.clone()));
        assert_eq!(path_of(Some(OsStr::new("/bin/sh"))), Some(this.clone()));
        let link = std::env::temp_dir().join(format!("effe-program-{}", std::process::id()));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&this, &link).unwrap();
        assert_eq!(path_of(Some(link.as_os_str())), Some(link.clone()));
        fs::remove_file(&link).unwrap();
    }

    #[test]
    fn a_question_is_taken_out_of_the_arguments_and_answered() {
        let mut args: Vec<OsString> = ["loader", ARGUMENT, "7", "--port", "1"].map(OsString::from).to_vec();
        assert_eq!(asked(&mut args), Some(7));
        assert_eq!(args, ["loader", "--port", "1"]);
        assert_eq!(asked(&mut args), None);
        let says = |version, config| serde_json::from_str::<Value>(&answer::<()>(version, config)).unwrap();
        assert_eq!(says(VERSION, Ok(()))["goes_on"], true);
        assert_eq!(says(VERSION + 1, Ok(()))["goes_on"], false);
        let said = says(VERSION, Err("a\nb".to_owned()));
        assert_eq!((&said["goes_on"], &said["why"]), (&false.into(), &"a b".into()));
    }
}
