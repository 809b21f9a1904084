//! Tests of `compile`: directories, names, failures, JSON, sizes.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::{Loader, Scratch, plugins::probe, tool, tool::workspace};

/// The size limit of a released lambda that depends on effe-abi alone, symbol table included.
const SMALL: u64 = 500 * 1024;

/// A lambda in a single file that answers with `hi`.
fn lambda(front: &str, export: &str) -> String {
    format!(
        "{front}use effe_abi::{{Lambda, Params, Request, Response, Result, StartError, Started, export}};\n\
         struct A;\n\
         impl Lambda for A {{\n\
         fn start(_: Params) -> Result<Self, StartError<Self>> {{ Ok(A) }}\n\
         fn run(a: Started<Self>, _: &Request, response: &mut Response) -> Result {{\n\
         a?; response.text(\"hi\"); Ok(()) }}\n\
         }}\n{export}\n"
    )
}

/// A crate with that lambda.
fn write_crate(scratch: &Scratch, path: &str, name: &str, rest: &str) {
    let effe_abi = workspace().join("effe-abi");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"2.0.0\"\nedition = \"2024\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\neffe-abi = {{ path = {effe_abi:?} }}\n{rest}\n"
    );
    scratch.write(&format!("{path}/Cargo.toml"), manifest);
    scratch.write(&format!("{path}/src/lib.rs"), lambda("", "export!(A);"));
}

/// The files below a directory.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in walkdir::WalkDir::new(directory).into_iter().map_while(Result::ok) {
        if entry.file_type().is_file() {
            names.insert(entry.path().strip_prefix(directory).unwrap().to_string_lossy().into_owned());
        }
    }
    names
}

#[test]
fn a_directory_is_compiled_past_its_failures_and_keeps_its_structure() {
    let scratch = Scratch::new();
    scratch.write("lambdas/one.rs", lambda("---cargo\n[package]\nversion = \"1.0.0\"\n---\n", "export!(A);"));
    scratch.write("lambdas/deep/er/two.rs", lambda("", "export!(A);"));
    write_crate(&scratch, "lambdas/deep/three", "three", "");
    scratch.write("lambdas/bad.rs", lambda("", "export!(B);"));
    write_crate(&scratch, "lambdas/worse", "worse", "[dependencies");
    scratch.write("lambdas/notes.rs", "fn main() {}\n");
    scratch.write("lambdas/.hidden/four.rs", lambda("", "export!(A);"));
    let before = files(&scratch.join("lambdas"));

    let done = tool(&scratch).args(["compile", "lambdas", "--dirout", "built"]).run().assert_code(1);
    let done = done.assert_says(&[
        "cannot find type `B`",
        // The line of the file itself, although a copy of it may be compiled.
        "bad.rs:8",
        "2 of 5 lambdas failed",
        "lambdas/notes.rs is left out: it doesn't use effe_abi",
    ]);
    assert_eq!(
        done.stderr.matches("Compiling effe-abi").count().max(1),
        1,
        "it is built once for all lambdas"
    );
    let built = ["deep/er/two_v0.0.0.so", "deep/three_v2.0.0.so", "one_v1.0.0.so"];
    assert_eq!(files(&scratch.join("built")), built.map(str::to_owned).into());
    for part in
        ["LAMBDA", "built/deep/er/two_v0.0.0.so", "lambdas/worse", "failed", "cargo could not compile it"]
    {
        assert!(done.stdout.contains(part), "{part}:\n{}", done.stdout);
    }
    let after = files(&scratch.join("lambdas"));
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.iter().all(|file| *file == "deep/three/Cargo.lock"), "nothing else is written: {new:?}");

    let done =
        tool(&scratch).args(["compile", "-q", "--json", "lambdas", "--dirout", "built"]).run().assert_code(1);
    let json = done.json();
    assert_eq!(json["built"].as_array().unwrap().len(), 3);
    assert_eq!(json["failed"].as_array().unwrap().len(), 2);
    let two = json["built"].as_array().unwrap().iter().find(|built| built["info"]["name"] == "two").unwrap();
    assert_eq!(two["path"], "built/deep/er/two_v0.0.0.so");
    assert_eq!(two["size"], fs::metadata(scratch.join("built/deep/er/two_v0.0.0.so")).unwrap().len());
}

