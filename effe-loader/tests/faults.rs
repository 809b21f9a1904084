//! System calls that fail: what the system lacks is never said to be wrong with the plugin.

use std::process::{Command, Stdio};

use crate::support::{Loader, plugins::probe};

/// Whether strace is there and may trace a program.
pub fn can_inject() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let can = strace.status().is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: strace is not there, or may not trace");
    }
    can
}

#[test]
fn what_the_system_lacks_while_a_plugin_is_read_or_tried_is_no_refusal() {
    if !can_inject() {
        return;
    }
    // The calls, whether those alone that concern the plugin's file, the error, what the line says.
    let table = [
        ("openat", true, "EMFILE", "Too many open files (os error 24); the limit of open files is "),
        ("openat", true, "ENFILE", "Too many open files in system (os error 23); the whole system has "),
        ("openat", true, "ENOMEM", "Cannot allocate memory (os error 12); this user's limit of threads"),
        ("openat", true, "EIO", "Input/output error (os error 5)"),
        ("statx", true, "EIO", "Input/output error (os error 5)"),
        ("memfd_create", false, "EMFILE", "it can't be copied: Too many open files (os error 24);"),
        ("memfd_create", false, "ENOMEM", "it can't be copied: Cannot allocate memory (os error 12);"),
        ("copy_file_range,sendfile,splice,read", true, "EIO", "it can't be copied: Input/output error"),
        ("pipe2", false, "EMFILE", "it can't be tried in a child process: Too many open files"),
        ("pipe2", false, "ENFILE", "it can't be tried in a child process: Too many open files in system"),
        ("clone,fork", false, "EAGAIN", "it can't be tried in a child process: Resource temporarily"),
        ("clone,fork", false, "ENOMEM", "it can't be tried in a child process: Cannot allocate memory"),
        (
            "poll,ppoll",
            false,
            "ENOMEM:when=2+",
            "it can't be tried in a child process: Cannot allocate memory",
        ),
    ];
    for (calls, only_of_plugin, error, part) in table {
        let case = format!("{calls}: {error}");
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error={error}"));
        let mut strace = vec!["-o", "/dev/null", "-e", &trace, "-e", &inject];
        let plugin = probe();
        if only_of_plugin {
            strace.extend(["-P", plugin.to_str().unwrap()]);
        }
        let done = Loader::of(probe()).args(["--port", "0"]).under("strace", strace).run();
        assert_eq!(done.status.code(), Some(1), "{case}: {done:#?}");
        let line = done.one_line();
        assert!(line.starts_with("effe-loader: cannot load ") && line.contains(part), "{case}: {line}");
        for blamed in ["empty", "damaged", "build it again"] {
            assert!(!line.contains(blamed), "{case}: {line}");
        }
    }
}

#[test]
fn a_runtime_that_gets_no_descriptor_ends_the_start() {
    if !can_inject() {
        return;
    }
    for (args, part) in [
        (&["--workers", "2"][..], "cannot start 2 workers: Too many open files"),
        (&["--admin", "127.0.0.1:0"], "cannot start the admin listener: Too many open files"),
    ] {
        for call in ["epoll_create1", "eventfd2"] {
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error=EMFILE"));
            let strace = ["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let loader = Loader::of(probe()).args(["--port", "0"]).args(args).under("strace", strace);
            let done = loader.run().assert_code(1);
            let line = done.one_line();
            assert!(line.contains(part) && line.contains("ulimit -n"), "{call}: {line}");
        }
    }
}

#[test]
fn a_plugin_that_cannot_be_mapped_for_want_of_memory_is_not_refused() {
    // In MiB; with fewer, the dynamic linker can't map the loader itself.
    for mib in 12..=20_u64 {
        let limit = format!("--as={}", mib << 20);
        let done = Loader::of(probe()).arg("--check").under("prlimit", [limit]).run();
        if done.status.success() || !done.stderr.starts_with("effe-loader: ") {
            continue;
        }
        assert_eq!(done.status.code(), Some(1), "{mib}: {done:#?}");
        assert!(done.one_line().contains("(ulimit -v)"), "{done:#?}");
    }
}
