//! What a confined process may still do, told by a lambda that tries it; and that everything else goes on in it.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    iter,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use rustix::process::Signal;

use crate::support::{
    Connection, Daemon, Hammer, LONG, Loader, Scratch, Server,
    plugins::{c, crasher, hostile, probe},
    processes::{lives, signal},
    wait_until,
};

/// What a loader says where the system can't confine a process as a whole.
const LACKING: &str = "--confine: not confined are";

fn loader(plugin: impl AsRef<Path>, args: &[&str]) -> Loader {
    bare(plugin, args).args(["--admin", "127.0.0.1:0"])
}

/// One that says nothing but why it doesn't serve.
fn bare(plugin: impl AsRef<Path>, args: &[&str]) -> Loader {
    Loader::of(plugin).args(["--processes", "1", "--workers", "1"]).args(args)
}

/// Whether Landlock has all that is asked for; else what of a test rests on it is left out.
fn is_whole(server: &Server) -> bool {
    let is_whole = !server.lines().iter().any(|line| line.contains(LACKING));
    if !is_whole {
        println!("this system can't confine a process as a whole: {:?}", server.lines());
    }
    is_whole
}

fn said(server: &Server, deed: &str) -> String {
    server.get(&format!("/{deed}")).text().to_owned()
}

/// Whether the system says of each thread of a process that it has a filter of calls, and gets no new privileges.
fn has_filter(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let statuses =
        threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap_or_default());
    let statuses: Vec<String> = statuses.filter(|status| !status.is_empty()).collect();
    !statuses.is_empty()
        && statuses
            .iter()
            .all(|status| status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"))
}

/// Whether this process may do anything, so that what is refused is refused by a confinement.
fn has_all_rights() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let rights = u64::from_str_radix(rights.trim(), 16).unwrap();
    // CAP_DAC_OVERRIDE, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_MKNOD.
    [1, 13, 19, 21, 27].iter().all(|right| rights >> right & 1 == 1)
}

/// What a lambda may want to harm.
struct Prey {
    scratch: Scratch,
    allowed: TcpListener,
    other: TcpListener,
    _sockets: [UnixListener; 2],
    name: String,
}

impl Prey {
    fn new() -> Prey {
        let scratch = Scratch::new();
        for name in ["out/secret", "out/long", "out/moved", "out/gone", "read/file", "work/file", "work/mode"]
        {
            scratch.write(name, name);
        }
        let name = format!("effe-prey-{}", scratch.path().display());
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets =
            [UnixListener::bind_addr(&at).unwrap(), UnixListener::bind(scratch.join("out/socket")).unwrap()];
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        Prey { scratch, allowed: listen(), other: listen(), _sockets: sockets, name }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn args(&self) -> [String; 6] {
        let port = self.allowed.local_addr().unwrap().port();
        [
            "--allow-read".to_owned(),
            self.path("read"),
            "--allow-write".to_owned(),
            self.path("work"),
            "--allow-connect".to_owned(),
            port.to_string(),
        ]
    }
}

/// Who answers for it that a deed is stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Landlock,
    Seccomp,
    Nobody,
}

