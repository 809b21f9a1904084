//! Tests of `watch`: new builds are served, broken ones are not, and no request is lost.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::mpsc::{self, TryRecvError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Hammer, Loader, Scratch, Server, tool, tool::Tool, wait_until};

/// How soon after a build the new generation must answer.
const SOON: Duration = Duration::from_secs(2);

/// Starts `watch` with a lambda `hello`, on a free port.
fn watch(scratch: &Scratch) -> Server {
    tool(scratch).args(["new", "hello"]).run().assert_code(0);
    let command = tool(scratch).args(["watch", "hello", "--port", "0"]).into_command();
    Loader::by(command).serve_as_told()
}

/// The same for a lambda that is there, with other flags.
fn watch_with(scratch: &Scratch, flags: &[&str]) -> Server {
    let command = tool(scratch).args(["watch", "hello", "--port", "0"]).args(flags).into_command();
    Loader::by(command).serve_as_told()
}

/// Makes a lambda `hello`, and adds to its manifest.
fn new_hello(scratch: &Scratch, manifest: &str) {
    tool(scratch).args(["new", "hello"]).run().assert_code(0);
    append(scratch, "hello/Cargo.toml", manifest);
}

fn append(scratch: &Scratch, file: &str, text: &str) {
    let before = fs::read_to_string(scratch.join(file)).unwrap();
    scratch.write(file, before + text);
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
    server.hear("Stopping all/deep/two.rs, which is gone");
    wait_until("nobody is there", || std::net::TcpStream::connect(two).is_err());
    wait_until("the table", || has("all/three.rs", three, 1) && has("all/one.rs", one, 2));
    server.stop();
    assert!(std::net::TcpStream::connect(one).is_err());
}

/// A registry that lists a crate which nobody has fetched: only Windows needs it.
fn need_what_is_not_here(scratch: &Scratch) {
    let index = "https://registry.invalid/index";
    let registry = scratch.join("registry");
    scratch.write(
        ".cargo/config.toml",
        format!(
            "[registries.other]\nindex = \"{index}\"\n\
             [source.other]\nregistry = \"{index}\"\nreplace-with = \"here\"\n\
             [source.here]\nlocal-registry = {registry:?}\n"
        ),
    );
    let hash = "0".repeat(64);
    scratch.write(
        "registry/index/ab/se/absent",
        format!(
            "{{\"name\":\"absent\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{hash}\",\"features\":{{}},\
             \"yanked\":false}}\n"
        ),
    );
    append(
        scratch,
        "hello/Cargo.toml",
        "[target.'cfg(windows)'.dependencies]\nabsent = { version = \"1\", registry = \"other\" }\n",
    );
}

/// A lambda `hello` whose greeting comes from a crate `shared` beside it, which has it from a file beside both.
fn share_a_greeting(scratch: &Scratch) {
    new_hello(scratch, "\n[dependencies.shared]\npath = \"../shared\"\n");
    scratch.write("shared/Cargo.toml", "[package]\nname = \"shared\"\nedition = \"2024\"\n[workspace]\n");
    scratch.write("shared/src/lib.rs", "pub const GREETING: &str = include_str!(\"../../greeting\");");
    scratch.write("greeting", "Hi");
    let text = include_str!("../templates/hello/lib.rs");
    scratch.write("hello/src/lib.rs", text.replace("unwrap_or(\"Hello\")", "unwrap_or(shared::GREETING)"));
}

#[test]
fn what_a_lambda_is_built_from_elsewhere_is_watched() {
    let scratch = Scratch::new();
    share_a_greeting(&scratch);
    need_what_is_not_here(&scratch);
    let server = watch_with(&scratch, &[]);
    assert_eq!(server.get("/").text(), "Hi from effe: /\n");
    scratch.write("greeting", "Salve");
    server.hear("generation 2");
    assert_eq!(server.get("/").text(), "Salve from effe: /\n");
    scratch.write("shared/src/lib.rs", "pub const GREETING: &str = \"Ave\";");
    server.hear("generation 3");
    assert_eq!(server.get("/").text(), "Ave from effe: /\n");
    server.stop();
}

#[test]
fn a_dependency_that_keeps_a_lambda_from_its_first_build_is_watched() {
    let scratch = Scratch::new();
    share_a_greeting(&scratch);
    scratch.write("shared/src/lib.rs", "nonsense");
    let command = tool(&scratch).args(["watch", "hello", "--port", "0"]).into_command();
    let mut server = Loader::by(command).start(SocketAddr::from(([127, 0, 0, 1], 0)));
    server.hear("cargo could not compile it; it is tried again after the next change");
    scratch.write("shared/src/lib.rs", "pub const GREETING: &str = \"Ave\";");
    server.listen();
    assert_eq!(server.get("/").text(), "Ave from effe: /\n");
    server.stop();
}

