//! Tests of `invoke`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Done, LONG, Loader, Scratch, tool};

/// `examples/echo`, compiled once.
fn echo() -> &'static str {
    static ECHO: OnceLock<String> = OnceLock::new();
    ECHO.get_or_init(|| example("echo"))
}

/// Compiles an example. Returns the plugin.
fn example(name: &str) -> String {
    let dirout = concat!(env!("CARGO_TARGET_TMPDIR"), "/examples");
    let source = format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let scratch = Scratch::new();
    tool(&scratch).args(["compile", &source, "--dirout", dirout, "--out", name]).run().assert_code(0);
    format!("{dirout}/{name}.so")
}

/// A server that `answer` plays for one connection. Returns its URL.
fn server(answer: impl FnOnce(Peer) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || answer(Peer(BufReader::new(listener.accept().unwrap().0))));
    url
}

/// The tool, as a server sees it.
struct Peer(BufReader<TcpStream>);

impl Peer {
    /// Reads the head of a request, in lower case, and its body.
    fn request(&mut self) -> (String, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "a request begins: {head:?}");
        }
        let head = head.to_lowercase();
        let len = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; len.map_or(0, |len| len.parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the tool has left.
    fn wait_for_end(&mut self) {
        let _ = self.0.read_to_end(&mut Vec::new());
    }
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// The request that flags make.
fn sent(flags: &[&str]) -> (String, String, Done) {
    let (sender, requests) = mpsc::channel();
    let url = server(move |mut peer| {
        sender.send(peer.request()).unwrap();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let done = tool(&Scratch::new()).args(["invoke", &url]).args(flags).run().assert_code(0);
    let (head, body) = requests.recv_timeout(LONG).unwrap();
    (head, body, done)
}

fn invoke(args: &[&str]) -> Done {
    tool(&Scratch::new()).args(["invoke", echo()]).args(args).run()
}

#[test]
fn the_body_is_alone_on_stdout_and_the_rest_on_stderr() {
    let done = invoke(&["--data", "ping", "-H", "Content-Type: text/x"]).assert_code(0);
    assert_eq!(done.stdout, "ping");
    done.assert_says(&["HTTP/1.1 200 OK", "content-type: text/x", "in "]);
    let done = invoke(&["--quiet", "--data", "ping"]).assert_code(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("ping", ""));
}

#[test]
fn a_body_comes_from_a_file_or_from_standard_input() {
    let scratch = Scratch::new();
    scratch.write("body", [0, 255, 10]);
    let done = tool(&scratch).args(["invoke", echo(), "-d", "@body"]).run().assert_code(0);
    assert_eq!(done.bytes, [0, 255, 10]);
    let done = tool(&scratch).args(["invoke", echo(), "-d", "-"]).input("from stdin").run().assert_code(0);
    assert_eq!(done.stdout, "from stdin");
    let done = tool(&scratch).args(["invoke", echo(), "-d", "@nowhere"]).run().assert_code(1);
    done.assert_says(&["cannot read nowhere"]);
    let json = tool(&scratch)
        .args(["invoke", echo(), "--output", "json", "-d", "@body"])
        .run()
        .assert_code(0)
        .json();
    assert_eq!((&json["status"], &json["body_base64"]), (&200.into(), &"AP8K".into()));
}

#[test]
fn many_calls_give_times() {
    let json = invoke(&["--repeat", "50", "--output", "json", "-d", "x"]).assert_code(0).json();
    assert_eq!((&json["times"]["n"], &json["body"]), (&50.into(), &"x".into()));
    let time = |key: &str| json["times"][key].as_f64().unwrap();
    assert!(
        time("min_ms") > 0.0 && time("min_ms") <= time("median_ms") && time("median_ms") <= time("p99_ms")
    );
    invoke(&["--repeat", "3"]).assert_code(0).assert_says(&["3 times: min", "median", "p99"]);
    invoke(&["--repeat", "0"]).assert_code(2);
}

#[test]
fn a_status_can_be_a_failure() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "shop.rs", "--template", "json"]).run().assert_code(0);
    let call = |flags: &[&str]| tool(&scratch).args(["invoke", "shop.rs", "-d", "{"]).args(flags).run();
    let done = call(&[]).assert_code(0).assert_says(&["400 Bad Request"]);
    assert!(done.stdout.starts_with("this is no order"));
    call(&["--raise-on-status"]).assert_code(1).assert_says(&["the status is 400 Bad Request"]);
}

