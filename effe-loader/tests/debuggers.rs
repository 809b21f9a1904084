//! What a debugger and a profiler see of a lambda in a loader that runs already: names, files and lines.

use std::{
    ffi::OsStr,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use crate::support::{Connection, Counts, Loader, Scratch, Server, plugins::probe};

/// Whether a program is there. If it isn't, the test says that it is skipped.
fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    let there = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        println!("skipped: {program} is not installed");
    }
    there
}

/// Runs a program to its end; whether it ended well, and all it said. After 30 s it is killed, and has not
/// ended well.
fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> (bool, String) {
    let mut command = Command::new("timeout");
    // A gdb that waits for a pipe to be read does not hear of any other signal.
    command.args(["--signal=KILL", "30", program]).args(args).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// A loader whose lambda is in Run until the file `gate` is there.
fn in_run(path: &str, scratch: &Scratch, arguments: &[&str]) -> (Server, Connection) {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(arguments).serve();
    let mut connection = server.connect();
    let gate = scratch.join("gate");
    connection.send(format!("GET {path}?for={} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
    counts.wait_for("run", 1);
    (server, connection)
}

fn let_go(server: Server, mut connection: Connection, scratch: &Scratch) {
    scratch.write("gate", "");
    assert_eq!(connection.reply().status, 200);
    server.stop();
}

#[test]
fn gdb_attaches_and_names_a_lambdas_frames_with_file_and_line() {
    if !is_installed("gdb") {
        return;
    }
    for execution in ["pool", "inline"] {
        let scratch = Scratch::new();
        let (server, connection) = in_run("/wait", &scratch, &["--execution", execution]);
        let pid = server.id().to_string();
        let args = ["--nx", "--batch", "-iex", "set debuginfod enabled off", "-p", &pid];
        let commands = ["-ex", "set width 0", "-ex", "thread apply all backtrace"];
        let (ended_well, said) = run("gdb", args.into_iter().chain(commands));
        assert!(ended_well, "{said}");
        let mut frames = said.lines().filter(|line| line.starts_with('#'));
        // A plugin that is optimised has names, and no lines.
        let line = if cfg!(debug_assertions) { "probe/src/lib.rs:" } else { "probe" };
        assert!(frames.any(|frame| frame.contains("::run") && frame.contains(line)), "{said}");
        let_go(server, connection, &scratch);
    }
}

/// The kernel names the mapping for perf, and no file has that name: perf is shown the plugin under it.
#[test]
fn perf_names_a_lambdas_functions() {
    if !is_installed("perf") {
        return;
    }
    let scratch = Scratch::new();
    let (server, connection) = in_run("/spin", &scratch, &[]);
    let (data, pid) = (scratch.join("data"), server.id().to_string());
    let data = data.to_str().unwrap();
    let (recorded, said) =
        run("perf", ["record", "-e", "cpu-clock", "-o", data, "-p", &pid, "--", "sleep", "1"]);
    if !recorded {
        println!("skipped: perf can't record here: {said}");
        return;
    }
    let root = scratch.join("root");
    std::fs::create_dir(&root).unwrap();
    symlink(probe(), root.join("memfd:libprobe.so (deleted)")).unwrap();
    let root = root.to_str().unwrap();
    let (reported, said) =
        run("perf", ["report", "--stdio", "--sort", "dso,sym", "-i", data, "--symfs", root]);
    assert!(reported, "{said}");
    let mut lines = said.lines();
    assert!(lines.any(|line| line.contains("libprobe.so") && line.contains("probe::spin")), "{said}");
    let_go(server, connection, &scratch);
}
