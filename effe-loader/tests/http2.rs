//! HTTP/2, in clear and over TLS: real clients, h2's own, and bytes that mean harm.

use std::{
    env, fs,
    future::{self, poll_fn},
    io::{Read, Write},
    net::TcpStream,
    pin::pin,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use rustix::process::Signal;

use crate::support::{
    Counts, LONG, Loader, Scratch, Server,
    plugins::{async_early, async_probe, early, pipe, probe, spout, succeed},
    wait_until,
};

/// What every client begins with: the preface, and settings that leave all as it is.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:method: POST`, `:scheme: http`, `:path: /length`, `:authority: a`, in HPACK.
const POST: &[u8] = b"\x83\x86\x04\x07/length\x01\x01a";

/// Runs a client to its end, which comes in time.
fn run<T>(client: impl Future<Output = T>) -> T {
    actix_rt::System::new()
        .block_on(async { tokio::time::timeout(LONG, client).await.expect("it ends in time") })
}

/// A client over a connection of its own.
async fn connect(server: &Server) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    actix_rt::spawn(async move {
        let _ = connection.await;
    });
    client
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://test{path}")).body(()).unwrap()
}

async fn begin(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    ends: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    client.clone().ready().await.unwrap().send_request(request, ends).unwrap()
}

async fn get(client: &SendRequest<Bytes>, path: &str) -> (u16, HeaderMap, String) {
    ask(client, request("GET", path)).await
}

async fn ask(client: &SendRequest<Bytes>, request: Request<()>) -> (u16, HeaderMap, String) {
    let (answer, _) = begin(client, request, true).await;
    let (head, mut body) = answer.await.unwrap().into_parts();
    let text = read(&mut body).await.unwrap();
    (head.status.as_u16(), head.headers, String::from_utf8(text).unwrap())
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        let _ = body.flow_control().release_capacity(piece.len());
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// A frame's head and what is in it.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Bytes on a socket, and the frames that come back until the server closes: kind, stream, payload.
fn exchange(
    server: &Server,
    send: impl FnOnce(&mut TcpStream) -> std::io::Result<()>,
) -> Vec<(u8, u32, Vec<u8>)> {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    // That the server stops listening is what some of these are about.
    let _ = send(&mut stream);
    let mut frames = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        frames.push((head[3], u32::from_be_bytes(head[5..].try_into().unwrap()), payload));
    }
    frames
}

/// Why the server asked the client to leave.
fn goaway(frames: &[(u8, u32, Vec<u8>)]) -> Option<Reason> {
    let (_, _, payload) = frames.iter().rev().find(|(kind, ..)| *kind == GOAWAY)?;
    Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()).into())
}

fn curl(args: &[&str]) -> (bool, String) {
    let mut curl = Command::new("curl");
    let output = curl.args(["--silent", "--show-error", "--max-time", "30"]).args(args).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn both_versions_are_answered_on_the_same_port() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let path = scratch.join("effe.sock");
    let unix = format!("unix:{}", path.display());
    let loader = Loader::of(probe()).counting(&counts);
    let server = loader.args(["--listen", "127.0.0.1:0", "--listen", &unix]).serve_as_told();
    let url = format!("http://{}/body", server.address);
    let told = ["--write-out", " %{http_version}", "--data", "a=b", &url];
    let prior = "--http2-prior-knowledge";
    assert_eq!(curl(&[&[prior], &told[..]].concat()), (true, "a=b 2".to_owned()));
    assert_eq!(curl(&[&["--http1.1"], &told[..]].concat()), (true, "a=b 1.1".to_owned()));
    // It asks for an upgrade, which is not taken.
    assert_eq!(curl(&[&["--http2"], &told[..]].concat()), (true, "a=b 1.1".to_owned()));
    let over_unix = [prior, "--unix-socket", path.to_str().unwrap()];
    assert_eq!(curl(&[&over_unix, &told[..]].concat()), (true, "a=b 2".to_owned()));
    assert_eq!(server.get("/").text(), "ok");
    // The first bytes may come one by one.
    let mut slow = server.connect();
    for byte in b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n" {
        slow.send([*byte]);
    }
    assert_eq!(slow.reply().text(), "ok");
    let mut two = TcpStream::connect(server.address).unwrap();
    two.set_read_timeout(Some(LONG)).unwrap();
    two.set_nodelay(true).unwrap();
    for byte in HELLO {
        two.write_all(&[*byte]).unwrap();
    }
    let mut head = [0; 9];
    two.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "settings of the server's: {head:?}");
    drop(two);
    server.stop();
    counts.assert_complete();
}

