//! Async lambdas: what waits holds no thread, what nobody waits for is dropped, and whatever happens, every Context is
//! stopped once.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Connection, Counts, Hammer, Loader, Reply, Scratch, Server,
    plugins::{async_probe, patched},
    wait_until,
};

fn loader(counts: &Counts) -> Loader {
    Loader::of(async_probe()).counting(counts)
}

/// Threads of a process, by the beginning of their names.
fn threads(id: u32, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|comm| comm.starts_with(name)).count()
}

#[test]
fn a_run_that_is_ready_at_once_runs_on_the_servers_thread_and_in_one_context() {
    let counts = Counts::new();
    // Measured, a thread that the system took away for a while looks as if it had been blocked.
    let server = loader(&counts).args(["--execution", "inline"]).serve();
    let mut connection = server.connect();
    for _ in 0..100 {
        assert_eq!(connection.get("/context").text(), "1");
    }
    let thread = connection.get("/thread");
    assert!(thread.text().starts_with("actix"), "{}", thread.text());
    assert_eq!(connection.post("/echo", b"ping").text(), "ping");
    assert_eq!(threads(server.id(), "effe-run"), 0);
    server.stop();
    assert_eq!(counts.of("start"), 1);
    counts.assert_complete();
}

#[test]
fn what_is_spawned_runs_in_the_lambdas_own_runtime() {
    let server = Loader::of(async_probe()).args(["--set", "runtime-threads=3"]).serve();
    assert_eq!(server.get("/spawn").text(), "effe-lambda");
    // A thread takes its name once it runs.
    wait_until("all threads are there", || threads(server.id(), "effe-lambda") == 3);
    server.stop();
}

#[test]
fn runs_that_wait_hold_no_thread() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--workers", "1", "--execution", "inline"]).serve();
    let begun = Instant::now();
    let mut waiting: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send("GET /sleep?400 HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    counts.wait_for("run", 200);
    assert_eq!(threads(server.id(), "effe-run"), 0);
    for connection in &mut waiting {
        assert_eq!(connection.reply().text(), "slept");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "one after the other they would take 80 s");
    server.stop();
    counts.assert_complete();
}

/// The thread that a run of `/waits` ended on.
fn thread_of(reply: &Reply) -> &str {
    reply.text_header("x-thread").expect("it says so")
}

/// Has runs wait again and again, until they are polled on the runtime's threads.
fn spawn_runs(server: &Server) {
    let mut connection = server.connect();
    let moved = (0..1000).any(|_| thread_of(&connection.get("/waits?4")) == "effe-lambda");
    assert!(moved, "1000 runs that wait again and again went back and forth");
}

#[test]
fn runs_that_wait_again_and_again_go_on_in_the_lambdas_own_runtime() {
    let counts = Counts::new();
    let server =
        loader(&counts).args(["--workers", "1", "--execution", "inline", "--run-timeout", "2s"]).serve();
    let mut connection = server.connect();
    assert!(thread_of(&connection.get("/waits?1")).starts_with("actix"));
    spawn_runs(&server);
    let n_contexts = counts.of("context");
    connection.send("GET /waits?2 HTTP/1.1\r\nHost: test\r\nX-Request-Id: spawned-17\r\n\r\n");
    assert_eq!(thread_of(&connection.reply()), "effe-lambda");
    let line = server.wait_for_line("request_id=spawned-17");
    assert!(line.contains("waited again and again on effe-lambda"), "{line}");
    assert_eq!(connection.post("/echo", &vec![b'x'; 1 << 20]).text().len(), 1 << 20);
    assert_eq!(connection.get("/pieces?5").text(), "0\n1\n2\n3\n4\n");
    // The run before may not have given its Context back when its answer is here.
    for _ in 0..20 {
        assert_eq!(connection.get("/fail").status, 500);
    }
    let n_more = counts.of("context") - n_contexts;
    assert!(n_more <= 1, "an error costs no Context: {n_more} more");
    for path in ["/panic", "/panic-later"] {
        assert_eq!(connection.get(path).status, 500);
    }
    counts.wait_for("stop", 2);
    let mut leaving: Vec<_> = (0..20).map(|_| server.begin(&counts, "/never")).collect();
    leaving.drain(10..).for_each(Connection::reset);
    drop(leaving);
    counts.wait_for("dropped", 20);
    counts.wait_for("stop", 22);
    assert_eq!(server.get("/never").status, 504);
    counts.wait_for("dropped", 21);
    assert_eq!(threads(server.id(), "effe-run"), 0);
    // Those that are ready at once for some time come back.
    let back = (0..10_000).any(|_| connection.get("/thread").text().starts_with("actix"));
    assert!(back, "10000 runs that were ready at once stayed away");
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_run_goes_on_after_its_answer_and_keeps_its_context() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--workers", "1", "--execution", "inline"]).serve();
    for spawned in [false, true] {
        if spawned {
            spawn_runs(&server);
        }
        let n_gone_on = counts.of("gone on");
        let mut connection = server.connect();
        for n in 1..=50 {
            assert_eq!(connection.get(&format!("/ends?{}", n % 3)).text(), "ended");
        }
        counts.wait_for("gone on", n_gone_on + 50);
    }
    let mut connection = server.connect();
    assert_eq!(connection.get("/ends?100").text(), "ended");
    server.signal(Signal::TERM);
    server.ends_with(0);
    assert_eq!((counts.of("gone on"), counts.of("dropped")), (101, 0));
    counts.assert_complete();
}

