//! What the lambda reports reaches syslog; and whatever syslog does, clients don't notice.

use std::time::{Duration, Instant};

use crate::support::{Daemon, Loader, load, plugins::probe};

/// What no request may take longer than, whatever the daemon does. One that waited for it would take seconds.
const PROMPT: Duration = Duration::from_secs(1);

fn loader(daemon: &Daemon) -> Loader {
    Loader::bare().arg("--plugin").arg(probe()).args(["--log-format", "text", "--syslog", &daemon.target()])
}

#[test]
fn each_severity_has_its_number() {
    let daemon = Daemon::new();
    let server = loader(&daemon).serve();
    assert!(daemon.wait_for("listening on").starts_with("<30>"), "daemon.info");
    for (path, number, text) in [
        ("/fail", 27, "run: a secret of the author's"),
        ("/fail?level=critical", 26, "run: a secret of the author's"),
        ("/fail?level=warning", 28, "run: a secret of the author's"),
        ("/fail?level=notice", 29, "run: a secret of the author's"),
        ("/panic", 26, "panicked at "),
        ("/log?text=spoken", 27, "probe: spoken"),
        ("/log?text=spoken&level=warning", 28, "probe: spoken"),
        ("/log?text=spoken&level=info", 30, "probe: spoken"),
    ] {
        server.get(path);
        let datagram = daemon.wait_for(text);
        assert!(datagram.starts_with(&format!("<{number}>")), "{path}: {datagram}");
        assert!(datagram.contains(" effe-loader["), "{datagram}");
    }
    let lines = server.stop();
    assert!(daemon.wait_for("SIGTERM").starts_with("<29>"));
    daemon.wait_for("stopped; ");
    assert!(!lines.iter().any(|line| line.contains("secret")), "syslog has it, stderr need not: {lines:#?}");
}

#[test]
fn an_error_names_its_request_and_its_place() {
    let daemon = Daemon::new();
    let server = loader(&daemon).serve();
    server.get("/fail?x=y");
    let datagram = daemon.wait_for("a secret of the author's");
    assert!(datagram.contains("probe/src/lib.rs:"), "{datagram}");
    assert!(datagram.ends_with(" method=GET path=/fail"), "and no query, which may hold secrets: {datagram}");
    server.stop();
}

#[test]
fn one_report_is_one_line_whatever_is_in_it() {
    let daemon = Daemon::new();
    let server = loader(&daemon).serve();
    server.get("/log?text=spoken%0D%0A%3C13%3EOct%2011%20forged:%20line%00%1B%5B31m");
    let datagram = daemon.wait_for("spoken");
    assert!(datagram.contains("spoken#015#012<13>Oct 11 forged: line#000#033[31m"), "{datagram}");
    assert!(!datagram.contains(char::is_control), "{datagram:?}");
    server.stop();
}

