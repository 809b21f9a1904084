//! Lambdas that crash, by real faults: the request that crashes fails, and nobody else's.

use std::{
    env, fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Connection, Hammer, Loader, Scratch, Server,
    plugins::{async_probe, crasher, early, spout},
    processes::{lives, signal},
    wait_until,
};

/// How often each fault happens in each way to run; `scripts/prove crashes` has more.
fn times() -> usize {
    env::var("EFFE_CRASHES").map_or(1, |text| text.parse().expect("EFFE_CRASHES is a number"))
}

/// Clients that go on meanwhile.
fn n_clients() -> usize {
    env::var("EFFE_CRASH_CLIENTS").map_or(16, |text| text.parse().expect("EFFE_CRASH_CLIENTS is a number"))
}

fn loader(plugin: impl AsRef<std::path::Path>, args: &[&str]) -> Loader {
    Loader::of(plugin).args(["--workers", "1", "--admin", "127.0.0.1:0"]).args(args)
}

/// Connections that the supervisor could go on with.
fn held(server: &Server) -> u64 {
    let state = server.state();
    let processes = state["processes"].as_array().unwrap();
    processes.iter().map(|process| process["held_connections"].as_u64().unwrap()).sum()
}

/// Kept-alive clients go on while faults happen: each fault costs its own request, which is told 500, and no other.
fn survives(plugin: impl AsRef<std::path::Path>, args: &[&str], faults: &[&str], answers: &str) {
    let server = loader(plugin, args).serve();
    let hammer = Hammer::start(server.address, answers, n_clients());
    for n in 0..times() {
        for fault in faults {
            hammer.wait_for(50);
            let mut connection = server.connect();
            // Its process has served by then, so another one is started at once.
            assert_eq!(connection.get(answers).status, 200);
            let reply = connection.get(fault);
            assert_eq!((reply.status, reply.text()), (500, "the lambda failed\n"), "{args:?} {fault} {n}");
            assert_eq!(reply.text_header("connection"), Some("close"));
        }
    }
    hammer.wait_for(50);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new(), "{args:?}");
    let n_faults = times() * faults.len();
    wait_until("every crash is counted", || server.scrape().sum("effe_crashes_total") == n_faults as f64);
    println!("{args:?}: {n_faults} crashes among {} requests, none lost", report.latencies.len());
    server.stop();
}

const FAULTS: [&str; 8] = [
    "/crash/segv",
    "/crash/bus",
    "/crash/ill",
    "/crash/fpe",
    "/crash/abort",
    "/crash/stack",
    "/crash/exit",
    "/crash/unwind",
];

#[test]
fn inline_only_the_request_that_crashes_fails() {
    survives(crasher(), &["--processes", "2", "--execution", "inline"], &FAULTS, "/answer");
}

#[test]
fn inline_in_one_process_only_the_request_that_crashes_fails() {
    survives(crasher(), &["--processes", "1", "--execution", "inline"], &FAULTS, "/answer");
}

#[test]
fn on_the_pool_only_the_request_that_crashes_fails() {
    survives(crasher(), &["--processes", "2", "--execution", "pool"], &FAULTS, "/answer?ms=2");
}

#[test]
fn on_the_pool_of_one_process_only_the_request_that_crashes_fails() {
    survives(crasher(), &["--processes", "1", "--execution", "pool"], &FAULTS, "/answer?ms=2");
}

#[test]
fn of_an_async_lambda_only_the_request_that_crashes_fails() {
    async_survives("2");
}

#[test]
fn of_an_async_lambda_in_one_process_only_the_request_that_crashes_fails() {
    async_survives("1");
}

fn async_survives(processes: &str) {
    let faults = FAULTS.iter().map(|fault| fault.to_string());
    let faults: Vec<String> = faults.filter(|fault| !fault.ends_with("stack")).collect();
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    // Where runs are spawned, the runtime stands still with the thread that crashes, and others are told 503.
    let args = ["--processes", processes, "--execution", "inline"];
    survives(async_probe(), &args, &faults, "/context-of-none");
}

