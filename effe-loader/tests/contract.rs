//! What becomes of a plugin in C that breaks its contract: before Init it is refused, later it is told, and with
//! `--strict-plugin` more of it is seen.

use std::{fs, path::Path};

use crate::support::{
    Counts, Loader, Scratch, Server,
    plugins::{c, header_flag, of_c, patched},
    wait_until,
};

/// A lambda in C that could be loaded, but for what is between its roots and the end of its source.
const ENTRIES: &str = r#"
    #include "effe.h"
    static effe_status with_host(const effe_host *h, effe_failure *f) { (void)h; (void)f; return EFFE_OK; }
    static effe_status start(const effe_host *h, void **c, effe_failure *f) { *c = c; return with_host(h, f); }
    static effe_status run(void *c, const effe_exchange *e, effe_failure *f) { (void)c; (void)e; (void)f; return 0; }
    static effe_status stop(void *c, effe_failure *f) { (void)c; (void)f; return EFFE_OK; }
    static const void *extension(effe_str id) { (void)id; return EFFE_NULL; }
"#;

/// The line with which a plugin is refused whose root has these fields, and no notes.
#[track_caller]
fn refusal(scratch: &Scratch, root: &str) -> String {
    let source = format!("{ENTRIES}\nEFFE_EXPORT const effe_lambda effe_lambda_v1 = {{ {root} }};\n");
    let plugin = c(&source, &["-shared", "-fPIC", &header_flag()], &scratch.join("libbad.so"));
    let lines = [&["--port", "0"][..], &["--info"], &["--check"]].map(|mode| {
        let done = Loader::of(&plugin).args(mode).run().assert_code(78);
        done.one_line().to_owned()
    });
    assert!(lines.iter().all(|line| *line == lines[0]), "{lines:#?}");
    lines[0].clone()
}

#[test]
fn a_root_that_breaks_its_contract_is_refused_in_one_line_before_init() {
    let scratch = Scratch::new();
    let good = "sizeof(effe_lambda), 1, 0, {\"{}\", 2}, {\"x\", 1}, with_host, start, run, stop, with_host, extension";
    for (from, to, said) in [
        ("sizeof(effe_lambda)", "40", "effe_lambda_v1.size is 40 where 96 is the least"),
        (", 1, 0,", ", 2, 0,", "effe_lambda_v1.version is 2 where this loader knows 1"),
        (", 1, 0,", ", 1, 1ull << 40,", "effe_lambda_v1.flags has 0x10000000000"),
        ("{\"{}\", 2}", "{\"{}\", 1ull << 60}", "effe_lambda_v1.info has 1152921504606846976 bytes"),
        ("{\"{}\", 2}", "{0, 2}", "effe_lambda_v1.info is null"),
        ("{\"{}\", 2}", "{\"[]\", 2}", "its Info is not a JSON object"),
        ("{\"x\", 1}", "{\"\\xff\", 1}", "effe_lambda_v1.build is not UTF-8 at byte 0"),
        (" run,", " 0,", "effe_lambda_v1.run is null; give it all six entries"),
        (" extension", " 0", "effe_lambda_v1.extension is null"),
        ("{\"{}\", 2}", "{(const char *)8, 2}", "opening it kills the process (signal 11)"),
    ] {
        let line = refusal(&scratch, &good.replacen(from, to, 1));
        assert!(line.contains(said), "{said}: {line}");
        assert!(line.starts_with("effe-loader: cannot load "), "{line}");
    }
    let source = format!("{ENTRIES}\nEFFE_EXPORT const effe_lambda effe_lambda_v1 = {{ {good} }};\n");
    let plugin = c(&source, &["-shared", "-fPIC", &header_flag()], &scratch.join("libgood.so"));
    Loader::of(plugin).arg("--check").run().assert_code(0);
}

