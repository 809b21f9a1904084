//! The loader as a function: its start and its end, and a Runtime API that misbehaves.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    aws_events::gateway2,
    support::{
        Counts, Loader, Scratch,
        plugins::{early, invoked, probe},
        runtime_api::{Invoke, Reception, RuntimeApi, Turn},
    },
};

#[test]
fn a_function_listens_on_nothing_and_stops_every_context() {
    let api = RuntimeApi::start();
    let counts = Counts::new();
    let server = api.loader(&probe()).counting(&counts).start();
    api.wait_for_pollers(1);
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", server.id())).unwrap();
    let inodes = sockets.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A"));
    let inodes: Vec<_> = inodes.filter_map(|line| line.split_whitespace().nth(9)).collect();
    for file in std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap() {
        let target = std::fs::read_link(file.unwrap().path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        assert!(!inodes.iter().any(|inode| target == format!("socket:[{inode}]")), "it listens: {target}");
    }
    assert_eq!(api.call(&json!({})).error_type(), None);
    let lines = server.stop();
    assert!(lines.iter().any(|line| line.contains("Contexts were started and stopped")), "{lines:?}");
    counts.assert_complete();
}

#[test]
fn flags_that_make_no_sense_in_a_function_are_refused_in_one_line() {
    let api = RuntimeApi::start();
    for flag in [
        "--port=80",
        "--host=127.0.0.1",
        "--listen=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--probes",
        "--processes=2",
        "--aws-api=127.0.0.1:0",
        "--tls-cert=a",
    ] {
        let done = api.loader(&probe()).arg(flag).run().assert_code(2);
        let name = flag.split('=').next().unwrap();
        let line = done.stderr.lines().find(|line| line.contains(name));
        assert!(line.is_some_and(|line| line.contains("listens on nothing")), "{}", done.stderr);
    }
    assert_eq!(api.posted("/init/error").json()["errorType"], "Effe.Usage");
    let done = api.loader(&probe()).env("AWS_LAMBDA_MAX_CONCURRENCY", "many").run().assert_code(2);
    assert!(
        done.stderr.contains("AWS_LAMBDA_MAX_CONCURRENCY is \"many\": write a number"),
        "{}",
        done.stderr
    );
    // Those that do are taken: nothing is served here.
    api.loader(&probe()).arg("--info").run().assert_code(0);
}

#[test]
fn a_function_that_cannot_start_says_why_and_ends() {
    for (change, kind, part) in [
        (
            &(|loader: Loader| loader.set("fail=init")) as &dyn Fn(Loader) -> Loader,
            "Effe.InitFailed",
            "there is no database",
        ),
        (&|loader| loader.set("fail=start"), "Effe.StartFailed", "there is no connection"),
        (&|loader| loader.set("fail=start-panics"), "Effe.StartFailed", "start panicked"),
        (&|loader| loader.env("_HANDLER", "no-such.so"), "Effe.PluginRefused", "no-such.so"),
    ] {
        let api = RuntimeApi::start();
        let done = change(api.loader(&invoked())).run();
        assert_ne!(done.status.code(), Some(0), "{done:?}");
        let error = api.posted("/init/error");
        assert_eq!(error.error_type(), Some(kind), "{done:?}");
        let text = error.json()["errorMessage"].as_str().unwrap().to_owned();
        assert!(text.contains(part) && !text.contains("a secret"), "{text}");
        assert_eq!(api.n_asked(), 0);
    }
}

#[test]
fn as_many_invocations_are_under_way_as_lambda_says() {
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).env("AWS_LAMBDA_MAX_CONCURRENCY", "8").start();
    api.wait_for_pollers(8);
    let ids: Vec<_> =
        (0..100).map(|n| api.invoke(json!({"do": "sleep", "ms": 20, "n": n}).to_string())).collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(api.result(id).json()["n"], n);
    }
    assert_eq!(api.all_posted().len(), 100, "each once");
    server.stop();
}

