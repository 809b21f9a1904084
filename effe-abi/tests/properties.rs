//! Properties that hold for any bytes that clients send as queries, forms and cookies, and for any event that a lambda
//! sends. The environment variable `BOLERO_RANDOM_ITERATIONS` says how many are tried.

use std::{fmt::Write, sync::LazyLock};

use bolero::check;
use effe_abi::{
    Event, Lambda, Params, Request, Response, Result, StartError, Started, export,
    testing::{Call, Effe},
};

/// Reads what it is sent, as the path says, and sets a cookie.
struct Parser;

impl Lambda for Parser {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Parser)
    }

    fn run(parser: Started<Self>, request: &Request, response: &mut Response) -> Result {
        parser?;
        let said = match request.path() {
            "/query" => request.query::<Vec<(String, String)>>().map(|pairs| format!("{pairs:?}")),
            "/form" => request.form::<Vec<(String, String)>>().map(|pairs| format!("{pairs:?}")),
            "/numbers" => request.form::<std::collections::BTreeMap<String, u8>>().map(|_| String::new()),
            "/cookies" => Ok(format!("{:?}", request.cookies().collect::<Vec<_>>())),
            _ => {
                let (name, value) = request.text()?.split_once('\0').unwrap_or_default();
                response.set_cookie((name, value));
                return Ok(());
            }
        };
        match said {
            Ok(text) => response.text(text),
            Err(err) => response.status(400).text(err.source().to_string()),
        };
        Ok(())
    }
}

export!(Parser);

static EFFE: LazyLock<Effe> = LazyLock::new(|| Effe::of(&LAMBDA));

fn form(path: &str, body: impl AsRef<[u8]>) -> Call {
    Call::post(path).header("content-type", "application/x-www-form-urlencoded").body(body)
}

/// Writes every byte as an escape.
fn encoded(pairs: &[(String, String)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        for (part, end) in [(key, '='), (value, '&')] {
            part.bytes().for_each(|byte| write!(text, "%{byte:02x}").unwrap());
            text.push(end);
        }
    }
    text
}

#[test]
fn pairs_of_any_text_are_read_as_they_were_meant() {
    check!().with_type::<Vec<(String, String)>>().for_each(|pairs| {
        let (text, meant) = (encoded(pairs), format!("{pairs:?}"));
        assert_eq!(EFFE.get(&format!("/query?{text}")).text(), meant);
        assert_eq!(EFFE.call(form("/form", text)).text(), meant);
    });
}

#[test]
fn any_bytes_are_a_form_or_are_refused_in_one_short_line() {
    check!().with_type::<Vec<u8>>().for_each(|bytes| {
        assert_eq!(EFFE.call(form("/form", bytes)).status, 200);
        let answer = EFFE.call(form("/numbers", bytes));
        let text = answer.text();
        assert!(matches!(answer.status, 200 | 400) && answer.failure.is_none(), "{answer:?}");
        assert!(!text.contains(char::is_control) && text.chars().count() <= 201, "{text:?}");
    });
}

#[test]
fn a_line_of_escapes_is_as_short_as_any_other() {
    let answer = EFFE.call(form("/numbers", [1; 100]));
    let line = answer.text();
    assert!(line.starts_with("the form: \\u{1}\\u{1}") && line.ends_with("\\u{1}…"), "{line:?}");
    assert!(line.chars().count() <= 201, "{line:?}");
}

#[test]
fn any_bytes_are_cookies_that_none_of_the_others_is_part_of() {
    check!().with_type::<Vec<Vec<u8>>>().for_each(|headers| {
        let call = headers.iter().fold(Call::get("/cookies"), |call, header| call.header("cookie", header));
        let n_pairs = headers.iter().map(|header| 1 + header.iter().filter(|byte| **byte == b';').count());
        let answer = EFFE.call(call.clone());
        assert!(answer.text().matches("(\"").count() <= n_pairs.sum(), "{answer:?}");
        let with = EFFE.call(call.header("cookie", "last=1")).text();
        assert!(with.ends_with("(\"last\", \"1\")]"), "{with}");
    });
}

#[test]
fn a_cookie_comes_back_as_it_was_set_or_is_not_set_at_all() {
    check!().with_type::<(String, String, bool)>().for_each(|(name, value, plain)| {
        // Few random texts can be a cookie, so half of those here are made of visible characters.
        let plain = |text: &str| match plain {
            true => text.bytes().map(|byte| char::from(b'!' + byte % 94)).collect(),
            false => text.replace('\0', ""),
        };
        let (name, value): (String, String) = (plain(name), plain(value));
        let answer = EFFE.call(Call::post("/set").body(format!("{name}\0{value}")));
        let Some(set) = answer.header("set-cookie") else {
            return assert_eq!(answer.status, 500);
        };
        let seen = EFFE.call(Call::get("/cookies").header("cookie", set)).text();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(&value);
        assert_eq!(seen, format!("{:?}", [(name.as_str(), value)]));
    });
}

/// Reads an event as a browser does by the HTML standard, section 9.2.6: name, id, retry, data.
fn read(stream: &str) -> Vec<[String; 4]> {
    let (mut events, mut event, mut data) = (Vec::new(), <[String; 4]>::default(), None::<String>);
    for line in stream.replace("\r\n", "\n").split(['\r', '\n']) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if let Some(data) = data.take() {
                    event[3] = data;
                    events.push(std::mem::take(&mut event));
                }
            }
            "event" => event[0] = value.to_owned(),
            "id" => event[1] = value.to_owned(),
            "retry" => event[2] = value.to_owned(),
            "data" => data = Some(data.map_or(value.to_owned(), |data| data + "\n" + value)),
            _ => {}
        }
    }
    events
}

#[test]
fn an_event_of_any_text_is_one_event_and_read_as_it_was_meant() {
    check!().with_type::<(String, Vec<u8>, u16)>().for_each(|(text, ends, retry)| {
        // Line ends and colons matter here, and are rare in random text.
        let mut data = text.clone();
        ends.iter().for_each(|end| data.push(['\n', '\r', ':', ' ', 'd'][usize::from(*end) % 5]));
        let retry = std::time::Duration::from_millis((*retry).into());
        let stream = Event::new(&data).name("tick").id("7").retry(retry).to_string();
        let meant = data.replace("\r\n", "\n").replace('\r', "\n");
        let retry = retry.as_millis().to_string();
        assert_eq!(read(&stream), [["tick".to_owned(), "7".to_owned(), retry, meant]]);
    });
}
