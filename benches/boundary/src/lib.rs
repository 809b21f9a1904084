//! What it costs to cross from the loader into a lambda and back: `cargo bench --package boundary`.
