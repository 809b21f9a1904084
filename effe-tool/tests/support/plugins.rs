//! The plugins of the loader's tests; here they are programs.

use std::{path::PathBuf, sync::OnceLock, thread};

use super::{
    Scratch,
    tool::{tool, workspace},
};

/// The probe, a lambda that does what a request tells it, as a program: a static one for `static_lifecycle`.
pub fn probe() -> PathBuf {
    static LINKED: OnceLock<PathBuf> = OnceLock::new();
    static STATIC: OnceLock<PathBuf> = OnceLock::new();
    match thread::current().name().is_some_and(|name| name.starts_with("static_lifecycle")) {
        true => STATIC.get_or_init(|| compile(&["--static", "--release"])).clone(),
        false => LINKED.get_or_init(|| compile(&["--debug"])).clone(),
    }
}

/// Compiles the probe. The loader's fixture is only a cdylib; here its source is also a library that a program can
/// link.
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
        // With the flags of the image's test, so that the dependencies of a static program are built once.
        .small()
        .run()
        .assert_code(0);
    dirout.join("probe_v0.1.0")
}
