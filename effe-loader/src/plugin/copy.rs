//! A private copy of a plugin: what was checked is what is mapped, and stays so whatever happens to the file.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{self, Stdio},
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
    /// A memory file, sealed.
    Memory(File),
    /// A file of our own, whose name goes once it is mapped.
    File(File),
    /// The operator's file itself: it can't be swapped for another.
    Original,
}

/// Copies so far: each has a name of its own.
static COPIES: AtomicU32 = AtomicU32::new(0);

impl PrivateCopy {
    /// Copies a plugin to memory; without /proc or memory files, to a directory that can be written and executed;
    /// without one, the file itself must do.
    pub fn make(file: &PluginFile) -> PrivateCopy {
        if let Some((path, memory)) = in_memory(file) {
            return PrivateCopy { path, kind: Kind::Memory(memory) };
        }
        let variable = |name| env::var_os(name).map(PathBuf::from);
        let places =
            [variable("XDG_RUNTIME_DIR"), variable("TMPDIR"), Some("/dev/shm".into()), Some("/tmp".into())];
        for place in places.into_iter().flatten() {
            if let Ok((path, copy)) = in_directory(file, &place) {
                return PrivateCopy { path, kind: Kind::File(copy) };
            }
        }
        let path = file.path.canonicalize().unwrap_or_else(|_| file.path.clone());
        PrivateCopy { path, kind: Kind::Original }
    }

    /// Whether it is no copy: what is mapped is then whatever the operator's file holds at that moment.
    pub fn is_original(&self) -> bool {
        matches!(self.kind, Kind::Original)
    }

    /// The absolute path to map.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path to map for a child process that is given `Stdio` as its stdin.
    ///
    /// # Errors
    /// The system has no room for a descriptor.
    pub fn path_in_child(&self) -> io::Result<(PathBuf, Stdio)> {
        match &self.kind {
            Kind::Memory(memory) => Ok(("/proc/self/fd/0".into(), memory.try_clone()?.into())),
            Kind::File(_) | Kind::Original => Ok((self.path.clone(), Stdio::null())),
        }
    }

    /// Once it is mapped: removes the name of a copy in a directory.
    pub fn mapped(&self) {
        if let Kind::File(_) = self.kind {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether it is a copy at all, so that another one can take its place.
    pub fn is_private(&self) -> bool {
        !matches!(self.kind, Kind::Original)
    }

    /// Whether it holds these very bytes.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let (Kind::Memory(copy) | Kind::File(copy)) = &self.kind else { return false };
        let mut page = vec![0; 64 * 1024];
        let same_size = copy.metadata().is_ok_and(|metadata| metadata.len() == bytes.len() as u64);
        let mut at = 0;
        same_size
            && bytes.chunks(page.len()).all(|chunk| {
                let copied = &mut page[..chunk.len()];
                let read = copy.read_exact_at(copied, at);
                at += chunk.len() as u64;
                read.is_ok() && copied == chunk
            })
    }
}

fn in_memory(file: &PluginFile) -> Option<(PathBuf, File)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know EXEC, later ones may be set up to make memory files not executable without it.
    let name = file.name();
    let fd = memfd_create(&*name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(&*name, flags)).ok()?;
    let mut memory = File::from(fd);
    memory.write_all(&file.bytes).ok()?;
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .ok()?;
    let n = COPIES.fetch_add(1, Ordering::Relaxed);
    let path = PathBuf::from(alias(n, memory.as_raw_fd()));
    path.exists().then_some((path, memory))
}

/// A name of a descriptor that no other copy ever has, though descriptors are used again: the dynamic linker takes
/// a name that it knows for the library that it knows. The number is written in binary, as `/` and `/.`.
fn alias(n: u32, fd: i32) -> String {
    let digits: String = (0..u32::BITS).map(|bit| if n >> bit & 1 == 1 { "/." } else { "/" }).collect();
    format!("/proc/self{digits}/fd/{fd}")
}

fn in_directory(file: &PluginFile, directory: &Path) -> io::Result<(PathBuf, File)> {
    if statvfs(directory)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let n = COPIES.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("effe-{}-{n}-{}", process::id(), file.name()));
    let mut copy = File::options().read(true).write(true).create_new(true).mode(0o500).open(&path)?;
    match copy.write_all(&file.bytes).and_then(|()| path.canonicalize()) {
        Ok(path) => Ok((path, copy)),
        Err(err) => {
            let _ = fs::remove_file(&path);
            Err(err)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_used_again_has_another_name() {
        let names: std::collections::HashSet<_> = (0..1000).map(|n| alias(n, 7)).collect();
        assert_eq!(names.len(), 1000);
        let memory = File::from(memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
        assert!(Path::new(&alias(u32::MAX, memory.as_raw_fd())).exists());
    }

    #[test]
    fn a_copy_knows_its_bytes() {
        let file = PluginFile { path: "x".into(), bytes: vec![7; 100_000], pinned: false, warning: None };
        let copy = PrivateCopy::make(&file);
        assert!(copy.is_private() && copy.holds(&file.bytes));
        let mut other = file.bytes.clone();
        other[99_999] = 8;
        assert!(!copy.holds(&other) && !copy.holds(&file.bytes[1..]));
    }
}
