//! Tests of `package`: what is in the archive, and what can't run on AWS Lambda.

use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
};

use crate::support::{
    Scratch, tool,
    tool::{Tool, release_loader},
};

/// A loader that says that it knows AWS. Its code is not run as a function here; effe-loader's tests do that.
fn knowing_loader(scratch: &Scratch) -> PathBuf {
    let path = scratch.join("knowing-loader");
    fs::copy(release_loader(), &path).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"AWS_LAMBDA_RUNTIME_API").unwrap();
    path
}

fn compiled(scratch: &Scratch) -> &'static str {
    tool(scratch).args(["new", "hello"]).run().assert_code(0);
    tool(scratch).args(["compile", "hello"]).run().assert_code(0);
    "out/hello_v0.1.0.so"
}

fn package(scratch: &Scratch, plugin: &str) -> Tool {
    tool(scratch).args(["package", "aws", plugin])
}

#[test]
fn the_archive_has_bootstrap_and_plugin_and_is_always_the_same() {
    let scratch = Scratch::new();
    let plugin = compiled(&scratch);
    let loader = knowing_loader(&scratch);
    let done = package(&scratch, plugin).env("EFFE_LOADER", &loader).run().assert_code(0);
    for part in [
        "create-function --function-name hello",
        "provided.al2023",
        "--handler hello_v0.1.0.so",
        "fileb://hello.zip",
    ] {
        assert!(done.stdout.contains(part), "{part}: {}", done.stdout);
    }
    package(&scratch, plugin).args(["--out", "again.zip"]).env("EFFE_LOADER", &loader).run().assert_code(0);
    let (first, again) =
        (fs::read(scratch.join("hello.zip")).unwrap(), fs::read(scratch.join("again.zip")).unwrap());
    assert!(first == again, "the same parts make the same bytes");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(first)).unwrap();
    for name in ["bootstrap", "hello_v0.1.0.so"] {
        let mut file = archive.by_name(name).unwrap();
        assert_eq!(file.unix_mode().map(|mode| mode & 0o777), Some(0o755), "{name}");
        let mut begin = [0; 4];
        file.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"\x7fELF", "{name}");
    }
    assert_eq!(archive.len(), 2);
}

#[test]
fn what_cannot_run_there_is_refused_with_advice() {
    let scratch = Scratch::new();
    let plugin = compiled(&scratch);
    package(&scratch, plugin)
        .env("EFFE_LOADER", release_loader())
        .run()
        .assert_code(1)
        .assert_says(&["built without AWS", "cargo install effe-loader --features aws"]);

    let newer = replaced(fs::read(scratch.join(plugin)).unwrap(), b"GLIBC_2.2.5\0", b"GLIBC_2.99\0\0");
    scratch.write("newer.so", &newer);
    package(&scratch, "newer.so")
        .env("EFFE_LOADER", knowing_loader(&scratch))
        .run()
        .assert_code(1)
        .assert_says(&["newer.so needs glibc 2.99", "has 2.34", "Amazon Linux 2023"]);
    assert!(!scratch.join("hello.zip").exists());
}

fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        bytes[at + found..][..to.len()].copy_from_slice(to);
        at += found + to.len();
    }
    bytes
}
