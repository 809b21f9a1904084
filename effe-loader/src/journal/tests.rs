//! What goes where, and what becomes of it when syslog or stderr doesn't take it.

use std::{
    collections::HashSet,
    io::{self, Write},
    time::{Duration, Instant},
};

use super::{
    stderr::Sink,
    testing::{Captured, Daemon, LONG, lambda, start, start_all, start_alone},
    writer::QUEUE,
    *,
};

#[test]
fn every_severity_has_its_priority_in_syslog() {
    let (daemon, stderr, journal) = start_all(Format::Text);
    journal.set_level(Severity::Trace);
    let expected = [(2, 26), (3, 27), (4, 28), (5, 29), (6, 30), (7, 31), (8, 31), (99, 31), (0, 26)];
    for (number, priority) in expected {
        journal.log(lambda(Severity::from(number), "said"));
        let datagram = daemon.receive();
        let pid = std::process::id();
        assert!(datagram.starts_with(&format!("<{priority}>")), "{datagram}");
        assert!(datagram.ends_with(&format!(" effe-loader[{pid}]: lambda: hello::db: said id=\"a b\"")));
    }
    assert!(journal.close(LONG));
    assert_eq!(stderr.text(), "", "what syslog has is not on stderr too");
}

#[test]
fn the_loader_is_heard_on_stderr_and_in_syslog() {
    let (daemon, stderr, journal) = start_all(Format::Text);
    let address = "127.0.0.1:8080".to_owned();
    journal.report(Severity::Notice, format!("listening on http://{address}"), [("address", address)]);
    assert!(daemon.receive().ends_with("]: listening on http://127.0.0.1:8080"));
    assert!(journal.close(LONG));
    assert_eq!(stderr.text(), "listening on http://127.0.0.1:8080\n");
}

#[test]
fn a_terminal_shows_what_syslog_has() {
    let daemon = Daemon::new();
    let stderr = Captured { is_terminal: true, ..Captured::default() };
    let journal = start(daemon.target(), Format::Auto, &stderr);
    journal.log(lambda(Severity::Error, "said"));
    daemon.receive();
    assert!(journal.close(LONG));
    assert_eq!(stderr.text().matches("said").count(), 1);
}

#[test]
fn without_syslog_all_goes_to_stderr_and_that_is_said_once() {
    let (mut daemon, stderr) = (Daemon::new(), Captured::default());
    daemon.kill();
    let journal = start(daemon.target(), Format::Text, &stderr);
    for n in 0..3 {
        journal.log(lambda(Severity::Error, &format!("number {n}")));
    }
    stderr.wait_for(|text| text.contains("number 2"));
    assert_eq!(stderr.text().matches("syslog is unavailable").count(), 1);
    let since = Instant::now();
    daemon.revive();
    while daemon.try_receive(Duration::from_millis(20)).is_none() {
        journal.log(lambda(Severity::Error, "again"));
    }
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    stderr.wait_for(|text| text.contains("syslog is back"));
    while !daemon.receive().contains("syslog is back") {}
    assert!(journal.close(LONG));
    assert_eq!(stderr.text().matches("syslog is back").count(), 1);
}

#[test]
fn switched_off_syslog_is_not_missed() {
    let (stderr, journal) = start_alone();
    journal.log(lambda(Severity::Error, "said"));
    assert!(journal.close(LONG));
    assert_eq!(stderr.text().lines().count(), 1);
    assert!(stderr.text().ends_with(" lambda: error: hello::db: said id=\"a b\"\n"));
}

#[test]
fn the_record_that_meets_a_dead_socket_reaches_the_new_daemon() {
    let (mut daemon, stderr, journal) = start_all(Format::Text);
    for n in 0..3 {
        journal.log(lambda(Severity::Error, &format!("number {n}")));
        let since = Instant::now();
        assert!(daemon.receive().contains(&format!("number {n}")));
        assert!(since.elapsed() < Duration::from_secs(1));
        daemon.kill();
        daemon.revive();
    }
    assert!(journal.close(LONG));
    assert_eq!(stderr.text(), "");
}

#[test]
fn the_record_that_meets_no_daemon_is_on_stderr() {
    let (mut daemon, stderr, journal) = start_all(Format::Text);
    journal.log(lambda(Severity::Error, "before"));
    assert!(daemon.receive().contains("before"));
    daemon.kill();
    journal.log(lambda(Severity::Error, "between"));
    stderr.wait_for(|text| text.contains("between"));
    assert!(journal.close(LONG));
}

#[test]
fn a_daemon_that_stops_reading_delays_nobody_and_every_record_is_accounted_for() {
    const N: usize = 10_000;
    let (daemon, stderr, journal) = start_all(Format::Text);
    let since = Instant::now();
    for n in 0..N {
        journal.log(lambda(Severity::Error, &format!("number {n};")));
    }
    // One blocked call would take a second by itself.
    assert!(since.elapsed() < Duration::from_millis(900), "{:?}", since.elapsed());
    stderr.wait_for(|text| text.contains("log lines were lost") && text.contains("syslog is unavailable"));
    let (mut received, mut back, mut n_said) = (HashSet::new(), false, N);
    while !back {
        journal.log(lambda(Severity::Error, &format!("number {n_said};")));
        n_said += 1;
        while let Some(datagram) = daemon.try_receive(Duration::from_millis(20)) {
            back |= datagram.contains("syslog is back");
            received.extend(numbers(&datagram));
        }
    }
    assert!(journal.close(LONG));
    let written: HashSet<_> = numbers(&stderr.text()).collect();
    assert!(received.is_disjoint(&written));
    assert!(journal.losses() > 0);
    assert_eq!(received.len() + written.len() + journal.losses() as usize, n_said);
    let text = stderr.text();
    let said = text.lines().filter_map(|line| line.strip_suffix(" log lines were lost"));
    let said = said.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(said.sum::<u64>(), journal.losses());
}