#[test]
fn what_can_be_seen_without_being_strict_is_told_and_does_no_harm() {
    let plugin = of_c("breaches");
    let init = |breaks: &str| {
        let done = Loader::of(&plugin).set(&format!("breaks={breaks}")).args(["--port", "0"]).run();
        done.assert_code(1).one_line().to_owned()
    };
    assert!(init("init-status").contains("its init failed: an entry reports status 77"));
    assert!(init("init-text").contains("its init failed: a\u{fffd}b"));
    let server = Loader::of(&plugin).serve();
    assert_eq!(server.get("/status").status, 500);
    server.wait_for_line("an entry reports status 77");
    assert_eq!(server.get("/text").text(), "refused");
    server.wait_for_line("a\u{fffd}b");
    assert_eq!(server.get("/null").status, 204);
    assert_eq!(server.get("/twice").text(), "once");
    server.stop();
    let server = Loader::of(&plugin).set("breaks=start-null").serve();
    server.wait_for_line("start made no Context");
    server.stop();
    let server = Loader::of(&plugin).set("breaks=ready").arg("--probes").serve();
    assert_eq!(server.get("/health/readiness").status, 200);
    server.wait_for_line("a function of its table effe.ready/1 is null; give it all 1");
    server.stop();
}

#[test]
fn a_check_looks_at_flags_and_tables_too() {
    let done = Loader::of(of_c("breaches")).arg("--check").run().assert_code(0);
    assert!(
        done.stderr.contains("the lambda's flags have 0x40000000, which this loader doesn't know"),
        "{done:#?}"
    );
    assert!(done.stderr.contains("its flags say that it always and that it never waits"), "{done:#?}");
    let done = Loader::of(of_c("breaches")).set("breaks=ready").arg("--check").run().assert_code(1);
    assert!(done.stderr.contains("a function of its table effe.ready/1 is null"), "{done:#?}");
}

/// What the log says of a breach.
#[track_caller]
fn is_told(server: &Server, what: &str) {
    server.wait_for_line(&format!("the lambda breaks its contract: {what}"));
}

#[test]
fn a_strict_loader_sees_what_is_used_after_its_run_and_lives() {
    for execution in ["inline", "pool"] {
        let server = Loader::of(of_c("breaches")).args(["--strict-plugin", "--execution", execution]).serve();
        let mut connection = server.connect();
        connection.send("GET /keep HTTP/1.1\r\nHost: test\r\nX-Kept: twelve bytes\r\n\r\n");
        assert_eq!(connection.reply().text(), "twelve bytes");
        assert_eq!(connection.get("/after").text(), "refused");
        for call in ["header", "state", "respond"] {
            is_told(&server, &format!("{call} was called with an exchange whose run has ended"));
        }
        assert_eq!(connection.get("/view").text(), "############", "it is written over");
        is_told(&server, "respond was given a view that was kept after its run");
        assert_eq!(connection.get("/other").text(), "refused");
        is_told(&server, "state was called with a host that is no exchange's");
        assert_eq!(connection.get("/twice").text(), "once");
        is_told(&server, "respond was called twice");
        assert_eq!(connection.post("/release", &[b'x'; 100_000]).text(), "released");
        is_told(&server, "a chunk was released twice");
        assert_eq!(connection.get("/").text(), "ok");
        server.stop();
    }
}

#[test]
fn a_lambda_that_keeps_its_contract_notices_nothing_of_a_strict_loader() {
    let lines = {
        let server = Loader::of(of_c("spout")).arg("--strict-plugin").serve();
        let mut connection = server.connect();
        for n in 0..100 {
            assert_eq!(connection.post("/echo", &vec![b'x'; n * 1000]).body.len(), n * 1000);
            assert_eq!(connection.get("/pieces").text(), "0 1 2 3 4 5 6 7 8 9 ");
        }
        server.stop()
    };
    assert!(!lines.iter().any(|line| line.contains("breaks its contract")), "{lines:#?}");
}

#[test]
fn info_is_read_from_the_file_and_nothing_of_it_is_run() {
    let scratch = Scratch::new();
    let mark = scratch.join("constructed");
    let source = format!(
        "{ENTRIES}\n#include <fcntl.h>\n\
         __attribute__((constructor)) static void construct(void) {{ open(\"{}\", O_CREAT, 0600); }}\n\
         EFFE_LAMBDA(0, \"{{\\\"name\\\":\\\"noted\\\"}}\", with_host, start, run, stop, with_host, extension);\n",
        mark.display()
    );
    let plugin = c(&source, &["-shared", "-fPIC", &header_flag()], &scratch.join("libnoted.so"));
    let done = Loader::of(&plugin).arg("--info").run().assert_code(0);
    assert_eq!((done.stdout.as_str(), mark.exists()), ("{\"name\":\"noted\"}\n", false));
    // Without its notes, as a plugin has none that was built before, it is opened.
    let bytes = patched(&fs::read(&plugin).unwrap(), b"effe\0\0\0\0", b"xxxx\0\0\0\0");
    let without = scratch.write("libplain.so", bytes);
    let done = Loader::of(without).arg("--info").run().assert_code(0);
    assert_eq!((done.stdout.as_str(), mark.exists()), ("{\"name\":\"noted\"}\n", true));
    fs::remove_file(&mark).unwrap();
    // So it is where somebody wants to be sure that it can be.
    Loader::of(&plugin).args(["--info", "--strict-plugin"]).run().assert_code(0);
    assert!(mark.exists());
    // What was stripped has them still.
    let stripped = scratch.join("libstripped.so");
    crate::support::plugins::succeed(
        std::process::Command::new("strip").arg("-o").arg(&stripped).arg(&plugin),
    );
    fs::remove_file(&mark).unwrap();
    let done = Loader::of(&stripped).arg("--info").run().assert_code(0);
    assert_eq!((done.stdout.as_str(), mark.exists()), ("{\"name\":\"noted\"}\n", false));
}