#[test]
fn a_drain_waits_for_spawned_runs() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--workers", "1", "--execution", "inline"]).serve();
    spawn_runs(&server);
    let mut waiting: Vec<_> = (0..10).map(|_| server.begin(&counts, "/waits?100")).collect();
    server.signal(Signal::TERM);
    for connection in &mut waiting {
        let reply = connection.reply();
        assert_eq!((reply.text(), thread_of(&reply)), ("waited", "effe-lambda"));
    }
    server.ends_with(0);
    counts.assert_complete();
}

#[test]
fn past_their_limit_runs_that_wait_are_503() {
    let counts = Counts::new();
    let server =
        loader(&counts).args(["--workers", "1", "--max-async", "2", "--drain-timeout", "200ms"]).serve();
    let _waiting = [server.begin(&counts, "/never"), server.begin(&counts, "/never")];
    let reply = server.get("/");
    assert_eq!((reply.status, reply.text_header("retry-after")), (503, Some("1")));
    server.signal(Signal::TERM);
    server.ends_with(1);
}

#[test]
fn a_run_whose_client_leaves_is_dropped_and_its_context_stopped() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--set", "stop-takes=1"]).serve();
    let n_clients = leave(&server, &counts);
    server.stop();
    counts.assert_complete();
    println!("{n_clients} runs were cancelled: every future was dropped, every Context stopped once");
}

#[test]
fn a_spawned_run_whose_client_leaves_is_dropped_and_its_context_stopped() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--set", "stop-takes=1", "--execution", "inline"]).serve();
    spawn_runs(&server);
    let n_clients = leave(&server, &counts);
    assert_eq!(thread_of(&server.get("/waits?2")), "effe-lambda");
    server.stop();
    counts.assert_complete();
    println!("{n_clients} spawned runs were cancelled: every future was dropped, every Context stopped once");
}

/// Has clients leave in the midst of their runs, each of which is then seen to be over; how many there were.
fn leave(server: &Server, counts: &Counts) -> usize {
    let n_clients: usize = std::env::var("EFFE_CANCELLED").map_or(20, |text| text.parse().expect("a number"));
    let (runs, stops, dropped) = (counts.of("run"), counts.of("stop"), counts.of("dropped"));
    let mut n_begun = 0;
    while n_begun < n_clients {
        let batch = (n_clients - n_begun).min(100);
        let connections: Vec<_> = (0..batch)
            .map(|n| {
                let mut connection = server.connect();
                // One is asleep when its client leaves; the other may be in the midst of a poll.
                let target = if n % 4 < 2 { "/never" } else { "/waits?1000000" };
                connection.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
                connection
            })
            .collect();
        n_begun += batch;
        counts.wait_for("run", runs + n_begun);
        // One way to leave, and the other.
        for (n, connection) in connections.into_iter().enumerate() {
            if n % 2 == 0 { connection.reset() } else { drop(connection) }
        }
        counts.wait_for("stop", stops + n_begun);
    }
    assert_eq!(counts.of("dropped"), dropped + n_clients);
    assert_eq!(server.get("/").status, 200);
    n_clients
}

