//! Tests with lambdas in C, C++ and Zig: `new`, `compile`, `invoke`, `run`, `inspect`, `watch`, `docker`, and the
//! examples.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::support::{
    Loader, Scratch, Server, tool,
    tool::{Tool, loader, workspace},
};

/// The languages whose compiler is here, by the extension of a file.
fn languages() -> Vec<&'static str> {
    let mut languages = vec!["c", "cc"];
    match has_zig() {
        true => languages.push("zig"),
        false => eprintln!("SKIPPED: there is no zig"),
    }
    languages
}

fn has_zig() -> bool {
    let found = [&["zig"][..], &["python-zig"], &["python3", "-m", "ziglang"]];
    found.iter().any(|words| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

/// An example, compiled. Returns the plugin.
fn example(path: &str, scratch: &Scratch) -> PathBuf {
    let path = workspace().join("examples").join(path);
    let done = tool(scratch).args(["compile", "--json"]).arg(path).run().assert_code(0);
    scratch.join(done.json()["built"][0]["path"].as_str().unwrap())
}

/// Serves a plugin with a parameter.
fn serve(plugin: &PathBuf, set: &str, scratch: &Scratch) -> Server {
    let run = tool(scratch).arg("run").arg(plugin).args(["--", "--port", "0", "--syslog", "none"]);
    Loader::by(run.args(["--log-format", "text", "--set", set]).into_command()).serve_as_told()
}

#[test]
fn a_new_lambda_of_each_language_compiles_and_is_called() {
    let scratch = Scratch::new();
    for extension in languages() {
        let file = format!("my lambdas/a {extension}.{extension}");
        let said = tool(&scratch).args(["new", &file]).run().assert_code(0);
        said.assert_says(&[
            &format!("Created lambda `{file}`"),
            &format!("effe-tool run 'my lambdas/a {extension}"),
        ]);
        let json = tool(&scratch).args(["compile", "--json", &file]).run().assert_code(0).json();
        let built = &json["built"][0];
        assert_eq!(built["path"], format!("out/a-{extension}_v0.1.0.so"));
        let plugin = built["path"].as_str().unwrap();
        let call = ["invoke", plugin, "--path", "/world?x", "--", "--set", "greeting=Ciao"];
        assert_eq!(tool(&scratch).args(call).run().assert_code(0).stdout, "Ciao from effe: /world\n");
        let json = tool(&scratch).args(["inspect", "--json", plugin]).run().assert_code(0).json();
        assert_eq!((&json["info"]["version"], &json["abi"]), (&"0.1.0".into(), &"1".into()));
        assert_eq!((&json["build"]["panic"], &json["usable"]), (&"none".into(), &true.into()));
        // From the source, without optimizations.
        let done = tool(&scratch).args(["invoke", "--debug", &file]).run().assert_code(0);
        assert_eq!(done.stdout, "Hello from effe: /\n");
    }
}

#[test]
fn the_counter_counts_in_its_file_and_says_why_it_can_not() {
    let scratch = Scratch::new();
    let plugin = example("c/counter.c", &scratch);
    let file = format!("file={}", scratch.join("n").display());
    for expected in [["request 1\n", "request 2\n"], ["request 3\n", "request 4\n"]] {
        let server = serve(&plugin, &file, &scratch);
        assert_eq!([server.get("/").text(), server.get("/").text()], expected);
        let lines = server.stop();
        assert!(lines.iter().any(|line| line.contains("1 Contexts were started and stopped")), "{lines:#?}");
    }
    let server = serve(&plugin, "file=/nowhere/n", &scratch);
    assert_eq!(server.get("/").status, 500);
    server.hear("cannot open /nowhere/n: No such file or directory");
    server.stop();
    let done = tool(&scratch).arg("invoke").arg(&plugin).run().assert_code(1);
    done.assert_says(&["its init failed: the parameter `file` is missing"]);
}

#[test]
fn the_store_keeps_values_and_no_exception_leaves_it() {
    let scratch = Scratch::new();
    let server = serve(&example("cpp/kv.cc", &scratch), "unused=1", &scratch);
    let mut connection = server.connect();
    let mut ask = |method: &str, path: &str, body: &str| {
        let length = body.len();
        let reply = connection
            .send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}"))
            .reply();
        (reply.status, reply.text().to_owned())
    };
    let answer = |status: u16, text: &str| (status, text.to_owned());
    assert_eq!(ask("GET", "/n", ""), answer(404, "no such key\n"));
    assert_eq!(ask("PUT", "/n", "40"), answer(201, "stored\n"));
    assert_eq!(ask("POST", "/n", "2"), answer(200, "42"));
    assert_eq!(ask("GET", "/n?x=1", ""), answer(200, "42"));
    assert_eq!(ask("POST", "/n", "two"), answer(400, "not a number\n"));
    assert_eq!(ask("PUT", "/n", "forty"), answer(201, "stored\n"));
    // An exception: the process goes on.
    assert_eq!(ask("POST", "/n", "2").0, 500);
    assert_eq!(ask("GET", "/n", ""), answer(200, "forty"));
    assert_eq!(ask("DELETE", "/n", ""), answer(200, "removed\n"));
    assert_eq!(ask("DELETE", "/n", "").0, 404);
    server.hear("POST to a key whose value is no number");
    server.stop();
}

#[test]
fn what_a_compiler_says_is_shown_and_its_absence_too() {
    let scratch = Scratch::new();
    let compile = |file: &str| tool(&scratch).args(["compile", file]);
    for extension in languages() {
        let file = format!("bad.{extension}");
        tool(&scratch).args(["new", &file]).run().assert_code(0);
        let text = fs::read_to_string(scratch.join(&file)).unwrap();
        scratch.write(
            &file,
            text.replacen("effe.h\"", "effe.h\"\nnonsense nonsense;", 1).replacen(
                "var greeting",
                "nonsense;",
                1,
            ),
        );
        let done = compile(&file).run().assert_code(1);
        let done = done.assert_says(&[&format!("{file}:"), "error: ", "nonsense", "could not compile it"]);
        assert!(done.stdout.contains("failed"), "{}", done.stdout);
        let (variable, language) = match extension {
            "c" => ("CC", "C"),
            "cc" => ("CXX", "C++"),
            _ => ("ZIG", "Zig"),
        };
        let absent = format!("there is no compiler of {language} in PATH; install ");
        compile(&file).env("PATH", "/nowhere").without(variable).run().assert_code(1).assert_says(&[&absent]);
        let named = format!("there is no nowhere, which the variable {variable} names");
        compile(&file).env(variable, "nowhere --flag").run().assert_code(1).assert_says(&[&named]);
    }
    let refused = tool(&scratch).args(["compile", "--exe", "bad.c"]).run().assert_code(1);
    refused.assert_says(&["--exe links the loader to lambdas in Rust alone"]);
    let refused = tool(&scratch).args(["compile", "--features", "x", "bad.c"]).run().assert_code(1);
    refused.assert_says(&["a file in C has no features"]);
    // A library without the symbol compiles and is no lambda.
    scratch.write("none.c", "#include \"effe.h\"\n");
    compile("none.c").run().assert_code(1).assert_says(&["it exports no lambda"]);
    let done = compile("bad.c").args(["--target-dir", "bad.c"]).run().assert_code(1);
    done.assert_says(&["cannot make ", "bad.c/effe/", "name another place with --target-dir"]);
    // The linker looks for what is missing, before the loader does.
    scratch.write(
        "lacks.c",
        "#include \"effe.h\"\nint lacking(void);\nEFFE_EXPORT int f(void) { return lacking(); }\n",
    );
    compile("lacks.c").run().assert_code(1).assert_says(&["undefined reference to `lacking'"]);
}

#[test]
fn other_flags_of_the_compiler_are_those_of_make() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "a.c"]).run().assert_code(0);
    let text = fs::read_to_string(scratch.join("a.c")).unwrap();
    scratch.write("a.c", text.replace("\"Hello\", 5", "GREETING, sizeof GREETING - 1"));
    tool(&scratch).args(["compile", "a.c"]).run().assert_code(1).assert_says(&["GREETING"]);
    let compile = tool(&scratch).args(["compile", "-v", "a.c"]).env("CFLAGS", "-DGREETING=\"Salve\" -O1");
    let done = compile.env("LDLIBS", "-lm").run().assert_code(0);
    let at = |flag: &str| done.stderr.find(flag).unwrap_or_else(|| panic!("{flag}: {}", done.stderr));
    assert!(at("\"-O2\"") < at("\"-O1\"") && at("\"a.c\"") < at("\"-lm\""), "{}", done.stderr);
    assert_eq!(tool(&scratch).args(["invoke", "out/a_v0.1.0.so"]).run().stdout, "Salve from effe: /\n");
}

