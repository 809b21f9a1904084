//! The bytes of bodies that a loader holds for its clients, and their bound.

use crate::support::{Connection, Counts, Loader, Server, plugins::probe, wait_until};

/// Bytes of a body that no socket takes at once.
const LARGE: usize = 8_000_000;

fn loader(limits: &[&str]) -> Loader {
    Loader::of(probe()).args(["--admin", "127.0.0.1:0"]).args(limits)
}

fn held(server: &Server) -> usize {
    server.scrape().value("effe_held_bytes") as usize
}

#[test]
fn answers_that_wait_for_clients_that_do_not_read_have_a_bound() {
    const LIMIT: usize = 64 << 20;
    for execution in ["inline", "pool"] {
        let counts = Counts::new();
        let server = loader(&["--held-limit", "64MiB", "--idle-timeout", "4s", "--execution", execution])
            .counting(&counts)
            .serve();
        let get = format!("GET /large?bytes={LARGE} HTTP/1.1\r\nHost: test\r\n\r\n");
        let ask = || {
            let mut client = server.connect();
            client.send(&get);
            client
        };
        let clients: Vec<Connection> = (0..20).map(|_| ask()).collect();
        wait_until("as much is held as may be", || held(&server) > LIMIT / 4 * 3);
        assert!(held(&server) <= LIMIT);
        let refused = server.get("/");
        assert_eq!((refused.status, refused.text()), (503, "too many bytes are held; try again\n"));
        assert!(refused.text_header("retry-after").is_some());
        // Long before --write-timeout, clients that take nothing are let go.
        wait_until("there is room again", || server.get("/").status == 200);
        let mut n_refused = 0;
        for mut client in clients {
            // Refused, cut off, or, where there was room again before, answered as a whole.
            match client.try_reply(false) {
                Ok(reply) if reply.status == 503 => n_refused += 1,
                Ok(reply) => assert_eq!((reply.status, reply.body.len()), (200, LARGE)),
                Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{error}"),
            }
        }
        assert!((12..20).contains(&n_refused), "eight have room: {n_refused} were refused");
        wait_until("nothing is held", || held(&server) == 0);
        server.wait_for_line("--held-limit allows 67108864");
        wait_until("memory has gone back", || server.memory() < LIMIT / 2);
        let mut client = ask();
        assert_eq!(client.reply().body.len(), LARGE, "{execution}: who reads is answered");
        let peak = server.peak_memory() >> 20;
        assert!(peak <= 160, "{peak} MiB");
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn requests_that_are_read_whole_have_a_bound() {
    let counts = Counts::new();
    let server = loader(&["--body-limit", "10MiB", "--held-limit", "20MiB"]).counting(&counts).serve();
    let head = format!("POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE}\r\n\r\n");
    let begin = || {
        let mut client = server.connect();
        client.send(&head).send(vec![b'x'; LARGE - 1]);
        client
    };
    let mut clients = [begin(), begin()];
    wait_until("two bodies are held", || held(&server) >= 2 * (LARGE - 1));
    let mut third = server.connect();
    third.send(&head);
    // It may be cut off while it sends; what it is told is here by then.
    let _ = third.try_send(vec![b'x'; LARGE]);
    let told = third.reply();
    assert_eq!((told.status, told.text()), (503, "too many bytes are held; try again\n"));
    for client in &mut clients {
        client.send("x");
        assert_eq!(client.reply().text(), LARGE.to_string());
    }
    wait_until("nothing is held", || held(&server) == 0);
    assert_eq!(begin().send("x").reply().status, 200);
    server.stop();
    counts.assert_complete();
}

#[test]
fn what_one_request_may_have_fits_into_what_all_may_have() {
    for (flags, part) in [
        (
            &["--held-limit", "1MiB"][..],
            "--held-limit is 1048576 bytes, less than --body-limit, which is 2097152",
        ),
        (&["--held-limit", "4MiB"], "less than --response-limit, which is 16777216"),
    ] {
        let done = Loader::of(probe()).args(flags).run().assert_code(2);
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
    let server = loader(&["--held-limit", "16MiB", "--body-limit", "0"]).serve();
    let mut client = server.connect();
    client.send("POST /length HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    (0..20).for_each(|_| _ = client.try_send(&chunk));
    assert_eq!(client.reply().status, 413, "it would not fit if it were alone");
    assert_eq!(server.get("/").status, 200);
    server.stop();
}
