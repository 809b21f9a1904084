//! A supervisor and its processes: the life of an effe that has several of them is that of one that has one.

use std::{fs, os::unix::net::UnixDatagram, time::Instant};

use rustix::process::Signal;

use crate::support::{
    Counts, Hammer, LONG, Loader, Scratch,
    admin::{Question, ask, over},
    load,
    plugins::{patched, probe},
    processes::{lives, signal},
    wait_until,
};

/// A loader with two processes, whose admin listener is on.
fn loader() -> Loader {
    Loader::of(probe()).args(["--processes", "2", "--workers", "1", "--admin", "127.0.0.1:0"])
}

#[test]
fn each_process_has_one_init_and_one_retire_and_stops_what_it_has_started() {
    let counts = Counts::new();
    let server = loader().counting(&counts).serve();
    server.wait_for_processes(2);
    assert_eq!(load(server.address, "/", 2_000, 32), 2_000);
    let lines = server.stop();
    assert_eq!((counts.of("init"), counts.of("retire"), counts.of("run")), (2, 2, 2_000));
    assert_eq!(counts.of("stop"), counts.of("context"));
    assert!(counts.of("context") >= 2);
    let last = format!("stopped; {} Contexts were started and stopped", counts.of("context"));
    assert_eq!(lines.last(), Some(&last), "one line for all");
}

#[test]
fn each_process_has_its_number() {
    let server = loader().serve();
    server.wait_for_processes(2);
    let mut seen = std::collections::BTreeSet::new();
    wait_until("both have answered", || {
        seen.insert(server.get("/process").text().to_owned());
        seen.len() == 2
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["(0, 2)", "(1, 2)"]);
    server.stop();
    let server = Loader::of(probe()).serve();
    assert_eq!(server.get("/process").text(), "(0, 1)");
    server.stop();
}

#[test]
fn the_supervisor_never_opens_the_plugin() {
    let server = loader().serve();
    let processes = server.wait_for_processes(2);
    let maps = |pid: u32| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(!maps(server.id()).contains("probe"), "{}", maps(server.id()));
    assert!(processes.iter().all(|pid| maps(*pid).contains("probe")));
    // Its own thread, and that of the log.
    assert_eq!(fs::read_dir(format!("/proc/{}/task", server.id())).unwrap().count(), 2);
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name(processes[0]), name(server.id()));
    server.stop();
}

#[test]
fn exit_codes_and_lines_are_those_of_one_process() {
    let scratch = Scratch::new();
    let bad = scratch.write("libbad.so", "no library");
    let bare = |plugin: &std::path::Path| Loader::of(plugin).args(["--processes", "2", "--port", "0"]);
    let done = bare(&bad).run().assert_code(78);
    assert!(done.one_line().contains("it is not a shared library"), "{done:?}");
    let counts = Counts::new();
    let done = bare(&probe()).counting(&counts).set("fail=init").run().assert_code(1);
    assert!(done.one_line().contains("its init failed: told to fail in init"), "{done:?}");
    assert_eq!(counts.of("init"), 1, "the others are started once it has succeeded");
    let done = Loader::of(probe()).args(["--processes", "many"]).run().assert_code(2);
    assert!(done.stderr.contains("or auto"), "{done:?}");
    let done = bare(&probe()).arg("--check").run().assert_code(0);
    assert_eq!(done.stderr, "");
}

#[test]
fn somebody_who_starts_a_process_without_a_supervisor_is_told() {
    let done = Loader::bare().arg("--supervised").arg("--plugin").arg(probe()).run().assert_code(2);
    assert!(done.one_line().contains("--supervised is for supervisors"), "{done:?}");
}

#[test]
fn a_process_that_is_killed_is_replaced_and_counters_go_on() {
    let counts = Counts::new();
    let server = loader().counting(&counts).serve();
    let before = server.wait_for_processes(2);
    assert_eq!(load(server.address, "/", 100, 4), 100);
    assert_eq!(server.scrape().sum("http_requests_total"), 100.0);
    for pid in &before {
        signal(*pid, Signal::KILL);
    }
    server.wait_for_line("was ended by signal 9 (SIGKILL); ");
    wait_until("both are gone", || before.iter().all(|pid| !lives(*pid)));
    let after = server.wait_for_processes(2);
    assert!(after.iter().all(|pid| !before.contains(pid)));
    assert_eq!(load(server.address, "/", 50, 4), 50);
    let scrape = server.scrape();
    assert_eq!(scrape.sum("http_requests_total"), 150.0, "what the dead had reported is kept");
    assert_eq!(scrape.value("effe_crashes_total{signal=\"SIGKILL\"}"), 2.0);
    assert_eq!((scrape.value("effe_process_restarts_total"), scrape.value("effe_processes")), (2.0, 2.0));
    assert_eq!(server.state()["crashes"]["SIGKILL"], 2);
    assert_eq!(counts.of("init"), 4);
    server.stop();
    assert_eq!(counts.of("retire"), 2);
}

