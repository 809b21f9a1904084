//! How a call of the lambda ended.

/// What came of an entry.
pub(super) enum Outcome {
    Ok,
    Error(String),
    /// The lambda's panic hook has logged it.
    Panic(String),
}
