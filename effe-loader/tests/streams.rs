//! Bodies that go piece by piece, both ways.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::fixtures::{pipe, spout, ticker};
use crate::support::{Connection, Counts, LONG, Loader, Server, load, wait_until};

fn serve(counts: &Counts) -> Server {
    Loader::of(spout()).counting(counts).serve()
}

/// All that comes until the server closes, or that it breaks off.
fn all(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_answer_goes_out_piece_by_piece_and_the_connection_is_kept() {
    let counts = Counts::new();
    let server = serve(&counts);
    let mut connection = server.connect();
    for _ in 0..3 {
        let reply = connection.get("/pieces");
        assert_eq!((reply.status, reply.text()), (200, "0 1 2 3 4 5 6 7 8 9 "));
        assert_eq!(reply.text_header("transfer-encoding"), Some("chunked"));
    }
    server.stop();
    counts.assert_complete();
}

#[test]
fn an_answer_that_was_not_flushed_is_sent_whole() {
    let server = Loader::of(spout()).serve();
    let reply = server.get("/");
    assert_eq!((reply.text(), reply.text_header("content-length")), ("ok", Some("2")));
    server.stop();
}

#[test]
fn a_panic_or_an_error_after_the_head_breaks_the_connection_off() {
    let counts = Counts::new();
    let server = serve(&counts);
    for (path, said) in [("/panic", "panicked at"), ("/fail", "a secret of the author's")] {
        let text = all(&server, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("begun"), "{text}");
        assert!(!text.ends_with("0\r\n\r\n") && !text.contains("secret"), "no clean end: {text}");
        server.wait_for_line(said);
    }
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_content_length_is_kept_or_the_connection_is_broken_off() {
    let server = Loader::of(spout()).serve();
    let mut connection = server.connect();
    let reply = connection.get("/exact");
    assert_eq!((reply.text(), reply.text_header("content-length")), ("1234567890", Some("10")));
    assert_eq!(connection.get("/exact").text(), "1234567890", "the connection is kept");
    for path in ["/short", "/long"] {
        let text = all(&server, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert!(text.contains("content-length: 10") && text.ends_with("\r\n\r\n12345"), "{text}");
    }
    server.wait_for_line("not as long as its content-length says");
    server.stop();
}

#[test]
fn heads_without_a_body_have_none_whatever_is_written() {
    let counts = Counts::new();
    let server = serve(&counts);
    let mut connection = server.connect();
    for path in ["/pieces", "/endless", "/exact", "/held-length", "/slow"] {
        let reply = connection.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n")).reply_to_head();
        assert_eq!(reply.status, 200, "{path}");
        let length = match path {
            "/exact" => Some("10"),
            "/held-length" => Some("1234"),
            _ => None,
        };
        assert_eq!(reply.text_header("content-length"), length, "{path}");
    }
    assert_eq!(connection.get("/no-content").status, 204);
    assert_eq!(connection.get("/").text(), "ok", "the connection is in step");
    server.stop();
    counts.assert_complete();
}

#[test]
fn a_bad_header_of_a_stream_is_a_500_and_splits_nothing() {
    let server = Loader::of(spout()).serve();
    let reply = server.get("/bad-header");
    assert_eq!((reply.status, reply.text_header("set-cookie")), (500, None));
    server.stop();
}

#[test]
fn a_run_that_streams_takes_longer_than_a_run_may_take_to_begin() {
    let server = Loader::of(spout()).args(["--run-timeout", "200ms"]).serve();
    assert_eq!(server.get("/slow").text(), "begun and ended");
    server.stop();
}

#[test]
fn a_client_that_leaves_ends_the_run_and_its_context_is_used_again() {
    let counts = Counts::new();
    // One thread: it has given the Context back before it takes up the next request.
    let server = Loader::of(spout()).counting(&counts).args(["--max-concurrency", "1"]).serve();
    for n in 1..=10 {
        let mut connection = server.connect();
        connection.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
        counts.wait_for("begun", n);
        if n % 2 == 0 {
            connection.reset()
        } else {
            drop(connection)
        }
        counts.wait_for("failed", n);
    }
    server.stop();
    assert_eq!(counts.of("context"), 1, "one after the other, with one Context");
}

#[test]
fn a_run_that_writes_nothing_sees_within_a_second_that_its_client_has_left() {
    let counts = Counts::new();
    let server = serve(&counts);
    let mut connection = server.connect();
    connection.send("GET /silent HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("begun", 1);
    let since = Instant::now();
    drop(connection);
    counts.wait_for("ended", 1);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    server.stop();
}

#[test]
fn clients_that_do_not_read_cost_bounded_memory_and_are_cut_off_in_time() {
    let n: usize = std::env::var("EFFE_SLOW").map_or(20, |n| n.parse().unwrap());
    let counts = Counts::new();
    let concurrency = (n + 10).to_string();
    let loader = Loader::of(spout()).counting(&counts);
    let server = loader.args(["--write-timeout", "2s", "--max-concurrency", &concurrency]).serve();
    let mut slow: Vec<Connection> = (0..n).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    counts.wait_for("begun", n);
    assert_eq!(load(server.address, "/", 200, 4), 200, "others are unharmed");
    counts.wait_for("failed", n);
    let mib = server.peak_memory() >> 20;
    assert!(mib < 64 + n * 2, "{mib} MiB for {n} clients");
    eprintln!("{n} clients that don't read cost {mib} MiB at most");
    drop(slow);
    server.stop();
}

#[test]
fn a_body_is_read_as_it_comes_and_comes_back_while_it_still_comes() {
    let server = Loader::of(spout()).serve();
    let mut connection = server.connect();
    connection.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nping\r\n");
    let mut seen = Vec::new();
    while !seen.ends_with(b"ping\r\n") {
        seen.push(connection.byte());
    }
    connection.send("4\r\npong\r\n0\r\n\r\n");
    while !seen.ends_with(b"0\r\n\r\n") {
        seen.push(connection.byte());
    }
    let text = String::from_utf8(seen).unwrap();
    assert!(text.ends_with("4\r\nping\r\n4\r\npong\r\n0\r\n\r\n"), "{text}");
    server.stop();
}

#[test]
fn a_large_body_goes_through_in_both_directions_in_constant_memory() {
    let mib: usize = std::env::var("EFFE_MIB").map_or(64, |n| n.parse().unwrap());
    let server = Loader::of(pipe()).args(["--body-limit", "0"]).serve();
    let mut writer = TcpStream::connect(server.address).unwrap();
    let mut reader = writer.try_clone().unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        mib << 20
    );
    let sender = std::thread::spawn(move || {
        writer.write_all(head.as_bytes()).unwrap();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..mib {
            writer.write_all(&piece).unwrap();
        }
    });
    let (mut n, mut buffer) = (0, vec![0; 1 << 18]);
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            some => n += buffer[..some].iter().filter(|byte| **byte == b'x').count(),
        }
    }
    sender.join().unwrap();
    assert_eq!(n, mib << 20);
    let used = server.peak_memory() >> 20;
    assert!(used <= 32, "{used} MiB");
    eprintln!("{mib} MiB went through in each direction, {used} MiB of memory at most");
    server.stop();
}

#[test]
fn the_limit_of_a_body_is_enforced_on_the_way() {
    let server = Loader::of(spout()).args(["--body-limit", "1000"]).serve();
    let reply = server.connect().post("/length", &[b'x'; 1001]);
    assert_eq!(reply.status, 413, "it says itself that it is too large");
    let mut connection = server.connect();
    connection.send("POST /length HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send("1f4\r\n").send([b'x'; 500]).send("\r\n1f5\r\n").send([b'x'; 501]).send("\r\n0\r\n\r\n");
    let reply = connection.reply();
    assert_eq!(reply.status, 413, "it turns out to be too large");
    let mut connection = server.connect();
    assert_eq!(connection.post("/length", &[b'x'; 1000]).text(), "1000");
    assert_eq!(connection.post("/whole", b"abc").text(), "abc");
    server.stop();
}

#[test]
fn what_is_left_of_a_body_never_becomes_the_next_request() {
    let server = Loader::of(spout()).serve();
    for (path, answer) in [("/unread", "not read"), ("/first", "GET ")] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
        let text = all(
            &server,
            &format!(
                "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{smuggled}\
                 GET /pieces HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
                smuggled.len()
            ),
        );
        assert!(text.contains(answer), "{text}");
        // The rest is read and thrown away, or the connection is closed: both keep it in step.
        let n_answers = text.matches("HTTP/1.1 200 OK").count();
        assert!(n_answers == 1 || text.contains("9 "), "{text}");
    }
    server.stop();
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_body_is_told_to_the_run() {
    let counts = Counts::new();
    let server = serve(&counts);
    let mut connection = server.connect();
    connection.send("POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc");
    counts.wait_for("run", 1);
    drop(connection);
    counts.wait_for("failed", 1);
    server.stop();
    counts.assert_complete();
}

#[test]
fn events_reach_every_client_once_each_and_its_leaving_is_seen_within_a_second() {
    let n: usize = std::env::var("EFFE_CLIENTS").map_or(20, |n| n.parse().unwrap());
    let loader = Loader::of(ticker()).set("every=20").arg("--max-concurrency").arg((n + 10).to_string());
    let server = loader.args(["--admin", "127.0.0.1:0"]).serve();
    let mut clients: Vec<Connection> = (0..n).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nLast-Event-ID: 5\r\n\r\n");
    }
    for client in &mut clients {
        let mut seen = Vec::new();
        while !seen.ends_with(b"data: 10\n\n\r\n") {
            seen.push(client.byte());
        }
        let text = String::from_utf8(seen).unwrap();
        assert!(text.contains("content-type: text/event-stream"), "{text}");
        let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids, ["6", "7", "8", "9", "10"]);
    }
    assert_eq!(server.state()["running"], n);
    drop(clients);
    let since = Instant::now();
    wait_until("every run has ended", || server.state()["running"] == 0);
    let seen = since.elapsed();
    assert!(seen < Duration::from_secs(1), "{seen:?}");
    eprintln!("{n} clients had each event once, and were seen to leave within {seen:?}");
    server.stop();
}

