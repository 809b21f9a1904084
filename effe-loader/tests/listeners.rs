//! Where the loader listens: several addresses, Unix sockets, sockets that a supervisor hands in; and that nobody who
//! was let in is turned away when it stops.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};

use crate::{
    faults::can_inject,
    support::{Connection, Counts, LONG, Loader, Scratch, plugins::probe, wait_until},
};

/// One request over a connection that is closed after it; all that comes back.
fn ask(mut stream: impl Read + Write) -> String {
    let mut answer = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    // A reset shows in the answer.
    let _ = asked.and_then(|()| stream.read_to_string(&mut answer));
    answer
}

#[test]
fn several_addresses_and_unix_sockets_are_served_by_one_effe() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let path = scratch.join("effe.sock");
    let unix = format!("unix:{}", path.display());
    let loader = Loader::of(probe()).counting(&counts);
    let server =
        loader.args(["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", &unix]).serve_as_told();
    let six = server.wait_for_line("listening on http://[::1]:");
    let (_, six) = six.split_once("http://").unwrap();
    assert!(ask(UnixStream::connect(&path).unwrap()).ends_with("ok"));
    assert!(ask(TcpStream::connect(six).unwrap()).ends_with("ok"));
    assert_eq!(server.get("/address").text(), server.address.to_string());
    server.stop();
    assert!(!path.exists(), "its own socket is removed");
    counts.assert_complete();
}

#[test]
fn host_and_port_beside_listen_are_wrong_usage() {
    for other in [["--port", "0"], ["--host", "127.0.0.1"]] {
        let done = Loader::of(probe()).args(["--listen", "127.0.0.1:0"]).args(other).run().assert_code(2);
        assert!(done.stderr.contains("cannot be used with"), "{done:#?}");
    }
}

#[test]
fn a_dead_unix_socket_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new();
    let path = scratch.join("effe.sock");
    let unix = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).unwrap());
    let loader = || Loader::of(probe()).args(["--listen", "127.0.0.1:0", "--listen", &unix]);
    let server = loader().serve_as_told();
    let done = loader().run().assert_code(1);
    assert!(done.stderr.contains("a process listens there"), "{done:#?}");
    assert!(ask(UnixStream::connect(&path).unwrap()).ends_with("ok"), "the first one still serves");
    server.stop();
}

#[test]
fn a_socket_of_the_supervisors_is_served_and_stays_open() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    for _ in 0..2 {
        // The queue belongs to the socket: who comes between two loaders waits for the second.
        let early = thread::spawn(move || ask(TcpStream::connect(address).unwrap()));
        let server = Loader::of(probe()).handed(OwnedFd::from(socket.try_clone().unwrap())).serve_as_told();
        assert_eq!(server.address, address);
        assert!(early.join().unwrap().ends_with("ok"));
        assert_eq!(server.get("/address").text(), address.to_string());
        server.stop();
    }
    TcpStream::connect(address).unwrap();
}

#[test]
fn who_is_just_being_accepted_when_the_loader_stops_is_answered() {
    if !can_inject() {
        return;
    }
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let has_pending = || {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&now)).unwrap() > 0
    };
    // A connection stays with the thread that accepts for as long as that thread may be without a CPU.
    let slow =
        ["-D", "-f", "-o", "/dev/null", "-e", "trace=accept4", "-e", "inject=accept4:delay_exit=300000"];
    let loader = Loader::of(probe()).under("strace", slow);
    let server = loader.handed(OwnedFd::from(socket.try_clone().unwrap())).serve_as_told();
    let client = TcpStream::connect(address).unwrap();
    wait_until("it is being accepted", || !has_pending());
    server.signal(Signal::TERM);
    assert!(ask(client).ends_with("ok"));
    server.ends_with(0);
}

#[test]
fn what_a_supervisor_hands_in_must_listen() {
    let (one, _other) = UnixStream::pair().unwrap();
    let done = Loader::of(probe()).handed(OwnedFd::from(one)).run().assert_code(1);
    assert_eq!(
        done.one_line(),
        "effe-loader: cannot listen on socket 0 of LISTEN_FDS: it is no listening stream socket"
    );
}

/// Clients that open a connection for each request: a plain server loses tens of them at each stop.
#[test]
fn nobody_who_was_let_in_goes_without_an_answer_when_the_loader_stops() {
    let rounds = std::env::var("EFFE_STOPS").map_or(2, |n| n.parse().unwrap());
    for _ in 0..rounds {
        let counts = Counts::new();
        let server = Loader::of(probe()).counting(&counts).args(["--workers", "2"]).serve();
        let (address, lost, answered) = (server.address, AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    // Refused, or unanswered while the door is closed: never let in.
                    while let Ok(stream) = TcpStream::connect(address) {
                        stream.set_read_timeout(Some(LONG)).unwrap();
                        let count = if ask(stream).ends_with("ok") { &answered } else { &lost };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            counts.wait_for("run", 500);
            server.signal(Signal::TERM);
        });
        server.ends_with(0);
        assert_eq!(lost.into_inner(), 0, "of {}", answered.into_inner());
        counts.assert_complete();
    }
}

#[test]
fn a_kept_alive_client_that_goes_on_asking_is_told_before_its_connection_closes() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    let mut clients: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text_header("connection"), None);
    }
    server.signal(Signal::TERM);
    server.wait_for_line("finishing what runs");
    for client in &mut clients {
        let reply = client.get("/");
        assert_eq!((reply.status, reply.text_header("connection")), (200, Some("close")));
        assert!(client.is_closed());
    }
    server.ends_with(0);
}

#[test]
fn both_versions_of_ip_can_have_the_same_port() {
    // A port that is free now, on both.
    let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let (four, six) = (format!("0.0.0.0:{port}"), format!("[::]:{port}"));
    for order in [[&four, &six], [&six, &four]] {
        let server = Loader::of(probe()).args(["--listen", order[0], "--listen", order[1]]).serve_as_told();
        server.wait_for_line(&format!("listening on http://[::]:{port}"));
        assert!(ask(TcpStream::connect(("127.0.0.1", port)).unwrap()).ends_with("ok"));
        assert!(ask(TcpStream::connect(("::1", port)).unwrap()).ends_with("ok"));
        server.stop();
    }
}
