//! A JSON object in, another one out: `{"name":"Ada Lovelace","count":41,"tags":["a","b","c"]}` is answered with
//! `{"greeting":"Hello, Ada Lovelace","count":42,"tags":3}`.

use std::borrow::Cow;

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};
use serde::{Deserialize, Serialize};

/// An order, whose texts borrow from the body of the request, except those with escapes in them.
#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    count: u64,
    #[serde(borrow)]
    tags: Vec<Tag<'a>>,
}

/// A text of a list: from a list of plain `Cow`s, serde would borrow nothing.
#[derive(Deserialize)]
struct Tag<'a>(
    #[serde(borrow)]
    #[expect(dead_code, reason = "only counted, and checked to be text")]
    Cow<'a, str>,
);

#[derive(Serialize)]
struct Receipt {
    greeting: String,
    count: u64,
    tags: usize,
}

struct Json;

impl Lambda for Json {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Json)
    }

    fn run(json: Started<Self>, request: &Request, response: &mut Response) -> Result {
        json?;
        if request.method() != "POST" {
            response.status(405).header("allow", "POST").text("POST a JSON object\n");
            return Ok(());
        }
        match answer(request) {
            Ok(receipt) => response.json(&receipt)?,
            Err(reason) => response.status(400).text(format!("{reason}\n")),
        };
        Ok(())
    }
}

export!(Json);

/// The receipt for an order, or the text for the client if the order is refused. Nothing else of an error reaches the
/// client.
fn answer(request: &Request) -> Result<Receipt, String> {
    // Without this check, serde would also accept an array of three values as an order.
    if !request.bytes().is_ok_and(|body| body.trim_ascii_start().starts_with(b"{")) {
        return Err("this is not a JSON object".to_owned());
    }
    let order: Order<'_> =
        request.json().map_err(|err| format!("this is not such an object: {}", err.source()))?;
    let count = order.count.checked_add(1).ok_or("the count is as high as it can be")?;
    Ok(Receipt { greeting: format!("Hello, {}", order.name), count, tags: order.tags.len() })
}

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Answer, Call, Effe};

    use super::LAMBDA;

    fn post(body: &str) -> Answer {
        Effe::of(&LAMBDA).call(Call::post("/").body(body))
    }

    #[test]
    fn an_order_gets_its_receipt() {
        let answer = post(r#"{"name":"Ada Lovelace","count":41,"tags":["a","b","c"]}"#);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        assert_eq!(answer.text(), r#"{"greeting":"Hello, Ada Lovelace","count":42,"tags":3}"#);
        let answer = post(r#"{"tags":["\n"],"count":0,"name":"\"\u00e9\""}"#);
        assert_eq!(answer.json()["greeting"], "Hello, \"é\"");
    }

    #[test]
    fn whatever_is_no_order_is_a_400_with_the_reason() {
        let refused = [
            ("", "not a JSON object"),
            (r#"["Ada",1,[]]"#, "not a JSON object"),
            ("{", "EOF"),
            (r#"{"name":"Ada","count":1}"#, "missing field `tags`"),
            (r#"{"name":"Ada","count":-1,"tags":[]}"#, "invalid value: integer `-1`"),
            (r#"{"name":"Ada","count":1,"tags":[1]}"#, "invalid type: integer `1`"),
            (r#"{"name":"Ada","count":18446744073709551615,"tags":[]}"#, "as high as it can be"),
            (r#"{"name":"Ada","count":1e3,"tags":[]}"#, "invalid type: floating point"),
        ];
        for (body, reason) in refused {
            let answer = post(body);
            assert_eq!((answer.status, answer.failure.as_deref()), (400, None), "{body}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert!(answer.text().contains(reason), "{body}: {}", answer.text());
        }
    }

    #[test]
    fn other_methods_are_told_which_one_to_use() {
        let answer = Effe::of(&LAMBDA).get("/");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    }
}
