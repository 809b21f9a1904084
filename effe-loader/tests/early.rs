//! An answer that goes out while its run goes on: the client has it at once, the connection takes its next request, and
//! the rest of the run has its own time, which a swap and a drain give it.

use std::{fs, path::PathBuf};

use rustix::process::Signal;

use crate::support::{
    Connection, Counts, Loader, Reply, Scratch, Server,
    plugins::{async_early, async_probe, early, patched, probe, spout},
    wait_until,
};

/// One way to run a lambda that ends its answers early.
struct Case {
    name: &'static str,
    plugin: PathBuf,
    args: &'static [&'static str],
    /// A request after which its runs are where they are to be.
    moved_by: Option<&'static str>,
}

impl Case {
    fn all() -> Vec<Case> {
        let case =
            |name, plugin: fn() -> PathBuf, args, moved_by| Case { name, plugin: plugin(), args, moved_by };
        vec![
            case("on the pool", early, &[], None),
            case("told to run inline", early, &["--execution", "inline"], None),
            case("polled", async_early, &["--execution", "inline"], None),
            case("spawned", async_early, &["--execution", "inline"], Some("/waits")),
            case("spawned because it blocks", async_early, &[], Some("/block")),
            case("polled on the pool", async_early, &["--execution", "pool"], None),
        ]
    }

    fn asynchronous() -> Vec<Case> {
        Case::all().into_iter().filter(Case::is_async).collect()
    }

    fn is_async(&self) -> bool {
        self.plugin == async_early()
    }

    /// One thread of the server: whatever keeps it keeps every client.
    fn serve(&self, counts: &Counts, args: &[&str]) -> Server {
        println!("{}", self.name);
        let server = Loader::of(&self.plugin).counting(counts).args(["--workers", "1"]).args(self.args);
        let server = server.args(args).serve();
        match self.moved_by {
            Some("/waits") => {
                let moved = (0..1000).any(|_| server.get("/waits").text().starts_with("effe-lambda"));
                assert!(moved, "1000 runs that wait again and again went back and forth");
            }
            Some(target) => {
                assert_eq!(server.get(target).status, 202);
                server.wait_for_line("running in its own runtime");
            }
            None => {}
        }
        server
    }
}

#[track_caller]
fn is_taken(reply: &Reply) {
    let found =
        (reply.status, reply.text_header("x-kind"), reply.text_header("content-length"), reply.text());
    assert_eq!(found, (202, Some("early"), Some("5"), "taken"), "a held answer goes out whole");
}

/// A file that doesn't exist yet, and a request whose run goes on until it does.
struct Gate {
    scratch: Scratch,
    target: String,
}

impl Gate {
    fn closed(path: &str) -> Gate {
        let scratch = Scratch::new();
        let target = format!("{path}?{}", scratch.join("gate").display());
        Gate { scratch, target }
    }

    fn open(&self) {
        self.scratch.write("gate", "");
    }
}

#[test]
fn the_client_has_the_answer_and_its_connection_while_the_run_goes_on() {
    for case in Case::all() {
        let (counts, gate) = (Counts::new(), Gate::closed("/goes-on"));
        let server = case.serve(&counts, &[]);
        let mut connection = server.connect();
        let n_before = counts.of("ended");
        for n in 1..=3 {
            is_taken(&connection.get(&gate.target));
            counts.wait_for("ended", n_before + n);
        }
        connection.send(format!("HEAD {} HTTP/1.1\r\nHost: test\r\n\r\n", gate.target));
        assert_eq!(connection.reply_to_head().text_header("content-length"), Some("5"));
        is_taken(&connection.get("/"));
        assert_eq!(counts.of("gone on"), 0);
        // The clients may go, one way or the other.
        let mut leaves = server.connect();
        is_taken(&leaves.get(&gate.target));
        leaves.reset();
        drop(connection);
        is_taken(&server.get("/"));
        gate.open();
        counts.wait_for("gone on", 5);
        server.stop();
        assert_eq!((counts.of("cancelled"), counts.of("dropped")), (0, 0));
        counts.assert_complete();
    }
}