#[test]
fn what_a_hostile_lambda_tries_is_stopped_and_what_a_lambda_needs_is_not() {
    let prey = Prey::new();
    let path = |name: &str| prey.path(name);
    let confined = loader(hostile(), &["--confine"]).args(prey.args()).serve();
    let pooled = loader(hostile(), &["--confine", "--execution", "pool"]).args(prey.args()).serve();
    let free = loader(hostile(), &[]).serve();
    let [allowed, other] = [&prey.allowed, &prey.other].map(|listener| listener.local_addr().unwrap());
    use By::{Landlock, Nobody, Seccomp};
    // Who stops it, what it is, and what it comes to in a process that isn't confined; nothing where that is the
    // system's matter.
    let mut deeds = vec![
        (Landlock, format!("read?{}", path("out/secret")), "ok"),
        (Landlock, format!("in-a-thread/read?{}", path("out/secret")), "ok"),
        (Landlock, format!("list?{}", path("out")), "ok"),
        (Landlock, format!("write?{}", path("out/secret")), "ok"),
        (Landlock, format!("write?{}", path("out/new")), "ok"),
        (Landlock, format!("write?{}", path("read/file")), "ok"),
        (Landlock, format!("cut?{}", path("out/long")), "ok"),
        (Landlock, format!("make-directory?{}", path("out/directory")), "ok"),
        (Landlock, format!("rename?{}", path("out/moved")), "ok"),
        (Landlock, format!("remove?{}", path("out/gone")), "ok"),
        (Landlock, "bind".to_owned(), "ok"),
        (Landlock, format!("connect?{other}"), "ok"),
        (Landlock, format!("connect-abstract?{}", prey.name), "ok"),
        (Landlock, "signal-supervisor".to_owned(), "ok"),
        (Seccomp, "program".to_owned(), "ok"),
        (Seccomp, "trace".to_owned(), "ok"),
        (Seccomp, "look-into".to_owned(), "ok"),
        (Seccomp, "raise-limit".to_owned(), "ok"),
        (Seccomp, "type-on-terminal".to_owned(), ""),
        // NETLINK_KOBJECT_UEVENT, MPTCP, AF_VSOCK.
        (Seccomp, "socket?16,3,15".to_owned(), "ok"),
        (Seccomp, "socket?2,1,262".to_owned(), ""),
        (Seccomp, "socket?40,1,0".to_owned(), ""),
        (Nobody, format!("read?{}", path("read/file")), "ok"),
        (Nobody, format!("list?{}", path("read")), "ok"),
        (Nobody, format!("read?{}", path("work/file")), "ok"),
        (Nobody, format!("write?{}", path("work/new")), "ok"),
        (Nobody, format!("cut?{}", path("work/new")), "ok"),
        (Nobody, format!("rename?{}", path("work/new")), "ok"),
        (Nobody, format!("remove?{}", path("work/new.renamed")), "ok"),
        (Nobody, format!("chmod?{}", path("work/mode")), "ok"),
        (Nobody, format!("connect?{allowed}"), "ok"),
        (Nobody, "resolve?localhost".to_owned(), "ok"),
        (Nobody, "load?libresolv.so.2".to_owned(), "ok"),
        (Nobody, "read?/dev/urandom".to_owned(), "ok"),
        (Nobody, "write?/dev/null".to_owned(), "ok"),
        (Nobody, "read?/proc/self/maps".to_owned(), "ok"),
        (Nobody, "read?/etc/hosts".to_owned(), "ok"),
        (Nobody, "list?/usr/lib".to_owned(), "ok"),
        (Nobody, "fork".to_owned(), "ok"),
        (Nobody, "signal-self".to_owned(), "ok"),
        (Nobody, "socket?1,5,0".to_owned(), "ok"),
        (Nobody, "socket?16,3,0".to_owned(), "ok"),
        // What SECURITY.md says is not stopped.
        (Nobody, format!("chmod?{}", path("out/secret")), "ok"),
        (Nobody, format!("connect-unix?{}", path("out/socket")), "ok"),
        (Nobody, "bind-udp".to_owned(), "ok"),
        (Nobody, "listen".to_owned(), "ok"),
    ];
    if has_all_rights() {
        deeds.extend([
            (Landlock, "read?/etc/shadow".to_owned(), "ok"),
            (Landlock, "memory-of-supervisor".to_owned(), "ok"),
            (Landlock, format!("make-device?{}", path("work/device")), "ok"),
            (Seccomp, "namespace".to_owned(), ""),
            (Seccomp, "clone-namespace".to_owned(), ""),
            // Raw, and AF_PACKET.
            (Seccomp, "socket?2,3,1".to_owned(), "ok"),
            (Seccomp, "socket?17,3,3".to_owned(), "ok"),
        ]);
    }
    let is_whole = is_whole(&confined);
    for (by, deed, outcome) in &deeds {
        if *by == Landlock && !is_whole {
            continue;
        }
        // Before the free one, which changes what is there.
        for server in [&confined, &pooled] {
            let said = said(server, deed);
            let is_as_it_should = match by {
                Landlock => said == "EACCES" || said == "EPERM",
                Seccomp => said == "EPERM",
                Nobody => said == *outcome,
            };
            assert!(is_as_it_should, "{deed} by {by:?}: {said}");
            // For the second one, and the free one.
            if deed.starts_with("remove") {
                prey.scratch.write("work/new.renamed", "");
            }
            if deed.starts_with("rename") && *by == Nobody {
                prey.scratch.write("work/new", "");
            }
        }
        let said = said(&free, deed);
        if outcome.is_empty() {
            assert_ne!(said, "EPERM", "{deed}");
        } else {
            assert_eq!(said, *outcome, "{deed} of a process that is not confined");
        }
    }
    let cpus = said(&free, "cpus");
    assert_eq!((said(&confined, "cpus"), cpus.parse::<usize>().is_ok()), (cpus, true));
    // Calls with arguments that none takes: the filter looks at them first.
    let calls = said(&free, "calls");
    let mut n_compared = 0;
    for call in calls.split(' ') {
        let deed = format!("call?{call}");
        assert_eq!(said(&confined, &deed), "EPERM", "{call}");
        n_compared += usize::from(said(&free, &deed) != "EPERM");
    }
    assert!(n_compared >= 15, "{n_compared} of {calls} are told apart");
    assert!(has_filter(confined.processes()[0]) && has_filter(pooled.processes()[0]));
    assert!(!has_filter(free.processes()[0]) && !has_filter(confined.id()));
    println!(
        "{} deeds, {} calls, of which {n_compared} were told apart",
        deeds.len(),
        calls.split(' ').count()
    );
    [confined, pooled, free].into_iter().for_each(|server| drop(server.stop()));
}