#[test]
fn what_can_not_be_watched_is_said() {
    let scratch = Scratch::new();
    share_a_greeting(&scratch);
    // A cargo that says nothing about the shared crate.
    let cargo = format!(
        "#!/bin/sh\ncase \"$*\" in metadata*shared/Cargo.toml*) echo 'error: no idea' >&2; exit 1;; esac\n\
         exec {} \"$@\"\n",
        env!("CARGO")
    );
    scratch.write("cargo", cargo);
    fs::set_permissions(scratch.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    let command = tool(&scratch).args(["watch", "hello", "--port", "0"]);
    let command = command.env("CARGO", scratch.join("cargo")).into_command();
    let server = Loader::by(command).start(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (line, _) = server.wait_for_line(&["warning:"]);
    assert!(line.contains("shared/Cargo.toml depends on is not watched: no idea"), "{line}");
    server.hear("generation 1");
    server.stop();
}

#[test]
fn a_file_that_changes_all_the_time_neither_starts_builds_nor_holds_them_up() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "hello"]).run().assert_code(0);
    scratch.write("hello/.gitignore", "/target\nignored.log\n");
    let server = watch_with(&scratch, &[]);
    let (stop, stopped) = mpsc::channel::<()>();
    let logs = ["ignored.log", "app.log"].map(|name| scratch.join("hello").join(name));
    let writer = thread::spawn(move || {
        let mut logs = logs.map(|path| fs::File::create(path).unwrap());
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            logs.iter_mut().for_each(|log| log.write_all(b"a line\n").unwrap());
            // Often enough for a wait of 100 ms.
            thread::sleep(Duration::from_millis(5));
        }
    });
    for (word, generation) in [("Salve", "generation 2"), ("Ave", "generation 3")] {
        greet_with(&scratch, word);
        // No other build comes between.
        for part in ["Finished", generation] {
            let (line, _) = server.wait_for_line(&["Finished", "generation"]);
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(server.get("/").text(), format!("{word} from effe: /\n"));
    }
    drop(stop);
    writer.join().unwrap();
    let said = server.stop();
    assert!(!said.iter().any(|line| line.contains("Finished")), "{said:#?}");
}

#[test]
fn a_lambda_that_goes_and_comes_back_is_served_on_its_own_port() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "all/one.rs"]).run().assert_code(0);
    tool(&scratch).args(["new", "all/two"]).run().assert_code(0);
    let command = tool(&scratch).args(["watch", "all", "--port", "0"]).into_command();
    let mut server = Loader::by(command).serve_as_told();
    let one = server.address;
    server.listen();
    let two = server.address;
    for (path, address) in [("all/one.rs", one), ("all/two", two), ("all/two", two)] {
        let elsewhere = scratch.join("elsewhere");
        fs::rename(scratch.join(path), &elsewhere).unwrap();
        server.hear(&format!("Stopping {path}, which is gone"));
        wait_until("nobody is there", || TcpStream::connect(address).is_err());
        wait_until("its loader is reaped", || children(server.id()).len() == 1);
        fs::rename(&elsewhere, scratch.join(path)).unwrap();
        server.listen();
        assert_eq!(server.address, address);
        assert_eq!(server.get("/").text(), "Hello from effe: /\n");
    }
    // All of it.
    fs::rename(scratch.join("all"), scratch.join("elsewhere")).unwrap();
    server.hear("Stopping");
    server.hear("Stopping");
    wait_until("the loaders are reaped", || children(server.id()).is_empty());
    fs::rename(scratch.join("elsewhere"), scratch.join("all")).unwrap();
    server.listen();
    server.listen();
    for address in [one, two] {
        server.address = address;
        assert_eq!(server.get("/").text(), "Hello from effe: /\n");
    }
    server.stop();
}

