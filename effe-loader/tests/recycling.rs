//! Processes that have had enough: another one takes the place and the connections of each, and no client notices.

use std::{
    collections::BTreeSet,
    env, fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    Connection, Counts, Hammer, Loader, Scratch, Server,
    plugins::{crasher, probe},
    processes::lives,
    wait_until,
};

fn loader(plugin: impl AsRef<std::path::Path>, args: &[&str]) -> Loader {
    Loader::of(plugin).args(["--workers", "1", "--admin", "127.0.0.1:0"]).args(args)
}

/// How many requests leak; `scripts/prove recycling` has more.
fn n_requests() -> usize {
    env::var("EFFE_RECYCLED").map_or(1_000, |text| text.parse().expect("EFFE_RECYCLED is a number"))
}

/// The memory of the largest of the processes, in bytes.
fn largest(server: &Server) -> u64 {
    let of = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    server.processes().into_iter().map(of).max().unwrap_or(0)
}

#[test]
fn a_lambda_that_leaks_is_kept_small_and_no_request_is_lost() {
    let server = loader(crasher(), &["--processes", "2", "--max-memory", "64MiB"]).serve();
    server.wait_for_processes(2);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let most = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(largest(&server));
                thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let hammer =
            Hammer::start(server.address, if n_requests() > 1_000 { "/leak?ms=2" } else { "/leak?ms=20" }, 4);
        // Each thousand may take as long as anything.
        (0..n_requests().div_ceil(1_000)).for_each(|_| hammer.wait_for(1_000));
        let report = hammer.stop();
        over.store(true, Ordering::Relaxed);
        let most = most.join().unwrap();
        assert_eq!(report.failures, Vec::<String>::new());
        assert!(most < 400 << 20, "{} MiB", most >> 20);
        println!("{} requests lost a mebibyte each; at most {} MiB", report.latencies.len(), most >> 20);
    });
    server.wait_for_line("MiB of memory (--max-memory is 64 MiB): another one takes its place");
    wait_until("it is counted", || server.scrape().value("effe_recycled_total{reason=\"memory\"}") >= 4.0);
    assert!(server.state()["recycled"]["memory"].as_u64().unwrap() >= 4);
    assert_eq!(
        (server.scrape().sum("effe_crashes_total"), server.scrape().value("effe_process_restarts_total")),
        (0.0, 0.0)
    );
    server.stop();
}

#[test]
fn connections_go_on_where_their_process_has_had_its_requests() {
    for args in [&["--processes", "1"], &["--processes", "2"]] {
        let counts = Counts::new();
        let server = loader(probe(), args).args(["--max-requests", "200"]).counting(&counts).serve();
        let first = server.wait_for_processes(args[1].parse().unwrap());
        let mut idle: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
        idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/").status, 200));
        // One that has never asked, and one whose request has come in part.
        let mut silent = server.connect();
        let mut partial = server.connect();
        partial.send("GET / HTTP/1.1\r\nHo");
        let hammer = Hammer::start(server.address, "/", 4);
        hammer.wait_for(1_000);
        partial.send("st: x\r\n\r\n");
        assert_eq!(partial.reply().status, 200, "what has come in part is not lost");
        wait_until("all of the first have gone", || !first.iter().any(|pid| lives(*pid)));
        let report = hammer.stop();
        assert_eq!(report.failures, Vec::<String>::new());
        for connection in idle.iter_mut().chain([&mut silent]) {
            let reply = connection.get("/");
            assert_eq!((reply.status, reply.text_header("connection")), (200, None));
        }
        assert!(
            server.scrape().value("effe_recycled_total{reason=\"requests\"}") >= args[1].parse().unwrap()
        );
        assert!(server.scrape().value("effe_connections_adopted_total") > 0.0);
        let lines = server.stop();
        assert_eq!(counts.of("init"), counts.of("retire"));
        assert_eq!(counts.of("stop"), counts.of("context"));
        let bad: BTreeSet<&String> = lines.iter().filter(|line| line.contains("critical")).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

#[test]
fn a_request_that_runs_when_its_process_has_had_its_requests_is_finished() {
    let scratch = Scratch::new();
    let server = loader(crasher(), &["--processes", "1", "--max-requests", "10"]).serve();
    let gate = scratch.join("gate");
    let mut waiting = server.connect();
    waiting.send(format!("GET /wait?{} HTTP/1.1\r\nHost: x\r\n\r\n", gate.display()));
    wait_until("it runs", || scratch.join("gate.begun").exists());
    let old = server.processes()[0];
    let mut client = server.connect();
    wait_until("another process answers", || !client.get("/answer").text().ends_with(&format!(" {old}")));
    assert!(lives(old), "it has something to finish");
    fs::write(&gate, "").unwrap();
    let reply = waiting.reply();
    assert_eq!((reply.status, reply.text_header("connection")), (200, None));
    wait_until("it is gone", || !lives(old));
    assert!(!waiting.get("/answer").text().ends_with(&format!(" {old}")), "its connection goes on");
    server.stop();
}

#[test]
fn a_successor_that_cannot_start_leaves_the_one_before_at_work() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let (_, path) = counts.parameter().split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let ready = scratch.write("may-start", "");
    let server = loader(probe(), &["--processes", "1", "--max-requests", "5"])
        .set(&format!("count={path}"))
        .set(&format!("init-waits-for={}", ready.display()))
        .serve();
    let old = server.wait_for_processes(1);
    fs::remove_file(&ready).unwrap();
    wait_until("it has had its requests", || {
        assert_eq!(server.get("/").status, 200);
        server.lines().iter().any(|line| line.contains("--max-requests is 5"))
    });
    wait_until("there is a successor", || server.processes().len() == 2);
    let successor = *server.processes().iter().find(|pid| !old.contains(pid)).unwrap();
    crate::support::processes::signal(successor, rustix::process::Signal::KILL);
    server.wait_for_line("the successor of process 0 can't serve: it was ended by signal 9 (SIGKILL)");
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.processes(), old);
    server.stop();
}

#[test]
fn limits_of_a_process_are_for_those_who_have_several() {
    for flag in ["--max-memory=1GiB", "--max-requests=7"] {
        let done = Loader::of(probe()).arg(flag).run().assert_code(2);
        assert!(done.stderr.contains("are for --processes N, which is not given"), "{done:?}");
    }
}
