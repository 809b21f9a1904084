//! An effe that ends when no request comes, until the next one: nothing that comes at that very moment is lost.

use std::{
    env,
    net::TcpListener,
    os::fd::OwnedFd,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};

use crate::support::{
    Connection, Counts, LONG, Loader,
    plugins::{probe, spout},
    wait_until,
};

/// How often the effe is to end while requests come; `scripts/prove sleep` has more.
fn times() -> usize {
    env::var("EFFE_SLEEPS").map_or(50, |text| text.parse().expect("EFFE_SLEEPS is a number"))
}

/// Clients that ask at the same time, more or less.
const CLIENTS: usize = 4;
/// How long no request must have come.
fn idle() -> Duration {
    let millis =
        env::var("EFFE_SLEEP_IDLE").map_or(100, |text| text.parse().expect("EFFE_SLEEP_IDLE is a number"));
    Duration::from_millis(millis)
}

/// When a client asks in a round: before the end of the effe, in the middle of it, or after it.
fn offset(round: usize, client: usize) -> Duration {
    let span = idle() / 2;
    span * ((round * CLIENTS + client) * 7919 % 50_000) as u32 / 50_000
}

#[test]
fn without_a_request_no_process_is_left_and_the_next_one_is_answered() {
    let counts = Counts::new();
    let args = ["--processes", "2", "--workers", "1", "--admin", "127.0.0.1:0", "--idle-exit", "200ms"];
    let server = Loader::of(probe()).args(args).counting(&counts).serve();
    let mut kept = server.connect();
    assert_eq!(kept.get("/").status, 200);
    let mut silent = server.connect();
    let left = server.connect();
    for n in 1..=3 {
        server.wait_for_line("no request for 200ms: asleep until the next one");
        wait_until("all have ended", || server.processes().is_empty());
        assert_eq!((counts.of("retire"), counts.of("stop")), (counts.of("init"), counts.of("context")));
        assert_eq!(server.readiness().0, 200, "it wants requests");
        let state = server.state();
        assert_eq!((&state["asleep"], &state["state"]), (&true.into(), &"ready".into()));
        assert_eq!(server.scrape().value("effe_sleeps_total"), f64::from(n));
        match n {
            1 => assert_eq!(kept.get("/").status, 200, "a connection that was open is still"),
            2 => assert_eq!(server.get("/").status, 200),
            _ => assert_eq!(silent.get("/").status, 200),
        }
    }
    drop(left);
    let lines = server.stop();
    assert!(!lines.iter().any(|line| line.contains("critical")), "{lines:#?}");
}

#[test]
fn a_client_that_leaves_wakes_nobody() {
    let args = ["--processes", "1", "--workers", "1", "--admin", "127.0.0.1:0", "--idle-exit", "100ms"];
    let server = Loader::of(probe()).args(args).serve();
    let mut clients: Vec<Connection> = (0..100).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    wait_until("all have ended", || server.processes().is_empty() && server.state()["asleep"] == true);
    let mut last = clients.pop().unwrap();
    let before = server.state()["sleeps"].clone();
    drop(clients);
    // Whoever has left is seen before this.
    let state = server.state();
    assert_eq!((&state["sleeps"], &state["asleep"]), (&before, &true.into()));
    assert!(server.processes().is_empty());
    assert_eq!(last.get("/").status, 200);
    server.stop();
}

#[test]
fn a_long_answer_keeps_the_effe_awake() {
    let args = ["--processes", "1", "--workers", "1", "--admin", "127.0.0.1:0", "--idle-exit", "50ms"];
    let server = Loader::of(spout()).args(args).serve();
    let mut client = server.connect();
    client.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    let begun = Instant::now();
    while begun.elapsed() < 10 * Duration::from_millis(50) {
        client.byte();
    }
    assert_eq!(server.state()["asleep"], false);
    client.reset();
    wait_until("it sleeps then", || server.state()["asleep"] == true);
    server.stop();
}

