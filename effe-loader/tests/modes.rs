//! Inline, on the pool, or as measured: the same life cycle, also while the decision changes under load.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{Connection, Counts, Hammer, LONG, Loader, Server, load, plugins::probe};

const MODES: [&str; 3] = ["inline", "pool", "auto"];
const TO_INLINE: &str = "short runs in a row: running on the server's threads";
const TO_POOL: &str = "on a server's thread: running on the pool";

/// How often the decision must change under load; `EFFE_FLIPS` in the long proofs.
fn flips() -> usize {
    std::env::var("EFFE_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

fn n_lines(server: &Server, part: &str) -> usize {
    server.lines().iter().filter(|line| line.contains(part)).count()
}

#[test]
fn in_every_mode_each_context_is_stopped_once_and_each_request_answered() {
    for mode in MODES {
        let counts = Counts::new();
        let flags = ["--execution", mode, "--workers", "2", "--max-idle", "4", "--idle-timeout", "200ms"];
        let server = Loader::of(probe()).counting(&counts).args(flags).serve();
        let address = server.address;
        thread::scope(|scope| {
            let good = scope.spawn(move || load(address, "/", 2_000, 64));
            scope.spawn(move || {
                // Beside them: errors, panics, clients that leave at any moment.
                let mut connection = Connection::open(address);
                for n in 0..50 {
                    assert_eq!(connection.get("/fail").status, 500, "{mode}");
                    assert_eq!(connection.get("/panic").status, 500, "{mode}");
                    let mut leaving = Connection::open(address);
                    let request = "POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nabcde";
                    leaving.send(&request[..request.len() - n % 12]);
                    leaving.reset();
                }
            });
            assert_eq!(good.join().unwrap(), 2_000, "{mode}");
        });
        server.stop();
        assert!(counts.of("context") >= 50, "a panic costs its Context");
        counts.assert_complete();
    }
}

#[test]
fn a_lambda_that_never_waits_comes_to_run_inline() {
    let server = Loader::of(probe()).serve();
    let hammer = Hammer::start(server.address, "/", 4);
    server.wait_for_line(TO_INLINE);
    let report = hammer.stop();
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(n_lines(&server, TO_POOL), 0);
    server.stop();
}

#[test]
fn a_lambda_that_waits_stays_on_the_pool_and_hurts_nobody() {
    let server = Loader::of(probe()).args(["--workers", "1"]).serve();
    let hammer = Hammer::start(server.address, "/linger?ms=20", 8);
    hammer.wait_for(200);
    // On the one thread of the server each would wait for all eight.
    let begun = Instant::now();
    hammer.wait_for(80);
    assert!(begun.elapsed() < Duration::from_millis(20 * 80), "{:?}", begun.elapsed());
    assert!(hammer.stop().failures.is_empty());
    assert_eq!(n_lines(&server, TO_INLINE), 0);
    server.stop();
}

#[test]
fn whatever_comes_after_an_overstay_has_begun_goes_to_the_pool() {
    let server = Loader::of(probe()).args(["--workers", "2"]).serve();
    let hammer = Hammer::start(server.address, "/", 4);
    server.wait_for_line(TO_INLINE);
    assert!(hammer.stop().failures.is_empty());
    // The server deals connections out in turn.
    let mut connections = [server.connect(), server.connect()];
    connections[0].send("GET /linger?ms=1000 HTTP/1.1\r\nHost: test\r\n\r\n");
    server.wait_for_line(TO_POOL);
    let begun = Instant::now();
    let answered = connections[1].get("/linger?ms=1");
    assert_eq!(answered.status, 200);
    assert!(begun.elapsed() < Duration::from_millis(900), "it did not wait for the one that overstays");
    assert_eq!(connections[0].reply().status, 200);
    server.stop();
}

#[test]
fn while_the_decision_changes_under_load_no_request_and_no_stop_is_lost() {
    let counts = Counts::new();
    let flags = ["--workers", "2", "--max-idle", "3", "--idle-timeout", "100ms"];
    // Runs are too many to be counted in a file.
    let server = Loader::of(probe()).counting(&counts).set("uncounted=run").args(flags).serve();
    let hammer = Hammer::start(server.address, "/", 6);
    let begun = Instant::now();
    for n in 1..=flips() {
        while n_lines(&server, TO_INLINE) < n {
            assert!(begun.elapsed() < LONG * (n as u32), "it never came to run inline again");
            thread::sleep(Duration::from_millis(5));
        }
        // A new one each time: until it runs inline again, a connection may have idled for too long.
        let mut connection = server.connect();
        while n_lines(&server, TO_POOL) < n {
            assert_eq!(connection.get("/linger?ms=3").status, 200);
            assert_eq!(connection.get("/panic").status, 500);
        }
    }
    let report = hammer.stop();
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    server.stop();
    counts.assert_complete();
}
