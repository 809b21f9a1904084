//! Syslog on another machine: by datagrams or over a connection, in the old format or the new one; and whatever happens
//! to it, clients don't notice, and what is lost is counted.

use std::{
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::support::{
    Loader, load,
    plugins::probe,
    remote::{Framing, TcpDaemon, UdpDaemon},
};

/// What no request may take longer than, whatever the daemon does.
const PROMPT: Duration = Duration::from_secs(1);

fn loader(target: &str) -> Loader {
    Loader::bare().arg("--plugin").arg(probe()).args(["--log-format", "text", "--syslog", target])
}

#[test]
fn datagrams_name_the_host_and_are_one_line_each() {
    let daemon = UdpDaemon::at(0);
    let server = loader(&daemon.target()).serve();
    server.get("/log?text=spoken%0A%3C13%3Eforged");
    let said = daemon.wait_for("spoken");
    let words: Vec<_> = said.split(' ').filter(|word| !word.is_empty()).collect();
    // <27>Nov 25 03:00:00 host effe-loader[1]: lambda: …
    assert!(said.starts_with("<27>") && words[4].starts_with("effe-loader["), "{said}");
    assert!(said.contains("]: lambda: probe: spoken#012<13>forged request_id="), "{said}");
    assert!(!said.contains(char::is_control), "{said:?}");
    server.stop();
}

#[test]
fn the_new_format_has_structured_data_and_lengths_on_a_connection() {
    let mut tcp = TcpDaemon::at(0, Framing::Lengths);
    let udp = UdpDaemon::at(0);
    for target in [tcp.target(), udp.target()] {
        let server = loader(&target).args(["--syslog-format", "rfc5424"]).serve();
        let ask = "GET /fail HTTP/1.1\r\nHost: test\r\nX-Request-Id: a]\"b\r\n\r\n";
        server.connect().send(ask).reply();
        let said = if target.starts_with("tcp") { tcp.wait_for("secret") } else { udp.wait_for("secret") };
        let words: Vec<_> = said.splitn(8, ' ').collect();
        assert_eq!((words[0], words[3], words[5]), ("<27>1", "effe-loader", "0"), "{said}");
        let time = &words[1];
        assert!(time.len() > 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{said}");
        assert!(words[4].parse::<u32>().is_ok(), "{said}");
        let data = r#"[effe@32473 method="GET" path="/fail" request_id="a\]\"b"] lambda: run: "#;
        assert!(said.contains(data), "{said}");
        server.stop();
    }
}

#[test]
fn a_connection_has_a_line_for_each_report_whatever_is_in_it() {
    let mut daemon = TcpDaemon::at(0, Framing::Lines);
    let server = loader(&daemon.target()).serve();
    for n in 0..50 {
        server.get(&format!("/log?text=spoken-{n};%0D%0A%3C13%3Eforged%00"));
    }
    for n in 0..50 {
        let said = daemon.wait_for("spoken-");
        assert!(said.contains(&format!("spoken-{n};#015#012<13>forged#000")), "{said}");
    }
    server.stop();
    assert!(daemon.wait_for("SIGTERM").starts_with("<29>"));
    daemon.wait_for("stopped; ");
}

#[test]
fn a_remote_daemon_that_is_away_is_missed_once_and_heard_again_within_a_second() {
    for is_tcp in [true, false] {
        let (mut tcp, mut udp) = match is_tcp {
            true => (Some(TcpDaemon::at(0, Framing::Lines)), None),
            false => (None, Some(UdpDaemon::at(0))),
        };
        let port = tcp.as_ref().map_or_else(|| udp.as_ref().unwrap().port(), TcpDaemon::port);
        let target =
            if is_tcp { format!("tcp://127.0.0.1:{port}") } else { format!("udp://127.0.0.1:{port}") };
        let server = loader(&target).serve();
        let mut connection = server.connect();
        match &mut tcp {
            Some(tcp) => tcp.wait_for("listening on"),
            None => udp.as_ref().unwrap().wait_for("listening on"),
        };
        (tcp, udp) = (None, None);
        // A datagram that nobody takes is heard of with the next one.
        for n in 0..20 {
            let since = Instant::now();
            assert_eq!(connection.get(&format!("/log?text=away-{n};")).status, 200);
            assert!(since.elapsed() < PROMPT, "{:?}", since.elapsed());
        }
        server.wait_for_line("syslog is unavailable");
        server.wait_for_line("away-19;");
        match is_tcp {
            true => tcp = Some(TcpDaemon::at(port, Framing::Lines)),
            false => udp = Some(UdpDaemon::at(port)),
        }
        let since = Instant::now();
        let heard = |tcp: &mut Option<TcpDaemon>| match tcp {
            Some(tcp) => tcp.next_within(Duration::from_millis(10)),
            None => udp.as_ref().unwrap().next_within(Duration::from_millis(10)),
        };
        while heard(&mut tcp).is_none() {
            assert_eq!(connection.get("/log?text=back").status, 200);
        }
        // A second, and what a busy machine adds.
        assert!(since.elapsed() < 3 * PROMPT, "{:?}", since.elapsed());
        let lines = server.stop();
        let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count("syslog is unavailable"), 1, "{lines:#?}");
        let on_stderr = (0..20).filter(|n| count(&format!("away-{n};")) == 1).count();
        let said: u64 = lines.iter().filter_map(|line| lost(line)).sum();
        assert_eq!(on_stderr as u64 + said, 20, "on stderr, or counted as lost: {lines:#?}");
    }
}

#[test]
fn a_connection_that_is_not_read_delays_nobody_and_every_report_is_accounted_for() {
    const N: usize = 3_000;
    let mut daemon = TcpDaemon::at(0, Framing::Lengths);
    let server = loader(&daemon.target()).args(["--syslog-format", "rfc5424"]).serve();
    daemon.wait_for("listening on");
    let (mut connection, long) = (server.connect(), "x".repeat(6_000));
    for n in 0..N {
        let since = Instant::now();
        assert_eq!(connection.get(&format!("/log?text=number-{n};{long}")).status, 200);
        assert!(since.elapsed() < PROMPT, "{:?}", since.elapsed());
    }
    server.wait_for_line("syslog is unavailable (the daemon has stopped reading)");
    // It reads again: what was on its way comes, and then what is said from now on.
    let (mut received, mut back) = (0, false);
    while !back {
        connection.get("/log?text=again");
        while let Some(said) = daemon.next_within(Duration::from_millis(50)) {
            received += usize::from(said.contains("number-"));
            back |= said.contains("syslog is back");
        }
    }
    let lines = server.stop();
    // What it was sent before that may still be under way to the test.
    while let Some(said) = daemon.next_within(Duration::from_millis(500)) {
        received += usize::from(said.contains("number-"));
    }
    let written = lines.iter().filter(|line| line.contains("number-")).count();
    let lost: u64 = lines.iter().filter_map(|line| lost(line)).sum();
    assert_eq!(received + written + lost as usize, N, "{received} received, {written} written, {lost} lost");
    assert!(received > 0 && written > 0);
}

#[test]
fn a_host_that_does_not_answer_or_is_not_there_delays_nobody() {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap();
    // Once its queue is full, the system doesn't answer whoever else wants to connect.
    rustix::net::listen(&deaf, 0).unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200));
    let _queue: Vec<_> = std::iter::from_fn(|| connect().ok()).collect();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for target in [format!("tcp://{address}"), format!("tcp://{nobody}"), format!("udp://{nobody}")] {
        let since = Instant::now();
        let server = loader(&target).serve();
        assert_eq!(load(server.address, "/log?text=spoken", 100, 4), 100);
        server.wait_for_line("syslog is unavailable");
        server.wait_for_line("probe: spoken");
        server.stop();
        assert!(since.elapsed() < Duration::from_secs(10), "{target}: {:?}", since.elapsed());
    }
}

/// How many a line says were lost.
fn lost(line: &str) -> Option<u64> {
    line.strip_suffix(" log lines were lost")?.rsplit(' ').next()?.parse().ok()
}
