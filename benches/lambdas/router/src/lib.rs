//! `hello` as an axum Router: the lambda, and what `control-axum` serves.

use std::hash::{BuildHasher, RandomState};

use axum::{Router, extract::State, routing::get};
use effe_abi::{Params, Result, export};

async fn hello(State(n): State<u64>) -> String {
    format!("Hello from Effe:  {n}\n")
}

/// The router.
pub fn router() -> Router {
    Router::new().route("/", get(hello)).with_state(1 + RandomState::new().hash_one(()) % 2)
}

async fn app(_: Params) -> Result<Router> {
    Ok(router())
}

export!(tower app);
