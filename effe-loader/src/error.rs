//! Why the loader does not serve, and the exit codes that tell it to a supervisor. Who ends the process is
//! `lib.rs`, and in a hurry `process/signals.rs`.

use std::{
    borrow::Cow,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rlimit::{INFINITY, Resource, getrlimit};
use rustix::io::Errno;

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
/// The plugin can't be used, EX_CONFIG: a supervisor need not try again.
pub const REFUSED: u8 = 78;

/// Why the loader gives up. Its text is one line: what was tried, on what, what differs, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The plugin can't be used; trying again won't help.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The process may not have as much address space as a start needs.
    #[error(
        "cannot start: {workers} workers need {needed} bytes of address space, and the limit is {limit}; raise it (ulimit \
         -v, LimitAS=), or give fewer --workers"
    )]
    Memory {
        /// The server's threads.
        workers: usize,
        /// Bytes, with those that are in use already.
        needed: u64,
        /// RLIMIT_AS, in bytes.
        limit: u64,
    },
    /// The system fails while the plugin is read or tried: that says nothing about the plugin.
    #[error("cannot load {path}: {what}{source}{hint}", path = on_one_line(&path.to_string_lossy()), hint = limit_hint(source))]
    Load {
        /// The plugin.
        path: PathBuf,
        /// What was tried, with a colon behind it; or nothing.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The plugin is fine, a step of the lambda's failed: a supervisor may try again.
    #[error("{path}: its {step} {what}", path = on_one_line(&path.to_string_lossy()), what = on_one_line(what))]
    Step {
        /// The plugin.
        path: PathBuf,
        /// `init`; under `--check` also `start`, `stop` or `retire`
        step: &'static str,
        /// `failed: …` or `panicked at …`
        what: String,
    },
    /// The address is taken, forbidden or not of this machine.
    #[error("cannot listen on {address}: {source}{hint}", hint = bind_hint(address, source))]
    Bind {
        /// What was to be bound.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The same, of the admin listener or of the one for AWS's clients.
    #[error("cannot listen on {flag} {address}: {source}{hint}", hint = limit_hint(source))]
    BindPrivate {
        /// `--admin`, `--aws-api`
        flag: &'static str,
        /// What was to be bound.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A supervisor's socket is not what it should be.
    #[error("cannot listen on socket {n} of LISTEN_FDS: {source}")]
    Inherited {
        /// Counted from 0.
        n: usize,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The system refuses something that every server needs.
    #[error("cannot {what}: {source}{hint}", hint = limit_hint(source))]
    System {
        /// A verb and its object: `start a thread`.
        what: Cow<'static, str>,
        /// The system's reason.
        source: io::Error,
    },
    /// The process can't be confined as a whole.
    #[error("cannot confine the process: {what}; --confine without require serves all the same")]
    Unconfined {
        /// What would be left, and why.
        what: String,
    },
    /// The process may not have as many descriptors as a start needs.
    #[error(
        "cannot start: {workers} workers need {needed} descriptors, and the limit is {limit}; raise it (ulimit -n, \
         LimitNOFILE=), or give fewer --workers"
    )]
    Descriptors {
        /// The server's threads.
        workers: usize,
        /// Descriptors, those among them that are open already.
        needed: u64,
        /// RLIMIT_NOFILE
        limit: u64,
    },
}

impl Error {
    /// `REFUSED` (78) if the plugin can't be used, else `FAILED` (1).
    pub fn exit_code(&self) -> u8 {
        if let Error::Refused(_) = self { REFUSED } else { FAILED }
    }
}

/// A plugin that this loader can't use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot load {path}: {reason}", path = on_one_line(&path.to_string_lossy()))]
pub struct Refusal {
    /// The plugin as it was named.
    pub path: PathBuf,
    /// What differs; then what to do.
    pub reason: String,
}

impl Refusal {
    /// Refuses `path` for a reason.
    pub fn new(path: &Path, reason: impl Into<String>) -> Refusal {
        // One line, whatever the dynamic linker or a lambda put into it.
        Refusal { path: path.to_owned(), reason: on_one_line(&reason.into()) }
    }
}

/// Why a plugin is not loaded, before it is said which one that is.
#[derive(Debug)]
pub enum Unloaded {
    /// It can't be used: what differs; then what to do.
    Refused(String),
    /// The system fails, and may not the next time.
    System { what: String, source: io::Error },
}

impl Unloaded {
    /// The system fails in something that is no matter of the plugin's.
    pub fn system(what: &str, source: io::Error) -> Unloaded {
        Unloaded::System { what: format!("{what}: "), source }
    }

    /// The same reason with `prefix` before it.
    pub fn about(self, prefix: &str) -> Unloaded {
        match self {
            Unloaded::Refused(reason) => Unloaded::Refused(format!("{prefix}: {reason}")),
            Unloaded::System { what, source } => {
                Unloaded::System { what: format!("{prefix}: {what}"), source }
            }
        }
    }

    pub fn of(self, path: &Path) -> Error {
        match self {
            Unloaded::Refused(reason) => Refusal::new(path, reason).into(),
            Unloaded::System { what, source } => Error::Load { path: path.to_owned(), what, source },
        }
    }
}

impl From<String> for Unloaded {
    fn from(reason: String) -> Unloaded {
        Unloaded::Refused(reason)
    }
}

/// An error of reading a file: it lies in the file, or the system has too little of something.
impl From<io::Error> for Unloaded {
    fn from(source: io::Error) -> Unloaded {
        if is_the_systems(&source) {
            return Unloaded::System { what: String::new(), source };
        }
        Unloaded::Refused(source.to_string())
    }
}

/// Whether an error comes of what the system lacks at the moment, and not of what was asked for.
pub fn is_the_systems(err: &io::Error) -> bool {
    let lacks = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::AGAIN,
        Errno::IO,
        Errno::INTR,
        Errno::NOBUFS,
        Errno::FBIG,
    ];
    Errno::from_io_error(err).is_some_and(|errno| lacks.contains(&errno))
}

