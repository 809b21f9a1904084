//! What is to be said of a crash, and of the places where crashes have been.

use super::symbols::Location;

/// A line of the log that may wait until it is known where the process has crashed.
#[derive(Default)]
pub struct CrashLine {
    /// What has happened, and to whom.
    pub what: String,
    /// Where, as far as it is known.
    pub place: String,
    /// What else.
    pub rest: String,
    pub fields: Vec<(&'static str, String)>,
}

/// A place in a plugin: the number of the generation, and the address in the file.
pub type Place = (u64, u64);

/// What is known of a place.
pub enum Located {
    /// A thread looks for it; whoever is to be told of it.
    Soon(Vec<CrashLine>),
    /// `None` if nothing is known of it.
    Done(Option<Location>),
}
