//! Tests of `watch`: new builds are served, broken ones are not, and no request is lost.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use rustix::process::Signal;

use crate::support::{Hammer, Loader, Scratch, Server, tool, tool::Tool, wait_until};

/// How soon after a build the new generation must answer.
const SOON: Duration = Duration::from_secs(2);

/// Starts `watch` with a lambda `hello`, on a free port.
fn watch(scratch: &Scratch) -> Server {
    tool(scratch).args(["new", "hello"]).run().assert_code(0);
    let command = tool(scratch).args(["watch", "hello", "--port", "0"]).into_command();
    Loader::by(command).serve_as_told()
}

/// Changes its greeting.
fn greet_with(scratch: &Scratch, word: &str) {
    let text = include_str!("../templates/hello/lib.rs");
    scratch
        .write("hello/src/lib.rs", text.replace("unwrap_or(\"Hello\")", &format!("unwrap_or(\"{word}\")")));
}

#[test]
fn an_edit_is_served_and_a_broken_one_keeps_the_old_answer() {
    let scratch = Scratch::new();
    let server = watch(&scratch);
    assert!(server.address.ip().is_loopback());
    assert_eq!(server.get("/").text(), "Hello from effe: /\n");

    greet_with(&scratch, "Salve");
    server.hear("generation 2");
    assert_eq!(server.get("/").text(), "Salve from effe: /\n");

    greet_with(&scratch, "Salve\" nonsense \"");
    server.hear("found `nonsense`");
    server.hear("hello: cargo could not compile it; generation 2 goes on serving");
    assert_eq!(server.get("/").text(), "Salve from effe: /\n");

    // It builds, but can't be loaded.
    let text = fs::read_to_string(scratch.join("hello/src/lib.rs")).unwrap();
    scratch.write("hello/src/lib.rs", text.replace("\" nonsense \"", "").replace("export!(Hello);", ""));
    server.hear("generation 2 goes on serving");
    assert_eq!(server.get("/").text(), "Salve from effe: /\n");

    // Ignored files, and edits that don't change the build, make no generation.
    scratch.write("hello/.gitignore", "/target\n*.log\n");
    scratch.write("hello/a.log", "");
    greet_with(&scratch, "Ave");
    server.hear("generation 3");
    assert_eq!(server.get("/").text(), "Ave from effe: /\n");
    let said = server.stop();
    assert!(!said.iter().any(|line| line.contains("generation 4")), "{said:#?}");
}

#[test]
fn ten_edits_under_load_lose_no_request() {
    let scratch = Scratch::new();
    let server = watch(&scratch);
    let hammer = Hammer::start(server.address, "/", 4);
    let mut times = Vec::new();
    for edit in 1..=10 {
        greet_with(&scratch, &format!("Edit {edit}"));
        let built = server.hear("Finished");
        times.push(server.hear(&format!("generation {}", edit + 1)) - built);
        hammer.wait_for(40);
    }
    let report = hammer.stop();
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    let expected = (1..=10).map(|edit| format!("Edit {edit} from effe: /\n"));
    for text in expected.chain(["Hello from effe: /\n".to_owned()]) {
        assert!(report.answers.contains_key(&text), "{text:?} is missing: {:?}", report.answers);
    }
    assert_eq!(report.answers.len(), 11, "{:?}", report.answers);
    // The machine may be busy, so one of them may take longer.
    times.sort_unstable();
    assert!(times[times.len() / 2] < SOON, "{times:?}");
    eprintln!("from the end of a build to its answer: {times:?}");
    server.stop();
}

#[test]
fn the_lambdas_of_a_directory_come_go_and_change_each_for_itself() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "all/one.rs"]).run().assert_code(0);
    tool(&scratch).args(["new", "all/deep/two.rs"]).run().assert_code(0);
    let program = env!("CARGO_BIN_EXE_effe-tool");
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" watch all --port 0 >table", program]);
    let mut server = Loader::by(Tool::by(shell, &scratch).into_command()).serve_as_told();
    let two = server.address;
    server.listen();
    let one = server.address;
    let has = |path: &str, address: SocketAddr, generation: u32| {
        let row = [path, &format!("http://{address}"), &generation.to_string()].map(str::to_owned);
        let table = fs::read_to_string(scratch.join("table")).unwrap();
        table.lines().any(|line| line.split_whitespace().eq(&row))
    };
    wait_until("the table", || has("all/deep/two.rs", two, 1) && has("all/one.rs", one, 1));

    let source = fs::read_to_string(scratch.join("all/one.rs")).unwrap();
    scratch.write("all/one.rs", source.replace("\"Hello\"", "\"One\""));
    server.hear("all/one.rs at http://");
    assert_eq!(server.get("/").text(), "One from effe: /\n");

    scratch.write("all/three.rs", &source);
    server.listen();
    assert_eq!(server.get("/").text(), "Hello from effe: /\n");
    let three = server.address;
    fs::remove_file(scratch.join("all/deep/two.rs")).unwrap();
    server.hear("Stopping all/deep/two.rs");
    wait_until("nobody is there", || std::net::TcpStream::connect(two).is_err());
    wait_until("the table", || has("all/three.rs", three, 1) && has("all/one.rs", one, 2));
    server.stop();
    assert!(std::net::TcpStream::connect(one).is_err());
}

#[test]
fn ctrl_c_ends_it_well_and_its_loader_with_it() {
    let scratch = Scratch::new();
    let server = watch(&scratch);
    let address = server.address;
    server.stop_by(Signal::INT);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_loader_does_not_outlive_a_watch_that_is_killed() {
    let scratch = Scratch::new();
    let server = watch(&scratch);
    let loader = children(server.id()).pop().expect("it has a loader");
    assert_eq!(server.get("/").text(), "Hello from effe: /\n");
    server.tell(Signal::KILL);
    wait_until("the loader has ended", || has_ended(loader));
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

/// The children of another process's main thread.
fn children(id: u32) -> Vec<u32> {
    let ids = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    ids.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// Whether a process has ended; it may still be a zombie.
fn has_ended(id: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { return true };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn there_must_be_something_to_watch() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("empty")).unwrap();
    let watch = |args: &[&str]| tool(&scratch).arg("watch").args(args).run();
    watch(&["empty"]).assert_code(1).assert_says(&["empty holds no lambda", "effe-tool new"]);
    watch(&["nowhere"]).assert_code(1).assert_says(&["there is no nowhere"]);
    watch(&["empty", "--", "--port", "1"]).assert_code(2).assert_says(&["before `--`"]);
}
