//! The admin listener of a loader under test.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Connection, Reply, Server, wait_until};

/// What is sent to it: a method, a target, headers that end in line feeds, a body.
pub struct Question<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a str,
    pub body: &'a str,
}

impl Server {
    /// Where its admin listener is, which was asked for with `--admin 127.0.0.1:0` or the like.
    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        let line = self.wait_for_line("admin listener on http://");
        let (_, address) = line.split_once("http://").unwrap();
        address.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// GET from the admin listener.
    #[track_caller]
    pub fn ask(&self, target: &str) -> Reply {
        ask(self.admin(), &Question { method: "GET", target, headers: "Host: localhost\r\n", body: "" })
    }

    /// What the admin listener shows of the state.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_slice(&self.ask("/state").body).expect("the state is JSON")
    }

    /// Contexts that are in a run.
    #[track_caller]
    pub fn n_busy(&self) -> i64 {
        let state = self.state();
        let contexts = &state["generations"][0]["contexts"];
        contexts["live"].as_i64().unwrap() - contexts["idle"].as_i64().unwrap()
    }

    /// Waits until no Context is in a run, which takes less than `within`.
    #[track_caller]
    pub fn assert_all_come_free(&self, within: Duration) {
        let since = Instant::now();
        wait_until("no Context is in a run", || self.n_busy() == 0);
        assert!(since.elapsed() < within, "{:?}", since.elapsed());
    }

    /// Whether the admin listener calls the loader ready, and its words.
    #[track_caller]
    pub fn readiness(&self) -> (u16, String) {
        let reply = self.ask("/health/readiness");
        (reply.status, reply.text().to_owned())
    }
}

/// Asks an admin listener.
#[track_caller]
pub fn ask(address: SocketAddr, question: &Question<'_>) -> Reply {
    let Question { method, target, headers, body } = question;
    let mut connection = Connection::open(address);
    let length = body.len();
    connection.send(format!("{method} {target} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}"));
    connection.try_reply(*method == "HEAD").expect("an answer comes")
}

/// One request over a Unix socket; all that comes back.
pub fn over(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
