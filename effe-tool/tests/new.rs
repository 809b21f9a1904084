//! Tests of `new` and `run`: each template compiles, its own tests pass, and it serves.

use std::{fs, path::Path, process::Command};

use crate::support::{
    Loader, Scratch, tool,
    tool::{Tool, build_directory, workspace},
};

/// Writes a template, runs its own tests, compiles it and calls it.
fn check(template: &str, invoke: &[&str], expected: &str) {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "lambda", "--template", template]).run().assert_code(0).assert_says(&[
        "Created lambda `lambda` in lambda",
        "effe-tool run lambda",
        "effe-tool invoke lambda",
    ]);
    Tool::by(Command::new(env!("CARGO")), &scratch)
        .args(["test", "--quiet", "--release", "--manifest-path", "lambda/Cargo.toml", "--target-dir"])
        // In the tool's own target directory, so that the dependencies are built once.
        .arg(build_directory().join("effe"))
        .run()
        .assert_code(0);
    tool(&scratch).args(["compile", "lambda"]).run().assert_code(0);
    let done = tool(&scratch).args(["invoke", "out/lambda_v0.1.0.so"]).args(invoke).run().assert_code(0);
    assert_eq!(done.stdout, expected);

    tool(&scratch).args(["new", "single.rs", "--template", template]).run().assert_code(0);
    let done = tool(&scratch).args(["invoke", "single.rs"]).args(invoke).run().assert_code(0);
    assert_eq!(done.stdout, expected);
}

#[test]
fn hello_greets() {
    check("hello", &["--path", "/world", "--", "--set", "greeting=Ciao"], "Ciao from effe: /world\n");
}

#[test]
fn a_debug_build_and_the_tests_share_their_dependencies_in_one_directory() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "lambda"]).run().assert_code(0);
    tool(&scratch).args(["compile", "--debug", "lambda"]).run().assert_code(0);
    let done = Tool::by(Command::new(env!("CARGO")), &scratch)
        .args(["test", "--lib", "--manifest-path", "lambda/Cargo.toml", "--target-dir"])
        .arg(build_directory().join("effe"))
        .run()
        .assert_code(0);
    let compiled = done.stderr.lines().filter(|line| line.trim_start().starts_with("Compiling "));
    assert!(compiled.clone().all(|line| line.contains("Compiling lambda ")), "{}", done.stderr);
    assert_eq!(compiled.count(), 1);
}

#[test]
fn json_answers_an_order() {
    check("json", &["--data", r#"{"item":"tea","count":3}"#], r#"{"item":"tea","cents":300}"#);
}

#[test]
fn database_keeps_notes() {
    let scratch = Scratch::new();
    let data = format!("data={}", scratch.join("below/notes").display());
    check("database", &["--data", "first", "--", "--set", &data], "noted\n");
    assert!(scratch.join("below/notes/notes.sqlite").is_file());
}

#[test]
fn axum_routes() {
    check("axum", &["--path", "/world", "--", "--set", "greeting=Ciao"], "Ciao, world\n");
}

#[test]
fn websocket_tells_a_client_of_http_what_to_upgrade_to() {
    check("websocket", &["--path", "/"], "this is for WebSocket\n");
}

#[test]
fn run_compiles_and_serves_on_loopback() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "hello"]).run().assert_code(0);
    let command = tool(&scratch).args(["run", "hello", "--", "--port", "0"]).into_command();
    let server = Loader::by(command).serve_as_told();
    assert!(server.address.ip().is_loopback());
    assert_eq!(server.get("/world").text(), "Hello from effe: /world\n");
    let lines = server.stop();
    assert!(lines.iter().any(|line| line.contains("1 Contexts were started and stopped")), "{lines:#?}");
}

#[test]
fn the_guide_lists_every_template() {
    let scratch = Scratch::new();
    let guide = fs::read_to_string(workspace().join("docs/effe-tool.md")).unwrap();
    let mut listed: Vec<_> = guide
        .lines()
        .skip_while(|line| !line.starts_with("| template |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    listed.sort_unstable();
    let templates = fs::read_dir(workspace().join("effe-tool/templates")).unwrap();
    let templates = templates.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut templates: Vec<_> = templates.filter(|name| name != "systemd").collect();
    templates.sort_unstable();
    assert_eq!(listed, templates);
    let help = tool(&scratch).args(["new", "--help"]).run().assert_code(0).stdout;
    assert!(templates.iter().all(|template| help.contains(template)), "{help}");
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let scratch = Scratch::new();
    scratch.write("hello/keep", "");
    scratch.write("a.rs", "keep");
    for name in ["hello", "a.rs"] {
        tool(&scratch).args(["new", name]).run().assert_code(1).assert_says(&[name, "is there already"]);
    }
    assert!(!scratch.join("hello/Cargo.toml").exists());
    assert_eq!(fs::read_to_string(scratch.join("a.rs")).unwrap(), "keep");
}

#[test]
fn names_that_are_no_crates_are_refused() {
    let scratch = Scratch::new();
    for name in ["match", "1st", "a b", "serde", "axum", "rusqlite"] {
        tool(&scratch).args(["new", name]).run().assert_code(2).assert_says(&[name, "can't be the name"]);
        assert!(!scratch.join(name).exists());
    }
}

#[test]
fn the_effe_abi_can_be_chosen() {
    let scratch = Scratch::new();
    let manifest = |name: &str| fs::read_to_string(scratch.join(name).join("Cargo.toml")).unwrap();
    tool(&scratch).args(["new", "a", "--effe-abi", "1.2"]).run().assert_code(0);
    assert!(manifest("a").contains("effe-abi = \"1.2\""));
    tool(&scratch).args(["new", "b", "--effe-abi"]).arg(workspace().join("effe-abi")).run().assert_code(0);
    assert!(manifest("b").contains("effe-abi = { path = "), "{}", manifest("b"));
    tool(&scratch).args(["new", "c", "--effe-abi", "nowhere"]).run().assert_code(1).assert_says(&["nowhere"]);
    assert!(!scratch.join("c").exists());
}

#[test]
fn below_a_workspace_that_does_not_list_it_a_lambda_compiles_all_the_same() {
    let scratch = Scratch::new();
    scratch.write("Cargo.toml", "[workspace]\nresolver = \"3\"\n");
    tool(&scratch).args(["new", "hello"]).run().assert_code(0).assert_says(&["[workspace] of its own"]);
    tool(&scratch).args(["compile", "hello"]).run().assert_code(0);
}

#[test]
fn the_hello_template_is_plugin_template() {
    let read =
        |path: &Path| fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let pairs = [("Cargo.toml", "Cargo.toml.in"), (".gitignore", "gitignore"), ("src/lib.rs", "lib.rs")];
    for (theirs, ours) in pairs {
        let theirs = read(&workspace().join("plugin-template").join(theirs));
        let ours = read(&workspace().join("effe-tool/templates/hello").join(ours));
        assert!(theirs == ours, "plugin-template and effe-tool/templates/hello differ");
    }
}
