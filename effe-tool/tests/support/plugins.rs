//! What the loader's tests call a plugin; here it is a program.

use std::{path::PathBuf, sync::OnceLock, thread};

use super::{
    Scratch,
    tool::{tool, workspace},
};

/// The lambda that does what it is told, as a program: static in the tests that are to see that one.
pub fn probe() -> PathBuf {
    static LINKED: OnceLock<PathBuf> = OnceLock::new();
    static STATIC: OnceLock<PathBuf> = OnceLock::new();
    match thread::current().name().is_some_and(|name| name.starts_with("static_lifecycle")) {
        true => STATIC.get_or_init(|| compile(&["--static", "--release"])).clone(),
        false => LINKED.get_or_init(|| compile(&["--debug"])).clone(),
    }
}

/// The loader's fixture is a cdylib alone; here its source is a library that a program can link, too.
fn compile(flags: &[&str]) -> PathBuf {
    let scratch = Scratch::new();
    let source = workspace().join("effe-loader/tests/fixtures/probe/src/lib.rs");
    let manifest = format!(
        "[package]\nname = \"probe\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n\
         [lib]\npath = {source:?}\ncrate-type = [\"cdylib\", \"rlib\"]\n\
         [dependencies]\nlog = \"0.4\"\neffe-abi = {{ path = {:?}, default-features = false }}\n",
        workspace().join("effe-abi"),
    );
    scratch.write("Cargo.toml", manifest);
    let dirout = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("probe").join(flags.concat());
    tool(&scratch)
        .args(["compile", "--exe", "."])
        .args(flags)
        .arg("--dirout")
        .arg(&dirout)
        // As the image's test does it, so that what a static program is made of is built once.
        .small()
        .run()
        .assert_code(0);
    dirout.join("probe_v0.1.0")
}