#[cfg(feature = "tls")]
#[test]
fn a_client_may_choose_it_in_the_handshake() {
    let scratch = Scratch::new();
    let pair = crate::support::tls::Pair::new(&scratch, "a");
    let server = pair.of(Loader::of(probe())).serve();
    let port = server.address.port();
    let (resolve, url) = (format!("localhost:{port}:127.0.0.1"), format!("https://localhost:{port}/body"));
    let cert = pair.cert.to_str().unwrap();
    let told =
        ["--cacert", cert, "--resolve", &resolve, "--write-out", " %{http_version}", "-d", "a=b", &url];
    assert_eq!(curl(&[&["--http2"], &told[..]].concat()), (true, "a=b 2".to_owned()));
    assert_eq!(curl(&[&["--http1.1"], &told[..]].concat()), (true, "a=b 1.1".to_owned()));
    server.stop();
}

#[test]
fn requests_and_answers_are_what_they_are_in_http_1() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).serve();
    run(async {
        let client = connect(&server).await;
        let (status, headers, text) = get(&client, "/").await;
        assert_eq!((status, text.as_str(), headers["content-length"].to_str().unwrap()), (200, "ok", "2"));
        assert!(headers.contains_key("date") && !headers.contains_key("connection"), "{headers:?}");
        assert_eq!(get(&client, "/status?code=404").await.0, 404);
        let (_, headers, _) = get(&client, "/cookies").await;
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(get(&client, "/large?bytes=3000000").await.2.len(), 3_000_000);
        let (status, headers, text) = ask(&client, request("HEAD", "/large?bytes=100")).await;
        assert_eq!((status, text.as_str(), headers["content-length"].to_str().unwrap()), (200, "", "100"));
        let (status, headers, _) = get(&client, "/status?code=204").await;
        assert_eq!((status, headers.get("content-length")), (204, None));
        assert_eq!(get(&client, "/panic").await.0, 500);
        assert_eq!(get(&client, "/").await.0, 200, "the connection is kept");
        // What HTTP/1.1 calls Host has another name here.
        let (_, _, text) = ask(&client, request("GET", "/echo")).await;
        assert!(text.to_ascii_lowercase().contains("host: test"), "{text}");
        let mut crumbs = request("GET", "/echo");
        crumbs.headers_mut().append("cookie", "a=1".parse().unwrap());
        crumbs.headers_mut().append("cookie", "b=2".parse().unwrap());
        assert!(ask(&client, crumbs).await.2.contains("a=1; b=2"));
    });
    server.stop();
    counts.assert_complete();
}

#[test]
fn what_breaks_a_rule_never_reaches_the_lambda_and_leaves_the_others_alone() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--body-limit", "1KiB"]).serve();
    run(async {
        let client = connect(&server).await;
        let before = counts.of("run");
        for (name, value) in [("host", "other"), ("x", " a"), ("x", "a "), ("x", "\ta"), ("x", "a\t")] {
            let mut wrong = request("GET", "/");
            wrong.headers_mut().insert(name, value.parse().unwrap());
            let (answer, _) = begin(&client, wrong, true).await;
            assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR), "{name}: {value:?}");
        }
        for hosts in [["test", "other"], ["other", "test"], ["test", "test"]] {
            let mut wrong = request("GET", "/");
            for host in hosts {
                wrong.headers_mut().append("host", host.parse().unwrap());
            }
            let (answer, _) = begin(&client, wrong, true).await;
            assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR), "{hosts:?}");
        }
        let ftp = Request::get("ftp://test/").body(()).unwrap();
        let (answer, _) = begin(&client, ftp, true).await;
        assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));
        let mut host = request("GET", "/");
        host.headers_mut().insert("host", "TEST".parse().unwrap());
        assert_eq!(ask(&client, host).await.0, 200, "the same host twice is one");
        let before = before + 1;
        assert_eq!(get(&client, &format!("/{}", "x".repeat(17_000))).await.0, 414);
        let connect = Request::builder().method("CONNECT").uri("test:80").body(()).unwrap();
        assert_eq!(ask(&client, connect).await.0, 501);
        // Told, or found on the way.
        for length in [Some(4096), None] {
            let mut large = request("POST", "/length");
            if let Some(length) = length {
                large.headers_mut().insert("content-length", length.into());
            }
            let (answer, mut body) = begin(&client, large, false).await;
            let _ = body.send_data(Bytes::from(vec![0; 4096]), true);
            assert_eq!(answer.await.unwrap().status(), 413, "{length:?}");
        }
        assert_eq!(counts.of("run"), before);
        assert_eq!(get(&client, "/").await.0, 200, "over the same connection");
    });
    server.stop();
    counts.assert_complete();
}

