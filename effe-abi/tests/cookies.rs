//! Cookies: those that a client sends, also odd ones, and those that an answer sets.

use std::fmt::Write;

use effe_abi::{
    Lambda, Params, Request, Response, Result, StartError, Started,
    cookie::{Cookie, SameSite, time::Duration},
    export,
    testing::{Call, Effe},
};

/// Answers with the request's cookies, and sets those that the request's body names, one `name=value` a line.
struct Jar;

impl Lambda for Jar {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Jar)
    }

    fn run(jar: Started<Self>, request: &Request, response: &mut Response) -> Result {
        jar?;
        if request.path() == "/full" {
            let full =
                Cookie::build(("id", "7")).domain("example.org").path("/a").secure(true).http_only(true);
            response.set_cookie(full.same_site(SameSite::Strict).max_age(Duration::minutes(5)));
            response.set_cookie(Cookie::build("old").path("/").removal());
            return Ok(());
        }
        if let Some(path) = request.path().strip_prefix("/path") {
            response.set_cookie(Cookie::build(("id", "7")).path(path.replace("%3B", ";")));
            return Ok(());
        }
        let mut text = String::new();
        for (name, value) in request.cookies() {
            write!(text, "[{name}={value}]")?;
        }
        if let Some(value) = request.cookie("pick") {
            write!(text, " picked {value}")?;
        }
        for line in request.text()?.split_terminator('|') {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            response.set_cookie((name.to_owned(), value.to_owned()));
        }
        response.text(text);
        Ok(())
    }
}

export!(Jar);

#[track_caller]
fn sees(headers: &[&[u8]], expected: &str) {
    let call = headers.iter().fold(Call::get("/"), |call, value| call.header("cookie", value));
    assert_eq!(Effe::of(&LAMBDA).call(call).text(), expected);
}

#[test]
fn cookies_are_pairs_from_all_headers_in_their_order() {
    sees(&[], "");
    sees(&[b"a=1; b=2", b"c=3"], "[a=1][b=2][c=3]");
    sees(&[b"pick=first; pick=second"], "[pick=first][pick=second] picked first");
    sees(&[b"PICK=other"], "[PICK=other]");
    sees(&[b"token=YQ==; q=\"in quotes\"; half=\"x"], "[token=YQ==][q=in quotes][half=\"x]");
}

#[test]
fn what_is_no_cookie_is_passed_over_and_takes_no_other_with_it() {
    sees(&[b";;; =x; novalue; a=; ;b=1;"], "[a=][b=1]");
    sees(&[b"bad=\xff; good=1"], "[good=1]");
    sees(&[b"a=1\t;\tb = 2 "], "[a=1][b=2]");
    sees(&["é=ü".as_bytes()], "[é=ü]");
    sees(&[b"$Version=1; a=\"\"; b=\""], "[$Version=1][a=][b=\"]");
}

#[test]
fn a_header_of_a_thousand_cookies_is_read_once_through() {
    let many: String = (0..1000).map(|n| format!("c{n}={n};")).collect();
    let text = Effe::of(&LAMBDA).call(Call::get("/").header("cookie", many + "pick=it")).text();
    assert!(text.starts_with("[c0=0][c1=1]") && text.ends_with("[pick=it] picked it"), "{text}");
}

#[test]
fn an_answer_sets_cookies_with_their_attributes_beside_others() {
    let answer = Effe::of(&LAMBDA).get("/full");
    let set: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
    let [id, old] = set[..] else { panic!("{set:?}") };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let full = "id=7; HttpOnly; SameSite=Strict; Secure; Path=/a; Domain=example.org; Max-Age=300";
    assert_eq!(text(&id.1), full);
    assert!(text(&old.1).starts_with("old=; Path=/; Max-Age=0; Expires="), "{:?}", text(&old.1));
}

#[test]
fn a_cookie_that_would_become_another_one_is_a_500_and_named_in_the_log() {
    let effe = Effe::of(&LAMBDA);
    let unfit =
        ["a=1;Domain=evil", "a=1\r\nset-cookie: b=2", "a b=1", "=1", "a;b=1", "a= 1", "a=1 ", "a=é", "ä=1"];
    for body in unfit {
        let answer = effe.call(Call::post("/").body(body));
        assert_eq!((answer.status, answer.header("set-cookie")), (500, None), "{body:?}");
        let failure = answer.failure.unwrap();
        assert!(failure.contains("the cookie \"") && failure.contains("tests/cookies.rs:"), "{failure}");
    }
    assert_eq!(effe.get("/path/a%3B%20Domain=evil").status, 500);
    assert_eq!(effe.get("/path/a").header("set-cookie"), Some("id=7; Path=/a"));
}

#[test]
fn what_is_set_comes_back_as_it_was() {
    let effe = Effe::of(&LAMBDA);
    for value in ["", "plain", "YQ==", "a,b c", "{x:1}", "%3B%20"] {
        let answer = effe.call(Call::post("/").body(format!("pick={value}")));
        let set = answer.header("set-cookie").unwrap_or_else(|| panic!("{value:?}: {answer:?}"));
        let back = effe.call(Call::get("/").header("cookie", set));
        assert_eq!(back.text(), format!("[pick={value}] picked {value}"));
    }
}
