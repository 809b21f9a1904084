//! The scoreboard: what each connection of a process is doing, and what each of its threads runs, in memory that the
//! supervisor can read after the process's death.
//!
//! The lambda may have written anything there. So all of it is atomic, every index is checked, and nothing is believed
//! that must be true: at worst a connection of the same process gets the wrong end.
#![expect(unsafe_code, reason = "memory that processes share")]

use std::{
    io, mem,
    os::fd::{AsFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::{entry::Entry, record::Record};

/// Connections that can be watched: one for each descriptor that there can be, and no more than this.
const MAX_CONNECTIONS: u64 = 1 << 20;
/// Threads that can be watched at a time.
pub const MAX_THREADS: usize = 1024;

/// Aligned as the records that follow.
#[repr(C, align(64))]
struct Header {
    /// The highest descriptor that a connection has had, and one more.
    n_used: AtomicU32,
    /// The number of the last connection.
    serial: AtomicU32,
    /// Records that have been used.
    n_records: AtomicU32,
    /// Contexts that were started, and stopped.
    contexts: [AtomicU64; 2],
    _padding: [u32; 24],
}

const RECORDS: usize = mem::size_of::<Header>();
const ENTRIES: usize = RECORDS + MAX_THREADS * mem::size_of::<Record>();

/// A mapping of the scoreboard.
pub struct Board {
    at: ptr::NonNull<u8>,
    size: usize,
    n_entries: usize,
}

// SAFETY: what is mapped is only used through references to atomics.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// Memory for a scoreboard of a process that may have so many descriptors.
    pub fn memory(n_descriptors: u64) -> io::Result<OwnedFd> {
        let n_entries = n_descriptors.min(MAX_CONNECTIONS);
        let memory = memfd_create("scoreboard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, ENTRIES as u64 + n_entries * mem::size_of::<Entry>() as u64)?;
        // Memory that is cut off would end whoever looks at it.
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(memory)
    }

    pub fn map(memory: &impl AsFd) -> io::Result<Board> {
        let size = usize::try_from(fstat(memory)?.st_size).unwrap_or(0);
        if size < ENTRIES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping, which touches no memory of ours.
        let at =
            unsafe { mmap(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, flags, memory, 0) }?;
        let at = ptr::NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Board { at, size, n_entries: (size - ENTRIES) / mem::size_of::<Entry>() })
    }

    fn header(&self) -> &Header {
        // SAFETY: it is within the mapping, aligned to its page, and all of it is atomic.
        unsafe { self.at.cast::<Header>().as_ref() }
    }

    pub fn records(&self) -> &[Record] {
        let n = (self.header().n_records.load(Ordering::Acquire) as usize).min(MAX_THREADS);
        &self.all_records()[..n]
    }

    fn all_records(&self) -> &[Record] {
        // SAFETY: within the mapping, which is as large as `ENTRIES` at least.
        let first = unsafe { self.at.add(RECORDS) }.cast::<Record>();
        // SAFETY: `MAX_THREADS` of them lie there, aligned to the header's size, and all of it is atomic.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), MAX_THREADS) }
    }

    /// A record for the calling thread, and its index; `None` if there are too many threads.
    pub fn new_record(&self, thread: i32) -> Option<(u32, &Record)> {
        let (n, record) = self.all_records().iter().enumerate().find(|(_, record)| record.take(thread))?;
        self.header().n_records.fetch_max(n as u32 + 1, Ordering::AcqRel);
        Some((n as u32, record))
    }

    pub fn entries(&self) -> &[Entry] {
        let n = (self.header().n_used.load(Ordering::Acquire) as usize).min(self.n_entries);
        &self.all_entries()[..n]
    }

    fn all_entries(&self) -> &[Entry] {
        // SAFETY: within the mapping, which is as large as `ENTRIES` at least.
        let first = unsafe { self.at.add(ENTRIES) }.cast::<Entry>();
        // SAFETY: `n_entries` of them fit into what is mapped behind it; all of it is atomic.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.n_entries) }
    }

    /// The entry of a descriptor.
    pub fn entry(&self, descriptor: i32) -> Option<&Entry> {
        self.all_entries().get(usize::try_from(descriptor).ok()?)
    }

    /// An entry of a new connection; `None` if its descriptor is too high.
    pub fn use_entry(&self, descriptor: i32) -> Option<(&Entry, u32)> {
        let entry = self.entry(descriptor)?;
        self.header().n_used.fetch_max(u32::try_from(descriptor).ok()? + 1, Ordering::AcqRel);
        Some((entry, self.header().serial.fetch_add(1, Ordering::Relaxed) + 1))
    }

    /// How many Contexts were started in the process, and stopped.
    pub fn contexts(&self) -> &[AtomicU64; 2] {
        &self.header().contexts
    }

    /// Requests that have come on all threads.
    pub fn n_requests(&self) -> u64 {
        self.records().iter().map(Record::n_requests).fold(0, u64::wrapping_add)
    }

    /// Runs that have ended on all threads.
    pub fn n_runs(&self) -> u64 {
        self.records().iter().map(Record::n_runs).fold(0, u64::wrapping_add)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `map`, with this size; references to it end with `self`.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rescue::entry::state;

    #[test]
    fn what_one_mapping_writes_the_other_reads_and_no_index_is_too_high() {
        let memory = Board::memory(100).unwrap();
        let (one, other) = (Board::map(&memory).unwrap(), Board::map(&memory).unwrap());
        let (entry, serial) = one.use_entry(7).unwrap();
        entry.state.store(state::BUSY, Ordering::Relaxed);
        assert_eq!(serial, 1);
        assert_eq!(other.entry(7).unwrap().state.load(Ordering::Relaxed), state::BUSY);
        assert_eq!(other.entries().len(), 8);
        for bad in [-1, 100, i32::MAX, i32::MIN] {
            assert!(one.entry(bad).is_none() && one.use_entry(bad).is_none(), "{bad}");
        }
        // Whatever the lambda writes there.
        one.header().n_used.store(u32::MAX, Ordering::Relaxed);
        one.header().n_records.store(u32::MAX, Ordering::Relaxed);
        assert_eq!((other.entries().len(), other.records().len()), (100, MAX_THREADS));
        assert!(ftruncate(&memory, 0).is_err(), "nobody cuts it off");
    }
}
