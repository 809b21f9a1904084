//! Processes that end in unusual ways, at unusual moments, and where the system lacks something: others serve on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    faults::can_inject,
    support::{
        Connection, Counts, Hammer, Loader, Scratch, Server,
        plugins::{crasher, probe},
        processes::{lives, signal},
        wait_until,
    },
};

fn loader(plugin: impl AsRef<std::path::Path>, args: &[&str]) -> Loader {
    Loader::of(plugin).args(["--workers", "1", "--admin", "127.0.0.1:0"]).args(args)
}

fn held(server: &Server) -> u64 {
    let state = server.state();
    let processes = state["processes"].as_array().unwrap();
    processes.iter().map(|process| process["held_connections"].as_u64().unwrap()).sum()
}

/// A client that crashes the lambda, and may get any answer or none.
fn crash(server: &Server, how: &str) -> Option<u16> {
    let request = format!("GET /crash/{how} HTTP/1.1\r\nHost: x\r\n\r\n");
    server.connect().send(request).try_reply(false).ok().map(|reply| reply.status)
}

#[test]
fn however_a_process_crashes_at_most_one_other_request_fails() {
    for (how, most) in [
        ("trap", 0),
        ("masked", 0),
        ("twice", 1),
        ("heap", 1),
        ("thread", 1),
        ("thread-stack", 1),
        ("handler", 1),
        ("_exit", 1),
    ] {
        let server = loader(crasher(), &["--processes", "2", "--execution", "inline"]).serve();
        let mut idle: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
        idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
        wait_until("the supervisor has copies", || held(&server) >= 10);
        let hammer = Hammer::start(server.address, "/answer", 4);
        hammer.wait_for(50);
        wait_until("the supervisor has copies of all", || held(&server) >= 14);
        let before = server.wait_for_processes(2);
        let status = crash(&server, how);
        assert!(matches!(status, None | Some(500 | 503)), "{how}: {status:?}");
        wait_until("one is gone", || !before.iter().all(|pid| lives(*pid)));
        hammer.wait_for(100);
        let report = hammer.stop();
        assert!(report.failures.len() <= most, "{how}: {:?}", report.failures);
        for connection in &mut idle {
            assert_eq!(connection.get("/answer").status, 200, "{how}");
        }
        server.wait_for_processes(2);
        server.stop();
    }
}

#[test]
fn a_lambda_that_closes_what_is_not_its_own_costs_its_own_process() {
    let server = loader(crasher(), &["--processes", "2", "--execution", "inline"]).serve();
    let before = server.wait_for_processes(2);
    let mut idle: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    wait_until("the supervisor has copies", || held(&server) >= 10);
    let closes = server.address;
    let closing = thread::spawn(move || {
        let request = "GET /crash/close HTTP/1.1\r\nHost: x\r\n\r\n";
        let _ = Connection::open(closes).send(request).try_reply(false);
    });
    wait_until("it is gone", || !before.iter().all(|pid| lives(*pid)));
    closing.join().unwrap();
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    server.wait_for_processes(2);
    server.stop();
}

#[test]
fn an_exit_is_one_crash_and_no_thread_is_said_to_have_died() {
    let server = loader(crasher(), &["--processes", "1", "--execution", "inline"]).serve();
    assert_eq!(crash(&server, "exit"), Some(500));
    server.wait_for_line("another one takes its place");
    wait_until("another one serves", || server.get("/answer").status == 200);
    let lines = server.stop();
    assert!(!lines.iter().any(|line| line.contains("has died")), "{lines:#?}");
}

#[test]
fn a_lambda_that_ignores_the_end_of_children_changes_nothing() {
    let server = loader(crasher(), &["--processes", "1", "--execution", "inline"]).serve();
    assert_eq!(crash(&server, "sigchld"), Some(200));
    assert_eq!(server.get("/fork/segv").status, 200);
    assert_eq!(crash(&server, "segv"), Some(500));
    wait_until("another one serves", || server.get("/answer").status == 200);
    server.stop();
}