/// The `N` of every `number N;` in a text.
fn numbers(text: &str) -> impl Iterator<Item = usize> {
    text.split("number ").skip(1).filter_map(|rest| rest.split_once(';')?.0.parse().ok())
}

#[test]
fn whatever_is_said_it_is_one_datagram_and_one_line() {
    let long = "x".repeat(64 * 1024);
    let texts = [
        "a\nb<13>Jan 01 00:00:00 sshd[1]: Accepted password",
        "a\r\nb",
        "a\0b",
        "\x1b]0;title\x07\x1b[31mred",
        "a\u{85}b\u{9b}31mc\x7fd",
        "a\u{2028}b\u{2029}c\u{202e}d",
        "\n",
        "",
        "{\"level\":\"info\"}\n{\"level\":\"error\"}",
        &long,
        &"\n".repeat(64 * 1024),
    ];
    for format in [Format::Text, Format::Json] {
        let (daemon, stderr, journal) = start_all(format);
        for text in texts {
            journal.log(Record {
                target: text.to_owned().into(),
                fields: vec![("path", text.to_owned())],
                ..Record::of_loader(Severity::Error, text.to_owned())
            });
            let datagram = daemon.receive();
            assert!(datagram.len() <= 8 * 1024, "{} bytes", datagram.len());
            assert!(!datagram.chars().any(line::is_unsafe), "{datagram:?}");
            assert_eq!(daemon.try_receive(Duration::from_millis(1)), None, "{text:?}");
        }
        assert!(journal.close(LONG));
        let lines = stderr.text();
        assert_eq!(lines.lines().count(), texts.len(), "{format:?}");
        for line in lines.lines() {
            assert!(!line.chars().any(line::is_unsafe), "{line:?}");
            if format == Format::Json {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(value["message"].as_str().unwrap().len() <= 8 * 1024);
            }
        }
    }
}

#[test]
fn closing_writes_what_is_queued_and_may_be_repeated() {
    let (stderr, journal) = start_alone();
    for n in 0..1_000 {
        journal.notice(format!("line {n}"));
    }
    assert!(journal.close(LONG));
    assert_eq!(stderr.text().lines().count(), 1_000);
    assert!(journal.clone().close(Duration::ZERO));
    journal.error("too late");
    assert_eq!(journal.losses(), 1);
    assert_eq!(stderr.text().lines().count(), 1_000);
}

#[test]
fn a_stuck_stderr_holds_up_nobody() {
    let (stderr, journal) = start_alone();
    let release = stderr.block();
    let since = Instant::now();
    for _ in 0..10_000 {
        journal.error("said");
    }
    assert!(!journal.close(Duration::from_millis(50)));
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    drop(release);
    assert!(journal.close(LONG));
}

#[test]
fn lines_of_the_access_log_displace_only_each_other() {
    const N: usize = 10_000;
    let (stderr, journal) = start_alone();
    let release = stderr.block();
    (0..N).for_each(|_| journal.access(access::tests::access()));
    (0..1_000).for_each(|_| journal.error("said"));
    assert_eq!(journal.losses(), 0);
    let lost = journal.access_losses() as usize;
    // What the thread had taken out before it got stuck made room.
    assert!((N - QUEUE - 64..=N - QUEUE).contains(&lost), "{lost}");
    drop(release);
    assert!(journal.close(LONG));
}

#[test]
fn a_broken_stderr_is_nobodys_trouble() {
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(reader);
    let sink = Sink { writer: Box::new(writer), is_terminal: false };
    let journal =
        Journal::start(Settings { sink, ..Settings::new(SyslogTarget::None, Format::Text) }).unwrap();
    journal.error("said");
    assert!(journal.close(LONG));
}

#[test]
fn a_panic_of_the_thread_costs_the_line_that_it_comes_of() {
    /// Panics over a line that says so.
    struct Panicking(Captured);
    impl Write for Panicking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            assert!(!String::from_utf8_lossy(bytes).contains("told to panic"), "told to");
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let stderr = Captured::default();
    let sink = Sink { writer: Box::new(Panicking(stderr.clone())), is_terminal: false };
    let settings = Settings { sink, ..Settings::new(SyslogTarget::None, Format::Text) };
    let journal = Journal::start(settings).unwrap();
    journal.error("before");
    journal.error("told to panic");
    journal.error("between");
    stderr.wait_for(|text| text.contains("between"));
    assert_eq!(journal.losses(), 1);
    // Also while what is left is written.
    let release = stderr.block();
    journal.error("held up");
    journal.error("told to panic");
    journal.error("after");
    assert!(!journal.close(Duration::ZERO));
    drop(release);
    assert!(journal.close(LONG), "it ends all the same");
    let said = stderr.text();
    assert!(said.contains("before") && said.contains("1 log lines were lost"), "{said}");
    assert!(said.contains("held up") && said.contains("after"), "{said}");
    assert_eq!(journal.losses(), 2);
}

#[test]
fn dropping_the_last_handle_writes_what_is_queued() {
    let (stderr, journal) = start_alone();
    journal.notice("last words");
    drop(journal);
    stderr.wait_for(|text| text.contains("last words"));
}

#[test]
fn what_is_not_wanted_is_not_written() {
    let (stderr, journal) = start_alone();
    journal.report(Severity::Debug, "one", []);
    journal.set_level(Severity::Error);
    journal.warning("two");
    journal.error("three");
    journal.critical("four");
    assert!(journal.close(LONG));
    assert_eq!(stderr.text().lines().count(), 2);
}
