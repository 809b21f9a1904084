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