#[test]
fn a_swap_replaces_all_processes_and_loses_no_request() {
    let scratch = Scratch::new();
    let bytes = fs::read(probe()).unwrap();
    let version = |n: u8| patched(&bytes, b"probe, version 1", format!("probe, version {n}").as_bytes());
    let put = |bytes: &[u8]| {
        let new = scratch.write("new.so", bytes);
        fs::rename(new, scratch.join("libprobe.so")).unwrap();
    };
    put(&version(1));
    let socket = scratch.join("admin.sock");
    let admin = format!("unix:{}", socket.display());
    let server = Loader::of(scratch.join("libprobe.so"))
        .args(["--processes", "2", "--workers", "1", "--admin", &admin])
        .serve();
    let says = |n: u8| format!("probe, version {n} / probe, version {n}");
    let order =
        |what: &str| over(&socket, &format!("POST {what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let hammer = Hammer::start(server.address, "/version", 8);
    hammer.wait_for(100);
    for n in 2..=4 {
        put(&version(n));
        let answer = order("/swap");
        assert!(answer.contains(&format!("{{\"generation\":{n},\"swapped\":true}}")), "{answer}");
        assert_eq!(server.get("/version").text(), says(n), "whoever connects now gets the new one");
        hammer.wait_for(100);
    }
    put(b"no plugin");
    let answer = order("/swap");
    assert!(answer.contains("422") && answer.contains("it is not a shared library"), "{answer}");
    assert_eq!(server.get("/version").text(), says(4));
    let answer = order("/rollback");
    assert!(answer.contains("{\"generation\":3,\"swapped\":true}"), "{answer}");
    assert_eq!(server.get("/version").text(), says(3), "it needs no file");
    hammer.wait_for(100);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.answers.len(), 4, "{:?}", report.answers);
    server.stop();
}

#[test]
fn a_swap_that_one_process_fails_is_none() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let (_, path) = counts.parameter().split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let set = |more: &str| scratch.write("params.json", format!("{{\"count\": \"{path}\"{more}}}"));
    let server = loader().arg("--params").arg(set("")).serve();
    let before = server.wait_for_processes(2);
    for (step, line) in [
        ("init", "its init failed: told to fail in init"),
        ("start", "its start failed: told to fail in start"),
    ] {
        set(&format!(", \"fail\": \"{step}\""));
        server.signal(Signal::HUP);
        let line = server.wait_for_line(line);
        assert!(line.ends_with("; generation 1 goes on serving"), "{line}");
        assert_eq!(server.get("/").text(), "ok");
        wait_until("only those before are left", || server.processes() == before);
    }
    set(", \"fail\": \"\"");
    server.signal(Signal::HUP);
    server.wait_for_line("generation 2 serves");
    wait_until("those before are gone", || before.iter().all(|pid| !lives(*pid)));
    server.wait_for_processes(2);
    server.stop();
    assert_eq!(counts.of("stop"), counts.of("context"));
    // Two of each generation that has served, and one of that whose Start has failed.
    assert_eq!(counts.of("retire"), 5);
}

#[test]
fn a_request_that_runs_is_finished_by_whichever_signal() {
    for how in [Signal::TERM, Signal::INT] {
        let (counts, scratch) = (Counts::new(), Scratch::new());
        let server = loader().counting(&counts).serve();
        let gate = scratch.join("gate");
        let mut waiting = server.begin(&counts, &format!("/wait?for={}", gate.display()));
        server.signal(how);
        server.wait_for_line("finishing what runs, for at most 30s");
        scratch.write("gate", "");
        let reply = waiting.reply();
        assert_eq!((reply.status, reply.text()), (200, "waited"));
        assert_eq!(reply.text_header("connection"), Some("close"));
        server.ends_with(0);
        assert_eq!(counts.of("stop"), counts.of("context"));
    }
}

#[test]
fn a_signal_to_the_whole_group_is_one_order() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    // `setsid` makes a group of its own, which a terminal would send its signal to.
    let loader = loader().counting(&counts).args(["--listen", "127.0.0.1:0"]);
    let server = loader.under("setsid", Vec::<String>::new()).serve_as_told();
    let gate = scratch.join("gate");
    let mut waiting = server.begin(&counts, &format!("/wait?for={}", gate.display()));
    let leader = server.wait_for_processes(2);
    let group = group_of(leader[0]);
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    server.wait_for_line("SIGINT: finishing what runs");
    scratch.write("gate", "");
    assert_eq!(waiting.reply().status, 200);
    server.ends_with(0);
    assert_eq!(counts.of("stop"), counts.of("context"));
}

