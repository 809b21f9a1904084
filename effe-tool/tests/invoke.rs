//! Tests of `invoke`.

use std::sync::OnceLock;

use crate::support::{Done, Loader, Scratch, tool};

/// `examples/echo`, compiled once.
fn echo() -> &'static str {
    static ECHO: OnceLock<String> = OnceLock::new();
    ECHO.get_or_init(|| {
        let dirout = concat!(env!("CARGO_TARGET_TMPDIR"), "/echo");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/echo");
        let scratch = Scratch::new();
        tool(&scratch).args(["compile", source, "--dirout", dirout, "--out", "echo"]).run().assert_code(0);
        format!("{dirout}/echo.so")
    })
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
    let json = tool(&scratch).args(["invoke", echo(), "--json", "-d", "@body"]).run().assert_code(0).json();
    assert_eq!((&json["status"], &json["body_base64"]), (&200.into(), &"AP8K".into()));
}

#[test]
fn many_calls_give_times() {
    let json = invoke(&["--repeat", "50", "--json", "-d", "x"]).assert_code(0).json();
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
    call(&["--raise-on-status"]).assert_code(1);
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
    invoke(&["-H", "nonsense"]).assert_code(2).assert_says(&["'name: value'"]);
    invoke(&["-p", "/a b"]).assert_code(2).assert_says(&["/a b", "%20"]);
}
