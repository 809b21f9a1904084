//! A start ends in serving or in one line, whatever the limits of its process are and whatever it inherits.

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::{ffi::OsStrExt as _, net::UnixStream},
};

use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket},
    process::Signal,
};

use crate::support::{Loader, Scratch, plugins::probe};

const ON_LOOPBACK: [&str; 4] = ["--host", "127.0.0.1", "--port", "0"];

/// Starts the loader within a limit: it serves a request and stops well, or ends with 1 and the line that this returns.
#[track_caller]
fn start_within(limit: &str, workers: &str) -> Option<String> {
    let loader = Loader::of(probe()).args(ON_LOOPBACK).args(["--workers", workers]).under("prlimit", [limit]);
    match loader.start().serves_or_ends_with(1) {
        Ok(server) => {
            assert_eq!(server.get("/").status, 200, "{limit}");
            server.stop();
            None
        }
        Err(line) => {
            assert!(line.starts_with("effe-loader: cannot "), "{limit}: {line}");
            Some(line)
        }
    }
}

/// With `EFFE_STARTS` set, every limit of a range; else a few.
fn steps(range: std::ops::RangeInclusive<u64>, few: &[u64]) -> Vec<u64> {
    if std::env::var_os("EFFE_STARTS").is_some() { range.collect() } else { few.to_vec() }
}

#[test]
fn with_too_few_descriptors_it_says_how_many_it_needs() {
    let mut n_served = 0;
    for limit in steps(4..=64, &[4, 8, 16, 30, 44, 64]) {
        match start_within(&format!("--nofile={limit}:{limit}"), "4") {
            Some(line) => {
                assert!(
                    line.contains("4 workers need ") && line.contains(&format!(" is {limit};")),
                    "{line}"
                );
                assert!(line.contains("ulimit -n") && line.contains("--workers"), "{line}");
                assert_eq!(n_served, 0, "it serves with fewer than {limit}");
            }
            None => n_served += 1,
        }
    }
    assert!(n_served > 0);
    let line = start_within("--nofile=256:256", "64").expect("64 workers need more");
    assert!(line.contains("64 workers need "), "{line}");
}

#[test]
fn with_too_little_memory_it_says_what_the_limit_is() {
    // In MiB. Below, the dynamic linker may end the process, if the loader is built with all features and for debugging.
    let mut n_served = 0;
    for mib in steps(24..=64, &[24, 28, 64]) {
        let bytes = mib << 20;
        match start_within(&format!("--as={bytes}"), "4") {
            Some(line) => {
                assert!(line.contains(&format!("is {bytes}")) && line.contains("(ulimit -v"), "{line}");
                assert_eq!(n_served, 0, "it serves with less than {mib} MiB");
            }
            None => n_served += 1,
        }
    }
    assert!(n_served > 0);
}

#[test]
fn with_too_few_threads_it_says_what_the_limit_is() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the limit of threads is of a user who has no other threads, so this needs root");
        return;
    }
    let scratch = Scratch::new();
    let plugin = scratch.write("libprobe.so", fs::read(probe()).unwrap());
    // A user who has nothing else on this machine.
    let user = "--reuid=4294967000";
    for limit in steps(2..=9, &[2, 3, 6, 7]) {
        let loader = Loader::without_rights(&scratch);
        let loader = loader.arg("--plugin").arg(&plugin).args(["--syslog", "none", "--log-format", "text"]);
        let loader = loader.args(ON_LOOPBACK).args(["--workers", "4"]);
        let limit = format!("--nproc={limit}");
        let loader = loader.under("prlimit", [&limit]).under("setpriv", [user, "--clear-groups"]);
        match loader.start().serves_or_ends_with(1) {
            Ok(server) => drop(server.stop()),
            Err(line) => {
                assert!(line.contains("limit of threads is ") && line.contains("ulimit -u"), "{line}")
            }
        }
    }
}

#[test]
fn signals_that_were_ignored_or_blocked_are_taken_over() {
    for how in ["--ignore-signal", "--block-signal"] {
        let loader = Loader::of(probe()).args(ON_LOOPBACK);
        let server = loader.under("env", [format!("{how}=HUP,INT,TERM,XFSZ,PIPE")]).serve_as_told();
        server.signal(Signal::HUP);
        server.wait_for_line("nothing has changed; generation 1 goes on serving");
        server.stop();
        let loader = Loader::of(probe()).args(ON_LOOPBACK);
        let server = loader.under("env", [format!("{how}=HUP,INT,TERM,XFSZ,PIPE")]).serve_as_told();
        server.signal(Signal::INT);
        server.ends_with(0);
    }
}

#[test]
fn a_limit_of_file_sizes_that_the_plugin_exceeds_is_said() {
    for check in [&[][..], &["--check"], &["--info"]] {
        let loader = Loader::of(probe()).args(ON_LOOPBACK).args(check).under("prlimit", ["--fsize=1000"]);
        let done = loader.run().assert_code(1);
        let line = done.one_line();
        assert!(line.contains("it can't be copied: File too large"), "{line}");
        assert!(line.contains("is 1000: raise it (ulimit -f"), "{line}");
    }
}

#[test]
fn a_socket_of_a_process_that_is_stopped_is_in_use_and_is_not_waited_for() {
    let scratch = Scratch::new();
    let path = scratch.join("effe.sock");
    let name = SocketAddrUnix::new(&path).unwrap();
    let owner = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&owner, &name).unwrap();
    // Nobody accepts, and the queue is full.
    listen(&owner, 0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let place = format!("unix:{}", path.display());
    for flag in ["--listen", "--admin"] {
        let loader = Loader::of(probe()).args(if flag == "--admin" { &ON_LOOPBACK[..] } else { &[] });
        let done = loader.args([flag, &place]).run().assert_code(1);
        assert!(done.stderr.contains("a process listens there"), "{done:#?}");
    }
}

#[test]
fn a_variable_that_is_not_text_is_wrong_usage() {
    for name in ["EFFE_SET", "EFFE_PORT", "EFFE_PROBES", "PORT"] {
        let loader = Loader::of(probe()).arg("--check").env(name, OsStr::from_bytes(b"a=\xff"));
        let done = loader.run().assert_code(2);
        assert!(name == "EFFE_PORT" || name == "EFFE_PROBES" || done.stderr.contains(name), "{done:#?}");
    }
}

#[test]
fn a_client_of_ipv4_has_its_own_address_at_a_socket_of_ipv6() {
    if TcpListener::bind("[::]:0").is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    let loader = Loader::of(probe()).args(["--listen", "[::]:0", "--access-log"]);
    let server = loader.serve_as_told();
    assert_eq!(server.get("/").status, 200);
    server.wait_for_line(" access: 127.0.0.1 GET / 200");
    server.stop();
}