#[test]
fn messages_name_a_single_file_and_its_lines() {
    let scratch = Scratch::new();
    let front = "---cargo\n[package]\nversion = \"1.0.0\"\n---\n";
    for name in ["shop.rs", "build.rs"] {
        scratch.write(name, lambda(front, "export!(B);"));
        let done = tool(&scratch).args(["compile", name]).run().assert_code(1);
        assert!(
            !done.assert_says(&["cannot find type `B`", &format!("{name}:12:9")]).stderr.contains("lib.rs")
        );
        scratch.write(name, lambda(front, "export!(A);").replace("a?;", "a?; panic!(\"no\");"));
        tool(&scratch).args(["compile", name]).run().assert_code(0);
    }
    // The lambda of a program is a dependency, and its messages name the same file.
    tool(&scratch)
        .args(["compile", "--exe", "--debug", "shop.rs", "--dirout", "programs"])
        .run()
        .assert_code(0);
    let log = ["--syslog", "none"];
    for server in [
        Loader::by(
            tool(&scratch).args(["run", "out/shop_v1.0.0.so", "--", "--port", "0"]).args(log).into_command(),
        ),
        Loader::of(scratch.join("programs/shop_v1.0.0")),
    ] {
        let server = server.serve_as_told();
        assert_eq!(server.get("/").status, 500);
        let (line, _) = server.wait_for_line(&["panicked at "]);
        assert!(line.contains("shop.rs:10:") && !line.contains("lib.rs"), "{line}");
        server.stop();
    }
}

#[test]
fn a_legal_name_and_version_go_from_end_to_end() {
    let scratch = Scratch::new();
    write_crate(&scratch, "café", "café", "");
    let manifest = fs::read_to_string(scratch.join("café/Cargo.toml")).unwrap();
    scratch.write("café/Cargo.toml", manifest.replace("2.0.0", "1.0.0+build.5"));
    tool(&scratch).args(["compile", "café"]).run().assert_code(0);
    let plugin = "out/café_v1.0.0+build.5.so";
    let done = tool(&scratch).args(["invoke", "-q", plugin]).run().assert_code(0);
    assert_eq!(done.stdout, "hi");
    let done = tool(&scratch).args(["docker", plugin, "--oci", "x.tar", "--json"]).run().assert_code(0);
    assert_eq!(done.json()[0]["tag"], "xn--caf-dma:1.0.0_build.5");
    for (engine, part) in [
        ("haproxy", "backend xn--caf-dma\n"),
        ("kubernetes", "image: xn--caf-dma:1.0.0_build.5\n"),
        ("systemd", "effe@xn--caf-dma.socket"),
    ] {
        let done = tool(&scratch).args(["route", engine, plugin]).run().assert_code(0);
        assert!(done.stdout.contains(part), "{engine}: {}", done.stdout);
    }
}

#[test]
fn lambdas_of_the_same_name_do_not_become_each_other() {
    let scratch = Scratch::new();
    for place in ["a", "b"] {
        write_crate(&scratch, &format!("{place}/same"), "same", "");
        let source = lambda("", "export!(A);").replace("\"hi\"", &format!("\"{place}\""));
        scratch.write(&format!("{place}/same/src/lib.rs"), source);
    }
    for _ in 0..2 {
        tool(&scratch)
            .args(["compile", "a", "b", "."])
            .run()
            .assert_code(1)
            .assert_says(&["its name is that of"]);
    }
    for place in ["a", "b"] {
        let out = format!("out-{place}");
        let done = tool(&scratch).args(["compile", "-q", place, "--dirout", &out]).run().assert_code(0);
        assert_eq!(done.stdout, "", "a table is no result");
        let done =
            tool(&scratch).args(["invoke", "-q", &format!("{out}/same_v2.0.0.so")]).run().assert_code(0);
        assert_eq!(done.stdout, place);
    }
}

#[test]
fn a_hostile_info_names_nothing() {
    let scratch = Scratch::new();
    let info = r#"export!(A, info = r"{""name"":""../../x"",""version"":""1""}");"#.replace("\"\"", "\"");
    scratch.write("in/evil.rs", lambda("", &info.replace("r\"", "r#\"").replace("}\"", "}\"#")));
    let done = tool(&scratch).args(["compile", "in/evil.rs"]).run().assert_code(1);
    done.assert_says(&["\"../../x\"", "can't name a file", "--out"]);
    assert!(!scratch.join("out").exists());
    tool(&scratch).args(["compile", "in/evil.rs", "--out", "tame"]).run().assert_code(0);
    assert_eq!(files(&scratch.join("out")), ["tame.so".to_owned()].into());
    let done = tool(&scratch).args(["docker", "out/tame.so", "--oci", "x.tar"]).run().assert_code(1);
    done.assert_says(&["\"../../x\""]);
    assert!(!scratch.join("x.tar").exists());
}

