//! Flags, variables, parameters, and the modes that do not serve.

use std::{fs, net::TcpListener};

use clap_complete::Shell;
use effe_loader::boot::cli::Cli;
use serde_json::{Value, json};

use crate::support::{
    Counts, Loader, Scratch,
    plugins::{probe, workspace},
};

/// What `--help` may take: a page of a terminal that is not small.
const PAGE: (usize, usize) = (40, 100);

fn parameters(loader: Loader) -> Value {
    let server = loader.serve();
    let parameters = serde_json::from_str(server.get("/parameters").text()).unwrap();
    server.stop();
    parameters
}

#[test]
fn info_is_json_alone_on_stdout_and_runs_nothing() {
    let counts = Counts::new();
    for flag in ["--info", "-info"] {
        let done = Loader::of(probe()).counting(&counts).arg(flag).run().assert_code(0);
        assert_eq!(done.stderr, "");
        let info: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!((&info["name"], &info["version"]), (&"probe".into(), &"0.1.0".into()));
        assert_eq!(done.stdout.lines().count(), 1);
    }
    assert!(counts.lines().is_empty());
}

#[test]
fn check_goes_through_the_whole_life_once() {
    let counts = Counts::new();
    let done = Loader::of(probe()).counting(&counts).arg("--check").run().assert_code(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    assert_eq!(counts.lines(), ["init", "start", "context", "stop", "retire"]);
}

#[test]
fn check_says_which_step_failed() {
    for (parameter, expected) in [
        ("fail=init", "its init failed: told to fail in init"),
        ("panic=init", "its init panicked at "),
        ("fail=start", "its start failed: told to fail in start"),
        ("panic=start", "its start panicked at "),
        ("fail=stop", "its stop failed: told to fail in stop"),
        ("panic=stop", "its stop panicked at "),
        ("fail=retire", "its retire failed: told to fail in retire"),
        ("panic=retire", "its retire panicked at "),
    ] {
        let counts = Counts::new();
        let done = Loader::of(probe()).counting(&counts).arg("--check").set(parameter).run().assert_code(1);
        assert!(done.stderr.contains(expected), "{parameter}: {done:#?}");
        assert_eq!((done.stdout.as_str(), counts.of("stop")), ("", counts.of("context")), "{parameter}");
    }
}

#[test]
fn help_fits_one_page_and_help_all_has_every_flag() {
    let help = Loader::bare().arg("--help").env("COLUMNS", "100").run().assert_code(0);
    let size =
        (help.stdout.lines().count(), help.stdout.lines().map(|line| line.chars().count()).max().unwrap());
    assert!(size.0 <= PAGE.0 && size.1 <= PAGE.1, "{size:?}");
    let all = Loader::bare().arg("--help-all").run().assert_code(0);
    for line in effe_loader::boot::cli::markdown().lines().skip(2) {
        let flag = line.split("`--").nth(1).unwrap().split([' ', '`']).next().unwrap();
        assert!(all.stdout.contains(&format!("--{flag}")), "{flag}");
    }
    for flag in ["--plugin", "--port", "--info", "--check", "--help-all"] {
        assert!(help.stdout.contains(flag), "{flag}");
    }
}

#[test]
fn version_names_commit_and_abi() {
    let done = Loader::bare().arg("--version").run().assert_code(0);
    assert!(
        done.stdout.starts_with(concat!("effe-loader ", env!("CARGO_PKG_VERSION"), " (commit ")),
        "{done:?}"
    );
    assert!(done.stdout.contains("ABI 1"), "{done:?}");
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_wrong() {
    let scratch = Scratch::new();
    let list = scratch.write("list.json", "[1]");
    for (args, expected) in [
        (&[][..], "give --plugin FILE"),
        (&["--plugin"], "a value is required for '--plugin <FILE>'"),
        (&["--plugin", "a.so", "--port", "65536"], "65536 is not in 0..=65535"),
        (&["--plugin", "a.so", "--info", "--check"], "cannot be used with"),
        (&["--plugin", "a.so", "--set", "novalue"], "--set novalue: write it as key=value or key=@file"),
        (&["--plugin", "a.so", "--set", "a=@/nonexistent"], "--set a=@/nonexistent: No such file"),
        (&["--plugin", "a.so", "--params", "/nonexistent"], "--params /nonexistent: No such file"),
        (&["--plugin", "a.so", "--params", list.to_str().unwrap()], "--params"),
        (&["--plugin", "a.so", "--workers", "0"], "--workers"),
        (&["--plugin", "a.so", "--body-limit", "2 tons"], "write it as 512, 64KiB, 2MiB or 1GiB"),
        (&["--plugin", "a.so", "--drain-timeout", "soon"], "write it as 500ms, 30s, 5m or 1h"),
        (&["--plugin", "a.so", "--syslog", "sometimes"], "--syslog"),
        (&["--plugin", "a.so", "--log-format", "xml"], "write auto, text or json"),
        (&["--plugin", "a.so", "--prot", "80"], "--port"),
        (&["a.so"], "unexpected argument 'a.so'"),
    ] {
        let done = Loader::bare().args(args).run().assert_code(2);
        assert!(done.stderr.contains(expected), "{args:?}: {done:#?}");
        assert_eq!(done.stdout, "", "{args:?}");
    }
    let done = Loader::bare().args(["--plugin", "a.so"]).env("PORT", "http").run().assert_code(2);
    assert!(done.stderr.contains("the variable PORT is \"http\""), "{done:#?}");
}

#[test]
fn the_port_is_the_flags_then_effe_ports_then_ports() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (flag, effe, plain) = (free(), free(), free());
    let loader = || Loader::of(probe()).args(["--host", "127.0.0.1"]).env("PORT", plain.to_string());
    let both = || loader().env("EFFE_PORT", effe.to_string());
    for (loader, expected) in [
        (both().args(["--port", &flag.to_string()]), flag),
        (both().args(["-port", &flag.to_string()]), flag),
        (both().arg(format!("-port={flag}")), flag),
        (both(), effe),
        (loader(), plain),
    ] {
        let server = loader.serve_as_told();
        assert_eq!((server.address.port(), server.get("/").status), (expected, 200));
        server.stop();
    }
}

#[test]
fn a_port_that_is_taken_is_said_before_init() {
    let counts = Counts::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let args = ["--host", "127.0.0.1", "--port", &address.port().to_string()];
    let done = Loader::of(probe()).counting(&counts).args(args).run().assert_code(1);
    assert!(done.one_line().starts_with(&format!("effe-loader: cannot listen on {address}: ")), "{done:#?}");
    assert!(done.one_line().contains("another process has it: choose another --port"), "{done:#?}");
    assert!(counts.lines().is_empty());
}

#[test]
fn every_flag_is_a_variable_too() {
    let counts = Counts::new();
    let server = Loader::bare()
        .env("EFFE_PLUGIN", probe())
        .env("EFFE_HOST", "127.0.0.1")
        .env("EFFE_PORT", "0")
        .env("EFFE_SYSLOG", "none")
        .env("EFFE_LOG_FORMAT", "text")
        .env("EFFE_WORKERS", "1")
        .env("EFFE_BODY_LIMIT", "4")
        .env("EFFE_SET", format!("a=1\nb=x = y\n{}", counts.parameter()))
        .serve_as_told();
    assert_eq!(server.connect().post("/length", b"12345").status, 413);
    let seen: Value = serde_json::from_str(server.get("/parameters").text()).unwrap();
    assert_eq!((&seen["a"], &seen["b"]), (&json!(1), &json!("x = y")));
    server.stop();
    counts.assert_complete();
    let done = Loader::bare().env("EFFE_PLUGIN", probe()).env("EFFE_INFO", "true").run().assert_code(0);
    assert!(done.stdout.starts_with('{'), "{done:#?}");
}

#[test]
fn parameters_come_from_a_file_and_set_comes_on_top() {
    let scratch = Scratch::new();
    let params = scratch.write("params.json", r#"{"a": "file", "b": {"c": [1, null]}, "d": "file"}"#);
    let secret = scratch.write("secret", "two lines\nand a secret\n");
    let seen = parameters(
        Loader::of(probe())
            .arg("--params")
            .arg(params)
            .set("d=flag")
            .set("e=")
            .set("f=x=y")
            .set("n=7")
            .set(&format!("s=@{}", secret.display())),
    );
    let expected = json!({
        "a": "file", "b": {"c": [1, null]}, "d": "flag", "e": "", "f": "x=y", "n": 7, "s": "two lines\nand a secret",
    });
    assert_eq!(seen, expected);
    assert_eq!(parameters(Loader::of(probe())), json!({}));
}

#[test]
fn the_lambda_knows_where_it_is_served() {
    let server = Loader::of(probe()).serve();
    assert_eq!(server.get("/address").text(), server.address.to_string());
    assert_eq!(server.get("/software").text(), concat!("effe-loader/", env!("CARGO_PKG_VERSION")));
    server.stop();
}

#[cfg(not(feature = "tls"))]
#[test]
fn a_flag_that_needs_another_build_says_which() {
    for flag in ["--tls-cert", "--tls-key"] {
        let done = Loader::of(probe()).args([flag, "a.pem"]).run().assert_code(2);
        let says = "needs a loader built with the feature \"tls\": cargo install effe-loader --features tls";
        assert!(done.stderr.contains(says), "{done:#?}");
    }
}

#[test]
fn the_table_of_flags_is_what_the_loader_takes() {
    let head = "# Flags of effe-loader\n\n\
                Each flag, its environment variable (a flag beats its variable, a variable beats the default), and \
                what it does. Sizes are written as `512`, `64KiB`, `2MiB`, `1GiB`; times as `500ms`, `30s`, `5m`, \
                `1h`. This file is generated: `UPDATE=1 cargo test -p effe-loader --test main flags` writes it.\n\n";
    assert_generated("docs/flags.md", format!("{head}{}", effe_loader::boot::cli::markdown()));
}

#[test]
fn the_packaged_page_and_completions_are_of_the_flags() {
    let command = Cli::described();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).unwrap();
    assert_generated("packaging/man/effe-loader.1", String::from_utf8(page).unwrap());
    for (shell, file) in
        [(Shell::Bash, "effe-loader.bash"), (Shell::Fish, "effe-loader.fish"), (Shell::Zsh, "_effe-loader")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), "effe-loader", &mut script);
        assert_generated(&format!("packaging/completions/{file}"), String::from_utf8(script).unwrap());
    }
}

/// Asserts that a file of the repository is what the program makes. With `UPDATE=1` it is written first.
fn assert_generated(path: &str, expected: String) {
    let file = workspace().join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is not up to date; UPDATE=1 writes it");
}