/// A text whose control characters neither end the line nor steer the terminal.
fn on_one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for ch in text.chars() {
        if ch.is_control() { out.extend(ch.escape_default()) } else { out.push(ch) }
    }
    out
}

fn bind_hint(address: &str, source: &io::Error) -> Cow<'static, str> {
    let port = address.parse().map(|address: SocketAddr| address.port());
    let hint = match (source.kind(), port) {
        (io::ErrorKind::AddrInUse, Ok(_)) => "; another process has it: choose another --port, or 0 for any",
        (io::ErrorKind::AddrInUse, Err(_)) => "; choose another path",
        (io::ErrorKind::PermissionDenied, Ok(1..1024)) => {
            "; ports below 1024 need rights: choose another --port"
        }
        (io::ErrorKind::PermissionDenied, Ok(_)) => {
            "; a rule of this system forbids it: see what confines this process"
        }
        (io::ErrorKind::PermissionDenied, Err(_)) => {
            "; this user may not make a file there: choose another path"
        }
        (io::ErrorKind::AddrNotAvailable, Ok(_)) => {
            "; it is not an address of this machine: choose another --host"
        }
        _ => return limit_hint(source),
    };
    hint.into()
}

/// Which limit an error of the system's speaks of, and what to set.
fn limit_hint(source: &io::Error) -> Cow<'static, str> {
    let limit = |resource| match getrlimit(resource) {
        Ok((INFINITY, _)) => "is not set".to_owned(),
        Ok((limit, _)) => format!("is {limit}"),
        Err(_) => "is not known".to_owned(),
    };
    match Errno::from_io_error(source) {
        Some(Errno::MFILE) => {
            let limit = limit(Resource::NOFILE);
            format!("; the limit of open files {limit}: raise it (ulimit -n, LimitNOFILE=)").into()
        }
        Some(Errno::NFILE) => "; the whole system has too many open files: raise fs.file-max".into(),
        Some(Errno::FBIG) => {
            let limit = limit(Resource::FSIZE);
            format!("; the limit of a file's size in bytes {limit}: raise it (ulimit -f, LimitFSIZE=)").into()
        }
        Some(Errno::AGAIN | Errno::NOMEM) => {
            let (threads, memory) = (limit(Resource::NPROC), limit(Resource::AS));
            format!(
                "; this user's limit of threads {threads} (ulimit -u, TasksMax=), the limit of address space in bytes \
                 {memory} (ulimit -v): raise what is too low, give the machine more memory, or give fewer --workers"
            )
            .into()
        }
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_of_an_address_fits_the_address() {
        let said = |address: &str, errno: Errno| {
            Error::Bind { address: address.to_owned(), source: errno.into() }.to_string()
        };
        for (address, errno, hint) in [
            ("0.0.0.0:80", Errno::ACCESS, "ports below 1024 need rights: choose another --port"),
            ("[::]:8080", Errno::ACCESS, "a rule of this system forbids it: see what confines this process"),
            ("unix:/x", Errno::ACCESS, "this user may not make a file there: choose another path"),
            ("[::]:80", Errno::ADDRINUSE, "another process has it: choose another --port, or 0 for any"),
            ("unix:/x", Errno::ADDRINUSE, "choose another path"),
            (
                "192.0.2.1:80",
                Errno::ADDRNOTAVAIL,
                "it is not an address of this machine: choose another --host",
            ),
        ] {
            let line = said(address, errno);
            assert!(line.starts_with(&format!("cannot listen on {address}: ")), "{line}");
            assert!(line.ends_with(&format!("; {hint}")), "{line}");
        }
    }
}