#[test]
fn a_fault_in_the_last_steps_is_a_failure_and_keeps_nobody() {
    for step in ["stop", "retire"] {
        let server = loader(crasher(), &["--processes", "2"]).set(&format!("crash={step}:segv")).serve();
        server.wait_for_processes(2);
        assert_eq!(server.get("/answer").status, 200);
        server.signal(Signal::TERM);
        let lines = server.ends_with(1);
        let line = "which was to stop, was ended by signal 11 (SIGSEGV";
        assert!(lines.iter().any(|one| one.contains(line)), "{step}: {lines:#?}");
    }
}

#[test]
fn an_order_to_stop_during_init_is_obeyed_after_it() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let gate = scratch.join("gate");
    let loader = loader(probe(), &["--processes", "2", "--port", "0"]).counting(&counts);
    let server = loader.set(&format!("init-waits-for={}", gate.display())).start();
    wait_until("a process is there", || !server.processes().is_empty());
    server.signal(Signal::TERM);
    server.wait_for_line("SIGTERM: finishing what runs");
    fs::write(&gate, "").unwrap();
    server.ends_with(0);
    assert_eq!((counts.of("init"), counts.of("retire")), (1, 1));
    assert_eq!(counts.of("stop"), counts.of("context"));
}

#[test]
fn an_order_to_stop_during_a_rescue_lets_what_runs_end() {
    let scratch = Scratch::new();
    let args = ["--processes", "1", "--execution", "pool", "--fault-grace", "30s"];
    let server = loader(crasher(), &args).serve();
    let gate = scratch.join("gate");
    let mut waiting = server.connect();
    waiting.send(format!("GET /wait?{} HTTP/1.1\r\nHost: x\r\n\r\n", gate.display()));
    wait_until("it runs", || scratch.join("gate.begun").exists());
    assert_eq!(crash(&server, "segv"), Some(500));
    wait_until("another one serves", || server.get("/answer").status == 200);
    server.signal(Signal::TERM);
    server.wait_for_line("SIGTERM: finishing what runs");
    fs::write(&gate, "").unwrap();
    assert_eq!(waiting.reply().status, 200);
    server.ends_with(0);
}

#[test]
fn after_the_supervisor_and_all_processes_are_killed_another_start_has_their_sockets() {
    let scratch = Scratch::new();
    let path = format!("unix:{}", scratch.join("sock").display());
    let start = |address: &str| {
        loader(crasher(), &["--processes", "2", "--listen", address, "--listen", &path]).serve_as_told()
    };
    let first = start("127.0.0.1:0");
    let (address, processes) = (first.address.to_string(), first.wait_for_processes(2));
    assert_eq!(first.get("/answer").status, 200);
    first.signal(Signal::KILL);
    processes
        .iter()
        .for_each(|pid| _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL));
    first.ends_by(Signal::KILL);
    wait_until("all are gone", || !processes.iter().any(|pid| lives(*pid)));
    let second = start(&address);
    second.wait_for_line("listening on unix:");
    second.wait_for_processes(2);
    assert_eq!(second.get("/answer").status, 200);
    second.stop();
    assert!(!scratch.join("sock").exists());
}

