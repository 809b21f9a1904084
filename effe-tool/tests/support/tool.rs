//! Runs the tool as a child of the test, with one target directory for everything that it builds.

use std::{
    env,
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::OnceLock,
};

use super::Scratch;

/// The tool, run in a directory.
pub fn tool(directory: &Scratch) -> Tool {
    Tool::by(Command::new(env!("CARGO_BIN_EXE_effe-tool")), directory)
}

/// The directory of this workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The target directory in which the tool was built, and in which the loader is built.
pub fn target() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_effe-tool")).ancestors().nth(2).unwrap()
}

/// The target directory that the tests give to the tool.
pub fn build_directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("build")
}

/// The loader, built from this workspace.
pub fn loader() -> PathBuf {
    static LOADER: OnceLock<PathBuf> = OnceLock::new();
    LOADER.get_or_init(|| build_loader(&[], &target().join("debug"))).clone()
}

/// A release build of the loader.
pub fn release_loader() -> PathBuf {
    static LOADER: OnceLock<PathBuf> = OnceLock::new();
    // In the target directory of scripts/test-readme, which may have built it before.
    LOADER.get_or_init(|| build_loader(&["--release"], &readme().join("release"))).clone()
}

/// The target directory of scripts/test-readme.
fn readme() -> PathBuf {
    target().join("readme")
}

fn build_loader(flags: &[&str], directory: &Path) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--quiet", "--package", "effe-loader", "--bin", "effe-loader"]);
    cargo.arg("--target-dir").arg(directory.parent().unwrap()).args(flags).current_dir(workspace());
    assert!(cargo.status().unwrap().success(), "the loader can be built");
    directory.join("effe-loader")
}

/// A command line, without the variables of the test's environment that would change what it does.
pub struct Tool {
    command: Command,
    input: Vec<u8>,
}

impl Tool {
    /// Another program, in the same environment.
    pub fn by(mut command: Command, directory: &Scratch) -> Tool {
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("EFFE_") || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_TERM") {
                command.env_remove(&*name);
            }
        }
        command
            .current_dir(directory.path())
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_TARGET_DIR", build_directory())
            // These build in a tenth of the time. scripts/test-readme checks the default profile.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("EFFE_LOADER", loader())
            .env("NO_COLOR", "1")
            .env("STORAGE_DRIVER", "vfs");
        Tool { command, input: Vec::new() }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Tool {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Tool {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Tool {
        self.command.env(name, value);
        self
    }

    /// Removes a variable of the environment.
    pub fn without(mut self, name: &str) -> Tool {
        self.command.env_remove(name);
        self
    }

    /// Builds with the default profile, as users do, without the settings that save time.
    pub fn optimized(self) -> Tool {
        let saving = [
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_PROFILE_RELEASE_CODEGEN_UNITS",
            "CARGO_PROFILE_RELEASE_OPT_LEVEL",
        ];
        saving.into_iter().fold(self, Tool::without)
    }

    /// Builds small, as far as that needs no link-time optimization.
    pub fn small(self) -> Tool {
        self.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
    }

    /// Sets the standard input.
    pub fn input(mut self, input: impl AsRef<[u8]>) -> Tool {
        self.input = input.as_ref().to_vec();
        self
    }

    /// The command itself.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(mut self) -> Done {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("it can be started");
        let _ = child.stdin.take().unwrap().write_all(&self.input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Done {
            status: output.status,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            bytes: output.stdout,
        }
    }
}

/// A tool that has ended.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its stdout, as text.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
    /// All of its stdout.
    pub bytes: Vec<u8>,
}

impl Done {
    /// Asserts the exit code.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Done {
        let Done { status, stdout, stderr, .. } = &self;
        assert_eq!(status.code(), Some(code), "stdout:\n{stdout}\nstderr:\n{stderr}");
        self
    }

    /// Asserts that stderr contains all of these.
    #[track_caller]
    pub fn assert_says(self, parts: &[&str]) -> Done {
        for part in parts {
            assert!(self.stderr.contains(part), "it does not say {part:?}:\n{}", self.stderr);
        }
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|err| panic!("{err}: {}", self.stdout))
    }
}