#[test]
fn a_stream_that_is_ended_is_complete_while_the_run_goes_on() {
    let (counts, gate) = (Counts::new(), Gate::closed(""));
    let server = Loader::of(spout()).counting(&counts).args(["--workers", "1"]).serve();
    let mut connection = server.connect();
    let ended = connection.get(&format!("/ends{}", gate.target));
    assert_eq!((ended.text(), ended.text_header("transfer-encoding")), ("begun and ended", Some("chunked")));
    let held = connection.get(&format!("/held{}", gate.target));
    assert_eq!((held.text(), held.text_header("content-length")), ("and ended", Some("9")));
    assert_eq!(connection.get("/").text(), "ok", "the connection goes on");
    counts.wait_for("answered", 2);
    drop(connection);
    gate.open();
    counts.wait_for("gone on", 2);
    server.stop();
    assert_eq!(counts.of("cancelled"), 0);
    counts.assert_complete();
}

#[test]
fn an_async_stream_on_the_pool_goes_on_after_its_end() {
    let counts = Counts::new();
    let server = Loader::of(async_probe()).counting(&counts).args(["--execution", "pool"]).serve();
    let mut connection = server.connect();
    for n in 0..20 {
        assert_eq!(connection.get(&format!("/ends?{}", n % 4)).text(), "ended");
    }
    counts.wait_for("gone on", 20);
    server.stop();
    assert_eq!(counts.of("dropped"), 0);
    counts.assert_complete();
}

#[test]
fn without_the_declaration_it_is_an_error_that_says_what_to_declare() {
    for execution in ["pool", "inline"] {
        let server = Loader::of(probe()).args(["--execution", execution]).serve();
        let reply = server.get("/ends");
        assert_eq!((reply.status, reply.text()), (202, "taken"), "what was written stands");
        let line = server.wait_for_line("Response::end needs");
        assert!(line.contains("Options::new().answers_early()") && line.contains("path=/ends"), "{line}");
        server.stop();
    }
}

#[test]
fn a_lambda_that_declares_it_never_runs_on_a_servers_thread() {
    for execution in ["auto", "inline"] {
        let server = Loader::of(early()).args(["--execution", execution]).serve();
        assert!(server.get("/thread").text().starts_with("effe-run-"), "{execution}");
        server.stop();
    }
}

#[test]
fn an_answer_in_time_is_never_a_504_and_one_that_comes_too_late_is_refused() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &["--run-timeout", "300ms"]);
        let n_before = counts.of("ended");
        let mut connection = server.connect();
        assert_eq!(connection.get("/slow").status, 504);
        if !case.is_async() {
            counts.wait_for("refused", 1);
        }
        assert_eq!(counts.of("ended"), n_before);
        is_taken(&connection.get("/"));
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn the_rest_of_an_async_run_is_dropped_when_its_time_is_up() {
    for case in Case::asynchronous() {
        let counts = Counts::new();
        let server = case.serve(&counts, &["--run-timeout", "300ms"]);
        let mut connection = server.connect();
        is_taken(&connection.get("/never"));
        counts.wait_for("dropped", 1);
        let line =
            server.wait_for_line("goes on for longer than --run-timeout after it has ended its answer");
        assert!(line.ends_with("method=GET path=/never"), "{line}");
        is_taken(&connection.get("/"));
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn the_rest_of_a_synchronous_run_sees_its_deadline_and_its_thread_counts_as_lost() {
    let counts = Counts::new();
    let server = Loader::of(early()).counting(&counts).args(["--run-timeout", "300ms"]).serve();
    is_taken(&server.get("/until-told"));
    counts.wait_for("told", 1);
    is_taken(&server.get("/never"));
    let line = server.wait_for_line("threads are lost to such runs");
    assert!(line.contains("goes on for longer than --run-timeout after it has ended its answer"), "{line}");
    is_taken(&server.get("/"));
    server.signal(Signal::INT);
    server.wait_for_line("SIGINT: finishing what runs");
    server.signal(Signal::INT);
    server.ends_with(1);
}

#[test]
fn an_error_and_a_panic_after_the_answer_are_the_operators_concern_alone() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &[]);
        let mut connection = server.connect();
        for (target, said) in [
            ("/fail", "the work failed"),
            ("/panic", "the work panicked"),
            ("/says-more", "the response has ended"),
        ] {
            is_taken(&connection.get(target));
            server.wait_for_line(said);
        }
        is_taken(&connection.get("/"));
        server.stop();
        counts.assert_complete();
    }
}

