//! WebSockets over TLS, and in an effe of several processes: what a crash, a swap and a successor do with them.

#[cfg(feature = "processes")]
use crate::support::{
    Counts, Server,
    plugins::{async_upgrader, upgrader},
    processes::{lives, signal},
    versions::Versions,
    wait_until,
};
use crate::support::{
    Loader,
    websocket::{BINARY, CLOSE, FIN, Socket, TEXT},
};

#[cfg(feature = "tls")]
#[test]
fn sockets_echo_over_tls_and_a_drain_closes_them_with_1001() {
    use rustix::process::Signal;

    use crate::support::{
        Scratch, plugins,
        tls::{Pair, stream},
    };
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let client = pair.client(&[b"http/1.1"]);
    for (plugin, path) in [
        (plugins::upgrader(), "/ws"),
        (plugins::upgrader(), "/own/ws"),
        (plugins::async_upgrader(), "/ws"),
        (plugins::async_upgrader(), "/own/ws"),
        (plugins::axum_upgrader(), "/ws"),
    ] {
        let server = pair.of(Loader::of(plugin)).serve();
        let mut sockets: Vec<_> =
            (0..5).map(|_| Socket::over(stream(server.address, &client).unwrap(), path)).collect();
        for (n, socket) in sockets.iter_mut().enumerate() {
            let payload: Vec<u8> = (0..300_000).map(|byte| ((byte + n) % 251) as u8).collect();
            socket.sends(FIN | TEXT, b"hello").hears(TEXT, b"hello");
            socket.sends(FIN | BINARY, &payload).hears(BINARY, &payload);
        }
        let mut closes = sockets.pop().unwrap();
        closes.sends(FIN | CLOSE, b"\x03\xe8");
        assert_eq!(closes.closes(), 1000);
        // One that leaves without a word costs the others nothing.
        drop(sockets.pop());
        sockets[0].sends(FIN | TEXT, b"still here").hears(TEXT, b"still here");
        server.signal(Signal::TERM);
        for socket in &mut sockets {
            assert_eq!(socket.closes(), 1001);
        }
        server.ends_with(0);
    }
}

/// An effe of some processes, with sockets in each of them.
#[cfg(feature = "processes")]
fn in_processes(plugin: impl AsRef<std::path::Path>, n: usize, args: &[&str]) -> (Server, Vec<u32>) {
    let loader = Loader::of(plugin).args(["--workers", "1", "--admin", "127.0.0.1:0"]).args(args);
    let server = loader.args(["--processes", &n.to_string()]).serve();
    let processes = server.wait_for_processes(n);
    (server, processes)
}

/// Sockets, and the process that each of them is in, until each process has some.
#[cfg(feature = "processes")]
fn sockets_in_each(server: &Server, path: &str, processes: &[u32]) -> Vec<(u32, Socket)> {
    let mut sockets: Vec<(u32, Socket)> = Vec::new();
    wait_until("each process has sockets", || {
        let mut socket = Socket::open(server, path);
        socket.sends(FIN | TEXT, b"process?");
        let (_, pid) = socket.next().expect("it answers");
        sockets.push((String::from_utf8(pid).unwrap().parse().unwrap(), socket));
        processes.iter().all(|pid| sockets.iter().filter(|(of, _)| of == pid).count() >= 2)
    });
    sockets
}

#[cfg(feature = "processes")]
#[test]
fn a_process_that_dies_closes_its_own_sockets_and_no_others() {
    for plugin in [upgrader(), async_upgrader()] {
        let (server, processes) = in_processes(plugin, 2, &[]);
        let mut sockets = sockets_in_each(&server, "/own/ws", &processes);
        signal(processes[0], rustix::process::Signal::KILL);
        server.wait_for_line("was ended by signal 9 (SIGKILL");
        for (of, socket) in &mut sockets {
            if *of == processes[0] {
                assert_eq!(socket.next(), None, "it is closed, and nobody goes on with it");
            } else {
                socket.sends(FIN | TEXT, b"still here").hears(TEXT, b"still here");
            }
        }
        // A socket whose client says nothing more is waited for in a drain.
        drop(sockets);
        let after = server.wait_for_processes(2);
        sockets_in_each(&server, "/own/ws", &after);
        server.stop();
    }
}

#[cfg(feature = "processes")]
#[test]
fn a_crash_of_the_lambda_closes_the_sockets_of_its_process_alone() {
    let (server, processes) = in_processes(async_upgrader(), 2, &[]);
    let mut sockets = sockets_in_each(&server, "/own/ws", &processes);
    let (crashed, mut crashes) = sockets.swap_remove(0);
    crashes.sends(FIN | TEXT, b"abort!");
    assert_eq!(crashes.next(), None);
    server.wait_for_line("another one takes its place");
    for (of, socket) in &mut sockets {
        if *of == crashed {
            assert_eq!(socket.next(), None);
        } else {
            socket.sends(FIN | TEXT, b"still here").hears(TEXT, b"still here");
        }
    }
    drop(sockets);
    server.stop();
}

#[cfg(feature = "processes")]
#[test]
fn a_swap_of_processes_tells_their_sockets_and_new_ones_meet_the_new_generation() {
    let (versions, counts) = (Versions::of(&async_upgrader()), Counts::new());
    let args = ["--set", &counts.parameter(), "--drain-timeout", "20s"];
    let (server, before) = in_processes(versions.file(), 2, &args);
    let mut sockets = sockets_in_each(&server, "/own/ws", &before);
    // One that takes its time to agree, and echoes until then.
    let mut slow = Socket::open(&server, "/own/ws");
    versions.put(2);
    server.signal(rustix::process::Signal::HUP);
    server.wait_for_line("generation 2 serves");
    let mut new = Socket::open(&server, "/own/ws");
    new.sends(FIN | TEXT, b"version?").hears(TEXT, b"async upgrader 2");
    for (_, socket) in &mut sockets {
        assert_eq!(socket.closes(), 1001);
    }
    slow.hears(CLOSE, b"\x03\xe9going away");
    slow.sends(FIN | CLOSE, b"\x03\xe9");
    assert_eq!(slow.next(), None);
    wait_until("those before are gone", || !before.iter().any(|pid| lives(*pid)));
    new.sends(FIN | BINARY, b"still here").hears(BINARY, b"still here");
    drop(new);
    server.stop();
    assert_eq!((counts.of("retire"), counts.of("stop")), (counts.of("init"), counts.of("context")));
}

#[cfg(feature = "processes")]
#[test]
fn a_process_that_has_had_its_requests_closes_its_sockets_and_its_successor_takes_new_ones() {
    let (server, before) = in_processes(async_upgrader(), 1, &["--max-requests", "20"]);
    let mut socket = Socket::open(&server, "/own/ws");
    socket.sends(FIN | TEXT, b"hello").hears(TEXT, b"hello");
    let mut idle = server.connect();
    wait_until("it has had its requests", || {
        assert_eq!(idle.get("/version").status, 200);
        server.processes().iter().any(|pid| !before.contains(pid))
    });
    assert_eq!(socket.closes(), 1001);
    wait_until("it is gone", || !lives(before[0]));
    assert_eq!(idle.get("/version").status, 200, "a connection at rest goes on");
    let mut socket = Socket::open(&server, "/own/ws");
    socket.sends(FIN | TEXT, b"hello").hears(TEXT, b"hello");
    drop(socket);
    server.stop();
}
