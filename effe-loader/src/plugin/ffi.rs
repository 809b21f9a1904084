//! Where this crate maps foreign code: the dynamic linker, and the handshake. What comes of it are the plugin's
//! `Entries`, of either of its two roots: that of C, which `root.rs` checks, or abi_stable's, whose layout is compared
//! here.
#![expect(unsafe_code, reason = "the one place where foreign code is mapped")]

use std::{error::Error as _, io, mem, path::Path};

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{AbiInstability, check_layout_compatibility},
    library::{AbiHeaderRef, LibHeader, ROOT_MODULE_LOADER_NAME_WITH_NUL},
};
use effe_abi::{
    c_root::{Root, SYMBOL},
    raw::PluginRef,
};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
    process::Pid,
};

use super::{elf, entries::Entries, root};
use crate::error::Unloaded;

/// Keeps a library mapped for ever. libloading has no name for it.
const RTLD_NODELETE: i32 = 0x1000;

/// Maps a library for ever and takes the lambda's entries from it. `path` must be absolute, and no library was
/// opened under it before: the dynamic linker would return that one. `is_tried` says that a child of this
/// process has opened the same bytes and compared the layout of abi_stable's root, so that it need not be compared
/// again. An error
/// says what differs, and what to do, in one line.
///
/// # Safety
/// It runs the library's constructors: whoever wrote the file is trusted with this process.
pub unsafe fn open(path: &Path, is_tried: bool) -> Result<Entries, Unloaded> {
    // SAFETY: the caller trusts the file.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) };
    let library = library.map_err(|err| linker_reason(&err, path))?;
    // SAFETY: `effe.h` defines the symbol's type; the library is a lambda's, or has no such symbol.
    let c_root = unsafe { library.get::<*const Root>(SYMBOL) }.map(|symbol| *symbol);
    if let Ok(c_root) = c_root {
        // Never closed: all that follows points into it, and thread-local destructors would keep it mapped in any
        // case.
        mem::forget(library);
        // SAFETY: where the symbol says that the root is, and mapped for ever.
        return Ok(unsafe { root::entries(c_root) }?);
    }
    // SAFETY: abi_stable defines the symbol's type; the library is a lambda's, or has no such symbol.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL) };
    let header = *header.map_err(|_| {
        "it exports no lambda; add effe_abi::export!(YourType) and build it again with crate-type = [\"cdylib\"], \
         or in C add EFFE_LAMBDA(…)"
            .to_owned()
    })?;
    // As above.
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
    use super::*;

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
}
