//! Streams of HTTP/2 that a lambda takes over (RFC 8441): the same lambdas as over HTTP/1.1, and what is HTTP/2's own:
//! several on a connection, resets, windows, GOAWAY, and what is refused.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    thread,
};

use h2::Reason;
use rustix::process::Signal;

use crate::support::{
    Counts, LONG, Loader, Scratch, Server,
    h2::{Http2, Tunnel},
    plugins::{async_upgrader, axum_upgrader, probe, upgrader},
    versions::Versions,
    wait_until,
    websocket::{BINARY, CLOSE, FIN, PING, PONG, Socket, TEXT, frame},
};

/// The plugins, how they are run, and where their streams are.
fn cases() -> [(PathBuf, &'static str, &'static [&'static str]); 5] {
    [
        (upgrader(), "", &[]),
        (upgrader(), "/own", &["--execution", "inline"]),
        (async_upgrader(), "", &["--execution", "inline"]),
        (async_upgrader(), "/own", &[]),
        (async_upgrader(), "", &["--execution", "pool"]),
    ]
}

fn serve(plugin: &Path, counts: &Counts, args: &[&str]) -> Server {
    Loader::of(plugin).counting(counts).args(["--workers", "1"]).args(args).serve()
}

#[track_caller]
fn hears(tunnel: &mut Tunnel, expected: impl AsRef<[u8]>) {
    let mut found = vec![0; expected.as_ref().len()];
    tunnel.read_exact(&mut found).expect("so many bytes come");
    assert_eq!(found.escape_ascii().to_string(), expected.as_ref().escape_ascii().to_string());
}

#[track_caller]
fn rest(tunnel: &mut Tunnel) -> Vec<u8> {
    let mut rest = Vec::new();
    tunnel.read_to_end(&mut rest).expect("it ends, and isn't reset");
    rest
}

#[test]
fn bytes_go_both_ways_on_several_streams_of_a_connection() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = serve(&plugin, &counts, args);
        let client = Http2::connect(&server);
        assert!(client.is_offered());
        let mut tunnels: Vec<_> = (0..8).map(|_| client.open("echo", &format!("{place}/echo"))).collect();
        for n in 0..50 {
            for (of, tunnel) in tunnels.iter_mut().enumerate() {
                tunnel.write_all(format!("{n} of {of}").as_bytes()).unwrap();
            }
            for (of, tunnel) in tunnels.iter_mut().enumerate() {
                hears(tunnel, format!("{n} of {of}"));
            }
        }
        assert_eq!(client.get("/version").0, 200, "requests are answered beside them");
        // More than the pipes and all windows hold; who reads is on the same connection.
        let large: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
        let [first, second] = tunnels.get_disjoint_mut([0, 1]).unwrap();
        thread::scope(|scope| {
            for tunnel in [first, second] {
                let large = &large;
                scope.spawn(move || {
                    for piece in large.chunks(50_000) {
                        tunnel.write_all(piece).unwrap();
                        hears(tunnel, piece);
                    }
                });
            }
        });
        for tunnel in &mut tunnels {
            tunnel.write_all(b"last").unwrap();
            tunnel.end();
            assert_eq!(rest(tunnel), b"last");
        }
        counts.wait_for("ended", 8);
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn each_end_may_be_closed_alone_and_a_reset_is_a_client_that_leaves() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = serve(&plugin, &counts, args);
        let client = Http2::connect(&server);
        let mut tunnel = client.open("echo", &format!("{place}/half"));
        assert_eq!(rest(&mut tunnel), b"last words");
        tunnel.write_all(&[b'x'; 30_000]).unwrap();
        tunnel.write_all(&[b'x'; 70_000]).unwrap();
        tunnel.end();
        counts.wait_for("heard 100000", 1);
        counts.wait_for("ended", 1);
        // What was written before the stream was dropped arrives, though the client has more to say.
        let mut tunnel = client.open("echo", &format!("{place}/bye"));
        tunnel.write_all(b"more").unwrap();
        assert_eq!(rest(&mut tunnel).len(), 300_000);
        counts.wait_for("ended", 2);
        let mut tunnel = client.open("echo", &format!("{place}/panic"));
        assert_eq!(rest(&mut tunnel), b"");
        for (path, outcome, n) in [("/echo", "gone", 1), ("/source", "gone", 2), ("/deaf", "ended", 3)] {
            let tunnel = client.open("echo", &format!("{place}{path}"));
            tunnel.reset();
            wait_until(path, || counts.of(outcome) == n);
        }
        assert_eq!(client.get("/version").0, 200, "the connection goes on");
        server.stop();
    }
}

