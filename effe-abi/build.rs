//! Tells the crate which compiler it is built with and for which target. The build record of a plugin names both.

use std::{env, process::Command};

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
    let version = version.as_deref().and_then(|text| text.split_whitespace().nth(1)).unwrap_or("unknown");
    println!("cargo::rustc-env=EFFE_RUSTC={version}");
    println!("cargo::rustc-env=EFFE_TARGET={}", env::var("TARGET").as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-changed=build.rs");
}
