//! A start ends in serving or in one line, whatever the system refuses; and a thread that dies later ends the effe.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use crate::support::{Loader, Scratch, Server, plugins::probe, wait_until};

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
    // In MiB. Below, the dynamic linker ends the process.
    let mut n_served = 0;
    for mib in steps(15..=64, &[16, 18, 24, 26, 64]) {
        let bytes = mib << 20;
        match start_within(&format!("--as={bytes}"), "4") {
            Some(line) => assert!(line.contains(&format!("{bytes} (ulimit -v)")), "{line}"),
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

/// Makes each wait for events fail in the thread of a server that has this name; none where strace can't do it.
fn break_thread(server: &Server, name: &str) -> Option<Child> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap().flatten();
    let thread = tasks
        .map(|task| task.path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name)));
    let thread = thread.expect("the server has such a thread").file_name().unwrap().to_owned();
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=epoll_wait", "-e", "inject=epoll_wait:error=EBADF", "-p"]).arg(thread);
    let mut strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
    let mut said = String::new();
    BufReader::new(strace.stderr.take().unwrap()).read_line(&mut said).unwrap();
    if said.contains("attached") {
        return Some(strace);
    }
    strace.wait().unwrap();
    None
}

#[test]
fn a_thread_of_the_server_that_dies_ends_the_effe_with_a_failure() {
    for (name, whole) in
        [("actix-rt|", "actix-rt|system:0|arbiter:0"), ("actix-server ac", "actix-server acceptor")]
    {
        let server = Loader::of(probe()).args(["--workers", "1"]).serve();
        let Some(mut strace) = break_thread(&server, name) else {
            eprintln!("skipped: strace is not there, or may not attach");
            return;
        };
        // It wakes the thread that accepts, and that wakes the worker.
        let _connection = server.connect();
        server.wait_for_line(&format!("thread {whole} has died: stopping"));
        server.ends_with(1);
        wait_until("strace ends with its thread", || strace.try_wait().unwrap().is_some());
    }
}
