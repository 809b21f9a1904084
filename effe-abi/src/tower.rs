//! Any `tower::Service` over the types of the `http` crate as a lambda: an axum `Router`, with its middleware and all.
//!
//! ```
//! use axum::{Router, routing::get};
//! use effe_abi::{Params, Result, export};
//!
//! async fn app(params: Params) -> Result<Router> {
//!     let greeting = params.get("greeting").unwrap_or("Hello");
//!     Ok(Router::new().route("/", get(move || async move { format!("{greeting}\n") })))
//! }
//!
//! export!(tower app);
//!
//! # fn main() {
//! # use effe_abi::testing::Effe;
//! assert_eq!(Effe::of(&LAMBDA).get("/").text(), "Hello\n");
//! # }
//! ```
//!
//! `app` is called once, by Init: if it fails, the effe does not serve. Each Context is a clone of what it returned, as
//! axum's own server has a clone for each connection. Bodies are streams, both ways.
//!
//! A service of one's own for each Context, or one with other options, is an [`AsyncLambda`] whose Run calls [`serve`].

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    ptr::NonNull,
};

use tower_service::Service;

use crate::{
    async_entries::async_table,
    async_lambda::AsyncLambda,
    async_response::AsyncResponse,
    body::Body,
    error::{Boxed, Error, Result},
    export::Table,
    lambda::{Options, StartError, Started},
    params::Params,
    request::Request,
    runtime,
};

/// Answers a request by a service: waits until it is ready, calls it, and sends what it returns.
///
/// A service that wants another type of body than [`Body`] gets it from `tower`'s `map_request`.
///
/// # Errors
/// The service's error, or why its answer could not be sent.
pub async fn serve<S, B>(service: &mut S, request: &Request, response: &mut AsyncResponse<'_>) -> Result
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<Boxed>>,
    B: http_body::Body<Error: Into<Boxed>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(Error::new)?;
    // As `to_http` does it, without moving the request out of a result.
    let mut converted = http::Request::new(request.body());
    request.fill(&mut converted)?;
    let answer = service.call(converted).await.map_err(Error::new)?;
    response.send_http(answer).await
}

/// The table of a lambda that is a function which makes a service.
pub const fn tower_table<F, Fut, S, B>(app: F, info: &'static str, build: &'static str) -> Table
where
    F: Fn(Params) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<S>> + Send + 'static,
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<Boxed>, Future: Send>,
    S: Clone + Send + 'static,
    B: http_body::Body<Error: Into<Boxed>, Data: Send> + Send + 'static,
{
    // What it shows is that there is an `F`: the entries of the table have only its type.
    let _ = app;
    const { assert!(size_of::<F>() == 0, "export!(tower …) takes a function that captures nothing") };
    async_table::<Tower<F, S>>(info, build)
}

/// A Context: a clone of the service that `F` made.
struct Tower<F, S>(S, PhantomData<fn() -> F>);

impl<F, Fut, S, B> AsyncLambda for Tower<F, S>
where
    F: Fn(Params) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<S>> + Send + 'static,
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<Boxed>, Future: Send>,
    S: Clone + Send + 'static,
    B: http_body::Body<Error: Into<Boxed>, Data: Send> + Send + 'static,
{
    const OPTIONS: Options = Options::new().stream_request().stream_response().keep_cancelled();

    async fn init(params: Params) -> Result {
        let app = function::<F>()(params).await?;
        runtime::keep(params.host(), app);
        Ok(())
    }

    async fn start(params: Params) -> Result<Self, StartError<Self>> {
        let app = runtime::kept::<S>(params.host()).ok_or("init has made no service")?;
        Ok(Tower(app, PhantomData))
    }

    async fn run(tower: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        serve(&mut tower?.0, request, response).await
    }
}

/// The function that `tower_table` was given.
#[expect(unsafe_code, reason = "a function's type has one value, and that takes no memory")]
fn function<F: Copy + 'static>() -> F {
    // SAFETY: `tower_table`, which alone names this type, has seen a value of it, of size 0; a copy of such a value is
    // a read of no bytes.
    unsafe { NonNull::<F>::dangling().read() }
}
