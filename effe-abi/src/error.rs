//! What an author returns when something went wrong: any error, its place in the source and its severity; and what a
//! status of the wire is as an `io::Error`.
//!
//! How an error becomes a line of the log is left to `fence.rs` and the loader.

use std::{error, fmt, io, panic::Location};

use crate::raw::status;

/// `Ok`, or an [`Error`] that goes to the operator's log. The client never sees it.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

pub(crate) type Boxed = Box<dyn error::Error + Send + Sync>;

/// Any error, with the file and line of the `?` that returned it, and the severity that it is logged at.
///
/// Whatever can become a boxed error becomes this one by `?` or `.into()`: std errors, `&str`, `String`, the errors of
/// other crates. This type can't implement `std::error::Error` itself, because that conversion would then conflict with
/// `From<T> for T`.
///
/// ```
/// fn limit(text: &str) -> effe_abi::Result<u32> {
///     Ok(text.parse::<u32>()?)
/// }
/// let err = limit("ten").unwrap_err();
/// assert!(err.to_string().starts_with("invalid digit found in string ("));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    source: Boxed,
    location: &'static Location<'static>,
    level: Level,
}

impl Error {
    /// An error of severity [`Level::Error`]. Its place is the caller's.
    #[track_caller]
    pub fn new(source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Error {
        Error(Box::new(Inner { source: source.into(), location: Location::caller(), level: Level::Error }))
    }

    /// The same error, to be logged at another severity.
    #[must_use]
    pub fn at_level(mut self, level: Level) -> Error {
        self.0.level = level;
        self
    }

    /// The severity that it is logged at.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// The place in the author's source.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location
    }

    /// What went wrong.
    pub fn source(&self) -> &(dyn error::Error + Send + Sync + 'static) {
        &*self.0.source
    }
}

impl<E: Into<Boxed>> From<E> for Error {
    #[track_caller]
    fn from(source: E) -> Error {
        Error::new(source)
    }
}

/// The whole chain of causes and the place: `no database: connection refused (src/lib.rs:71:24)`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.source)?;
        let mut cause = self.0.source.source();
        while let Some(err) = cause {
            write!(f, ": {err}")?;
            cause = err.source();
        }
        write!(f, " ({})", self.0.location)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How serious something is: syslog's severities, with syslog's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Somebody should look now. Panics have this level.
    Critical = 2,
    /// A request failed. Errors have this level unless the author chooses another.
    Error = 3,
    /// Not wrong yet.
    Warning = 4,
    /// Normal but worth a line.
    Notice = 5,
    /// Of interest now and then.
    Info = 6,
    /// Helps to find a fault.
    Debug = 7,
}

/// Gives the error of a result another severity: `query().level(Level::Debug)?`.
pub trait ResultExt<T> {
    /// Turns the error into an [`Error`] of this severity. Its place is the caller's.
    ///
    /// # Errors
    /// The error of `self`, if it is one.
    fn level(self, level: Level) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    #[track_caller]
    fn level(self, level: Level) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(err) => Err(err.into().at_level(level)),
        }
    }
}

/// A status of the wire, other than OK, as an `io::Error`.
pub(crate) fn failure(status: u32) -> io::Error {
    match status {
        status::GONE => io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"),
        status::TIMEOUT => io::Error::new(io::ErrorKind::TimedOut, "the deadline has passed"),
        status::TOO_LARGE => io::Error::new(io::ErrorKind::FileTooLarge, "larger than the operator's limit"),
        status::INVALID => io::Error::new(io::ErrorKind::InvalidInput, "refused by the loader as malformed"),
        status => io::Error::other(format!("the loader reports status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_place_the_level_and_the_causes() {
        let line = line!() + 1;
        let fails = || -> Result { Err(io::Error::other(io::Error::other("disk full")))? };
        let err = fails().unwrap_err();
        assert_eq!((err.location().line(), err.level()), (line, Level::Error));
        assert!(err.to_string().starts_with("disk full"), "{err}");
        assert!(err.to_string().contains(&format!("error.rs:{line}:")), "{err}");
    }

    #[test]
    fn text_is_an_error_and_its_level_can_be_chosen() {
        let text: std::result::Result<(), &str> = Err("no such city");
        let err = text.level(Level::Debug).unwrap_err();
        assert_eq!((err.level(), err.source().to_string().as_str()), (Level::Debug, "no such city"));
        assert_eq!(err.location().file(), file!());
    }
}