#[test]
fn one_failure_among_many_is_a_failure() {
    let call = |flags: &[&str]| {
        let url = server(|mut peer| {
            for status in ["404 Not Found", "200 OK", "500 Internal Server Error", "200 OK"] {
                peer.request();
                peer.send(&format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nhi"));
            }
        });
        tool(&Scratch::new()).args(["invoke", &url, "--repeat", "4"]).args(flags).run()
    };
    let statuses = "200 OK (2), 404 Not Found (1), 500 Internal Server Error (1)";
    let done = call(&["--raise-on-status"]).assert_code(1);
    done.assert_says(&[&format!("2 of 4 answers have a status of 400 or above: {statuses}")]);
    let done = call(&[]).assert_code(0).assert_says(&["4 times: min", statuses]);
    assert_eq!(done.stdout, "hi");
    let done = call(&["--raise-on-status", "--output", "json", "-q"]).assert_code(1);
    let counts = serde_json::json!({"200": 2, "404": 1, "500": 1});
    assert_eq!((&done.json()["statuses"], &done.json()["times"]["n"]), (&counts, &4.into()));
}

#[test]
fn a_call_without_an_answer_is_named() {
    let url = server(|mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let done = tool(&Scratch::new()).args(["invoke", &url, "--repeat", "3"]).run().assert_code(1);
    done.assert_says(&["error: call 2 of 3: no answer from http://127.0.0.1:"]);
}

#[test]
fn a_large_body_goes_through_a_lambda_that_streams_it_back() {
    let scratch = Scratch::new();
    let body: Vec<u8> = (0..10 << 20).map(|n: u32| (n ^ n >> 8) as u8).collect();
    scratch.write("body", &body);
    let pipe = example("pipe");
    let call = |flags: &[&str]| {
        tool(&scratch)
            .args(["invoke", &pipe, "-d", "@body"])
            .args(flags)
            .args(["--", "--body-limit", "0"])
            .run()
    };
    let done = call(&["--timeout", "20"]).assert_code(0);
    assert!(done.bytes == body, "{} bytes came back", done.bytes.len());
    call(&["--repeat", "3", "--timeout", "20"]).assert_code(0).assert_says(&["3 times"]);
}

#[test]
fn a_body_that_is_refused_early_has_its_answer() {
    let scratch = Scratch::new();
    scratch.write("body", vec![b'x'; 10 << 20]);
    let done = tool(&scratch).args(["invoke", echo(), "-d", "@body"]).run().assert_code(0);
    done.assert_says(&["413 Payload Too Large"]);
}

#[test]
fn pieces_are_shown_as_they_come() {
    let (go_on, may_go_on) = mpsc::channel();
    let url = server(move |mut peer| {
        peer.request();
        peer.send(CHUNKED);
        for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
            peer.send(piece);
            // The next one comes once the tool has shown this one.
            may_go_on.recv_timeout(LONG).unwrap();
        }
    });
    let scratch = Scratch::new();
    let mut command = tool(&scratch).args(["invoke", &url]).into_command();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    for expected in ["one", "two"] {
        let mut piece = [0; 3];
        stdout.read_exact(&mut piece).unwrap();
        assert_eq!(str::from_utf8(&piece), Ok(expected));
        go_on.send(()).unwrap();
    }
    go_on.send(()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_timeout_is_for_a_time_without_a_byte() {
    let call = |url: &str, flags: &[&str]| {
        let began = Instant::now();
        let done = tool(&Scratch::new()).args(["invoke", url, "--timeout", "1"]).args(flags).run();
        (done, began.elapsed())
    };
    let says = "no byte has moved for 1 s; --timeout allows for more";
    // No answer at all.
    let silent = server(|mut peer| peer.wait_for_end());
    let (done, _) = call(&silent, &["-d", "x"]);
    done.assert_code(1).assert_says(&[&format!("no answer from {silent}/"), says]);
    // What came is shown.
    let stalled = server(|mut peer| {
        peer.request();
        peer.send(&format!("{CHUNKED}3\r\none\r\n"));
        peer.wait_for_end();
    });
    let done = call(&stalled, &[]).0.assert_code(1);
    assert_eq!(done.stdout, "one");
    done.assert_says(&["the answer breaks off after 3 bytes", says]);
    // A steady stream may take longer than that.
    let steady = server(|mut peer| {
        peer.request();
        peer.send(CHUNKED);
        for piece in ["1\r\na\r\n", "1\r\nb\r\n", "1\r\nc\r\n", "0\r\n\r\n"] {
            // The time that passes is what is tried.
            thread::sleep(Duration::from_millis(400));
            peer.send(piece);
        }
    });
    let (done, time) = call(&steady, &[]);
    assert_eq!((done.assert_code(0).stdout.as_str(), time > Duration::from_secs(1)), ("abc", true));
}

#[test]
fn bodies_have_the_content_type_that_their_flag_says() {
    let scratch = Scratch::new();
    scratch.write("value", "1 + 1\n");
    let json = "\r\ncontent-type: application/json\r\n";
    let form = "\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    let (head, body, done) = sent(&["--json", "{\"a\": 1}"]);
    assert!(head.starts_with("post / http/1.1\r\n") && head.contains(json), "{head}");
    assert!(head.contains("\r\naccept: application/json\r\n"), "{head}");
    assert_eq!((body.as_str(), done.stderr.contains("note:")), ("{\"a\": 1}", false));
    let value = format!("c d=@{}", scratch.join("value").display());
    let (head, body, _) = sent(&["--form", "a=b=&ä", "--form", &value, "-X", "PUT"]);
    assert!(head.starts_with("put / http/1.1\r\n") && head.contains(form), "{head}");
    assert_eq!(body, "a=b%3D%26%C3%A4&c+d=1+%2B+1%0A");
    // What the user says comes first.
    let (head, _, _) = sent(&["--json", "[]", "-H", "Content-Type: application/ld+json"]);
    assert!(head.contains("content-type: application/ld+json\r\n") && !head.contains(json), "{head}");
    let (head, body, done) = sent(&["--data", "a=b"]);
    assert_eq!((head.contains("content-type"), body.as_str()), (false, "a=b"));
    done.assert_says(&["note: the body has no content type", "--json", "--form"]);
    let (_, _, done) = sent(&["--data", "a=b", "-H", "content-type: text/plain"]);
    assert!(!done.stderr.contains("note:"), "{}", done.stderr);
    let (_, body, done) = sent(&["--json", "{a: 1}"]);
    assert_eq!(body, "{a: 1}");
    done.assert_says(&["warning: the body of --json is no JSON", "column 2"]);
}

#[test]
fn a_url_is_called_as_it_is() {
    let command = tool(&Scratch::new()).args(["run", echo(), "--", "--port", "0"]).into_command();
    let mut command = command;
    command.current_dir("/");
    let server = Loader::by(command).serve_as_told();
    let url = format!("http://{}/a", server.address);
    let scratch = Scratch::new();
    let done =
        tool(&scratch).args(["invoke", &url, "-X", "PUT", "-p", "/b?c", "-d", "x"]).run().assert_code(0);
    assert_eq!(done.stdout, "x");
    let done = tool(&scratch).args(["invoke", &url, "--", "--set", "a=b"]).run().assert_code(2);
    done.assert_says(&["for a loader"]);
    server.stop();
    tool(&scratch).args(["invoke", &url]).run().assert_code(1).assert_says(&["no answer from", &url]);
    tool(&scratch).args(["invoke", "https://a"]).run().assert_code(2).assert_says(&["only http://"]);
}

#[test]
fn what_the_loader_says_against_it_is_shown() {
    invoke(&["--", "--bogus"]).assert_code(1).assert_says(&["--bogus", "is not served"]);
}

#[test]
fn wrong_usage_says_what_to_write() {
    // Nobody listens there: nothing may be sent.
    let url = "http://127.0.0.1:1";
    let cases: [(&[&str], &str); 17] = [
        (&[url, "-H", "nonsense"], "'name: value'"),
        (&[url, "-H", "a b: c"], "\"a b\" is no name of a header"),
        (&[url, "-H", "a: b\nc"], "control character"),
        (&[url, "-H", "content-length: 3", "-d", "x"], "is not the length of the body, 1"),
        (&[url, "-p", "/a b"], "write /a%20b"),
        (&[url, "-p", "/ä"], "write /%C3%A4"),
        (&["http://127.0.0.1:1/a?b", "-p", "/c"], "has a query already"),
        (&[url, "-X", "G T"], "--method \"G T\": write one word, such as GET or PATCH"),
        (&[url, "--form", "a"], "KEY=VALUE"),
        (&[url, "--form", "a=b", "-d", "c"], "cannot be used with"),
        (&[url, "--json", "{}", "-d", "c"], "cannot be used with"),
        (&[url, "--timeout", "0"], "0 is not in 1.."),
        (&["http://127.0.0.1:65536"], "\"65536\" is no port; write a number from 1 to 65535"),
        (&["http://127.0.0.1:http"], "\"http\" is no port"),
        (&["http://me@127.0.0.1:1"], "as a header"),
        (
            &["127.0.0.1:8080"],
            "there is no file 127.0.0.1:8080; to call a server, write http://127.0.0.1:8080",
        ),
        (&["localhost:8080/a"], "to call a server, write http://localhost:8080/a"),
    ];
    let scratch = Scratch::new();
    for (args, says) in cases {
        let done = tool(&scratch).arg("invoke").args(args).run().assert_code(2).assert_says(&[says]);
        assert!(done.stdout.is_empty(), "{args:?}");
        assert!(says.contains('%') || !done.stderr.contains("%20"), "{args:?}: {}", done.stderr);
    }
}

#[test]
fn what_is_missing_is_made_by_what_makes_it() {
    let scratch = Scratch::new();
    for (path, says) in [
        ("x", "there is no x; make it with effe-tool new x"),
        ("a/x.rs", "there is no a/x.rs; make it with effe-tool new a/x.rs"),
        ("x.so", "there is no x.so; make a plugin of a crate or a file with effe-tool compile PATH"),
        ("x.py", "there is no x.py; name a crate, a .rs, .c, .cc or .zig file or a plugin"),
    ] {
        let done = tool(&scratch).args(["invoke", path]).run().assert_code(1).assert_says(&[says]);
        assert_eq!(done.stderr.contains("effe-tool new"), !path.contains("x.so") && !path.contains("x.py"));
    }
}