#[test]
fn the_lambda_sees_what_http_1_would_have_and_the_client_what_http_2_has() {
    let server = Loader::of(async_upgrader()).serve();
    let client = Http2::connect(&server);
    // An extended CONNECT announces no body, whatever a header says.
    let (status, headers, mut tunnel) =
        client.offer("Echo", "/echo", &[("content-length", "7"), ("expect", "100-continue")]).unwrap();
    assert_eq!((status, headers["x-body"].to_str().unwrap()), (200, "0"));
    tunnel.write_all(b"seven..").unwrap();
    hears(&mut tunnel, b"seven..");
    let version = [("sec-websocket-version", "13")];
    let (status, headers, _tunnel) = client.offer("websocket", "/ws", &version).unwrap();
    assert_eq!((status, headers["x-version"].to_str().unwrap()), (200, "async upgrader 1"));
    for name in ["connection", "upgrade", "sec-websocket-accept", "content-length", "transfer-encoding"] {
        assert!(!headers.contains_key(name), "{headers:?}");
    }
    assert!(headers.contains_key("date"), "{headers:?}");
}

#[test]
fn what_is_not_taken_over_is_no_success_and_leaves_the_connection_in_step() {
    for plugin in [upgrader(), async_upgrader()] {
        let server = Loader::of(plugin).serve();
        let client = Http2::connect(&server);
        let mut lives = client.open("echo", "/echo");
        let version = [("sec-websocket-version", "13")];
        for (protocol, path, headers, status) in [
            // What a lambda answers in HTTP, a client would take for the other protocol.
            ("echo", "/version", &version[..], 501),
            ("echo", "/offered", &version, 501),
            ("echo", "/refuse", &version, 426),
            ("webtransport", "/ws", &version, 426),
            ("webtransport", "/echo", &version, 400),
            ("websocket", "/ws", &[("sec-websocket-version", "8")], 426),
            ("websocket", "/ws", &[], 426),
            ("h2c", "/echo", &version, 400),
            ("TLS", "/version", &version, 501),
        ] {
            let (found, headers, mut answer) = client.offer(protocol, path, headers).unwrap();
            assert_eq!(found, status, "{protocol} {path}");
            assert!(!headers.contains_key("upgrade"), "{headers:?}");
            let mut text = String::new();
            answer.read_to_string(&mut text).expect("the answer is whole");
            assert!(!text.is_empty(), "{protocol} {path}");
            lives.write_all(b"still here").unwrap();
            hears(&mut lives, b"still here");
        }
        for protocol in ["a b", "a,b", "", "a/1", "\u{e9}"] {
            let refused = client.offer(protocol, "/echo", &version).map(|(status, ..)| status);
            let reason = refused.expect_err(protocol).reason();
            assert_eq!(reason, Some(Reason::PROTOCOL_ERROR), "{protocol:?}");
        }
        let lines = server.stop();
        assert!(!lines.iter().any(|line| line.contains("failed")), "{lines:?}");
    }
}

/// The settings of a server's, and how it answers a request of these fields, in HPACK: the reason of a reset, or
/// `None` and the first byte of the answer's head.
fn raw(server: &Server, fields: &[u8]) -> (Vec<u8>, Result<u8, u32>) {
    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    // HEADERS with END_HEADERS, on stream 1.
    let head = [0, 0, u8::try_from(fields.len()).unwrap(), 1, 4, 0, 0, 0, 1];
    stream.write_all(&[HELLO, &head, fields].concat()).unwrap();
    let mut settings = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame comes");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        match head[3] {
            1 => return (settings, Ok(payload[0])),
            3 => return (settings, Err(u32::from_be_bytes(payload[..4].try_into().unwrap()))),
            4 if head[4] == 0 => settings = payload,
            _ => {}
        }
    }
}