#[test]
fn a_crate_that_is_replaced_goes_on_and_one_that_is_gone_comes_back() {
    let scratch = Scratch::new();
    let mut server = watch(&scratch);
    let address = server.address;
    let text = fs::read_to_string(scratch.join("hello/src/lib.rs")).unwrap();
    let manifest = fs::read_to_string(scratch.join("hello/Cargo.toml")).unwrap();
    let write = |word: &str| {
        scratch.write("hello/Cargo.toml", &manifest);
        scratch.write("hello/src/lib.rs", text.replace("\"Hello\"", &format!("{word:?}")));
    };
    fs::remove_dir_all(scratch.join("hello")).unwrap();
    write("Salve");
    server.hear("generation 2");
    assert_eq!(server.get("/").text(), "Salve from effe: /\n");
    // git leaves what it doesn't know.
    scratch.write("hello/notes", "");
    fs::remove_dir_all(scratch.join("hello/src")).unwrap();
    fs::remove_file(scratch.join("hello/Cargo.toml")).unwrap();
    server.hear("Stopping hello, which is gone");
    wait_until("its loader is reaped", || children(server.id()).is_empty());
    write("Ave");
    server.listen();
    assert_eq!(server.address, address);
    assert_eq!(server.get("/").text(), "Ave from effe: /\n");
    server.stop();
}

#[test]
fn a_renamed_package_is_served() {
    let scratch = Scratch::new();
    let server = watch(&scratch);
    let manifest = fs::read_to_string(scratch.join("hello/Cargo.toml")).unwrap();
    scratch.write("hello/Cargo.toml", manifest.replace("name = \"hello\"", "name = \"renamed\""));
    server.hear("generation 2");
    greet_with(&scratch, "Salve");
    server.hear("generation 3");
    assert_eq!(server.get("/").text(), "Salve from effe: /\n");
    server.stop();
}

#[test]
fn two_watches_of_one_crate_serve_what_each_was_told() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "hello"]).run().assert_code(0);
    let one = watch_with(&scratch, &["--", "--set", "greeting=One"]);
    let two = watch_with(&scratch, &["--", "--set", "greeting=Two"]);
    let text = include_str!("../templates/hello/lib.rs");
    for (edit, generation) in [("my effe", "generation 2"), ("our effe", "generation 3")] {
        scratch.write("hello/src/lib.rs", text.replace("from effe", &format!("from {edit}")));
        one.hear(generation);
        two.hear(generation);
        assert_eq!(one.get("/").text(), format!("One from {edit}: /\n"));
        assert_eq!(two.get("/").text(), format!("Two from {edit}: /\n"));
    }
    one.stop();
    two.stop();
}

#[test]
fn a_build_script_that_writes_beside_the_sources_ends() {
    let scratch = Scratch::new();
    new_hello(&scratch, "");
    // Another text each time, and no word to cargo about what it depends on.
    scratch.write(
        "hello/build.rs",
        "fn main() {\n    let now = std::time::SystemTime::now();\n    \
         std::fs::write(\"src/made.rs\", format!(\"pub const MADE: &str = {:?};\", format!(\"{now:?}\"))).unwrap();\n}\n",
    );
    append(&scratch, "hello/src/lib.rs", "\nmod made;\npub use made::MADE;\n");
    let server = watch_with(&scratch, &[]);
    server.hear("each build changes");
    let before = fs::read_to_string(scratch.join("hello/src/lib.rs")).unwrap();
    scratch.write("hello/src/lib.rs", before.replace("\"Hello\"", "\"Salve\""));
    server.hear("Finished");
    server.hear("generation");
    assert_eq!(server.get("/").text(), "Salve from effe: /\n");
    let said = server.stop();
    assert!(!said.iter().any(|line| line.contains("Finished")), "{said:#?}");
}

#[test]
fn a_loader_that_ends_is_started_again_once() {
    let scratch = Scratch::new();
    let mut server = watch(&scratch);
    let address = server.address;
    let kill = |server: &Server| {
        let loader = children(server.id()).pop().expect("it has a loader");
        kill_process(Pid::from_raw(loader.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    };
    kill(&server);
    server.hear("hello: its loader has ended (signal: 9 (SIGKILL)); it is started again");
    server.listen();
    assert_eq!(server.address, address);
    assert_eq!(server.get("/").text(), "Hello from effe: /\n");
    kill(&server);
    server.hear("it is started again after the next change");
    wait_until("it is reaped", || children(server.id()).is_empty());
    greet_with(&scratch, "Salve");
    server.listen();
    assert_eq!(server.address, address);
    assert_eq!(server.get("/").text(), "Salve from effe: /\n");
    server.stop();
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
    // Its first thread may end a moment before the others, which have its sockets.
    wait_until("nobody listens", || std::net::TcpStream::connect(server.address).is_err());
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
