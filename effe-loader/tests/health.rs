//! Whether the loader lives and wants requests, as orchestrators ask it.

use rustix::process::Signal;

use crate::support::{Counts, LONG, Loader, Scratch, Server, plugins::probe, wait_until};

/// The well-known paths, liveness and readiness.
const PATHS: [(&str, &str); 2] = [("/health/liveness", "/health/readiness"), ("/_/health", "/_/ready")];

fn loader() -> Loader {
    Loader::of(probe()).args(["--admin", "127.0.0.1:0"])
}

/// Sends a request whose Run never ends, and returns once it runs.
fn hang(server: &Server, counts: &Counts) -> crate::support::Connection {
    let before = counts.of("run");
    let mut connection = server.connect();
    connection.send("GET /never HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("run", before + 1);
    connection
}

#[test]
fn a_loader_that_serves_is_alive_and_ready_under_every_well_known_path() {
    let server = loader().arg("--probes").serve();
    for (liveness, readiness) in PATHS {
        for path in [liveness, readiness] {
            for reply in [server.ask(path), server.get(path)] {
                assert_eq!((reply.status, reply.text()), (200, "ok\n"), "{path}");
            }
        }
    }
    server.stop();
}

#[test]
fn without_probes_every_path_is_the_lambdas_and_with_them_no_other() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    for path in ["/health/liveness", "/health/readiness", "/_/health", "/_/ready"] {
        assert_eq!(server.get(path).text(), "ok", "the lambda's own answer");
    }
    assert_eq!(counts.of("run"), 4);
    server.stop();
    let counts = Counts::new();
    let server = Loader::of(probe()).arg("--probes").counting(&counts).serve();
    for path in ["/health", "/health/", "/health/liveness/x", "/_/", "/"] {
        assert_eq!(server.get(path).text(), "ok", "{path}");
    }
    assert_eq!(server.get("/health/readiness?verbose=1").text(), "ok\n", "a query doesn't matter");
    assert_eq!(counts.of("run"), 5, "a probe is no request");
    server.stop();
}

#[test]
fn a_loader_is_ready_once_a_first_start_has_succeeded() {
    let counts = Counts::new();
    let loader = loader().arg("--probes").counting(&counts).set("fail=start").set("fail-times=2");
    let server = loader.serve();
    let first = server.readiness();
    if counts.of("context") == 0 {
        assert_eq!(first, (503, "not ready: starting: no Start has succeeded yet\n".to_owned()));
    }
    assert_eq!(server.ask("/health/liveness").status, 200);
    wait_until("a Start succeeds", || server.readiness().0 == 200);
    assert!(counts.of("start") >= 3, "the first Start is tried again");
    assert_eq!(server.get("/health/readiness").status, 200);
    server.stop();
}

#[test]
fn a_loader_in_init_lives_and_is_not_ready() {
    let counts = Counts::new();
    let loader = loader().counting(&counts).set("hang=init").args(["--drain-timeout", "100ms"]);
    let server = loader.args(["--host", "127.0.0.1", "--port", "0"]).start();
    counts.wait_for("init", 1);
    assert_eq!(server.ask("/health/liveness").status, 200);
    assert_eq!(server.readiness().0, 503);
    assert_eq!(server.state()["state"], "starting");
    server.signal(Signal::TERM);
    server.ends_with(1);
}

#[test]
fn a_loader_that_drains_is_not_ready_and_says_so_on_both_ports() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let server = loader().arg("--probes").counting(&counts).args(["--drain-delay", "60s"]).serve();
    let gate = scratch.join("gate");
    let mut waiting = server.connect();
    waiting.send(format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
    counts.wait_for("run", 1);
    server.signal(Signal::TERM);
    wait_until("it drains", || server.readiness() == (503, "not ready: draining\n".to_owned()));
    let reply = server.get("/health/readiness");
    assert_eq!((reply.status, reply.text()), (503, "not ready\n"));
    assert_eq!(reply.text_header("connection"), Some("close"));
    assert_eq!(server.get("/health/liveness").status, 200);
    assert_eq!(server.state()["state"], "draining");
    scratch.write("gate", "");
    assert_eq!(waiting.reply().status, 200);
    server.signal(Signal::TERM);
    server.ends_with(1);
}

