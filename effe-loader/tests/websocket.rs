//! WebSockets of lambdas (RFC 6455): the handshake, messages of every size, limits, sockets across swaps and
//! a drain, and a client that is not ours. The cases of Autobahn's test suite are in `websocket_cases`.

use std::{
    env,
    io::Write,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Counts, Loader, Scratch,
    plugins::{async_upgrader, axum_upgrader, example, upgrader, workspace},
    versions::Versions,
    wait_until,
    websocket::{BINARY, CLOSE, FIN, KEY, PING, Socket, TEXT, frame, handshake},
};

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
        let held = server.peak_memory().saturating_sub(before);
        assert!(held < 20 << 20, "{held} bytes for {place}; given up: {is_over}");
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
        let (versions, counts) = (Versions::of(&plugin), Counts::new());
        let server = Loader::of(versions.file()).counting(&counts).args(args).serve();
        let mut sockets = Vec::new();
        for generation in 1..=5 {
            if generation > 1 {
                versions.put(generation);
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
                socket.sends(FIN | TEXT, b"version?").hears(TEXT, versions.name(*of).as_bytes());
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

/// How many of something there are: what the variable says, or few.
fn n_of(variable: &str, few: usize) -> usize {
    env::var(variable).map_or(few, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

#[test]
fn sockets_that_idle_take_little() {
    let n = n_of("EFFE_IDLE", 400);
    let most = (n + 100).to_string();
    let server = Loader::of(async_upgrader()).args(["--workers", "2", "--max-connections", &most]).serve();
    let first = Socket::open(&server, "/own/ws");
    let before = server.memory();
    let mut sockets: Vec<_> = (0..n).map(|_| Socket::open(&server, "/own/ws")).collect();
    let each = server.memory().saturating_sub(before) / n;
    // The most so far, as the benchmarks measure it.
    let all = server.peak_memory() as f64 / f64::from(1 << 20);
    println!("{n} idle WebSockets: {each} bytes for each, {all:.0} MiB in all");
    assert!(each < 14 << 10, "{each} bytes for a socket that idles");
    assert!(n < 10_000 || all <= 140.0, "{all} MiB");
    for socket in sockets.iter_mut().step_by(97) {
        socket.sends(FIN | TEXT, b"hello").hears(TEXT, b"hello");
    }
    drop(first);
}

#[test]
fn no_socket_is_dropped_or_mixed_up_while_swaps_happen_and_a_drain_closes_all() {
    let (n_sockets, n_swaps) = (n_of("EFFE_SOCKETS", 40), n_of("EFFE_SWAPS", 4));
    let (versions, counts) = (Versions::of(&async_upgrader()), Counts::new());
    let server = Loader::of(versions.file()).counting(&counts).args(["--workers", "2"]).serve();
    let (is_over, n_echoes, generation) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(1));
    let (mut sockets, n_each) = (Vec::new(), n_sockets.div_ceil(8));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (server, is_over, n_echoes, generation) = (&server, &is_over, &n_echoes, &generation);
                scope.spawn(move || {
                    let open = || {
                        let before = generation.load(Ordering::SeqCst);
                        let mut socket = Socket::open(server, "/own/ws");
                        socket.sends(FIN | TEXT, b"version?");
                        let (_, version) = socket.next().expect("it answers");
                        let (after, version) = (generation.load(Ordering::SeqCst), version[15]);
                        // Which of these it met can't be told from here.
                        let could = (before..=after + 1).any(|n| version == b'0' + (n % 10) as u8);
                        assert!(could, "of {before} to {after} it is {}", version as char);
                        (version, socket)
                    };
                    let mut mine: Vec<_> = (0..n_each).map(|_| open()).collect();
                    let mut n = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        for (of, (_, socket)) in mine.iter_mut().enumerate() {
                            let text = format!("{n} of {of} of {client}");
                            socket.sends(FIN | TEXT, text.as_bytes()).hears(TEXT, text.as_bytes());
                        }
                        n_echoes.fetch_add(mine.len(), Ordering::Relaxed);
                        // One leaves, and another one comes.
                        let at = n % mine.len();
                        mine[at].1.sends(FIN | CLOSE, b"\x03\xe8");
                        assert_eq!(mine[at].1.closes(), 1000);
                        mine[at] = open();
                        n += 1;
                    }
                    for (version, socket) in &mut mine {
                        socket.sends(FIN | TEXT, b"version?");
                        let (_, now) = socket.next().expect("it answers");
                        assert_eq!(now[15], *version, "it has kept its generation");
                    }
                    mine
                })
            })
            .collect();
        for n in 2..=n_swaps + 1 {
            let before = n_echoes.load(Ordering::Relaxed);
            versions.put(n);
            server.signal(Signal::HUP);
            server.wait_for_line(&format!("generation {n} serves"));
            generation.store(n, Ordering::SeqCst);
            wait_until("all have echoed", || n_echoes.load(Ordering::Relaxed) >= before + n_sockets);
        }
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| sockets.extend(client.join().unwrap()));
    });
    let begun = Instant::now();
    server.signal(Signal::TERM);
    for (_, socket) in &mut sockets {
        assert_eq!(socket.closes(), 1001);
    }
    let took = begun.elapsed();
    server.ends_with(0);
    assert_eq!(counts.of("closed with Some(1001)"), sockets.len());
    assert_eq!((counts.of("retire"), counts.of("stop")), (n_swaps + 1, counts.of("context")));
    println!(
        "{} echoes of {} WebSockets during {n_swaps} swaps, none dropped, none mixed up; a drain closed all in {:.1} s",
        n_echoes.load(Ordering::Relaxed),
        sockets.len(),
        took.as_secs_f64()
    );
}

/// Whether a program is there, which is asked for its version.
fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn two_pages_of_the_chat_talk_with_one_another_in_chromium() {
    if !is_there("chromedriver") || !is_there("python3") {
        println!("skipped: there is no chromedriver");
        return;
    }
    let scratch = Scratch::new();
    let server = Loader::of(example("chat")).serve();
    let script = workspace().join("effe-loader/tests/support/chat_pages.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(format!("http://{}/", server.address)).arg(scratch.join("chromium"));
    // A proxy of the machine's is not meant for it.
    for (name, _) in env::vars().filter(|(name, _)| name.to_lowercase().ends_with("_proxy")) {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    assert!(output.status.success(), "{stdout}\n{stderr}");
    server.stop();
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