#[test]
fn without_name_and_version_the_content_names_the_file() {
    let scratch = Scratch::new();
    scratch.write("a.rs", lambda("", "export!(A, info = \"{}\");"));
    tool(&scratch).args(["compile", "a.rs"]).run().assert_code(0);
    let name = files(&scratch.join("out")).into_iter().next().unwrap();
    let hash = name.strip_suffix(".so").unwrap();
    assert!(hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
}

#[test]
fn a_profile_that_aborts_is_refused_with_the_reason() {
    let scratch = Scratch::new();
    write_crate(&scratch, "a", "a", "[profile.release]\npanic = \"abort\"");
    let done = tool(&scratch).args(["compile", "a"]).run().assert_code(1);
    done.assert_says(&[
        "a/Cargo.toml",
        "panic = \"abort\"",
        "ends the server for every client",
        "remove that line",
    ]);
}

#[test]
fn an_executable_needs_a_library_that_links() {
    let scratch = Scratch::new();
    write_crate(&scratch, "a", "a", "");
    let done = tool(&scratch).args(["compile", "--exe", "a"]).run().assert_code(1);
    done.assert_says(&["a/Cargo.toml", "crate-type = [\"cdylib\", \"rlib\"]"]);
}

#[test]
fn what_is_no_lambda_is_said_to_be_none() {
    let scratch = Scratch::new();
    scratch.write("empty/readme", "");
    scratch.write("lib/Cargo.toml", "[package]\nname = \"lib\"\nedition = \"2024\"\n");
    scratch.write("lib/src/lib.rs", "");
    scratch.write("bin/Cargo.toml", "[package]\nname = \"bin\"\nedition = \"2024\"\n");
    scratch.write("bin/src/main.rs", "fn main() {}");
    scratch.write("front.rs", "---cargo\n[dependencies]\n");
    scratch.write("lines.rs", "\n---cargo\n[dependencies\n---\n// effe_abi\n");
    let compile = |path: &str| tool(&scratch).args(["compile", path]).run().assert_code(1);
    compile("empty").assert_says(&["empty holds no lambda", "effe-tool new"]);
    compile("lib").assert_says(&["lib/Cargo.toml doesn't depend on effe-abi", "cargo add effe-abi"]);
    compile("bin").assert_says(&["bin/Cargo.toml has no library"]);
    compile("nowhere").assert_says(&["there is no nowhere", "effe-tool new nowhere"]);
    compile("empty/readme").assert_says(&["empty/readme is no source of a lambda"]);
    compile("front.rs").assert_says(&["front.rs", "line 1", "close it with `---`"]);
    compile("lines.rs").assert_says(&["lines.rs", "line 3"]);
}

#[test]
fn cargo_finds_the_tool() {
    use std::process::Command;

    use crate::support::tool::Tool;
    let scratch = Scratch::new();
    let program = Command::new(env!("CARGO_BIN_EXE_cargo-effe"));
    Tool::by(program, &scratch).args(["effe", "new", "hello"]).run().assert_code(0);
    assert!(scratch.join("hello/Cargo.toml").is_file());
}

#[test]
fn a_release_of_hello_is_smaller_than_500_kib() {
    let scratch = Scratch::new();
    let hello = workspace().join("examples/hello");
    tool(&scratch).arg("compile").arg(hello).optimized().run().assert_code(0);
    let size = fs::metadata(scratch.join("out/hello_v0.1.0.so")).unwrap().len();
    assert!(size < SMALL, "{size} bytes");
}

#[test]
fn what_a_lambda_logs_in_a_program_is_its_own() {
    let server = Loader::of(probe()).serve();
    server.get("/log?level=debug&text=whispered");
    server.get("/log?level=info&text=said");
    let (line, _) = server.wait_for_line(&["probe: "]);
    assert!(line.contains("lambda: info: probe: said request_id="), "{line}");
    server.stop();
}
