//! What goes wrong in a lambda stays with the one request it went wrong in, and its text with the operator.

use super::fixtures::{SOURCE, probe};
use crate::support::{Connection, Counts, Loader, Reply, load, plugins::crasher};

/// What a client is told of any failure of the lambda's.
const SENTENCE: &str = "the lambda failed\n";

#[track_caller]
fn assert_hidden(reply: &Reply) {
    assert_eq!((reply.status, reply.text()), (500, SENTENCE));
    let head = format!("{:?}", reply.headers);
    for secret in ["secret", "told to", "probe", "panic"] {
        assert!(!head.contains(secret), "nothing of the author's is in the head: {head}");
    }
}

#[test]
fn an_error_of_run_is_the_operators_and_the_client_gets_a_fixed_sentence() {
    let server = Loader::of(probe()).serve();
    assert_hidden(&server.get("/fail"));
    let line = server.wait_for_line("a secret of the author's");
    assert!(line.contains(" lambda: error: run: "), "{line}");
    assert!(line.contains(SOURCE), "with its place: {line}");
    assert!(line.ends_with(" method=GET path=/fail"), "with its request: {line}");
    server.stop();
}

#[test]
fn an_error_has_the_severity_that_its_author_chose() {
    let server = Loader::of(probe()).serve();
    for level in ["critical", "error", "warning", "notice", "info"] {
        assert_hidden(&server.get(&format!("/fail?level={level}")));
        server.wait_for_line(&format!(" lambda: {level}: run: a secret"));
    }
    server.stop();
}

#[test]
fn what_run_wrote_before_its_error_stands() {
    let server = Loader::of(probe()).serve();
    let reply = server.get("/fail-after");
    assert_eq!((reply.status, reply.text()), (201, "what was written stands"));
    server.wait_for_line("a secret of the author's");
    server.stop();
}

#[test]
fn a_panic_in_run_costs_its_context_and_nothing_else() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    let mut connection = server.connect();
    for path in ["/panic", "/panic-after", "/panic-with"] {
        let before = connection.get("/context").text().to_owned();
        assert_hidden(&connection.get(path));
        assert_ne!(connection.get("/context").text(), before, "its Context is not used again");
    }
    let line = server.wait_for_line("panicked at ");
    assert!(line.contains(" lambda: critical: "), "{line}");
    assert!(line.contains(SOURCE) && line.contains("a secret of the author's"), "{line}");
    server.stop();
    assert_eq!(counts.of("start"), 4);
    counts.assert_complete();
}

#[test]
fn a_thousand_panics_leave_nothing_behind() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    let mut connection = server.connect();
    for _ in 0..1_000 {
        assert_hidden(&connection.get("/panic"));
    }
    assert_eq!(connection.get("/").status, 200);
    server.stop();
    assert_eq!(counts.of("start"), 1_001);
    counts.assert_complete();
}

#[test]
fn a_panic_beside_others_is_theirs_to_ignore() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--workers", "2"]).serve();
    let address = server.address;
    std::thread::scope(|scope| {
        let panics = scope.spawn(|| {
            let mut connection = Connection::open(address);
            (0..200).for_each(|_| assert_hidden(&connection.get("/panic")));
        });
        assert_eq!(load(address, "/", 1_000, 8), 1_000);
        panics.join().unwrap();
    });
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_panic_in_init_is_no_refusal_but_a_failure_that_may_be_tried_again() {
    let counts = Counts::new();
    let done =
        Loader::of(probe()).counting(&counts).set("panic=init").args(["--port", "0"]).run().assert_code(1);
    assert!(done.stderr.contains("libprobe.so: its init panicked at "), "{done:#?}");
    assert!(done.stderr.contains("told to panic in init"), "{done:#?}");
    assert!(!done.stderr.contains("listening"), "{done:#?}");
    assert_eq!(counts.lines(), ["init"]);
}

#[test]
fn an_error_of_init_is_said_in_one_line() {
    let counts = Counts::new();
    let done =
        Loader::of(probe()).counting(&counts).set("fail=init").args(["--port", "0"]).run().assert_code(1);
    let line = done.one_line();
    assert!(
        line.starts_with("effe-loader: ") && line.contains("its init failed: told to fail in init"),
        "{line}"
    );
    assert_eq!(counts.lines(), ["init"]);
}

