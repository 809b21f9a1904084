//! The access log: off unless asked for, one line a request, nothing that is secret, and never in the way of anything
//! else that is to be said.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Loader, Scratch, Server, load,
    plugins::{probe, spout},
    wait_until,
};

fn loader() -> Loader {
    Loader::bare().arg("--plugin").arg(probe()).args(["--syslog", "none", "--log-format", "json"])
}

/// All lines of the access log, as JSON.
fn lines(all: &[String]) -> Vec<Value> {
    let parsed = all.iter().map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"));
    parsed.filter(|line| line["source"] == "access").collect()
}

fn wait_for(server: &Server, n: usize) -> Vec<Value> {
    wait_until(&format!("{n} lines of the access log"), || lines(&server.lines()).len() >= n);
    lines(&server.lines())
}

#[test]
fn nothing_is_logged_of_requests_unless_it_is_asked_for() {
    for args in [&[][..], &["--access-log", "none"], &["--access-log-with", "query"]] {
        let server = loader().args(args).serve();
        assert_eq!(server.get("/").text_header("x-request-id"), None);
        assert_eq!(lines(&server.stop()).len(), 0, "{args:?}");
    }
}

#[test]
fn a_line_says_who_asked_what_and_got_what() {
    for execution in ["inline", "pool"] {
        let server = loader().args(["--access-log", "--execution", execution]).serve();
        let mut connection = server.connect();
        let body = connection.get("/parameters?a=secret").body;
        assert_eq!(connection.post("/length", b"12345").text(), "5");
        connection.send("HEAD /parameters HTTP/1.0\r\nX-Request-Id: abc\r\nConnection: keep-alive\r\n\r\n");
        let reply = connection.reply_to_head();
        assert_eq!(reply.text_header("x-request-id"), Some("abc"));
        assert_eq!(connection.get("/fail").status, 500);
        let lines = wait_for(&server, 4);
        let facts: Vec<_> = lines
            .iter()
            .map(|line| {
                let text = |name: &str| line[name].as_str().unwrap().to_owned();
                (
                    text("method"),
                    text("path"),
                    text("version"),
                    line["status"].as_u64(),
                    line["bytes"].as_u64(),
                )
            })
            .collect();
        let fact = |method: &str, path: &str, version: &str, status, bytes| {
            (method.to_owned(), path.to_owned(), version.to_owned(), Some(status), Some(bytes))
        };
        let failed = b"the lambda failed\n".len() as u64;
        let expected = [
            fact("GET", "/parameters", "HTTP/1.1", 200, body.len() as u64),
            fact("POST", "/length", "HTTP/1.1", 200, 1),
            fact("HEAD", "/parameters", "HTTP/1.0", 200, 0),
            fact("GET", "/fail", "HTTP/1.1", 500, failed),
        ];
        assert_eq!(facts, expected);
        assert_eq!((&lines[2]["request_id"], &lines[2]["peer"]), (&"abc".into(), &"127.0.0.1".into()));
        for line in &lines {
            let took = line["duration"].as_f64().unwrap();
            assert!(took > 0.0 && took < 30.0, "{line}");
            assert_eq!(
                line["message"],
                format!("{} {} {}", line["method"], line["path"], line["status"]).replace('"', "")
            );
        }
        server.stop();
    }
}

#[test]
fn one_name_is_in_the_line_in_the_answer_in_the_lambda_and_in_what_it_logs() {
    let server = loader().arg("--access-log").serve();
    let reply = server.get("/request-id?log=yes");
    let id = reply.text_header("x-request-id").expect("the answer has it").to_owned();
    assert_eq!(reply.text(), id);
    assert_eq!(wait_for(&server, 1)[0]["request_id"], id);
    let said: Value = serde_json::from_str(&server.wait_for_line("called ")).unwrap();
    assert_eq!((&said["request_id"], &said["source"]), (&id.as_str().into(), &"lambda".into()));
    // What is no name is not taken over, and what the lambda answers stands.
    let ask = "GET /header?name=x-request-id&value=of-the-lambda HTTP/1.1\r\nHost: test\r\nX-Request-Id: a b\r\n\r\n";
    let reply = server.connect().send(ask).reply();
    assert_eq!(reply.text_header("x-request-id"), Some("of-the-lambda"));
    let id = wait_for(&server, 2)[1]["request_id"].as_str().unwrap().to_owned();
    assert!(id.len() == 16 && id != "of-the-lambda", "{id}");
    server.stop();
}