#[test]
fn a_plugin_of_export_has_its_info_in_its_file_too() {
    let scratch = Scratch::new();
    let probe: &Path = &crate::support::plugins::probe();
    let info = Loader::of(probe).arg("--info").run().assert_code(0).stdout;
    assert!(info.contains("\"name\":\"probe\""), "{info}");
    // A note says so, and not the table: that is not looked at.
    let bytes = patched(&fs::read(probe).unwrap(), b"effe_lambda_v1", b"effe_lambda_v2");
    let bytes = patched(
        &bytes,
        b"_1as_0lib_1header_0root_bmodule_bloader",
        b"_1as_0lib_1header_0root_bmodule_xloader",
    );
    let rootless = scratch.write("librootless.so", bytes);
    assert_eq!(Loader::of(&rootless).arg("--info").run().assert_code(0).stdout, info);
    let done = Loader::of(&rootless).arg("--check").run().assert_code(78);
    assert!(done.one_line().contains("it exports no lambda"), "{done:#?}");
}

#[test]
fn a_plugin_is_found_by_either_of_its_roots() {
    let scratch = Scratch::new();
    let bytes = fs::read(crate::support::plugins::probe()).unwrap();
    let roots = ["effe_lambda_v1", "_1as_0lib_1header_0root_bmodule_bloader"];
    for root in roots {
        let other = root.replace("_v1", "_v2").replace("loader", "xoader");
        let plugin = scratch.write("libone.so", patched(&bytes, root.as_bytes(), other.as_bytes()));
        let server = Loader::of(plugin).serve();
        assert_eq!(server.get("/").text(), "ok", "without {root}");
        assert_eq!(server.get("/fail").status, 500);
        server.wait_for_line("a secret of the author's");
        server.stop();
    }
}

#[test]
fn an_async_lambda_in_c_is_polled_waits_and_is_cancelled() {
    // Polled by a loader that needs no threads for it, watched or not.
    for flags in [&[][..], &["--strict-plugin"]] {
        let (counts, scratch) = (Counts::new(), Scratch::new());
        let ready = scratch.join("ready");
        let loader =
            Loader::of(of_c("patient")).counting(&counts).set(&format!("ready-if={}", ready.display()));
        let server = loader.arg("--probes").args(flags).serve();
        assert_eq!(server.get("/health/readiness").status, 503);
        scratch.write("ready", "");
        wait_until("it is ready", || server.get("/health/readiness").status == 200);
        let mut connection = server.connect();
        for n in 0..20 {
            assert_eq!(connection.get("/").text(), "at once", "{n}");
            assert_eq!(connection.get("/later").text(), "later", "{n}");
        }
        connection
            .send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nping\r\n");
        counts.wait_for("run", 41);
        connection.send("4\r\npong\r\n0\r\n\r\n");
        assert_eq!(connection.reply().text(), "pingpong");
        let mut leaving = server.connect();
        leaving.send("GET /never HTTP/1.1\r\nHost: test\r\n\r\n");
        counts.wait_for("run", 42);
        leaving.reset();
        counts.wait_for("cancelled", 1);
        // Its Context is not used again.
        counts.wait_for("stop", 1);
        let lines = server.stop();
        assert!(!lines.iter().any(|line| line.contains("breaks its contract")), "{lines:#?}");
        assert_eq!((counts.of("done"), counts.of("cancelled")), (41, 1));
        counts.assert_complete();
    }
}
