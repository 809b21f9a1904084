//! A private copy of a plugin, so that the bytes that were checked are the bytes that are mapped, even if the
//! operator's file changes. It also owns the names under which copies are mapped.

use std::{
    env,
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{self, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::fs::{MemfdFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, memfd_create, statvfs};

use super::file::{MAX_SIZE, PluginFile};
use crate::error::is_the_systems;

/// The file that a generation is mapped from. No other generation ever has the same path.
pub struct PrivateCopy {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    /// A memory file, sealed.
    Memory(File),
    /// A file of this process's, which is removed from its directory once it is mapped.
    File(File),
    /// The operator's file itself. Such a generation can't be replaced by another.
    Original(File),
}

/// How many copies there have been: each has a number, and so a name of its own.
static COPIES: AtomicU32 = AtomicU32::new(0);

impl PrivateCopy {
    /// Copies a plugin to a memory file. Without /proc or memory files it copies it to a directory where
    /// files can be written and executed; if there is none, it takes the operator's file itself. It fails if the
    /// file can't be read, and where the system lacks descriptors, memory or room for the copy.
    pub fn make(file: PluginFile) -> io::Result<PrivateCopy> {
        let mut full = None;
        // An attempt that can't succeed here makes way for the next; one that may another time is an error.
        let mut if_possible = |attempt: io::Result<Option<(PathBuf, File)>>| match attempt {
            Err(err) if !is_the_systems(&err) => {
                let kind = err.kind();
                let is_full = matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                full = full.take().or(is_full.then_some(err));
                Ok(None)
            }
            attempt => attempt,
        };
        if let Some((path, memory)) = if_possible(in_memory(&file))? {
            return Ok(PrivateCopy { path, kind: Kind::Memory(memory) });
        }
        let variable = |name| env::var_os(name).map(PathBuf::from);
        let places =
            [variable("XDG_RUNTIME_DIR"), variable("TMPDIR"), Some("/dev/shm".into()), Some("/tmp".into())];
        for place in places.into_iter().flatten() {
            if let Some((path, copy)) = if_possible(in_directory(&file, &place).map(Some))? {
                return Ok(PrivateCopy { path, kind: Kind::File(copy) });
            }
        }
        if let Some(full) = full {
            return Err(full);
        }
        let PluginFile { path, file, .. } = file;
        Ok(PrivateCopy { path: path.canonicalize().unwrap_or(path), kind: Kind::Original(file) })
    }

    /// A copy in a memory file that another process has made, sealed and checked. It fails if no path leads to it.
    pub fn handed(memory: File) -> io::Result<PrivateCopy> {
        let path = named(&memory).ok_or(io::ErrorKind::NotFound)?;
        Ok(PrivateCopy { path, kind: Kind::Memory(memory) })
    }

    /// The memory file, for a process that is to map the same copy; `None` if it is in no memory file.
    pub fn memory(&self) -> Option<&File> {
        if let Kind::Memory(memory) = &self.kind { Some(memory) } else { None }
    }

    /// Whether it is no copy but the operator's file, which may change at any time.
    pub fn is_original(&self) -> bool {
        matches!(self.kind, Kind::Original(_))
    }

    pub fn file(&self) -> &File {
        let (Kind::Memory(file) | Kind::File(file) | Kind::Original(file)) = &self.kind;
        file
    }

    /// The absolute path to map.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path to map for a fork of this process, which has the same descriptors. It has no rights over its
    /// parent if the program has file capabilities, and then can't open `/proc/PID/fd`.
    pub fn path_in_fork(&self) -> PathBuf {
        match &self.kind {
            Kind::Memory(memory) => format!("/proc/self/fd/{}", memory.as_raw_fd()).into(),
            Kind::File(_) | Kind::Original(_) => self.path.clone(),
        }
    }

    /// The path to map for a child process that is given `Stdio` as its stdin. It fails if the system has no
    /// room for a descriptor.
    pub fn path_in_child(&self) -> io::Result<(PathBuf, Stdio)> {
        match &self.kind {
            Kind::Memory(memory) => Ok(("/proc/self/fd/0".into(), memory.try_clone()?.into())),
            Kind::File(_) | Kind::Original(_) => Ok((self.path.clone(), Stdio::null())),
        }
    }

    /// Call it once the copy is mapped: removes a copy that is in a directory.
    pub fn mapped(&self) {
        if let Kind::File(_) = self.kind {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether the copy and a file have the same bytes; false if there is no copy.
    pub fn holds(&self, file: &File) -> bool {
        let (Kind::Memory(copy) | Kind::File(copy)) = &self.kind else { return false };
        same_bytes(copy, file)
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        // A copy that was refused was never mapped, and is still in its directory.
        self.mapped();
    }
}

/// Whether two files have the same bytes; false if one of them can't be read.
pub fn same_bytes(one: &File, other: &File) -> bool {
    same(one, other).unwrap_or(false)
}

fn same(one: &File, other: &File) -> io::Result<bool> {
    let length = one.metadata()?.len();
    if length != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut at = 0;
    while at < length {
        let n = usize::try_from(length - at).map_or(left.len(), |rest| rest.min(left.len()));
        one.read_exact_at(&mut left[..n], at)?;
        other.read_exact_at(&mut right[..n], at)?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
        at += n as u64;
    }
    Ok(true)
}

/// Copies the bytes inside the kernel.
fn fill(mut copy: &File, mut file: &File) -> io::Result<()> {
    file.rewind()?;
    io::copy(&mut file.take(MAX_SIZE), &mut copy).map(drop)
}

/// `None` if the copy has no name that leads to it.
fn in_memory(file: &PluginFile) -> io::Result<Option<(PathBuf, File)>> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know EXEC, later ones may be set up to make memory files not executable
    // without it.
    let name = file.name();
    let fd = memfd_create(&*name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(&*name, flags))?;
    let memory = File::from(fd);
    fill(&memory, &file.file)?;
    seal(&memory)?;
    Ok(named(&memory).map(|path| (path, memory)))
}

/// A name of its own for a memory file, if one leads to it.
fn named(memory: &File) -> Option<PathBuf> {
    let n = COPIES.fetch_add(1, Ordering::Relaxed);
    // The number that this process has where /proc is mounted: in another PID namespace, `process::id` may be
    // wrong.
    let this = fs::read_link("/proc/self").unwrap_or_else(|_| "self".into());
    let names = [this.as_path(), Path::new("self")].map(|process| alias(n, process, memory.as_raw_fd()));
    names.into_iter().find(|path| is_named(memory, path))
}

/// Whether a path leads to the file.
fn is_named(file: &File, path: &Path) -> bool {
    let (Ok(file), Ok(named)) = (file.metadata(), path.metadata()) else { return false };
    (file.dev(), file.ino()) == (named.dev(), named.ino())
}

/// Bars all further writes. Nothing maps the file for writing yet, so `FUTURE_WRITE` suffices. `WRITE` would
/// do, too, but for it the kernel has every CPU flush its lists of pages first, which takes milliseconds.
fn seal(memory: &File) -> rustix::io::Result<()> {
    let size = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    // Kernels before 5.1 don't know it.
    fcntl_add_seals(memory, size | SealFlags::FUTURE_WRITE)
        .or_else(|_| fcntl_add_seals(memory, size | SealFlags::WRITE))
}

/// A name of a descriptor that no other copy ever has, though descriptors are used again: the dynamic linker
/// takes a name that it knows for the library that it knows. The number is written in binary, as `/` and
/// `/.`.
///
/// A debugger opens the name, too, and `self` would mean itself to it: so `process` is the number of this
/// process.
fn alias(n: u32, process: &Path, fd: i32) -> PathBuf {
    let digits: String = (0..u32::BITS).map(|bit| if n >> bit & 1 == 1 { "/." } else { "/" }).collect();
    PathBuf::from(format!("/proc/{}{digits}/fd/{fd}", process.display()))
}

fn in_directory(file: &PluginFile, directory: &Path) -> io::Result<(PathBuf, File)> {
    if statvfs(directory)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let n = COPIES.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("effe-{}-{n}-{}", process::id(), file.name()));
    let copy = File::options().read(true).write(true).create_new(true).mode(0o500).open(&path)?;
    match fill(&copy, &file.file).and_then(|()| path.canonicalize()) {
        Ok(path) => Ok((path, copy)),
        Err(err) => {
            let _ = fs::remove_file(&path);
            Err(err)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_descriptor_that_is_used_again_has_another_name() {
        let process = Path::new("self");
        let names: std::collections::HashSet<_> =
            (0..1000).map(|n| alias(n, process, 7).into_os_string()).collect();
        assert_eq!(names.len(), 1000);
        let memory = File::from(memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
        assert!(is_named(&memory, &alias(u32::MAX, process, memory.as_raw_fd())));
    }

    #[test]
    fn a_sealed_copy_stays_as_it_is() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut memory = File::from(memfd_create("x", flags).unwrap());
        memory.write_all(b"lambda").unwrap();
        seal(&memory).unwrap();
        assert!(memory.write_at(b"other", 0).is_err());
        assert!(memory.set_len(0).is_err() && memory.set_len(100).is_err());
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let again = File::options().write(true).open(path).unwrap();
        assert!(again.write_at(b"other", 0).is_err());
    }

    #[test]
    fn a_copy_knows_its_bytes() {
        let with = |bytes: &[u8]| {
            let mut file = File::from(memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
            file.write_all(bytes).unwrap();
            file
        };
        let file = with(&[7; 100_000]);
        let plugin = PluginFile { path: "x".into(), file: file.try_clone().unwrap(), warning: None };
        let copy = PrivateCopy::make(plugin).unwrap();
        assert!(!copy.is_original() && copy.holds(&file));
        let mut other = [7; 100_000];
        other[99_999] = 8;
        assert!(!copy.holds(&with(&other)) && !copy.holds(&with(&other[1..])) && !copy.holds(&with(b"")));
    }
}