/// A group of processes that may have so much memory together (cgroups(7), version 1 or 2), and is removed when dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where this user may not make one.
    fn new(bytes: u64) -> Option<MemoryGroup> {
        let root = Path::new("/sys/fs/cgroup");
        let (parent, limit) = if root.join("memory/memory.limit_in_bytes").exists() {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            (root.to_owned(), "memory.max")
        };
        let group = MemoryGroup(parent.join(format!("effe-test-{}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the process joins the group");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_process_that_the_system_kills_for_its_memory_costs_no_idle_connection() {
    let Some(group) = MemoryGroup::new(200 << 20) else {
        eprintln!("skipped: this user may make no group with a limit of memory");
        return;
    };
    let server = loader(crasher(), &["--processes", "2", "--execution", "inline"]).serve();
    let before = server.wait_for_processes(2);
    before.iter().chain([&server.id()]).for_each(|pid| group.take(*pid));
    let mut idle: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    wait_until("the supervisor has copies of all", || held(&server) == 20);
    // Each keeps a mebibyte for ever.
    let mut n_failed = 0;
    while before.iter().all(|pid| lives(*pid)) {
        let reply = server.connect().send("GET /leak HTTP/1.1\r\nHost: x\r\n\r\n").try_reply(false);
        n_failed += usize::from(!reply.is_ok_and(|reply| reply.status == 200));
    }
    server.wait_for_line("signal 9 (SIGKILL)");
    assert!(n_failed <= 1, "{n_failed} requests failed");
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    server.wait_for_processes(2);
    server.stop();
}

#[test]
fn a_core_dump_for_which_there_is_no_room_changes_nothing() {
    let scratch = Scratch::new();
    let full = scratch.join("full");
    fs::create_dir(&full).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&full).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may mount nothing");
        return;
    }
    let _mounted = Unmount(full.clone());
    // Half of a dump, whose rest finds no room.
    let server = loader(crasher(), &["--processes", "2", "--execution", "inline"])
        .under("prlimit", ["--core=unlimited"])
        .current_dir(&full)
        .serve();
    let mut idle: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    wait_until("the supervisor has copies of all", || held(&server) == 10);
    for _ in 0..3 {
        let before = server.wait_for_processes(2);
        assert_eq!(crash(&server, "segv"), Some(500));
        wait_until("it is gone", || !before.iter().all(|pid| lives(*pid)));
        idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    }
    server.wait_for_processes(2);
    server.stop();
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_head_that_never_ends_does_not_keep_a_stop() {
    let server = loader(probe(), &["--processes", "2", "--drain-timeout", "1s"]).serve();
    let mut slow = server.connect();
    slow.send("GET / HTTP/1.1\r\nHo");
    wait_until("the supervisor has a copy", || held(&server) == 1);
    server.signal(Signal::TERM);
    server.ends_with(0);
    // It is told so, or sees the end.
    if let Ok(reply) = slow.try_reply(false) {
        assert!([408, 503].contains(&reply.status), "{}", reply.status);
    }
}

#[test]
fn a_process_of_a_swap_that_dies_before_all_serve_leaves_those_before_at_work() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let (_, path) = counts.parameter().split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let gate = scratch.write("gate", "");
    let parameters = |n: usize, waits_for: &str| {
        let text = format!("{{\"count\": \"{path}\", \"n\": \"{n}\", \"init-waits-for\": \"{waits_for}\"}}");
        scratch.write("params.json", text)
    };
    let file = parameters(0, &gate.display().to_string());
    let server = loader(probe(), &["--processes", "2"]).arg("--params").arg(file).serve();
    let before = server.wait_for_processes(2);
    fs::remove_file(&gate).unwrap();
    for n in 1..=3 {
        parameters(n, &gate.display().to_string());
        server.signal(Signal::HUP);
        let of_next = || server.processes().into_iter().find(|pid| !before.contains(pid));
        wait_until("one of the next is there", || of_next().is_some());
        signal(of_next().unwrap(), Signal::KILL);
        wait_until("it is none", || {
            server.lines().iter().filter(|line| line.contains("; generation 1 goes on serving")).count() == n
        });
        assert_eq!(server.get("/").status, 200);
        assert_eq!(server.processes(), before);
    }
    server.stop();
}

#[test]
fn over_http_1_0_a_crash_is_told_and_ends_the_connection() {
    let server = loader(crasher(), &["--processes", "1", "--execution", "inline"]).serve();
    let mut connection = server.connect();
    connection.send("GET /crash/segv HTTP/1.0\r\n\r\n");
    assert_eq!(connection.reply().status, 500);
    assert!(connection.is_closed());
    let mut connection = server.connect();
    wait_until("another one serves", || server.get("/answer").status == 200);
    connection.send("GET /answer HTTP/1.0\r\n\r\n");
    assert_eq!(connection.reply().status, 200);
    assert!(connection.is_closed());
    server.stop();
}

#[test]
fn descriptors_that_are_used_again_and_again_are_never_taken_for_others() {
    let server = loader(crasher(), &["--processes", "2", "--execution", "inline"]).serve();
    let mut kept: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
    kept.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    wait_until("the supervisor has copies", || held(&server) >= 10);
    let storm = Hammer::over_new_connections(server.address, "/answer", 8);
    for _ in 0..5 {
        storm.wait_for(200);
        assert_eq!(crash(&server, "segv"), Some(500));
    }
    storm.wait_for(200);
    assert_eq!(storm.stop().failures, Vec::<String>::new());
    for connection in &mut kept {
        let reply = connection.get("/answer?kept");
        assert_eq!((reply.status, reply.text().starts_with("/answer is answered by")), (200, true));
    }
    server.stop();
}

#[test]
fn connections_beyond_the_supervisors_limit_go_with_their_process_and_no_others() {
    let loader = loader(probe(), &["--processes", "1", "--listen", "127.0.0.1:0"]);
    let server = loader.under("prlimit", ["--nofile=128:128"]).serve_as_told();
    let mut all: Vec<Connection> = (0..60).map(|_| server.connect()).collect();
    all.iter_mut().for_each(|connection| assert_eq!(connection.get("/").status, 200));
    wait_until("the supervisor has as many as it may", || held(&server) == 128 / 2 - 32);
    let pid = server.wait_for_processes(1)[0];
    signal(pid, Signal::KILL);
    wait_until("it is gone", || !lives(pid));
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let lives_on = |connection: &mut Connection| {
        connection.try_send(request).is_ok()
            && connection.try_reply(false).is_ok_and(|reply| reply.status == 200)
    };
    let n = all.iter_mut().map(lives_on).filter(|lives| *lives).count();
    assert_eq!(n, 32);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

/// Injects into a loader from its start on, as its own parent.
fn under_strace(loader: Loader, calls: &str) -> Loader {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error=ENOSYS"));
    loader.under("strace", ["-D", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject])
}

#[test]
fn without_a_barrier_a_crash_is_told_and_a_swap_works() {
    if !can_inject() {
        return;
    }
    let loader = loader(
        crasher(),
        &["--processes", "2", "--listen", "127.0.0.1:0", "--max-requests", "50", "--execution", "inline"],
    );
    let server = under_strace(loader, "membarrier").serve_as_told();
    server.wait_for_processes(2);
    assert_eq!(crash(&server, "segv"), Some(500));
    server.wait_for_line("was ended by signal 11 (SIGSEGV");
    let hammer = Hammer::start(server.address, "/answer", 4);
    hammer.wait_for(200);
    server.wait_for_line("--max-requests is 50");
    hammer.wait_for(200);
    assert_eq!(hammer.stop().failures, Vec::<String>::new());
    server.stop();
}

#[test]
fn without_memory_files_several_processes_are_refused() {
    if !can_inject() {
        return;
    }
    let loader = loader(probe(), &["--processes", "2", "--port", "0"]);
    let done = under_strace(loader, "memfd_create").run().assert_code(78);
    assert!(done.one_line().contains("--processes hands it to other processes in a memory file"), "{done:?}");
}

/// A process is killed at its next call of a kind: what it was doing for a client is told or broken off, and those who
/// waited between two requests go on.
#[test]
fn wherever_a_process_is_killed_idle_connections_live_on_and_nobody_gets_a_wrong_answer() {
    if !can_inject() {
        return;
    }
    struct Tracer(Child);
    impl Drop for Tracer {
        fn drop(&mut self) {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let _ = self.0.wait();
        }
    }
    for (call, n) in [
        ("recvfrom", 1),
        ("recvfrom", 2),
        ("sendto", 1),
        ("writev", 1),
        ("epoll_wait", 2),
        ("accept4", 1),
        ("sendmsg", 1),
    ] {
        let server = loader(probe(), &["--processes", "1", "--execution", "inline"]).serve();
        let mut idle: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
        idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/").status, 200));
        wait_until("the supervisor has copies", || held(&server) == 10);
        let pid = server.wait_for_processes(1)[0];
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:signal=KILL:when={n}"), "-p", &pid.to_string()]);
        let _tracer = Tracer(strace.stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap());
        wait_until("it is traced", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        });
        for _ in 0..100 {
            if !lives(pid) {
                break;
            }
            let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
            let mut connection = server.connect();
            if connection.try_send(request).is_ok()
                && let Ok(reply) = connection.try_reply(false)
            {
                assert!(
                    matches!((reply.status, reply.text()), (200, "ok") | (503, _)),
                    "{call}: {}",
                    reply.text()
                );
            }
        }
        if lives(pid) {
            // A call that is not made here.
            signal(pid, Signal::KILL);
        }
        wait_until("it is gone", || !lives(pid));
        for connection in &mut idle {
            assert_eq!(connection.get("/").status, 200, "{call} {n}");
        }
        server.stop();
    }
}
