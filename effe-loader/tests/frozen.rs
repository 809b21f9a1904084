//! A plugin built on the wire as it was frozen, from the source that is kept for it, loads and runs in this loader.

use std::{path::PathBuf, sync::OnceLock};

use crate::support::{
    Loader,
    plugins::{cargo, profile_dir, succeed, workspace},
};

fn frozen() -> PathBuf {
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

#[test]
fn a_plugin_of_the_day_of_the_freeze_is_served() {
    let info = Loader::of(frozen()).arg("--info").run().assert_code(0);
    assert!(info.stdout.contains("\"frozen\""), "{}", info.stdout);
    let server = Loader::of(frozen()).serve();
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
}

#[test]
fn its_failed_init_keeps_this_loader_from_serving() {
    let done = Loader::of(frozen()).set("fail=1").run().assert_code(1);
    assert!(done.stderr.contains("told to fail"), "{}", done.stderr);
}