#[test]
fn it_is_offered_where_the_lambda_declares_it_and_malformed_forms_are_refused() {
    // SETTINGS_ENABLE_CONNECT_PROTOCOL: 1
    const OFFERED: [u8; 6] = [0, 8, 0, 0, 0, 1];
    let connect = b"\x02\x07CONNECT".as_slice();
    let (protocol, scheme) = (b"\x00\x09:protocol\x04echo".as_slice(), b"\x86".as_slice());
    let (path, authority) = (b"\x04\x05/echo".as_slice(), b"\x01\x01a".as_slice());
    let whole = [connect, protocol, scheme, path, authority].concat();
    let protocol_error = Err(Reason::PROTOCOL_ERROR.into());
    let server = Loader::of(probe()).serve();
    let (settings, answer) = raw(&server, &whole);
    assert_eq!(answer, protocol_error);
    assert!(!settings.chunks(6).any(|setting| setting[1] == 8), "{settings:?}");
    server.stop();
    for plugin in [upgrader(), async_upgrader(), axum_upgrader()] {
        let server = Loader::of(plugin).serve();
        let (settings, _) = raw(&server, &[connect, authority].concat());
        assert!(settings.chunks(6).any(|setting| setting == OFFERED), "{settings:?}");
        for (what, fields) in [
            ("no scheme", [connect, protocol, path, authority].concat()),
            ("no path", [connect, protocol, scheme, authority].concat()),
            ("another scheme", [connect, protocol, b"\x06\x03ftp", path, authority].concat()),
            ("two protocols", [connect, protocol, protocol, scheme, path, authority].concat()),
            ("another method", [b"\x82", protocol, scheme, path, authority].concat()),
            ("a path and no protocol", [connect, scheme, path, authority].concat()),
            ("the header Upgrade", [&whole, &b"\x00\x07upgrade\x04echo"[..]].concat()),
            ("the header Connection", [&whole, &b"\x00\x0aconnection\x07upgrade"[..]].concat()),
        ] {
            assert_eq!(raw(&server, &fields).1, protocol_error, "{what}");
        }
        // 400, as in HTTP/1.1, by its index; and 501, as any CONNECT, by a literal with the name of `:status`.
        assert_eq!(raw(&server, &[connect, protocol, scheme, path].concat()).1, Ok(0x8c));
        assert_eq!(raw(&server, &[connect, authority].concat()).1, Ok(0x48));
        server.stop();
    }
}

#[test]
fn websockets_are_the_same_over_http_2() {
    let cases = cases().into_iter().chain([(axum_upgrader(), "", &[][..])]);
    for (plugin, place, args) in cases {
        let server = Loader::of(&plugin).args(args).serve();
        let client = Http2::connect(&server);
        let open = |path: &str| Socket(client.open("websocket", &format!("{place}{path}")));
        let mut sockets: Vec<_> = (0..10).map(|_| open("/ws")).collect();
        for (n, socket) in sockets.iter_mut().enumerate() {
            let payload: Vec<u8> = (0..100_000).map(|byte| ((byte + n) % 251) as u8).collect();
            socket.sends(FIN | TEXT, b"hello").hears(TEXT, b"hello");
            socket.sends(FIN | BINARY, &payload).hears(BINARY, &payload);
            socket.sends(TEXT, b"frag").sends(FIN, b"ments").hears(TEXT, b"fragments");
            socket.sends(FIN | PING, b"?").hears(PONG, b"?");
        }
        let mut closes = sockets.pop().unwrap();
        closes.sends(FIN | CLOSE, b"\x03\xe8");
        assert_eq!(closes.closes(), 1000);
        let mut wrong = sockets.pop().unwrap();
        wrong.0.write_all(b"\x81\x01a").unwrap();
        // A handler of axum's that gets an error drops its socket.
        assert_eq!(wrong.closes(), if plugin == axum_upgrader() { 1006 } else { 1002 });
        // The connection is asked to leave, and each socket is closed before it does.
        server.signal(Signal::TERM);
        for socket in &mut sockets {
            assert_eq!(socket.closes(), 1001);
        }
        server.ends_with(0);
    }
}

