//! The plugin's file: where it is looked for, and what may happen to it while it is served.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::support::{Loader, Scratch, Server, load, plugins::probe};

/// Serves a copy of the probe that something may happen to.
fn copy(scratch: &Scratch) -> (std::path::PathBuf, Server) {
    let plugin = scratch.join("libcopy.so");
    fs::copy(probe(), &plugin).unwrap();
    let server = Loader::of(&plugin).serve();
    (plugin, server)
}

/// Asserts that all of the lambda still works: also what was never touched before, such as unwinding.
#[track_caller]
fn assert_unharmed(server: Server) {
    assert_eq!(server.get("/panic").status, 500);
    assert_eq!(server.get("/log?text=said").status, 200);
    assert_eq!(load(server.address, "/echo", 100, 4), 100);
    server.stop();
}

#[test]
fn a_plugin_that_is_overwritten_in_place_serves_on() {
    let scratch = Scratch::new();
    let (plugin, server) = copy(&scratch);
    let zeros = vec![0; usize::try_from(fs::metadata(&plugin).unwrap().len()).unwrap()];
    fs::write(&plugin, zeros).unwrap();
    assert_unharmed(server);
}

#[test]
fn a_plugin_that_is_truncated_serves_on() {
    let scratch = Scratch::new();
    let (plugin, server) = copy(&scratch);
    File::create(&plugin).unwrap();
    assert_unharmed(server);
}

#[test]
fn a_plugin_that_is_removed_or_replaced_serves_on() {
    let scratch = Scratch::new();
    let (plugin, server) = copy(&scratch);
    fs::remove_file(&plugin).unwrap();
    fs::write(&plugin, "another file").unwrap();
    assert_unharmed(server);
}

#[test]
fn nothing_is_written_and_no_directory_need_be_writable() {
    let scratch = Scratch::new();
    let plugin = scratch.join("bin/libcopy.so");
    fs::create_dir(scratch.join("bin")).unwrap();
    fs::create_dir(scratch.join("tmp")).unwrap();
    fs::copy(probe(), &plugin).unwrap();
    fs::set_permissions(&plugin, PermissionsExt::from_mode(0o444)).unwrap();
    for directory in ["bin", "tmp"] {
        fs::set_permissions(scratch.join(directory), PermissionsExt::from_mode(0o555)).unwrap();
    }
    let server = Loader::of(&plugin)
        .current_dir(scratch.join("bin"))
        .env("TMPDIR", scratch.join("tmp"))
        .env("HOME", "/nonexistent")
        .serve();
    let n_files = |directory: &str| fs::read_dir(scratch.join(directory)).unwrap().count();
    assert_eq!((n_files("bin"), n_files("tmp")), (1, 0));
    assert_unharmed(server);
    assert_eq!((n_files("bin"), n_files("tmp")), (1, 0));
}

#[test]
fn a_bare_name_is_a_file_of_the_working_directory() {
    let (here, elsewhere) = (Scratch::new(), Scratch::new());
    fs::copy(probe(), here.join("libcopy.so")).unwrap();
    elsewhere.write("libcopy.so", "not this one");
    // Where the dynamic linker would look for a name without a slash.
    let loader = || Loader::of("libcopy.so").env("LD_LIBRARY_PATH", elsewhere.path());
    assert_unharmed(loader().current_dir(here.path()).serve());
    let done = Loader::of("libcopy.so").env("LD_LIBRARY_PATH", here.path()).current_dir(Path::new("/")).run();
    assert!(done.assert_code(78).one_line().contains("no such file in /"));
}

#[test]
fn a_symbolic_link_and_a_name_of_any_bytes_will_do() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let scratch = Scratch::new();
    let odd = scratch.path().join(OsStr::from_bytes(b"a name \xff\xfe;%$.so"));
    fs::copy(probe(), &odd).unwrap();
    std::os::unix::fs::symlink(&odd, scratch.join("link")).unwrap();
    for plugin in [odd, scratch.join("link")] {
        let server = Loader::of(plugin).serve();
        assert_eq!(server.get("/").status, 200);
        server.stop();
    }
}
