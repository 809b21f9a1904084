//! The lambda in the README is the template, letter by letter. So what readers copy compiles and is tested.

#[test]
fn the_readme_shows_the_template() {
    let (readme, template) =
        (include_str!("../../README.md"), include_str!("../../plugin-template/src/lib.rs"));
    assert!(readme.contains(&format!("```rust\n{template}```\n")));
    assert_eq!(readme.matches("```rust").count(), 1, "another piece of code needs a test of its own");
}