/// What the Runtime API does wrong, and what comes of it.
#[test]
fn an_api_that_misbehaves_loses_no_invocation() {
    let event = json!({"say": "here"}).to_string();
    let oversized = format!("\"{}\"", "x".repeat(2 << 20));
    let overdue = Invoke { left: Duration::ZERO, ..Invoke::new("past", event.clone()) };
    let hangs = Invoke { left: Duration::from_millis(200), ..Invoke::new("hangs", "{\"do\":\"sleep\"}") };
    let mut forbidden = gateway2("GET", "/", "", "");
    forbidden["headers"] = json!({"x-a": "1\r\nx-b: 2"});
    let forbidden = forbidden.to_string();
    let lone_path = gateway2("GET", "/PATH", "", "").to_string().replacen("/PATH", "/\\udc00", 1);
    // What happens, the id of the invocation if there is one, and the type of its error if it fails.
    let table = [
        (Turn::Reset, None, ""),
        (Turn::BreakHead, None, ""),
        (Turn::Rubbish, None, ""),
        (Turn::Status(204), None, ""),
        (Turn::BreakEvent(Invoke::new("broken", event.clone())), Some("broken"), "Effe.EventBrokenOff"),
        (Turn::Invoke(Invoke::new("big", oversized)), Some("big"), "Effe.EventTooLarge"),
        (Turn::Invoke(Invoke::new("no-json", "{\"a\":")), Some("no-json"), "Effe.InvalidEvent"),
        (Turn::Invoke(Invoke::new("nothing", "")), Some("nothing"), "Effe.InvalidEvent"),
        (Turn::Invoke(Invoke::new("no-text", b"\"\xff\"")), Some("no-text"), "Effe.InvalidEvent"),
        (Turn::Invoke(Invoke::new("header", forbidden)), Some("header"), "Effe.InvalidEvent"),
        (Turn::Invoke(Invoke::new("path", lone_path)), Some("path"), "Effe.InvalidEvent"),
        (Turn::Invoke(Invoke::new("lone", "{\"do\":\"\\ud800\"}")), Some("lone"), "Effe.LambdaFailed"),
        (Turn::Invoke(overdue), Some("past"), "Sandbox.Timedout"),
        (Turn::Invoke(hangs), Some("hangs"), "Sandbox.Timedout"),
        (Turn::Invoke(Invoke::new("bad id", event.clone())), None, ""),
        (Turn::Invoke(Invoke::new("../../init/error", event.clone())), None, ""),
        (Turn::Invoke(Invoke::new("%2e", event.clone())), None, ""),
    ];
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).arg("--body-limit=1MiB").start();
    for (turn, id, kind) in table {
        let what = format!("{turn:?}").chars().take(120).collect::<String>();
        api.turn(turn);
        if let Some(id) = id {
            assert_eq!(api.result(id).error_type(), Some(kind), "{what}");
        }
        // Whatever it was, the next one is served.
        assert_eq!(api.call(&json!({"say": "next"})).json(), json!({"say": "next"}), "{what}");
    }
    assert!(api.all_posted().iter().all(|posted| !posted.path.contains("init")));
    // One id twice: each is answered.
    let before = api.all_posted().len();
    for n in 0..2 {
        api.turn(Turn::Invoke(Invoke::new("twice", json!({"n": n}).to_string())));
    }
    api.call(&json!({}));
    let posted = api.all_posted();
    let twice: Vec<_> = posted[before..].iter().filter(|posted| posted.path.contains("/twice/")).collect();
    assert_eq!((twice.len(), twice[0].json(), twice[1].json()), (2, json!({"n": 0}), json!({"n": 1})));
    server.stop();
}

#[test]
fn a_result_is_posted_again_where_the_connection_breaks() {
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).start();
    for _ in 0..2 {
        api.receive(Reception::Reset);
    }
    assert_eq!(api.call(&json!({"n": 1})).json(), json!({"n": 1}));
    // One that is not taken is told of, and the next one is served.
    api.receive(Reception::Status(400));
    api.invoke("{}");
    assert_eq!(api.call(&json!({"n": 2})).json(), json!({"n": 2}));
    server.wait_for_line("the Runtime API doesn't take it: 400");
    api.receive(Reception::Status(413));
    let posted = api.call(&json!({"do": "large", "bytes": 10}));
    assert_eq!(posted.error_type(), Some("Function.ResponseSizeTooLarge"));
    server.stop();
}