#[test]
fn no_more_runs_wait_than_may_though_many_come_at_once() {
    let limits = ["--workers", "1", "--max-async", "10", "--drain-timeout", "200ms"];
    for target in ["/never", "/begins"] {
        let counts = Counts::new();
        let server = Loader::of(async_probe()).counting(&counts).args(limits).serve();
        let n_refused = run(async {
            let client = connect(&server).await;
            // They are all on their way before the first is answered.
            let answers = FuturesUnordered::new();
            for _ in 0..100 {
                answers.push(begin(&client, request("GET", target), true).await.0);
            }
            let mut refused =
                pin!(answers.filter(|answer| future::ready(answer.as_ref().unwrap().status() == 503)));
            let mut n_refused = 0;
            while n_refused + counts.of("run") < 100 {
                let next = tokio::time::timeout(Duration::from_millis(20), refused.next());
                n_refused += usize::from(next.await.is_ok_and(|answer| answer.is_some()));
            }
            n_refused
        });
        assert_eq!((counts.of("run"), n_refused), (10, 90), "{target}");
        server.signal(Signal::TERM);
        server.ends_with(0);
    }
}

/// The first head that comes back on stream 1, in HPACK.
fn head(stream: &mut TcpStream) -> Vec<u8> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a head comes");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).expect("a frame is whole");
        if head[3] == HEADERS {
            return payload;
        }
    }
}

#[test]
fn a_body_is_asked_for_when_somebody_waits_for_it_and_not_before() {
    // `:status: 100`, the digits in Huffman's code; `:status: 200`.
    const CONTINUE: &[u8] = b"\x48\x82\x08\x01";
    const OK: &[u8] = b"\x88";
    let post = |server: &Server, path: &str, more: &[u8]| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let path = [&[4, u8::try_from(path.len()).unwrap()], path.as_bytes()].concat();
        let fields = [b"\x83\x86", &path[..], b"\x01\x01a\x00\x06expect\x0c100-Continue", more].concat();
        stream.write_all(&[HELLO, &frame(HEADERS, END_HEADERS, 1, &fields)].concat()).unwrap();
        stream
    };
    // One reads bodies as they come, the other gets them whole.
    for server in [Loader::of(spout()), Loader::of(probe())].map(|loader| loader.args(["--body-limit", "9"]))
    {
        let server = server.serve();
        let mut stream = post(&server, "/length", b"");
        assert_eq!(head(&mut stream), CONTINUE);
        stream.write_all(&frame(DATA, END_STREAM, 1, b"abc")).unwrap();
        assert!(head(&mut stream).starts_with(OK));
        // `content-length: 10`
        let refused = head(&mut post(&server, "/length", b"\x0f\x0d\x0210"));
        assert!(!refused.starts_with(CONTINUE) && !refused.starts_with(OK), "{refused:?}");
        server.stop();
    }
    let server = Loader::of(spout()).serve();
    assert!(head(&mut post(&server, "/unread", b"")).starts_with(OK), "nobody asked for it");
    server.stop();
}

#[test]
fn a_request_without_a_host_is_refused() {
    let server = Loader::of(probe()).args(["--keep-alive", "1s"]).serve();
    // `:method: GET`, `:scheme: http`, `:path: /`, in HPACK.
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x86\x84");
    let frames = exchange(&server, |stream| stream.write_all(&[HELLO, &get].concat()));
    let (_, _, head) = frames.iter().find(|(kind, ..)| *kind == HEADERS).unwrap();
    // `:status: 400`
    assert_eq!(head[0], 0x8c, "{frames:?}");
    server.stop();
}

