//! What the author of an effe lambda writes against.
//!
//! A lambda is one type. Its values are the **Contexts**: Start makes one, Run uses it, Stop destroys it. The crate is
//! built as a `cdylib`, and one loader binary serves any such library.
//!
//! ```
//! use std::io::Write;
//!
//! use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};
//!
//! struct Hello {
//!     greeting: String,
//! }
//!
//! impl Lambda for Hello {
//!     fn start(params: Params) -> Result<Self, StartError<Self>> {
//!         Ok(Hello { greeting: params.get("greeting").unwrap_or("Hello").to_owned() })
//!     }
//!
//!     fn run(hello: Started<Self>, request: &Request, response: &mut Response) -> Result {
//!         let hello = hello?; // a failed Start ends here: 500, logged
//!         response.header("content-type", "text/plain");
//!         writeln!(response, "{} from effe: {}", hello.greeting, request.path())?;
//!         Ok(())
//!     }
//! }
//!
//! export!(Hello); // Info comes from Cargo.toml unless given
//!
//! # fn main() {
//! // In a test, the same lambda goes through the same life cycle, without a server:
//! use effe_abi::testing::Effe;
//! let effe = Effe::with(&LAMBDA, &[("greeting", "Ciao")]);
//! assert_eq!(effe.get("/world").text(), "Ciao from effe: /world\n");
//! # }
//! ```
//!
//! Its `Cargo.toml` says that it is such a library:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! effe-abi = "1"
//! ```
//!
//! `effe-tool new hello` makes a crate like this; `effe-tool run hello` compiles and serves it, and
//! `effe-loader --plugin libhello.so` serves what was compiled, on any machine with a loader.
//!
//! | you want | here it is |
//! |---|---|
//! | what came: path, headers, body, peer, deadline | [`Request`] |
//! | to answer: status, headers, text, JSON, a stream | [`Response`] |
//! | what the operator has set | [`Params`] |
//! | to say that Run waits, streams or upgrades | [`Options`] |
//! | an error with another severity | [`Error`] |
//! | a test without a server | [`testing::Effe`] |
//!
//! With the feature `async`, the steps are `async fn`s (`AsyncLambda`). With the feature `tower`, a lambda can be any
//! `tower::Service` over the types of the `http` crate, for example an axum `Router` (`export!(tower app)`). Handlers
//! that were written for AWS Lambda are lambdas as they stand (`export!(lambda_http handler)`).
//!
//! What a lambda logs with the [`log`] macros, and every panic, goes to the operator's log.
//!
//! [`log`]: https://docs.rs/log
//!
#![doc = include_str!("../FEATURES.md")]
// On docs.rs each item also shows its feature.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(unreachable_pub)]

#[cfg(not(panic = "unwind"))]
compile_error!(
    "a lambda must be built with panic = \"unwind\": a panic that aborts ends the server for every client"
);

// What an author writes against.
#[cfg(feature = "async")]
mod async_lambda;
#[cfg(feature = "async")]
mod async_response;
#[cfg(feature = "async")]
mod body;
mod chunk;
#[cfg(feature = "cookies")]
mod cookies;
mod error;
#[cfg(feature = "aws")]
mod event_handler;
mod events;
mod headers;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "lambda_http")]
mod http_handler;
#[cfg(feature = "aws")]
mod invocation;
mod lambda;
mod missing;
mod params;
mod request;
mod response;
#[cfg(feature = "lambda_runtime")]
mod runtime_handler;
#[cfg(feature = "tower")]
pub mod tower;
mod upgraded;
#[cfg(feature = "query")]
mod urlencoded;
#[cfg(feature = "websocket")]
pub mod websocket;

// From the author's traits to the wire: the entries that a loader calls, and the calls of the loader's tables.
#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
#[cfg(feature = "async")]
mod async_entries;
mod backtrace;
mod calls;
mod export;
mod fence;
#[cfg(any(feature = "aws", feature = "tower"))]
mod function;
mod info;
mod note;
mod report;
#[cfg(feature = "async")]
mod runtime;
#[cfg(feature = "async")]
mod spawned;

// The wire itself, for loaders too.
pub mod c_root;
pub mod extensions;
pub mod fail_host;
pub mod raw;
pub mod waker;

// A loader in miniature, for an author's unit tests.
pub mod testing;

/// The crate that [`Response::set_cookie`] takes its cookies from. Needs the feature `cookies`.
#[cfg(feature = "cookies")]
pub use cookie;
#[cfg(feature = "aws")]
pub use invocation::Invocation;
/// The crate that messages of a WebSocket come from. Needs the feature `websocket`.
#[cfg(feature = "websocket")]
pub use tungstenite;
#[cfg(all(feature = "websocket", feature = "async"))]
pub use websocket::AsyncWebSocket;
#[cfg(feature = "websocket")]
pub use websocket::WebSocket;
#[cfg(feature = "async")]
pub use {async_lambda::AsyncLambda, async_response::AsyncResponse, body::Body};
pub use {
    chunk::Chunk,
    error::{Error, Level, Result, ResultExt},
    events::{Event, Events},
    export::Linked,
    lambda::{Lambda, Options, StartError, Started},
    params::Params,
    request::{Headers, Reader, Request},
    response::Response,
    upgraded::Upgraded,
};