#[test]
fn a_run_that_never_ends_is_abandoned_and_a_second_signal_leaves_at_once() {
    let counts = Counts::new();
    let server = loader().counting(&counts).args(["--drain-timeout", "300ms"]).serve();
    let _stuck = server.begin(&counts, "/never");
    server.signal(Signal::TERM);
    let lines = server.ends_with(1);
    let last = lines.last().unwrap();
    assert!(last.contains("1 runs were cut off, 1 Contexts were not stopped"), "{lines:#?}");
    let server = loader().counting(&counts).serve();
    let _stuck = server.begin(&counts, "/never");
    let processes = server.wait_for_processes(2);
    server.signal(Signal::TERM);
    server.wait_for_line("SIGTERM: finishing what runs");
    let since = Instant::now();
    server.signal(Signal::INT);
    let lines = server.ends_with(1);
    assert!(since.elapsed() < LONG / 2);
    let left = "SIGINT again: leaving at once; 1 Contexts were not stopped";
    assert!(lines.iter().any(|line| line.contains(left)), "{lines:#?}");
    wait_until("nobody is left", || !processes.iter().any(|pid| lives(*pid)));
}

#[test]
fn without_their_supervisor_processes_finish_what_runs_and_end() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let server = loader().counting(&counts).serve();
    let processes = server.wait_for_processes(2);
    let gate = scratch.join("gate");
    let mut waiting = server.begin(&counts, &format!("/wait?for={}", gate.display()));
    server.signal(Signal::KILL);
    server.wait_for_line("the supervisor has gone: finishing what runs");
    scratch.write("gate", "");
    assert_eq!(waiting.reply().status, 200);
    wait_until("all have ended", || !processes.iter().any(|pid| lives(*pid)));
    assert_eq!((counts.of("retire"), counts.of("stop")), (2, counts.of("context")));
}

#[test]
fn while_no_process_serves_clients_are_told_503() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let (_, path) = counts.parameter().split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let ready = scratch.write("may-start", "");
    let server = Loader::of(probe())
        .args(["--processes", "1", "--admin", "127.0.0.1:0"])
        .set(&format!("count={path}"))
        .set(&format!("init-waits-for={}", ready.display()))
        .serve();
    assert_eq!(server.readiness().0, 200);
    fs::remove_file(&ready).unwrap();
    signal(server.wait_for_processes(1)[0], Signal::KILL);
    server.wait_for_line("no process serves: clients are told 503");
    let reply = server.get("/");
    assert_eq!((reply.status, reply.text_header("retry-after")), (503, Some("1")));
    assert_eq!(server.readiness().0, 503);
    scratch.write("may-start", "");
    wait_until("another one serves", || server.get("/").status == 200);
    server.stop();
}

#[test]
fn a_service_manager_hears_of_one_effe() {
    let scratch = Scratch::new();
    let manager = UnixDatagram::bind(scratch.join("notify")).unwrap();
    manager.set_read_timeout(Some(LONG)).unwrap();
    let hears = || {
        let mut buffer = [0; 4096];
        let n = manager.recv(&mut buffer).expect("the loader tells something");
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    };
    let server = loader().env("NOTIFY_SOCKET", scratch.join("notify")).serve();
    assert!(hears().starts_with("READY=1\nSTATUS=serving "));
    server.signal(Signal::HUP);
    assert!(hears().starts_with("RELOADING=1\n"));
    assert!(hears().contains("generation 1"));
    let processes = server.wait_for_processes(2);
    let environment = fs::read(format!("/proc/{}/environ", processes[0])).unwrap();
    assert!(
        !String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"),
        "the lambda can't speak for it"
    );
    signal(processes[0], Signal::KILL);
    server.wait_for_line("another one takes its place");
    server.signal(Signal::TERM);
    assert!(hears().starts_with("STOPPING=1"));
    server.ends_with(0);
}

#[test]
fn the_level_of_the_log_is_that_of_every_process_also_of_later_ones() {
    let scratch = Scratch::new();
    let token = scratch.write("token", "s3cret\n");
    let server = loader().arg("--admin-token-file").arg(token).serve();
    let headers = "Host: localhost\r\nAuthorization: Bearer s3cret\r\n";
    let question = Question { method: "POST", target: "/log-level", headers, body: "debug" };
    assert_eq!(ask(server.admin(), &question).status, 200);
    let says = |text: &str| {
        // Until each process has been asked.
        wait_until(text, || {
            server.get(&format!("/log?level=debug&text={text}"));
            server.lines().iter().any(|line| line.contains(text))
        });
    };
    says("early");
    for pid in server.wait_for_processes(2) {
        signal(pid, Signal::KILL);
    }
    server.wait_for_line("another one takes its place");
    server.wait_for_processes(2);
    says("late");
    server.stop();
}

fn group_of(pid: u32) -> rustix::process::Pid {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed());
    rustix::process::getpgid(pid).unwrap()
}