#[test]
fn a_plugin_for_another_machine_is_named_by_its_note() {
    let scratch = Scratch::new();
    let target = ["--target", "aarch64-unknown-linux-gnu"];
    let compile = |file: &str| tool(&scratch).args(["compile", file]).args(target);
    tool(&scratch).args(["new", "a.c"]).run().assert_code(0);
    let done = compile("a.c").env("PATH", "/nowhere").without("CC").run().assert_code(1);
    done.assert_says(&["install aarch64-linux-gnu-gcc, or set CC to its path"]);
    if languages().contains(&"zig") {
        tool(&scratch).args(["new", "a.zig"]).run().assert_code(0);
        compile("a.zig").run().assert_code(0);
        let json = tool(&scratch).args(["inspect", "--json", "out/a_v0.1.0.so"]).run().assert_code(1).json();
        assert_eq!(json["machine"], "aarch64");
    }
}

#[test]
fn nothing_of_a_plugin_runs_where_its_info_is_read() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "a.c"]).run().assert_code(0);
    let text = fs::read_to_string(scratch.join("a.c")).unwrap();
    let constructor = "#include <stdlib.h>\n__attribute__((constructor)) static void first(void) {\n    \
                       if (getenv(\"FATAL\")) abort();\n}\n";
    scratch.write("a.c", format!("{constructor}{text}"));
    tool(&scratch).args(["compile", "a.c"]).run().assert_code(0);
    // What was just compiled is opened.
    let compile = ["compile", "a.c", "--dirout", "again"];
    let refused = tool(&scratch).args(compile).env("FATAL", "1").run().assert_code(1);
    refused.assert_says(&["opening it kills the process"]);
    let done = tool(&scratch).args(["inspect", "out/a_v0.1.0.so"]).env("FATAL", "1").run().assert_code(0);
    assert!(done.stdout.contains("takes it, as far as its file shows"), "{}", done.stdout);
    let done = tool(&scratch).args(["invoke", "out/a_v0.1.0.so"]).env("FATAL", "1").run().assert_code(1);
    done.assert_says(&["opening it kills the process"]);
}