#[cfg(feature = "tls")]
#[test]
fn websockets_come_over_tls_where_the_client_chooses_http_2() {
    use crate::support::tls::Pair;
    for (plugin, place) in [(upgrader(), "/own"), (async_upgrader(), ""), (axum_upgrader(), "")] {
        let scratch = Scratch::new();
        let pair = Pair::new(&scratch, "a");
        let server = pair.of(Loader::of(plugin)).serve();
        let client = Http2::over_tls(&server, &pair.client(&[b"h2", b"http/1.1"]));
        assert!(client.is_offered());
        let mut socket = Socket(client.open("websocket", &format!("{place}/ws")));
        let payload = vec![7; 1 << 20];
        socket.sends(FIN | BINARY, &payload).hears(BINARY, &payload);
        socket.sends(FIN | CLOSE, b"\x03\xe8");
        assert_eq!(socket.closes(), 1000);
        assert_eq!(client.get("/version").0, 200);
        server.stop();
    }
}

#[test]
fn a_lambda_that_does_not_read_holds_its_client_back_and_no_other() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = serve(&plugin, &counts, &[args, &["--drain-timeout", "1s"]].concat());
        let client = Http2::connect(&server);
        let mut other = client.open("echo", &format!("{place}/echo"));
        let before = server.memory();
        let mut deaf = client.open("echo", &format!("{place}/deaf"));
        let mut n_sent = 0;
        // Until the window is empty, though what is on its way has arrived: the other stream's echo comes behind it.
        loop {
            let n = deaf.room().min(16 * 1024);
            deaf.write_all(&vec![0; n]).unwrap();
            n_sent += n;
            other.write_all(b"here").unwrap();
            hears(&mut other, b"here");
            if n == 0 && deaf.room() == 0 {
                break;
            }
        }
        assert!((256 << 10..=512 << 10).contains(&n_sent), "{n_sent} bytes for a lambda that doesn't read");
        assert!(server.memory().saturating_sub(before) < 8 << 20);
        deaf.reset();
        counts.wait_for("ended", 1);
    }
}

#[test]
fn short_messages_for_a_lambda_that_does_not_read_cost_nobody_the_connection() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = serve(&plugin, &counts, &[args, &["--drain-timeout", "1s"]].concat());
        let client = Http2::connect(&server);
        let mut other = client.open("echo", &format!("{place}/echo"));
        let mut deaf = client.open("echo", &format!("{place}/deaf"));
        let before = server.memory();
        // As many as the window and the pipe have room for.
        let mut n_sent = 0;
        while n_sent < 10_000 {
            n_sent += usize::from(deaf.write(&[7; 20]).unwrap() == 20);
        }
        other.write_all(b"still here").unwrap();
        hears(&mut other, b"still here");
        assert!(server.memory().saturating_sub(before) < 8 << 20);
        deaf.reset();
        counts.wait_for("ended", 1);
    }
}

#[test]
fn a_client_that_does_not_read_holds_little_and_is_given_up_in_time() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = serve(&plugin, &counts, &[args, &["--write-timeout", "1s"]].concat());
        let client = Http2::connect(&server);
        let mut other = client.open("echo", &format!("{place}/echo"));
        let before = server.memory();
        let mut unread: Vec<_> = (0..10).map(|_| client.open("echo", &format!("{place}/source"))).collect();
        other.write_all(b"here").unwrap();
        hears(&mut other, b"here");
        counts.wait_for("gone", 10);
        for tunnel in &mut unread {
            assert_eq!(tunnel.is_reset(), Some(Reason::CANCEL));
        }
        let held = server.peak_memory().saturating_sub(before);
        assert!(held < 30 << 20, "{held} bytes for ten streams that nobody reads");
        other.write_all(b"still here").unwrap();
        hears(&mut other, b"still here");
    }
}

#[test]
fn a_stream_on_which_nothing_comes_or_goes_is_closed() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = serve(&plugin, &counts, &[args, &["--upgrade-timeout", "2s"]].concat());
        let client = Http2::connect(&server);
        let mut idle = client.open("echo", &format!("{place}/echo"));
        let mut busy = client.open("echo", &format!("{place}/echo"));
        let (over, mut n_echoes) = (thread::spawn(move || rest(&mut idle)), 0);
        while !over.is_finished() {
            busy.write_all(b"x").unwrap();
            hears(&mut busy, b"x");
            n_echoes += 1;
        }
        assert_eq!(over.join().unwrap(), b"");
        assert!(n_echoes > 10);
        counts.wait_for("timed out", 1);
        busy.write_all(b"y").unwrap();
        hears(&mut busy, b"y");
    }
}