#[test]
fn without_a_daemon_reports_are_on_stderr_and_clients_do_not_notice() {
    let mut daemon = Daemon::new();
    daemon.stop();
    let server = loader(&daemon).serve();
    let since = Instant::now();
    assert_eq!(load(server.address, "/log?text=spoken", 200, 4), 200);
    assert!(since.elapsed() < 10 * PROMPT);
    server.wait_for_line("probe: spoken");
    let lines = server.stop();
    assert_eq!(lines.iter().filter(|line| line.contains("syslog is unavailable")).count(), 1, "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.contains("probe: spoken")).count(), 200);
}

#[test]
fn a_daemon_that_does_not_read_delays_nobody() {
    let daemon = Daemon::new();
    let server = loader(&daemon).serve();
    let mut connection = server.connect();
    for _ in 0..300 {
        let since = Instant::now();
        assert_eq!(connection.get("/log?text=spoken").status, 200);
        assert!(since.elapsed() < PROMPT, "{:?}", since.elapsed());
    }
    let since = Instant::now();
    server.stop();
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[test]
fn a_daemon_that_comes_back_is_heard_within_a_second() {
    let mut daemon = Daemon::new();
    let server = loader(&daemon).serve();
    let mut connection = server.connect();
    daemon.wait_for("listening on");
    for _ in 0..2 {
        daemon.stop();
        assert_eq!(connection.get("/log?text=while-away").status, 200);
        server.wait_for_line("probe: while-away");
        daemon.start();
        let since = Instant::now();
        while daemon.next_within(Duration::from_millis(10)).is_none() {
            assert_eq!(connection.get("/log?text=back").status, 200);
        }
        // A second, and what a busy machine adds.
        assert!(since.elapsed() < 3 * PROMPT, "{:?}", since.elapsed());
    }
    server.stop();
}

#[test]
fn json_lines_say_who_how_bad_and_what() {
    let server = Loader::bare().arg("--plugin").arg(probe()).args(["--syslog", "none"]).serve();
    server.get("/fail");
    let line = server.wait_for_line("a secret of the author's");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["source"]), (&"error".into(), &"lambda".into()), "{line}");
    assert_eq!((&line["method"], &line["path"]), (&"GET".into(), &"/fail".into()), "{line}");
    let lines = server.stop();
    let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    let address = first["address"].as_str().unwrap();
    assert_eq!(first["message"], format!("listening on http://{address}"));
    for line in lines {
        assert!(
            serde_json::from_str::<serde_json::Value>(&line).is_ok_and(|line| line.is_object()),
            "{line}"
        );
    }
}

#[test]
fn a_panic_is_one_line_with_its_place_its_request_and_the_calls_that_led_to_it() {
    let daemon = Daemon::new();
    let server = loader(&daemon).serve();
    let ask = "GET /panic HTTP/1.1\r\nHost: test\r\nX-Request-Id: of-the-panic\r\n\r\n";
    assert_eq!(server.connect().send(ask).reply().status, 500);
    let datagram = daemon.wait_for("panicked at ");
    assert!(datagram.starts_with("<26>") && datagram.contains("probe/src/lib.rs:"), "{datagram}");
    assert!(datagram.ends_with(" request_id=of-the-panic"), "{datagram}");
    let (_, calls) = datagram.split_once("#012in ").expect("a backtrace");
    assert!(calls.starts_with("probe::answer at "), "nothing of what panics: {datagram}");
    assert!(!calls.contains("effe_abi::fence") && !calls.contains("effe_loader"), "{datagram}");
    server.stop();
    let quiet = loader(&daemon).env("RUST_BACKTRACE", "0").serve();
    quiet.get("/panic");
    assert!(!daemon.wait_for("panicked at ").contains("#012"));
    quiet.stop();
}

#[test]
fn every_line_about_a_request_says_what_it_is_called() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let daemon = Daemon::new();
    for execution in ["inline", "pool"] {
        let server = loader(&daemon).args(["--execution", execution]).serve();
        let mut connection = server.connect();
        let mut ask = |path: &str, header: &str| {
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{header}\r\n")).reply()
        };
        ask("/log?text=spoken", "X-Request-Id: abc\r\n");
        assert!(daemon.wait_for("spoken").ends_with(" request_id=abc"));
        ask("/fail", &format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n"));
        assert!(daemon.wait_for("secret").ends_with(&format!(" request_id={TRACE} method=GET path=/fail")));
        ask("/log?text=spoken", "X-Request-Id: <13>forged line\r\n");
        let datagram = daemon.wait_for("spoken");
        let (_, made) = datagram.split_once(" request_id=").expect("a name is made where there is none");
        assert_eq!(made.len(), 16, "{datagram}");
        let id = ask("/request-id", "").text().to_owned();
        assert!(id.len() == 16 && id != made, "{id}");
        ask("/request-id?log=yes", "");
        let datagram = daemon.wait_for("called ");
        let words: Vec<_> = datagram.rsplitn(3, ' ').collect();
        assert_eq!(words[0], format!("request_id={}", words[1]), "the lambda sees the same: {datagram}");
        server.stop();
    }
}
