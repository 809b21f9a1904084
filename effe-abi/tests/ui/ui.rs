//! What must not compile doesn't, and the compiler's message helps the author.
//!
//! The messages beside the cases are those of one version of rustc. After an update, `TRYBUILD=overwrite` writes them
//! anew; read the difference before you commit it.

#[test]
fn what_would_be_unsound_or_broken_does_not_compile() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