#[test]
fn a_run_past_its_time_is_504_and_dropped() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--run-timeout", "200ms"]).serve();
    let mut connection = server.connect();
    let reply = connection.get("/never");
    assert_eq!((reply.status, reply.text()), (504, "the lambda took too long\n"));
    assert_eq!(connection.get("/").text(), "done", "the connection stays");
    counts.wait_for("dropped", 1);
    counts.wait_for("stop", 1);
    let line = server.wait_for_line("takes longer than --run-timeout; it is dropped");
    assert!(line.ends_with("method=GET path=/never"), "{line}");
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_start_that_takes_its_time_is_awaited_and_outlives_its_client() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--set", "start-takes=200", "--workers", "1"]).serve();
    let first = server.begin(&counts, "/never");
    let mut second = server.connect();
    second.send("GET /context HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("start", 2);
    second.reset();
    counts.wait_for("context", 2);
    assert_eq!(server.get("/context").text(), "2", "the Context was kept");
    server.signal(Signal::TERM);
    server.wait_for_line("finishing what runs");
    first.reset();
    server.ends_with(0);
    counts.assert_complete();
}

#[test]
fn a_failed_start_gets_one_run_and_one_stop() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--set", "fail=start"]).serve();
    server.wait_for_line("told to fail");
    assert!(server.get("/why").text().starts_with("failed with Some("));
    assert_eq!(server.get("/").status, 500);
    server.stop();
    counts.assert_complete();
}

#[test]
fn panics_are_500_and_cost_their_context() {
    for parameter in ["nothing=0", "panic=stop"] {
        let counts = Counts::new();
        let server = loader(&counts).args(["--set", parameter]).serve();
        let mut connection = server.connect();
        for target in ["/panic", "/panic-later"] {
            let before = connection.get("/context").text().to_owned();
            let reply = connection.get(target);
            assert_eq!((reply.status, reply.text()), (500, "the lambda failed\n"));
            assert_ne!(connection.get("/context").text(), before);
        }
        assert_eq!(connection.get("/fail").status, 500);
        let line = server.wait_for_line("told to panic");
        assert!(line.contains("async_probe/src/lib.rs:"), "{line}");
        server.stop();
        assert_eq!(counts.of("context"), 3);
        counts.assert_complete();
    }
}

#[test]
fn a_lambda_that_blocks_is_named_and_polled_elsewhere() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--workers", "1"]).serve();
    // Others that wait meanwhile move along with it.
    let mut waiting: Vec<_> = (0..5).map(|_| server.begin(&counts, "/sleep?300")).collect();
    assert_eq!(server.get("/block?100").text(), "blocked");
    let line = server.wait_for_line("running in its own runtime");
    assert!(line.contains("GET /block: a poll took "), "{line}");
    assert_eq!(server.get("/thread").text(), "effe-lambda\n");
    let begun = Instant::now();
    // More of them than the runtime has threads: none keeps another one waiting.
    let mut blocked: Vec<_> = (0..4).map(|_| server.begin(&counts, "/block?2000")).collect();
    assert_eq!(server.get("/").text(), "done");
    assert!(begun.elapsed() < Duration::from_secs(2), "the server's thread is free, and the runtime's");
    for blocked in &mut blocked {
        assert_eq!(blocked.reply().text(), "blocked");
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "they block side by side");
    for connection in &mut waiting {
        assert_eq!(connection.reply().text(), "slept");
    }
    let leaves = server.begin(&counts, "/never");
    leaves.reset();
    counts.wait_for("dropped", 1);
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_client_that_leaves_a_run_that_blocks_keeps_no_thread_of_the_servers_waiting() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--workers", "1"]).serve();
    assert_eq!(server.get("/block?100").text(), "blocked");
    server.wait_for_line("running in its own runtime");
    let begun = Instant::now();
    server.begin(&counts, "/block?2000").reset();
    assert_eq!(server.get("/").text(), "done");
    assert!(begun.elapsed() < Duration::from_secs(2), "the server's thread is free");
    server.stop();
    counts.assert_complete();
}

