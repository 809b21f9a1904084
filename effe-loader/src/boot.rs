//! The loader's whole life in order, from arguments to exit code.

#[doc(hidden)]
pub mod bench;
pub mod cli;