#[test]
fn where_nothing_may_be_written_no_mode_may_be_changed_and_no_port_is_none() {
    let prey = Prey::new();
    let server = loader(hostile(), &["--confine", "--allow-connect", "none"]).serve();
    assert_eq!(said(&server, &format!("chmod?{}", prey.path("out/secret"))), "EPERM");
    if is_whole(&server) {
        assert_eq!(said(&server, &format!("connect?{}", prey.allowed.local_addr().unwrap())), "EACCES");
    }
    server.stop();
    for args in [&["--confine"][..], &["--confine", "--allow-connect", "any"]] {
        let server = loader(hostile(), args).serve();
        assert_eq!(said(&server, &format!("connect?{}", prey.other.local_addr().unwrap())), "ok");
        server.stop();
    }
}

/// A program that has another one go without a system call.
fn without(scratch: &Scratch) -> PathBuf {
    let source = r#"
        #include <errno.h>
        #include <linux/filter.h>
        #include <linux/seccomp.h>
        #include <stdlib.h>
        #include <sys/prctl.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            struct sock_filter steps[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, atoi(argv[1]), 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            };
            struct sock_fprog program = { sizeof steps / sizeof *steps, steps };
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 99;
            execvp(argv[2], argv + 2);
            return 98;
        }"#;
    c(source, &[], &scratch.join("without"))
}

#[test]
fn where_the_system_lacks_a_part_it_is_named_once_and_whoever_requires_it_is_refused() {
    let (scratch, prey) = (Scratch::new(), Prey::new());
    let without = without(&scratch).display().to_string();
    let secret = format!("read?{}", prey.path("out/secret"));
    let cases = [
        (
            libc::SYS_landlock_create_ruleset,
            "files, TCP ports and signals (no Landlock: the kernel lacks it, or a filter forbids it)",
            "EPERM",
            "ok",
        ),
        (
            libc::SYS_seccomp,
            "system calls (Error calling `seccomp`: Function not implemented (os error 38))",
            "EACCES",
            "EACCES",
        ),
    ];
    for (call, lacking, of_program, of_secret) in cases {
        let call = call.to_string();
        let server = loader(hostile(), &["--confine"]).under(&without, [&call]).serve();
        let line = server.wait_for_line(LACKING);
        assert!(line.contains(lacking), "{line}");
        // Else this system lacks another part, too.
        if line.ends_with(&format!("{LACKING} {lacking}")) {
            assert_eq!(said(&server, "program"), of_program, "{lacking}");
            assert_eq!(said(&server, &secret), of_secret, "{lacking}");
        }
        // The next process says so, too, and the operator has heard it.
        let before = server.wait_for_processes(1)[0];
        signal(before, Signal::KILL);
        wait_until("it is gone", || !lives(before));
        server.wait_for_processes(1);
        let lines = server.stop();
        assert_eq!(lines.iter().filter(|line| line.contains(LACKING)).count(), 1, "{lines:#?}");
        let required = bare(hostile(), &["--confine=require", "--port", "0"]).under(&without, [&call]);
        let done = required.run().assert_code(1);
        let line = done.one_line();
        assert!(line.starts_with("effe-loader: cannot confine the process: not confined are "), "{done:#?}");
        assert!(
            line.contains(lacking) && line.ends_with("--confine without require serves all the same"),
            "{done:#?}"
        );
    }
}

