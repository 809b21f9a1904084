//! What a process is left with once its plugin is open: files, TCP ports and signals are Landlock's (`files.rs`), calls
//! of the system seccomp's (`calls.rs`), and neither it nor a child of its gets new privileges. This is damage control,
//! not a sandbox; SECURITY.md has what it stops.

mod calls;
mod files;
mod usual;

use std::{fs, path::PathBuf};

use crate::error::Error;

#[derive(Clone, Debug)]
pub struct Confinement {
    is_required: bool,
    /// What may be read beyond what `usual.rs` has.
    readable: Vec<PathBuf>,
    /// What may be read and written.
    writable: Vec<PathBuf>,
    /// The TCP ports that may be connected to; `None` for any.
    ports: Option<Vec<u16>>,
}

impl Confinement {
    /// Fails later, if it `is_required` and the system can't do all of it.
    pub fn new(
        is_required: bool,
        readable: Vec<PathBuf>,
        writable: Vec<PathBuf>,
        ports: Option<Vec<u16>>,
    ) -> Confinement {
        Confinement { is_required, readable, writable, ports }
    }

    /// Confines this process for good, and the threads and children that it will have. The threads that it has already
    /// are not confined by Landlock, so it is to have one. Returns what the operator is to hear: what is not confined,
    /// and which paths are not there.
    pub fn apply(&self) -> Result<Vec<String>, Error> {
        let mut lacking = Vec::new();
        let mut warnings = Vec::new();
        let n_threads = fs::read_dir("/proc/self/task").map_or(1, |threads| threads.count().max(1));
        if n_threads > 1 {
            lacking.push(format!(
                "files, TCP ports and signals of the threads that the plugin has started while it was opened ({})",
                n_threads - 1
            ));
        }
        match files::restrict(&self.readable, &self.writable, self.ports.as_deref()) {
            Ok((lacks, missing)) => {
                lacking.extend(lacks);
                warnings.extend(missing);
            }
            Err(err) => lacking.push(format!("files, TCP ports and signals ({err})")),
        }
        // Last: Landlock needs calls of its own.
        if let Err(err) = calls::restrict(!self.writable.is_empty()) {
            lacking.push(format!("system calls ({err})"));
        }
        let Some((first, others)) = lacking.split_first() else { return Ok(warnings) };
        let what =
            others.iter().fold(format!("not confined are {first}"), |all, one| format!("{all}; {one}"));
        if self.is_required {
            return Err(Error::Unconfined { what });
        }
        warnings.push(format!("--confine: {what}"));
        Ok(warnings)
    }
}
