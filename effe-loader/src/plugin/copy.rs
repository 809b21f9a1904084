//! A private copy of a plugin: what was checked is what is mapped, and stays so whatever happens to the file.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::fs::{MemfdFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, memfd_create, statvfs};

use super::file::PluginFile;

/// Where a generation is mapped from: a name that no other generation ever has.
pub struct PrivateCopy {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    /// A memory file, sealed. Its descriptor stays open for ever: the dynamic linker knows the library by the
    /// descriptor's name, and would take another file under that name for this one.
    Memory(#[expect(dead_code, reason = "kept open")] OwnedFd),
    /// A file of our own.
    File,
    /// The operator's file itself: swapping it is off.
    Original,
}

impl PrivateCopy {
    /// Copies a plugin to memory; without /proc or memory files, to a directory that can be written and executed;
    /// without one, the file itself must do.
    pub fn make(file: &PluginFile) -> PrivateCopy {
        if let Some((path, fd)) = in_memory(file) {
            return PrivateCopy { path, kind: Kind::Memory(fd) };
        }
        let variable = |name| env::var_os(name).map(PathBuf::from);
        let places =
            [variable("XDG_RUNTIME_DIR"), variable("TMPDIR"), Some("/dev/shm".into()), Some("/tmp".into())];
        for place in places.into_iter().flatten() {
            if let Ok(path) = in_directory(file, &place) {
                return PrivateCopy { path, kind: Kind::File };
            }
        }
        let path = file.path.canonicalize().unwrap_or_else(|_| file.path.clone());
        PrivateCopy { path, kind: Kind::Original }
    }

    /// The absolute path to map.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Once it is mapped: removes the name of a copy in a directory.
    pub fn mapped(&self) {
        if let Kind::File = self.kind {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn in_memory(file: &PluginFile) -> Option<(PathBuf, OwnedFd)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know EXEC, later ones may be set up to make memory files not executable without it.
    let name = file.name();
    let fd = memfd_create(&*name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(&*name, flags)).ok()?;
    let mut memory = File::from(fd);
    memory.write_all(&file.bytes).ok()?;
    let fd = OwnedFd::from(memory);
    fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).ok()?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    path.exists().then_some((path, fd))
}

fn in_directory(file: &PluginFile, directory: &Path) -> io::Result<PathBuf> {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    if statvfs(directory)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let n = COPIES.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("effe-{}-{n}-{}", process::id(), file.name()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o500)
        .open(&path)
        .and_then(|mut copy| copy.write_all(&file.bytes));
    if let Err(err) = written {
        let _ = fs::remove_file(&path);
        return Err(err);
    }
    path.canonicalize()
}
