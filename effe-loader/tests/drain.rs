//! Told to stop, the loader finishes what runs, stops every Context, and ends in time, whatever hangs.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::fixtures::probe;
use crate::support::{Connection, Counts, Hammer, Loader, Scratch};

/// Far less than the drain timeout that it is compared with, far more than the end of a loader takes.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn a_request_that_runs_is_finished() {
    for signal in [Signal::TERM, Signal::INT] {
        let (counts, scratch) = (Counts::new(), Scratch::new());
        let server = Loader::of(probe()).counting(&counts).serve();
        let gate = scratch.join("gate");
        let mut waiting = server.begin(&counts, &format!("/wait?for={}", gate.display()));
        server.signal(signal);
        server.wait_for_line("finishing what runs, for at most 30s");
        scratch.write("gate", "");
        let reply = waiting.reply();
        assert_eq!((reply.status, reply.text()), (200, "waited"));
        assert_eq!(reply.text_header("connection"), Some("close"));
        assert!(waiting.is_closed());
        server.ends_with(0);
        counts.assert_complete();
    }
}

#[test]
fn a_run_that_never_ends_is_abandoned_at_the_drain_timeout_and_that_is_said() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--drain-timeout", "300ms"]).serve();
    let mut stuck = [server.begin(&counts, "/never"), server.begin(&counts, "/never")];
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::TERM);
    let lines = server.ends_with(1);
    let last = lines.last().unwrap();
    assert!(last.contains("2 runs were cut off, 2 Contexts were not stopped"), "{lines:#?}");
    assert!(stuck.iter_mut().all(Connection::is_closed));
    assert_eq!((counts.of("context"), counts.of("stop"), counts.of("retire")), (3, 1, 0));
}

#[test]
fn a_second_signal_leaves_at_once() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    let _stuck = server.begin(&counts, "/never");
    server.signal(Signal::TERM);
    server.wait_for_line("SIGTERM: finishing what runs");
    let since = Instant::now();
    server.signal(Signal::INT);
    let lines = server.ends_with(1);
    assert!(since.elapsed() < SOON);
    assert!(
        lines.last().unwrap().contains("SIGINT again: leaving at once; 1 Contexts were not stopped"),
        "{lines:#?}"
    );
    assert_eq!(counts.of("stop"), 0);
}

#[test]
fn idle_connections_do_not_hold_the_end_up() {
    let server = Loader::of(probe()).args(["--drain-timeout", "60s"]).serve();
    let mut idle: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut idle[..10] {
        assert_eq!(connection.get("/").status, 200);
    }
    let since = Instant::now();
    server.stop();
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert!(idle.iter_mut().all(Connection::is_closed));
}

#[test]
fn half_a_request_does_not_hold_the_end_up_for_longer_than_the_drain_timeout() {
    let server = Loader::of(probe()).args(["--drain-timeout", "500ms"]).serve();
    let mut half = server.connect();
    half.send("POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc");
    let mut head = server.connect();
    head.send("GET / HT");
    assert_eq!(server.get("/").status, 200);
    let since = Instant::now();
    server.stop();
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

/// Stops a loader that 64 clients hammer at.
fn stop_under_load(delay: &str, hammer: fn(SocketAddr, &str, usize) -> Hammer) {
    let counts = Counts::new();
    let server =
        Loader::of(probe()).counting(&counts).args(["--workers", "2", "--drain-delay", delay]).serve();
    let hammer = hammer(server.address, "/large?bytes=20000", 64);
    hammer.wait_for(500);
    server.signal(Signal::TERM);
    server.ends_with(0);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.answers.into_keys().map(|text| text.len()).collect::<Vec<_>>(), [20_000]);
    counts.assert_complete();
}

#[test]
fn under_load_no_request_of_a_kept_alive_connection_is_lost() {
    stop_under_load("0s", Hammer::start);
    stop_under_load("300ms", Hammer::start);
}

#[test]
fn under_load_no_request_of_a_new_connection_is_lost() {
    stop_under_load("0s", Hammer::over_new_connections);
    stop_under_load("300ms", Hammer::over_new_connections);
}

#[test]
fn a_stop_or_retire_that_hangs_is_given_up_after_the_drain_timeout() {
    for step in ["stop", "retire"] {
        let counts = Counts::new();
        let loader = Loader::of(probe()).counting(&counts).set(&format!("hang={step}"));
        let server = loader.args(["--drain-timeout", "100ms"]).serve();
        let since = Instant::now();
        server.signal(Signal::TERM);
        let lines = server.ends_with(1);
        assert!(since.elapsed() < SOON);
        assert!(lines.last().unwrap().contains("the time to stop is over"), "{lines:#?}");
    }
}

#[test]
fn an_init_that_hangs_can_be_ended() {
    let counts = Counts::new();
    let loader =
        Loader::of(probe()).counting(&counts).set("hang=init").args(["--host", "127.0.0.1", "--port", "0"]);
    let server = loader.args(["--drain-timeout", "100ms"]).start();
    counts.wait_for("init", 1);
    server.signal(Signal::TERM);
    server.ends_with(1);
    assert_eq!(counts.lines(), ["init"]);
}

#[test]
fn a_signal_before_any_request_is_an_order_too() {
    let counts = Counts::new();
    let lines = Loader::of(probe()).counting(&counts).serve().stop();
    assert!(lines.last().unwrap().contains("stopped; 1 Contexts were started and stopped"), "{lines:#?}");
    counts.assert_complete();
}

#[test]
fn after_sigterm_connections_are_taken_for_the_drain_delay_and_after_sigint_they_are_not() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--drain-delay", "2s"]).serve();
    server.signal(Signal::TERM);
    server.wait_for_line("SIGTERM: finishing what runs");
    crate::support::wait_until("answers announce the end", || {
        let reply = server.get("/");
        assert_eq!(reply.status, 200, "served all the same");
        reply.text_header("connection") == Some("close")
    });
    server.ends_with(0);
    counts.assert_complete();
    let server = Loader::of(probe()).args(["--drain-delay", "60s"]).serve();
    let since = Instant::now();
    server.signal(Signal::INT);
    server.ends_with(0);
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

#[test]
fn a_new_connection_is_not_left_waiting_while_the_loader_stops() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let server = Loader::of(probe()).counting(&counts).serve();
    let gate = scratch.join("gate");
    let mut waiting = server.begin(&counts, &format!("/wait?for={}", gate.display()));
    server.signal(Signal::TERM);
    server.wait_for_line("finishing what runs");
    crate::support::wait_until("connections are refused", || {
        std::net::TcpStream::connect(server.address).is_err()
    });
    scratch.write("gate", "");
    assert_eq!(waiting.reply().status, 200);
    server.ends_with(0);
}
