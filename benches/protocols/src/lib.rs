//! What the programs of this package share.

/// The port from the first argument.
pub fn port() -> u16 {
    std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}
