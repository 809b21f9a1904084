//! Plugins from sources that are kept as they were on the day of a freeze load and run in this loader: one in Rust, on
//! the wire itself, and others in C, C++ and Zig, on `effe.h` of that day. What the one answers, all do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::support::{
    Loader,
    plugins::{cargo, profile_dir, succeed, workspace},
};

fn in_rust() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let target = profile_dir().parent().unwrap().join("frozen");
        let manifest = workspace().join("tests/frozen/Cargo.toml");
        succeed(
            cargo()
                .args(["build", "--locked", "--quiet", "--package", "frozen", "--manifest-path"])
                .arg(manifest)
                .arg("--target-dir")
                .arg(&target),
        );
        target.join("debug/libfrozen.so")
    });
    built.clone()
}

/// Compiles one of the other sources. `None` if there is no such compiler, which is said.
fn compiled(compiler: &[&str], source: &str, flags: &[&str], out_flag: &str) -> Option<PathBuf> {
    let mut asked = Command::new(compiler[0]);
    asked.args(&compiler[1..]).arg(if source.ends_with(".zig") { "version" } else { "--version" });
    if !asked.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("skipped: {} is not installed", compiler.join(" "));
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("frozen");
    fs::create_dir_all(&directory).unwrap();
    let out = directory.join(format!("{}-{source}.so", compiler[0].replace('/', "-")));
    let mut command = Command::new(compiler[0]);
    command.args(&compiler[1..]).args(flags).arg(format!("{out_flag}{}", out.display()));
    succeed(command.arg(workspace().join("tests/frozen/foreign").join(source)));
    Some(out)
}

/// The plugin does all that one could do on the day of the freeze.
fn is_served(plugin: &Path) {
    let info = Loader::of(plugin).arg("--info").run().assert_code(0);
    assert!(info.stdout.contains("\"frozen\""), "{}", info.stdout);
    let server = Loader::of(plugin).serve();
    let mut connection = server.connect();
    connection.send("POST /a?b HTTP/1.1\r\nHost: test\r\nx-ask: yes\r\nContent-Length: 4\r\n\r\nbody");
    let reply = connection.reply();
    assert_eq!((reply.status, reply.text()), (202, "1 POST /a?b 2 0:yes 3 0 true body!"));
    assert_eq!(reply.text_header("x-frozen"), Some("1"));
    assert_eq!(connection.get("/fail").status, 500);
    let line = server.wait_for_line("run fails");
    assert!(line.contains(" lambda: warning: "), "{line}");
    assert_eq!(connection.get("/again").text(), "1 GET /again 6 4: 1 0 true !");
    let lines = server.stop().join("\n");
    assert!(lines.contains("retire: 1 started, 1 stopped"), "{lines}");
    // Its failed Init keeps this loader from serving.
    let done = Loader::of(plugin).set("fail=1").run().assert_code(1);
    assert!(done.stderr.contains("told to fail"), "{}", done.stderr);
}

#[test]
fn a_plugin_of_the_day_of_the_freeze_is_served() {
    is_served(&in_rust());
}

#[test]
fn plugins_in_c_and_cpp_of_the_day_of_the_freeze_are_served() {
    let flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"];
    for compiler in ["gcc", "clang"] {
        compiled(&[compiler], "plugin.c", &flags, "-o").iter().for_each(|plugin| is_served(plugin));
    }
    for compiler in ["g++", "clang++"] {
        let flags = [&["-std=c++17"], &flags[..]].concat();
        compiled(&[compiler], "plugin.cc", &flags, "-o").iter().for_each(|plugin| is_served(plugin));
    }
}

#[test]
fn a_plugin_in_zig_of_the_day_of_the_freeze_is_served() {
    let flags = ["build-lib", "-dynamic", "-fPIC", "-lc", "-O", "ReleaseSafe", "-fstrip", "--cache-dir"];
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zig");
    let flags = [&flags[..], &[cache.to_str().unwrap()]].concat();
    // The wheel of PyPI has the other name.
    let mut compilers = [&["zig"][..], &["python-zig"]].into_iter();
    let plugin = compilers.find_map(|compiler| compiled(compiler, "plugin.zig", &flags, "-femit-bin="));
    plugin.iter().for_each(|plugin| is_served(plugin));
}