#[test]
fn a_stream_that_runs_when_the_loader_stops_is_finished() {
    let counts = Counts::new();
    let server = serve(&counts);
    let mut connection = server.connect();
    connection.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("run", 1);
    server.signal(Signal::TERM);
    assert_eq!(connection.reply().text(), "begun and ended");
    server.ends_with(0);
    counts.assert_complete();
}

/// Without `--read-timeout` nothing but the client's leaving can end the wait for its body.
#[test]
fn whoever_reads_the_body_of_a_client_that_has_left_is_told_whatever_was_answered_before() {
    let loader = Loader::of(pipe()).args(["--admin", "127.0.0.1:0", "--read-timeout", "0"]);
    let server = loader.args(["--max-concurrency", "40"]).serve();
    for n in 0..40 {
        let mut connection = server.connect();
        if n % 2 == 0 {
            connection.send("HEAD / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhalf");
            assert_eq!(connection.reply_to_head().status, 200);
        } else {
            connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 999999\r\n\r\n");
            connection.send([b'x'; 200_000]);
            (0..20).for_each(|_| _ = connection.byte());
        }
        if n % 3 == 0 {
            connection.reset();
        }
    }
    // What is left is a matter of microseconds.
    server.assert_all_come_free(Duration::from_secs(1));
    assert_eq!(server.connect().post("/", b"served").body, b"served");
    server.stop();
}

