//! The entries of a plugin, and the tables that it has beyond v1.
//!
//! `loaded.rs`, `context.rs` and `futures.rs` make safe functions of them. What the lambda calls back is in `host.rs` and
//! in the exchange.
#![expect(unsafe_code, reason = "these calls are foreign code, and what they return are foreign pointers")]

use std::slice;

use effe_abi::{
    c_root::{ExtensionEntry, HostEntry, RunEntry, StartEntry, StopEntry},
    extensions::{ASYNC, AsyncPlugin, READY, Ready},
    raw::PluginRef,
};

/// The entries of a plugin's table, copied: the accessors of a prefix type test a bit at each call. The `Host`
/// that its caller hands in must keep the wire's promises.
#[derive(Clone, Copy)]
pub struct Entries {
    /// Bits of `raw::plugin_flags`.
    pub flags: u64,
    /// The lambda's Info, a JSON object.
    pub info: &'static str,
    pub build: &'static str,
    /// Once per generation, before any `start`.
    pub init: HostEntry,
    /// After `init`, before `retire`. A Context that it makes (the pointer isn't null) must be stopped once.
    pub start: StartEntry,
    /// With a Context that `start` made, that is not stopped, and that no other call uses.
    pub run: RunEntry,
    /// With a Context that `start` made, that no other call uses, and that is not used again.
    pub stop: StopEntry,
    /// Once, after the last `stop`. Nothing of this table is called after it.
    pub retire: HostEntry,
    /// Any thread, at any time.
    pub extension: ExtensionEntry,
}

impl Entries {
    /// The entries of a lambda that is part of this program, or whose layout was compared.
    pub fn of(plugin: PluginRef) -> Entries {
        Entries {
            flags: plugin.flags(),
            info: plugin.info().as_str(),
            build: plugin.build().as_str(),
            init: plugin.init(),
            start: plugin.start(),
            run: plugin.run(),
            stop: plugin.stop(),
            retire: plugin.retire(),
            extension: plugin.extension(),
        }
    }

    /// The lambda's entry `ready`, if it has one. Call it between `init` and `retire`. An error is a breach of the
    /// contract; so it is below.
    pub fn ready(&self) -> Result<Option<HostEntry>, String> {
        // SAFETY: the type and the id belong together (`effe_abi::extensions`).
        let table = unsafe { self.table::<Ready>(READY) };
        table.map(|table| table.map(|table| table.ready))
    }

    /// The entries that can be polled, if the lambda is async. Call it before `retire`.
    pub fn polled(&self) -> Result<Option<&'static AsyncPlugin>, String> {
        // SAFETY: the type and the id belong together (`effe_abi::extensions`).
        unsafe { self.table(ASYNC) }
    }

    /// The plugin's table under `id`. `None` if it has none, or one that is shorter than a `T`.
    ///
    /// # Safety
    /// `T` is the type of the tables under this id: size and version, each a `u32`, and behind them functions alone.
    unsafe fn table<T>(&self, id: &str) -> Result<Option<&'static T>, String> {
        // SAFETY: the wire's promise: any thread, at any time.
        let table = unsafe { (self.extension)(id.into()) };
        // SAFETY: the extension's promise: null, or a table of this id that lives for ever and begins with
        // its size.
        let size = unsafe { table.cast::<u32>().as_ref() };
        // A reference to a table that is shorter, or that has a null function, would be undefined behaviour, even if
        // nobody read through it.
        if size.is_none_or(|size| (*size as usize) < size_of::<T>()) {
            return Ok(None);
        }
        let n_functions = (size_of::<T>() - 2 * size_of::<u32>()) / size_of::<Option<HostEntry>>();
        let first = table.cast::<[u32; 2]>().wrapping_add(1).cast::<Option<HostEntry>>();
        // SAFETY: as above; they are as many as a `T` has. None of them is called as if it were of this type.
        let functions = unsafe { slice::from_raw_parts(first, n_functions) };
        if functions.iter().any(Option::is_none) {
            return Err(format!("a function of its table {id} is null; give it all {n_functions}"));
        }
        // SAFETY: as above; the caller says that it is a `T`.
        Ok(Some(unsafe { &*table.cast::<T>() }))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        ptr,
        sync::atomic::{AtomicU32, Ordering},
    };

    use abi_stable::std_types::RStr;

    use super::*;
    use crate::plugin::testing::NOTHING;

    thread_local! {
        static TABLE: Cell<*const ()> = const { Cell::new(ptr::null()) };
    }

    unsafe extern "C" fn extension(_: RStr<'_>) -> *const () {
        TABLE.get()
    }

    const ENTRIES: Entries = Entries { extension, ..NOTHING };

    /// So many bytes at the end of a page that no readable page follows: to read further kills the test.
    fn at_the_end_of_memory(n_bytes: usize) -> *const AtomicU32 {
        // A whole number of pages, however large they are.
        let page = 64 * 1024;
        let (flags, none) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_NONE);
        // SAFETY: new memory, wherever the system wants to have it.
        let start = unsafe { libc::mmap(ptr::null_mut(), 2 * page, none, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: it was mapped above, and nothing is in it yet.
        assert_eq!(unsafe { libc::mprotect(start, page, libc::PROT_READ | libc::PROT_WRITE) }, 0);
        start.cast::<AtomicU32>().wrapping_byte_add(page - n_bytes)
    }

    #[test]
    fn a_table_that_is_too_short_is_none_and_nothing_behind_it_is_read() {
        let there_is_none =
            || ENTRIES.ready() == Ok(None) && ENTRIES.polled().is_ok_and(|table| table.is_none());
        assert!(there_is_none(), "there is no table");
        // Size and version, and that is all.
        let header = at_the_end_of_memory(8);
        // SAFETY: mapped for good, readable and writable.
        let size = unsafe { &*header };
        TABLE.set(header.cast());
        for n in [0, 4, 8, 15] {
            size.store(n, Ordering::Relaxed);
            assert!(there_is_none(), "{n}");
        }
    }

    #[test]
    fn a_table_of_a_later_version_is_longer_and_counts() {
        static READY: Ready = Ready { size: 100, version: 2, ready: NOTHING.init };
        TABLE.set(ptr::from_ref(&READY).cast());
        assert!(ENTRIES.ready().unwrap().is_some_and(|ready| ptr::fn_addr_eq(ready, READY.ready)));
    }

    #[test]
    fn a_table_with_a_null_function_is_a_breach() {
        #[repr(C, align(8))]
        struct Table([u32; 2], [usize; 3]);

        static TABLE: Table = Table([32, 1], [1, 1, 0]);
        super::tests::TABLE.set(ptr::from_ref(&TABLE).cast());
        let breach = ENTRIES.polled().err().expect("it lacks its stop");
        assert_eq!(breach, "a function of its table effe.async/1 is null; give it all 3");
    }
}
