//! WebSockets of lambdas (RFC 6455): the handshake, and a table after the groups of Autobahn's test suite, which needs
//! a Python of long ago: framing, pings, reserved bits and opcodes, fragments, UTF-8, closing, limits. Then sockets
//! across swaps and a drain, and a client that is not ours.

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    Counts, LONG, Loader, Scratch, Server,
    plugins::{async_upgrader, axum_upgrader, example, patched, upgrader, workspace},
    wait_until,
};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// The bit that says that a frame is its message's last.
const FIN: u8 = 0x80;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The client's end of a WebSocket.
struct Socket(TcpStream);

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// A frame as a client sends it. `first` is the opcode, with [`FIN`] or without.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 250];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

impl Socket {
    #[track_caller]
    fn open(server: &Server, path: &str) -> Socket {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(handshake(path).as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("a head comes");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The example of RFC 6455, section 1.3.
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        Socket(socket)
    }

    #[track_caller]
    fn sends(&mut self, first: u8, payload: &[u8]) -> &mut Socket {
        self.0.write_all(&frame(first, payload)).unwrap();
        self
    }

    /// The next frame: its first byte and its payload; `None` at the end.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.0.read_exact(&mut len).ok()?;
                usize::from(u16::from_be_bytes(len))
            }
            127 => {
                let mut len = [0; 8];
                self.0.read_exact(&mut len).ok()?;
                u64::from_be_bytes(len) as usize
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[0], payload))
    }

    #[track_caller]
    fn hears(&mut self, opcode: u8, payload: &[u8]) -> &mut Socket {
        let (first, found) = self.next().expect("a frame comes");
        let same = first == FIN | opcode && found == payload;
        assert!(same, "{first:#x} {:.200}", found.escape_ascii().to_string());
        self
    }

    /// Waits for a close frame and the end behind it; the code, 1005 for none, 1006 if no frame comes.
    fn closes(&mut self) -> u16 {
        let mut code = 1006;
        while let Some((first, payload)) = self.next() {
            if first == FIN | CLOSE {
                code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                // A client that agrees.
                let _ = self.0.write_all(&frame(FIN | CLOSE, &payload));
            }
        }
        code
    }
}