#[test]
fn an_api_that_has_failed_ends_the_function() {
    for status in [403, 500] {
        let api = RuntimeApi::start();
        let server = api.loader(&invoked()).start();
        assert_eq!(api.call(&json!(1)).json(), json!(1));
        api.turn(Turn::Status(status));
        let lines = server.ends_with(1);
        assert!(lines.iter().any(|line| line.contains("gives no invocation")), "{lines:?}");
    }
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).start();
    api.receive(Reception::Status(500));
    api.invoke("{}");
    server.ends_with(1);
    // Nobody listens there any more.
    let server = Loader::bare()
        .env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
        .env("LAMBDA_TASK_ROOT", "/")
        .env("_HANDLER", invoked())
        .start();
    let lines = server.ends_with(1);
    assert!(lines.iter().any(|line| line.contains("is gone")), "{lines:?}");
}

#[test]
fn an_event_whose_rest_never_comes_is_given_up() {
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).start();
    let begun = Instant::now();
    api.turn(Turn::HangEvent(Invoke::new("half", "{\"say\": \"nothing\"}")));
    assert_eq!(api.result("half").error_type(), Some("Effe.EventBrokenOff"));
    assert!(begun.elapsed() > Duration::from_secs(5));
    assert_eq!(api.call(&json!({"n": 1})).json(), json!({"n": 1}), "by another connection");
    server.stop();
}

#[test]
fn an_emulator_may_have_the_api_below_a_path_and_say_deadlines_of_its_own() {
    let api = RuntimeApi::start();
    let address = format!("http://{}/.rt/f", api.address());
    let server = api.loader(&invoked()).env("AWS_LAMBDA_RUNTIME_API", &address).start();
    // Ten minutes after the beginning of 1970, says cargo-lambda's.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = since_1970 - Duration::from_secs(600);
    let begin = Invoke { before, ..Invoke::new("early", "{\"do\": \"facts\"}") };
    api.turn(Turn::Invoke(begin));
    let posted = api.result("early");
    assert_eq!(posted.path, "/.rt/f/2018-06-01/runtime/invocation/early/response");
    let facts = posted.json();
    assert_eq!((&facts["left"], &facts["invocation"]["deadline"]), (&json!(null), &json!(null)), "{facts}");
    server.stop();
    let done = api.loader(&invoked()).env("AWS_LAMBDA_RUNTIME_API", "https://a").run().assert_code(2);
    assert!(
        done.stderr.contains("AWS_LAMBDA_RUNTIME_API is \"https://a\": write HOST:PORT"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_result_that_nobody_takes_in_is_told_of() {
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).start();
    api.receive(Reception::Hang);
    let begun = Instant::now();
    assert_eq!(api.call(&json!({"n": 1})).json(), json!({"n": 1}), "by another connection");
    assert!(begun.elapsed() > Duration::from_secs(5));
    server.stop();
}

#[test]
fn a_process_that_was_frozen_goes_on_as_if_no_time_had_passed() {
    let api = RuntimeApi::start();
    let counts = Counts::new();
    let server =
        api.loader(&probe()).counting(&counts).args(["--idle-timeout", "2s", "--run-timeout", "1s"]).start();
    api.call(&json!({}));
    api.wait_for_pollers(1);
    server.signal(Signal::STOP);
    // Time is what is tested here.
    thread::sleep(Duration::from_secs(3));
    api.invoke("{}");
    server.signal(Signal::CONT);
    api.result("id-1");
    assert_eq!(counts.of("context"), 1, "its Context is still there");
    let lines = server.stop();
    assert!(
        !lines.iter().any(|line| line.contains("takes longer") || line.contains("has been running")),
        "{lines:?}"
    );
}

#[test]
fn what_runs_after_its_answer_ends_before_the_next_invocation_is_asked_for() {
    let api = RuntimeApi::start();
    let counts = Counts::new();
    let server = api.loader(&early()).counting(&counts).start();
    let scratch = Scratch::new();
    let gate = scratch.join("gate");
    let id = api.invoke(gateway2("GET", "/goes-on", &gate.display().to_string(), "").to_string());
    assert_eq!(api.result(&id).json()["body"], "taken");
    counts.wait_for("ended", 1);
    let next = api.invoke(gateway2("GET", "/", "", "").to_string());
    assert_eq!(api.n_asked(), 1, "it isn't asked for yet");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(api.result(&next).json()["body"], "taken");
    assert_eq!(counts.of("gone on"), 1);
    server.stop();
    counts.assert_complete();
}
