//! Takes events by `POST`, such as `{"id": 7}`, answers 202 at once, and works on each of them afterwards.
//!
//! An event is in the file `inbox` before its answer goes out: it is not lost, whatever becomes of the work. Once the
//! work is done, the event is in the file `done` too. Both are in the directory that the parameter `directory` names.

use std::{
    fs::File,
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use effe_abi::{Lambda, Options, Params, Request, Response, Result, StartError, Started, export};
use serde::Deserialize;

#[derive(Deserialize)]
struct Event {
    id: u64,
}

struct Webhook {
    inbox: File,
    done: File,
    /// How long the work takes; another webhook would call a service or send a mail.
    takes: Duration,
}

impl Lambda for Webhook {
    /// The answer goes out before Run returns.
    const OPTIONS: Options = Options::new().answers_early();

    fn start(params: Params) -> Result<Self, StartError<Self>> {
        let directory = Path::new(params.required("directory")?);
        let open = |name| File::options().append(true).create(true).open(directory.join(name));
        let takes = Duration::from_millis(params.parse("takes")?.unwrap_or(200));
        Ok(Webhook { inbox: open("inbox")?, done: open("done")?, takes })
    }

    fn run(webhook: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let webhook = webhook?;
        let Ok(event) = request.json::<Event>() else {
            response.status(400).text("send an event: {\"id\": 7}\n");
            return Ok(());
        };
        note(&mut webhook.inbox, &event)?;
        response.status(202).text("taken\n").end()?;
        // The client has its answer. An error from here on goes to the log alone.
        work(webhook.takes, &event, request)?;
        note(&mut webhook.done, &event)
    }
}

export!(Webhook);

/// One write, so that lines of several Contexts don't mix.
fn note(file: &mut File, event: &Event) -> Result {
    file.write_all(format!("{}\n", event.id).as_bytes())?;
    Ok(file.sync_data()?)
}

/// Gives up when the run has had its time, or the effe stops and can't wait any longer.
fn work(takes: Duration, event: &Event, request: &Request) -> Result {
    let end = Instant::now() + takes;
    while Instant::now() < end {
        if request.cancelled() {
            return Err(format!("event {} is still in the inbox: its time was up", event.id).into());
        }
        thread::sleep(Duration::from_millis(5).min(takes));
    }
    Ok(())
}

#[test]
fn the_client_is_answered_first_and_the_work_is_done_or_the_log_says_why_not() {
    use effe_abi::testing::{Call, Effe};
    let directory = tempfile::tempdir().unwrap();
    let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let effe = Effe::with(&LAMBDA, &[("directory", directory.path().to_str().unwrap()), ("takes", "20")]);
    for id in 1..=2 {
        let answer = effe.call(Call::post("/").body(format!("{{\"id\": {id}}}")));
        assert_eq!((answer.status, answer.early, answer.failure), (202, true, None));
    }
    let late = effe.call(Call::post("/").body("{\"id\": 3}").deadline(Duration::ZERO));
    assert_eq!((late.status, late.early), (202, true));
    assert!(late.failure.unwrap().starts_with("event 3 is still in the inbox"));
    assert_eq!(effe.call(Call::post("/").body("no event")).status, 400);
    assert_eq!((read("inbox").as_str(), read("done").as_str()), ("1\n2\n3\n", "1\n2\n"));
}
