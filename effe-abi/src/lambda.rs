//! The trait that an author implements, what Start may fail with, and what a lambda may say of itself beforehand.
//!
//! When each step is called is left to the loader; how a call of the wire becomes a call of a step is left to
//! `export.rs`.

use std::fmt;

use crate::{
    error::{Boxed, Error, Level, Result},
    extensions::{ANSWERS_EARLY, UPGRADES},
    params::Params,
    raw::plugin_flags,
    request::Request,
    response::Response,
};

/// A lambda. A value of the type that implements it is a **Context**: [`start`](Lambda::start) makes it,
/// [`run`](Lambda::run) borrows it, [`stop`](Lambda::stop) destroys it.
///
/// A Context serves one request at a time, on any thread. There are more of them under more load and fewer under less:
/// keep in them what is costly to make (a connection, a parser, a buffer), and no state that must survive.
pub trait Lambda: Sized + Send + 'static {
    /// What the loader is told of Run beforehand; see [`Options`].
    const OPTIONS: Options = Options::new();

    /// Called once, before the first Start. A hot swap loads the lambda anew and calls it again there. Make here what
    /// all Contexts share, and keep it in a `static OnceLock`. The new generation has statics of its own: until the one
    /// before retires, both have what their Init has made.
    ///
    /// # Errors
    /// The effe doesn't serve, and the error goes to the log.
    fn init(params: Params) -> Result {
        let _ = params;
        Ok(())
    }

    /// Makes a Context. Called when a request finds no idle one.
    ///
    /// # Errors
    /// Run is called nevertheless, once, with this error in place of a Context, and decides what to answer.
    fn start(params: Params) -> Result<Self, StartError<Self>>;

    /// Answers one request. If Start failed, `context?` returns its error: the client gets 500, and the error goes to
    /// the log.
    ///
    /// # Errors
    /// The error goes to the log and never to the client. If nothing was written, the client gets 500; otherwise it
    /// gets what was written.
    fn run(context: Started<'_, Self>, request: &Request, response: &mut Response<'_>) -> Result;

    /// Whether this lambda can serve now. Called when a probe asks the effe whether it is ready, at most once a second,
    /// on a thread of its own. If it takes longer than 900 ms, that counts as an error.
    ///
    /// # Errors
    /// The effe says that it is not ready. The operator sees the error, a client doesn't.
    fn ready() -> Result {
        Ok(())
    }

    /// Destroys a Context. Called exactly once for each Context that Start made.
    ///
    /// # Errors
    /// The error goes to the log.
    fn stop(self) -> Result {
        Ok(())
    }

    /// Undoes Init. Called once, after the last Stop.
    ///
    /// # Errors
    /// The error goes to the log.
    fn retire() -> Result {
        Ok(())
    }
}

/// What Run gets: the Context, or the error of Start.
pub type Started<'a, C> = std::result::Result<&'a mut C, &'a mut StartError<C>>;

/// Why Start failed, perhaps with a Context that it had made so far.
///
/// Whatever can become an [`Error`] becomes this by `?`.
pub struct StartError<C> {
    /// `None` once `context?` has taken it.
    error: Option<Error>,
    context: Option<C>,
}

impl<C> StartError<C> {
    /// An error without a Context.
    #[track_caller]
    pub fn new(source: impl Into<Boxed>) -> StartError<C> {
        StartError { error: Some(Error::new(source)), context: None }
    }

    /// The same error with a Context. Run may use it once; then it is stopped.
    #[must_use]
    pub fn with_context(mut self, context: C) -> StartError<C> {
        self.context = Some(context);
        self
    }

    /// The Context that came with the error.
    pub fn context(&mut self) -> Option<&mut C> {
        self.context.as_mut()
    }

    /// The error itself; `None` once `context?` has returned it.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    pub(crate) fn into_context(self) -> Option<C> {
        self.context
    }

    pub(crate) fn level(&self) -> Level {
        self.error.as_ref().map_or(Level::Error, Error::level)
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

/// This is what `context?` does: the error of Start becomes the error of Run, with its place and severity.
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

/// What the loader is told of Run beforehand. Without any of it, the loader measures whether Run waits, and requests
/// and answers are held whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    flags: u64,
}

impl Options {
    /// No option.
    pub const fn new() -> Options {
        Options { flags: 0 }
    }

    /// Run never waits, neither for a file nor a lock, a database or a timer.
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

    /// Run sends its answer piece by piece: whenever 64 KiB are waiting, and at a flush.
    #[must_use]
    pub const fn stream_response(self) -> Options {
        self.with(plugin_flags::STREAM_RESPONSE)
    }

    /// Run may go on after its answer, which [`Response::end`] sends. Such a lambda never runs on the server's own
    /// threads, where the rest of Run would keep other clients waiting. An async lambda, and one that declares
    /// [`stream_response`](Options::stream_response), may do so without this option.
    #[must_use]
    pub const fn answers_early(self) -> Options {
        self.with(ANSWERS_EARLY)
    }

    /// Run may take its connection over, by [`Response::upgrade`]. A synchronous lambda that does so never runs on the
    /// server's own threads. Without this option, what clients offer to switch to is ignored.
    #[must_use]
    pub const fn upgrades(self) -> Options {
        self.with(UPGRADES)
    }

    /// A Context whose run was cancelled may be used again, because a run leaves nothing half done in it. Without this
    /// option it is stopped. For async lambdas: other runs can't be cancelled.
    #[must_use]
    pub const fn keep_cancelled(self) -> Options {
        self.with(plugin_flags::KEEP_CANCELLED)
    }

    pub(crate) const fn streams_response(self) -> bool {
        self.flags & plugin_flags::STREAM_RESPONSE != 0
    }

    /// Whether a lambda that isn't async may end its answer before Run returns.
    pub(crate) const fn may_answer_early(self) -> bool {
        self.flags & (ANSWERS_EARLY | plugin_flags::STREAM_RESPONSE) != 0
    }

    pub(crate) const fn may_upgrade(self) -> bool {
        self.flags & UPGRADES != 0
    }

    pub(crate) const fn flags(self) -> u64 {
        self.flags
    }

    const fn with(mut self, flag: u64) -> Options {
        self.flags |= flag;
        self
    }
}