#[test]
fn without_an_authority_there_may_be_one_host() {
    let server = Loader::of(probe()).args(["--keep-alive", "1s"]).serve();
    // `:method: GET`, `:scheme: http`, `:path: /`, and `host: a`, in HPACK.
    let (get, host) = (&b"\x82\x86\x84"[..], &b"\x0f\x17\x01a"[..]);
    let ask = |stream: u32, head: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, stream, head);
    let frames = exchange(&server, |stream| {
        let one = ask(1, &[get, host].concat());
        let two = ask(3, &[get, host, host].concat());
        let others = ask(5, &[get, host, b"\x0f\x17\x01b"].concat());
        stream.write_all(&[HELLO, &one, &two, &others].concat())
    });
    let kinds = |of: u32| -> Vec<u8> {
        frames.iter().filter(|(_, stream, _)| *stream == of).map(|(kind, ..)| *kind).collect()
    };
    assert_eq!(
        (kinds(1)[0], kinds(3), kinds(5)),
        (HEADERS, vec![RST_STREAM], vec![RST_STREAM]),
        "{frames:?}"
    );
    server.stop();
}

#[test]
fn what_only_begins_like_the_preface_is_http_1() {
    let server = Loader::of(probe()).serve();
    for method in ["P", "PR", "PRI", "PRIOR", "PRIVATE"] {
        let mut connection = server.connect();
        connection.send(format!("{method} / HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(connection.reply().status, 200, "{method}");
    }
    let mut connection = server.connect();
    connection.send("PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n");
    assert_eq!(connection.reply().status, 505, "it is no preface");
    server.stop();
}

#[test]
fn bodies_go_both_ways_at_once() {
    let server = Loader::of(pipe()).args(["--body-limit", "0"]).serve();
    run(async {
        let client = connect(&server).await;
        let (answer, mut up) = begin(&client, request("POST", "/"), false).await;
        up.send_data(Bytes::from_static(b"first"), false).unwrap();
        let mut down = answer.await.unwrap().into_body();
        // Each piece comes back before the next one is sent.
        assert_eq!(&down.data().await.unwrap().unwrap()[..], b"first");
        for n in 0..100 {
            up.send_data(Bytes::from(format!("piece {n}")), false).unwrap();
            let piece = down.data().await.unwrap().unwrap();
            let _ = down.flow_control().release_capacity(piece.len());
            assert_eq!(&piece[..], format!("piece {n}").as_bytes());
        }
        up.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(&mut down).await.unwrap(), b"");
    });
    server.stop();
}

#[test]
fn a_large_body_goes_both_ways_in_constant_memory() {
    let mib: usize = env::var("EFFE_MIB").map_or(64, |n| n.parse().unwrap());
    let server = Loader::of(pipe()).args(["--body-limit", "0"]).serve();
    let bytes = mib << 20;
    let client = format!(
        "set -o pipefail; head -c {bytes} /dev/zero | curl -sS --http2-prior-knowledge -T - http://{}/ | \
         cmp -n {bytes} - /dev/zero",
        server.address
    );
    succeed(Command::new("bash").args(["-c", &client]));
    let used = server.peak_memory() >> 20;
    assert!(used <= 32, "{used} MiB");
    eprintln!("{mib} MiB went through in each direction over HTTP/2, {used} MiB of memory at most");
    server.stop();
}

#[test]
fn streams_end_as_they_end_in_http_1() {
    let counts = Counts::new();
    let server = Loader::of(spout()).counting(&counts).serve();
    run(async {
        let client = connect(&server).await;
        assert_eq!(get(&client, "/pieces").await.2, "0 1 2 3 4 5 6 7 8 9 ");
        // No clean end for what is not whole.
        for path in ["/fail", "/panic", "/short"] {
            let (answer, _) = begin(&client, request("GET", path), true).await;
            let mut body = answer.await.unwrap().into_body();
            let err = read(&mut body).await.unwrap_err();
            assert_eq!(err.reason(), Some(Reason::INTERNAL_ERROR), "{path}");
        }
        // A client that takes its request back has left.
        let (begun, failed) = (counts.of("begun"), counts.of("failed"));
        let (answer, mut up) = begin(&client, request("GET", "/endless"), true).await;
        let body = answer.await.unwrap().into_body();
        wait_until("it has begun", || counts.of("begun") > begun);
        up.send_reset(Reason::CANCEL);
        drop(body);
        // The run's next word after that fails.
        let deadline = Instant::now() + LONG;
        while counts.of("failed") == failed {
            assert!(Instant::now() < deadline, "the run learns of it");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(get(&client, "/").await.2, "ok", "the connection is kept");
    });
    server.stop();
    counts.assert_complete();
}

#[test]
fn an_announced_length_is_only_a_promise() {
    let server = Loader::of(probe()).args(["--body-limit", "0", "--workers", "1"]).serve();
    run(async {
        let client = connect(&server).await;
        let mut head = request("POST", "/length");
        head.headers_mut().insert("content-length", (1_u64 << 46).into());
        let (_answer, mut up) = begin(&client, head, false).await;
        for _ in 0..3 {
            up.send_data(Bytes::from_static(b"abc"), false).unwrap();
            // Once another request is answered, the one thread has read what came before.
            assert_eq!(get(&client, "/").await.0, 200);
        }
    });
    server.stop();
}

#[test]
fn the_length_of_a_stream_is_not_made_up_for_a_head() {
    let server = Loader::of(spout()).serve();
    run(async {
        let client = connect(&server).await;
        for (path, length) in [("/pieces", None), ("/exact", Some("10"))] {
            let (status, headers, _) = ask(&client, request("HEAD", path)).await;
            let found = headers.get("content-length").map(|length| length.to_str().unwrap());
            assert_eq!((status, found), (200, length), "{path}");
        }
    });
    server.stop();
}

#[test]
fn a_run_learns_that_its_request_was_taken_back() {
    let counts = Counts::new();
    let server = Loader::of(probe()).counting(&counts).args(["--execution", "pool"]).serve();
    run(async {
        let client = connect(&server).await;
        let (answer, mut up) = begin(&client, request("GET", "/cancelled"), true).await;
        let before = counts.of("run");
        let deadline = Instant::now() + LONG;
        while counts.of("run") == 0 && before == 0 {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        up.send_reset(Reason::CANCEL);
        drop(answer);
        while counts.of("cancelled") == 0 {
            assert!(Instant::now() < deadline, "the run sees it");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    server.stop();
    counts.assert_complete();
}

#[test]
fn an_answer_goes_out_while_its_run_goes_on() {
    for plugin in [early(), async_early()] {
        let (counts, scratch) = (Counts::new(), Scratch::new());
        let server = Loader::of(plugin).counting(&counts).args(["--workers", "1"]).serve();
        let target = format!("/goes-on?{}", scratch.join("gate").display());
        run(async {
            let client = connect(&server).await;
            for _ in 0..3 {
                let (status, headers, text) = get(&client, &target).await;
                assert_eq!((status, text.as_str()), (202, "taken"));
                assert_eq!(headers["content-length"], "5", "a held answer goes out whole");
            }
            assert_eq!(get(&client, "/").await.0, 202);
        });
        counts.wait_for("ended", 4);
        assert_eq!(counts.of("gone on"), 0);
        server.signal(Signal::TERM);
        server.wait_for_line("finishing what runs");
        scratch.write("gate", "");
        server.ends_with(0);
        assert_eq!((counts.of("gone on"), counts.of("cancelled"), counts.of("dropped")), (3, 0, 0));
        counts.assert_complete();
    }
}

/// Without `--read-timeout` only the client's leaving, or the end of the answer, ends the wait for its body.
#[test]
fn whoever_reads_a_body_is_told_that_its_client_has_left_or_that_its_answer_is_over() {
    for plugin in [spout(), async_probe()] {
        let counts = Counts::new();
        let loader = Loader::of(plugin).counting(&counts).args(["--admin", "127.0.0.1:0"]);
        let server = loader.args(["--read-timeout", "0"]).serve();
        run(async {
            for n in 0..12 {
                let client = connect(&server).await;
                let method = if n % 2 == 0 { "HEAD" } else { "POST" };
                let path = ["/echo", "/length"][n / 2 % 2];
                let (answer, mut body) = begin(&client, request(method, path), false).await;
                body.send_data(Bytes::from_static(b"half"), false).unwrap();
                while counts.of("run") <= n {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // An answer that is begun is read; all others never begin.
                let answer = tokio::time::timeout(Duration::from_millis(20), answer).await;
                match n % 3 {
                    0 => body.send_reset(Reason::CANCEL),
                    1 => drop(client),
                    // The answer of a HEAD is over.
                    _ if method == "HEAD" && answer.is_ok_and(|answer| answer.is_ok()) => {
                        server.assert_all_come_free(Duration::from_secs(1));
                    }
                    _ => drop(body),
                }
            }
        });
        server.assert_all_come_free(Duration::from_secs(1));
        assert_eq!(server.get("/").status, 200);
        server.stop();
    }
}

#[test]
fn a_drain_finishes_streams_and_asks_everybody_to_leave() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let server = Loader::of(probe()).counting(&counts).serve();
    let gate = scratch.join("gate");
    let since = Instant::now();
    run(async {
        let (idle, busy) = (connect(&server).await, connect(&server).await);
        assert_eq!(get(&idle, "/").await.0, 200);
        let before = counts.of("run");
        let (waiting, _) = begin(&busy, request("GET", &format!("/wait?for={}", gate.display())), true).await;
        let asked = actix_rt::spawn(waiting);
        while counts.of("run") == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.signal(Signal::TERM);
        // Both are told that nothing more is taken.
        for client in [&idle, &busy] {
            let mut client = client.clone();
            while poll_fn(|context| client.poll_ready(context)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        fs::write(&gate, "").unwrap();
        let mut answer: Response<RecvStream> = asked.await.unwrap().unwrap();
        assert_eq!(read(answer.body_mut()).await.unwrap(), b"waited");
    });
    server.ends_with(0);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    counts.assert_complete();
}

#[test]
fn a_client_that_does_not_leave_is_left_and_one_that_idles_is_asked_to() {
    let server =
        Loader::of(probe()).args(["--workers", "1", "--keep-alive", "1s", "--read-timeout", "1s"]).serve();
    // It answers no ping, so never confirms that it was told.
    let since = Instant::now();
    let frames = exchange(&server, |stream| stream.write_all(HELLO));
    assert_eq!(goaway(&frames), Some(Reason::NO_ERROR), "{frames:?}");
    assert!(since.elapsed() < Duration::from_secs(10));
    // Less than says what is spoken, and then an end: nobody else waits for what never comes.
    for end in [std::net::Shutdown::Write, std::net::Shutdown::Both] {
        let frames = exchange(&server, |stream| {
            stream.write_all(&HELLO[..2])?;
            stream.shutdown(end)
        });
        assert!(frames.is_empty(), "{frames:?}");
        assert_eq!(server.get("/").text(), "ok");
    }
    // Half a preface, and then nothing.
    let frames = exchange(&server, |stream| stream.write_all(&HELLO[..10]));
    assert!(frames.is_empty(), "nothing comes but the end: {frames:?}");
    let mut silent = TcpStream::connect(server.address).unwrap();
    silent.set_read_timeout(Some(LONG)).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    server.ends_with(0);
}

#[test]
fn swaps_lose_no_request() {
    let scratch = Scratch::new();
    let params = scratch.write("params.json", r#"{"a": "0"}"#);
    let server = Loader::of(probe()).arg("--params").arg(&params).serve();
    let n = run(async {
        let client = connect(&server).await;
        let mut n = 0;
        for swap in 1..=5 {
            scratch.write("params.json", format!(r#"{{"a": "{swap}"}}"#));
            server.signal(Signal::HUP);
            let done = format!("generation {} serves", swap + 1);
            while !server.lines().iter().any(|line| line.contains(&done)) {
                let (status, _, text) = get(&client, "/").await;
                assert_eq!((status, text.as_str()), (200, "ok"));
                n += 1;
            }
        }
        n
    });
    assert!(n > 5, "{n} requests during five swaps");
    server.stop();
}

#[test]
fn a_client_that_gives_no_room_holds_no_answer_for_ever() {
    let counts = Counts::new();
    let server = Loader::of(spout()).counting(&counts).args(["--write-timeout", "1s"]).serve();
    run(async {
        let client = connect(&server).await;
        let (answer, _) = begin(&client, request("GET", "/endless"), true).await;
        let mut body = answer.await.unwrap().into_body();
        // Nothing is released, so the window closes.
        let ended = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(err)) => break err.reason(),
                None => break None,
            }
        };
        assert_eq!(ended, Some(Reason::CANCEL));
        // What it holds of that answer leaves no room for another.
        drop(body);
        assert_eq!(get(&client, "/").await.2, "ok", "others on the connection are not harmed");
    });
    let used = server.peak_memory() >> 20;
    assert!(used <= 32, "{used} MiB");
    server.stop();
}

#[test]
fn floods_end_the_connection_and_nothing_else() {
    let server = Loader::of(probe()).args(["--body-limit", "0"]).serve();
    let before = server.peak_memory();
    // RUSTSEC-2026-0258: frames of a body that carry nothing of it.
    let empty = exchange(&server, |stream| {
        stream.write_all(HELLO)?;
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, POST))?;
        let flood = frame(DATA, 0, 1, b"").repeat(1000);
        (0..100).try_for_each(|_| stream.write_all(&flood))
    });
    assert_eq!(goaway(&empty), Some(Reason::ENHANCE_YOUR_CALM), "{empty:?}");
    // CVE-2023-44487: requests that are taken back at once.
    let resets = exchange(&server, |stream| {
        stream.write_all(HELLO)?;
        (0..50_000u32).try_for_each(|n| {
            let stream_id = 2 * n + 1;
            stream.write_all(&frame(HEADERS, END_HEADERS, stream_id, POST))?;
            stream.write_all(&frame(RST_STREAM, 0, stream_id, &8u32.to_be_bytes()))
        })
    });
    assert_eq!(goaway(&resets), Some(Reason::ENHANCE_YOUR_CALM));
    // CVE-2024-27316: a head that never ends.
    let heads = exchange(&server, |stream| {
        stream.write_all(HELLO)?;
        stream.write_all(&frame(HEADERS, END_STREAM, 1, POST))?;
        let flood = frame(CONTINUATION, 0, 1, &[b"\x00\x01x\x7f\x81\x1f".as_slice(), &[b'y'; 288]].concat());
        (0..50_000).try_for_each(|_| stream.write_all(&flood))
    });
    assert!(goaway(&heads).is_some_and(|reason| reason != Reason::NO_ERROR), "{heads:?}");
    // Frames that cost nothing but time, and are each allowed.
    let request = [&frame(HEADERS, END_HEADERS, 1, POST)[..], &frame(DATA, END_STREAM, 1, b"abc")].concat();
    for (kind, flags, stream_id, payload) in [
        (PRIORITY, 0, 3, &[0; 5][..]),
        (RST_STREAM, 0, 1, &8u32.to_be_bytes()),
        (SETTINGS, 0, 0, &[]),
        (PING, ACK, 0, &[1; 8]),
        (PING, 0, 0, &[1; 8]),
        (WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
        (0xfe, 0, 1, &[]),
    ] {
        let flood = frame(kind, flags, stream_id, payload).repeat(1000);
        let mut n_frames = 0;
        let frames = exchange(&server, |stream| {
            stream.write_all(&[HELLO, &request].concat())?;
            (0..2000).try_for_each(|_| stream.write_all(&flood).inspect(|()| n_frames += 1000))
        });
        // A ping's answer waits before it, and the reset of a connection that is still written to takes both along.
        if let Some(reason) = goaway(&frames).or((kind != PING).then_some(Reason::NO_ERROR)) {
            assert_eq!(reason, Reason::ENHANCE_YOUR_CALM, "{kind} {flags}");
        }
        assert!(n_frames < 1_000_000, "{kind} {flags}: {n_frames} were read");
    }
    assert_eq!(server.get("/").text(), "ok", "others are served");
    let grown = server.peak_memory().saturating_sub(before) >> 20;
    assert!(grown <= 16, "{grown} MiB more");
    server.stop();
}

#[test]
fn any_bytes_at_all_end_in_an_orderly_way() {
    let server = Loader::of(probe()).args(["--read-timeout", "2s"]).serve();
    let good = [HELLO, &frame(HEADERS, END_HEADERS, 1, POST), &frame(DATA, END_STREAM, 1, b"abc")].concat();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..env::var("EFFE_FUZZ").map_or(300, |n| n.parse().unwrap()) {
        let mut bytes = good.clone();
        for _ in 0..4 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = 24 + (seed >> 8) as usize % (bytes.len() - 24);
            bytes[at] = seed as u8;
        }
        let mut stream = TcpStream::connect(server.address).unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(LONG)).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // Of this one h2 would warn.
    exchange(&server, |stream| {
        stream.write_all(&[HELLO, &frame(PING, ACK, 0, &[1; 8])].concat())?;
        stream.shutdown(std::net::Shutdown::Write)
    });
    assert_eq!(server.get("/").text(), "ok");
    assert_eq!(server.lines().len(), 1, "nothing of it is in the log: {:#?}", server.lines());
    server.stop();
}

/// Asks for `n` answers on a new connection, and lets none of them come.
fn ask_without_window(server: &Server, n: u32, n_bytes: usize) -> TcpStream {
    let path = format!("/large?bytes={n_bytes}");
    // `:method: GET`, `:scheme: http`, `:path`, `:authority: a`, in HPACK.
    let get = [b"\x82\x86\x04", &[path.len() as u8][..], path.as_bytes(), b"\x01\x01a"].concat();
    let mut bytes = [&HELLO[..24], &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    (0..n).for_each(|n| bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get)));
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&bytes).unwrap();
    stream
}

/// `EFFE_UNREAD=1,10,100` takes so many connections.
#[test]
fn unread_answers_take_no_more_memory_however_many_connections_ask() {
    let counts = env::var("EFFE_UNREAD").unwrap_or("3".to_owned());
    for execution in ["inline", "pool"] {
        for n in counts.split(',').map(|n| n.parse::<usize>().unwrap()) {
            // What a run has not handed over is the lambda's: eight of them may have 120 MB.
            let limits = ["--held-limit", "256MiB", "--max-concurrency", "8", "--execution", execution];
            let server = Loader::of(probe()).args(limits).serve();
            let attack: Vec<_> = (0..n).map(|_| ask_without_window(&server, 100, 15_000_000)).collect();
            let (began, mut n_served, mut n_refused) = (Instant::now(), 0, 0);
            while began.elapsed() < Duration::from_secs(5) {
                match server.get("/").status {
                    200 => n_served += 1,
                    503 => n_refused += 1,
                    other => panic!("{other}"),
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let peak = server.peak_memory() >> 20;
            println!(
                "{execution}, {n} connections that ask for {} MB: {peak} MiB at most, {n_served} others were served \
                 and {n_refused} told to come again",
                n * 1500
            );
            assert!(n_served > 0, "nobody else was served in 5 seconds");
            assert!(peak <= 512, "{peak} MiB");
            drop(attack);
            server.stop();
        }
    }
}

#[test]
fn answers_that_a_client_does_not_take_delay_its_next_runs_and_have_a_bound() {
    const N: u32 = 100;
    for execution in ["inline", "pool"] {
        let counts = Counts::new();
        let server = Loader::of(probe())
            .counting(&counts)
            .args(["--held-limit", "64MiB", "--write-timeout", "2s", "--execution", execution])
            .serve();
        let began = Instant::now();
        let attack = ask_without_window(&server, N, 4_000_000);
        // Others are served meanwhile.
        let mut n_others = 0;
        let mut is_served = || {
            let status = server.get("/").status;
            assert!([200, 503].contains(&status), "{status}");
            n_others += usize::from(status == 200);
            status == 200
        };
        while began.elapsed() < Duration::from_secs(1) {
            is_served();
        }
        wait_until("there is room again", is_served);
        let peak = server.peak_memory() >> 20;
        assert!(peak <= 160, "{execution}: {peak} MiB");
        drop(attack);
        server.stop();
        counts.assert_complete();
        let n_runs = counts.of("run") - n_others;
        assert!(execution == "pool" || n_runs < N as usize / 2, "{n_runs} runs whose answer nobody took");
    }
    // A client that takes what it asks for gets all of it, however much it asks for at once.
    let server = Loader::of(probe()).args(["--held-limit", "32MiB", "--execution", "inline"]).serve();
    run(async {
        let client = connect(&server).await;
        let mut answers = FuturesUnordered::new();
        for _ in 0..N {
            let (answer, _) = begin(&client, request("GET", "/large?bytes=1000000"), true).await;
            answers.push(async move {
                let (head, mut body) = answer.await.unwrap().into_parts();
                (head.status.as_u16(), read(&mut body).await.unwrap().len())
            });
        }
        while let Some(answer) = answers.next().await {
            assert_eq!(answer, (200, 1_000_000));
        }
    });
    server.stop();
}
