//! How much memory and address space this process may have.

use std::{fs, path::Path};

use rlimit::{Resource, getrlimit};
use rustix::system::sysinfo;

/// What a thread takes: its stack, and a page that guards it.
const THREAD: u64 = (2 << 20) + (64 << 10);
/// For the lambda's image and what everything holds.
const SPARE: u64 = 8 << 20;

/// Bytes from which on memory comes from the system and goes back to it, each piece by itself; and bytes that the
/// allocator keeps free at the end of what it has from the system.
const MAPPED: i32 = 4 << 20;
const KEPT: i32 = 16 << 20;

/// Bytes of memory that this process may have: the machine's, or what a control group leaves of it.
pub fn available() -> u64 {
    let system = sysinfo();
    let machine = (system.totalram as u64).saturating_mul(system.mem_unit.into());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_of_groups(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |limit| limit.min(machine))
}

/// Has the allocator give pages that nobody uses back to the system. glibc keeps them, since it takes a size that was
/// once freed for one that comes again. The lambda's allocator is this one, unless it has its own.
#[expect(unsafe_code, reason = "a call of the C library's")]
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time and on any thread (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the allocator keep what is freed for what comes next. Else glibc maps each body of a mebibyte anew or gives it back
/// behind each request, and to touch its pages for the first time costs as much as to read and to send it. What is kept
/// beyond need is given back by [`give_back`].
#[expect(unsafe_code, reason = "a call of the C library's")]
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    for (what, n_bytes) in [(libc::M_MMAP_THRESHOLD, MAPPED), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: it may be called at any time (mallopt(3)).
        unsafe {
            libc::mallopt(what, n_bytes);
        }
    }
}

/// The least limit of the control groups that `/proc/self/cgroup` names, and of those above them, in either version
/// (cgroups(7)). In a container a path may be the host's; its root is the container's own then.
fn limit_of_groups(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let path = Path::new(path.trim_start_matches('/'));
        path.ancestors()
            .filter_map(|group| fs::read_to_string(root.join(group).join(file)).ok()?.trim().parse().ok())
            .min()
    });
    limits.min()
}

/// The limit of this process's address space, if it is less than what the process has with `n_threads` more threads,
/// and how much that is; both in bytes. An allocation that fails ends a process without a word of the limit, so it is
/// looked at before.
pub fn too_little(n_threads: usize) -> Option<(u64, u64)> {
    let (limit, _) = getrlimit(Resource::AS).ok()?;
    let needed = bytes_in("/proc/self/status", "VmSize:")? + SPARE + THREAD * n_threads as u64;
    (needed > limit).then_some((needed, limit))
}

/// Bytes of memory that a process has now; `None` if there is no such process.
pub fn of(pid: u32) -> Option<u64> {
    bytes_in(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The value of this line (proc_pid_status(5)).
fn bytes_in(path: &str, name: &str) -> Option<u64> {
    let status = fs::read_to_string(path).ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = size.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let root = std::env::temp_dir().join(format!("effe-cgroup-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "3000\n");
        write("memory/memory.limit_in_bytes", "2000\n");
        let limit = |groups| limit_of_groups(groups, &root);
        assert_eq!(limit("0::/a/b\n"), Some(3000));
        assert_eq!(limit("5:cpu,memory:/of/the/host\n1:cpu:/\n0::/a/b\n"), Some(2000));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit(""), None);
        fs::remove_dir_all(&root).unwrap();
        assert!(available() > 1 << 20);
        assert!(of(std::process::id()) > Some(1 << 20));
        assert_eq!(of(u32::MAX), None);
    }
}
