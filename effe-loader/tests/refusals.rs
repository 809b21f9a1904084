//! Every plugin that can't be used is refused before anything is served: in one line that says what differs and
//! what to do, with an exit code of its own, and never by the death of the loader.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{CWD, FileType, Mode};

use crate::support::{
    Counts, Loader, Scratch,
    plugins::{c, other_abi, patched, probe, profile_dir},
};

/// Exit code EX_CONFIG: a supervisor need not try again.
const CONFIG: i32 = 78;

/// Asserts that whatever the loader is asked to do with a plugin, it refuses it in the same one line.
#[track_caller]
fn assert_refused(plugin: impl AsRef<Path>, parts: &[&str]) {
    let plugin = plugin.as_ref();
    // By itself, `--info` is content with what it reads from the file.
    for mode in [&["--port", "0"][..], &["--info", "--strict-plugin"], &["--check"]] {
        let done = Loader::of(plugin).args(mode).run().assert_code(CONFIG);
        let line = done.one_line();
        let begin = format!("effe-loader: cannot load {}: ", plugin.display());
        assert!(line.starts_with(&begin), "{line}");
        assert!(line.len() < begin.len() + 400, "short enough to be read: {line}");
        for part in parts {
            assert!(line.contains(part), "{part:?} is said: {line}");
        }
    }
}

fn good() -> Vec<u8> {
    fs::read(probe()).unwrap()
}

/// The probe with some bytes replaced by others.
fn probe_with(scratch: &Scratch, from: &[u8], to: &[u8]) -> PathBuf {
    scratch.write("libbad.so", patched(&good(), from, to))
}

/// A library in C.
fn library(scratch: &Scratch, source: &str) -> PathBuf {
    c(source, &["-shared", "-fPIC"], &scratch.join("libbad.so"))
}

#[test]
fn a_missing_file() {
    let scratch = Scratch::new();
    assert_refused(scratch.join("libfoo.so"), &["no such file"]);
    let done = Loader::of("libfoo.so").current_dir(scratch.path()).run().assert_code(CONFIG);
    let expected = format!("no such file in {}; build the lambda with cargo build", scratch.path().display());
    assert!(done.one_line().contains(&expected), "{done:#?}");
}

#[test]
fn a_missing_file_that_is_elsewhere_is_suggested() {
    let scratch = Scratch::new();
    scratch.write("target/release/libmy_lambda.so", "");
    for asked in
        ["libmy_lambda.so", "libmy-lambda.so", "my-lambda", "my_lambda.so", "target/debug/libmy_lambda.so"]
    {
        let done = Loader::of(asked).current_dir(scratch.path()).run().assert_code(CONFIG);
        let line = done.one_line();
        let suggested = line.split("did you mean ").nth(1).expect("a suggestion").trim_end_matches('?');
        assert!(scratch.join(suggested).is_file(), "{line}");
    }
}

#[test]
fn a_directory_and_the_library_in_it_is_suggested() {
    let scratch = Scratch::new();
    assert_refused(scratch.path(), &["it is a directory; name the built library"]);
    let library = scratch.write("target/release/libfoo.so", "");
    assert_refused(scratch.path(), &["it is a directory; did you mean ", library.to_str().unwrap()]);
}

#[test]
fn a_fifo_without_waiting_for_its_writer() {
    let scratch = Scratch::new();
    let fifo = scratch.join("libfoo.so");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert_refused(fifo, &["it is not a regular file; name the built library"]);
    assert_refused("/dev/null", &["it is not a regular file"]);
}

#[test]
fn an_unreadable_file() {
    let scratch = Scratch::new();
    let plugin = scratch.write("libfoo.so", good());
    fs::set_permissions(&plugin, PermissionsExt::from_mode(0o000)).unwrap();
    let done = Loader::without_rights(&scratch).arg("--plugin").arg(&plugin).run().assert_code(CONFIG);
    assert!(done.one_line().contains("permission denied; make it readable"), "{done:#?}");
}