#[test]
fn a_panic_in_start_is_a_500_and_no_run() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).set("panic=start").serve();
    assert_hidden(&server.get("/"));
    let line = server.wait_for_line("told to panic in start");
    assert!(line.contains(" lambda: critical: "), "{line}");
    server.stop();
    assert_eq!((counts.of("run"), counts.of("stop")), (0, 0));
    counts.assert_complete();
}

#[test]
fn a_failed_start_is_handed_to_run_which_answers() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).set("fail=start").serve();
    let reply = server.get("/why");
    assert_eq!(reply.status, 200);
    assert!(reply.text().starts_with("failed: told to fail in start ("), "{}", reply.text());
    assert_hidden(&server.get("/"));
    server.stop();
    assert_eq!((counts.of("run"), counts.of("stop")), (2, 0));
    counts.assert_complete();
}

#[test]
fn a_context_that_came_with_the_error_is_lent_to_one_run_and_stopped() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).set("fail=start").set("fail-with-context=yes").serve();
    assert_eq!(counts.of("start"), counts.of("stop"), "the first one is stopped before readiness");
    let mut connection = server.connect();
    let first = connection.get("/why").text().to_owned();
    assert!(first.starts_with("failed with "), "{first}");
    assert_ne!(connection.get("/why").text(), first, "it is never used again");
    assert_hidden(&connection.get("/"));
    server.stop();
    assert!(counts.of("stop") >= 4);
    counts.assert_complete();
}

#[test]
fn a_failed_first_start_is_tried_again_each_second_until_it_succeeds() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).set("fail=start").set("fail-times=2").serve();
    server.wait_for_line("told to fail in start");
    // No request comes; the third Start is the loader's own.
    counts.wait_for("context", 1);
    assert_eq!(server.get("/context").text(), "3");
    server.stop();
    assert_eq!((counts.of("start"), counts.of("stop")), (3, 1));
    counts.assert_complete();
}

#[test]
fn a_panic_in_stop_is_logged_and_the_end_goes_on() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).set("panic=stop").serve();
    assert_hidden(&server.get("/panic"));
    counts.wait_for("stop", 1);
    assert_eq!(server.get("/").status, 200);
    let lines = server.stop();
    assert_eq!(lines.iter().filter(|line| line.contains("told to panic in stop")).count(), 2, "{lines:#?}");
    counts.assert_complete();
}

#[test]
fn an_error_of_stop_or_retire_is_logged_and_the_end_goes_on() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).set("fail=stop,retire").serve();
    assert_eq!(server.get("/").status, 200);
    let lines = server.stop();
    for text in ["told to fail in stop", "told to fail in retire"] {
        assert_eq!(lines.iter().filter(|line| line.contains(text)).count(), 1, "{lines:#?}");
    }
    counts.assert_complete();
}

#[test]
fn a_panic_in_retire_is_logged_and_the_end_goes_on() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).set("panic=retire").serve();
    let lines = server.stop();
    assert!(lines.iter().any(|line| line.contains("told to panic in retire")), "{lines:#?}");
    counts.assert_complete();
}

#[test]
fn answers_that_are_no_http_are_not_sent() {
    let server = Loader::of(probe()).serve();
    let mut connection = server.connect();
    for path in [
        "/status?code=99",
        "/status?code=100",
        "/status?code=600",
        "/status?code=1000",
        "/header?name=x&value=a%0D%0Aset-cookie:%20b",
        "/header?name=x%20y&value=a",
        "/header?name=&value=a",
    ] {
        assert_hidden(&connection.get(path));
    }
    server.stop();
}

#[test]
fn an_answer_past_the_response_limit_is_a_500() {
    let server = Loader::of(probe()).args(["--response-limit", "64KiB"]).serve();
    let mut connection = server.connect();
    assert_eq!(connection.get("/large?bytes=65536").body.len(), 65_536);
    assert_hidden(&connection.get("/large?bytes=65537"));
    assert_eq!(connection.get("/").status, 200);
    server.stop();
}

#[test]
fn a_lambda_that_calls_exit_ends_the_effe_in_one_line_and_not_as_if_all_were_well() {
    for execution in ["inline", "pool"] {
        let server = Loader::of(crasher()).args(["--execution", execution]).serve();
        let _ = server.connect().send("GET /crash/exit HTTP/1.1\r\nHost: x\r\n\r\n").try_reply(false);
        let lines = server.ends_with(1);
        let said: Vec<_> =
            lines.iter().filter(|line| line.contains("exit") || line.contains("died")).collect();
        assert!(matches!(&said[..], [line] if line.contains("the lambda has called exit; ")), "{lines:#?}");
    }
}
