//! A request arrives at the lambda whole and unaltered, and the lambda's answer at the client.

use crate::support::{Loader, Server, plugins::probe};

fn server() -> Server {
    Loader::of(probe()).serve()
}

/// What the probe saw of a head that is sent as it stands.
#[track_caller]
fn seen(request: &[u8]) -> Vec<u8> {
    let server = server();
    let reply = server.connect().send(request).reply();
    assert_eq!(reply.status, 200);
    server.stop();
    reply.body
}

#[test]
fn method_path_query_and_headers_arrive_to_the_byte() {
    let seen = seen(
        b"PATCH /echo?a=1&b=%20&&c=%zz&a=2 HTTP/1.1\r\nHost: example.org:81\r\nX-Twice: one\r\nx-twice: two\r\n\
          X-Bytes: caf\xe9 \xff\r\nX-Empty:\r\nX-Spaced:   a  b \t\r\n\r\n",
    );
    let seen: Vec<&[u8]> = seen.split(|byte| *byte == b'\n').collect();
    assert_eq!(seen[..4], [&b"PATCH"[..], b"/echo?a=1&b=%20&&c=%zz&a=2", b"/echo", b"a=1&b=%20&&c=%zz&a=2"]);
    let mut headers = seen[4..seen.len() - 2].to_vec();
    headers.sort_unstable();
    let expected: [&[u8]; 6] = [
        b"host: example.org:81",
        b"x-bytes: caf\xe9 \xff",
        b"x-empty: ",
        b"x-spaced: a  b",
        b"x-twice: one",
        b"x-twice: two",
    ];
    assert_eq!(headers, expected);
    assert_eq!(seen[seen.len() - 2..], [b"", b""], "no body");
}

#[test]
fn a_target_keeps_its_escapes() {
    for (target, path, query) in [
        ("/echo?", "/echo", ""),
        ("/echo?a=b?c=d", "/echo", "a=b?c=d"),
        ("/echo?%2e%2E%2f=caf%C3%A9+x", "/echo", "%2e%2E%2f=caf%C3%A9+x"),
    ] {
        let seen = seen(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        let expected = format!("GET\n{target}\n{path}\n{query}\n");
        assert!(seen.starts_with(expected.as_bytes()), "{}", seen.escape_ascii());
    }
}

#[test]
fn the_order_of_a_headers_values_is_kept() {
    let seen = seen(b"GET /echo HTTP/1.1\r\nHost: test\r\nA: 1\r\nB: x\r\na: 2\r\nA: 3\r\n\r\n");
    let text = String::from_utf8(seen).unwrap();
    let values: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("a: ")).collect();
    assert_eq!(values, ["1", "2", "3"]);
}

#[test]
fn every_method_arrives() {
    let server = server();
    let mut connection = server.connect();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE", "M-SEARCH"] {
        let reply = connection.send(format!("{method} /echo HTTP/1.1\r\nHost: test\r\n\r\n")).reply();
        assert!(reply.body.starts_with(format!("{method}\n").as_bytes()), "{method}");
    }
    server.stop();
}

#[test]
fn bodies_of_any_size_up_to_the_limit_arrive_whole() {
    let server = server();
    let mut connection = server.connect();
    for size in [0, 1, 4_096, 65_535, 65_536, 2 << 20] {
        let body: Vec<u8> = (0..size).map(|n| (n * 7 % 251) as u8).collect();
        let reply = connection.post("/body", &body);
        assert_eq!(reply.status, 200, "{size}");
        assert!(reply.body == body, "{size} bytes came back as {}", reply.body.len());
    }
    server.stop();
}

