//! The lambdas in the README are the template and an example, letter by letter, and the one in the tutorial is an
//! example. So what readers copy compiles and is tested.

#[test]
fn the_readme_shows_the_template() {
    let (readme, template) =
        (include_str!("../../README.md"), include_str!("../../plugin-template/src/lib.rs"));
    assert!(readme.contains(&format!("```rust\n{template}```\n")));
    assert_eq!(readme.matches("```rust").count(), 1, "another piece of code needs a test of its own");
}

#[test]
fn the_readme_shows_the_example_in_c() {
    let (readme, example) = (include_str!("../../README.md"), include_str!("../../examples/c/hello.c"));
    assert!(readme.contains(&format!("```c\n{example}```\n")));
    assert_eq!(readme.matches("```c\n").count(), 1, "another piece of code needs a test of its own");
    assert!(example.lines().count() <= 30, "it is the shortest that shows all entries");
}

#[test]
fn the_tutorial_shows_the_shortener() {
    let (tutorial, shortener) =
        (include_str!("../../docs/tutorial.md"), include_str!("../../examples/shortener/src/lib.rs"));
    assert!(tutorial.contains(&format!("```rust src/lib.rs\n{shortener}```\n")));
}
