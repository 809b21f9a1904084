//! The checks of a plugin, in their order, up to the one that a child makes.
#![expect(unsafe_code, reason = "opening a plugin runs foreign code")]

use std::{
    cell::Cell,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use effe_abi::c_root::{NOTE_BUILD, NOTE_INFO};
use object::ReadCache;

use super::{
    copy::PrivateCopy,
    elf, ffi,
    file::PluginFile,
    host::Host,
    loaded::{ContextCounts, Plugin},
    policy::Policy,
    trial,
};
use crate::error::{Error, Unloaded};

/// A plugin that was checked and opened in a child. It is not mapped into this process yet.
pub struct Verified {
    path: PathBuf,
    copy: PrivateCopy,
    /// Bytes that its image will take.
    image: u64,
    /// The lambda's Info, a JSON object.
    pub info: String,
}

impl Verified {
    /// Copies a plugin, checks the copy, and opens it in a child that is forked from this process. The error is
    /// the first thing that is wrong with it, or that the policy doesn't allow.
    ///
    /// # Safety
    /// Opening a plugin runs its constructors: whoever wrote the file is trusted. The process has one thread.
    pub unsafe fn by_fork(file: PluginFile, policy: &Policy) -> Result<Verified, Error> {
        // SAFETY: the caller's duty is the callee's condition.
        Verified::by(file, policy, |copy| unsafe { trial::forked(&copy.path_in_fork()) })
    }

    /// Does the same with a child that runs this same program.
    ///
    /// # Safety
    /// Opening a plugin runs its constructors, if only in the child: whoever wrote the file is trusted.
    pub unsafe fn by_exec(file: PluginFile, policy: &Policy) -> Result<Verified, Error> {
        Verified::by(file, policy, trial::executed)
    }

    /// The lambda's Info. It is read from the file, of which nothing is run; where it isn't there, or the policy is
    /// strict, a child opens a copy as in [`Verified::by_fork`].
    ///
    /// # Safety
    /// As [`Verified::by_fork`].
    pub unsafe fn info(file: PluginFile, policy: &Policy) -> Result<String, Error> {
        let (path, copy, _) = Verified::checked(file, policy)?;
        let bytes = ReadCache::new(copy.file());
        let noted = elf::note(&bytes, NOTE_INFO).filter(|_| !policy.strict_plugin);
        let info = match noted {
            Some(info) => trial::checked_info(info, elf::note(&bytes, NOTE_BUILD).unwrap_or_default())
                .map(str::to_owned)
                .map_err(Unloaded::from),
            // SAFETY: the caller's duty is the callee's condition.
            None => unsafe { trial::forked(&copy.path_in_fork()) },
        };
        info.map_err(|reason| reason.of(&path))
    }

    fn by(
        file: PluginFile,
        policy: &Policy,
        trial: impl FnOnce(&PrivateCopy) -> Result<String, Unloaded>,
    ) -> Result<Verified, Error> {
        let (path, copy, image) = Verified::checked(file, policy)?;
        let info = trial(&copy).map_err(|reason| reason.of(&path))?;
        Ok(Verified { path, copy, image, info })
    }

    /// Copies a plugin, and checks all of the copy that can be checked without opening it. Returns its path, the copy
    /// and how many bytes its image will take.
    fn checked(file: PluginFile, policy: &Policy) -> Result<(PathBuf, PrivateCopy, u64), Error> {
        let path = file.path.clone();
        let unloaded = |reason: Unloaded| reason.of(&path);
        let copy =
            PrivateCopy::make(file).map_err(|err| unloaded(Unloaded::system("it can't be copied", err)))?;
        if policy.pins() && copy.is_original() {
            let reason = "no private copy can be made of it, so what is mapped can't be pinned; give the loader /proc, \
                          or a TMPDIR that may hold executable files";
            return Err(unloaded(reason.to_owned().into()));
        }
        policy.allows(copy.file()).map_err(unloaded)?;
        let reader = Reader { file: copy.file(), failed: Cell::new(None) };
        let image = elf::check(&ReadCache::new(&reader));
        // What can't be read looks as if the file ended there.
        if let Some(source) = reader.failed.take() {
            return Err(unloaded(Unloaded::system("it can't be read", source)));
        }
        let image = image.map_err(|reason| unloaded(reason.into()))?;
        Ok((path, copy, image))
    }

    /// A plugin that a supervisor has verified, and whose copy it hands to this process. It fails if no path leads to
    /// the copy.
    pub fn handed(path: PathBuf, memory: File, image: u64) -> Result<Verified, Error> {
        let copy = PrivateCopy::handed(memory)
            .map_err(|err| Unloaded::system("its copy can't be named", err).of(&path))?;
        Ok(Verified { path, copy, image, info: String::new() })
    }

    /// The memory file that other processes can map the plugin from; `None` if it is in no memory file.
    pub fn memory(&self) -> Option<&File> {
        self.copy.memory()
    }

    /// Bytes that its image will take.
    pub fn image(&self) -> u64 {
        self.image
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Maps the plugin into this process, for ever. It rarely fails: the child could open the same bytes.
    ///
    /// # Safety
    /// Opening a plugin runs its constructors: whoever wrote the file is trusted.
    pub unsafe fn open(
        self,
        host: &'static Host,
        counts: &Arc<ContextCounts>,
    ) -> Result<&'static Plugin, Error> {
        // Comparing the layouts takes as long as mapping the library, and the child has compared them. The
        // operator's own file may have changed since then.
        let is_tried = !self.copy.is_original();
        // SAFETY: the caller's duty is the callee's condition.
        let entries = unsafe { ffi::open(self.copy.path(), is_tried) };
        let entries = entries.map_err(|reason| reason.of(&self.path))?;
        self.copy.mapped();
        Ok(Plugin::new(self.path, entries, host, counts, Some(self.copy), self.image))
    }
}

/// A file that keeps the error of a call which has failed.
struct Reader<'a> {
    file: &'a File,
    failed: Cell<Option<io::Error>>,
}

impl Reader<'_> {
    fn noted<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(err) = &outcome
            && err.kind() != io::ErrorKind::Interrupted
        {
            self.failed.set(err.raw_os_error().map(io::Error::from_raw_os_error));
        }
        outcome
    }
}

impl Read for &Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file;
        self.noted(file.read(buffer))
    }
}

impl Seek for &Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut file = self.file;
        self.noted(file.seek(to))
    }
}
