//! Tests of wrong usage: exit code 2, nothing on stdout, and a message that says what to write instead.

use std::fs;

use clap::CommandFactory;
use effe_tool::cli::Cli;

use crate::support::{Scratch, tool, tool::workspace};

#[test]
fn wrong_usage_is_2() {
    let scratch = Scratch::new();
    scratch.write("a.rs", "// effe_abi");
    scratch.write("b.rs", "// effe_abi");
    let cases: [(&[&str], &str); 9] = [
        (&[], "Usage: effe-tool"),
        (&["compil"], "'compile'"),
        (&["compile"], "<PATH>"),
        (&["compile", "a.rs", "--static"], "--exe"),
        (&["compile", "a.rs", "b.rs", "--out", "x"], "--out x names one lambda"),
        (&["compile", "a.rs", "--out", "../x"], "--out ../x"),
        (&["compile", "a.rs", "--release", "--debug"], "cannot be used with"),
        (&["new", "x", "--template", "jsn"], "'json'"),
        (&["docker", "a.so", "--oci", "x", "--base", "y"], "cannot be used with"),
    ];
    for (args, says) in cases {
        let done = tool(&scratch).args(args).run().assert_code(2).assert_says(&[says]);
        assert_eq!(done.stdout, "", "{args:?}");
    }
}

#[test]
fn help_and_version_are_results() {
    let scratch = Scratch::new();
    let done = tool(&scratch).arg("--version").run().assert_code(0);
    assert_eq!(done.stdout, concat!("effe-tool ", env!("CARGO_PKG_VERSION"), "\n"));
    let done = tool(&scratch).arg("--help").run().assert_code(0);
    for command in ["new", "compile", "run", "invoke", "inspect", "docker"] {
        assert!(done.stdout.contains(&format!("\n  {command} ")), "{command}:\n{}", done.stdout);
    }
}

#[test]
fn colours_are_for_terminals_and_those_who_ask() {
    let scratch = Scratch::new();
    let stderr = |args: &[&str]| tool(&scratch).args(args).without("NO_COLOR").run().stderr;
    assert!(!stderr(&["compile", "nowhere"]).contains('\x1b'));
    assert!(stderr(&["compile", "nowhere", "--color", "always"]).contains("\x1b["));
    assert!(!stderr(&["compile", "nowhere", "--color", "never"]).contains('\x1b'));
}

#[test]
fn the_packaged_pages_are_of_the_commands() {
    let mut command = Cli::command();
    command.build();
    let pages = [(String::from("effe-tool"), command.clone())].into_iter().chain(
        command.get_subcommands().filter(|command| command.get_name() != "help").map(|command| {
            let name = format!("effe-tool-{}", command.get_name());
            (name.clone(), command.clone().display_name(name))
        }),
    );
    for (name, command) in pages {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).unwrap();
        let file = workspace().join(format!("packaging/man/{name}.1"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &page).unwrap();
        }
        let found = fs::read(&file).unwrap_or_default();
        assert!(found == page, "packaging/man/{name}.1 is not up to date; UPDATE=1 writes it");
    }
}
