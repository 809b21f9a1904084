//! Plugins: built once per test process, by cargo and beside the loader under test, and bad ones made from them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The plugin that does what it is told.
pub fn probe() -> PathBuf {
    built().join("libprobe.so")
}

/// The plugin that streams.
pub fn spout() -> PathBuf {
    built().join("libspout.so")
}

/// The example that sends bodies back as they come.
pub fn pipe() -> PathBuf {
    built().join("libpipe.so")
}

/// The example of a stream of events.
pub fn ticker() -> PathBuf {
    built().join("libticker.so")
}

/// The one that waits without a thread.
pub fn async_probe() -> PathBuf {
    built().join("libasync_probe.so")
}

/// The one that ends its answers before Run returns.
pub fn early() -> PathBuf {
    built().join("libearly.so")
}

/// The same, without a thread.
pub fn async_early() -> PathBuf {
    built().join("libasync_early.so")
}

/// The one that takes connections over.
pub fn upgrader() -> PathBuf {
    built().join("libupgrader.so")
}

/// The same, without a thread.
pub fn async_upgrader() -> PathBuf {
    built().join("libasync_upgrader.so")
}

/// An axum Router with axum's own WebSocket.
pub fn axum_upgrader() -> PathBuf {
    built().join("libaxum_upgrader.so")
}

/// One of the examples that `built` names.
pub fn example(name: &str) -> PathBuf {
    built().join(format!("lib{name}.so"))
}

/// The one that says what it knows of its invocation.
#[cfg(feature = "aws")]
pub fn invoked() -> PathBuf {
    built().join("libinvoked.so")
}

/// The one that was written for lambda_runtime.
#[cfg(feature = "aws")]
pub fn handled() -> PathBuf {
    built().join("libhandled.so")
}

/// The plugin that crashes.
pub fn crasher() -> PathBuf {
    built().join("libcrasher.so")
}

/// The plugin that tries what a confined process may not do.
#[cfg(feature = "processes")]
pub fn hostile() -> PathBuf {
    built().join("libhostile.so")
}

/// A root module of the same name with another table.
pub fn other_abi() -> PathBuf {
    built().join("libother_abi.so")
}

/// Where the loader under test was built; plugins of the same profile are built beside it.
pub fn profile_dir() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_effe-loader")).parent().unwrap()
}

/// The directory of this workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Cargo, as it was called for this test.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the cargo that runs the test says about the package under test is not meant for other packages.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// The arguments that make cargo build in the profile of the loader under test.
pub fn profile_args() -> Vec<String> {
    match profile_dir().file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => Vec::new(),
        Some(profile) => vec!["--profile".to_owned(), profile.to_owned()],
    }
}

/// Runs a command that must succeed.
#[track_caller]
pub fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|err| panic!("{command:?}: {err}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
}

/// Compiles C, which stands for all libraries that are no lambda.
#[track_caller]
pub fn c(source: &str, flags: &[&str], to: &Path) -> PathBuf {
    let file = to.with_extension("c");
    fs::write(&file, source).unwrap();
    succeed(Command::new("cc").args(flags).arg("-o").arg(to).arg(&file));
    to.to_owned()
}

/// One of the fixtures in C, compiled once per test process.
pub fn of_c(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
        fs::create_dir_all(&to).unwrap();
        for name in ["probe", "spout", "pipe", "ticker", "breaches", "patient"] {
            let from = workspace().join(format!("effe-loader/tests/fixtures_in_c/{name}.c"));
            // Another test process may have the one open that is there.
            let new = to.join(format!("{name}.{}", std::process::id()));
            succeed(Command::new("cc").args(C_FLAGS).arg(header_flag()).arg("-o").arg(&new).arg(from));
            fs::rename(new, to.join(format!("lib{name}.so"))).unwrap();
        }
        to
    });
    built.join(format!("lib{name}.so"))
}

/// How a lambda in C is compiled.
const C_FLAGS: [&str; 10] = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-function",
    "-fPIC",
    "-fvisibility=hidden",
    "-shared",
];

/// Where `effe.h` is.
pub fn header_flag() -> String {
    format!("-I{}", workspace().join("effe-abi/include").display())
}

/// Replaces each occurrence of some bytes by others of the same length; there must be one.
#[track_caller]
pub fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let mut at = 0;
    let mut n_found = 0;
    while let Some(next) = find(&out[at..], from) {
        out[at + next..][..to.len()].copy_from_slice(to);
        at += next + to.len();
        n_found += 1;
    }
    assert!(n_found > 0, "{} is not in the plugin", from.escape_ascii());
    out
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn built() -> &'static Path {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = profile_dir().parent().unwrap();
        let fixtures = [
            "probe",
            "async_probe",
            "early",
            "async_early",
            "spout",
            "other_abi",
            "crasher",
            "hostile",
            "invoked",
            "handled",
            "upgrader",
            "async_upgrader",
            "axum_upgrader",
        ];
        let examples = [
            "ticker",
            "pipe",
            "shortener",
            "guestbook",
            "webhook",
            "export",
            "grpc",
            "hello",
            "echo",
            "json",
            "chat",
            "http-event",
            "sqs-batch",
        ];
        succeed(
            cargo()
                .args(["build", "--offline", "--quiet", "--lib", "--target-dir"])
                .arg(target)
                .args(profile_args())
                .args(fixtures.iter().chain(&examples).map(|package| format!("--package={package}")))
                .current_dir(workspace()),
        );
    });
    profile_dir()
}
