use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use effe_abi::{
    Level,
    testing::{Call, Effe},
};

use super::LAMBDA;

/// A server that answers each line in upper case, and `first` only while nobody holds the gate; its address, and how
/// many connections it has had.
fn server(gate: &Arc<Mutex<()>>) -> (String, Arc<AtomicUsize>) {
    let (listener, n_connections) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicUsize::new(0)));
    let (address, counter) = (listener.local_addr().unwrap().to_string(), Arc::clone(&n_connections));
    let gate = Arc::clone(gate);
    thread::spawn(move || {
        for socket in listener.incoming() {
            counter.fetch_add(1, Ordering::Relaxed);
            let (socket, gate) = (socket.unwrap(), Arc::clone(&gate));
            thread::spawn(move || {
                for line in BufReader::new(&socket).lines().map_while(Result::ok) {
                    if line == "first" {
                        drop(gate.lock());
                    }
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

    let gate = Arc::<Mutex<()>>::default();
    let (address, n_connections) = server(&gate);
    let effe = Effe::with(&LAMBDA, &[("server", &address), ("connections", "2")]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(effe.get("/ada").text(), "ADA\n")));
        }
    });
    assert!(n_connections.load(Ordering::Relaxed) <= 2, "{n_connections:?}");

    // Without an answer a run can't be over after its first poll.
    let mut held = Some(gate.lock().unwrap());
    let mut n_dropped = 0;
    for polls in 0.. {
        if polls > 1 {
            held = None;
        }
        if let Some(answer) = effe.call_dropped(Call::get("/first"), polls) {
            assert_eq!(answer.text(), "FIRST\n");
            break;
        }
        n_dropped += 1;
        assert_eq!(effe.get("/second").text(), "SECOND\n", "not the answer to what was dropped");
    }
    assert!(held.is_none() && n_dropped > 1, "{n_dropped}");
    // The log has tokio's own words too, at debug, where the whole workspace is built at once.
    let faults = effe.retire().into_iter().filter(|(level, _)| *level <= Level::Warning).collect::<Vec<_>>();
    assert!(faults.is_empty(), "{faults:?}");
}
