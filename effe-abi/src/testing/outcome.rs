//! How a call of the lambda has ended, for `host.rs`, which calls it, and `exchange.rs`, which makes an answer of it.

/// How an entry has ended.
pub(super) enum Outcome {
    Ok,
    Error(String),
    /// The lambda's panic hook has logged it already.
    Panic(String),
}
