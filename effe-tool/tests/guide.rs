//! `docs/effe-tool.md`: every command in it is run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    Loader, Scratch, Server,
    tool::{Tool, loader, target, workspace},
};

/// The commands of the blocks that are marked as `sh`, in their order.
fn commands(text: &str) -> Vec<&str> {
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).map(|line| line.split("  #").next().unwrap().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn every_command_of_the_guide_works() {
    let text = fs::read_to_string(workspace().join("docs/effe-tool.md")).unwrap();
    let scratch = Scratch::new();
    let bin = Path::new(env!("CARGO_TARGET_TMPDIR")).join("installed/bin");
    // What `cargo install` of this test has put there, and nothing that lies elsewhere.
    let path = env::join_paths(
        [bin.clone(), PathBuf::from(env::var_os("PATH").unwrap())]
            .into_iter()
            .flat_map(|paths| env::split_paths(&paths).collect::<Vec<_>>()),
    )
    .unwrap();
    let shell = |line: &str, directory: &Scratch| {
        let mut command = Command::new("sh");
        command.args(["-euc", line]).env("PATH", &path);
        Tool::by(command, directory).env("EFFE_LOADER", loader())
    };
    let mut server: Option<Server> = None;
    let commands = commands(&text);
    assert!(commands.len() > 10, "{commands:?}");
    for line in commands {
        if let Some(package) = line.strip_prefix("cargo install --locked --path ") {
            // In the profile and the directory in which the workspace is tested, so that nothing is built twice.
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args([
                "install",
                "--locked",
                "--quiet",
                "--offline",
                "--debug",
                "--force",
                "--path",
                package,
            ]);
            cargo.arg("--root").arg(bin.parent().unwrap()).arg("--target-dir").arg(target());
            assert!(cargo.current_dir(workspace()).status().unwrap().success(), "{line}");
        } else if line.starts_with("effe-tool run ") {
            // On any free port: 8080 may be taken where this test runs.
            let command = shell(&format!("exec {line}"), &scratch).env("EFFE_PORT", "0").into_command();
            server = Some(Loader::by(command).serve_as_told());
        } else {
            let address =
                server.as_ref().map_or("localhost:8080".to_owned(), |server| server.address.to_string());
            shell(&line.replace("localhost:8080", &address), &scratch).run().assert_code(0);
        }
    }
    server.expect("the guide serves").stop();
}
