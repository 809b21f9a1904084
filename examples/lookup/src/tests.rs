use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use effe_abi::testing::{Call, Effe};

use super::LAMBDA;

/// A server that answers each line in upper case; its address, and how many connections it has had.
fn server() -> (String, Arc<AtomicUsize>) {
    let (listener, n_connections) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicUsize::new(0)));
    let (address, counter) = (listener.local_addr().unwrap().to_string(), Arc::clone(&n_connections));
    thread::spawn(move || {
        for socket in listener.incoming() {
            counter.fetch_add(1, Ordering::Relaxed);
            let socket = socket.unwrap();
            thread::spawn(move || {
                for line in BufReader::new(&socket).lines().map_while(Result::ok) {
                    // Fails once the lambda has closed the connection.
                    let _ = (&socket).write_all(format!("{}\n", line.to_uppercase()).as_bytes());
                }
            });
        }
    });
    (address, n_connections)
}

/// In one test, because an Init is once for a library, and the tests of one program share it.
#[test]
fn contexts_share_connections_and_one_that_is_out_of_step_is_not_used_again() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = Effe::try_with(&LAMBDA, &[("server", &gone)]).err().unwrap();
    assert!(refused.contains("refused"), "{refused}");

    let (address, n_connections) = server();
    let effe = Effe::with(&LAMBDA, &[("server", &address), ("connections", "2")]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(effe.get("/ada").text(), "ADA\n")));
        }
    });
    assert!(n_connections.load(Ordering::Relaxed) <= 2, "{n_connections:?}");

    let mut n_dropped = 0;
    for polls in 0.. {
        if let Some(answer) = effe.call_dropped(Call::get("/first"), polls) {
            assert_eq!(answer.text(), "FIRST\n");
            break;
        }
        n_dropped += 1;
        assert_eq!(effe.get("/second").text(), "SECOND\n", "not the answer to what was dropped");
    }
    assert!(n_dropped > 0, "it waits for the server");
    let reports = effe.retire();
    // A connection that breaks off with its run may be told of; a panic must not be.
    assert!(reports.iter().all(|(_, text)| !text.contains("panicked")), "{reports:?}");
}