/// The plugins, and where their sockets are.
fn cases() -> [(PathBuf, &'static str, &'static [&'static str]); 4] {
    [
        (upgrader(), "", &[]),
        (upgrader(), "/own", &[]),
        (async_upgrader(), "", &["--execution", "inline"]),
        (async_upgrader(), "/own", &[]),
    ]
}

#[test]
fn a_bad_handshake_is_refused_and_the_connection_stays_in_step() {
    for plugin in [upgrader(), async_upgrader()] {
        let server = Loader::of(plugin).serve();
        let good = handshake("/ws");
        for (from, to, status) in [
            ("Upgrade: websocket\r\n", "", 426),
            ("Upgrade: websocket", "Upgrade: echo", 426),
            ("Connection: keep-alive, Upgrade", "Connection: keep-alive", 426),
            ("Version: 13", "Version: 8", 426),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("GET ", "POST ", 400),
            (KEY, "short", 400),
            (KEY, "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ] {
            assert!(good.contains(from));
            let mut connection = server.connect();
            connection.send(good.replace(from, to));
            let reply = connection.reply();
            assert_eq!(
                (reply.status, reply.text_header("sec-websocket-version")),
                (status, Some("13")),
                "{to}"
            );
            if status == 426 {
                assert_eq!(reply.text_header("upgrade"), Some("websocket"));
            }
            if from.starts_with("Connection") {
                continue;
            }
            assert_eq!(connection.get("/version").status, 200, "{to}");
        }
        let lines = server.stop();
        assert!(
            !lines.iter().any(|line| line.contains("lambda")),
            "what a client does is no fault: {lines:?}"
        );
    }
}

/// A name, the frames that a client sends, kind and content of those that come back, and the code of the close, or 0.
type Exchanged = (&'static str, Vec<Vec<u8>>, Vec<(u8, Vec<u8>)>, u16);

/// What a client sends, and the code with which the socket is closed then; before that, everything that is a message
/// comes back.
#[test]
fn the_protocol_is_kept_group_by_group() {
    let close = |code: u16, reason: &[u8]| frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat());
    let text = |text: &[u8]| frame(FIN | TEXT, text);
    let euro = "κόσμε €𝄞".as_bytes();
    let rows: Vec<Exchanged> = vec![
        (
            "2 a ping with a payload",
            vec![frame(FIN | PING, b"payload")],
            vec![(PONG, b"payload".to_vec())],
            0,
        ),
        ("2 the largest ping", vec![frame(FIN | PING, &[7; 125])], vec![(PONG, vec![7; 125])], 0),
        ("2 a ping that is too large", vec![frame(FIN | PING, &[7; 126])], vec![], 1002),
        (
            "2 a pong that nobody asked for",
            vec![frame(FIN | PONG, b"x"), text(b"a")],
            vec![(TEXT, b"a".to_vec())],
            0,
        ),
        (
            "3 a reserved bit",
            vec![text(b"a"), frame(FIN | 0x40 | TEXT, b"b")],
            vec![(TEXT, b"a".to_vec())],
            1002,
        ),
        ("3 another", vec![frame(FIN | 0x20 | BINARY, b"b")], vec![], 1002),
        ("3 in a ping", vec![frame(FIN | 0x10 | PING, b"b")], vec![], 1002),
        ("4 a reserved opcode", vec![frame(FIN | 3, b"b")], vec![], 1002),
        ("4 of a control frame", vec![frame(FIN | 11, b"b")], vec![], 1002),
        ("5 two fragments", vec![frame(TEXT, b"a"), frame(FIN, b"b")], vec![(TEXT, b"ab".to_vec())], 0),
        (
            "5 a ping between them",
            vec![frame(BINARY, b"a"), frame(FIN | PING, b"p"), frame(0, b""), frame(FIN, b"b")],
            vec![(PONG, b"p".to_vec()), (BINARY, b"ab".to_vec())],
            0,
        ),
        ("5 a fragmented ping", vec![frame(PING, b"a"), frame(FIN, b"b")], vec![], 1002),
        ("5 a fragment of nothing", vec![frame(FIN, b"b")], vec![], 1002),
        ("5 a message within another", vec![frame(TEXT, b"a"), text(b"b")], vec![], 1002),
        ("6 UTF-8", vec![text(euro)], vec![(TEXT, euro.to_vec())], 0),
        (
            "6 cut within a character",
            vec![frame(TEXT, &euro[..1]), frame(FIN, &euro[1..])],
            vec![(TEXT, euro.to_vec())],
            0,
        ),
        ("6 no UTF-8", vec![text(b"\xce\xba\xff")], vec![], 1007),
        ("6 a surrogate", vec![text(b"\xed\xa0\x80")], vec![], 1007),
        ("6 cut off", vec![text(&euro[..1])], vec![], 1007),
        ("6 in a fragment", vec![frame(TEXT, b"a"), frame(FIN, b"\xff")], vec![], 1007),
        ("6 any bytes are binary", vec![frame(FIN | BINARY, b"\xff")], vec![(BINARY, b"\xff".to_vec())], 0),
        ("7 closed in order", vec![text(b"a"), close(1000, b"bye")], vec![(TEXT, b"a".to_vec())], 1000),
        ("7 without a code", vec![frame(FIN | CLOSE, b"")], vec![], 1005),
        ("7 with half a code", vec![frame(FIN | CLOSE, b"\x03")], vec![], 1002),
        ("7 what comes behind it is ignored", vec![close(1000, b""), text(b"a")], vec![], 1000),
        ("7 with a code of one's own", vec![close(3000, b"")], vec![], 3000),
        ("7 of the last", vec![close(4999, b"")], vec![], 4999),
        ("7 with a code that is none", vec![close(999, b"")], vec![], 1002),
        ("7 with one that is never sent", vec![close(1005, b"")], vec![], 1002),
        ("7 with another of these", vec![close(1006, b"")], vec![], 1002),
        ("7 with one that is reserved", vec![close(1100, b"")], vec![], 1002),
        ("7 a reason that is no UTF-8", vec![close(1000, b"\xff")], vec![], 1007),
        ("10 a frame without a mask", vec![b"\x81\x01a".to_vec()], vec![], 1002),
    ];
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = Loader::of(plugin).counting(&counts).args(["--workers", "1"]).args(args).serve();
        for (name, sent, expected, code) in &rows {
            println!("{name}");
            // All at once, and byte by byte.
            for at_a_time in [usize::MAX, 1] {
                let mut socket = Socket::open(&server, &format!("{place}/ws"));
                for bytes in sent.concat().chunks(at_a_time.min(1 << 20)) {
                    let _ = socket.0.write_all(bytes);
                }
                for (opcode, payload) in expected {
                    socket.hears(*opcode, payload);
                }
                if *code == 0 {
                    socket.sends(FIN | CLOSE, &1001_u16.to_be_bytes());
                    assert_eq!(socket.closes(), 1001, "{name}");
                } else {
                    assert_eq!(socket.closes(), *code, "{name}");
                }
            }
        }
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn messages_of_every_size_come_back() {
    for (plugin, place, args) in cases() {
        let server = Loader::of(plugin).args(args).serve();
        let mut socket = Socket::open(&server, &format!("{place}/ws"));
        for len in [0, 1, 125, 126, 127, 128, 4095, 4096, 65535, 65536, 65537, 1 << 20] {
            let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            socket.sends(FIN | BINARY, &payload).hears(BINARY, &payload);
        }
        // Many at once.
        let all: Vec<u8> = (0..1000).flat_map(|n: u32| frame(FIN | BINARY, &n.to_be_bytes())).collect();
        socket.0.write_all(&all).unwrap();
        for n in 0..1000_u32 {
            socket.hears(BINARY, &n.to_be_bytes());
        }
    }
}

#[test]
fn limits_close_a_socket_with_1009_before_much_has_come() {
    for (plugin, place, args) in cases() {
        let server = Loader::of(plugin).args(args).serve();
        let before = server.memory();
        let path = format!("{place}/ws-small");
        let mut socket = Socket::open(&server, &path);
        socket.sends(FIN | BINARY, &[0; 500]).hears(BINARY, &[0; 500]);
        // A head that announces more than a frame may have, and nothing of it.
        socket.0.write_all(&[FIN | BINARY, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]).unwrap();
        assert_eq!(socket.closes(), 1009);
        // Fragments without an end.
        let mut socket = Socket::open(&server, &path);
        socket.sends(BINARY, &[0; 400]);
        for _ in 0..3 {
            let _ = socket.0.write_all(&frame(0, &[0; 400]));
        }
        assert_eq!(socket.closes(), 1009);
        // Even of nothing.
        let mut socket = Socket::open(&server, &path);
        socket.sends(BINARY, b"");
        let nothing = frame(0, b"").repeat(10_000);
        (0..20).for_each(|_| socket.0.write_all(&nothing).unwrap());
        socket.sends(FIN, b"end").hears(BINARY, b"end");
        assert!(server.memory().saturating_sub(before) < 10 << 20);
    }
}

#[test]
fn a_flood_of_pings_that_nobody_reads_the_answers_of_holds_little() {
    for (plugin, place, args) in cases() {
        let server = Loader::of(plugin).args(["--write-timeout", "1s"]).args(args).serve();
        let before = server.memory();
        let mut flood = Socket::open(&server, &format!("{place}/ws"));
        let mut other = Socket::open(&server, &format!("{place}/ws"));
        flood.0.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
        let pings = frame(FIN | PING, &[0; 125]).repeat(1000);
        // Until the server has enough of it, or for long enough.
        let is_over = (0..200).any(|_| flood.0.write_all(&pings).is_err());
        assert!(server.peak_memory().saturating_sub(before) < 20 << 20, "given up: {is_over}");
        other.sends(FIN | TEXT, b"still here").hears(TEXT, b"still here");
    }
}

#[test]
fn a_lambda_closes_with_its_own_code() {
    for (plugin, place, args) in cases() {
        let server = Loader::of(plugin).args(args).serve();
        let mut socket = Socket::open(&server, &format!("{place}/ws-close"));
        socket.hears(CLOSE, b"\x0f\xa1enough");
        socket.sends(FIN | CLOSE, b"\x0f\xa1");
        assert_eq!(socket.next(), None);
    }
}

#[test]
fn a_drain_closes_every_socket_with_1001() {
    for (plugin, place, args) in cases() {
        let counts = Counts::new();
        let server = Loader::of(plugin).counting(&counts).args(args).serve();
        let mut sockets: Vec<_> = (0..20).map(|_| Socket::open(&server, &format!("{place}/ws"))).collect();
        for socket in &mut sockets {
            socket.sends(FIN | TEXT, b"hello").hears(TEXT, b"hello");
        }
        // In the middle of a message, too.
        sockets[0].sends(TEXT, b"half");
        server.signal(Signal::TERM);
        for socket in &mut sockets {
            assert_eq!(socket.closes(), 1001);
        }
        server.ends_with(0);
        assert_eq!(counts.of("closed with Some(1001)"), 20);
        counts.assert_complete();
    }
}

#[test]
fn sockets_that_echo_through_swaps_are_neither_dropped_nor_mixed_up() {
    for (plugin, place, args) in cases() {
        let (scratch, counts) = (Scratch::new(), Counts::new());
        let file = scratch.join("served.so");
        let bytes = fs::read(&plugin).unwrap();
        let is_sync = bytes.windows(16).any(|window| window == b"upgrader, vers 1");
        let name =
            |n: u8| if is_sync { format!("upgrader, vers {n}") } else { format!("async upgrader {n}") };
        fs::write(&file, &bytes).unwrap();
        let server = Loader::of(&file).counting(&counts).args(args).serve();
        let mut sockets = Vec::new();
        for generation in 1..=5_u8 {
            if generation > 1 {
                let next = patched(&bytes, name(1).as_bytes(), name(generation).as_bytes());
                fs::rename(scratch.write("new.so", next), &file).unwrap();
                // Messages are on their way meanwhile.
                for (n, (_, socket)) in sockets.iter_mut().enumerate() {
                    Socket::sends(socket, FIN | TEXT, format!("{n} in {generation}").as_bytes());
                }
                server.signal(Signal::HUP);
                server.wait_for_line(&format!("generation {generation} serves"));
                for (n, (_, socket)) in sockets.iter_mut().enumerate() {
                    socket.hears(TEXT, format!("{n} in {generation}").as_bytes());
                }
            }
            for _ in 0..10 {
                sockets.push((generation, Socket::open(&server, &format!("{place}/ws"))));
            }
            for (of, socket) in &mut sockets {
                socket.sends(FIN | TEXT, b"version?").hears(TEXT, name(*of).as_bytes());
            }
        }
        for (_, socket) in &mut sockets {
            socket.sends(FIN | CLOSE, b"\x03\xe8");
            assert_eq!(socket.closes(), 1000);
        }
        wait_until("three have retired", || counts.of("retire") == 3);
        server.stop();
        assert_eq!(counts.of("closed with Some(1000)"), 50);
        assert_eq!((counts.of("retire"), counts.of("stop")), (5, counts.of("context")));
    }
}

#[test]
fn axums_own_websocket_works_as_it_stands() {
    let server = Loader::of(axum_upgrader()).args(["--admin", "127.0.0.1:0"]).serve();
    let mut sockets: Vec<_> = (0..20).map(|_| Socket::open(&server, "/ws")).collect();
    for (n, socket) in sockets.iter_mut().enumerate() {
        let payload: Vec<u8> = (0..100_000).map(|byte| ((byte + n) % 251) as u8).collect();
        socket.sends(FIN | TEXT, b"hello").hears(TEXT, b"hello");
        socket.sends(FIN | BINARY, &payload).hears(BINARY, &payload);
        socket.sends(TEXT, b"frag").sends(FIN, b"ments").hears(TEXT, b"fragments");
    }
    let state = server.state();
    let generation = &state["generations"][0];
    assert_eq!((&generation["upgraded"], &state["running"]), (&20.into(), &0.into()), "{state}");
    wait_until("its Contexts are back", || {
        let contexts = &server.state()["generations"][0]["contexts"];
        contexts["live"] == contexts["idle"]
    });
    // What axum refuses is refused, and the connection stays in step; so are other offers.
    let mut connection = server.connect();
    for (from, to, status) in
        [("Version: 13", "Version: 8", 400), ("Upgrade: websocket", "Upgrade: foo", 400)]
    {
        connection.send(handshake("/ws").replace(from, to));
        assert_eq!(connection.reply().status, status, "{to}");
    }
    let offer =
        handshake("/length").replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nabcde");
    connection.send(offer);
    assert_eq!(connection.reply().text(), "5");
    assert_eq!(connection.get("/version").text(), "axum");
    let mut closes = sockets.pop().unwrap();
    closes.sends(FIN | CLOSE, b"\x03\xe8");
    assert_eq!(closes.closes(), 1000);
    let leaves = sockets.pop().unwrap();
    drop(leaves);
    wait_until("both are given back", || server.state()["generations"][0]["upgraded"] == 18);
    server.signal(Signal::TERM);
    for socket in &mut sockets {
        assert_eq!(socket.closes(), 1001);
    }
    server.ends_with(0);
}

#[test]
fn in_the_chat_all_hear_what_one_says() {
    let server = Loader::of(example("chat")).serve();
    let page = server.get("/");
    assert!(page.text().contains(r#"new URL("chat""#), "the page knows where the socket is");
    assert_eq!(server.get("/chat").status, 426);
    let mut guests = Vec::new();
    // Who has said something hears it, and so hears the others from then on.
    for n in 0..10 {
        guests.push(Socket::open(&server, &format!("/chat?guest{n}")));
        guests[n].sends(FIN | TEXT, b"here");
        let said = format!("guest{n}: here");
        guests.iter_mut().for_each(|guest| _ = guest.hears(TEXT, said.as_bytes()));
    }
    drop(guests.pop());
    guests[0].sends(FIN | TEXT, "who has left?".as_bytes());
    guests.iter_mut().for_each(|guest| _ = guest.hears(TEXT, b"guest0: who has left?"));
    server.signal(Signal::TERM);
    guests.iter_mut().for_each(|guest| assert_eq!(guest.closes(), 1001));
    server.ends_with(0);
}

#[test]
fn sockets_that_idle_take_little() {
    let server = Loader::of(async_upgrader()).args(["--workers", "2"]).serve();
    let first = Socket::open(&server, "/own/ws");
    let before = server.memory();
    let sockets: Vec<_> = (0..400).map(|_| Socket::open(&server, "/own/ws")).collect();
    let each = server.memory().saturating_sub(before) / sockets.len();
    println!("{} KiB for each", each >> 10);
    assert!(each < 24 << 10, "{each} bytes for a socket that idles");
    drop(first);
}

/// A Python that has the package `websockets`, which is not ours.
fn python() -> Option<PathBuf> {
    let own = workspace().join("out/python/bin/python");
    let candidates = [own, "python3".into()];
    let has = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import websockets"]).output().is_ok_and(|output| output.status.success())
    };
    candidates.into_iter().find(has)
}

#[test]
fn the_client_of_pypi_agrees() {
    let Some(python) = python() else {
        println!("skipped: no Python with the package websockets");
        return;
    };
    let script = r#"
import asyncio, sys, websockets

async def one(uri, n):
    async with websockets.connect(uri) as socket:
        for text in ("hello", "", "é€" * 1000, "x" * 200_000):
            await socket.send(f"{n} {text}")
            assert await socket.recv() == f"{n} {text}"
        await socket.send(bytes(range(256)) * 100)
        assert await socket.recv() == bytes(range(256)) * 100
        await socket.send(["frag", "ments"])
        assert await socket.recv() == "fragments"
        await (await socket.ping(b"are you there"))
    assert socket.close_code == 1000, socket.close_code

async def main():
    await asyncio.gather(*(one(sys.argv[1], n) for n in range(50)))
    print("all 50 agreed")

asyncio.run(main())
"#;
    for (plugin, place, args) in cases().into_iter().chain([(axum_upgrader(), "", &[][..])]) {
        let server = Loader::of(plugin).args(args).serve();
        let uri = format!("ws://{}{place}/ws", server.address);
        let mut command = Command::new(&python);
        // A proxy of the machine's is not meant for it.
        for (name, _) in env::vars().filter(|(name, _)| name.to_lowercase().ends_with("_proxy")) {
            command.env_remove(name);
        }
        let output = command.args(["-c", script, &uri]).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && stdout.contains("all 50 agreed"), "{stdout}\n{stderr}");
        server.stop();
    }
}