#[test]
fn a_drain_waits_for_the_rest_of_runs() {
    for case in Case::all() {
        let (counts, gate) = (Counts::new(), Gate::closed("/goes-on"));
        let server = case.serve(&counts, &[]);
        is_taken(&server.get(&gate.target));
        server.signal(Signal::TERM);
        server.wait_for_line("finishing what runs");
        // No connection holds the end up, and yet it doesn't come.
        wait_until("nobody is listening", || std::net::TcpStream::connect(server.address).is_err());
        assert_eq!((counts.of("stop"), counts.of("gone on")), (0, 0));
        gate.open();
        let lines = server.ends_with(0);
        assert!(lines.last().unwrap().contains("stopped; "), "{lines:#?}");
        assert_eq!(counts.of("gone on"), 1);
        counts.assert_complete();
    }
}

#[test]
fn the_rest_of_a_run_that_a_drain_cuts_off_is_owned_up_to() {
    for case in Case::all() {
        let counts = Counts::new();
        let server = case.serve(&counts, &["--drain-timeout", "300ms"]);
        is_taken(&server.get(if case.is_async() { "/never" } else { "/until-told" }));
        server.signal(Signal::TERM);
        let lines = server.ends_with(1);
        let last = lines.last().unwrap();
        assert!(last.contains("1 runs were cut off, 0 Contexts were not stopped"), "{lines:#?}");
        assert_eq!(counts.of("dropped") + counts.of("told"), 1);
        counts.assert_complete();
    }
}

#[test]
fn a_generation_stays_until_the_rest_of_its_runs_is_over() {
    for (plugin, version) in [(early(), "early, version 1"), (async_early(), "async early, v 1")] {
        let (counts, gate, scratch) = (Counts::new(), Gate::closed("/goes-on"), Scratch::new());
        let bytes = fs::read(plugin).unwrap();
        let path = scratch.write("early.so", &bytes);
        let server = Loader::of(&path).counting(&counts).args(["--workers", "1"]).serve();
        let mut connection = server.connect();
        is_taken(&connection.get(&gate.target));
        // The first swap keeps it for a roll-back, the second one has it leave.
        for n in [2, 3] {
            let next = version.replace('1', &n.to_string());
            let new = scratch.write("new.so", patched(&bytes, version.as_bytes(), next.as_bytes()));
            fs::rename(new, &path).unwrap();
            server.signal(Signal::HUP);
            wait_until(&next, || connection.get("/version").text() == next);
        }
        assert_eq!((counts.of("retire"), counts.of("gone on")), (0, 0));
        gate.open();
        counts.wait_for("retire", 1);
        let lines = counts.lines();
        let at = |step: &str| lines.iter().position(|line| line == step).expect("it happened");
        assert!(at("gone on") < at("retire"), "{lines:?}");
        server.stop();
        assert_eq!((counts.of("retire"), counts.of("stop")), (3, counts.of("context")));
    }
}

/// An answer that is ended early and a client that leaves at the same moment: whatever comes first, the run goes on.
#[test]
fn a_run_that_has_ended_its_answer_goes_on_whenever_its_client_leaves() {
    for case in Case::all() {
        let (counts, gate) = (Counts::new(), Gate::closed("/goes-on"));
        let server = case.serve(&counts, &["--max-concurrency", "100"]);
        let n_before = counts.of("ended");
        let leaving: Vec<Connection> = (0..40)
            .map(|_| {
                let mut connection = server.connect();
                connection.send(format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", gate.target));
                connection
            })
            .collect();
        for (n, connection) in leaving.into_iter().enumerate() {
            if n % 2 == 0 { connection.reset() } else { drop(connection) }
        }
        is_taken(&server.get(&gate.target));
        gate.open();
        // A run that was not begun, or had not answered, when its client left is none of these.
        wait_until("each that has answered has gone on", || {
            let lines = counts.lines();
            let n_ended = lines.iter().filter(|line| *line == "ended").count() - n_before;
            n_ended > 0 && lines.iter().filter(|line| *line == "gone on").count() == n_ended
        });
        server.stop();
        assert_eq!((counts.of("cancelled"), counts.of("dropped")), (0, 0));
        assert_eq!(counts.of("gone on"), counts.of("ended") - n_before);
        counts.assert_complete();
    }
}
