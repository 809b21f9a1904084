//! Runs every command in `docs/effe-tool.md` and in `docs/other-languages.md`.

use std::{env, fs, path::PathBuf, process::Command};

use crate::support::{
    Loader, Scratch, Server,
    tool::{Tool, loader, workspace},
};

/// The commands in the blocks marked `sh`, in order.
fn commands(text: &str) -> Vec<&str> {
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).map(|line| line.split("  #").next().unwrap().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The programs that `cargo install` would install, as they were built for the tests.
fn programs(package: &str) -> Vec<PathBuf> {
    match package {
        "effe-loader" => vec![loader()],
        "effe-tool" => vec![env!("CARGO_BIN_EXE_effe-tool").into(), env!("CARGO_BIN_EXE_cargo-effe").into()],
        _ => panic!("{package} is no program"),
    }
}

/// Puts them where they come first in `PATH`.
fn install(package: &str, scratch: &Scratch) {
    for program in programs(package) {
        let name = program.file_name().unwrap();
        fs::copy(&program, scratch.join("bin").join(name)).unwrap();
    }
}

#[test]
fn every_command_of_the_guide_works() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("bin")).unwrap();
    follow("docs/effe-tool.md", &scratch).expect("the guide serves").stop();
}

#[test]
fn every_command_of_the_guide_to_other_languages_works() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("bin")).unwrap();
    for package in ["effe-loader", "effe-tool"] {
        install(package, &scratch);
    }
    assert!(follow("docs/other-languages.md", &scratch).is_none());
}

/// Runs the commands of a document. Returns what it serves.
fn follow(document: &str, scratch: &Scratch) -> Option<Server> {
    let text = fs::read_to_string(workspace().join(document)).unwrap();
    // The installed programs come first.
    let elsewhere = env::var_os("PATH").unwrap();
    let path =
        env::join_paths([scratch.join("bin")].into_iter().chain(env::split_paths(&elsewhere))).unwrap();
    let shell = |line: &str, directory: &Scratch| {
        let mut command = Command::new("sh");
        command.args(["-euc", line]).env("PATH", &path);
        Tool::by(command, directory).env("EFFE_LOADER", loader())
    };
    let mut server: Option<Server> = None;
    let commands = commands(&text);
    assert!(commands.len() > 7, "{commands:?}");
    for line in commands {
        if let Some(package) = line.strip_prefix("cargo install --locked --path ") {
            // scripts/test-readme runs `cargo install` itself; a second build would take minutes.
            install(package, scratch);
        } else if line.starts_with("effe-tool run ") {
            // On any free port, because 8080 may be taken here.
            let command = shell(&format!("exec {line}"), scratch).env("EFFE_PORT", "0").into_command();
            server = Some(Loader::by(command).serve_as_told());
        } else {
            let address =
                server.as_ref().map_or("localhost:8080".to_owned(), |server| server.address.to_string());
            shell(&line.replace("localhost:8080", &address), scratch).run().assert_code(0);
        }
    }
    server
}