#[test]
fn a_file_that_is_no_library() {
    let scratch = Scratch::new();
    let remedy = "build one with crate-type = [\"cdylib\"]";
    assert_refused(scratch.write("libfoo.so", ""), &["not a shared library", "is empty", remedy]);
    assert_refused(scratch.write("libfoo.so", "#!/bin/sh\n"), &["starts with \"#!/b\"", remedy]);
    assert_refused(
        scratch.write("libfoo.so", [0x7f, b'E', b'L', b'F', 9]),
        &["header is damaged", "build it again"],
    );
}

#[test]
fn a_library_for_another_machine() {
    let scratch = Scratch::new();
    let mut bytes = good();
    bytes[18..20].copy_from_slice(&if cfg!(target_arch = "aarch64") { 62_u16 } else { 183 }.to_le_bytes());
    let other = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    let target = format!("build it with --target {}-unknown-linux-gnu", std::env::consts::ARCH);
    let built_for = format!("it is built for {other}, this loader is built for {}", std::env::consts::ARCH);
    assert_refused(scratch.write("libfoo.so", &bytes), &[&built_for, &target]);
    bytes[4] = 1;
    assert_refused(scratch.write("libfoo.so", &bytes), &["it is a 32-bit library", &target]);
    bytes[4] = 2;
    bytes[5] = 2;
    assert_refused(scratch.write("libfoo.so", &bytes), &["byte order", &target]);
}

#[test]
fn a_truncated_library() {
    let scratch = Scratch::new();
    let bytes = good();
    for len in [20, 63, 64, 200, 4_096, bytes.len() / 2, bytes.len() - 1] {
        let plugin = scratch.write("libfoo.so", &bytes[..len]);
        assert_refused(plugin, &["it is truncated", &format!("it has {len}"), "copy or build it again"]);
    }
}

#[test]
fn a_program() {
    let scratch = Scratch::new();
    let parts = ["it is a program, not a library; set crate-type = [\"cdylib\"]"];
    assert_refused(profile_dir().join("effe-loader"), &parts);
    let source = "int main(void) { return 0; }";
    assert_refused(c(source, &["-no-pie"], &scratch.join("fixed")), &parts);
    assert_refused(c(source, &["-c"], &scratch.join("object")), &["it is an object file"]);
}

/// A library that needs `libneeded.so`, which is beside it.
fn needing(scratch: &Scratch, flags: &[&str]) -> (PathBuf, PathBuf) {
    let needed = c("int needed(void) { return 1; }", &["-shared", "-fPIC"], &scratch.join("libneeded.so"));
    let source = "int needed(void); int uses(void) { return needed(); }";
    // The library is named after what it uses.
    let object = c(source, &["-c", "-fPIC"], &scratch.join("uses.o"));
    let plugin = scratch.join("libbad.so");
    let mut link = std::process::Command::new("cc");
    link.arg("-o").arg(&plugin).arg(object).args(["-shared", "-fPIC", "-L"]).arg(scratch.path());
    link.args(["-Wl,--no-as-needed", "-lneeded"]).args(flags);
    crate::support::plugins::succeed(&mut link);
    (plugin, needed)
}

#[test]
fn a_library_that_needs_another_one() {
    let scratch = Scratch::new();
    let (plugin, needed) = needing(&scratch, &[]);
    fs::remove_file(needed).unwrap();
    assert_refused(
        plugin,
        &["libneeded.so: cannot open shared object file", "; install that library, or link"],
    );
}

#[test]
fn a_library_that_looks_beside_itself_for_another_one() {
    for tags in ["--enable-new-dtags", "--disable-new-dtags"] {
        for origin in ["$ORIGIN", "/nowhere:${ORIGIN}/../lib"] {
            let scratch = Scratch::new();
            let (plugin, _) = needing(&scratch, &[&format!("-Wl,{tags},-rpath,{origin}")]);
            let parts = [
                "libneeded.so: cannot open shared object file",
                "beside itself ($ORIGIN), and a plugin is opened as a copy",
                "LD_LIBRARY_PATH",
            ];
            assert_refused(plugin, &parts);
        }
    }
}

