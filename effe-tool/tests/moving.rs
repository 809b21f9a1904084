//! What docs/coming-from.md shows of a move from AWS Lambda, moved and called.

use std::fs;

use crate::support::{Scratch, tool, tool::workspace};

/// A file before a change and after it, as a block of a diff shows both.
fn before_and_after(block: &str) -> (String, String) {
    let side = |gone: char| {
        let lines = block.lines().filter(|line| !line.starts_with(gone));
        lines.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect::<String>()
    };
    (side('+'), side('-'))
}

/// The blocks of diffs of a document.
fn diffs(text: &str) -> Vec<&str> {
    text.split("```diff\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn a_handler_for_lambda_http_moves_by_its_manifest_and_its_main() {
    let text = fs::read_to_string(workspace().join("docs/coming-from.md")).unwrap();
    let blocks = diffs(&text);
    let [source, manifest] = blocks.as_slice() else { panic!("{blocks:?}") };
    let (before, after) = before_and_after(source);
    assert!(before.contains("async fn main()") && !after.contains("fn main"), "{after}");
    // The handler is between the imports and `main`, and no line of it changes.
    let handler = |text: &str| {
        let begin = text.find("async fn handler").unwrap();
        text[begin..begin + text[begin..].find("\n}\n").unwrap()].to_owned()
    };
    assert_eq!(handler(&before), handler(&after));

    let (_, manifest) = before_and_after(manifest);
    let path = workspace().join("effe-abi");
    let here = format!("effe-abi = {{ path = {path:?},");
    let manifest = manifest.replace("effe-abi = { version = \"1\",", &here);
    assert!(manifest.contains(&here), "{manifest}");
    let package = "[package]\nname = \"moved\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n\n";
    let scratch = Scratch::new();
    scratch.write("moved/Cargo.toml", format!("{package}{manifest}"));
    scratch.write("moved/src/lib.rs", &after);
    let done = tool(&scratch).args(["invoke", "moved", "--path", "/?name=Ada"]).run().assert_code(0);
    assert_eq!(done.stdout, "Hello, Ada");
}
