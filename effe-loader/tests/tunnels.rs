//! Connections that a lambda takes over: its 101, the bytes behind it in both directions, who waits for whom, and what
//! a swap and a drain do with them.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Connection, Counts, LONG, Loader, Server,
    plugins::{async_upgrader, probe, upgrader},
    versions::Versions,
    wait_until,
};

/// One way to take a connection over.
struct Case {
    name: &'static str,
    plugin: PathBuf,
    args: &'static [&'static str],
    /// What comes before the path: where the stream is.
    place: &'static str,
}

impl Case {
    fn all() -> Vec<Case> {
        let case = |name, plugin: fn() -> PathBuf, args, place| Case { name, plugin: plugin(), args, place };
        vec![
            case("in a sync run", upgrader, &[], ""),
            case("in a thread of a sync lambda", upgrader, &["--execution", "inline"], "/own"),
            case("in an async run", async_upgrader, &["--execution", "inline"], ""),
            case("in a task of an async lambda", async_upgrader, &[], "/own"),
            case("in an async run on the pool", async_upgrader, &["--execution", "pool"], ""),
        ]
    }

    fn serve(&self, counts: &Counts, args: &[&str]) -> Server {
        println!("{}", self.name);
        let server = Loader::of(&self.plugin).counting(counts).args(["--workers", "1"]).args(self.args);
        server.args(args).serve()
    }

    fn open(&self, server: &Server, path: &str) -> Tunnel {
        Tunnel::open(server, &format!("{}{path}", self.place))
    }
}

/// The client's end of a connection that was taken over.
struct Tunnel(TcpStream);

/// A request that offers the protocol that the lambdas of these tests speak.
fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
}

impl Tunnel {
    #[track_caller]
    fn open(server: &Server, path: &str) -> Tunnel {
        Tunnel::by(server, request(path).as_bytes()).0
    }

    /// Sends a request as it is, and reads the head of the 101.
    #[track_caller]
    fn by(server: &Server, request: &[u8]) -> (Tunnel, String) {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(request).unwrap();
        let head = head(&mut socket);
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        (Tunnel(socket), head)
    }

    #[track_caller]
    fn says(&mut self, bytes: impl AsRef<[u8]>) -> &mut Tunnel {
        self.0.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// The next bytes, as many as are expected.
    #[track_caller]
    fn hears(&mut self, expected: impl AsRef<[u8]>) -> &mut Tunnel {
        let mut found = vec![0; expected.as_ref().len()];
        self.0.read_exact(&mut found).expect("so many bytes come");
        assert_eq!(found.escape_ascii().to_string(), expected.as_ref().escape_ascii().to_string());
        self
    }

    /// All that comes until the other end is closed.
    #[track_caller]
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("it is closed, not reset");
        rest
    }

    fn end(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }
}

/// The bytes up to the empty line.
#[track_caller]
fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("a head comes");
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn bytes_go_both_ways_until_the_client_has_closed_its_end() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &[]);
        let mut tunnel = case.open(&server, "/echo");
        for n in 0..100 {
            let text = format!("message {n}");
            tunnel.says(&text).hears(&text);
        }
        // More than the pipes hold.
        let large: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut writer = tunnel.0.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&large).unwrap());
            tunnel.hears(&large);
        });
        tunnel.says("last").end();
        assert_eq!(tunnel.rest(), b"last");
        counts.wait_for("ended", 1);
        assert_eq!(server.get("/version").status, 200, "others are served meanwhile");
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn the_head_names_the_protocol_and_bytes_behind_the_request_belong_to_it() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &[]);
        let path = format!("{}/echo", case.place);
        let pipelined = format!("{}GET /version HTTP/1.1\r\nHost: h\r\n\r\n", request(&path));
        let (mut tunnel, head) = Tunnel::by(&server, pipelined.as_bytes());
        let head = head.to_ascii_lowercase();
        for line in ["connection: upgrade", "upgrade: echo", "x-body: 0"] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
        }
        for name in ["content-length", "transfer-encoding"] {
            assert!(!head.contains(name), "{head}");
        }
        tunnel.hears("GET /version HTTP/1.1\r\nHost: h\r\n\r\n").end();
        assert_eq!(tunnel.rest(), b"");
        assert_eq!(counts.of("run"), 1);
    }
}

