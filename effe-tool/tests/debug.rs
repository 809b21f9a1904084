//! Tests of `debug` and `profile`, with the debuggers and the profiler that are installed.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    thread,
};

use crate::support::{Connection, Scratch, tool};

/// Whether a program is there. If it isn't, the test says that it is skipped.
fn is_installed(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = status.is_ok();
    if !is_there {
        eprintln!("SKIPPED: there is no {program} here");
    }
    is_there
}

/// What a debugger says, to which these commands are given once it has stopped, after one request.
fn session(debugger: &str, commands: &str) -> Option<String> {
    if !is_installed(debugger) {
        return None;
    }
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "hello.rs"]).run().assert_code(0);
    let args = ["debug", "hello.rs", "--debugger", debugger, "--", "--port", "0", "--syslog", "none"];
    let mut command = tool(&scratch).args(args).into_command();
    command.env("HOME", scratch.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(commands.as_bytes()).unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    // gdb says some on stdout, some on stderr, and the loader writes to the same.
    let out: Box<dyn std::io::Read + Send> = Box::new(child.stdout.take().unwrap());
    let err: Box<dyn std::io::Read + Send> = Box::new(child.stderr.take().unwrap());
    for stream in [out, err] {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    drop(sender);
    let mut said = String::new();
    let mut waiting = None;
    for line in lines {
        if waiting.is_none()
            && let Some((_, rest)) = line.split_once("listening on http://")
        {
            let address: String =
                rest.chars().take_while(|ch| ch.is_ascii_digit() || ".:".contains(*ch)).collect();
            let mut connection = Connection::open(address.parse().unwrap());
            connection.send("GET /world HTTP/1.1\r\nHost: test\r\n\r\n");
            waiting = Some(connection);
        }
        said.push_str(&line);
        said.push('\n');
    }
    child.wait().unwrap();
    drop(input);
    Some(said)
}

#[test]
fn gdb_stops_where_the_authors_run_begins() {
    let Some(said) = session("gdb", "set width 0\nbacktrace 1\ninfo args\nkill\nquit\n") else { return };
    let mut lines = said.lines();
    assert!(
        lines.any(|line| line.contains("#0  ") && line.contains("run") && line.contains("hello.rs:")),
        "{said}"
    );
}

#[test]
fn lldb_stops_there_too() {
    let Some(said) = session("lldb", "bt 1\nkill\nquit\n") else { return };
    let is_frame =
        |line: &str| line.contains("frame #0") && line.contains("run") && line.contains("hello.rs:");
    assert!(said.lines().any(is_frame), "{said}");
}

/// A lambda that takes some CPU in a function of its own.
const BUSY: &str = r#"
use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};
struct Busy;
impl Lambda for Busy {
    fn start(_: Params) -> Result<Self, StartError<Self>> { Ok(Busy) }
    fn run(busy: Started<Self>, request: &Request, response: &mut Response) -> Result {
        busy?;
        response.text(format!("{}\n", spin(request.path().len() as u64)));
        Ok(())
    }
}
#[inline(never)]
fn spin(seed: u64) -> u64 {
    (0..2_000_000).fold(seed, |sum, n| std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n)))
}
export!(Busy);
"#;

#[test]
fn a_profile_shows_the_functions_of_the_lambda() {
    if !is_installed("perf") {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("busy.rs", BUSY);
    let args = ["profile", "busy.rs", "--path", "/world", "--seconds", "1"];
    let done = tool(&scratch).args(args).run();
    if done.stderr.contains("perf can't take samples here") {
        eprintln!("SKIPPED: {}", done.stderr);
        return;
    }
    done.assert_code(0).assert_says(&["Wrote", "profile.svg"]);
    let svg = fs::read_to_string(scratch.join("profile.svg")).unwrap();
    for part in
        ["<title>busy::spin (", "&lt;busy::Busy as effe_abi::lambda::Lambda&gt;::run (", "calls of /world"]
    {
        assert!(svg.contains(part), "{part}:\n{svg}");
    }
    tool(&scratch).args(["profile", "busy.rs", "--path", "x y"]).run().assert_code(2);
}