#[test]
fn what_comes_while_processes_end_is_answered() {
    let text = format!("{}ms", idle().as_millis());
    let args = ["--processes", "2", "--workers", "1", "--admin", "127.0.0.1:0", "--idle-exit", &text];
    let server = Loader::of(probe()).args(args).serve();
    let barrier = Barrier::new(CLIENTS);
    let latencies = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (barrier, address) = (&barrier, server.address);
                scope.spawn(move || {
                    let (mut kept, mut latencies) = (Connection::open(address), Vec::new());
                    for round in 0..times() {
                        barrier.wait();
                        thread::sleep(idle() + offset(round, client));
                        let begun = Instant::now();
                        let reply = if (round + client) % 2 == 0 {
                            kept.get("/")
                        } else {
                            Connection::open(address).get("/")
                        };
                        latencies.push(begun.elapsed());
                        assert_eq!((reply.status, reply.text_header("connection")), (200, None));
                    }
                    latencies
                })
            })
            .collect();
        let all = clients.into_iter().flat_map(|client| client.join().unwrap());
        let mut all: Vec<Duration> = all.collect();
        all.sort();
        all
    });
    let n_sleeps = server.state()["sleeps"].as_u64().unwrap();
    let (n, p99) = (latencies.len(), latencies[latencies.len() * 99 / 100]);
    println!("with processes: {n} requests around {n_sleeps} sleeps, none lost, p99 {p99:.1?}");
    assert!(n_sleeps >= times() as u64 / 8, "{n_sleeps}");
    let lines = server.stop();
    assert!(!lines.iter().any(|line| line.contains("critical")), "{lines:#?}");
}

#[test]
fn who_waits_at_a_stop_of_an_effe_that_sleeps_is_told() {
    for kept in [false, true] {
        let args = ["--processes", "1", "--workers", "1", "--admin", "127.0.0.1:0", "--idle-exit", "100ms"];
        let server = Loader::of(probe()).args(args).serve();
        let mut client = server.connect();
        assert_eq!(client.get("/").status, 200);
        wait_until("all have ended", || server.processes().is_empty() && server.state()["asleep"] == true);
        // The supervisor sees both at once.
        server.signal(Signal::STOP);
        wait_until("it stands still", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"))
        });
        if !kept {
            client = server.connect();
        }
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        server.signal(Signal::TERM);
        server.signal(Signal::CONT);
        let status = client.reply().status;
        assert!([200, 503].contains(&status), "{status}");
        server.ends_with(0);
    }
}

/// Stands for systemd: holds the socket, and starts the loader when somebody comes.
#[test]
fn what_comes_while_a_loader_ends_waits_in_its_socket() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (barrier, counts) = (Barrier::new(CLIENTS), Counts::new());
    let mut n_starts = 0;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let barrier = &barrier;
                scope.spawn(move || {
                    for round in 0..times() {
                        barrier.wait();
                        thread::sleep(idle() + offset(round, client));
                        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                        assert_eq!(Connection::open(address).send(request).reply().status, 200);
                    }
                })
            })
            .collect();
        while !clients.iter().all(|client| client.is_finished()) {
            let time = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&time)) == Ok(0) {
                continue;
            }
            n_starts += 1;
            let text = format!("{}ms", idle().as_millis());
            let loader = Loader::of(probe()).args(["--workers", "2", "--idle-exit", &text]);
            let done = loader.counting(&counts).handed(OwnedFd::from(socket.try_clone().unwrap())).run();
            let stderr = done.assert_code(0).stderr;
            assert!(stderr.contains(": ending until the next one"), "{stderr}");
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    println!("with a socket of systemd's: {} requests around {n_starts} ends, none lost", times() * CLIENTS);
    assert!(n_starts >= times() / 8, "{n_starts}");
    assert_eq!((counts.of("run"), counts.of("retire")), (times() * CLIENTS, n_starts));
    assert_eq!(counts.of("stop"), counts.of("context"));
}

#[test]
fn an_end_that_nobody_would_wake_from_is_refused() {
    let done = Loader::of(probe()).args(["--idle-exit", "5m"]).run().assert_code(2);
    assert!(done.stderr.contains("--idle-exit is for a socket that systemd holds"), "{done:?}");
    assert!(idle() < LONG);
}