#[test]
fn a_body_comes_before_the_101() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &[]);
        let head = request(&format!("{}/echo", case.place)).replace("\r\n\r\n", "\r\n");
        for (framing, body) in [
            ("Content-Length: 5", "abcde"),
            ("Transfer-Encoding: chunked", "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"),
        ] {
            for protocol in ["echo", "websocket, echo"] {
                let head = head.replace("Upgrade: echo", &format!("Upgrade: {protocol}"));
                let request = format!("{head}{framing}\r\n\r\n{body}then");
                let (mut tunnel, head) = Tunnel::by(&server, request.as_bytes());
                assert!(head.contains("x-body: 5"), "{framing}: {head}");
                tunnel.hears("then");
            }
        }
        // RFC 9110, section 7.8: 100 comes before 101.
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        write!(socket, "{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
        assert!(self::head(&mut socket).starts_with("HTTP/1.1 100 "));
        socket.write_all(b"abcdethen").unwrap();
        assert!(self::head(&mut socket).starts_with("HTTP/1.1 101 "));
        Tunnel(socket).hears("then");
    }
}

#[test]
fn a_refused_upgrade_leaves_the_connection_in_step() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &[]);
        for protocol in ["echo", "websocket", "websocket, echo", "h2c, echo"] {
            let offer = format!("HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n");
            let mut connection = server.connect();
            for _ in 0..3 {
                connection.send(format!("GET /refuse {offer}\r\n"));
                let reply = connection.reply();
                assert_eq!((reply.status, reply.text()), (426, "no, of 0 bytes"), "{protocol}");
                connection.send(format!("POST /refuse {offer}Content-Length: 5\r\n\r\nabcde"));
                assert_eq!(connection.reply().text(), "no, of 5 bytes", "{protocol}");
                connection.send(format!("GET /other {offer}\r\n"));
                let reply = connection.reply();
                assert!(reply.text().contains("doesn't offer to switch to \\\"other\\\""), "{reply:?}");
                // Both at once: what comes behind is another request.
                connection.send(format!("GET /refuse {offer}\r\nGET /version HTTP/1.1\r\nHost: h\r\n\r\n"));
                assert_eq!((connection.reply().status, connection.reply().status), (426, 200));
            }
            connection.send(format!("HEAD /refuse {offer}\r\n"));
            assert_eq!(connection.reply_to_head().status, 426);
            assert_eq!(connection.get("/version").status, 200);
        }
    }
}

#[test]
fn an_offer_is_what_the_rules_say_and_nothing_else() {
    for plugin in [upgrader(), async_upgrader()] {
        let server = Loader::of(plugin).serve();
        for (version, headers, expected) in [
            ("1.1", "Connection: Upgrade\r\nUpgrade: echo\r\n", "echo"),
            ("1.1", "connection: keep-alive, UPGRADE\r\nupgrade: Echo\r\n", "Echo"),
            ("1.1", "Connection: foo\r\nConnection: upgrade\r\nUpgrade: echo\r\n", "echo"),
            ("1.1", "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b/2, echo\r\n", "a, b/2, echo"),
            (
                "1.1",
                "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
                "nothing",
            ),
            ("1.1", "Connection: upgrade\r\nUpgrade: h2c, echo\r\n", "echo"),
            ("1.1", "Connection: upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n", "nothing"),
            ("1.1", "Connection: upgrade\r\nUpgrade: a b\r\n", "nothing"),
            ("1.1", "Connection: upgrade\r\nUpgrade:\r\n", "nothing"),
            ("1.1", "Upgrade: echo\r\n", "nothing"),
            ("1.1", "Connection: upgrade\r\n", "nothing"),
            ("1.1", "Connection: close, upgrade\r\nUpgrade: echo\r\n", "nothing"),
            ("1.1", "Connection: xupgrade\r\nUpgrade: echo\r\n", "nothing"),
            ("1.0", "Connection: upgrade\r\nUpgrade: echo\r\n", "nothing"),
        ] {
            let mut connection = server.connect();
            connection.send(format!("GET /offered HTTP/{version}\r\nHost: h\r\n{headers}\r\n"));
            assert_eq!(connection.reply().text(), expected, "{headers}");
            // A lambda that insists gets an error, and its client an answer in HTTP.
            if expected == "nothing" {
                let mut connection = server.connect();
                connection.send(format!("GET /echo HTTP/{version}\r\nHost: h\r\n{headers}\r\n"));
                assert_eq!(connection.reply().status, 400, "{headers}");
            }
        }
        let mut connection = server.connect();
        connection.send("CONNECT h:80 HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(connection.reply().status, 501);
        assert!(connection.is_closed());
    }
}

#[test]
fn a_lambda_that_has_not_declared_it_ignores_every_offer() {
    let server = Loader::of(probe()).serve();
    let mut connection = server.connect();
    for protocol in ["echo", "websocket", "echo"] {
        connection.send(request("/").replace("echo", protocol));
        assert_eq!(connection.reply().status, 200, "{protocol}");
    }
}

#[test]
fn each_end_may_be_closed_alone() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &[]);
        let mut tunnel = case.open(&server, "/half");
        assert_eq!(tunnel.rest(), b"last words");
        tunnel.says("x".repeat(100_000)).end();
        counts.wait_for("heard 100000", 1);
        counts.wait_for("ended", 1);
        // What was written before the stream was dropped arrives, though the client has more to say.
        let mut tunnel = case.open(&server, "/bye");
        tunnel.says("more");
        assert_eq!(tunnel.rest().len(), 300_000);
    }
}