#[test]
fn a_chunked_body_arrives_in_one_piece() {
    let server = server();
    let mut connection = server.connect();
    for _ in 0..2 {
        connection.send("POST /body HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send("3\r\nabc\r\n").send("1;x=y\r\n\n\r\n").send("4\r\nd\0fg\r\n0\r\n\r\n");
        assert_eq!(connection.reply().body, b"abc\nd\0fg");
    }
    server.stop();
}

#[test]
fn a_body_that_comes_slowly_is_waited_for() {
    let server = server();
    let mut connection = server.connect();
    connection.send("POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\n");
    for piece in ["ab", "c", "def"] {
        connection.send(piece);
        assert_eq!(server.get("/").status, 200, "others are served in between");
    }
    assert_eq!(connection.reply().body, b"abcdef");
    server.stop();
}

#[test]
fn a_body_above_the_limit_is_a_413_and_the_connection_is_closed() {
    let server = Loader::of(probe()).args(["--body-limit", "10"]).serve();
    let mut connection = server.connect();
    assert_eq!(connection.post("/length", b"0123456789").text(), "10");
    let reply = connection.post("/length", b"0123456789a");
    assert_eq!((reply.status, reply.text()), (413, "the request body is too large\n"));
    assert_eq!(reply.text_header("connection"), Some("close"));
    assert!(connection.is_closed());
    // Without an announced length it is noticed while it comes.
    let mut connection = server.connect();
    connection.send("POST /length HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send("8\r\n01234567\r\n").send("8\r\n01234567\r\n");
    assert_eq!(connection.reply().status, 413);
    assert!(connection.send("0\r\n\r\n").is_closed());
    server.stop();
}

#[test]
fn the_body_limit_is_two_mebibytes_unless_told_and_zero_is_none() {
    let body = vec![b'x'; (2 << 20) + 1];
    let server = server();
    assert_eq!(server.connect().post("/length", &body).status, 413);
    server.stop();
    let server = Loader::of(probe()).args(["--body-limit", "0"]).serve();
    assert_eq!(server.connect().post("/length", &body).text(), body.len().to_string());
    server.stop();
}

#[test]
fn an_answer_to_head_has_a_length_and_no_body() {
    let server = server();
    let mut connection = server.connect();
    for _ in 0..2 {
        let reply = connection.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").reply_to_head();
        assert_eq!((reply.status, reply.text_header("content-length")), (200, Some("2")));
    }
    assert_eq!(connection.get("/").text(), "ok", "the connection is where it should be");
    server.stop();
}

#[test]
fn a_204_has_neither_body_nor_length() {
    let server = server();
    let mut connection = server.connect();
    for code in [204, 304] {
        let reply = connection.get(&format!("/status?code={code}"));
        assert_eq!(reply.status, code);
        if code == 204 {
            assert_eq!(reply.text_header("content-length"), None);
        }
        assert_eq!(connection.get("/").text(), "ok");
    }
    server.stop();
}

#[test]
fn each_status_of_the_lambdas_goes_out() {
    let server = server();
    let mut connection = server.connect();
    for code in [200, 201, 202, 302, 400, 404, 418, 500, 503, 599] {
        assert_eq!(connection.get(&format!("/status?code={code}")).status, code);
    }
    server.stop();
}

#[test]
fn headers_of_one_name_go_out_apart() {
    let server = server();
    let reply = server.get("/cookies");
    let cookies: Vec<_> = reply.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
    assert_eq!(cookies.iter().map(|(_, value)| &value[..]).collect::<Vec<_>>(), [&b"a=1"[..], b"b=2"]);
    server.stop();
}

#[test]
fn a_client_of_http_1_0_is_answered() {
    let server = server();
    let mut connection = server.connect();
    let reply = connection.send("GET /context HTTP/1.0\r\n\r\n").reply();
    assert_eq!((reply.status, reply.text()), (200, "1"));
    assert!(connection.is_closed());
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = server();
    let mut connection = server.connect();
    for n in 0..20 {
        connection.send(format!("GET /echo?{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    for n in 0..20 {
        let reply = connection.reply();
        assert!(reply.body.starts_with(format!("GET\n/echo?{n}\n").as_bytes()), "{n}");
    }
    server.stop();
}

#[test]
fn a_client_that_is_not_ours_is_served_as_well() {
    let server = server();
    let agent = ureq::Agent::new_with_defaults();
    let url = |path: &str| format!("http://{}{path}", server.address);
    let mut answer = agent.post(url("/body")).send("a body").unwrap();
    assert_eq!(answer.body_mut().read_to_string().unwrap(), "a body");
    let mut answer = agent.get(url("/echo")).query("q", "a b").header("x-test", "yes").call().unwrap();
    let seen = answer.body_mut().read_to_string().unwrap();
    assert!(seen.starts_with("GET\n/echo?q=a%20b\n/echo\nq=a%20b\n"), "{seen}");
    assert!(seen.contains("\nx-test: yes\n"), "{seen}");
    assert!(matches!(agent.get(url("/fail")).call(), Err(ureq::Error::StatusCode(500))));
    server.stop();
}
