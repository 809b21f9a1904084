//! How much address space this process may have, for those who limit it.

use std::fs;

use rlimit::{Resource, getrlimit};

/// What a thread takes: its stack, and a page that guards it.
const THREAD: u64 = (2 << 20) + (64 << 10);
/// For the lambda's image and what everything holds.
const SPARE: u64 = 8 << 20;

/// The limit of this process's address space, if it is less than what the process has with `n_threads` more threads,
/// and how much that is; both in bytes. An allocation that fails ends a process without a word of the limit, so it is
/// looked at before.
pub fn too_little(n_threads: usize) -> Option<(u64, u64)> {
    let (limit, _) = getrlimit(Resource::AS).ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let kib: u64 = size.trim().trim_end_matches(" kB").parse().ok()?;
    let needed = (kib << 10) + SPARE + THREAD * n_threads as u64;
    (needed > limit).then_some((needed, limit))
}
