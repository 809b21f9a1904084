//! Whatever clients do, no run outlives them for longer than the limits say: random sequences of misdeeds, the same in
//! each run of the test unless `EFFE_SEED` says otherwise.

use std::{env, path::Path, time::Duration};

use fastrand::Rng;

use crate::support::{
    Connection, Loader,
    plugins::{async_probe, spout},
    wait_until,
};

/// What ends every wait of a run whose client stays.
const LIMITS: [&str; 6] = ["--read-timeout", "1s", "--write-timeout", "1s", "--run-timeout", "2s"];
/// The three one after the other, the second in which a thread looks, and twice that for a machine that is busy.
const WITHIN: Duration = Duration::from_secs(10);

/// What a lambda does with a request: reads all of it, as it comes or at once, or a part, or nothing; and answers with
/// one piece, some, or without end.
const PATHS: [&str; 9] =
    ["/echo", "/length", "/whole", "/first", "/unread", "/endless", "/begins", "/pieces?9", "/through"];
/// Its run never ends while its client stays, and that is the lambda's own business.
const NEVER_ENDS: &str = "/begins";

/// How a client takes its leave.
#[derive(Clone, Copy)]
enum Leave {
    Close,
    Reset,
    /// It sends nothing more, and says so.
    HalfClose,
    /// It stays, and neither reads nor writes.
    Stay,
}

/// One client's deeds; gives the connection back if the client stays.
fn misbehave(rng: &mut Rng, mut connection: Connection) -> Option<Connection> {
    let mut leaves = vec![Leave::Close, Leave::Reset, Leave::HalfClose, Leave::Stay];
    // One request after the other, without waiting for an answer; the last may be cut off anywhere.
    for n_left in (0..rng.usize(1..4)).rev() {
        let (head, body, path) = request(rng);
        if path == NEVER_ENDS {
            leaves = vec![Leave::Close, Leave::Reset];
        }
        let is_whole = n_left > 0 || rng.bool();
        let head = if is_whole { &head[..] } else { &head[..rng.usize(0..head.len())] };
        let n_body = if is_whole && rng.bool() { body.len() } else { rng.usize(0..=body.len()) };
        // The loader may have had enough of it before, and may read nothing more.
        let _ = connection.try_send(head);
        let _ = connection.try_send(&body[..n_body]);
    }
    if rng.u8(0..4) == 0 {
        // Whatever comes first: a byte, or the end.
        let _ = connection.is_closed();
    }
    match leaves[rng.usize(0..leaves.len())] {
        Leave::Close => None,
        Leave::Reset => {
            connection.reset();
            None
        }
        Leave::HalfClose => {
            connection.end();
            Some(connection)
        }
        Leave::Stay => Some(connection),
    }
}

/// A head, what is to follow it, and the path.
fn request(rng: &mut Rng) -> (Vec<u8>, Vec<u8>, &'static str) {
    let path = PATHS[rng.usize(0..PATHS.len())];
    let method = ["HEAD", "POST", "PUT", "GET"][rng.usize(0..4)];
    let length = [0, 10, 100_000, 1_000_000][rng.usize(0..4)];
    let (framing, body) = match rng.u8(0..4) {
        0 => ("Transfer-Encoding: chunked".to_owned(), b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        1 => (format!("Expect: 100-continue\r\nContent-Length: {length}"), vec![b'x'; length.min(200_000)]),
        2 => ("X-Without: a body".to_owned(), Vec::new()),
        _ => (format!("Content-Length: {length}"), vec![b'x'; length.min(200_000)]),
    };
    (format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n").into_bytes(), body, path)
}

fn after_any_misdeeds_no_context_stays_busy(plugin: &Path, execution: &str) {
    let n: usize = env::var("EFFE_MISDEEDS").map_or(100, |n| n.parse().unwrap());
    let seed = env::var("EFFE_SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("EFFE_SEED={seed}");
    let loader = Loader::of(plugin).args(["--admin", "127.0.0.1:0", "--execution", execution]);
    let server = loader.args(LIMITS).serve();
    let mut rng = Rng::with_seed(seed);
    let kept: Vec<Connection> = (0..n).filter_map(|_| misbehave(&mut rng, server.connect())).collect();
    wait_until("nobody but those that stay is left", || server.n_busy() <= kept.len() as i64);
    server.assert_all_come_free(WITHIN);
    assert_eq!(server.get("/").status, 200);
    drop(kept);
    server.stop();
}

#[test]
fn after_any_misdeeds_no_context_stays_busy_on_the_pool() {
    after_any_misdeeds_no_context_stays_busy(&spout(), "pool");
}

#[test]
fn after_any_misdeeds_no_context_stays_busy_where_the_loader_decides() {
    after_any_misdeeds_no_context_stays_busy(&spout(), "auto");
}

#[test]
fn after_any_misdeeds_no_context_of_an_async_lambda_stays_busy_on_the_pool() {
    after_any_misdeeds_no_context_stays_busy(&async_probe(), "pool");
}

#[test]
fn after_any_misdeeds_no_context_of_an_async_lambda_stays_busy_where_the_loader_decides() {
    after_any_misdeeds_no_context_stays_busy(&async_probe(), "auto");
}