/// How long nobody is answered after a fault, while another process serves.
#[test]
fn after_a_fault_others_are_answered_soon() {
    let n_faults =
        env::var("EFFE_SILENCES").map_or(10, |text| text.parse().expect("EFFE_SILENCES is a number"));
    let server = loader(crasher(), &["--processes", "2", "--execution", "inline"]).serve();
    let (over, answered, longest) =
        (AtomicBool::new(false), Mutex::new(Instant::now()), Mutex::new(Duration::ZERO));
    let mut silences = Vec::new();
    thread::scope(|scope| {
        let (answered, longest, over, address) = (&answered, &longest, &over, server.address);
        for _ in 0..8 {
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                while !over.load(Ordering::Relaxed) {
                    let reply = connection.get("/answer");
                    assert_eq!(reply.status, 200);
                    // Every so many requests a connection is to be a new one.
                    if reply.text_header("connection") == Some("close") {
                        connection = Connection::open(address);
                    }
                    let before = std::mem::replace(&mut *answered.lock().unwrap(), Instant::now());
                    let mut longest = longest.lock().unwrap();
                    *longest = before.elapsed().max(*longest);
                }
            });
        }
        for _ in 0..n_faults {
            let before = server.processes();
            let mut connection = server.connect();
            assert_eq!(connection.get("/answer").status, 200);
            *longest.lock().unwrap() = Duration::ZERO;
            assert_eq!(connection.get("/crash/segv").status, 500);
            wait_until("another one is there", || {
                !before.iter().all(|pid| lives(*pid)) && server.processes().len() == 2
            });
            server.wait_for_processes(2);
            silences.push(*longest.lock().unwrap());
        }
        over.store(true, Ordering::Relaxed);
    });
    silences.sort();
    let (median, most) = (silences[silences.len() / 2], silences[silences.len() - 1]);
    println!(
        "{n_faults} faults with two processes: nobody answered for {median:.1?} median, {most:.1?} at most"
    );
    assert!(most < Duration::from_secs(2), "{most:?}");
    server.stop();
}

