//! The trait of an async lambda: one whose steps can wait without keeping a thread.
//!
//! The runtime that they wait in is left to `runtime.rs`; how their futures reach the loader is left to
//! `async_entries.rs`.

use std::future::Future;

use crate::{
    async_response::AsyncResponse,
    error::Result,
    lambda::{Options, StartError, Started},
    params::Params,
    request::Request,
};

/// A lambda whose steps are `async fn`s; see [`Lambda`](crate::Lambda), which has the same steps and promises. Needs
/// the feature `async`.
///
/// Every step is polled and dropped inside a tokio runtime of the lambda's own, so `tokio::spawn`, timers, sockets,
/// sqlx, reqwest and hyper's clients work as usual. The loader polls Run on its own threads: a run that is ready at
/// once costs no switch of threads, and a run that waits keeps no thread. The loader can also have runs that wait again
/// and again spawned as tasks of the runtime. The runtime's own threads drive I/O, timers and spawned tasks; the
/// operator's parameter `runtime-threads` sets their number, by default half the number of CPUs. Retire ends them.
///
/// As everywhere in async Rust, a step must not block its thread, nor enter another runtime there (`block_on`). Work
/// that computes or waits for long goes to `tokio::task::spawn_blocking`. The loader notices a lambda that blocks
/// nevertheless, says so in the log, and no longer polls it on the server's threads.
///
/// A run is **cancelled** when the client leaves or the deadline passes: its future is dropped at the `.await` that it
/// has reached. After [`AsyncResponse::end`] only the deadline counts. Its Context is then stopped, or, with
/// [`Options::keep_cancelled`], used again.
///
/// ```
/// use std::time::Duration;
///
/// use effe_abi::{AsyncLambda, AsyncResponse, Params, Request, Result, StartError, Started, export};
///
/// struct Patient;
///
/// impl AsyncLambda for Patient {
///     async fn start(_: Params) -> Result<Self, StartError<Self>> {
///         Ok(Patient)
///     }
///
///     async fn run(
///         patient: Started<'_, Self>,
///         request: &Request,
///         response: &mut AsyncResponse<'_>,
///     ) -> Result {
///         patient?;
///         tokio::time::sleep(Duration::from_millis(1)).await;
///         response.text(format!("{} was worth the wait\n", request.path()));
///         Ok(())
///     }
/// }
///
/// export!(async Patient);
///
/// # fn main() {
/// # use effe_abi::testing::Effe;
/// assert_eq!(Effe::of(&LAMBDA).get("/it").text(), "/it was worth the wait\n");
/// # }
/// ```
pub trait AsyncLambda: Sized + Send + 'static {
    /// What the loader is told of Run beforehand; see [`Options`].
    const OPTIONS: Options = Options::new();

    /// As [`Lambda::init`](crate::Lambda::init).
    ///
    /// # Errors
    /// The effe doesn't serve, and the error goes to the log.
    fn init(params: Params) -> impl Future<Output = Result> + Send {
        let _ = params;
        async { Ok(()) }
    }

    /// Makes a Context. Called when a request finds no idle one.
    ///
    /// # Errors
    /// Run is called nevertheless, once, with this error in place of a Context, and decides what to answer.
    fn start(params: Params) -> impl Future<Output = Result<Self, StartError<Self>>> + Send;

    /// Answers one request. If Start failed, `context?` returns its error: the client gets 500, and the error goes to
    /// the log.
    ///
    /// # Errors
    /// The error goes to the log and never to the client. If nothing was written, the client gets 500; otherwise it
    /// gets what was written.
    fn run(
        context: Started<'_, Self>,
        request: &Request,
        response: &mut AsyncResponse<'_>,
    ) -> impl Future<Output = Result> + Send;

    /// Whether this lambda can serve now; see [`Lambda::ready`](crate::Lambda::ready).
    ///
    /// # Errors
    /// The effe says that it is not ready. The operator sees the error, a client doesn't.
    fn ready() -> impl Future<Output = Result> + Send {
        async { Ok(()) }
    }

    /// Destroys a Context. Called exactly once for each Context that Start made, and always polled to its end.
    ///
    /// # Errors
    /// The error goes to the log.
    fn stop(self) -> impl Future<Output = Result> + Send {
        async { Ok(()) }
    }

    /// Undoes Init. Called once, after the last Stop. The runtime ends afterwards.
    ///
    /// # Errors
    /// The error goes to the log.
    fn retire() -> impl Future<Output = Result> + Send {
        async { Ok(()) }
    }
}
