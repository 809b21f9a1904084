//! Where this crate meets foreign code: the dynamic linker, the handshake, and the calls through a plugin's
//! table.
//!
//! `loaded.rs`, `context.rs` and `futures.rs` make safe functions of these entries. What the lambda calls back
//! is in `host.rs` and in the exchange.
#![expect(unsafe_code, reason = "the one place where foreign code is mapped and called")]

use std::{error::Error as _, io, mem, path::Path};

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{AbiInstability, check_layout_compatibility},
    library::{AbiHeaderRef, LibHeader, ROOT_MODULE_LOADER_NAME_WITH_NUL},
    std_types::RStr,
};
use effe_abi::{
    extensions::{ASYNC, AsyncPlugin, READY, Ready},
    raw::{Exchange, Failure, Host, PluginRef, Status},
};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
    process::Pid,
};

use super::elf;
use crate::error::Unloaded;

/// Keeps a library mapped for ever. libloading has no name for it.
const RTLD_NODELETE: i32 = 0x1000;

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
    pub init: unsafe extern "C" fn(&'static Host, &mut Failure) -> Status,
    /// After `init`, before `retire`. A Context that it makes (the pointer isn't null) must be stopped once.
    pub start: unsafe extern "C" fn(&'static Host, &mut *mut (), &mut Failure) -> Status,
    /// With a Context that `start` made, that is not stopped, and that no other call uses.
    pub run: unsafe extern "C" fn(*mut (), &Exchange<'_>, &mut Failure) -> Status,
    /// With a Context that `start` made, that no other call uses, and that is not used again.
    pub stop: unsafe extern "C" fn(*mut (), &mut Failure) -> Status,
    /// Once, after the last `stop`. Nothing of this table is called after it.
    pub retire: unsafe extern "C" fn(&'static Host, &mut Failure) -> Status,
    extension: unsafe extern "C" fn(RStr<'_>) -> *const (),
}

/// The entry of [`Ready`].
pub type ReadyEntry = unsafe extern "C" fn(&'static Host, &mut Failure) -> Status;

impl Entries {
    /// The entries of a lambda that is part of this program, or that [`open`] has checked.
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

    /// The lambda's entry `ready`, if it has one. Call it between `init` and `retire`.
    pub fn ready(&self) -> Option<ReadyEntry> {
        // SAFETY: the type and the id belong together (`effe_abi::extensions`).
        unsafe { self.table::<Ready>(READY) }.map(|table| table.ready)
    }

    /// The entries that can be polled, if the lambda is async. Call it before `retire`.
    pub fn polled(&self) -> Option<&'static AsyncPlugin> {
        // SAFETY: the type and the id belong together (`effe_abi::extensions`).
        unsafe { self.table(ASYNC) }
    }

    /// The plugin's table under `id`. `None` if it has none, or one that is shorter than a `T`.
    ///
    /// # Safety
    /// `T` is the type of the tables under this id, and its first field is the table's size as a `u32`.
    unsafe fn table<T>(&self, id: &str) -> Option<&'static T> {
        // SAFETY: the wire's promise: any thread, at any time.
        let table = unsafe { (self.extension)(id.into()) };
        // SAFETY: the extension's promise: null, or a table of this id that lives for ever and begins with
        // its size.
        let size = unsafe { table.cast::<u32>().as_ref() }?;
        // A reference to a table that is shorter would be undefined behaviour, even if nobody read through
        // it. SAFETY: as above; it is as large as a `T`, and the caller says that it is one.
        (*size as usize >= size_of::<T>()).then(|| unsafe { &*table.cast::<T>() })
    }
}

/// Maps a library for ever and takes the lambda's table from it. `path` must be absolute, and no library was
/// opened under it before: the dynamic linker would return that one. `is_tried` says that a child of this
/// process has opened the same bytes and compared the layout, so that it need not be compared again. An error
/// says what differs, and what to do, in one line.
///
/// # Safety
/// It runs the library's constructors: whoever wrote the file is trusted with this process.
pub unsafe fn open(path: &Path, is_tried: bool) -> Result<Entries, Unloaded> {
    // SAFETY: the caller trusts the file.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) };
    let library = library.map_err(|err| linker_reason(&err, path))?;
    // SAFETY: abi_stable defines the symbol's type; the library is a lambda's, or has no such symbol.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL) };
    let header = *header.map_err(|_| {
        "it exports no lambda; add effe_abi::export!(YourType) and build it again with crate-type = [\"cdylib\"]"
            .to_owned()
    })?;
    // Never closed: all that follows points into it, and thread-local destructors would keep it mapped in any
    // case.
    mem::forget(library);
    let header = header.upgrade().map_err(|_| {
        "it was built with another version of abi_stable; build it again with a current effe-abi".to_owned()
    })?;
    if !is_tried {
        same_layout(header)?;
    }
    // SAFETY: the layout is checked, here or in the child.
    let module = unsafe { header.init_root_module_with_unchecked_layout::<PluginRef>() };
    module
        .map(Entries::of)
        .map_err(|err| format!("its root module can't be had: {}", one_line(&err.to_string())).into())
}

/// Compares the layout of the table with this loader's. abi_stable's own text for a mismatch has hundreds of
/// lines; this one has one.
fn same_layout(header: &'static LibHeader) -> Result<(), String> {
    let remedy = "build it again with a current effe-abi 1.x, or use the loader it was built for";
    let Some(theirs) = header.layout() else {
        return Err(format!("it was built without layout information; {remedy}"));
    };
    let Err(errors) = check_layout_compatibility(<PluginRef as StableAbi>::LAYOUT, theirs) else {
        return Ok(());
    };
    let mut differences = errors.errors.iter().flat_map(|error| error.errs.iter());
    let first = differences.next().map_or_else(|| "its tables differ".to_owned(), difference);
    let more = match differences.count() {
        0 => String::new(),
        more => format!(", and {more} more differences"),
    };
    Err(format!("ABI mismatch: {first}{more}; {remedy}"))
}

/// One difference in one line: what the plugin has and what this loader has.
fn difference(error: &AbiInstability) -> String {
    match error {
        AbiInstability::FieldCountMismatch(it) => {
            format!("a table has {} fields where this loader has {}", it.found, it.expected)
        }
        AbiInstability::PackageVersion(it) => {
            format!("a type is of version {} where this loader has {}", it.found.version, it.expected.version)
        }
        AbiInstability::Package(it) => {
            format!("a type comes from {} where this loader has one from {}", it.found, it.expected)
        }
        AbiInstability::Name(it) => {
            let (found, expected) = (one_line(&it.found.to_string()), one_line(&it.expected.to_string()));
            format!("a type is {found} where this loader has {expected}")
        }
        AbiInstability::Size(it) => {
            format!("a type has {} bytes where this loader's has {}", it.found, it.expected)
        }
        AbiInstability::UnexpectedField(it) => {
            format!("it has a field {} where this loader has {}", it.found.name(), it.expected.name())
        }
        other => {
            let text = format!("{other:?}");
            format!("{} differs", text.split(['(', ' ', '{']).next().unwrap_or("a type"))
        }
    }
}

/// The dynamic linker's message without the name of our copy, and a remedy where one is known.
fn linker_reason(error: &libloading::Error, path: &Path) -> Unloaded {
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let text = one_line(text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text));
    let text = text.replace(&format!(" (required by {})", path.display()), "");
    if let Some(errno) = linker_lacks(&text, path) {
        // The system's reason follows anyhow.
        let said = in_words(errno);
        let text = text.strip_suffix(&format!(": {said}")).unwrap_or(&text);
        return Unloaded::system(&format!("the dynamic linker fails: {text}"), errno.into());
    }
    let hint = if text.contains("GLIBC_") {
        "; it is built against a newer glibc: build it on a system as old as this one"
    } else if text.contains("static TLS") {
        "; its allocator must not use initial-exec thread-local storage: \
         enable disable_initial_exec_tls (jemalloc) or local_dynamic_tls (mimalloc)"
    } else if text.contains("undefined symbol") {
        "; link what it needs, or build it again"
    } else if text.contains("cannot open shared object file") && elf::looks_beside_itself(path) {
        "; it looks for that library beside itself ($ORIGIN), and a plugin is opened as a copy, which has no directory: \
         install the library where the dynamic linker looks (ldconfig, LD_LIBRARY_PATH), or link it statically"
    } else if text.contains("cannot open shared object file") {
        "; install that library, or link it statically"
    } else if text.contains("failed to map segment") {
        "; no place where this process may execute a copy of it: mount one of /tmp, /dev/shm without noexec"
    } else {
        ""
    };
    format!("the dynamic linker refuses it: {text}{hint}").into()
}

/// What the system lacks, if that is why the dynamic linker fails. It says so in words, or as `Error 12`.
fn linker_lacks(text: &str, path: &Path) -> Option<Errno> {
    let is_said = |errno: &Errno| {
        text.contains(&in_words(*errno)) || text.ends_with(&format!("Error {}", errno.raw_os_error()))
    };
    // It doesn't say why it can't map a file: a memory file always may be mapped, others where they are executable.
    let is_executable = || {
        path.starts_with("/proc")
            || statvfs(path).is_ok_and(|system| !system.f_flag.contains(StatVfsMountFlags::NOEXEC))
    };
    let lacks = [Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::IO, Errno::INTR].into_iter().find(is_said);
    // The copy that it names by no name could be opened before.
    let confined = [Errno::ACCESS, Errno::PERM].into_iter().find(is_said);
    let lacks = lacks.or(confined.filter(|_| text.starts_with("cannot open shared object file: ")));
    lacks.or_else(|| (text.contains("failed to map segment") && is_executable()).then_some(Errno::NOMEM))
}

/// An error of the system's as the C library says it.
fn in_words(errno: Errno) -> String {
    let said = io::Error::from(errno).to_string();
    said.split(" (os error").next().unwrap_or(&said).to_owned()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Forks; `None` in the child.
///
/// # Safety
/// The process has one thread. With more, the child could wait for a lock whose owner does not exist in it.
pub unsafe fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the caller's duty is the callee's condition.
    let pid = unsafe { libc::fork() };
    if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(Pid::from_raw(pid)) }
}

/// Ends this process at once. No destructor runs, neither ours nor a library's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no conditions.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        ptr,
        sync::atomic::{AtomicU32, Ordering},
    };

    use effe_abi::raw::status;

    use super::*;

    thread_local! {
        static TABLE: Cell<*const ()> = const { Cell::new(ptr::null()) };
    }

    unsafe extern "C" fn with_host(_: &'static Host, _: &mut Failure) -> Status {
        status::OK
    }

    unsafe extern "C" fn start(_: &'static Host, _: &mut *mut (), _: &mut Failure) -> Status {
        status::OK
    }

    unsafe extern "C" fn run(_: *mut (), _: &Exchange<'_>, _: &mut Failure) -> Status {
        status::OK
    }

    unsafe extern "C" fn stop(_: *mut (), _: &mut Failure) -> Status {
        status::OK
    }

    unsafe extern "C" fn extension(_: RStr<'_>) -> *const () {
        TABLE.get()
    }

    const ENTRIES: Entries = Entries {
        flags: 0,
        info: "{}",
        build: "",
        init: with_host,
        start,
        run,
        stop,
        retire: with_host,
        extension,
    };

    #[test]
    fn what_the_dynamic_linker_lacks_is_told_apart_from_what_is_wrong_with_a_library() {
        let lacks = |text| linker_lacks(text, Path::new("/proc/1/fd/3"));
        let of_the_copy = "cannot open shared object file: Permission denied";
        assert_eq!(lacks(of_the_copy), Some(Errno::ACCESS));
        assert_eq!(lacks("libfoo.so.1: cannot open shared object file: Permission denied"), None);
        assert_eq!(lacks("libfoo.so.1: cannot open shared object file: No such file or directory"), None);
        assert_eq!(
            lacks("libfoo.so.1: cannot open shared object file: Too many open files"),
            Some(Errno::MFILE)
        );
        assert_eq!(lacks("cannot read file data: Error 4"), Some(Errno::INTR));
        assert_eq!(lacks("failed to map segment from shared object"), Some(Errno::NOMEM));
        assert_eq!(lacks("undefined symbol: y"), None);
    }

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
        assert!(ENTRIES.ready().is_none() && ENTRIES.polled().is_none(), "there is no table");
        // Size and version, and that is all.
        let header = at_the_end_of_memory(8);
        // SAFETY: mapped for good, readable and writable.
        let size = unsafe { &*header };
        TABLE.set(header.cast());
        for n in [0, 4, 8, 15] {
            size.store(n, Ordering::Relaxed);
            assert!(ENTRIES.ready().is_none() && ENTRIES.polled().is_none(), "{n}");
        }
    }

    #[test]
    fn a_table_of_a_later_version_is_longer_and_counts() {
        static READY: Ready = Ready { size: 100, version: 2, ready: with_host };
        TABLE.set(ptr::from_ref(&READY).cast());
        assert!(ENTRIES.ready().is_some_and(|ready| ptr::fn_addr_eq(ready, READY.ready)));
    }
}