/// The answer of a HEAD is over with its head, though the run goes on and the client stays.
#[test]
fn whoever_reads_on_when_the_answer_is_over_is_told_although_the_client_stays() {
    let loader = Loader::of(pipe()).args(["--admin", "127.0.0.1:0", "--read-timeout", "0"]);
    let server = loader.serve();
    let mut connection = server.connect();
    connection.send("HEAD / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhalf");
    assert_eq!(connection.reply_to_head().status, 200);
    server.assert_all_come_free(Duration::from_secs(1));
    assert_eq!(connection.send("full!").post("/", b"served").body, b"served", "the connection is in step");
    server.stop();
}

#[test]
fn a_client_that_only_does_not_read_or_does_not_send_on_is_let_go_in_time() {
    for (what, timeout) in [("--write-timeout", ["1s", "0"]), ("--read-timeout", ["0", "1s"])] {
        let [write, read] = timeout;
        let loader = Loader::of(pipe()).args(["--admin", "127.0.0.1:0", "--body-limit", "0"]);
        let server = loader.args(["--write-timeout", write, "--read-timeout", read]).serve();
        let mut connection = server.connect();
        connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999\r\n\r\nhalf");
        if what == "--write-timeout" {
            // Until the answer, which nobody reads, fills every buffer on the way.
            let writer = std::thread::spawn(move || while connection.try_send([b'x'; 1 << 16]).is_ok() {});
            wait_until("the run has begun", || server.n_busy() == 1);
            writer.join().unwrap();
            server.assert_all_come_free(Duration::from_secs(1));
        } else {
            server.assert_all_come_free(Duration::from_secs(4));
        }
        server.stop();
    }
}