#[test]
fn no_cargo_is_needed() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("bin")).unwrap();
    // What cc itself runs.
    let path = env::var_os("PATH").unwrap();
    for program in ["cc", "as", "ld"] {
        let found = env::split_paths(&path).map(|place| place.join(program)).find(|path| path.is_file());
        symlink(found.expect("a C compiler is here"), scratch.join("bin").join(program)).unwrap();
    }
    let program = scratch.join("bin/effe-tool");
    fs::copy(env!("CARGO_BIN_EXE_effe-tool"), &program).unwrap();
    fs::copy(loader(), scratch.join("bin/effe-loader")).unwrap();
    let tool = |args: &[&str]| {
        let tool = Tool::by(Command::new(&program), &scratch).env("PATH", scratch.join("bin"));
        ["CARGO", "RUSTC", "CARGO_TARGET_DIR", "EFFE_LOADER"]
            .into_iter()
            .fold(tool, Tool::without)
            .args(args)
            .run()
    };
    tool(&["new", "hello.c"]).assert_code(0);
    tool(&["compile", "hello.c"]).assert_code(0);
    assert_eq!(tool(&["invoke", "hello.c"]).assert_code(0).stdout, "Hello from effe: /\n");
    tool(&["docker", "hello.c", "--oci", "hello.tar"]).assert_code(0);
    // Cargo is missed where it is needed.
    tool(&["new", "other.rs"]).assert_code(0);
    tool(&["compile", "other.rs"]).assert_code(1).assert_says(&["cargo"]);
}

#[test]
fn the_lambdas_of_a_directory_may_be_in_several_languages() {
    let scratch = Scratch::new();
    for file in ["all/one.c", "all/deep/two.cc", "all/three.rs"] {
        tool(&scratch).args(["new", file]).run().assert_code(0);
    }
    scratch.write("all/part.c", "int part(void) { return 1; }\n");
    let done = tool(&scratch).args(["compile", "all"]).run().assert_code(0);
    done.assert_says(&["all/part.c is left out: it doesn't include effe.h"]);
    for plugin in ["one_v0.1.0.so", "deep/two_v0.1.0.so", "three_v0.1.0.so"] {
        assert!(scratch.join("out").join(plugin).is_file(), "{plugin}");
    }
    let done = tool(&scratch).args(["route", "haproxy", "out"]).run().assert_code(0);
    for name in ["one", "two", "three"] {
        assert!(done.stdout.contains(&format!("backend {name}\n")), "{}", done.stdout);
    }
}

