//! What a lambda sees of a request and of the operator's parameters, and what it logs.

#![cfg(feature = "json")]

use std::{
    collections::BTreeMap,
    io::{BufRead, Read},
    time::{Duration, Instant},
};

use effe_abi::{
    Lambda, Level, Params, Request, Response, Result, ResultExt, StartError, Started, export,
    testing::{Call, Effe},
};
use serde::Deserialize;

/// Answers with what it sees; the path says of what.
struct Mirror(Params);

impl Lambda for Mirror {
    fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Mirror(params))
    }

    fn run(mirror: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let params = mirror?.0;
        let seen = match request.path() {
            "/target" => format!("{request:?} {:?} {}", request.query_string(), request.version()),
            "/header" => format!("{:?} {:?}", request.header("X-Tag"), request.header_bytes("x-tag")),
            "/values" => request.header_values("X-TAG").map(|v| format!("{v:?}")).collect(),
            "/headers" => {
                let names = request.headers().map(|(name, value)| format!("{name}={}", value.len()));
                names.collect::<Vec<_>>().join(",")
            }
            "/base" => request.base().to_owned(),
            "/bytes" => format!("{:?}", request.bytes()?),
            "/text" => request.text()?.to_owned(),
            "/json" => {
                let city: City<'_> = request.json()?;
                format!("{} {}", city.name, city.people)
            }
            "/lines" => {
                let lines = request.reader().lines().collect::<Result<Vec<_>, _>>()?;
                format!("{lines:?}")
            }
            "/twice" => {
                let mut read = String::new();
                request.reader().read_to_string(&mut read)?;
                request.reader().read_to_string(&mut read)?;
                read
            }
            "/facts" => format!(
                "{} {} {:?} {:?}",
                request.id(),
                request.scheme(),
                request.authority(),
                request.peer().map(|peer| peer.ip())
            ),
            "/time" => {
                let left =
                    request.deadline().map(|deadline| deadline.duration_since(Instant::now()).as_secs() / 60);
                format!("{left:?} {}", request.cancelled())
            }
            "/params" => {
                let limit = params.parse::<u16>("limit")?;
                format!(
                    "{:?} {limit:?} {:?} {}",
                    params.get("city"),
                    params.get(""),
                    params.required("city")?
                )
            }
            "/params-json" => format!("{:?}", params.json::<BTreeMap<&str, String>>()?),
            "/params-typed" => params.json::<City<'_>>()?.name.to_owned(),
            "/host" => format!("{} {:?}", params.software(), params.address()),
            "/log" => {
                log::warn!("{} is {}", "it", "late");
                log::debug!("details");
                return Err("nothing to worry about").level(Level::Notice);
            }
            other => return Err(format!("no such path: {other}").into()),
        };
        response.text(seen);
        Ok(())
    }
}

export!(Mirror);

#[derive(Deserialize)]
struct City<'a> {
    name: &'a str,
    people: u32,
}

#[track_caller]
fn sees(call: Call, expected: &str) {
    assert_eq!(Effe::of(&LAMBDA).call(call).text(), expected);
}

/// Checks that Run's error says what went wrong and names a line of this file, not one of the crate.
#[track_caller]
fn fails(call: Call, parameters: &[(&str, &str)], what: &str) {
    let answer = Effe::with(&LAMBDA, parameters).call(call);
    let failure = answer.failure.unwrap_or_default();
    assert_eq!(answer.status, 500);
    assert!(failure.contains(what) && failure.contains("tests/request.rs:"), "{failure:?}");
}

#[test]
fn path_and_query_come_as_they_were_sent() {
    sees(Call::get("/target"), "GET /target None 11");
    sees(Call::new("PURGE", "/target?"), "PURGE /target? Some(\"\") 11");
    sees(Call::get("/target?a=%C3%A9&b=1?2"), "GET /target?a=%C3%A9&b=1?2 Some(\"a=%C3%A9&b=1?2\") 11");
}

#[test]
fn headers_match_in_any_case_and_need_not_be_text() {
    sees(Call::get("/header"), "None None");
    sees(Call::get("/header").header("x-TAG", "one"), "Some(\"one\") Some([111, 110, 101])");
    sees(Call::get("/header").header("X-Tag", b"\xff"), "None Some([255])");
}

#[test]
fn the_base_is_a_path_of_this_host_or_nothing() {
    let behind = |prefix: &str| Call::get("/base").header("X-Forwarded-Prefix", prefix);
    sees(Call::get("/base"), "");
    for (prefix, base) in
        [("/notes", "/notes"), ("/a/b.c/", "/a/b.c"), ("/caf%C3%A9", "/caf%C3%A9"), ("/", "")]
    {
        sees(behind(prefix), base);
    }
    let hostile = [
        "notes",
        "//evil.example",
        "///",
        "https://evil.example",
        "/\\evil",
        "/a?b",
        "/a#b",
        "/a\"b",
        "/a, /b",
        "/é",
    ];
    hostile.iter().for_each(|prefix| sees(behind(prefix), ""));
}

