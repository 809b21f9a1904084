//! The trait of a lambda that waits without a thread.

use std::future::Future;

use crate::{
    async_response::AsyncResponse,
    error::Result,
    lambda::{Options, StartError, Started},
    params::Params,
    request::Request,
};

/// A lambda whose steps are `async fn`s; see [`Lambda`](crate::Lambda), which has the same steps and promises.
///
/// Every step, and every drop of one, happens inside a tokio runtime of the lambda's own, so `tokio::spawn`, timers,
/// sockets, sqlx, reqwest and hyper's clients work as anywhere. Run is polled on the loader's threads: one that is
/// ready at once costs no hop, and one that waits costs no thread. Where most runs wait again and again, they go on
/// as tasks of the runtime instead, whose own threads drive I/O, timers and what is spawned; the operator's parameter
/// `runtime-threads` says how many they are, by default half as many as there are CPUs. Retire ends them.
///
/// As everywhere in async Rust, a step must not block its thread, nor enter another runtime there (`block_on`): what
/// computes or waits for long goes to `tokio::task::spawn_blocking`. The loader notices a lambda that blocks all the
/// same, says so in the log, and polls it elsewhere.
///
/// A run is **cancelled** when the client leaves or the deadline passes: its future is dropped at the `.await` it has
/// reached. Its Context is then stopped, or used again where [`Options::keep_cancelled`] says that it may be.
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
    /// What the loader may know beforehand; see [`Options`].
    const OPTIONS: Options = Options::new();

    /// As [`Lambda::init`](crate::Lambda::init).
    ///
    /// # Errors
    /// The effe does not serve; the operator reads the error.
    fn init(params: Params) -> impl Future<Output = Result> + Send {
        let _ = params;
        async { Ok(()) }
    }

    /// Makes a Context, whenever a request finds no idle one.
    ///
    /// # Errors
    /// Run is called all the same, with this error, and decides what to answer; that Context is never used again.
    fn start(params: Params) -> impl Future<Output = Result<Self, StartError<Self>>> + Send;

    /// Answers one request. `context?` ends here if Start failed: the client gets 500, the log the error.
    ///
    /// # Errors
    /// The error goes to the log, never to the client. If nothing was written the client gets 500; what was written
    /// stands.
    fn run(
        context: Started<'_, Self>,
        request: &Request,
        response: &mut AsyncResponse<'_>,
    ) -> impl Future<Output = Result> + Send;

    /// Whether this lambda can serve now; see [`Lambda::ready`](crate::Lambda::ready).
    ///
    /// # Errors
    /// The effe says that it is not ready; the operator reads the error, a client doesn't.
    fn ready() -> impl Future<Output = Result> + Send {
        async { Ok(()) }
    }

    /// Destroys a Context: called exactly once for each that Start made, and always awaited to its end.
    ///
    /// # Errors
    /// The error goes to the log.
    fn stop(self) -> impl Future<Output = Result> + Send {
        async { Ok(()) }
    }

    /// Once, after the last Stop: undoes Init. The runtime ends afterwards.
    ///
    /// # Errors
    /// The error goes to the log.
    fn retire() -> impl Future<Output = Result> + Send {
        async { Ok(()) }
    }
}
