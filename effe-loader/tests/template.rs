//! The template, as a stranger takes it: copied out, renamed, built by cargo, served by its name.

use std::fs;

use crate::support::{
    Loader, Scratch,
    plugins::{cargo, profile_dir, succeed, workspace},
};

#[test]
fn the_template_copied_out_and_renamed_is_built_and_served_by_its_bare_name() {
    let scratch = Scratch::new();
    let template = workspace().join("plugin-template");
    let manifest = fs::read_to_string(template.join("Cargo.toml")).unwrap();
    let effe_abi = workspace().join("effe-abi");
    let manifest = manifest
        .replace("name = \"plugin-template\"", "name = \"good-morning\"")
        .replace("../effe-abi", effe_abi.to_str().unwrap());
    scratch.write("good-morning/Cargo.toml", manifest);
    scratch.write("good-morning/src/lib.rs", fs::read(template.join("src/lib.rs")).unwrap());
    // The versions that this workspace has: no network is needed, and what is compiled already is not again.
    scratch.write("good-morning/Cargo.lock", fs::read(workspace().join("Cargo.lock")).unwrap());
    let directory = scratch.join("good-morning");
    succeed(
        cargo()
            .args(["build", "--offline", "--quiet"])
            .env_remove("CARGO_TARGET_DIR")
            .env("CARGO_BUILD_BUILD_DIR", profile_dir().parent().unwrap())
            .current_dir(&directory),
    );
    let server = Loader::of("libgood_morning.so")
        .set("greeting=Buongiorno")
        .current_dir(directory.join("target/debug"))
        .serve();
    assert_eq!(server.get("/Roma").text(), "Buongiorno from effe: /Roma\n");
    server.stop();
    // Nearly right is not right, but it is understood.
    let done = Loader::of("libgood-morning.so").current_dir(&directory).run().assert_code(78);
    assert!(done.one_line().ends_with("did you mean target/debug/libgood_morning.so?"), "{done:#?}");
    let done = Loader::of("good-morning").arg("--info").current_dir(directory.join("target/debug")).run();
    assert!(done.assert_code(78).one_line().ends_with("did you mean libgood_morning.so?"));
}