#[test]
fn repeated_headers_keep_their_order() {
    let call = Call::get("/values").header("x-tag", "b").header("other", "x").header("X-Tag", b"\xfe");
    sees(call, "[98][254]");
    sees(Call::get("/values"), "");
}

#[test]
fn all_headers_are_seen_once_however_many_pages_they_fill() {
    for n_headers in [0, 1, 15, 16, 17, 32, 33, 100] {
        let named = |n: usize| format!("h{n}");
        let call =
            (0..n_headers).fold(Call::get("/headers"), |call, n| call.header(&named(n), "v".repeat(n)));
        let expected = (0..n_headers).map(|n| format!("{}={n}", named(n))).collect::<Vec<_>>();
        sees(call, &expected.join(","));
    }
}

#[test]
fn a_body_is_bytes_or_text_or_json() {
    sees(Call::post("/bytes"), "[]");
    sees(Call::post("/bytes").body([0, 255]), "[0, 255]");
    sees(Call::post("/text").body("grüß dich"), "grüß dich");
    sees(Call::post("/json").body(r#"{"people":7,"name":"Rom"}"#), "Rom 7");
}

#[test]
fn a_body_that_is_not_what_was_asked_for_is_an_error_at_the_authors_line() {
    fails(Call::post("/text").body(b"\xff"), &[], "invalid utf-8");
    fails(Call::post("/json").body("{"), &[], "EOF while parsing");
    fails(Call::post("/json").body(r#"{"name":"Rom","people":-1}"#), &[], "invalid value: integer `-1`");
    // A text of other bytes than UTF-8: where it is wanted, and where nobody asks for it.
    let bad = [&br#"{"people":7,"name":"R"#[..], b"\xff", br#"m"}"#].concat();
    fails(Call::post("/json").body(bad), &[], "invalid unicode code point at line 1 column");
    let other = [&br#"{"people":7,"name":"Rom","mayor":""#[..], b"\xff", br#""}"#].concat();
    sees(Call::post("/json").body(other), "Rom 7");
}

#[test]
fn a_body_that_is_held_can_be_read_as_a_stream_and_more_than_once() {
    sees(Call::post("/lines").body("one\ntwo"), "[\"one\", \"two\"]");
    sees(Call::post("/twice").body("again "), "again again ");
}

#[test]
fn the_facts_of_a_request_are_there() {
    sees(Call::get("/facts"), "test http None Some(127.0.0.1)");
    let call = Call::get("/facts").header("x-request-id", "7f").header("host", "example.org");
    sees(call, "7f http Some(\"example.org\") Some(127.0.0.1)");
}

#[test]
fn the_scheme_is_that_of_the_connection_whatever_a_header_says() {
    sees(Call::get("/facts").https(), "test https None Some(127.0.0.1)");
    let proxied = Call::get("/facts").header("x-forwarded-proto", "https");
    sees(proxied, "test http None Some(127.0.0.1)");
}

#[test]
fn a_deadline_is_seen_and_ends_in_being_cancelled() {
    sees(Call::get("/time"), "None false");
    let hour = Duration::from_secs(3600);
    sees(Call::get("/time").deadline(hour), "Some(59) false");
    sees(Call::get("/time").deadline(Duration::ZERO), "Some(0) true");
}

#[test]
fn parameters_are_texts_numbers_or_json() {
    let parameters = [("city", "Rom"), ("limit", "80")];
    let effe = Effe::with(&LAMBDA, &parameters);
    assert_eq!(effe.get("/params").text(), "Some(\"Rom\") Some(80) None Rom");
    assert_eq!(effe.get("/params-json").text(), r#"{"city": "Rom", "limit": "80"}"#);
    let effe = Effe::with(&LAMBDA, &[("city", "\"Köln\"\n")]);
    assert_eq!(effe.get("/params-json").text(), r#"{"city": "\"Köln\"\n"}"#);
    assert_eq!(Effe::of(&LAMBDA).get("/params-json").text(), "{}");
}

#[test]
fn a_parameter_that_is_missing_or_malformed_is_named() {
    fails(Call::get("/params"), &[], "the parameter `city` is missing; give it with --set city=");
    let limit = [("limit", "many")];
    fails(Call::get("/params"), &limit, "the parameter `limit` is \"many\": invalid digit");
    fails(Call::get("/params-typed"), &limit, "the parameters: missing field `name`");
}

#[test]
fn the_host_says_what_it_is() {
    sees(Call::get("/host"), concat!("effe-abi-testing/", env!("CARGO_PKG_VERSION"), " None"));
}

#[test]
fn log_records_and_chosen_levels_reach_the_operator() {
    let effe = Effe::of(&LAMBDA);
    effe.get("/log");
    let [warning, debug, notice] = &effe.log()[..] else { panic!("{:?}", effe.log()) };
    assert_eq!(*warning, (Level::Warning, "it is late".to_owned()));
    assert_eq!(*debug, (Level::Debug, "details".to_owned()));
    assert_eq!(notice.0, Level::Notice);
    assert!(notice.1.starts_with("nothing to worry about (") && notice.1.contains("tests/request.rs:"));
}
