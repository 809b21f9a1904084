//! What a client gets if the answer is held until Run returns or ends it.

#![cfg(feature = "json")]

use std::{
    io::{self, Write},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use effe_abi::{
    Chunk, Lambda, Options, Params, Request, Response, Result, StartError, Started, export,
    testing::{Answer, Call, Effe, Interim},
};
use serde::{Serialize, Serializer, ser};

struct Scribe;

impl Lambda for Scribe {
    const OPTIONS: Options = Options::new().answers_early();

    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Scribe)
    }

    fn run(scribe: Started<Self>, request: &Request, response: &mut Response) -> Result {
        scribe?;
        match request.path() {
            "/nothing" => response,
            "/text" => response.text("plain"),
            "/trailers" => {
                for (name, value) in request.trailers() {
                    writeln!(response, "{name}: {}", String::from_utf8_lossy(value))?;
                }
                response.trailer("X-Sum", b"\xff7").trailer("x-end", "")
            }
            "/bad-trailer" => response.text("never sent").trailer("x y", ""),
            "/late-trailer" => {
                response.text("sent").end()?;
                response.trailer("x", "y")
            }
            "/hints" => {
                response.informational(103, [("Link", "</a.css>")])?;
                response.informational(110, [("x", b"\xff")])?;
                for (status, name) in [(100, "x"), (101, "x"), (200, "x"), (103, "x y")] {
                    let refused =
                        response.informational(status, [(name, "y")]).expect_err("it can't be sent");
                    writeln!(response, "{refused}")?;
                }
                response.end()?;
                let late = response.informational(103, [("x", "late")]);
                assert!(late.is_err());
                return Ok(());
            }
            "/html" => response.html("<p>".to_owned()),
            "/json" => response.json(&[1, 2])?,
            "/typed" => response.header("Content-Type", "text/csv").text("a,b"),
            "/redirect" => response.redirect("/elsewhere"),
            "/redirect-for-good" => response.redirect("/elsewhere").status(308),
            "/headers" => {
                response.header("X-Once", "first").header("x-ONCE", b"second \xff\t");
                response.add_header("set-cookie", "a=1").add_header("Set-Cookie", "b=2")
            }
            "/many-headers" => {
                (0..100).fold(response, |response, n| response.add_header(&format!("h{n}"), n.to_string()))
            }
            "/status-99" => response.text("too early to tell").status(99),
            "/status-600" => response.status(600),
            "/crlf" => response.header("x-evil", "1\r\nset-cookie: a=1"),
            "/nul" => response.header("x-evil", b"\0"),
            "/name" => response.header("bad name", "1"),
            "/no-name" => response.header("", "1"),
            "/pieces" => {
                write!(response, "one ")?;
                response.body("two ").body(b"three ".to_vec()).text("four")
            }
            "/moved" => response.body(Chunk::from_owner(Counted(vec![b'm'; 100_000]))),
            "/unsent" => {
                response.body(Chunk::from_owner(Counted(b"never sent".to_vec()))).status(1);
                response
            }
            "/folded" => response.body(Chunk::from_owner(Counted(b"one, ".to_vec()))).text("two"),
            "/panics-holding" => {
                response.body(Chunk::from_owner(Counted(b"never sent".to_vec())));
                panic!("with a body in hand")
            }
            "/half-json" => response.json(&("fine", Unwritable))?,
            "/other-json" => match response.json(&("fine", Unwritable)) {
                Ok(_) => return Err("it should have failed".into()),
                Err(_) => response.status(422).text("no JSON today"),
            },
            "/large" => response.body(vec![b'x'; 100_000]),
            "/flushed" => {
                response.text("held ");
                response.flush()?;
                response.send("and ")?;
                response.status(201).text("sent whole")
            }
            "/ended" => {
                response.text("done").end()?;
                let refused = write!(response, "more").unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
                return Ok(());
            }
            "/goes-on" => {
                response.text("done").end()?;
                assert!(!request.cancelled(), "whoever has the answer may leave");
                assert!(request.deadline().is_some_and(|deadline| deadline > Instant::now()));
                return Err("the work failed".into());
            }
            "/after-the-end" => {
                response.text("done").end()?;
                response.body("more")
            }
            other => return Err(format!("no such path: {other}").into()),
        };
        Ok(())
    }
}

export!(Scribe);

/// How often a [`Counted`] was dropped.
static DROPS: AtomicUsize = AtomicUsize::new(0);

struct Counted(Vec<u8>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Ordering::Relaxed);
    }
}

struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("this can't be JSON"))
    }
}

fn get(target: &str) -> Answer {
    Effe::of(&LAMBDA).get(target)
}

#[track_caller]
fn answers(target: &str, status: u16, content_type: Option<&str>, body: &str) {
    let answer = get(target);
    assert_eq!(answer.failure, None);
    let found = (answer.status, answer.header("content-type"), answer.text());
    assert_eq!(found, (status, content_type, body.to_owned()));
}

/// Checks that the client gets an empty 500, and the operator the reason and the author's line.
#[track_caller]
fn is_unfit(target: &str, why: &str) {
    let answer = get(target);
    assert_eq!((answer.status, answer.bytes(), answer.headers), (500, Vec::new(), Vec::new()));
    let failure = answer.failure.unwrap_or_default();
    assert!(failure.starts_with(why) && failure.contains("tests/response.rs:"), "{failure:?}");
}