#[test]
fn a_library_with_an_undefined_symbol() {
    let scratch = Scratch::new();
    let plugin = library(&scratch, "int nowhere(void); int uses(void) { return nowhere(); }");
    assert_refused(plugin, &["undefined symbol: nowhere; link what it needs"]);
}

#[test]
fn a_library_for_a_newer_glibc() {
    let scratch = Scratch::new();
    let bytes = good();
    let two_digits = |name: &&[u8]| {
        name.starts_with(b"GLIBC_2.") && name[8].is_ascii_digit() && name[9].is_ascii_digit() && name[10] == 0
    };
    let name = bytes.windows(11).find(two_digits).expect("it needs a version with two digits");
    let (from, mut to) = (name[..10].to_vec(), name[..10].to_vec());
    to[8] = b'9';
    // The linker compares hashes first.
    let hashed = patched(&bytes, &elf_hash(&from).to_le_bytes(), &elf_hash(&to).to_le_bytes());
    let plugin = scratch.write("libfoo.so", patched(&hashed, &from, &to));
    let version = format!("version `{}' not found", String::from_utf8(to).unwrap());
    assert_refused(plugin, &[&version, "newer glibc: build it on a system as old as this one"]);
}

fn elf_hash(name: &[u8]) -> u32 {
    name.iter().fold(0_u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(*byte));
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

#[test]
fn a_library_with_static_thread_local_storage() {
    let scratch = Scratch::new();
    let source = "static __thread char large[1 << 20] __attribute__((tls_model(\"initial-exec\")));\n\
                  char *use(void) { return large; }";
    assert_refused(library(&scratch, source), &["static TLS", "disable_initial_exec_tls"]);
}

#[test]
fn a_library_that_is_no_lambda() {
    let scratch = Scratch::new();
    let plugin = library(&scratch, "int answer(void) { return 42; }");
    assert_refused(plugin, &["it exports no lambda; add effe_abi::export!(YourType)"]);
}

/// A plugin as it was built before there was `effe_lambda_v1`.
fn without_c_root(bytes: &[u8]) -> Vec<u8> {
    patched(bytes, b"effe_lambda_v1", b"effe_lambda_v0")
}

#[test]
fn a_lambda_of_another_abi_stable() {
    let scratch = Scratch::new();
    let magic = b"abi stable library for Rust     ";
    let header = |minor: u8| [&magic[..], &[0, 0, 0, 0, minor, 0, 0, 0]].concat();
    let bytes = patched(&without_c_root(&good()), &header(11), &header(10));
    let plugin = scratch.write("libbad.so", bytes);
    assert_refused(plugin, &["another version of abi_stable; build it again with a current effe-abi"]);
}

#[test]
fn a_lambda_of_another_abi() {
    assert_refused(other_abi(), &["ABI mismatch: ", "; build it again with a current effe-abi 1.x"]);
}

#[test]
fn a_lambda_whose_panics_abort() {
    let scratch = Scratch::new();
    let plugin = probe_with(&scratch, b"; panic=unwind", b";; panic=abort");
    assert_refused(plugin, &["it is built with panic=abort", "remove panic = \"abort\" from its profile"]);
}

#[test]
fn a_lambda_whose_info_is_no_json_object() {
    let scratch = Scratch::new();
    let plugin = probe_with(&scratch, b"{\"name\":\"probe\"", b"[\"name\":\"probe\"");
    assert_refused(plugin, &["its Info is not JSON (", "correct what export! or EFFE_LAMBDA is given"]);
    let bytes = good();
    let begin = bytes.windows(15).position(|part| part == b"{\"name\":\"probe\"").unwrap();
    let len = bytes[begin..].iter().position(|byte| *byte == b'}').unwrap() + 1;
    let array = format!("[{}]", " ".repeat(len - 2));
    let plugin = scratch.write("libbad.so", patched(&bytes, &bytes[begin..begin + len], array.as_bytes()));
    assert_refused(plugin, &["its Info is not a JSON object; give export! or EFFE_LAMBDA one"]);
}

#[test]
fn a_library_that_kills_whoever_opens_it() {
    let scratch = Scratch::new();
    let doing = |deed: &str| {
        let source = format!(
            "#include <signal.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
             __attribute__((constructor)) static void deed(void) {{ {deed}; }}"
        );
        library(&scratch, &source)
    };
    for (deed, death) in [
        ("abort()", "kills the process (signal 6)"),
        ("*(volatile int *)8 = 1", "kills the process (signal 11)"),
        ("_exit(0)", "ends the process (exit code 0)"),
        ("exit(3)", "ends the process (exit code 3)"),
    ] {
        assert_refused(doing(deed), &[death, "it is damaged, copy or build it again"]);
    }
    // So does the system where memory is short, whoever needs it: another time it may do.
    let done = Loader::of(doing("raise(SIGKILL)")).run().assert_code(1);
    assert!(done.one_line().contains("something has killed that process (signal 9)"), "{done:#?}");
}

#[test]
fn a_library_that_hangs_whoever_opens_it() {
    let scratch = Scratch::new();
    let source =
        "#include <unistd.h>\n__attribute__((constructor)) static void hang(void) { for (;;) pause(); }";
    let since = Instant::now();
    let done = Loader::of(library(&scratch, source)).run().assert_code(CONFIG);
    assert!(
        done.one_line().contains("took longer than 5 s; see what its constructors wait for"),
        "{done:#?}"
    );
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_library_that_prints_does_not_get_a_word_in() {
    let scratch = Scratch::new();
    let source = "#include <stdio.h>\n\
                  __attribute__((constructor)) static void talk(void) { puts(\"a\"); fputs(\"b\\n\", stderr); fflush(stdout); }";
    assert_refused(library(&scratch, source), &["it exports no lambda"]);
}

#[test]
fn the_first_fault_in_the_order_of_the_checks_is_the_one_that_is_said() {
    let scratch = Scratch::new();
    let mut bytes = good();
    let info = (&b"{\"name\":\"probe\""[..], &b"[\"name\":\"probe\""[..]);
    bytes = patched(&bytes, info.0, info.1);
    assert_refused(scratch.write("libbad.so", &bytes), &["Info is not JSON"]);
    bytes = patched(&bytes, b"; panic=unwind", b";; panic=abort");
    assert_refused(scratch.write("libbad.so", &bytes), &["panic=abort"]);
    let magic = &b"abi stable library for Rust"[..];
    bytes = patched(&without_c_root(&bytes), magic, b"abi stable library for Ruby");
    assert_refused(scratch.write("libbad.so", &bytes), &["another version of abi_stable"]);
    bytes = patched(
        &bytes,
        b"_1as_0lib_1header_0root_bmodule_bloader",
        b"_1as_0lib_1header_0root_bmodule_bleader",
    );
    assert_refused(scratch.write("libbad.so", &bytes), &["exports no lambda"]);
    bytes = patched(&bytes, b"libgcc_s.so.1", b"libgcc_t.so.1");
    assert_refused(scratch.write("libbad.so", &bytes), &["libgcc_t.so.1: cannot open shared object file"]);
    bytes.truncate(bytes.len() / 2);
    assert_refused(scratch.write("libbad.so", &bytes), &["it is truncated"]);
    bytes[18..20].copy_from_slice(&22_u16.to_le_bytes());
    assert_refused(scratch.write("libbad.so", &bytes), &["it is built for s390x"]);
    bytes[0] = b'?';
    assert_refused(scratch.write("libbad.so", &bytes), &["not a shared library"]);
}

#[test]
fn a_refused_lambda_has_not_run() {
    let (scratch, counts) = (Scratch::new(), Counts::new());
    let plugin = probe_with(&scratch, b"; panic=unwind", b";; panic=abort");
    Loader::of(plugin).counting(&counts).run().assert_code(CONFIG);
    assert!(counts.lines().is_empty());
}

#[test]
fn a_strange_file_name_stays_on_its_line() {
    let scratch = Scratch::new();
    let plugin = scratch.write("lib\nfoo\x1b[31m.so", "");
    let done = Loader::of(plugin).run().assert_code(CONFIG);
    assert!(!done.one_line().contains('\x1b'), "{done:?}");
}
