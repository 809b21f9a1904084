//! Any `tower::Service` over the types of the `http` crate as a lambda: for example an axum `Router` with its
//! middleware. Needs the feature `tower`.
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
//! Init calls `app` once; if it fails, the effe doesn't serve. Each Context is a clone of the service that it returned,
//! as axum's own server makes a clone for each connection. Bodies are streams in both directions.
//!
//! With the feature `upgrade`, such a service can take its connection over by what hyper gives it: axum's
//! `WebSocketUpgrade` works as it stands.
//!
//! For a service that is made anew for each Context, or for other options, write an [`AsyncLambda`] whose Run calls
//! [`serve`].
//!
//! The conversion between the types is left to `http.rs`.

#[cfg(feature = "upgrade")]
mod upgrade;

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::pin,
};

use tower_service::Service;

use crate::{
    async_entries::async_table,
    async_lambda::AsyncLambda,
    async_response::AsyncResponse,
    body::Body,
    error::{Boxed, Error, Result},
    function::{assert_captures_nothing, function},
    lambda::{Options, StartError, Started},
    params::Params,
    raw::Plugin,
    request::Request,
    runtime,
};

/// Answers a request with a service: waits until the service is ready, calls it, and sends what it returns. Needs the
/// feature `tower`.
///
/// For a service that takes another type of body than [`Body`], use `tower`'s `map_request`.
///
/// # Errors
/// The service's error, or why its answer could not be sent.
pub async fn serve<S, B>(service: &mut S, request: &Request, response: &mut AsyncResponse<'_>) -> Result
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<Boxed>>,
    B: http_body::Body<Error: Into<Boxed>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(Error::new)?;
    #[cfg(feature = "upgrade")]
    if response.offered_protocols().is_some() {
        return upgrade::serve(service, request, response).await;
    }
    // Not by `to_http`: to move the request out of its result would cost a copy.
    let mut converted = http::Request::new(request.body());
    request.fill(&mut converted, response.spare_map())?;
    let answer = {
        // To await it where it is made saves two moves of it.
        let answer = pin!(service.call(converted));
        answer.await.map_err(Error::new)?
    };
    response.send_http(answer).await
}

/// The table of the lambda for `app`, a function that makes a service.
pub const fn tower_table<F, Fut, S, B>(app: F, info: &'static str, build: &'static str) -> Plugin
where
    F: Fn(Params) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<S>> + Send + 'static,
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<Boxed>, Future: Send>,
    S: Clone + Send + 'static,
    B: http_body::Body<Error: Into<Boxed>, Data: Send> + Send + 'static,
{
    // The entries of the table know the function by its type alone, and make its value from nothing. That `app` was
    // passed in proves that there is such a value.
    let _ = app;
    assert_captures_nothing::<F>();
    async_table::<Tower<F, S>>(info, build)
}

/// A Context: a clone of the service that the function `F` made.
struct Tower<F, S>(S, PhantomData<fn() -> F>);

impl<F, Fut, S, B> AsyncLambda for Tower<F, S>
where
    F: Fn(Params) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<S>> + Send + 'static,
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<Boxed>, Future: Send>,
    S: Clone + Send + 'static,
    B: http_body::Body<Error: Into<Boxed>, Data: Send> + Send + 'static,
{
    const OPTIONS: Options = {
        let options = Options::new().stream_request().stream_response().keep_cancelled();
        if cfg!(feature = "upgrade") { options.upgrades() } else { options }
    };

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
