//! What systemd is told, and what its own tools say of the units in the documents.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};

use crate::support::{
    Counts, LONG, Loader, Scratch,
    plugins::{probe, workspace},
};

/// What stands for the service manager.
struct Manager {
    socket: UnixDatagram,
    directory: Scratch,
}

impl Manager {
    fn new() -> Manager {
        let directory = Scratch::new();
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Manager { socket, directory }
    }

    fn starts(&self, loader: Loader) -> Loader {
        loader.env("NOTIFY_SOCKET", self.directory.join("notify"))
    }

    /// The next message, as its lines.
    #[track_caller]
    fn hears(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).expect("the loader tells something");
        std::str::from_utf8(&buffer[..len]).unwrap().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn hears_nothing(&self) {
        self.socket.set_nonblocking(true).unwrap();
        assert!(self.socket.recv(&mut [0; 64]).is_err());
        self.socket.set_nonblocking(false).unwrap();
    }
}

fn now_in_microseconds() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

#[test]
fn a_service_manager_hears_of_the_whole_life() {
    let (manager, scratch) = (Manager::new(), Scratch::new());
    let plugin = scratch.join("libprobe.so");
    fs::copy(probe(), &plugin).unwrap();
    let params = scratch.write("params.json", r#"{"greeting": "one"}"#);
    let server = manager.starts(Loader::of(&plugin)).arg("--params").arg(params).serve();
    let serving = |n: u32| format!("STATUS=serving {}, generation {n}", plugin.display());
    assert_eq!(manager.hears(), ["READY=1".to_owned(), serving(1)]);
    scratch.write("params.json", r#"{"greeting": "two"}"#);
    let before = now_in_microseconds();
    server.signal(Signal::HUP);
    let reloading = manager.hears();
    assert_eq!(reloading[0], "RELOADING=1");
    let since: i128 = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((before..=now_in_microseconds()).contains(&since), "{before} {since}");
    assert_eq!(manager.hears(), ["READY=1".to_owned(), serving(2)]);
    fs::write(&plugin, "no plugin").unwrap();
    server.signal(Signal::HUP);
    assert_eq!(manager.hears()[0], "RELOADING=1");
    let ready = manager.hears();
    assert_eq!((ready[0].as_str(), ready.len()), ("READY=1", 2), "the old one serves on");
    assert!(
        ready[1].starts_with(&format!("{}; the last change failed: cannot load ", serving(2))),
        "{ready:?}"
    );
    server.signal(Signal::TERM);
    assert_eq!(manager.hears(), ["STOPPING=1", "STATUS=finishing what runs"]);
    server.ends_with(0);
    manager.hears_nothing();
}

#[test]
fn it_is_ready_when_a_first_start_has_succeeded() {
    let (manager, counts) = (Manager::new(), Counts::new());
    let loader = manager.starts(Loader::of(probe())).counting(&counts).set("fail=start").set("fail-times=1");
    let server = loader.serve();
    assert_eq!(manager.hears(), ["STATUS=no Start has succeeded yet; trying again each second"]);
    assert_eq!(manager.hears()[0], "READY=1");
    assert!(counts.of("context") > 0);
    server.stop();
}

#[test]
fn a_manager_that_is_gone_is_no_obstacle() {
    let scratch = Scratch::new();
    let server = Loader::of(probe()).env("NOTIFY_SOCKET", scratch.join("nobody")).serve();
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

/// Copies the units to where their programs are, and runs one of systemd's tools on the service.
fn analyze(scratch: &Scratch, args: &[&str]) -> Option<(bool, String)> {
    let units = workspace().join("docs/systemd");
    let loader = env!("CARGO_BIN_EXE_effe-loader");
    for name in ["effe@.service", "effe@.socket"] {
        let unit = fs::read_to_string(units.join(name)).unwrap();
        scratch.write(&name.replace('@', "@hello"), unit.replace("/usr/local/bin/effe-loader", loader));
    }
    let output = Command::new("systemd-analyze")
        .args(args)
        .arg(scratch.join("effe@hello.service"))
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("not looked at by systemd's own tools: install systemd");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn the_units_are_what_systemd_understands() {
    let scratch = Scratch::new();
    let Some((good, text)) = analyze(&scratch, &["verify", "--man=no"]) else { return };
    let of_ours: Vec<_> = text.lines().filter(|line| line.contains("effe@")).collect();
    assert!(good && of_ours.is_empty(), "{text}");
}

#[test]
fn the_unit_leaves_an_attacker_little() {
    let scratch = Scratch::new();
    // In tenths of systemd's scale, on which 10 is "unsafe"; below 2 is "OK".
    let security = ["security", "--offline=true", "--threshold=16", "--no-pager"];
    let Some((good, text)) = analyze(&scratch, &security) else { return };
    assert!(good, "{text}");
}

#[test]
fn it_needs_no_memory_that_is_writable_and_executable() {
    // PR_SET_MDWE, which is what MemoryDenyWriteExecute= comes to; it goes through exec.
    let python = Path::new("/usr/bin/python3");
    let script = "import ctypes, os, sys\n\
                  if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0: sys.exit(77)\n\
                  os.execv(sys.argv[1], sys.argv[1:])";
    let counts = Counts::new();
    let output = Command::new(python)
        .args(["-c", script, env!("CARGO_BIN_EXE_effe-loader"), "--check", "--plugin"])
        .arg(probe())
        .args(["--set", &counts.parameter()])
        .output();
    let Ok(output) = output else { return eprintln!("not tried: there is no {}", python.display()) };
    match output.status.code() {
        Some(77) => eprintln!("not tried: this kernel has no PR_SET_MDWE"),
        code => {
            assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(counts.lines(), ["init", "start", "context", "stop", "retire"]);
        }
    }
}