#[test]
fn secrets_stay_out_unless_they_are_named() {
    let ask = "POST /echo?token=of-the-query HTTP/1.1\r\nHost: test\r\nCookie: of-the-cookie\r\nAuthorization: \
               of-the-header\r\nUser-Agent: curl \"8\"\x1b[31m\r\nContent-Length: 11\r\n\r\nof-the-body";
    let said = |args: &[&str]| {
        let server = loader().arg("--access-log").args(args).serve();
        assert_eq!(server.connect().send(ask.replace('\x1b', "\t")).reply().status, 200);
        let lines = wait_for(&server, 1);
        let text = server.stop().join("\n");
        (lines[0].clone(), text)
    };
    let (line, text) = said(&[]);
    for secret in ["of-the-query", "of-the-cookie", "of-the-header", "of-the-body", "curl"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert_eq!(line["path"], "/echo");
    let (line, text) = said(&["--access-log-with", "query,User-Agent", "--access-log-with", "cookie"]);
    assert_eq!((&line["query"], &line["cookie"]), (&"token=of-the-query".into(), &"of-the-cookie".into()));
    assert_eq!(line["user-agent"], "curl \"8\"\t[31m");
    assert!(!text.contains("of-the-header") && !text.contains("of-the-body"), "{text}");
}

#[test]
fn whatever_a_client_sends_its_line_stays_one_line() {
    for format in ["json", "text"] {
        let server = Loader::bare()
            .arg("--plugin")
            .arg(probe())
            .args([
                "--syslog",
                "none",
                "--log-format",
                format,
                "--access-log",
                "--access-log-with",
                "x,query",
            ])
            .serve();
        let ask =
            b"GET /a%0A%1B?b%0D HTTP/1.1\r\nHost: test\r\nX: \xff\xc2\x85 \xe2\x80\xa8 {\"a\":1} b=c\r\n\r\n";
        assert_eq!(server.connect().send(ask).reply().status, 200);
        server.wait_for_line("/a%0A%1B");
        let lines = server.stop();
        assert_eq!(lines.iter().filter(|line| line.contains("/a%0A%1B")).count(), 1, "{lines:#?}");
        for line in &lines {
            assert!(!line.contains(|ch: char| ch.is_control() || ch == '\u{2028}'), "{line:?}");
            assert!(format == "text" || serde_json::from_str::<Value>(line).is_ok(), "{line}");
        }
    }
}

#[test]
fn a_share_is_about_that_many_and_every_failure() {
    const N: usize = 2_000;
    let server = loader().args(["--access-log", "20%"]).serve();
    assert_eq!(load(server.address, "/", N, 4), N);
    for _ in 0..20 {
        server.get("/fail");
    }
    let lines = lines(&server.stop());
    let n_failed = lines.iter().filter(|line| line["status"] == 500).count();
    assert_eq!(n_failed, 20, "failures are not sampled");
    let n_sampled = lines.len() - n_failed;
    // Five standard deviations, which chance leaves once in two million times.
    assert!((N / 5).abs_diff(n_sampled) < 90, "{n_sampled} of {N}");
}

#[test]
fn a_streams_line_comes_with_its_end_and_counts_what_was_sent() {
    let server = Loader::bare()
        .arg("--plugin")
        .arg(spout())
        .args(["--syslog", "none", "--log-format", "json", "--access-log"])
        .serve();
    let mut connection = server.connect();
    let reply = connection.get("/pieces");
    assert_eq!(connection.get("/").text(), "ok");
    let lines = wait_for(&server, 2);
    assert_eq!((&lines[0]["path"], &lines[0]["bytes"]), (&"/pieces".into(), &reply.body.len().into()));
    assert_eq!(reply.text_header("x-request-id"), lines[0]["request_id"].as_str());
    assert_eq!((&lines[1]["path"], &lines[1]["bytes"]), (&"/".into(), &2.into()));
    // It never ends by itself: its line comes when the client has gone.
    let mut endless = server.connect();
    endless.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.get("/").status, 200);
    assert_eq!(wait_for(&server, 3)[2]["path"], "/");
    endless.reset();
    let line = &wait_for(&server, 4)[3];
    assert_eq!((&line["path"], &line["method"]), (&"/endless".into(), &"GET".into()), "{line}");
    server.stop();
}

#[test]
fn a_client_that_leaves_is_499() {
    let scratch = Scratch::new();
    let server = loader().args(["--access-log", "--execution", "pool"]).serve();
    let mut connection = server.connect();
    connection.send(format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", scratch.join("go").display()));
    // Another request is answered: the first is on its way.
    assert_eq!(server.get("/").status, 200);
    connection.reset();
    let lines = wait_for(&server, 2);
    scratch.write("go", "");
    assert_eq!((&lines[1]["path"], &lines[1]["status"]), (&"/wait".into(), &499.into()));
    server.stop();
}

#[test]
fn a_flood_of_requests_displaces_no_report_and_delays_no_client() {
    const CLIENTS: usize = 4;
    const N: usize = 20_000;
    let server = loader().arg("--access-log").serve();
    let since = Instant::now();
    let mut reports = 0;
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| load(server.address, "/", N, CLIENTS));
        let mut connection = server.connect();
        while !flood.is_finished() {
            let asked = Instant::now();
            assert_eq!(connection.get("/log?text=spoken").status, 200);
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
            reports += 1;
        }
        assert_eq!(flood.join().unwrap(), N);
    });
    let took = since.elapsed();
    let all = server.stop();
    let spoken = all.iter().filter(|line| line.contains("\"message\":\"spoken\"")).count();
    assert_eq!(spoken, reports, "no report is lost in {took:?}");
    let lost = all.iter().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["message"].as_str()?.strip_suffix(" lines of the access log were lost")?.parse::<usize>().ok()
    });
    assert_eq!(lines(&all).len() + lost.sum::<usize>(), N + reports, "each is written or counted");
}