#[test]
fn at_the_end_of_a_drain_who_reads_a_body_or_waits_for_a_reader_is_told() {
    let drain = ["--drain-timeout", "500ms", "--read-timeout", "0", "--write-timeout", "0"];
    let counts = Counts::new();
    let server = Loader::of(spout()).counting(&counts).args(drain).serve();
    let (mut reader, mut writer) = (server.connect(), server.connect());
    reader.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhalf");
    (0..20).for_each(|_| _ = reader.byte());
    writer.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    counts.wait_for("begun", 1);
    server.signal(Signal::TERM);
    let lines = server.ends_with(1);
    assert!(lines.last().unwrap().contains("2 runs were cut off, 0 Contexts"), "{lines:#?}");
    assert_eq!(counts.of("failed"), 2);
    counts.assert_complete();
}

/// The loader reads no further than a run does: what it can see of its client is how the socket ends.
#[test]
fn a_silent_run_is_told_that_its_client_has_left_though_nobody_reads_what_it_has_sent() {
    let counts = Counts::new();
    let server = serve(&counts);
    let body = "Content-Length: 150000\r\n\r\n".to_owned() + &"x".repeat(149_999);
    let kept_back = "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".to_owned();
    let pipelined = "\r\n".to_owned() + &"GET /unread HTTP/1.1\r\nHost: test\r\n\r\n".repeat(4000);
    let rests = [body, kept_back, pipelined];
    for (n, rest) in rests.iter().chain(&rests).enumerate() {
        let mut connection = server.connect();
        connection.send(format!("POST /silent HTTP/1.1\r\nHost: test\r\n{rest}"));
        let mut seen = Vec::new();
        while !seen.ends_with(b"begun\r\n") {
            seen.push(connection.byte());
        }
        let since = Instant::now();
        if n < rests.len() {
            connection.reset();
        } else {
            drop(connection);
        }
        counts.wait_for("ended", n + 1);
        assert!(since.elapsed() < Duration::from_millis(900), "{n}: {:?}", since.elapsed());
    }
    server.stop();
}

/// A body that waits in the socket while the run is elsewhere is read to its end, though its client has closed its
/// side.
#[test]
fn what_came_before_a_client_closed_its_side_is_read_when_the_run_comes_to_it() {
    let server = Loader::of(pipe()).args(["--body-limit", "0"]).serve();
    for n_bytes in [10, 70_000, 1_000_000, 5_000_000] {
        let mut connection = server.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {n_bytes}\r\n\r\n");
        connection.send(head);
        std::thread::scope(|scope| {
            let mut writer = connection.writer();
            scope.spawn(move || {
                writer.write_all(&vec![b'x'; n_bytes]).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let reply = connection.reply();
            assert_eq!((reply.status, reply.body.len()), (200, n_bytes));
        });
    }
    server.stop();
}
