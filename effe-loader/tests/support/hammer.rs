//! Requests without a pause, until the test has seen enough.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Connection, wait_until};

/// Clients that ask for one thing again and again, until nobody is there any more.
pub struct Hammer {
    over: Arc<AtomicBool>,
    n_answers: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Report>>,
}

/// What the clients saw.
#[derive(Default, Debug)]
pub struct Report {
    /// Good answers, by their text.
    pub answers: BTreeMap<String, usize>,
    /// What went wrong, in words. That a connection is refused is no failure: nothing was sent.
    pub failures: Vec<String>,
    /// How long each request took.
    pub latencies: Vec<Duration>,
}

impl Hammer {
    /// GETs `target` over `clients` kept-alive connections at once. A server that says `Connection: close` is
    /// obeyed: the client comes back over a new connection.
    pub fn start(address: SocketAddr, target: &str, clients: usize) -> Hammer {
        Hammer::with(address, &format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"), clients)
    }

    /// The same over a new connection for each request.
    pub fn over_new_connections(address: SocketAddr, target: &str, clients: usize) -> Hammer {
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        Hammer::with(address, &request, clients)
    }

    /// POSTs a body again and again, over kept-alive connections.
    pub fn posting(address: SocketAddr, head: &str, body: &str, clients: usize) -> Hammer {
        let n = body.len();
        let request = format!("POST / HTTP/1.1\r\nHost: test\r\n{head}Content-Length: {n}\r\n\r\n{body}");
        Hammer::with(address, &request, clients)
    }

    fn with(address: SocketAddr, request: &str, clients: usize) -> Hammer {
        let (over, n_answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients)
            .map(|_| {
                let (over, n_answers, request) =
                    (Arc::clone(&over), Arc::clone(&n_answers), request.to_owned());
                thread::spawn(move || hammer(address, &request, &over, &n_answers))
            })
            .collect();
        Hammer { over, n_answers, clients }
    }

    /// Waits for so many answers more.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let enough = self.n_answers.load(Ordering::Relaxed) + more;
        wait_until(&format!("{more} answers more"), || self.n_answers.load(Ordering::Relaxed) >= enough);
    }

    /// Ends it; what the clients saw.
    pub fn stop(self) -> Report {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients {
            let report = client.join().unwrap();
            report.answers.into_iter().for_each(|(text, n)| *all.answers.entry(text).or_default() += n);
            all.failures.extend(report.failures);
            all.latencies.extend(report.latencies);
        }
        all.latencies.sort_unstable();
        all
    }
}

impl Report {
    /// The latency that so many of a hundred requests were not above.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

fn hammer(address: SocketAddr, request: &str, over: &AtomicBool, n_answers: &AtomicUsize) -> Report {
    let mut report = Report::default();
    let mut connection = None;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match ask(&mut connection, address, request) {
            Ok(text) => *report.answers.entry(text).or_default() += 1,
            Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => break,
            Err(err) => {
                connection = None;
                report.failures.push(err.to_string());
            }
        }
        report.latencies.push(begun.elapsed());
        n_answers.fetch_add(1, Ordering::Relaxed);
    }
    report
}

fn ask(connection: &mut Option<Connection>, address: SocketAddr, request: &str) -> io::Result<String> {
    let open = match connection.take() {
        Some(open) => connection.insert(open),
        None => connection.insert(Connection::try_open(address)?),
    };
    open.try_send(request)?;
    let reply = open.try_reply(false)?;
    if reply.text_header("connection") == Some("close") {
        *connection = None;
    }
    match reply.status {
        200..=399 => Ok(reply.text().to_owned()),
        status => Err(io::Error::other(format!("status {status}"))),
    }
}
