//! Init once, Start when there is no idle Context, Stop exactly once for each Context, Retire last.

use super::fixtures::probe;
use crate::support::{Connection, Counts, Loader, Scratch, Server, load};

/// Sends requests that wait in Run, until all of them are there; then lets them go.
fn at_once(server: &Server, counts: &Counts, n: usize) {
    let scratch = Scratch::new();
    let (gate, before) = (scratch.join("gate"), counts.of("run"));
    let mut waiting: Vec<Connection> = (0..n).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
    }
    counts.wait_for("run", before + n);
    scratch.write("gate", "");
    for connection in &mut waiting {
        assert_eq!(connection.reply().status, 200);
    }
}

#[test]
fn init_runs_once_however_many_requests_come() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--workers", "2"]).serve();
    assert_eq!(load(server.address, "/", 2_000, 64), 2_000);
    server.stop();
    assert_eq!(counts.of("run"), 2_000);
    counts.assert_complete();
}

#[test]
fn a_thousand_requests_one_after_the_other_meet_one_context() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    let mut connection = server.connect();
    for _ in 0..1_000 {
        assert_eq!(connection.get("/context").text(), "1");
    }
    server.stop();
    assert_eq!((counts.of("start"), counts.of("run"), counts.of("stop")), (1, 1_000, 1));
    counts.assert_complete();
}

#[test]
fn a_context_is_started_before_the_first_request() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    assert_eq!(counts.lines(), ["init", "start", "context"]);
    server.stop();
    assert_eq!(counts.lines(), ["init", "start", "context", "stop", "retire"]);
}

#[test]
fn requests_at_the_same_time_get_a_context_each_and_each_is_stopped() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    at_once(&server, &counts, 8);
    assert_eq!(counts.of("start"), 8);
    assert_eq!(counts.of("stop"), 0, "all are kept");
    at_once(&server, &counts, 8);
    assert_eq!(counts.of("start"), 8, "and used again");
    server.stop();
    counts.assert_complete();
}

#[test]
fn contexts_past_max_idle_are_stopped_at_once() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--max-idle", "2"]).serve();
    at_once(&server, &counts, 6);
    counts.wait_for("stop", 4);
    assert_eq!(load(server.address, "/", 20, 1), 20);
    assert_eq!((counts.of("start"), counts.of("stop")), (6, 4), "two are kept");
    server.stop();
    counts.assert_complete();
}

#[test]
fn with_max_idle_zero_every_request_has_a_context_of_its_own() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--max-idle", "0"]).serve();
    assert_eq!(load(server.address, "/", 10, 1), 10);
    counts.wait_for("stop", 11);
    server.stop();
    assert_eq!(counts.of("start"), 11, "the one before readiness included");
    counts.assert_complete();
}

#[test]
fn contexts_that_nobody_needs_are_stopped_after_the_idle_timeout() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--idle-timeout", "100ms"]).serve();
    at_once(&server, &counts, 5);
    counts.wait_for("stop", 5);
    assert_eq!(server.get("/").status, 200, "the next request starts another one");
    server.stop();
    assert_eq!(counts.of("start"), 6);
    counts.assert_complete();
}

#[test]
fn without_an_idle_timeout_contexts_stay() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--idle-timeout", "0"]).serve();
    at_once(&server, &counts, 3);
    server.stop();
    let lines = counts.lines();
    assert_eq!(&lines[lines.len() - 4..], ["stop", "stop", "stop", "retire"]);
    counts.assert_complete();
}

#[test]
fn a_context_whose_client_left_is_used_again_and_stopped_once() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    let scratch = Scratch::new();
    let gate = scratch.join("gate");
    let mut leaving: Vec<Connection> = (0..5).map(|_| server.connect()).collect();
    for connection in &mut leaving {
        connection.send(format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
    }
    counts.wait_for("run", 5);
    drop(leaving);
    assert_eq!(server.get("/").status, 200, "others don't notice");
    scratch.write("gate", "");
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_run_learns_that_its_client_has_left() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    let mut connection = server.connect();
    connection.send("GET /cancelled HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("run", 1);
    connection.reset();
    counts.wait_for("cancelled", 1);
    server.stop();
    counts.assert_complete();
}

#[test]
fn clients_that_leave_in_the_middle_of_everything_cost_no_stop() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--workers", "2"]).serve();
    for n in 0..200 {
        let mut connection = server.connect();
        let request = "POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nabcde";
        connection.send(&request[..n % (request.len() + 1)]);
        match n % 2 {
            0 => connection.reset(),
            _ => drop(connection),
        }
    }
    assert_eq!(load(server.address, "/", 100, 4), 100);
    server.stop();
    counts.assert_complete();
}

#[test]
fn two_loaders_serve_one_plugin_at_the_same_time() {
    let counts = [Counts::new(), Counts::new()];
    let servers = [&counts[0], &counts[1]].map(|counts| Loader::of(probe()).counting(counts).serve());
    for server in &servers {
        assert_eq!(load(server.address, "/context", 50, 1), 50);
    }
    servers.into_iter().for_each(|server| _ = server.stop());
    for counts in counts {
        assert_eq!((counts.of("start"), counts.of("run")), (1, 50));
        counts.assert_complete();
    }
}

#[test]
fn what_is_sent_to_two_workers_shares_its_contexts() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--workers", "2"]).serve();
    // The server deals connections out in turn, so these two are on different threads of it.
    let mut connections = [server.connect(), server.connect()];
    for n in 0..200 {
        assert_eq!(connections[n % 2].get("/context").text(), "1");
    }
    server.stop();
    counts.assert_complete();
}
