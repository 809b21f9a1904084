//! What the life cycle promises to an author: how often each step is called, and where its errors and panics go.
//!
//! One lambda serves all tests. A parameter that has a step's name says how that step fails, and each step logs its
//! name, so that the log shows which steps were called, in order.

use std::{
    cell::Cell,
    fmt,
    panic::{panic_any, resume_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use effe_abi::{
    Lambda, Level, Params, Request, Response, Result, StartError, Started, export,
    testing::{Answer, Call, Effe},
};

struct Probe(Params);

thread_local! {
    /// The parameters for Retire, which gets none. In these tests, an effe is made and retired on one thread.
    static PARAMS: Cell<Option<Params>> = const { Cell::new(None) };
}

impl Lambda for Probe {
    fn init(params: Params) -> Result {
        PARAMS.set(Some(params));
        step("init", params)
    }

    fn start(params: Params) -> Result<Self, StartError<Self>> {
        log::info!("start");
        match params.get("start") {
            Some("fails with a Context") => {
                Err(StartError::new("half a database").with_context(Probe(params)))
            }
            Some("rude with a Context") => Err(StartError::new(Rude).with_context(Probe(params))),
            how => {
                go_wrong("start", how)?;
                Ok(Probe(params))
            }
        }
    }

    fn run(probe: Started<Self>, request: &Request, response: &mut Response) -> Result {
        log::info!("run");
        match request.path() {
            "/whatever" => match probe {
                Ok(_) => response.text("a Context"),
                Err(failed) => {
                    let context = failed.context().is_some();
                    response.status(503).text(format!("{} / {context}", failed.error().is_some()))
                }
            },
            "/write-and-fail" => {
                response.status(202).text("what it wrote");
                return Err("and then it failed".into());
            }
            "/caught-before" => {
                let caught = std::panic::catch_unwind(|| panic!("an earlier panic"));
                response.text(if caught.is_err() { "caught" } else { "not caught" })
            }
            "/no-hook" => resume_unwind(Box::new("raised without a hook")),
            _ => {
                go_wrong("run", probe?.0.get("run"))?;
                response.text("fine")
            }
        };
        Ok(())
    }

    fn ready() -> Result {
        PARAMS.get().map_or(Ok(()), |params| go_wrong("ready", params.get("ready")))
    }

    fn stop(self) -> Result {
        step("stop", self.0)
    }

    fn retire() -> Result {
        PARAMS.take().map_or(Ok(()), |params| step("retire", params))
    }
}

export!(Probe);

fn step(name: &'static str, params: Params) -> Result {
    log::info!("{name}");
    go_wrong(name, params.get(name))
}

const PLACE: &str = "tests/lifecycle.rs:";

fn go_wrong(step: &str, how: Option<&'static str>) -> Result {
    match how {
        None => Ok(()),
        Some("panics") => panic!("{step} fell over"),
        Some("throws a bomb") => panic_any(Bomb),
        Some("is rude") => Err(Rude)?,
        Some(text) => Err(text)?,
    }
}

/// A panic payload that panics once more when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload fell over too");
    }
}

/// An error whose `Display` panics.
#[derive(Debug)]
struct Rude;

impl fmt::Display for Rude {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no words")
    }
}

impl std::error::Error for Rude {}

/// The names of the steps, in the order in which they were called.
fn story(log: &[(Level, String)]) -> String {
    let steps = log.iter().filter(|(level, _)| *level == Level::Info);
    steps.map(|(_, step)| step.as_str()).collect::<Vec<_>>().join(" ")
}

fn at(level: Level, log: &[(Level, String)]) -> Vec<&str> {
    log.iter().filter(|(other, _)| *other == level).map(|(_, text)| text.as_str()).collect()
}

/// Checks what the client sees when something went wrong: 500, and not why.
fn assert_only_500(answer: &Answer) {
    assert_eq!((answer.status, answer.bytes()), (500, Vec::new()));
    assert!(answer.headers.is_empty() && !answer.broken, "{answer:?}");
}

fn assert_says(text: &str, what: &str) {
    assert!(text.contains(what) && text.contains(PLACE), "{text:?} does not say {what:?} and where");
}

