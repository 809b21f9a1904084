//! One loader takes over from another, as a new version of it or with other flags: the listening socket is the
//! supervisor's, and both have it for a while.

use std::{env, net::TcpListener, os::fd::OwnedFd};

use crate::support::{Counts, Hammer, Loader, plugins::probe};

/// Upgrades, and requests from each kind of client during one; in the long proof 10 and 5,000.
fn sizes() -> (usize, usize) {
    match env::var("EFFE_UPGRADES").ok().and_then(|text| text.parse().ok()) {
        Some(n) => (n, 5_000),
        None => (3, 200),
    }
}

#[test]
fn an_upgrade_under_load_loses_no_request() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let loader = |counts: &Counts, n: usize| {
        Loader::of(probe())
            .counting(counts)
            .args(["--workers", "2", "--max-idle", &n.to_string()])
            .handed(OwnedFd::from(socket.try_clone().unwrap()))
    };
    let (n_upgrades, n_requests) = sizes();
    let mut all_counts = vec![Counts::new()];
    let mut server = loader(&all_counts[0], 1).serve_as_told();
    let kept_alive = Hammer::start(address, "/", 32);
    let closing = Hammer::over_new_connections(address, "/", 32);
    for n in 0..n_upgrades {
        kept_alive.wait_for(n_requests);
        closing.wait_for(n_requests);
        let counts = Counts::new();
        let successor = loader(&counts, n + 2).serve_as_told();
        all_counts.push(counts);
        std::mem::replace(&mut server, successor).stop();
    }
    kept_alive.wait_for(n_requests);
    let (kept_alive, closing) = (kept_alive.stop(), closing.stop());
    assert_eq!(kept_alive.failures, Vec::<String>::new());
    assert_eq!(closing.failures, Vec::<String>::new());
    println!(
        "{n_upgrades} upgrades during {} requests, none lost",
        kept_alive.latencies.len() + closing.latencies.len()
    );
    server.stop();
    all_counts.iter().for_each(Counts::assert_complete);
}
