//! Examples at work: asked without a pause, swapped meanwhile, and stopped meanwhile, none loses a request.

use std::fs;

use rustix::process::Signal;

use crate::support::{Hammer, Loader, Scratch, Server, hammer::Report, plugins::example};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// Serves an example with these parameters, the members of a JSON object.
fn serve(name: &str, scratch: &Scratch, params: &str) -> Server {
    let file = scratch.write("params.json", format!("{{{params}}}"));
    Loader::of(example(name)).arg("--params").arg(file).args(["--workers", "2"]).serve()
}

/// Swaps what is served twice, and stops it, while clients ask for it; what they saw.
fn swap_and_stop(server: Server, scratch: &Scratch, params: &str, hammers: Vec<Hammer>) -> Vec<Report> {
    let see_more = || hammers.iter().for_each(|hammer| hammer.wait_for(30));
    for generation in 2..=3 {
        see_more();
        scratch.write("params.json", format!("{{{params}, \"generation\": \"{generation}\"}}"));
        server.signal(Signal::HUP);
        server.wait_for_line(&format!("generation {generation} serves"));
    }
    see_more();
    server.signal(Signal::TERM);
    let lines = server.ends_with(0);
    assert!(!lines.iter().any(|line| line.contains("error")), "{lines:#?}");
    let reports: Vec<Report> = hammers.into_iter().map(Hammer::stop).collect();
    for report in &reports {
        assert_eq!(report.failures, Vec::<String>::new());
    }
    reports
}

#[test]
fn the_shortener_keeps_its_links_and_makes_new_ones() {
    let scratch = Scratch::new();
    let params = format!("\"path\": \"{}\"", scratch.join("links.sqlite").display());
    let server = serve("shortener", &scratch, &params);
    let form =
        format!("POST / HTTP/1.1\r\nHost: test\r\n{FORM}Content-Length: 20\r\n\r\nurl=https://a.test/1");
    let short = server.connect().send(form).reply().text().trim().to_owned();
    let location = server.get(&short).text_header("location").map(str::to_owned);
    assert_eq!(location.as_deref(), Some("https://a.test/1"));
    let hammers = vec![
        Hammer::start(server.address, &short, 4),
        Hammer::posting(server.address, FORM, "url=https://a.test/2", 2),
    ];
    let reports = swap_and_stop(server, &scratch, &params, hammers);
    assert!(reports.iter().all(|report| report.answers.len() == 1), "the same answer always: {reports:?}");
}

#[test]
fn the_guestbook_loses_no_entry() {
    let scratch = Scratch::new();
    let params = format!("\"path\": \"{}\"", scratch.join("book.sqlite").display());
    let server = serve("guestbook", &scratch, &params);
    let json = "Content-Type: application/json\r\n";
    let entry = "{\"name\": \"Ada\", \"text\": \"hello\"}";
    let hammers =
        vec![Hammer::start(server.address, "/?newest=1", 2), Hammer::posting(server.address, json, entry, 2)];
    let reports = swap_and_stop(server, &scratch, &params, hammers);
    let numbers = reports[1].answers.values();
    assert!(numbers.clone().all(|n| *n == 1) && numbers.len() > 90, "each entry has a number of its own");
}

#[test]
fn the_webhook_does_all_the_work_that_it_has_said_it_would() {
    let scratch = Scratch::new();
    let params = format!("\"directory\": \"{}\", \"takes\": 5", scratch.join("").display());
    let server = serve("webhook", &scratch, &params);
    let hammers = vec![Hammer::posting(server.address, "", "{\"id\": 7}", 4)];
    let reports = swap_and_stop(server, &scratch, &params, hammers);
    let count = |name| fs::read_to_string(scratch.join(name)).unwrap().lines().count();
    let n_taken = reports[0].answers["taken\n"];
    assert_eq!((count("inbox"), count("done")), (n_taken, n_taken));
}

#[test]
fn the_export_sends_whole_tables() {
    let scratch = Scratch::new();
    let row = r#"{"id": 1, "customer": "Lovelace, Ada", "total": 9.5}"#;
    let rows = scratch.write("rows.jsonl", format!("{row}\n").repeat(2_000));
    let params = format!("\"rows\": \"{}\"", rows.display());
    let server = serve("export", &scratch, &params);
    let hammers = vec![Hammer::start(server.address, "/", 4)];
    let reports = swap_and_stop(server, &scratch, &params, hammers);
    let tables: Vec<_> = reports[0].answers.keys().map(|table| table.lines().count()).collect();
    assert_eq!(tables, [2_001]);
}