#[test]
fn a_lambda_says_whether_it_is_ready() {
    assert_eq!(Effe::of(&LAMBDA).ready(), Ok(()));
    let effe = Effe::with(&LAMBDA, &[("ready", "the database is gone")]);
    let why = effe.ready().unwrap_err();
    assert!(why.contains("the database is gone") && why.contains(PLACE), "{why}");
    let effe = Effe::with(&LAMBDA, &[("ready", "panics")]);
    assert!(effe.ready().unwrap_err().contains("ready fell over"));
    assert_eq!(effe.started(), 0, "it needs no Context");
}

#[test]
fn a_thousand_sequential_calls_share_one_context() {
    let effe = Effe::of(&LAMBDA);
    for _ in 0..1000 {
        assert_eq!(effe.get("/").text(), "fine");
    }
    assert_eq!((effe.started(), effe.stopped()), (1, 0));
    let runs = "run ".repeat(1000);
    assert_eq!(story(&effe.retire()), format!("init start {runs}stop retire"));
}

#[test]
fn every_context_is_stopped_once_after_concurrent_calls() {
    let effe = Effe::of(&LAMBDA);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    answered.fetch_add(usize::from(effe.get("/").status == 200), Ordering::Relaxed);
                }
            });
        }
    });
    let started = effe.started();
    assert_eq!(answered.into_inner(), 1000);
    assert!((1..=4).contains(&started), "{started}");
    let log = effe.retire();
    let count = |name| log.iter().filter(|(_, step)| step == name).count();
    assert_eq!((count("start"), count("stop"), count("retire")), (started, started, 1));
}

#[test]
fn a_panicking_run_answers_500_and_loses_its_context() {
    let effe = Effe::with(&LAMBDA, &[("run", "panics")]);
    let answer = effe.get("/");
    assert_only_500(&answer);
    assert!(answer.panicked);
    assert_says(answer.failure.as_deref().unwrap(), "run fell over");
    assert_eq!(effe.get("/whatever").text(), "a Context");
    let log = effe.retire();
    assert_eq!(story(&log), "init start run stop start run stop retire");
    let [panic] = at(Level::Critical, &log)[..] else { panic!("not logged once: {log:?}") };
    assert_says(panic, "run fell over");
}

#[test]
fn a_failed_start_with_a_context_gets_one_run_and_one_stop() {
    let effe = Effe::with(&LAMBDA, &[("start", "fails with a Context")]);
    let answer = effe.get("/whatever");
    assert_eq!((answer.status, answer.text().as_str()), (503, "true / true"));
    assert_eq!(effe.stopped(), 1);
    assert_only_500(&effe.get("/"));
    let log = effe.retire();
    assert_eq!(story(&log), "init start run stop start run stop retire");
    // One for each of the two Starts, and one for the second Run, which returned the error of its Start.
    let errors = at(Level::Error, &log);
    assert_eq!(errors.len(), 3);
    errors.iter().for_each(|text| assert_says(text, "half a database"));
}

#[test]
fn a_failed_start_without_a_context_gets_one_run_and_no_stop() {
    let effe = Effe::with(&LAMBDA, &[("start", "no database")]);
    let answer = effe.get("/");
    assert_only_500(&answer);
    assert!(!answer.panicked);
    assert_says(answer.failure.as_deref().unwrap(), "no database");
    assert_eq!(effe.get("/whatever").text(), "true / false");
    assert_eq!(story(&effe.retire()), "init start run start run retire");
}

#[test]
fn an_error_of_run_is_logged_with_its_place_and_kept_from_the_client() {
    let effe = Effe::with(&LAMBDA, &[("run", "the secret is 42")]);
    let answer = effe.get("/");
    assert_only_500(&answer);
    assert_says(answer.failure.as_deref().unwrap(), "the secret is 42 (");
    assert_only_500(&effe.get("/"));
    let log = effe.retire();
    assert_eq!(at(Level::Error, &log).len(), 2);
    assert_eq!(story(&log), "init start run run stop retire", "an error costs no Context");
}