#[test]
fn threads_that_a_plugin_has_started_while_it_was_opened_are_told_of() {
    let server = loader(hostile(), &["--confine"]).env("HOSTILE_THREAD", "1").serve();
    server.wait_for_line("of the threads that the plugin has started while it was opened (1)");
    // seccomp is for all threads.
    assert!(has_filter(server.processes()[0]));
    server.stop();
    let required = bare(hostile(), &["--confine=require", "--port", "0"]).env("HOSTILE_THREAD", "1");
    let done = required.run().assert_code(1);
    assert!(done.one_line().contains("of the threads that the plugin has started"), "{done:#?}");
}

#[test]
fn init_is_confined_and_a_check_says_so() {
    let prey = Prey::new();
    let secret = format!("init-reads={}", prey.path("out/secret"));
    let server = loader(hostile(), &["--confine"]).serve();
    let is_whole = is_whole(&server);
    server.stop();
    if !is_whole {
        return;
    }
    for mode in [&["--port", "0"][..], &["--check"]] {
        let done = bare(hostile(), &["--confine=require"]).args(mode).set(&secret).run().assert_code(1);
        let line = done.one_line();
        assert!(line.contains("its init failed") && line.contains("Permission denied"), "{done:#?}");
    }
    let allowed = bare(hostile(), &["--confine=require", "--check"]).set(&secret);
    allowed.arg("--allow-read").arg(prey.path("out")).run().assert_code(0);
}

#[test]
fn a_crash_of_a_confined_process_costs_its_own_request_and_the_next_one_is_confined() {
    let server = Loader::of(crasher())
        .args([
            "--processes",
            "2",
            "--workers",
            "1",
            "--admin",
            "127.0.0.1:0",
            "--confine",
            "--execution",
            "inline",
        ])
        .serve();
    let before = server.wait_for_processes(2);
    let mut idle: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    let hammer = Hammer::start(server.address, "/answer", 8);
    let faults = ["segv", "bus", "ill", "fpe", "abort", "stack", "exit", "unwind"];
    // `scripts/prove confined` has more.
    let times = env::var("EFFE_CRASHES").map_or(1, |text| text.parse().expect("EFFE_CRASHES is a number"));
    for fault in faults.repeat(times) {
        hammer.wait_for(50);
        let reply = server.get(&format!("/crash/{fault}"));
        assert_eq!((reply.status, reply.text()), (500, "the lambda failed\n"), "{fault}");
    }
    hammer.wait_for(50);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    println!("{} crashes among {} requests, none lost", times * faults.len(), report.latencies.len());
    let line = server.wait_for_line("in a run of GET /crash/segv");
    assert!(line.contains("was ended by signal 11 (SIGSEGV"), "{line}");
    let held = || {
        let state = server.state();
        let processes = state["processes"].as_array().unwrap();
        processes.iter().map(|process| process["held_connections"].as_u64().unwrap()).sum::<u64>()
    };
    wait_until("the supervisor has copies of all", || held() == 20);
    for pid in server.wait_for_processes(2) {
        assert!(has_filter(pid) && !before.contains(&pid));
        signal(pid, Signal::KILL);
        wait_until("it is gone", || !lives(pid));
    }
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    server.stop();
}

