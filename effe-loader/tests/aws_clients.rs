//! AWS's own clients against an effe, and what other clients may say to the same listener.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Connection, Loader, Reply, Scratch, Server,
    metrics::Scrape,
    plugins::{invoked, workspace},
    wait_until,
};

const INVOKE: &str = "/2015-03-31/functions/invoked/invocations";

/// A loader that AWS's clients can call, and where.
fn serve(loader: Loader) -> (Server, SocketAddr) {
    let server = loader.args(["--aws-api", "127.0.0.1:0"]).serve();
    let line = server.wait_for_line("AWS's clients are listened to on http://");
    let address = line.split_once("http://").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
    (server, address)
}

/// A Python that has the package; tests of clients that aren't there say so and do nothing.
fn python(package: &str) -> Option<PathBuf> {
    let candidates = [workspace().join("out/python/bin/python"), "python3".into()];
    let found = candidates.into_iter().find(|python| {
        let mut command = Command::new(python);
        command.args(["-c", &format!("import {package}")]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    if found.is_none() {
        println!("skipped: no Python here has {package}");
    }
    found
}

fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    Connection::open(address).send(request).reply()
}

fn assert_refused(reply: &Reply, status: u16, kind: &str) {
    assert_eq!((reply.status, reply.text_header("x-amzn-errortype")), (status, Some(kind)), "{reply:?}");
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert!(body["Message"].is_string() && body["Type"].is_string(), "{body}");
}

#[test]
fn boto3_cannot_tell_an_effe_from_lambda() {
    let Some(python) = python("boto3") else { return };
    let loader = Loader::of(invoked()).args(["--run-timeout", "2s", "--body-limit", "8MiB"]);
    let (server, address) = serve(loader);
    let script = workspace().join("effe-loader/tests/aws_clients/calls.py");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(format!("http://{address}")).arg("invoked").output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout == "called\n", "{stdout}\n{stderr}");
    server.wait_for_line("nobody waits");
    server.stop();
}

#[test]
fn the_aws_command_invokes() {
    let Some(python) = python("awscli") else { return };
    let (server, address) = serve(Loader::of(invoked()));
    let scratch = Scratch::new();
    let out = scratch.join("out.json");
    let output = Command::new(python)
        .args(["-m", "awscli", "lambda", "invoke", "--function-name", "invoked", "--payload", "{\"a\": 1}"])
        .args(["--region", "eu-west-1", "--endpoint-url", &format!("http://{address}"), "--log-type", "Tail"])
        .arg(&out)
        .envs([("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["StatusCode"] == 200 && answer["LogResult"].is_string(), "{answer}");
    assert_eq!(fs::read_to_string(out).unwrap(), "{\"a\": 1}");
    server.stop();
}

#[test]
fn with_a_token_the_access_key_must_be_the_token() {
    let scratch = Scratch::new();
    let token = scratch.join("token");
    fs::write(&token, "AKIDsecret\n").unwrap();
    let (server, address) = serve(Loader::of(invoked()).arg("--aws-token-file").arg(&token));
    let signed = |key: &str| {
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/eu-west-1/lambda/aws4_request, \
             SignedHeaders=host, Signature=0\r\n"
        )
    };
    assert_eq!(post(address, INVOKE, &signed("AKIDsecret"), "1").text(), "1");
    assert_eq!(post(address, INVOKE, "Authorization: Bearer AKIDsecret\r\n", "1").text(), "1");
    for wrong in [String::new(), signed("AKID"), signed(""), "Authorization: AKIDsecret\r\n".to_owned()] {
        assert_refused(&post(address, INVOKE, &wrong, "1"), 403, "AccessDeniedException");
    }
    if let Some(python) = python("boto3") {
        let script = workspace().join("effe-loader/tests/aws_clients/calls.py");
        let mut command = Command::new(python);
        command.arg(script).arg(format!("http://{address}")).args(["invoked", "AKIDsecret"]);
        assert_eq!(command.output().unwrap().stdout, b"called\n");
    }
    server.stop();
    let done = Loader::of(invoked()).args(["--aws-api", "0.0.0.0:0"]).run().assert_code(2);
    assert!(done.stderr.contains("needs --aws-token-file FILE"), "{}", done.stderr);
}

#[test]
fn what_no_client_of_awss_says_is_refused_in_awss_shape() {
    let (server, address) = serve(Loader::of(invoked()));
    let missing = "ResourceNotFoundException";
    for (path, headers, body, status, kind) in [
        ("/2015-03-31/functions/other/invocations", "", "1", 404, missing),
        ("/2015-03-31/functions/..%2F..%2Fetc/invocations", "", "1", 404, missing),
        ("/2015-03-31/functions/a/b/invocations", "", "1", 404, missing),
        ("/2015-03-31/functions/%/invocations", "", "1", 400, "InvalidParameterValueException"),
        ("/2015-03-31/functions//invocations", "", "1", 400, "InvalidParameterValueException"),
        ("/2015-03-31/functions/invoked/invocations?Qualifier=9", "", "1", 404, missing),
        ("/2015-03-31/functions/invoked", "", "1", 404, "UnknownOperationException"),
        ("/", "", "", 404, "UnknownOperationException"),
        (INVOKE, "", "{\"a\":", 400, "InvalidRequestContentException"),
        (INVOKE, "", "\u{1}", 400, "InvalidRequestContentException"),
        (INVOKE, "X-Amz-Invocation-Type: Later\r\n", "1", 400, "InvalidParameterValueException"),
        (INVOKE, "X-Amz-Log-Type: Head\r\n", "1", 400, "InvalidParameterValueException"),
        (INVOKE, "X-Amz-Client-Context: MQ==\r\n", "1", 400, "InvalidRequestContentException"),
        (INVOKE, "Origin: http://page.example\r\n", "1", 403, "AccessDeniedException"),
    ] {
        assert_refused(&post(address, path, headers, body), status, kind);
    }
    let mut connection = Connection::open(address);
    connection.send(format!("GET {INVOKE} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_refused(&connection.reply(), 404, "UnknownOperationException");
    let mut connection = Connection::open(address);
    connection.send(format!("POST {INVOKE} HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n"));
    assert_refused(&connection.reply(), 413, "RequestTooLargeException");
    // A payload whose rest never comes is nobody's.
    let mut connection = Connection::open(address);
    connection.send(format!("POST {INVOKE} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{{\"a\""));
    drop(connection);
    // A lone surrogate is JSON, though no text.
    assert_eq!(post(address, INVOKE, "", "\"\\ud800\"").status, 200);
    server.stop();
}

#[test]
fn a_full_effe_says_so() {
    let loader = Loader::of(invoked()).args(["--max-async", "1", "--workers", "1"]);
    let (server, address) = serve(loader);
    let mut first = Connection::open(address);
    let body = "{\"do\":\"sleep\",\"ms\":20000}";
    first.send(format!("POST {INVOKE} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let mut reply = None;
    wait_until("the effe is full", || {
        let next = post(address, INVOKE, "", "1");
        let is_full = next.status == 429;
        reply = Some(next);
        is_full
    });
    assert_refused(&reply.unwrap(), 429, "TooManyRequestsException");
    drop((first, server));
}

#[test]
fn more_events_than_may_wait_are_refused_and_counted() {
    let loader = Loader::of(invoked()).args(["--admin", "127.0.0.1:0", "--drain-timeout", "100ms"]);
    let (server, address) = serve(loader.args(["--body-limit", "2MiB"]));
    // Of 64 MiB, each of these takes nearly one.
    let body = json!({"do": "sleep", "pad": "x".repeat((1 << 20) - 100)}).to_string();
    let event = "X-Amz-Invocation-Type: Event\r\n";
    let taken = (0..100).map(|_| post(address, INVOKE, event, &body)).take_while(|reply| reply.status == 202);
    let n_taken = taken.count();
    assert_eq!(n_taken, 64);
    assert_refused(&post(address, INVOKE, event, &body), 429, "TooManyRequestsException");
    let counted = json!({"abandoned": 0, "done": 0, "lost": 0, "refused": 2, "under_way": n_taken});
    assert_eq!(server.state()["events"], counted);
    server.signal(Signal::TERM);
    let lines = server.ends_with(1);
    assert!(
        lines.iter().any(|line| line.contains("64 events that nobody waits for have not been run")),
        "{lines:?}"
    );
}

#[cfg(feature = "processes")]
#[test]
fn several_processes_have_no_listener_for_them() {
    let loader = Loader::of(invoked()).args(["--aws-api", "127.0.0.1:0", "--processes", "2"]);
    let done = loader.run().assert_code(2);
    assert!(done.stderr.contains("leave out --processes"), "{}", done.stderr);
}

#[test]
fn an_event_that_fails_is_tried_twice_again_and_its_loss_is_told() {
    let event = "X-Amz-Invocation-Type: Event\r\n";
    let loader = Loader::of(invoked()).args(["--aws-retry-delay", "50ms", "--admin", "127.0.0.1:0"]);
    let (server, address) = serve(loader);
    let reply = post(address, INVOKE, event, "{\"do\":\"panic\"}");
    assert_eq!((reply.status, &*reply.body), (202, &b""[..]));
    let line = server.wait_for_line("an event is lost");
    let id = reply.text_header("x-amzn-requestid").unwrap();
    assert!(line.contains("it has failed 3 times") && line.contains(id), "{line}");
    post(address, INVOKE, event, "1");
    let result = |scrape: &Scrape, result: &str| {
        scrape.value(&format!("effe_aws_events_total{{result=\"{result}\"}}"))
    };
    wait_until("the other one has run", || result(&server.scrape(), "done") == 1.0);
    let scrape = server.scrape();
    assert_eq!((result(&scrape, "lost"), result(&scrape, "refused")), (1.0, 0.0), "{}", scrape.text);
    assert_eq!(scrape.value("effe_aws_events_under_way"), 0.0);
    let counted = json!({"abandoned": 0, "done": 1, "lost": 1, "refused": 0, "under_way": 0});
    assert_eq!(server.state()["events"], counted);
    let lines = server.stop();
    let n_panics =
        lines.iter().filter(|line| line.contains("a secret of the author's") && line.contains(id)).count();
    assert!(n_panics >= 3, "{lines:?}");

    // A drain doesn't wait for the delay: the tries are made at once.
    let (server, address) = serve(Loader::of(invoked()).args(["--aws-retry-delay", "60s"]));
    post(address, INVOKE, event, "{\"do\":\"fail\"}");
    server.wait_for_line("a secret of the author's");
    server.signal(Signal::TERM);
    let lines = server.ends_with(0);
    assert!(lines.iter().any(|line| line.contains("an event is lost: it has failed 3 times")), "{lines:?}");

    // What has no time left is given up, and said.
    let loader = Loader::of(invoked()).args(["--drain-timeout", "100ms", "--execution", "auto"]);
    let (server, address) = serve(loader);
    post(address, INVOKE, event, "{\"do\":\"sleep\"}");
    server.signal(Signal::TERM);
    let lines = server.ends_with(1);
    assert!(
        lines.iter().any(|line| line.contains("1 events that nobody waits for have not been run")),
        "{lines:?}"
    );

    // What runs is waited for.
    let (server, address) = serve(Loader::of(invoked()));
    post(address, INVOKE, event, "{\"do\":\"sleep\",\"ms\":300}");
    let lines = server.stop();
    assert!(!lines.iter().any(|line| line.contains("have not been run")), "{lines:?}");
}