const PLAIN: Option<&str> = Some("text/plain; charset=utf-8");

#[test]
fn a_body_brings_its_content_type_unless_one_is_set() {
    answers("/nothing", 200, None, "");
    answers("/text", 200, PLAIN, "plain");
    answers("/html", 200, Some("text/html; charset=utf-8"), "<p>");
    answers("/json", 200, Some("application/json"), "[1,2]");
    answers("/typed", 200, Some("text/csv"), "a,b");
}

#[test]
fn a_redirect_is_303_unless_another_status_is_set() {
    for (target, status) in [("/redirect", 303), ("/redirect-for-good", 308)] {
        let answer = get(target);
        assert_eq!((answer.status, answer.header("Location")), (status, Some("/elsewhere")));
    }
}

#[test]
fn a_header_is_replaced_when_set_and_repeated_when_added() {
    let expected: [(&str, &[u8]); 3] =
        [("x-once", b"second \xff\t"), ("set-cookie", b"a=1"), ("set-cookie", b"b=2")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_vec()));
    assert_eq!(get("/headers").headers, expected);
}

#[test]
fn there_may_be_many_headers() {
    let answer = get("/many-headers");
    assert_eq!((answer.headers.len(), answer.header("h99")), (100, Some("99")));
}

#[test]
fn a_status_that_http_does_not_know_is_a_500() {
    is_unfit("/status-99", "the response's status is 99");
    is_unfit("/status-600", "the response's status is 600");
}

#[test]
fn a_header_that_could_split_the_answer_is_a_500() {
    is_unfit("/crlf", "the response's header \"x-evil\" has a bad name or value");
    is_unfit("/nul", "the response's header \"x-evil\"");
    is_unfit("/name", "the response's header \"bad name\"");
    is_unfit("/no-name", "the response's header \"\"");
}

#[test]
fn the_pieces_of_a_body_come_in_order_and_in_one() {
    let answer = get("/pieces");
    assert_eq!(answer.pieces, [b"one two three four"]);
    assert_eq!(get("/flushed").pieces, [b"held and sent whole"], "a flush does nothing to a held answer");
    assert_eq!(get("/flushed").status, 201);
    assert_eq!(get("/large").bytes().len(), 100_000);
}

#[test]
fn what_owns_a_body_is_dropped_exactly_once_whatever_becomes_of_it() {
    let cases =
        [("/moved", 200, 100_000), ("/folded", 200, 8), ("/unsent", 500, 0), ("/panics-holding", 500, 0)];
    for (n, (target, status, len)) in cases.into_iter().enumerate() {
        let answer = get(target);
        assert_eq!((answer.status, answer.bytes().len()), (status, len), "{target}");
        assert_eq!(DROPS.load(Ordering::Relaxed), n + 1, "{target}");
    }
}

#[test]
fn half_a_json_value_is_never_sent() {
    is_unfit("/half-json", "this can't be JSON");
    answers("/other-json", 422, PLAIN, "no JSON today");
}

#[test]
fn an_answer_can_be_ended_before_run_returns() {
    answers("/ended", 200, PLAIN, "done");
    assert!(get("/ended").early && !get("/text").early);
    let late = get("/after-the-end");
    assert_eq!((late.status, late.text().as_str(), late.broken), (200, "done", false));
    let failure = late.failure.unwrap_or_default();
    assert!(failure.starts_with("the response could not be written: the response has ended"), "{failure:?}");
}

#[test]
fn what_follows_the_answer_is_not_the_clients_concern() {
    let call = Call::get("/goes-on").gone_after(1).deadline(Duration::from_secs(60));
    let answer = Effe::of(&LAMBDA).call(call);
    assert_eq!((answer.status, answer.text().as_str(), answer.early), (200, "done", true));
    assert!(answer.failure.unwrap_or_default().starts_with("the work failed"));
}

#[test]
fn trailers_go_behind_the_answer() {
    let effe = Effe::of(&LAMBDA);
    let answer = effe.call(Call::post("/trailers").body("x").trailer("X-A", "1").trailer("x-b", ""));
    assert_eq!(answer.text(), "x-a: 1\nx-b: \n");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), b"\xff7".to_vec()), ("x-end".to_owned(), vec![])]);
    for (target, status, why) in [
        ("/bad-trailer", 500, "the response's trailer \"x y\" has a bad name or value"),
        ("/late-trailer", 200, "a trailer was set after the response had ended"),
    ] {
        let answer = effe.get(target);
        assert_eq!((answer.status, &answer.trailers), (status, &vec![]), "{target}");
        assert!(answer.failure.unwrap_or_default().starts_with(why), "{target}");
    }
}

#[test]
fn interim_responses_go_before_the_answer() {
    let answer = Effe::of(&LAMBDA).get("/hints");
    let interim = |status, name: &str, value: &[u8]| Interim {
        status,
        headers: vec![(name.to_owned(), value.to_vec())],
    };
    assert_eq!(answer.informational, [interim(103, "link", b"</a.css>"), interim(110, "x", b"\xff")]);
    let refused = "the status of an interim response is";
    let statuses = ["100", "101", "200"].map(|status| format!("{refused} {status}; it must be 102 to 199\n"));
    let name = "the interim response's header \"x y\" has a bad name or value\n";
    assert_eq!((answer.status, answer.text()), (200, statuses.concat() + name));
}
