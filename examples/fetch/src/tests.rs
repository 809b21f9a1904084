//! Tests with a server of their own, which serves plain HTTP and counts its connections.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use effe_abi::{
    Level,
    testing::{Answer, Effe},
};

use super::LAMBDA;

/// Answers every request with `head` and `hello`, until the test's process ends.
fn serve(head: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let n_connections = Arc::new(AtomicUsize::new(0));
    let counter = n_connections.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || answer(&stream.unwrap(), head));
        }
    });
    (address, n_connections)
}

fn answer(mut stream: &TcpStream, head: &str) {
    let mut lines = BufReader::new(stream).lines();
    // A request ends with an empty line, a connection when there is no line at all.
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() && write!(stream, "HTTP/1.1 {head}\r\ncontent-length: 5\r\n\r\nhello").is_err() {
            return;
        }
    }
}

fn is_a_502(answer: &Answer) {
    assert_eq!((answer.status, answer.text().as_str()), (502, "the page can't be fetched now\n"));
}

#[test]
fn two_calls_of_one_context_share_a_connection() {
    let (address, n_connections) = serve("200 OK\r\ncontent-type: text/html");
    let effe = Effe::with(&LAMBDA, &[("url", &format!("http://{address}/page"))]);
    for _ in 0..2 {
        let answer = effe.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        assert_eq!(answer.header("content-type"), Some("text/html"));
    }
    assert_eq!((effe.started(), n_connections.load(Ordering::Relaxed)), (1, 1));
}

#[test]
fn an_upstream_that_fails_is_a_502_and_its_reason_is_logged() {
    let (address, _) = serve("503 Service Unavailable");
    let effe = Effe::with(&LAMBDA, &[("url", &format!("http://{address}/"))]);
    is_a_502(&effe.get("/"));
    let log = effe.log();
    let reasons = log.iter().filter(|(level, _)| *level == Level::Error).collect::<Vec<_>>();
    let [(_, reason)] = &reasons[..] else { panic!("{log:?}") };
    assert!(reason.starts_with("upstream: ") && reason.contains("503"), "{reason}");
}

#[test]
fn tls_is_spoken_with_the_machines_certificates() {
    let (address, _) = serve("200 OK");
    let effe = Effe::with(&LAMBDA, &[("url", &format!("https://{address}/"))]);
    // This server has no TLS. The test is that the client tries it, and doesn't panic because there is no provider.
    let answer = effe.get("/");
    is_a_502(&answer);
    assert!(!answer.panicked);
}

#[test]
fn without_a_url_every_request_fails_and_the_log_says_why() {
    let answer = Effe::of(&LAMBDA).get("/");
    assert_eq!((answer.status, answer.bytes()), (500, Vec::new()));
    assert!(answer.failure.unwrap().contains("the parameter `url` is missing"));
}
