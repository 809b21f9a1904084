//! What a program finds that takes another one's place in its process: a file with what the supervisor has, and the
//! program before, to which it goes back if it can't begin.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
};
use serde_json::Value;

use super::{
    carried::{bytes, own},
    process::VARIABLE,
    program,
};
use crate::process::link::VERSION;

pub struct Handed {
    /// A line of JSON. If a program has tried to go on with it in vain, a second line says why.
    state: File,
    before: OwnedFd,
}

/// What the supervisor had, and why the program that should have gone on has not, if there was one.
pub struct State {
    pub value: Value,
    pub failed: Option<String>,
    /// The command line.
    pub args: Vec<OsString>,
}

/// The command line, as JSON.
pub fn of_args(args: &[OsString]) -> Value {
    args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>().into()
}

impl Handed {
    /// What the program before has left, if there was one.
    pub fn of_environment() -> Option<Handed> {
        let numbers = env::var(VARIABLE).ok()?;
        let (state, before) = numbers.split_once(' ')?;
        let before = own(before.parse().ok()?).ok()?;
        Some(Handed { state: own(state.parse().ok()?).ok()?.into(), before })
    }

    /// Fails if what is there is not for this program; why.
    pub fn read(&mut self) -> Result<State, String> {
        let mut text = String::new();
        self.state
            .rewind()
            .and_then(|()| self.state.read_to_string(&mut text))
            .map_err(|err| err.to_string())?;
        let (state, failed) = text.split_once('\n').unwrap_or((&text, ""));
        let value: Value = serde_json::from_str(state).map_err(|err| err.to_string())?;
        if value["version"] != VERSION {
            return Err(format!("it is of version {}, and this is {VERSION}", value["version"]));
        }
        let args = value["args"].as_array().into_iter().flatten();
        let args = args.map(|arg| bytes(arg).map(OsString::from_vec)).collect::<Option<Vec<_>>>();
        let args = args.ok_or("it holds no command line")?;
        Ok(State { value, failed: Some(failed.to_owned()).filter(|why| !why.is_empty()), args })
    }

    /// Goes back to the program before, which is told why. Returns only if that fails, too.
    pub fn give_back(mut self, why: &str, args: &[OsString]) -> std::io::Error {
        let why = why.replace('\n', " ");
        let noted = self.state.seek(SeekFrom::End(0)).and_then(|_| self.state.write_all(why.as_bytes()));
        if let Err(err) = noted {
            return err;
        }
        for descriptor in [self.state.as_fd(), self.before.as_fd()] {
            if let Err(err) = fcntl_setfd(descriptor, FdFlags::empty()) {
                return err.into();
            }
        }
        let numbers = [self.state.as_raw_fd(), self.before.as_raw_fd()];
        program::execute(self.before.as_raw_fd(), args, numbers)
    }

    /// Goes on as another program. Returns only if neither that nor the program before can be executed.
    pub fn go_on_as(self, program: &File, args: &[OsString]) -> std::io::Error {
        let numbers = [self.state.as_raw_fd(), self.before.as_raw_fd()];
        let opened = [self.state.as_fd(), self.before.as_fd()]
            .into_iter()
            .try_for_each(|descriptor| fcntl_setfd(descriptor, FdFlags::empty()));
        let err = match opened {
            Ok(()) => program::execute(program.as_raw_fd(), args, numbers),
            Err(err) => err.into(),
        };
        self.give_back(&format!("it can't be executed: {err}"), args)
    }
}

/// Writes down what the supervisor has, and notes its own program, for another one.
pub fn write(state: &Value) -> std::io::Result<Handed> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(format!("{state}\n").as_bytes())?;
    // Also if its file has another name by now, or none.
    Ok(Handed { state: file, before: program::open(Path::new("/proc/self/exe"))?.into() })
}