#[test]
fn swaps_and_recycling_go_on_and_what_they_start_is_confined() {
    let prey = Prey::new();
    let secret = format!("read?{}", prey.path("out/secret"));
    let params = prey.scratch.write("params", "{\"a\":\"1\"}");
    let server =
        loader(hostile(), &["--confine", "--max-requests", "50"]).arg("--params").arg(&params).serve();
    let expected = if is_whole(&server) { "EACCES" } else { "ok" };
    let first = server.wait_for_processes(1)[0];
    let hammer = Hammer::start(server.address, &format!("/{secret}"), 4);
    wait_until("the first has been replaced", || !lives(first));
    fs::write(&params, "{\"a\":\"2\"}").unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("generation 2 serves");
    hammer.wait_for(200);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), [expected]);
    wait_until("all that are left are confined", || server.processes().into_iter().all(has_filter));
    server.stop();
}

#[test]
fn a_path_that_has_gone_since_is_told_of_and_serves_on() {
    let prey = Prey::new();
    let server = loader(hostile(), &["--confine"]).args(prey.args()).serve();
    let before = server.wait_for_processes(1)[0];
    fs::remove_dir_all(prey.scratch.join("read")).unwrap();
    signal(before, Signal::KILL);
    let line = server.wait_for_line("--allow-read: ");
    assert!(line.contains("read"), "{line}");
    wait_until("another one answers", || said(&server, "signal-self") == "ok");
    server.stop();
}

/// Whether somebody who connects says this within reasonable time; the supervisor and its process both connect.
fn hears(listener: &TcpListener, part: &str) -> bool {
    let (lines, heard) = mpsc::channel();
    let listener = listener.try_clone().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let lines = lines.clone();
            thread::spawn(move || {
                let read = BufReader::new(connection).lines().map_while(Result::ok);
                read.for_each(|line| drop(lines.send(line)));
            });
        }
    });
    let mut heard = iter::from_fn(|| heard.recv_timeout(LONG).ok());
    heard.any(|line| line.contains(part))
}

#[test]
fn a_confined_process_reaches_its_syslog_daemon() {
    let (local, remote) = (Daemon::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    for target in [local.target(), format!("tcp://{}", remote.local_addr().unwrap())] {
        let server = Loader::bare().arg("--plugin").arg(probe()).args(["--syslog", &target, "--confine"]);
        let server = server
            .args(["--log-format", "text", "--processes", "1", "--allow-connect", "none"])
            .args(["--listen", "127.0.0.1:0"])
            .serve_as_told();
        assert_eq!(server.get("/log?text=here").status, 200);
        if target.starts_with("unix") {
            local.wait_for("here");
        } else {
            assert!(hears(&remote, "here"));
        }
        server.stop();
    }
}

#[test]
fn a_core_dump_into_a_file_needs_a_directory_to_write_to() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.contains(['|', '/']) {
        println!("core dumps don't go into the working directory here: {pattern}");
        return;
    }
    let scratch = Scratch::new();
    let directory = scratch.path().display().to_string();
    for (args, is_dumped) in
        [(&[][..], true), (&["--confine"], false), (&["--confine", "--allow-write", &directory], true)]
    {
        let server = loader(crasher(), args);
        let server = server.under("/bin/sh", ["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]);
        let server = server.current_dir(scratch.path()).serve();
        let expected = is_dumped || !is_whole(&server);
        assert_eq!(server.get("/crash/segv").status, 500);
        let line = server.wait_for_line("was ended by signal 11");
        assert_eq!(line.contains("core dumped"), expected, "{args:?}: {line}");
        server.stop();
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cases: [(&[&str], &str); 6] = [
        (&["--confine"], "--confine is for --processes N, which is not given"),
        (&["--allow-read", "/"], "are for --confine, which is not given"),
        (
            &["--processes=1", "--confine", "--allow-read=/no/such"],
            "--allow-read /no/such: No such file or directory",
        ),
        (
            &["--processes=1", "--confine", "--allow-write=/no/such"],
            "--allow-write /no/such: No such file or directory",
        ),
        (&["--processes=1", "--confine=maybe"], "write try or require"),
        (&["--processes=1", "--confine", "--allow-connect=70000"], "write a port's number, any, or none"),
    ];
    for (args, expected) in cases {
        let done = Loader::of(probe()).args(args).run().assert_code(2);
        assert!(done.stderr.contains(expected), "{done:#?}");
    }
}
