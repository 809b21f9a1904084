//! Queries and forms that are read into types, and the errors of those that don't fit.

use std::collections::BTreeMap;

use effe_abi::{
    Lambda, Params, Request, Response, Result, StartError, Started, export,
    testing::{Call, Effe},
};
use serde::Deserialize;

/// Reads a query, or the form of a POST, into the type that the path names. Answers 400 and the reason if it doesn't
/// fit.
struct Reader;

impl Lambda for Reader {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Reader)
    }

    fn run(reader: Started<Self>, request: &Request, response: &mut Response) -> Result {
        reader?;
        let read = match request.path() {
            "/pairs" => request.query::<Vec<(String, String)>>().map(|pairs| format!("{pairs:?}")),
            "/map" => request.query::<BTreeMap<String, u8>>().map(|map| format!("{map:?}")),
            "/strict" => request.query::<Strict>().map(|strict| format!("{strict:?}")),
            "/fails" => return request.query::<Search<'_>>().map(drop),
            _ if request.method() == "POST" => request.form::<Search<'_>>().map(|form| format!("{form:?}")),
            _ => request.query::<Search<'_>>().map(|search| format!("{search:?}")),
        };
        match read {
            Ok(text) => response.text(text),
            Err(err) => response.status(400).text(err.source().to_string()),
        };
        Ok(())
    }
}

export!(Reader);

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "shown by Debug")]
struct Search<'a> {
    #[serde(borrow)]
    q: std::borrow::Cow<'a, str>,
    page: Option<u32>,
    #[serde(default)]
    tag: Vec<String>,
    #[serde(default)]
    sort: Sort,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sort {
    #[default]
    Newest,
    Oldest,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "shown by Debug")]
struct Strict {
    on: Option<bool>,
}

#[track_caller]
fn is(call: Call, status: u16, expected: &str) {
    let answer = Effe::of(&LAMBDA).call(call);
    assert_eq!((answer.status, answer.text().as_str()), (status, expected));
}

fn form(content_type: &str, body: impl AsRef<[u8]>) -> Call {
    Call::post("/").header("content-type", content_type).body(body)
}

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn a_query_becomes_a_type_with_options_lists_and_choices() {
    is(Call::get("/?q=x"), 200, r#"Search { q: "x", page: None, tag: [], sort: Newest }"#);
    let all = "/?tag=b&q=caf%C3%A9+au%20lait&page=2&tag=a&sort=oldest&more=1";
    is(Call::get(all), 200, r#"Search { q: "café au lait", page: Some(2), tag: ["b", "a"], sort: Oldest }"#);
    is(Call::get("/pairs?b=2&a=1&b=&c"), 200, r#"[("b", "2"), ("a", "1"), ("b", ""), ("c", "")]"#);
    is(Call::get("/strict"), 200, "Strict { on: None }");
    is(Call::get("/strict?"), 200, "Strict { on: None }");
}

#[test]
fn what_does_not_fit_is_said_in_one_line_that_names_the_field() {
    is(Call::get("/"), 400, "the query: missing field `q`");
    is(Call::get("/?q=x&page=-1"), 400, "the query: page: invalid digit found in string");
    is(Call::get("/?q=x&page=1&page=2"), 400, "the query: page: unsupported value");
    is(
        Call::get("/?q=x&sort=best"),
        400,
        "the query: sort: unknown variant `best`, expected `newest` or `oldest`",
    );
    is(
        Call::get("/strict?on=maybe"),
        400,
        "the query: on: invalid value: string \"maybe\", expected \"true\", \"on\" or \"false\"",
    );
    is(Call::get("/strict?off=1"), 400, "the query: off: unknown field `off`, expected `on`");
}

#[test]
fn the_error_is_placed_at_the_authors_line() {
    let failure = Effe::of(&LAMBDA).get("/fails").failure.unwrap();
    assert!(failure.starts_with("the query: missing field `q` (") && failure.contains("tests/query.rs:"));
}

#[test]
fn whatever_is_in_a_query_the_line_stays_one_and_short() {
    is(
        Call::get("/strict?a%0d%0aset-cookie:%1b[31m=1"),
        400,
        "the query: a\\r\\nset-cookie:\\u{1b}[31m: unknown field `a\\r\\nset-cookie:\\u{1b}[31m`, expected `on`",
    );
    let long = Effe::of(&LAMBDA).get(&format!("/strict?{}=1", "x".repeat(100_000)));
    assert_eq!((long.status, long.text().chars().count()), (400, 201));
}

#[test]
fn broken_escapes_and_bytes_that_are_no_text_are_read_as_browsers_read_them() {
    is(
        Call::get("/pairs?%=%f&%zz=%C3&=&&==&%00=%0a"),
        200,
        r#"[("%", "%f"), ("%zz", "�"), ("", ""), ("", "="), ("\0", "\n")]"#,
    );
    is(Call::get("/map?a=255&b=256"), 400, "the query: b: number too large to fit in target type");
}

#[test]
fn a_form_is_read_if_it_says_that_it_is_one() {
    let search = r#"Search { q: "a b", page: None, tag: [], sort: Newest }"#;
    is(form(FORM, "q=a+b"), 200, search);
    is(form("Application/X-WWW-Form-URLEncoded ; charset=UTF-8", "q=a%20b"), 200, search);
    is(Call::post("/").body("q=x"), 400, &format!("the form has no content type; send {FORM}"));
    is(form("application/json", "{}"), 400, &format!("the form is application/json; send {FORM}"));
    is(form(&format!("{FORM}x"), "q=x"), 400, &format!("the form is {FORM}x; send {FORM}"));
    is(form(FORM, "page=1"), 400, "the form: missing field `q`");
    is(form(FORM, b"q=\xff\xfe"), 200, r#"Search { q: "��", page: None, tag: [], sort: Newest }"#);
}

#[test]
fn a_form_that_comes_in_pieces_is_read_whole() {
    let call = form(FORM, "q=a").chunk("+").chunk("b&tag=").chunk("x");
    is(call, 200, r#"Search { q: "a b", page: None, tag: ["x"], sort: Newest }"#);
}