#[test]
fn a_crash_is_told_with_its_signal_and_its_request() {
    let server = loader(crasher(), &["--processes", "1"]).serve();
    let request = "GET /crash/segv?secret HTTP/1.1\r\nHost: x\r\nX-Request-Id: so-called\r\n\r\n";
    assert_eq!(server.connect().send(request).reply().status, 500);
    let line = server.wait_for_line("was ended by signal 11 (SIGSEGV");
    for part in [
        ", in a run of GET /crash/segv; 1 Contexts were not stopped; another one takes its place",
        "request_id=so-called",
        "generation=1",
        "method=GET",
        "path=/crash/segv",
        "address=0x0",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert!(line.contains("critical") && !line.contains("secret"), "{line}");
    // Found in the symbols, and, where the plugin has it, in the debugging information.
    let at = line.split("function=").nth(1).unwrap_or_default().split(' ').next().unwrap();
    assert_eq!(at, "crasher::faults::crash", "{line}");
    let is_located = line.contains("/faults.rs:") && line.contains("location=");
    assert_eq!(is_located, cfg!(debug_assertions), "{line}");
    let state = server.state();
    assert_eq!((&state["abandoned_contexts"], &state["crashes"]["SIGSEGV"]), (&1.into(), &1.into()));
    assert_eq!(server.scrape().value("effe_contexts_abandoned_total"), 1.0);
    // What a debugger calls the place in the file, whatever was mapped where.
    let (_, place) = line.split_once(", at ").expect("the place in the file is told");
    let (place, _) = place.split_once(' ').unwrap();
    if let Ok(found) = Command::new("addr2line").arg("-fe").arg(crasher()).arg(place).output() {
        let found = String::from_utf8_lossy(&found.stdout);
        let names = ["faults.rs", "write_volatile", "faults"];
        assert!(names.iter().any(|name| found.contains(name)), "{place}: {found}");
    }
    server.stop();
}

#[test]
fn connections_at_rest_outlive_their_process_however_it_dies() {
    for how in ["kill", "_exit", "segv"] {
        let server = loader(crasher(), &["--processes", "2"]).serve();
        let before = server.wait_for_processes(2);
        let mut idle: Vec<Connection> = (0..40).map(|_| server.connect()).collect();
        idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
        wait_until("the supervisor has copies of all", || held(&server) == 40);
        if how == "kill" {
            before.iter().for_each(|pid| signal(*pid, Signal::KILL));
        } else {
            while before.iter().any(|pid| lives(*pid)) {
                let _ = server
                    .connect()
                    .send(format!("GET /crash/{how} HTTP/1.1\r\nHost: x\r\n\r\n"))
                    .try_reply(false);
            }
        }
        wait_until("both are gone", || !before.iter().any(|pid| lives(*pid)));
        for connection in &mut idle {
            assert_eq!(connection.get("/answer").status, 200, "{how}");
        }
        server.stop();
    }
}

#[test]
fn a_request_that_ran_in_a_process_that_is_killed_is_told_503() {
    let scratch = Scratch::new();
    let server = loader(crasher(), &["--processes", "1"]).serve();
    let mut connection = server.connect();
    assert_eq!(connection.get("/answer").status, 200);
    wait_until("the supervisor has a copy", || held(&server) == 1);
    let gate = scratch.join("gate");
    connection.send(format!("GET /wait?{} HTTP/1.1\r\nHost: x\r\n\r\n", gate.display()));
    wait_until("it runs", || scratch.join("gate.begun").exists());
    signal(server.processes()[0], Signal::KILL);
    let reply = connection.reply();
    assert_eq!((reply.status, reply.text_header("retry-after")), (503, Some("1")));
    assert!(connection.is_closed());
    wait_until("it is counted", || server.scrape().value("effe_requests_told_total") == 1.0);
    server.stop();
}

#[test]
fn what_runs_elsewhere_may_end_after_a_crash_for_as_long_as_the_grace() {
    for (grace, status) in [("30s", 200), ("50ms", 503)] {
        let scratch = Scratch::new();
        let server =
            loader(crasher(), &["--processes", "1", "--execution", "pool", "--fault-grace", grace]).serve();
        let gate = scratch.join("gate");
        let mut waiting = server.connect();
        waiting.send(format!("GET /wait?{} HTTP/1.1\r\nHost: x\r\n\r\n", gate.display()));
        wait_until("it runs", || scratch.join("gate.begun").exists());
        let crashed = server.processes()[0];
        assert_eq!(server.get("/crash/segv").status, 500);
        wait_until("another one serves", || server.get("/answer").status == 200);
        if status == 200 {
            assert!(lives(crashed), "it has something to finish");
            fs::write(&gate, "").unwrap();
        }
        assert_eq!(waiting.reply().status, status, "{grace}");
        wait_until("it is gone", || !lives(crashed));
        server.stop();
    }
}

#[test]
fn a_run_that_crashes_after_its_answer_costs_the_next_request_of_its_connection_nothing() {
    let scratch = Scratch::new();
    let server = loader(early(), &["--processes", "1", "--fault-grace", "30s"]).serve();
    let (crash, gate) = (scratch.join("crash"), scratch.join("gate"));
    let mut connection = server.connect();
    assert_eq!(connection.get(&format!("/crash?{}", crash.display())).status, 202);
    connection.send(format!("GET /held?{} HTTP/1.1\r\nHost: x\r\n\r\n", gate.display()));
    wait_until("it runs", || scratch.join("gate.begun").exists());
    fs::write(&crash, "").unwrap();
    wait_until("another one serves", || server.get("/version").status == 200 && server.processes().len() > 1);
    fs::write(&gate, "").unwrap();
    assert_eq!(connection.reply().status, 202);
    server.stop();
}

#[test]
fn a_child_of_the_lambda_that_ends_or_crashes_costs_nothing() {
    let server = loader(crasher(), &["--processes", "1", "--execution", "inline"]).serve();
    let before = server.processes();
    let mut connection = server.connect();
    for how in ["exit", "segv", "abort"] {
        let reply = connection.get(&format!("/fork/{how}"));
        assert!(reply.text().ends_with(&format!("is answered by {}", before[0])), "{how}: {}", reply.text());
    }
    assert_eq!(server.get("/answer").status, 200);
    assert_eq!(server.processes(), before);
    server.stop();
}

#[test]
fn a_child_that_keeps_what_its_process_had_open_keeps_nobody_waiting() {
    for how in ["segv", "_exit"] {
        let scratch = Scratch::new();
        let server = loader(crasher(), &["--processes", "1"]).serve();
        let mut idle = server.connect();
        assert_eq!(idle.get("/answer").status, 200);
        wait_until("the supervisor has a copy", || held(&server) == 1);
        let gate = scratch.join("gate");
        let target = format!("/orphan/{how}?{}", gate.display());
        server.connect().send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        server.wait_for_line("another one takes its place");
        assert_eq!(idle.get("/answer").status, 200);
        server.wait_for_processes(1);
        assert!(!gate.exists(), "the child is still there");
        fs::write(&gate, "").unwrap();
        server.stop();
    }
}

#[test]
fn a_body_that_nobody_wants_does_not_take_the_grace() {
    let args = ["--processes", "1", "--fault-grace", "10m", "--body-limit", "10"];
    let server = loader(crasher(), &args).serve();
    let mut slow = server.connect();
    slow.send("POST /answer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nthe first of many bytes");
    assert_eq!(slow.reply().status, 413);
    let crashed = server.processes()[0];
    assert_eq!(server.get("/crash/segv").status, 500);
    wait_until("it is gone", || !lives(crashed));
    server.stop();
}

#[test]
fn what_is_no_message_keeps_the_supervisor_from_nothing() {
    let server = loader(crasher(), &["--processes", "1", "--execution", "inline"]).serve();
    let mut idle = server.connect();
    assert_eq!(idle.get("/answer").status, 200);
    for _ in 0..20 {
        assert_eq!(idle.get("/crash/babble").status, 200);
    }
    wait_until("the supervisor has copies nevertheless", || held(&server) >= 1);
    assert_eq!(server.get("/crash/segv").status, 500);
    assert_eq!(idle.get("/answer").status, 200);
    server.stop();
}

#[test]
fn answers_before_the_request_that_crashes_are_sent() {
    let server = loader(crasher(), &["--processes", "1", "--execution", "inline"]).serve();
    let mut connection = server.connect();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let all = [request("/a"), request("/b"), request("/crash/segv"), request("/never")].concat();
    connection.send(all);
    let replies: Vec<u16> = (0..3).map(|_| connection.reply().status).collect();
    assert_eq!(replies, [200, 200, 500]);
    assert!(connection.is_closed(), "nothing is run twice");
    server.stop();
}

#[test]
fn an_inline_run_that_never_ends_is_told_504_and_costs_nobody_else() {
    let args = ["--processes", "2", "--execution", "inline", "--run-timeout", "200ms"];
    let server = loader(crasher(), &args).serve();
    let hammer = Hammer::start(server.address, "/answer", 8);
    hammer.wait_for(50);
    let reply = server.get("/crash/loop");
    assert_eq!((reply.status, reply.text()), (504, "the lambda took too long\n"));
    hammer.wait_for(50);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    println!("an endless loop: one 504, and others waited for {:.0?} at most", report.percentile(100));
    server.stop();
}

#[test]
fn an_answer_that_has_begun_never_looks_whole() {
    let server = loader(spout(), &["--processes", "1"]).serve();
    let mut connection = server.connect();
    assert_eq!(connection.get("/").status, 200);
    wait_until("the supervisor has a copy", || held(&server) == 1);
    // Over HTTP/1.0 the end of the connection is the end of the body.
    connection.send("GET /endless HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
    connection.byte();
    signal(server.processes()[0], Signal::KILL);
    let mut rest = connection.writer();
    let end = std::io::copy(&mut rest, &mut std::io::sink());
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    server.stop();
}

#[test]
fn over_a_unix_socket_connections_outlive_their_process_too() {
    let scratch = Scratch::new();
    let path = scratch.join("sock");
    let listen = format!("unix:{}", path.display());
    let server = loader(crasher(), &["--processes", "1", "--listen", &listen]).start();
    server.wait_for_line("listening on unix:");
    let ask = |stream: &mut UnixStream, target: &str| {
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut bytes = [0; 1024];
        let n = stream.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    let mut idle = UnixStream::connect(&path).unwrap();
    assert!(ask(&mut idle, "/answer").starts_with("HTTP/1.1 200"));
    for _ in 0..3 {
        assert!(ask(&mut UnixStream::connect(&path).unwrap(), "/crash/abort").starts_with("HTTP/1.1 500"));
        assert!(ask(&mut idle, "/answer").starts_with("HTTP/1.1 200"));
    }
    server.stop();
    assert!(!path.exists());
}

#[test]
fn over_a_unix_socket_an_answer_that_breaks_off_ends() {
    let scratch = Scratch::new();
    let path = scratch.join("sock");
    let listen = format!("unix:{}", path.display());
    let server = loader(spout(), &["--processes", "1", "--listen", &listen]).start();
    server.wait_for_line("listening on unix:");
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(crate::support::LONG)).unwrap();
    client.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    wait_until("the supervisor has a copy", || held(&server) == 1);
    signal(server.processes()[0], Signal::KILL);
    let end = std::io::copy(&mut client, &mut std::io::sink());
    assert!(end.as_ref().is_ok_and(|n| *n > 0) || end.unwrap_err().kind() != std::io::ErrorKind::WouldBlock);
    server.stop();
}

#[test]
fn a_crash_in_init_or_start_ends_the_start_in_one_line() {
    for step in ["init", "start"] {
        let loader = Loader::of(crasher()).args(["--processes", "2", "--port", "0"]);
        let done = loader.set(&format!("crash={step}:segv")).run().assert_code(1);
        assert!(done.one_line().contains("its process was ended by signal 11 (SIGSEGV"), "{done:?}");
    }
}

#[test]
fn nonsense_on_the_scoreboard_ends_nobody_but_its_writer() {
    let server = loader(crasher(), &["--processes", "2"]).serve();
    for _ in 0..3 {
        let _ = server.connect().send("GET /crash/scribble HTTP/1.1\r\nHost: x\r\n\r\n").try_reply(false);
        wait_until("another one serves", || server.get("/answer").status == 200);
    }
    server.wait_for_processes(2);
    server.stop();
}

#[test]
fn a_lambda_that_always_crashes_is_started_less_and_less_often() {
    let server = loader(crasher(), &["--processes", "1"]).set("always=segv").serve();
    assert_eq!(server.get("/").status, 500);
    // Each process crashes in its first run, and soon.
    wait_until("the second crash", || server.get("/").status == 500);
    wait_until("the third crash", || server.get("/").status == 500);
    server.wait_for_line("another one takes its place pid=");
    server.wait_for_line("another one takes its place in 100.0ms");
    server.wait_for_line("another one takes its place in 200.0ms");
    server.stop();
}