#[test]
fn a_stream_counts_as_no_run_and_holds_up_no_request_of_its_connection() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let limits = [
            "--max-async",
            "1",
            "--admin",
            "127.0.0.1:0",
            "--run-timeout",
            "1s",
            "--held-limit",
            "1MiB",
            "--body-limit",
            "64KiB",
            "--response-limit",
            "64KiB",
        ];
        let server = serve(&plugin, &counts, &[args, &limits].concat());
        let client = Http2::connect(&server);
        let mut tunnels: Vec<_> = (0..60).map(|_| client.open("echo", &format!("{place}/echo"))).collect();
        let state = server.state();
        assert_eq!(
            (&state["running"], &state["generations"][0]["upgraded"]),
            (&0.into(), &60.into()),
            "{state}"
        );
        // Each of the requests is expected to make as much as the ones before it.
        for _ in 0..20 {
            assert_eq!(client.get("/large").1.len(), 20_000);
        }
        for tunnel in &mut tunnels {
            tunnel.write_all(b"still here").unwrap();
            hears(tunnel, b"still here");
            tunnel.end();
        }
        wait_until("all have ended", || server.state()["generations"][0]["upgraded"] == 0);
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn a_swap_leaves_streams_with_their_generation_on_the_same_connection() {
    for (plugin, place, args) in cases() {
        let (versions, counts) = (Versions::of(&plugin), Counts::new());
        let server = serve(versions.file(), &counts, args);
        let client = Http2::connect(&server);
        let mut sockets = Vec::new();
        for generation in 1..=4 {
            if generation > 1 {
                versions.put(generation);
                server.signal(Signal::HUP);
                server.wait_for_line(&format!("generation {generation} serves"));
            }
            sockets.push((generation, Socket(client.open("websocket", &format!("{place}/ws")))));
            for (of, socket) in &mut sockets {
                socket.sends(FIN | TEXT, b"version?").hears(TEXT, versions.name(*of).as_bytes());
            }
        }
        assert_eq!(counts.of("retire"), 0);
        drop(sockets);
        counts.wait_for("retire", 2);
        server.stop();
        assert_eq!((counts.of("retire"), counts.of("stop")), (4, counts.of("context")));
    }
}

#[test]
fn what_is_left_after_the_drains_time_is_reset() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = serve(&plugin, &counts, &[args, &["--drain-timeout", "1s"]].concat());
        let client = Http2::connect(&server);
        let mut tunnels: Vec<_> = (0..3).map(|_| client.open("echo", &format!("{place}/stubborn"))).collect();
        for tunnel in &mut tunnels {
            tunnel.write_all(b"hello").unwrap();
            hears(tunnel, b"hello");
        }
        server.signal(Signal::TERM);
        let lines = server.ends_with(0);
        assert!(
            lines.iter().any(|line| line.contains("3 connections that the lambda has taken over are closed")),
            "{lines:?}"
        );
        for tunnel in &mut tunnels {
            assert!(tunnel.read_to_end(&mut Vec::new()).is_err(), "it doesn't look whole");
        }
        counts.assert_complete();
    }
}

#[test]
fn tiny_frames_and_pings_hold_little() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = serve(&plugin, &counts, args);
        let client = Http2::connect(&server);
        let mut other = Socket(client.open("websocket", &format!("{place}/ws")));
        let mut socket = Socket(client.open("websocket", &format!("{place}/ws")));
        let before = server.memory();
        // A message whose fragments have nothing in them, byte by byte.
        socket.sends(BINARY, b"");
        for _ in 0..1500 {
            frame(0, b"").chunks(1).for_each(|byte| socket.0.write_all(byte).unwrap());
        }
        socket.sends(FIN, b"end").hears(BINARY, b"end");
        (0..5000).for_each(|_| _ = socket.sends(FIN | PING, b"short one"));
        (0..5000).for_each(|_| _ = socket.hears(PONG, b"short one"));
        assert!(server.memory().saturating_sub(before) < 8 << 20);
        other.sends(FIN | TEXT, b"here").hears(TEXT, b"here");
    }
}