#[test]
fn a_lambda_that_panics_closes_the_connection_and_the_effe_goes_on() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &[]);
        let mut tunnel = case.open(&server, "/panic");
        assert_eq!(tunnel.rest(), b"");
        assert_eq!(server.get("/version").status, 200);
    }
}

#[test]
fn a_client_that_leaves_is_noticed_by_whoever_reads_or_writes() {
    for case in Case::all() {
        for path in ["/echo", "/source", "/deaf"] {
            let counts = Counts::new();
            let server = case.serve(&counts, &[]);
            let tunnel = case.open(&server, path);
            counts.wait_for("upgraded", 1);
            rustix::net::sockopt::set_socket_linger(&tunnel.0, Some(Duration::ZERO)).unwrap();
            drop(tunnel);
            let outcome = if path == "/deaf" { "ended" } else { "gone" };
            wait_until(outcome, || counts.of(outcome) == 1);
            server.stop();
            counts.assert_complete();
        }
    }
}

#[test]
fn a_client_that_does_not_read_holds_little_and_is_given_up_in_time() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &["--write-timeout", "1s"]);
        let before = server.memory();
        let tunnels: Vec<_> = (0..10).map(|_| case.open(&server, "/source")).collect();
        counts.wait_for("gone", 10);
        let held = server.peak_memory().saturating_sub(before);
        assert!(held < 30 << 20, "{held} bytes for ten clients that don't read");
        drop(tunnels);
        assert_eq!(server.get("/version").status, 200);
    }
}

#[test]
fn a_lambda_that_does_not_read_holds_its_client_back() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &["--drain-timeout", "1s"]);
        let before = server.memory();
        let tunnel = case.open(&server, "/deaf");
        tunnel.0.set_nonblocking(true).unwrap();
        let (mut n_sent, since) = (0, Instant::now());
        while since.elapsed() < Duration::from_millis(500) {
            n_sent += (&tunnel.0).write(&[0; 64 * 1024]).unwrap_or_default();
        }
        assert!(n_sent < 64 << 20, "{n_sent} bytes were taken that nobody reads");
        assert!(server.memory().saturating_sub(before) < 10 << 20);
        server.stop();
    }
}

#[test]
fn a_stream_that_idles_ends_where_the_operator_says_so() {
    for case in Case::all() {
        let counts = Counts::new();
        let args =
            ["--upgrade-timeout", "2s", "--run-timeout", "1s", "--keep-alive", "1s", "--read-timeout", "1s"];
        let server = case.serve(&counts, &args);
        let mut tunnel = case.open(&server, "/echo");
        let since = Instant::now();
        // No other time counts, and something that moves begins it anew.
        while since.elapsed() < Duration::from_secs(4) {
            tunnel.says("x").hears("x");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(tunnel.rest(), b"");
        counts.wait_for("timed out", 1);
        assert!(since.elapsed() > Duration::from_secs(5));
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn a_drain_tells_the_lambda_and_waits_for_it() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &[]);
        let mut tunnels: Vec<_> = (0..5).map(|_| case.open(&server, "/echo")).collect();
        let mut deaf = case.open(&server, "/deaf");
        for tunnel in &mut tunnels {
            tunnel.says("hello").hears("hello");
        }
        server.signal(Signal::TERM);
        for tunnel in &mut tunnels {
            assert_eq!(tunnel.rest(), b"going away");
        }
        assert_eq!(deaf.rest(), b"");
        let lines = server.ends_with(0);
        assert!(!lines.iter().any(|line| line.contains("time to stop is over")), "{lines:?}");
        assert_eq!(counts.of("away"), 5);
        if case.place.is_empty() {
            assert_eq!(counts.of("cancelled"), 6, "the request says so too");
        }
        counts.assert_complete();
    }
}

