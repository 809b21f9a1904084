//! Past a limit a client gets a status in time, and nothing is lost: no request unanswered, no Context unstopped.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{Connection, Counts, LONG, Loader, Reply, Scratch, Server, plugins::probe, wait_until};

/// Requests that wait in Run, or for a thread, until the gate opens.
struct Crowd {
    gate: Scratch,
    waiting: Vec<Connection>,
}

impl Crowd {
    fn new() -> Crowd {
        Crowd { gate: Scratch::new(), waiting: Vec::new() }
    }

    fn send(&mut self, server: &Server) {
        let mut connection = server.connect();
        let gate = self.gate.join("gate");
        connection.send(format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
        self.waiting.push(connection);
    }

    /// Lets all go; their answers.
    fn open(self) -> Vec<Reply> {
        self.gate.write("gate", "");
        self.waiting.into_iter().map(|mut connection| connection.reply()).collect()
    }
}

fn assert_turned_away(reply: &Reply) {
    assert_eq!((reply.status, reply.text()), (503, "too many requests at once; try again\n"));
    let seconds: u64 = reply.text_header("retry-after").expect("it says when").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[test]
fn past_the_queue_a_request_is_turned_away_at_once_and_all_others_are_answered() {
    let counts = Counts::new();
    let server = Loader::of(probe())
        .counting(&counts)
        .args(["--max-concurrency", "2", "--queue", "3", "--queue-timeout", "0"])
        .serve();
    let scratch = Scratch::new();
    let request = format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", scratch.join("gate").display());
    let (answered, answers) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| _ = answered.send(server.connect().send(&request).reply()));
        }
        // Two run, three wait; which of them is chance.
        for _ in 0..15 {
            assert_turned_away(
                &answers.recv_timeout(LONG / 4).expect("it doesn't wait for its queue timeout"),
            );
        }
        counts.wait_for("run", 2);
        assert_eq!(counts.of("run"), 2, "the lambda never heard of the others");
        scratch.write("gate", "");
        for _ in 0..5 {
            assert_eq!(answers.recv_timeout(LONG).unwrap().status, 200);
        }
    });
    assert_eq!(server.get("/").status, 200, "there is room again");
    server.stop();
    assert_eq!((counts.of("run"), counts.of("start")), (6, 2));
    counts.assert_complete();
}

#[test]
fn a_request_that_no_thread_takes_up_in_time_is_turned_away_and_never_runs() {
    let counts = Counts::new();
    let limits = ["--max-concurrency", "1", "--queue-timeout", "100ms"];
    let server = Loader::of(probe()).counting(&counts).args(limits).serve();
    let mut crowd = Crowd::new();
    crowd.send(&server);
    counts.wait_for("run", 1);
    let mut queued: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
    for connection in &mut queued {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    for connection in &mut queued {
        assert_turned_away(&connection.reply());
    }
    assert_eq!(crowd.open()[0].status, 200);
    assert_eq!(queued[0].get("/").status, 200, "the connection can be used again");
    server.stop();
    assert_eq!(counts.of("run"), 2);
    counts.assert_complete();
}

#[test]
fn retry_after_grows_with_the_queue_and_the_time_that_runs_take() {
    // One worker takes what comes in the order in which it came: the crowd fills the queue before anybody asks.
    let limits = ["--workers", "1", "--max-concurrency", "1", "--queue", "30", "--execution", "pool"];
    let server = Loader::of(probe()).args(limits).serve();
    // One run of half a second makes the average.
    assert_eq!(server.get("/linger?ms=500").status, 200);
    let mut crowd = Crowd::new();
    for _ in 0..40 {
        crowd.send(&server);
    }
    let mut last = 0;
    wait_until("a queue that takes many seconds", || {
        let reply = server.get("/");
        assert_turned_away(&reply);
        last = reply.text_header("retry-after").unwrap().parse().unwrap();
        last >= 10
    });
    assert!(last <= 20, "30 that wait half a second each take 15 seconds, not {last}");
    let replies = crowd.open();
    assert!(replies.iter().all(|reply| [200, 503].contains(&reply.status)));
    assert!(replies.iter().filter(|reply| reply.status == 200).count() > 20, "those that were let in");
    server.stop();
}

#[test]
fn a_run_that_takes_too_long_is_a_504_and_its_context_is_stopped_when_it_ends() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--run-timeout", "500ms"]).serve();
    let mut crowd = Crowd::new();
    crowd.send(&server);
    let since = Instant::now();
    let reply = crowd.waiting[0].reply();
    assert!(since.elapsed() >= Duration::from_millis(500));
    assert_eq!((reply.status, reply.text()), (504, "the lambda took too long\n"));
    let line = server.wait_for_line("a run takes longer than --run-timeout");
    assert!(line.contains("1 threads are lost") && line.contains("/wait"), "{line}");
    assert_eq!(counts.of("stop"), 0, "it still runs");
    assert_eq!(crowd.waiting[0].get("/").status, 200, "others are served, on the same connection too");
    crowd.gate.write("gate", "");
    counts.wait_for("stop", 1);
    server.stop();
    assert_eq!((counts.of("context"), counts.of("stop")), (2, 2));
    counts.assert_complete();
}