#[test]
fn what_a_failing_run_wrote_stands() {
    let answer = Effe::of(&LAMBDA).get("/write-and-fail");
    assert_eq!((answer.status, answer.text().as_str()), (202, "what it wrote"));
    assert_says(&answer.failure.unwrap(), "and then it failed");
    assert!(!answer.broken && !answer.panicked);
}

#[test]
fn an_init_that_fails_or_panics_is_told_apart_and_nothing_else_is_called() {
    let refused = Effe::try_with(&LAMBDA, &[("init", "the licence has expired")]).err().unwrap();
    assert_says(&refused, "the licence has expired");
    let refused = Effe::try_with(&LAMBDA, &[("init", "panics")]).err().unwrap();
    assert_says(&refused, "init fell over");
}

#[test]
fn a_panicking_start_gets_neither_run_nor_stop() {
    let effe = Effe::with(&LAMBDA, &[("start", "panics")]);
    let answer = effe.get("/whatever");
    assert_only_500(&answer);
    assert!(answer.panicked);
    let log = effe.retire();
    assert_eq!(story(&log), "init start retire");
    let [panic] = at(Level::Critical, &log)[..] else { panic!("not logged once: {log:?}") };
    assert_says(panic, "start fell over");
}

#[test]
fn panics_and_errors_of_stop_and_retire_are_logged_once_and_stop_nothing() {
    for (how, level) in [("panics", Level::Critical), ("was not in the mood", Level::Error)] {
        let effe = Effe::with(&LAMBDA, &[("stop", how), ("retire", how)]);
        assert_eq!(effe.get("/").text(), "fine");
        let log = effe.retire();
        assert_eq!(story(&log), "init start run stop retire");
        let [stop, retire] = at(level, &log)[..] else { panic!("not logged once each: {log:?}") };
        let what = |step: &str| if how == "panics" { format!("{step} fell over") } else { how.to_owned() };
        assert_says(stop, &what("stop"));
        assert_says(retire, &what("retire"));
    }
}

#[test]
fn a_panic_payload_that_panics_when_dropped_is_survived() {
    for step in ["start", "run", "stop", "retire"] {
        let effe = Effe::with(&LAMBDA, &[(step, "throws a bomb")]);
        let answer = effe.get("/");
        assert_eq!(answer.panicked, ["start", "run"].contains(&step));
        let log = effe.retire();
        let [bomb, payload] = at(Level::Critical, &log)[..] else { panic!("{step}: {log:?}") };
        assert_says(bomb, "(no message)");
        assert_says(payload, "the payload fell over too");
    }
    assert!(Effe::try_with(&LAMBDA, &[("init", "throws a bomb")]).is_err());
}

#[test]
fn an_error_whose_display_panics_is_a_panic() {
    let effe = Effe::with(&LAMBDA, &[("run", "is rude")]);
    let answer = effe.get("/");
    assert_only_500(&answer);
    assert!(answer.panicked);
    assert_says(&answer.failure.unwrap(), "no words");
    let log = effe.retire();
    assert_eq!(story(&log), "init start run stop retire");
    assert_eq!(at(Level::Critical, &log).len(), 1);
}

#[test]
fn a_context_whose_start_error_cannot_be_displayed_is_stopped_all_the_same() {
    let effe = Effe::with(&LAMBDA, &[("start", "rude with a Context")]);
    assert!(effe.get("/").panicked);
    assert_eq!(story(&effe.retire()), "init start stop retire");
}

#[test]
fn a_panic_that_the_author_caught_is_not_blamed_for_a_later_one() {
    let effe = Effe::of(&LAMBDA);
    assert_eq!(effe.get("/caught-before").text(), "caught");
    let answer = effe.call(Call::get("/no-hook"));
    assert_only_500(&answer);
    assert_eq!(answer.failure.as_deref(), Some("panicked: raised without a hook"));
    let log = effe.retire();
    let [first, second] = at(Level::Critical, &log)[..] else { panic!("{log:?}") };
    assert_says(first, "an earlier panic");
    assert_eq!(second, "panicked: raised without a hook");
}