#[test]
fn one_source_makes_one_plugin_wherever_it_is() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "here/a.c"]).run().assert_code(0);
    let text = fs::read_to_string(scratch.join("here/a.c")).unwrap();
    // Without name and version, the hash of the content names it.
    let text = text.replace("{\\\"name\\\":\\\"a\\\",\\\"version\\\":\\\"0.1.0\\\"}", "{}");
    scratch.write("here/a.c", text.replace("{\"Hello\", 5}", "{__FILE__, sizeof __FILE__ - 1}"));
    scratch.write("there/a.c", fs::read(scratch.join("here/a.c")).unwrap());
    tool(&scratch).args(["compile", "here/a.c"]).run().assert_code(0);
    tool(&scratch).args(["compile", "there/a.c", "--dirout", "out/there"]).run().assert_code(0);
    let names = |directory: &str| {
        let entries = fs::read_dir(scratch.join(directory)).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.path().is_file()).map(|entry| entry.file_name());
        files.collect::<Vec<_>>()
    };
    assert_eq!(names("out"), names("out/there"));
    assert_eq!(names("out").len(), 1);
}

#[test]
fn a_watch_serves_changes_of_a_file_and_of_what_it_includes() {
    let scratch = Scratch::new();
    for extension in languages() {
        let (file, part) = (format!("w.{extension}"), format!("part.{extension}"));
        tool(&scratch).args(["new", &file]).run().assert_code(0);
        let text = fs::read_to_string(scratch.join(&file)).unwrap();
        let define = |word: &str| match extension {
            "zig" => format!("pub const word = \"{word}\";\n"),
            _ => format!("#define WORD \"{word}\"\n"),
        };
        scratch.write(
            &file,
            match extension {
                "zig" => text.replace("text(\"Hello\")", "text(@import(\"part.zig\").word)"),
                "c" => text.replace("\"Hello\", 5", "WORD, sizeof WORD - 1"),
                _ => text.replace("greeting = \"Hello\"", "greeting = WORD"),
            }
            .replacen(
                "#include \"effe.h\"",
                &format!("#include \"effe.h\"\n#include \"{part}\""),
                1,
            ),
        );
        scratch.write(&part, define("Ave\" nonsense; \""));
        let command = tool(&scratch).args(["watch", &file, "--port", "0"]).into_command();
        let mut server = Loader::by(command).start(([127, 0, 0, 1], 0).into());
        server.hear("could not compile it; it is tried again after the next change");
        scratch.write(&part, define("Ave"));
        server.listen();
        assert_eq!(server.get("/").text(), "Ave from effe: /\n");
        scratch.write(&part, define("Salve"));
        server.hear("generation 2");
        assert_eq!(server.get("/").text(), "Salve from effe: /\n");
        // A file that it doesn't include starts no build.
        scratch.write("other.h", "");
        let text = fs::read_to_string(scratch.join(&file)).unwrap();
        scratch.write(&file, text.replace(" from effe", " from my effe"));
        server.hear("generation 3");
        assert_eq!(server.get("/").text(), "Salve from my effe: /\n");
        let said = server.stop();
        assert!(!said.iter().any(|line| line.contains("Compiling")), "{said:#?}");
    }
}

#[test]
fn the_header_is_that_of_effe_abi() {
    let scratch = Scratch::new();
    let done = tool(&scratch).arg("header").run().assert_code(0);
    assert_eq!(done.bytes, fs::read(workspace().join("effe-abi/include/effe.h")).unwrap());
}

#[test]
fn what_new_can_not_write_is_refused() {
    let scratch = Scratch::new();
    let cases: [(&[&str], &str); 4] = [
        (&["foo.go"], "foo.go: no lambda is written in .go; name a .rs, .c, .cc or .zig file"),
        (&["foo.h"], "no lambda is written in .h"),
        (&["foo.c", "--template", "axum"], "this template is for Rust alone; in C there is: hello"),
        (&["foo.zig", "--effe-abi", "1"], "it is for Rust; foo.zig includes effe.h"),
    ];
    for (args, says) in cases {
        tool(&scratch).arg("new").args(args).run().assert_code(2).assert_says(&[says]);
        assert!(!scratch.join(args[0]).exists());
    }
    tool(&scratch)
        .args(["run", "foo.go"])
        .run()
        .assert_code(1)
        .assert_says(&["name a crate, a .rs, .c, .cc or .zig"]);
    tool(&scratch).args(["run", "foo.c"]).run().assert_code(1).assert_says(&["effe-tool new foo.c"]);
}
