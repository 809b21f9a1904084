//! What goes over the wire: the rules of HTTP that matter to a server, a row a rule, as raw requests and the answers
//! that are required.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Connection, LONG, Loader, Server,
    plugins::{async_probe, probe, spout},
    wait_until,
};

/// What must become of the connection after the last answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Another request on it is answered.
    Kept,
    /// It is closed.
    Closed,
}
use After::{Closed, Kept};

/// Section, what is sent, the statuses of the answers, the connection. `~` stands for CR LF, and `Host: h` is added
/// where there is `{h}`.
type Row = (&'static str, &'static str, &'static [u16], After);

const RFC_9112: &[Row] = &[
    ("2.2 an empty line before a request is skipped", "~GET / HTTP/1.1~{h}~~", &[200], Kept),
    ("2.2 LF alone ends a line of a head", "GET / HTTP/1.1\n{h}\nX: y\n\n", &[200], Kept),
    ("2.2 a bare CR in the head", "GET / HTTP/1.1~{h}~X: a\rb~~", &[400], Closed),
    ("2.2 whitespace before the first header", "GET / HTTP/1.1~ {h}~~", &[400], Closed),
    ("2.2 no HTTP at all", "\x16\x03\x01\x02\x00~~", &[400], Closed),
    ("2.3 a version without a number", "GET / HTTP/x~{h}~~", &[400], Closed),
    ("2.3 a later version of HTTP/1", "GET / HTTP/1.2~{h}~~", &[200], Kept),
    ("2.3 the last version of HTTP/1", "GET / HTTP/1.9~{h}~~", &[200], Kept),
    ("2.3 a version with two digits", "GET / HTTP/1.12~{h}~~", &[400], Closed),
    ("2.3 a major version that is not spoken", "GET / HTTP/2.0~{h}~~", &[505], Closed),
    ("2.3 a later one", "GET / HTTP/3.0~{h}~~", &[505], Closed),
    ("2.3 a later one with two digits", "GET / HTTP/2.00~{h}~~", &[400], Closed),
    ("3 no version", "GET /~~", &[400], Closed),
    ("3 a tab in the request line", "GET\t/ HTTP/1.1~{h}~~", &[400], Closed),
    ("3.1 a method that is no token", "G(T / HTTP/1.1~{h}~~", &[400], Closed),
    ("3.1 all that a token has", "A!#$%&'*+-.^_`|0z / HTTP/1.1~{h}~~", &[200], Kept),
    ("3.1 a method that is too long", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1~{h}~~", &[501], Closed),
    ("3.1 methods are told apart by case", "get / HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2 no Host", "GET / HTTP/1.1~~", &[400], Closed),
    ("3.2 two Hosts", "GET / HTTP/1.1~{h}~Host: b~~", &[400], Closed),
    ("3.2 an empty Host", "GET / HTTP/1.1~Host:~~", &[400], Closed),
    ("3.2 a user in Host", "GET / HTTP/1.1~Host: u@h~~", &[400], Closed),
    ("3.2 a path in Host", "GET / HTTP/1.1~Host: h/p~~", &[400], Closed),
    ("3.2 two names in Host", "GET / HTTP/1.1~Host: a, b~~", &[400], Closed),
    ("3.2 no Host in HTTP/1.0", "GET / HTTP/1.0~~", &[200], Closed),
    ("3.2.1 a query", "GET /?a=b HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.2 the absolute form", "GET http://h/ HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.2 without a path", "GET http://h HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.2 a query without a path", "GET http://h?x=1 HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.2 a scheme in capitals, a port", "GET HTTP://h:80/ HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.2 an IPv6 literal", "GET http://[::1]:80/ HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.2 a literal of later", "GET http://[v1.a:b]/ HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.2 none of IPv6", "GET http://[:::1]/ HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2.2 a user", "GET http://u@h/ HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2.2 a large port", "GET http://h:65536/ HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2.2 a port that is no number", "GET http://h:x/ HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2.2 no host", "GET http:///p HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2.2 half an escape in the host", "GET http://a%2/ HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2.2 https in clear", "GET https://h/ HTTP/1.1~{h}~~", &[421], Closed),
    ("3.2.2 a malformed Host is not made up for", "GET http://h/ HTTP/1.1~Host: a b~~", &[400], Closed),
    ("3.2.2 a missing Host is not made up for", "GET http://h/ HTTP/1.1~~", &[400], Closed),
    ("3.2.2 another scheme", "GET ftp://h/ HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 a word", "GET p HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 a query alone", "GET ?x=1 HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 a scheme without authority", "GET http:/p HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 a scheme alone", "GET http: HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 mailto", "GET mailto:a@b HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 an authority", "GET h:80 HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 an authority with a user", "GET u@h HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 a fragment", "GET /a#b HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 a fragment of an absolute target", "GET http://h/a#b HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 what no URI has and browsers send", "GET /|^[]?`\\^{|}[]%z HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2 a backslash", "GET /a\\b HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2 what nobody sends unescaped", "GET /?< HTTP/1.1~{h}~~", &[400], Closed),
    ("3.2 half an escape in Host", "GET / HTTP/1.1~Host: a%2~~", &[400], Closed),
    ("3.2 no IPv6 in Host", "GET / HTTP/1.1~Host: [:::1]~~", &[400], Closed),
    ("3.2 a large port in Host", "GET / HTTP/1.1~Host: a:65536~~", &[400], Closed),
    ("3.2.3 CONNECT", "CONNECT h:80 HTTP/1.1~{h}~~GET /next HTTP/1.1~{h}~~", &[501], Closed),
    ("3.2.4 an asterisk for OPTIONS", "OPTIONS * HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.4 an absolute target without a path", "OPTIONS http://h HTTP/1.1~{h}~~", &[200], Kept),
    ("3.2.4 an asterisk for GET", "GET * HTTP/1.1~{h}~~", &[400], Closed),
    ("5 a header without a colon", "GET / HTTP/1.1~{h}~X~~", &[400], Closed),
    ("5 a header without a name", "GET / HTTP/1.1~{h}~: x~~", &[400], Closed),
    ("5.1 a space before the colon", "GET / HTTP/1.1~{h}~X : a~~", &[400], Closed),
    ("5.1 white space around a length", "POST / HTTP/1.1~{h}~Content-Length:\t 3 ~~abc", &[200], Kept),
    ("5.2 a folded header", "GET / HTTP/1.1~{h}~X: a~ b~~", &[400], Closed),
    ("5.5 a NUL in a value", "GET / HTTP/1.1~{h}~X: a\0b~~", &[400], Closed),
    (
        "6.1 both lengths",
        "POST / HTTP/1.1~{h}~Content-Length: 3~Transfer-Encoding: chunked~~0~~",
        &[400],
        Closed,
    ),
    ("6.1 a coding that is not spoken", "POST / HTTP/1.1~{h}~Transfer-Encoding: gzip~~", &[400], Closed),
    (
        "6.1 a coding that is not spoken below chunked",
        "POST / HTTP/1.1~{h}~Transfer-Encoding: gzip, Chunked~~0~~",
        &[501],
        Closed,
    ),
    (
        "6.1 the same in two fields",
        "PUT / HTTP/1.1~{h}~Transfer-Encoding: gzip~transfer-encoding: chunked~~0~~",
        &[501],
        Closed,
    ),
    ("6.1 the same for a GET", "GET / HTTP/1.1~{h}~Transfer-Encoding: gzip, chunked~~0~~", &[501], Closed),
    (
        "6.1 the same with a length",
        "POST / HTTP/1.1~{h}~Transfer-Encoding: gzip, chunked~Content-Length: 3~~0~~",
        &[400],
        Closed,
    ),
    ("6.1 chunked twice", "POST / HTTP/1.1~{h}~Transfer-Encoding: chunked, chunked~~0~~", &[400], Closed),
    ("6.1 chunked not last", "POST / HTTP/1.1~{h}~Transfer-Encoding: chunked, gzip~~", &[400], Closed),
    (
        "6.1 two Transfer-Encodings",
        "POST / HTTP/1.1~{h}~Transfer-Encoding: chunked~Transfer-Encoding: chunked~~0~~",
        &[400],
        Closed,
    ),
    (
        "6.1 Transfer-Encoding in HTTP/1.0",
        "POST / HTTP/1.0~{h}~Transfer-Encoding: chunked~~0~~",
        &[400],
        Closed,
    ),
    ("6.2 a length that is no number", "POST / HTTP/1.1~{h}~Content-Length: x~~", &[400], Closed),
    ("6.2 a negative length", "POST / HTTP/1.1~{h}~Content-Length: -1~~", &[400], Closed),
    ("6.2 a length with a sign", "POST / HTTP/1.1~{h}~Content-Length: +3~~abc", &[400], Closed),
    (
        "6.2 zeros before a length, which is decimal",
        "POST / HTTP/1.1~{h}~Content-Length: 010~~0123456789",
        &[200],
        Kept,
    ),
    ("6.2 two lengths", "POST / HTTP/1.1~{h}~Content-Length: 3~Content-Length: 4~~abcd", &[400], Closed),
    ("6.3 a length as a list", "POST / HTTP/1.1~{h}~Content-Length: 3, 3~~abc", &[400], Closed),
    ("6.3 a body of its length", "POST /length HTTP/1.1~{h}~Content-Length: 3~~abc", &[200], Kept),
    ("6.3 no length, no body", "POST /length HTTP/1.1~{h}~~", &[200], Kept),
    ("7.1 a chunked body", "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~3~abc~0~~", &[200], Kept),
    (
        "7.1 a size that is no number",
        "POST / HTTP/1.1~{h}~Transfer-Encoding: chunked~~x~abc~0~~",
        &[400],
        Closed,
    ),
    ("7.1 a size with a sign", "POST / HTTP/1.1~{h}~Transfer-Encoding: chunked~~+3~abc~0~~", &[400], Closed),
    (
        "7.1 a size that overflows",
        "POST / HTTP/1.1~{h}~Transfer-Encoding: chunked~~fffffffffffffffff~abc~0~~",
        &[400],
        Closed,
    ),
    (
        "7.1 more data than the size",
        "POST / HTTP/1.1~{h}~Transfer-Encoding: chunked~~3~abcd~0~~",
        &[400],
        Closed,
    ),
    (
        "7.1 a size in capitals and with zeros",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~00A~0123456789~0~~",
        &[200],
        Kept,
    ),
    (
        "7.1 white space behind a size",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~2 ~ab~0~~",
        &[400],
        Closed,
    ),
    (
        "7.1 LF alone behind a size",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~2\nab~0~~",
        &[400],
        Closed,
    ),
    (
        "7.1 LF alone behind the data",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~2~ab\n0~~",
        &[400],
        Closed,
    ),
    (
        "7.1 a size beyond the limit, before it has come",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~1~a~ffffff~",
        &[413],
        Closed,
    ),
    (
        "7.1.1 white space around an extension",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~2 ; a = b~ab~0~~",
        &[200],
        Kept,
    ),
    (
        "7.1.1 a quoted value",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~2;a=\"b;\\\"c\"~ab~0~~",
        &[200],
        Kept,
    ),
    (
        "7.1.1 an extension without a name",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~2;~ab~0~~",
        &[400],
        Closed,
    ),
    (
        "7.1.1 an extension that is no token",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~2;[]~ab~0~~",
        &[400],
        Closed,
    ),
    (
        "7.1.1 a quote that doesn't end",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~2;a=\"b~ab~0~~",
        &[400],
        Closed,
    ),
    (
        "7.1.1 an extension",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~3;a=b~abc~0~~",
        &[200],
        Kept,
    ),
    ("7.1.2 a trailer", "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~3~abc~0~X: y~~", &[200], Kept),
    (
        "7.1.2 a trailer without a colon",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~0~X~~",
        &[400],
        Closed,
    ),
    (
        "7.1.2 white space before the colon of a trailer",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~0~X : y~~",
        &[400],
        Closed,
    ),
    (
        "7.1.2 a trailer without a name",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~0~: y~~",
        &[400],
        Closed,
    ),
    (
        "7.1.2 a folded trailer",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~0~X: y~ z~~",
        &[400],
        Closed,
    ),
    (
        "7.1.2 NUL in a trailer",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~0~X: a\0b~~",
        &[400],
        Closed,
    ),
    (
        "7.1.2 CR alone in a trailer",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~0~X: a\rb~~",
        &[400],
        Closed,
    ),
    (
        "7.1.2 LF alone behind a trailer",
        "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~0~X: y\n~",
        &[400],
        Closed,
    ),
    ("9.3 HTTP/1.0 closes", "GET / HTTP/1.0~{h}~~GET / HTTP/1.0~{h}~~", &[200], Closed),
    ("9.3 HTTP/1.0 may be kept", "GET / HTTP/1.0~{h}~Connection: keep-alive~~", &[200], Kept),
    (
        "9.3.2 pipelined requests are answered in order",
        "GET / HTTP/1.1~{h}~~GET /status?code=201 HTTP/1.1~{h}~~GET /status?code=202 HTTP/1.1~{h}~~",
        &[200, 201, 202],
        Kept,
    ),
    (
        "9.6 nothing behind close is answered",
        "GET / HTTP/1.1~{h}~Connection: close~~GET / HTTP/1.1~{h}~~GET / HTTP/1.1~{h}~~",
        &[200],
        Closed,
    ),
    (
        "9.6 close among other options",
        "GET / HTTP/1.1~{h}~Connection: foo, Close~~GET / HTTP/1.1~{h}~~",
        &[200],
        Closed,
    ),
];

const RFC_9110: &[Row] = &[
    ("7.8 an upgrade is ignored", "GET / HTTP/1.1~{h}~Connection: upgrade~Upgrade: h2c~~", &[200], Kept),
    (
        "7.8 an upgrade to WebSocket is ignored",
        "GET / HTTP/1.1~{h}~Connection: upgrade~Upgrade: websocket~~",
        &[200],
        Kept,
    ),
    (
        "7.8 its body is what the length says",
        "POST /length HTTP/1.1~{h}~Upgrade: websocket~Content-Length: 3~~abcGET / HTTP/1.1~{h}~~",
        &[200, 200],
        Kept,
    ),
    ("7.8 in HTTP/1.0 too", "GET / HTTP/1.0~{h}~Upgrade: websocket~~", &[200], Closed),
    ("9.3.2 HEAD has no body", "HEAD /large?bytes=100 HTTP/1.1~{h}~~", &[200], Kept),
    (
        "10.1.1 Expect: 100-continue of a request that is refused",
        "POST /length HTTP/1.1~Host: a b~Expect: 100-continue~Content-Length: 3~~",
        &[400],
        Closed,
    ),
    ("10.1.1 Expect: 100-continue without a body", "GET / HTTP/1.1~{h}~Expect: 100-continue~~", &[200], Kept),
    (
        "10.1.1 Expect: 100-continue of a body that has come",
        "POST /length HTTP/1.1~{h}~Expect: 100-continue~Content-Length: 3~~abc",
        &[200],
        Kept,
    ),
    ("15.3.5 204 has no body", "GET /status?code=204 HTTP/1.1~{h}~~", &[204], Kept),
    ("15.4.5 304 has no body", "GET /status?code=304 HTTP/1.1~{h}~~", &[304], Kept),
];

fn wire(text: &str) -> Vec<u8> {
    text.replace("{h}", "Host: h").replace('~', "\r\n").into_bytes()
}

/// All that comes until the server closes.
fn all(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    answers
}

fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let heads = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    heads.collect()
}

#[test]
fn each_rule_of_http_has_its_answer() {
    let server = Loader::of(probe()).args(["--keep-alive", "20s"]).serve();
    let mut wrong = Vec::new();
    for (rule, request, expected, after) in RFC_9112.iter().chain(RFC_9110) {
        let mut bytes = wire(request);
        let mut expected = expected.to_vec();
        if *after == Kept {
            bytes.extend(wire("GET /status?code=299 HTTP/1.1~{h}~Connection: close~~"));
            expected.push(299);
        }
        let answers = all(&server, &bytes);
        let found = statuses(&answers);
        if found != expected {
            wrong.push(format!("{rule}: {found:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(server.get("/").text(), "ok");
    server.stop();
}

#[test]
fn what_is_too_long_is_refused_and_never_reaches_the_lambda() {
    let server = Loader::of(probe()).serve();
    let long = "x".repeat(20 * 1024);
    let many = "X: y\r\n".repeat(100);
    let large = format!("X: {}\r\n", "y".repeat(70 * 1024));
    let huge = format!("X: {}\r\n", "y".repeat(200 * 1024));
    // The shortest that the parser's type of names can't hold.
    let name = format!("X: y\r\n{}: y\r\n", "n".repeat(64 * 1024));
    // It shows before the end of its line has come.
    let long_name = format!("{}: y\r\n", "n".repeat(90 * 1024));
    for (target, headers, expected) in [
        (long.as_str(), "", 414),
        ("", &many, 431),
        ("", &large, 431),
        ("", &huge, 431),
        ("", &name, 431),
        ("", &long_name, 431),
    ] {
        let answers = all(&server, format!("GET /{target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes());
        // Who is still sending when the answer comes may miss it.
        let found = statuses(&answers);
        assert!(
            found == [expected] || (headers.len() > 100_000 && found.is_empty()),
            "{found:?}, not {expected}"
        );
    }
    let fits = all(
        &server,
        format!("GET /{} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &long[..8000]).as_bytes(),
    );
    assert_eq!(statuses(&fits), [200]);
    server.stop();
}

#[test]
fn a_body_in_chunks_has_no_more_around_it_than_it_needs() {
    let server = Loader::of(probe()).serve();
    let around = [
        format!("2;{}~ab~0~~", "e".repeat(5000)),
        format!("{}0~~", format!("1;{}~x~", "e".repeat(3000)).repeat(7)),
        format!("0~{}~", "X: y~".repeat(2000)),
    ];
    for body in &around {
        let head = "POST /length HTTP/1.1~{h}~Transfer-Encoding: chunked~~";
        assert_eq!(statuses(&all(&server, &wire(&format!("{head}{body}")))), [400], "{body:.60}");
    }
    server.stop();
}

#[test]
fn a_target_with_an_authority_says_for_itself_which_host_is_meant() {
    for execution in ["inline", "pool"] {
        let server = Loader::of(probe()).args(["--execution", execution]).serve();
        let answers = all(&server, &wire("GET http://meant/authority HTTP/1.1~{h}~Connection: close~~"));
        assert!(answers.ends_with(b"\r\n\r\nmeant"), "{}", String::from_utf8_lossy(&answers));
        // Who reads Host is told the same.
        for head in ["HTTP/1.1~{h}~Connection: close", "HTTP/1.0~{h}", "HTTP/1.0"] {
            let answers = all(&server, &wire(&format!("GET http://meant:80/echo {head}~~")));
            let text = String::from_utf8_lossy(&answers);
            let hosts: Vec<&str> = text.lines().filter(|line| line.starts_with("host:")).collect();
            assert_eq!(hosts, ["host: meant:80"], "{head}: {text}");
        }
        server.stop();
    }
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Loader::of(probe()).args(["--read-timeout", "300ms"]).serve();
    let since = Instant::now();
    let answers = all(&server, &wire("POST / HTTP/1.1~{h}~Content-Length: 10~~a"));
    assert_eq!(statuses(&answers), [408]);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    server.stop();
}

#[test]
fn a_body_that_drips_is_not_waited_for_either() {
    let server = Loader::of(probe()).args(["--read-timeout", "300ms"]).serve();
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&wire("POST / HTTP/1.1~{h}~Content-Length: 1000~~")).unwrap();
    let mut answers = Vec::new();
    let mut reader = stream.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let _ = reader.read_to_end(&mut answers);
        answers
    });
    let since = Instant::now();
    while !reader.is_finished() {
        assert!(since.elapsed() < LONG, "it is still waited for");
        // Each byte within the time that a byte has.
        let _ = stream.write_all(b"x");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(statuses(&reader.join().unwrap()), [408]);
    server.stop();
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for_on_a_kept_connection_either() {
    let server = Loader::of(probe()).args(["--read-timeout", "500ms"]).serve();
    let mut first = server.connect();
    first.send("GET / HT");
    assert_eq!(first.reply().status, 408);
    let mut second = server.connect();
    assert_eq!(second.get("/").status, 200);
    second.send("GET / HT");
    let since = Instant::now();
    assert_eq!(second.reply().status, 408);
    assert!(second.is_closed());
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    server.stop();
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let server = Loader::of(probe()).args(["--keep-alive", "300ms"]).serve();
    let mut connection = server.connect();
    assert_eq!(connection.get("/").status, 200);
    assert!(connection.is_closed());
    server.stop();
}

#[test]
fn a_client_that_has_said_all_it_has_to_say_is_answered() {
    for (plugin, execution, targets) in [
        (probe(), "auto", &["/"][..]),
        (spout(), "auto", &["/slow"]),
        (async_probe(), "auto", &["/", "/sleep?300", "/pieces?300"]),
        (async_probe(), "pool", &["/", "/sleep?300", "/pieces?300"]),
    ] {
        let server = Loader::of(plugin).args(["--execution", execution]).serve();
        for target in targets {
            let answer = ask_and_close(&server, target);
            assert_eq!(statuses(&answer), [200], "{target}");
            let is_whole = [&b"ok"[..], b"ended\r\n0\r\n\r\n", b"done", b"slept", b"\r\n299\n\r\n0\r\n\r\n"]
                .iter()
                .any(|end| answer.ends_with(end));
            assert!(is_whole, "{target}: {}", String::from_utf8_lossy(&answer));
        }
        server.stop();
    }
}

#[test]
fn a_client_that_has_closed_its_end_of_a_run_that_never_ends_is_let_go() {
    let is_let_go = |execution| {
        let server = Loader::of(async_probe()).args(["--execution", execution, "--access-log"]).serve();
        thread::scope(|scope| {
            let begun = scope.spawn(|| ask_and_close(&server, "/begins"));
            let answer = ask_and_close(&server, "/never");
            assert_eq!(String::from_utf8_lossy(&answer), "", "no status that HTTP doesn't have");
            assert!(server.wait_for_line("/never").contains("499"), "the access log says what became of it");
            let answer = begun.join().unwrap();
            assert!(answer.ends_with(b"begun\r\n"), "what there was of it: {}", answer.escape_ascii());
        });
        // A run that went on would cost it its exit code.
        server.stop();
    };
    thread::scope(|scope| {
        for execution in ["auto", "pool"] {
            scope.spawn(move || is_let_go(execution));
        }
    });
}

/// Sends a request, closes the client's end of the connection, and returns all that comes.
fn ask_and_close(server: &Server, target: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(&wire(&format!("GET {target} HTTP/1.1~{{h}}~~"))).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{target}: {error}");
    }
    answer
}

#[test]
fn an_announced_length_is_only_a_promise() {
    for limit in ["0", "100000GiB"] {
        let server = Loader::of(probe()).args(["--body-limit", limit, "--workers", "1"]).serve();
        let mut clients = Vec::new();
        for length in [u64::MAX, i64::MAX as u64, 1 << 46] {
            let mut stream = TcpStream::connect(server.address).unwrap();
            let head = format!("POST /length HTTP/1.1~{{h}}~Content-Length: {length}~~");
            stream.write_all(&wire(&head)).unwrap();
            for _ in 0..3 {
                // Once another request is answered, the one thread has read what came before.
                assert_eq!(server.get("/").text(), "ok");
                let _ = stream.write_all(b"abc");
            }
            clients.push(stream);
        }
        assert_eq!(server.get("/").text(), "ok");
        drop(clients);
        server.stop();
    }
}

#[test]
fn a_slow_upload_is_read_on_after_an_early_answer_but_holds_up_no_drain() {
    let server = Loader::of(probe()).args(["--body-limit", "10"]).serve();
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(&wire("POST /length HTTP/1.1~{h}~Content-Length: 1000000~~")).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(statuses(&answer), [413]);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        stream.write_all(b"slowly").expect("it is still read");
        thread::sleep(Duration::from_millis(200));
    }
    // It sends without a pause while the effe stops.
    let since = Instant::now();
    let sender = thread::spawn(move || while stream.write_all(&[b'x'; 4096]).is_ok() {});
    server.stop();
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    sender.join().unwrap();
}

/// The statuses that come before a client that waits to be asked for its body has sent it; then it does, and what
/// comes until the connection is closed.
fn patiently(server: &Server, path: &str, length: usize) -> (Vec<u16>, String) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1~{{h}}~Expect: 100-continue~Connection: close~Content-Length: {length}~~"
    );
    stream.write_all(&wire(&head)).unwrap();
    let mut before = Vec::new();
    while !before.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        before.push(byte[0]);
    }
    let statuses = statuses(&before);
    if statuses == [100] {
        stream.write_all(&vec![b'x'; length]).unwrap();
    }
    let mut after = String::new();
    stream.read_to_string(&mut after).unwrap();
    (statuses, after)
}

#[test]
fn a_body_is_asked_for_when_somebody_waits_for_it_and_not_before() {
    for (plugin, path) in [(probe(), "/length"), (spout(), "/length"), (async_probe(), "/echo")] {
        let server = Loader::of(plugin).args(["--body-limit", "1000"]).serve();
        let (before, after) = patiently(&server, path, 3);
        assert!(before == [100] && after.starts_with("HTTP/1.1 200 "), "{before:?} {after:?}");
        let (before, _) = patiently(&server, path, 1001);
        assert_eq!(before, [413], "what is too large is not asked for");
        server.stop();
    }
    let server = Loader::of(spout()).serve();
    let (before, after) = patiently(&server, "/unread", 3);
    assert_eq!((before, after.as_str()), (vec![200], "not read"), "nobody has read it");
    let (before, after) = patiently(&server, "/whole", 3);
    assert!(before == [100] && after.ends_with("\r\n\r\nxxx"), "{before:?} {after:?}");
    server.stop();
}

#[test]
fn a_body_that_nobody_has_read_is_skipped_and_the_connection_idles() {
    let server = Loader::of(spout()).serve();
    let mut connection = server.connect();
    for _ in 0..2 {
        connection.send("POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n");
        let reply = connection.reply();
        assert_eq!((reply.status, reply.text_header("connection")), (200, None));
        connection.send("xxx");
    }
    let since = Instant::now();
    server.stop();
    assert!(since.elapsed() < Duration::from_secs(5), "who idles is not waited for: {:?}", since.elapsed());
}

#[test]
fn there_are_no_more_connections_than_allowed() {
    let server = Loader::of(probe()).args(["--workers", "1", "--max-connections", "4"]).serve();
    let mut inside: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    for connection in &mut inside {
        assert_eq!(connection.get("/").status, 200);
    }
    let mut waiting = server.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(inside[0].get("/").status, 200);
    drop(inside);
    assert_eq!(waiting.reply().status, 200, "who waits gets in when there is room");
    server.stop();
}

#[test]
fn many_requests_go_over_one_connection_but_not_any_number() {
    let server = Loader::of(probe()).serve();
    let mut connection = server.connect();
    for _ in 1..10_000 {
        assert_eq!(connection.get("/").text_header("connection"), None);
    }
    assert_eq!(connection.get("/").text_header("connection"), Some("close"));
    assert!(connection.is_closed());
    server.stop();
}

#[test]
fn any_bytes_at_all_leave_the_server_whole() {
    use std::hash::{BuildHasher, RandomState};
    let server = Loader::of(spout()).args(["--read-timeout", "200ms"]).serve();
    let rounds: usize = std::env::var("EFFE_FUZZ").map_or(200, |n| n.parse().unwrap());
    let seed = RandomState::new().hash_one(0);
    eprintln!("seed {seed}");
    let mut state = seed | 1;
    let mut next = move || {
        // xorshift: enough to choose bytes by.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let whole = wire("POST /echo HTTP/1.1~{h}~Expect: 100-continue~Transfer-Encoding: chunked~~3~abc~0~~");
    for _ in 0..rounds {
        let mut bytes = whole.clone();
        for _ in 0..1 + next() % 4 {
            let at = next() % bytes.len();
            match next() % 3 {
                0 => bytes[at] = next() as u8,
                1 => _ = bytes.remove(at),
                _ => bytes.insert(at, b"\r\n :;0\0,"[next() % 8]),
            }
        }
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(&bytes).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let mut answers = Vec::new();
        let _ = stream.read_to_end(&mut answers);
        assert!(answers.is_empty() || answers.starts_with(b"HTTP/1.1 "), "{bytes:?}: {answers:?}");
    }
    // On a busy machine a head may take longer than it may here.
    wait_until("a good request gets its answer", || server.get("/").text() == "ok");
    server.stop();
}
