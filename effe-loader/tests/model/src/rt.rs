//! The same names as the loader's `rt`, as far as the modelled files use them.

pub mod sync;
