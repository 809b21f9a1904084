//! What must not compile, doesn't; and what the author reads instead is worth reading.
//!
//! The texts beside the cases are those of one rustc. After an update of it, `TRYBUILD=overwrite` writes them anew;
//! read the difference before keeping it.

#[test]
fn what_would_be_unsound_or_broken_does_not_compile() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
