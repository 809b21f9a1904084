//! What is counted is what clients saw, and what scrapers can read.

use std::{env, thread};

use rustix::process::Signal;

use crate::support::{
    Connection, Counts, Loader, Scratch, load,
    metrics::{Scrape, is_read_by_prometheus},
    plugins::probe,
    wait_until,
};

fn loader() -> Loader {
    Loader::of(probe()).args(["--admin", "127.0.0.1:0"])
}

#[test]
fn prometheus_reads_every_sample_in_both_formats() {
    let server = loader().serve();
    for path in ["/", "/fail", "/status?code=204", "/panic"] {
        server.get(path);
    }
    let scrape = server.scrape();
    is_read_by_prometheus(&scrape.text, "prometheus_client.openmetrics.parser");
    assert!(scrape.text.ends_with("# EOF\n"));
    let plain = server.ask("/metrics");
    assert!(plain.text_header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    is_read_by_prometheus(plain.text(), "prometheus_client.parser");
    let plain = Scrape::of(plain.text());
    for name in
        ["http_requests_total", "faas_errors_total", "effe_generation", "faas_invoke_duration_seconds_count"]
    {
        assert_eq!(plain.sum(name), scrape.sum(name), "{name}");
    }
    server.stop();
}

#[test]
fn every_answer_is_counted_once_by_code_and_method() {
    for execution in ["inline", "pool"] {
        let counts = Counts::new();
        let loader = loader().counting(&counts).args(["--execution", execution, "--workers", "2"]);
        let server = loader.args(["--probes", "--body-limit", "1KiB"]).serve();
        assert_eq!(load(server.address, "/", 400, 8), 400);
        let mut connection = server.connect();
        for _ in 0..7 {
            assert_eq!(connection.get("/fail").status, 500);
        }
        assert_eq!(connection.post("/length", b"abc").status, 200);
        assert_eq!(connection.get("/panic").status, 500);
        assert_eq!(connection.get("/status?code=404").status, 404);
        connection.send("BREW /pot HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(connection.reply().status, 200);
        connection.send("PROPFIND / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(connection.reply().status, 200);
        assert_eq!(connection.get("/health/readiness").status, 200);
        assert_eq!(connection.post("/length", &[b'x'; 2000]).status, 413);
        let scrape = server.scrape();
        let requests = |code: u16, method| {
            scrape.value(&format!("http_requests_total{{code=\"{code}\",method=\"{method}\"}}"))
        };
        assert_eq!(requests(200, "GET"), 400.0, "{}", scrape.text);
        assert_eq!((requests(500, "GET"), requests(404, "GET"), requests(200, "OTHER")), (8.0, 1.0, 2.0));
        assert_eq!((requests(200, "POST"), requests(413, "POST")), (1.0, 1.0));
        assert_eq!(scrape.sum("http_requests_total"), 413.0, "a probe is no request");
        assert_eq!(scrape.sum("http_request_duration_seconds_count"), 413.0);
        let infinite = scrape.of_name("http_request_duration_seconds_bucket");
        let infinite = infinite.filter(|(key, _)| key.contains("le=\"+Inf\"")).map(|(_, n)| n);
        assert_eq!(infinite.sum::<f64>(), 413.0);
        let runs = counts.of("run") as f64;
        assert_eq!((scrape.value("faas_invoke_duration_seconds_count"), runs), (412.0, 412.0));
        assert_eq!(scrape.value("faas_errors_total"), 8.0);
        let started = counts.of("context") as f64;
        assert_eq!(scrape.value("effe_contexts_started_total"), started);
        assert_eq!(scrape.value("faas_coldstarts_total"), started - 1.0, "no request waited for the first");
        assert_eq!(scrape.value("faas_init_duration_seconds_count"), started - 1.0);
        assert_eq!(scrape.value(&format!("effe_execution{{where=\"{execution}\"}}")), 1.0);
        let generation = &server.state()["generations"][0];
        assert_eq!((&generation["requests"], &generation["errors"]), (&412.into(), &8.into()));
        let scrape = wait_for_idle(&server);
        assert_eq!(
            scrape.sum("effe_contexts"),
            started - scrape.value("effe_contexts_stopped_total"),
            "{}",
            scrape.text
        );
        server.stop();
        counts.assert_complete();
    }
}

/// Waits until nothing runs any more, Stops included.
fn wait_for_idle(server: &crate::support::Server) -> Scrape {
    wait_until("nothing runs", || server.scrape().value("effe_contexts{state=\"busy\"}") == 0.0);
    server.scrape()
}

#[test]
fn what_runs_waits_and_is_lost_can_be_seen_while_it_does() {
    let counts = Counts::new();
    let limits = ["--max-concurrency", "1", "--run-timeout", "3s", "--max-lost-threads", "0"];
    let server = loader().counting(&counts).args(limits).args(["--drain-timeout", "100ms"]).serve();
    thread::scope(|scope| {
        let address = server.address;
        let first = scope.spawn(move || Connection::open(address).get("/never").status);
        counts.wait_for("run", 1);
        let second = scope.spawn(move || Connection::open(address).get("/").status);
        wait_until("one waits", || server.scrape().value("effe_queue_length") == 1.0);
        let scrape = server.scrape();
        assert_eq!(scrape.value("http_requests_in_flight"), 2.0);
        assert_eq!((scrape.value("effe_pool_threads"), scrape.value("effe_ready")), (1.0, 1.0));
        assert_eq!(scrape.value("effe_contexts{state=\"busy\"}"), 1.0);
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (504, 503));
    });
    let scrape = server.scrape();
    assert_eq!((scrape.value("faas_timeouts_total"), scrape.value("effe_lost_threads")), (1.0, 1.0));
    assert_eq!(scrape.value("effe_ready"), 0.0);
    for code in [503, 504] {
        assert_eq!(scrape.value(&format!("http_requests_total{{code=\"{code}\",method=\"GET\"}}")), 1.0);
    }
    server.signal(Signal::TERM);
    server.ends_with(1);
}

#[test]
fn no_label_holds_what_a_client_or_a_lambda_may_choose_freely() {
    let server = loader().serve();
    for n in 0..40 {
        let mut connection = server.connect();
        let code = 200 + n;
        connection.send(format!(
            "M{n} /secret-path-{n}?secret={n} HTTP/1.1\r\nHost: secret-host-{n}\r\nX-Secret-{n}: secret\r\n\r\n"
        ));
        assert_eq!(connection.reply().status, 200);
        connection.send(format!("GET /status?code={code} HTTP/1.1\r\nHost: test\r\n\r\n"));
        connection.reply();
    }
    let scrape = server.scrape();
    assert!(!scrape.text.contains("secret"), "{}", scrape.text);
    assert_eq!(scrape.value("http_requests_total{code=\"200\",method=\"OTHER\"}"), 40.0);
    let methods = ["GET", "OTHER"];
    for (key, _) in scrape.of_name("http_requests_total") {
        assert!(methods.iter().any(|method| key.contains(&format!("method=\"{method}\""))), "{key}");
    }
    server.stop();
}

#[test]
fn under_load_and_swaps_everything_is_counted_once_and_nothing_is_forgotten() {
    // `scripts/prove metrics` sends more.
    let n = env::var("EFFE_METERED").map_or(2_000, |n| n.parse().expect("EFFE_METERED is a number"));
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let params = scratch.write("params.json", "{}");
    let loader = loader().counting(&counts).args(["--workers", "2"]).arg("--params").arg(params);
    let server = loader.serve();
    let good: usize = thread::scope(|scope| {
        let address = server.address;
        let clients = scope.spawn(move || load(address, "/", n, 16));
        for swap in 2..6 {
            counts.wait_for("run", n * (swap - 1) / 6);
            scratch.write("params.json", format!("{{\"swap\": {swap}}}"));
            let before = server.scrape();
            server.signal(Signal::HUP);
            wait_until("it swaps", || server.scrape().value("effe_generation") == swap as f64);
            let after = server.scrape();
            for (key, value) in before.of_name("http_requests_total") {
                assert!(after.value(key) >= value, "{key} goes down");
            }
        }
        clients.join().unwrap()
    });
    let scrape = server.scrape();
    assert_eq!(good, n);
    assert_eq!(scrape.value("http_requests_total{code=\"200\",method=\"GET\"}"), n as f64);
    assert_eq!(scrape.sum("http_requests_total"), n as f64);
    assert_eq!(scrape.value("faas_invoke_duration_seconds_count"), n as f64);
    assert_eq!(scrape.value("faas_errors_total"), 0.0);
    eprintln!("metered: {n} requests over {} generations", scrape.value("effe_generation"));
    is_read_by_prometheus(&scrape.text, "prometheus_client.openmetrics.parser");
    server.stop();
}

#[test]
fn before_init_has_returned_there_are_metrics_already() {
    let counts = Counts::new();
    let loader = loader().counting(&counts).set("hang=init").args(["--drain-timeout", "100ms"]);
    let server = loader.args(["--host", "127.0.0.1", "--port", "0"]).start();
    counts.wait_for("init", 1);
    let scrape = server.scrape();
    is_read_by_prometheus(&scrape.text, "prometheus_client.openmetrics.parser");
    assert_eq!((scrape.value("effe_ready"), scrape.sum("http_requests_total")), (0.0, 0.0));
    server.signal(Signal::TERM);
    server.ends_with(1);
}
