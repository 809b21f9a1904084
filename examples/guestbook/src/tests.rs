//! Tests of the whole life cycle, with a database in a temporary directory.

use std::thread;

use effe_abi::{
    Level,
    testing::{Answer, Call, Effe},
};
use tempfile::TempDir;

use super::LAMBDA;

fn effe_in(directory: &TempDir) -> Effe {
    let path = directory.path().join("book.sqlite");
    Effe::with(&LAMBDA, &[("path", path.to_str().unwrap())])
}

fn sign(effe: &Effe, name: &str, text: &str) -> Answer {
    let body = format!(r#"{{"name":"{name}","text":"{text}"}}"#);
    effe.call(Call::post("/").header("content-type", "application/json").body(body))
}

fn form(body: &str) -> Call {
    Call::post("/book").header("content-type", "application/x-www-form-urlencoded; charset=utf-8").body(body)
}

#[test]
fn entries_are_kept_from_one_effe_to_the_next_and_shown_newest_first() {
    let directory = TempDir::new().unwrap();
    let effe = effe_in(&directory);
    let answer = sign(&effe, "Ada", "first");
    assert_eq!((answer.status, answer.json()["id"].as_i64()), (201, Some(1)));
    assert_eq!(sign(&effe, "Grace", "second").status, 201);
    assert_eq!(effe.started(), 1, "one connection serves them all");
    assert!(effe.retire().is_empty(), "closing reports nothing");

    let entries = effe_in(&directory).get("/").json();
    let names = entries.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["Grace", "Ada"]);
}

#[test]
fn a_browser_signs_with_a_form_and_is_sent_back_to_the_page() {
    let directory = TempDir::new().unwrap();
    let effe = effe_in(&directory);
    let answer = effe.call(form("name=J%C3%BCrgen&text=a+b%26c&other=1").header("accept", "text/html,*/*"));
    assert_eq!((answer.status, answer.header("location")), (303, Some("/book")));
    let behind = form("name=x&text=y").header("accept", "text/html").header("x-forwarded-prefix", "/guests");
    assert_eq!(effe.call(behind).header("location"), Some("/guests/book"));
    let entry = effe.get("/").json()[1].clone();
    assert_eq!((entry["name"].as_str(), entry["text"].as_str()), (Some("Jürgen"), Some("a b&c")));
}

#[test]
fn a_guest_who_comes_back_finds_their_name_and_as_many_entries_as_they_ask_for() {
    let directory = TempDir::new().unwrap();
    let effe = effe_in(&directory);
    let answer = effe.call(form("name=Ada&text=first").header("accept", "text/html"));
    assert_eq!(answer.header("set-cookie"), Some("guest=Ada; HttpOnly; Path=/"));
    let page = effe.call(Call::get("/").header("accept", "text/html").header("cookie", "a=b; guest=A\"da"));
    assert!(page.text().contains("value=\"A&quot;da\""), "{}", page.text());
    assert_eq!(sign(&effe, "Zoë", "second").header("set-cookie"), None);
    let entries = |target| effe.get(target).json().as_array().unwrap().len();
    assert_eq!((entries("/"), entries("/?newest=1"), entries("/?newest=99")), (2, 1, 2));
}

#[test]
fn what_guests_write_never_becomes_markup() {
    let directory = TempDir::new().unwrap();
    let effe = effe_in(&directory);
    sign(&effe, "<script>alert(1)</script>", "it's \\\"quoted\\\" & <b>bold</b>");
    let page = effe.call(Call::get("/").header("accept", "text/html"));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let text = page.text();
    assert!(text.contains("<h2>&lt;script&gt;alert(1)&lt;/script&gt;</h2>"), "{text}");
    assert!(
        text.contains("<p>it&#39;s &quot;quoted&quot; &amp; &lt;b&gt;bold&lt;/b&gt;</article>"),
        "{text}"
    );
}

#[test]
fn what_is_no_entry_is_a_400_with_the_reason() {
    let directory = TempDir::new().unwrap();
    let effe = effe_in(&directory);
    let json = |body: &str| Call::post("/").header("content-type", "application/json").body(body);
    let refused = [
        (Call::post("/").body("name=a&text=b"), "the form has no content type; send application/x-www-form-"),
        (form(""), "the name is missing"),
        (form("name=Ada&text=%20%0A"), "the text is missing"),
        (form(&format!("name={}&text=b", "ä".repeat(81))), "the name has 81 characters; 80 is the most"),
        (form(&format!("name=Ada&text={}", "b".repeat(2001))), "2000 is the most"),
        (json("{"), "EOF"),
        (json(r#"{"name":"Ada"}"#), "the text is missing"),
        (json(r#"{"name":"","text":"b"}"#), "the name is missing"),
        (Call::get("/?newest=all"), "the query: newest: invalid digit"),
    ];
    for (call, reason) in refused {
        let answer = effe.call(call.clone());
        assert_eq!((answer.status, answer.failure.as_deref()), (400, None), "{call:?}");
        assert!(answer.text().contains(reason), "{reason}: {}", answer.text());
    }
    assert_eq!(effe.get("/").text(), "[]");
    assert_eq!(effe.call(Call::new("DELETE", "/")).status, 405);
}

#[test]
fn many_contexts_of_several_effes_write_at_once() {
    let directory = TempDir::new().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let effe = effe_in(&directory);
                for n in 0..10 {
                    assert_eq!(sign(&effe, "Ada", &n.to_string()).status, 201);
                }
            });
        }
    });
    assert_eq!(effe_in(&directory).get("/").json().as_array().unwrap().len(), 40);
}

#[test]
fn without_a_database_the_client_gets_503_and_the_operator_the_reason() {
    let directory = TempDir::new().unwrap();
    let nowhere = directory.path().join("no/such/place");
    let cases =
        [(vec![], "`path` is missing"), (vec![("path", nowhere.to_str().unwrap())], "unable to open")];
    for (parameters, reason) in cases {
        let effe = Effe::with(&LAMBDA, &parameters);
        let answer = effe.get("/");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
        let log = effe.retire();
        let [(Level::Error, text)] = &log[..] else { panic!("{log:?}") };
        assert!(text.contains(reason), "{text}");
    }
}