#[test]
fn probes_are_answered_while_every_run_hangs() {
    let counts = Counts::new();
    let loader =
        loader().arg("--probes").counting(&counts).args(["--max-concurrency", "1", "--workers", "1"]);
    let server = loader.args(["--drain-timeout", "100ms"]).serve();
    let _stuck = hang(&server, &counts);
    for path in ["/health/liveness", "/health/readiness"] {
        assert_eq!(server.get(path).status, 200);
        assert_eq!(server.ask(path).status, 200);
    }
    assert_eq!(server.state()["running"], 1);
    server.signal(Signal::TERM);
    server.ends_with(1);
}

#[test]
fn the_admin_listener_answers_while_every_thread_of_the_server_hangs() {
    let counts = Counts::new();
    let loader = loader().counting(&counts).args(["--execution", "inline", "--workers", "1"]);
    let server = loader.args(["--drain-timeout", "100ms"]).serve();
    let _stuck = hang(&server, &counts);
    assert_eq!(server.ask("/health/liveness").status, 200);
    assert_eq!(server.readiness().0, 200);
    server.signal(Signal::TERM);
    wait_until("it drains", || server.readiness().1.contains("draining"));
    server.ends_with(1);
}

#[test]
fn threads_lost_past_the_limit_make_it_unready() {
    let counts = Counts::new();
    let limits = ["--run-timeout", "50ms", "--max-lost-threads", "1", "--drain-timeout", "100ms"];
    let server = loader().counting(&counts).args(limits).serve();
    assert_eq!(server.get("/never").status, 504);
    assert_eq!((server.readiness().0, &server.state()["lost_threads"]), (200, &1.into()));
    assert_eq!(server.get("/never").status, 504);
    let (status, text) = server.readiness();
    assert_eq!((status, text.as_str()), (503, "not ready: 2 threads are lost to runs past --run-timeout\n"));
    server.signal(Signal::TERM);
    server.ends_with(1);
}

#[test]
fn a_lambda_has_its_own_word_and_its_reasons_are_the_operators() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let gate = scratch.join("gate");
    let loader = loader().arg("--probes").counting(&counts);
    let server = loader.set(&format!("ready-if={}", gate.display())).serve();
    let (status, text) = server.readiness();
    assert_eq!(status, 503);
    assert!(
        text.contains("the lambda is not ready: ") && text.contains("a secret of the author's"),
        "{text}"
    );
    let reply = server.get("/health/readiness");
    assert_eq!((reply.status, reply.text()), (503, "not ready\n"));
    assert_eq!(server.ask("/health/liveness").status, 200);
    assert_eq!(server.get("/").status, 200, "who asks all the same is answered");
    scratch.write("gate", "");
    wait_until("the lambda is asked again", || server.readiness().0 == 200);
    let asked = counts.of("ready");
    (0..50).for_each(|_| assert_eq!(server.get("/health/readiness").status, 200));
    assert!(counts.of("ready") < asked + 50, "its word counts for a while");
    server.stop();
}

#[test]
fn a_lambda_that_does_not_say_whether_it_is_ready_is_not() {
    let counts = Counts::new();
    let loader = loader().arg("--probes").counting(&counts).set("hang=ready");
    let server = loader.args(["--drain-timeout", "100ms"]).serve();
    let since = std::time::Instant::now();
    for _ in 0..2 {
        let (status, text) = server.readiness();
        assert_eq!(status, 503);
        assert!(text.contains("its ready() takes longer than 900ms"), "{text}");
    }
    assert!(since.elapsed() < LONG);
    assert_eq!((server.get("/health/liveness").status, server.get("/").status), (200, 200));
    server.signal(Signal::TERM);
    // Retire must not be called while the lambda is in another call.
    server.ends_with(1);
    assert_eq!(counts.of("retire"), 0);
}

#[test]
fn a_panic_of_the_lambdas_ready_is_a_no() {
    let counts = Counts::new();
    let server = loader().arg("--probes").counting(&counts).set("panic=ready").serve();
    assert_eq!(server.readiness().0, 503);
    assert_eq!(server.get("/health/readiness").text(), "not ready\n");
    server.wait_for_line("told to panic in ready");
    server.stop();
    counts.assert_complete();
}