#[test]
fn a_run_sees_its_deadline_pass() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--run-timeout", "500ms"]).serve();
    let since = Instant::now();
    // It ends as soon as it sees that: in time for an answer of its own, or just too late.
    let status = server.get("/cancelled").status;
    assert!([200, 504].contains(&status), "{status}");
    assert!(since.elapsed() >= Duration::from_millis(500));
    counts.wait_for("cancelled", 1);
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_run_that_gives_up_at_its_deadline_is_a_504_too() {
    let server = Loader::of(probe()).args(["--run-timeout", "200ms"]).serve();
    for _ in 0..3 {
        assert_eq!(server.get("/cancelled?fail=1").status, 504);
    }
    server.stop();
}

#[test]
fn past_max_lost_threads_the_operator_is_told() {
    let counts = Counts::new();
    let limits = ["--run-timeout", "500ms", "--max-lost-threads", "2"];
    let server = Loader::of(probe()).counting(&counts).args(limits).serve();
    let mut crowd = Crowd::new();
    for n in 1..=3 {
        crowd.send(&server);
        assert_eq!(crowd.waiting[n - 1].reply().status, 504);
        server.wait_for_line(&format!("{n} threads are lost to such runs"));
        assert_eq!(server.lines().iter().any(|line| line.contains("no longer ready")), n == 3);
    }
    crowd.gate.write("gate", "");
    counts.wait_for("stop", 3);
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_run_that_hangs_on_a_servers_thread_ends_the_effe_once_the_others_are_answered() {
    let counts = Counts::new();
    let flags =
        ["--execution", "inline", "--workers", "2", "--run-timeout", "200ms", "--drain-timeout", "500ms"];
    let server = Loader::of(probe()).counting(&counts).args(flags).serve();
    // The server deals connections out in turn.
    let mut connections = [server.connect(), server.connect()];
    assert!(connections.iter_mut().all(|connection| connection.get("/").status == 200));
    connections[0].send("GET /never HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("run", 3);
    let mut n_answered = 0;
    // Those of the other thread are served to the end.
    while connections[1].try_send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").is_ok() {
        let Ok(reply) = connections[1].try_reply(false) else { break };
        assert_eq!(reply.status, 200);
        n_answered += 1;
    }
    assert!(n_answered > 0);
    assert!(connections[0].try_reply(false).is_err(), "nobody can answer it");
    let lines = server.ends_with(1);
    assert!(lines.iter().any(|line| line.contains("GET /never has been running for")), "{lines:#?}");
    assert!(lines.last().unwrap().contains("1 Contexts were not stopped"), "{lines:#?}");
    assert_eq!((counts.of("stop"), counts.of("retire")), (counts.of("context") - 1, 0));
}

#[test]
fn lost_threads_do_not_keep_an_effe_from_its_end() {
    let counts = Counts::new();
    let limits = ["--run-timeout", "500ms", "--drain-timeout", "200ms"];
    let server = Loader::of(probe()).counting(&counts).args(limits).serve();
    assert_eq!(server.get("/never").status, 504);
    server.signal(Signal::TERM);
    let lines = server.ends_with(1);
    assert!(lines.last().unwrap().contains("1 Contexts were not stopped"), "{lines:#?}");
    assert_eq!(counts.of("stop"), 0);
}

#[test]
fn clients_do_not_pay_for_the_time_in_which_their_thread_could_not_look() {
    let flags = ["--execution", "inline", "--workers", "1", "--read-timeout", "1s", "--keep-alive", "1s"];
    let server = Loader::of(probe()).args(flags).serve();
    let mut busy = server.connect();
    let mut half = server.connect();
    assert_eq!((busy.get("/").status, half.get("/").status), (200, 200));
    busy.send("GET /linger?ms=2500 HTTP/1.1\r\nHost: test\r\n\r\n");
    half.send("GET / HTTP/1.1\r\nHost:");
    let mut new = server.connect();
    let mut begun = server.connect();
    begun.send("GET / HTTP/1.1\r\nHost:");
    assert_eq!(busy.reply().status, 200);
    // The thread looks at its connections as soon as it can.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(300) {
        assert_eq!(busy.get("/").status, 200);
    }
    assert_eq!(new.get("/").status, 200, "a connection that was opened meanwhile");
    assert_eq!(begun.send(" test\r\n\r\n").reply().status, 200, "half a head that came meanwhile");
    assert_eq!(half.send(" test\r\n\r\n").reply().status, 200, "on a connection from before");
    server.stop();
}

#[test]
fn a_connection_that_idles_for_too_long_is_closed_and_no_other() {
    let server = Loader::of(probe()).args(["--keep-alive", "1s", "--execution", "pool"]).serve();
    let (mut idle, mut busy, mut late) = (server.connect(), server.connect(), server.connect());
    assert_eq!(idle.get("/").status, 200);
    let since = Instant::now();
    thread::scope(|scope| {
        let closed = scope.spawn(|| {
            assert!(idle.is_closed());
            since.elapsed()
        });
        while !closed.is_finished() {
            assert_eq!(busy.get("/linger?ms=50").status, 200);
        }
        let closed = closed.join().unwrap();
        assert!(closed >= Duration::from_secs(1), "{closed:?}");
    });
    assert_eq!(late.get("/linger?ms=1500").status, 200, "a run is no idling");
    assert_eq!(late.get("/").status, 200, "nor is the moment after it");
    server.stop();
}