#[test]
fn on_the_pool_a_run_has_a_thread_and_is_dropped_when_its_client_leaves_or_its_time_is_up() {
    let counts = Counts::new();
    let args = ["--execution", "pool", "--run-timeout", "300ms", "--max-concurrency", "2"];
    let server = loader(&counts).args(args).serve();
    assert!(server.get("/thread").text().starts_with("effe-run-"));
    assert_eq!(server.get("/sleep?50").text(), "slept");
    assert_eq!(server.get("/pieces?3").text(), "0\n1\n2\n");
    server.begin(&counts, "/never").reset();
    counts.wait_for("dropped", 1);
    let mut never = server.begin(&counts, "/never");
    assert_eq!(never.reply().status, 504);
    counts.wait_for("dropped", 2);
    // Both threads are free again.
    assert_eq!(server.get("/").text(), "done");
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_drain_waits_for_runs_and_for_stops() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let server = loader(&counts).args(["--set", "stop-takes=100"]).serve();
    let gate = scratch.join("gate");
    let target = format!("/wait?{}", gate.display());
    let mut waiting: Vec<_> = (0..10).map(|_| server.begin(&counts, &target)).collect();
    let leaves = server.begin(&counts, "/never");
    server.signal(Signal::TERM);
    server.wait_for_line("finishing what runs");
    leaves.reset();
    scratch.write("gate", "");
    for connection in &mut waiting {
        let reply = connection.reply();
        assert_eq!((reply.text(), reply.text_header("connection")), ("waited", Some("close")));
    }
    server.ends_with(0);
    assert_eq!(counts.of("context"), 11);
    counts.assert_complete();
}

#[test]
fn at_the_drains_end_what_still_waits_is_dropped_and_stopped() {
    let counts = Counts::new();
    let server = loader(&counts).args(["--drain-timeout", "300ms", "--set", "stop-takes=20"]).serve();
    let mut stuck: Vec<_> = (0..5).map(|_| server.begin(&counts, "/never")).collect();
    server.signal(Signal::TERM);
    let lines = server.ends_with(1);
    assert!(lines.last().unwrap().contains("5 runs were cut off, 0 Contexts were not stopped"), "{lines:#?}");
    assert!(stuck.iter_mut().all(Connection::is_closed));
    assert_eq!(counts.of("dropped"), 5);
    counts.assert_complete();
}

#[test]
fn swaps_lose_no_run_and_leave_the_runtimes_of_two_generations() {
    let n_swaps: usize = std::env::var("EFFE_SWAPS").map_or(3, |text| text.parse().expect("a number"));
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let bytes = fs::read(async_probe()).unwrap();
    let path = scratch.join("swapped.so");
    fs::write(&path, &bytes).unwrap();
    let server = Loader::of(&path)
        .counting(&counts)
        .args(["--set", "runtime-threads=2"])
        .args(["--execution", "inline"])
        .serve();
    let hammer = Hammer::start(server.address, "/waits?3", 4);
    for n in 1..=n_swaps {
        let version = format!("async, v {n:6}!");
        let next = scratch.join("next.so");
        fs::write(&next, patched(&bytes, b"async, version 1", version.as_bytes())).unwrap();
        fs::rename(&next, &path).unwrap();
        server.signal(Signal::HUP);
        wait_until(&version, || server.get("/version").text() == version);
        // Enough for runs of this generation to be spawned in the end.
        hammer.wait_for(100);
        if n == 1 {
            wait_until("the runtimes of two generations", || threads(server.id(), "effe-lambda") == 4);
        }
    }
    let report = hammer.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.answers.len(), 1);
    // Of two threads each: the one that serves, and the one that a roll-back returns to, which is not retired.
    wait_until("as many threads as after one swap", || threads(server.id(), "effe-lambda") == 4);
    server.stop();
    assert_eq!(counts.of("stop"), counts.of("context"));
    assert_eq!((counts.of("init"), counts.of("retire")), (n_swaps + 1, n_swaps + 1));
    println!("{n_swaps} swaps: no run was lost, and two generations' threads were left");
}

#[test]
fn bodies_stream_both_ways_and_a_reader_that_leaves_ends_the_run() {
    let counts = Counts::new();
    // On the pool, where a busy machine may send it, a run may find that nobody reads before it is dropped.
    let server = loader(&counts).args(["--body-limit", "0", "--execution", "inline"]).serve();
    let mut connection = server.connect();
    assert_eq!(connection.get("/pieces?5").text(), "0\n1\n2\n3\n4\n");
    let large = vec![b'x'; 1 << 20];
    let reply = connection.post("/echo", &large);
    assert_eq!((reply.status, reply.text().len()), (200, large.len()));
    let mut endless = server.connect();
    endless.send("GET /pieces?1000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("run", 3);
    endless.reset();
    counts.wait_for("dropped", 1);
    counts.wait_for("stop", 1);
    let mut closes = server.connect();
    closes.send("GET /pieces?1000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("run", 4);
    drop(closes);
    counts.wait_for("dropped", 2);
    server.stop();
    counts.assert_complete();
}
