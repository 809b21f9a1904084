//! The trait that an author implements, and what goes in and out of it.

use std::fmt;

use crate::{
    error::{Boxed, Error, Level, Result},
    params::Params,
    raw::plugin_flags,
    request::Request,
    response::Response,
};

/// A lambda: the type that implements it is the **Context**, made by [`start`](Lambda::start), lent to
/// [`run`](Lambda::run), destroyed by [`stop`](Lambda::stop).
///
/// A Context is used by one request at a time, on any thread. Contexts come and go as the load does: keep in them
/// what is costly to make (a connection, a parser, a buffer), and no state that must survive.
pub trait Lambda: Sized + Send + 'static {
    /// What the loader may know beforehand; see [`Options`].
    const OPTIONS: Options = Options::new();

    /// Once per process (per generation, after a hot swap), before the first Start. For what all Contexts share;
    /// keep it in a `static OnceLock`.
    ///
    /// # Errors
    /// The effe does not serve; the operator reads the error.
    fn init(params: Params) -> Result {
        let _ = params;
        Ok(())
    }

    /// Makes a Context, whenever a request finds no idle one.
    ///
    /// # Errors
    /// Run is called all the same, with this error, and decides what to answer; that Context is never used again.
    fn start(params: Params) -> Result<Self, StartError<Self>>;

    /// Answers one request. `context?` ends here if Start failed: the client gets 500, the log the error.
    ///
    /// # Errors
    /// The error goes to the log, never to the client. If nothing was written the client gets 500; what was
    /// written stands.
    fn run(context: Started<'_, Self>, request: &Request, response: &mut Response<'_>) -> Result;

    /// Whether this lambda can serve now: its word goes into the effe's readiness. Asked when somebody asks the effe,
    /// at most once a second, on a thread of its own; what takes longer than 900 ms counts as "no".
    ///
    /// # Errors
    /// The effe says that it is not ready; the operator reads the error, a client doesn't.
    fn ready() -> Result {
        Ok(())
    }

    /// Destroys a Context: called exactly once for each that Start made.
    ///
    /// # Errors
    /// The error goes to the log.
    fn stop(self) -> Result {
        Ok(())
    }

    /// Once, after the last Stop: undoes Init.
    ///
    /// # Errors
    /// The error goes to the log.
    fn retire() -> Result {
        Ok(())
    }
}

/// What Run gets: the Context, or why Start failed.
pub type Started<'a, C> = std::result::Result<&'a mut C, &'a mut StartError<C>>;

/// Why Start failed, perhaps with what it had made so far.
///
/// Everything that [`Error`] takes turns into it by `?`.
pub struct StartError<C> {
    /// Taken by `context?`, which hands it on.
    error: Option<Error>,
    context: Option<C>,
}

impl<C> StartError<C> {
    /// An error without a Context.
    #[track_caller]
    pub fn new(source: impl Into<Boxed>) -> StartError<C> {
        StartError { error: Some(Error::new(source)), context: None }
    }

    /// The same error with a Context, which Run may use once and which will be stopped.
    #[must_use]
    pub fn with_context(mut self, context: C) -> StartError<C> {
        self.context = Some(context);
        self
    }

    /// The Context that came with the error.
    pub fn context(&mut self) -> Option<&mut C> {
        self.context.as_mut()
    }

    /// The error itself; `None` once `context?` has handed it on.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    pub(crate) fn into_context(self) -> Option<C> {
        self.context
    }
}

impl<C, E: Into<Boxed>> From<E> for StartError<C> {
    #[track_caller]
    fn from(source: E) -> StartError<C> {
        StartError::new(source)
    }
}

impl<C> From<Error> for StartError<C> {
    fn from(error: Error) -> StartError<C> {
        StartError { error: Some(error), context: None }
    }
}

/// What `context?` does: Start's error, its place and severity kept, becomes Run's.
impl<C> From<&mut StartError<C>> for Error {
    #[track_caller]
    fn from(failed: &mut StartError<C>) -> Error {
        failed.error.take().unwrap_or_else(|| Error::new("start failed"))
    }
}

impl<C> fmt::Display for StartError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => error.fmt(f),
            None => f.write_str("start failed"),
        }
    }
}

impl<C> fmt::Debug for StartError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C> StartError<C> {
    pub(crate) fn level(&self) -> Level {
        self.error.as_ref().map_or(Level::Error, Error::level)
    }
}

/// What the loader may know about Run beforehand. Nothing need be said: by default the loader finds out by
/// measuring, and request and response are held whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    flags: u64,
}

impl Options {
    /// Says nothing.
    pub const fn new() -> Options {
        Options { flags: 0 }
    }

    /// Run never waits: not for a file, a lock, a database, a sleep.
    #[must_use]
    pub const fn never_waits(self) -> Options {
        self.with(plugin_flags::NEVER_WAITS)
    }

    /// Run always waits for something.
    #[must_use]
    pub const fn waits(self) -> Options {
        self.with(plugin_flags::WAITS)
    }

    /// Run reads the body as it arrives, by [`Request::reader`].
    #[must_use]
    pub const fn stream_request(self) -> Options {
        self.with(plugin_flags::STREAM_REQUEST)
    }

    /// Run sends its answer piece by piece: past 64 KiB, or at a flush.
    #[must_use]
    pub const fn stream_response(self) -> Options {
        self.with(plugin_flags::STREAM_RESPONSE)
    }

    /// A Context whose run was cancelled may be used again: nothing of the run's stays behind in it. Otherwise it is
    /// stopped. For an async lambda only; no other run can be cancelled.
    #[must_use]
    pub const fn keep_cancelled(self) -> Options {
        self.with(plugin_flags::KEEP_CANCELLED)
    }

    pub(crate) const fn streams_response(self) -> bool {
        self.flags & plugin_flags::STREAM_RESPONSE != 0
    }

    pub(crate) const fn flags(self) -> u64 {
        self.flags
    }

    const fn with(mut self, flag: u64) -> Options {
        self.flags |= flag;
        self
    }
}
