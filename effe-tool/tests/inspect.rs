//! Tests of `inspect`, with plugins and with other files.

use std::fs;

use crate::support::{Scratch, tool};

#[test]
fn a_plugin_is_shown_with_what_it_needs() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "hello"]).run().assert_code(0);
    tool(&scratch).args(["compile", "hello"]).run().assert_code(0);
    let plugin = "out/hello_v0.1.0.so";
    let json = tool(&scratch).args(["inspect", "--json", plugin]).run().assert_code(0).json();
    assert_eq!(
        (&json["info"]["name"], &json["abi"], &json["usable"]),
        (&"hello".into(), &"1".into(), &true.into())
    );
    assert_eq!(json["build"]["panic"], "unwind");
    assert!(json["needs"].as_array().unwrap().contains(&"libc.so.6".into()), "{json}");
    assert!(json["glibc"].as_str().unwrap().starts_with("2."), "{json}");
    let done = tool(&scratch).args(["inspect", plugin]).run().assert_code(0);
    for part in ["info name", "hello", "needs glibc", "takes it"] {
        assert!(done.stdout.contains(part), "{part}:\n{}", done.stdout);
    }

    // With another name of its roots, and without notes, the loader doesn't find it.
    let mut bytes = fs::read(scratch.join(plugin)).unwrap();
    for name in [&b"_1as_0lib_1header_0root_bmodule_bloader"[..], b"effe_lambda_v1\0", b"effe\0\0\0\0{"] {
        let mut found = false;
        while let Some(at) = bytes.windows(name.len()).position(|window| window == name) {
            bytes[at] = b'X';
            found = true;
        }
        assert!(found, "{}", name.escape_ascii());
    }
    scratch.write("other.so", &bytes);
    let done = tool(&scratch).args(["inspect", "other.so"]).run().assert_code(1);
    assert!(
        done.stdout.contains("refuses it: cannot load") && done.stdout.contains("other.so"),
        "{}",
        done.stdout
    );
    let json = tool(&scratch).args(["inspect", "--json", "other.so"]).run().assert_code(1).json();
    assert_eq!((&json["usable"], json["refusal"].is_string()), (&false.into(), true));
}

#[test]
fn what_is_no_plugin_is_refused_with_its_path() {
    let scratch = Scratch::new();
    scratch.write("a.so", "text");
    scratch.write("b.so", b"\x7fELF\x02\x01\x01");
    tool(&scratch).args(["inspect", "a.so"]).run().assert_code(1).assert_says(&["a.so", "neither a library"]);
    tool(&scratch).args(["inspect", "b.so"]).run().assert_code(1).assert_says(&["b.so", "damaged"]);
    tool(&scratch)
        .args(["inspect", "/bin/true"])
        .run()
        .assert_code(1)
        .assert_says(&["program without a lambda"]);
    tool(&scratch)
        .args(["inspect", "."])
        .run()
        .assert_code(1)
        .assert_says(&["directory", "effe-tool compile ."]);
    tool(&scratch).args(["inspect", "c.so"]).run().assert_code(1).assert_says(&["cannot read c.so"]);
}

#[test]
fn without_a_loader_the_remedy_is_said() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "a.rs"]).run().assert_code(0);
    tool(&scratch).args(["compile", "a.rs", "--out", "a"]).run().assert_code(0);
    let done =
        tool(&scratch).args(["inspect", "out/a.so"]).env("EFFE_LOADER", "/nowhere").run().assert_code(1);
    done.assert_says(&["EFFE_LOADER", "/nowhere"]);
}