#[test]
fn what_is_left_after_the_drains_time_is_closed_and_no_context_is_abandoned() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &["--drain-timeout", "1s"]);
        let mut tunnels: Vec<_> = (0..3).map(|_| case.open(&server, "/stubborn")).collect();
        for tunnel in &mut tunnels {
            tunnel.says("hello").hears("hello");
        }
        server.signal(Signal::TERM);
        for tunnel in &mut tunnels {
            let _ = tunnel.0.read_to_end(&mut Vec::new());
        }
        let lines = server.ends_with(0);
        let line =
            lines.iter().find(|line| line.contains("the time to stop is over")).expect("the log says so");
        assert!(line.contains("3 connections that the lambda has taken over are closed"), "{line}");
        counts.assert_complete();
    }
}

#[test]
fn a_stream_is_a_connection_and_no_run() {
    for case in Case::all() {
        let counts = Counts::new();
        let args = ["--max-async", "1", "--max-idle", "1", "--admin", "127.0.0.1:0", "--run-timeout", "1s"];
        let server = case.serve(&counts, &args);
        let mut tunnels: Vec<_> = (0..4).map(|_| case.open(&server, "/echo")).collect();
        assert_eq!(server.get("/version").status, 200);
        let state = server.state();
        assert_eq!(state["running"], 0, "{state}");
        assert_eq!(state["generations"][0]["upgraded"], 4, "{state}");
        if !case.place.is_empty() {
            wait_until("its Contexts are back", || {
                let contexts = &server.state()["generations"][0]["contexts"];
                contexts["live"] == contexts["idle"]
            });
        }
        std::thread::sleep(Duration::from_millis(1500));
        for tunnel in &mut tunnels {
            tunnel.says("still here").hears("still here").end();
        }
        wait_until("all have ended", || server.state()["generations"][0]["upgraded"] == 0);
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn a_swap_leaves_streams_with_their_generation_and_retire_waits_for_them() {
    for case in Case::all() {
        let counts = Counts::new();
        let versions = Versions::of(&case.plugin);
        let case = Case { plugin: versions.file().to_owned(), ..case };
        let server = case.serve(&counts, &["--admin", "127.0.0.1:0"]);
        let mut tunnels = Vec::new();
        for n in 1..=4_u8 {
            if n > 1 {
                versions.put(n.into());
                server.signal(Signal::HUP);
                server.wait_for_line(&format!("generation {n} serves"));
            }
            tunnels.push((n, case.open(&server, "/echo")));
            for (of, tunnel) in &mut tunnels {
                tunnel.says("version?");
                let mut version = [0; 16];
                tunnel.0.read_exact(&mut version).unwrap();
                assert_eq!(version[15], b'0' + *of, "each is with the generation that it began with");
            }
        }
        let state = server.state();
        let held: Vec<_> =
            state["generations"].as_array().unwrap().iter().map(|one| &one["upgraded"]).collect();
        assert_eq!(held, [1; 4], "{state}");
        let metrics = String::from_utf8(server.ask("/metrics").body).unwrap();
        for n in 1..=4 {
            let line = format!("effe_upgraded_connections{{generation=\"{n}\"}} 1");
            assert!(metrics.contains(&line), "{line}: {metrics}");
        }
        assert_eq!(counts.of("retire"), 0);
        // Those that leave retire once their last stream has ended, and not the one that serves, nor the one before.
        drop(tunnels);
        counts.wait_for("retire", 2);
        server.stop();
        assert_eq!((counts.of("retire"), counts.of("stop")), (4, counts.of("context")));
    }
}

#[test]
fn a_draining_effe_takes_no_connection_over() {
    let server = Loader::of(upgrader()).args(["--drain-delay", "2s"]).serve();
    server.signal(Signal::TERM);
    server.wait_for_line("SIGTERM");
    let mut connection = Connection::open(server.address);
    connection.send(request("/echo"));
    assert_eq!(connection.reply().status, 400);
    server.ends_with(0);
}
