//! The guest book in axum, one thread for connections: `control-guestbook-axum PATH PORT`. What waits is handed to
//! `spawn_blocking`.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use control_guestbook::{Draft, Failed, Pool, Wanted, add, arguments, newest, pool};
use tokio::{net::TcpListener, runtime::Builder, task::spawn_blocking};

async fn show(State(pool): State<Pool>, Query(wanted): Query<Wanted>) -> Result<Response, StatusCode> {
    let entries = waited(spawn_blocking(move || newest(&pool, &wanted)).await)?;
    let headers = [(header::VARY, "accept"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Json(entries)).into_response())
}

async fn sign(State(pool): State<Pool>, Json(draft): Json<Draft>) -> Result<Response, StatusCode> {
    let draft = match draft.checked() {
        Ok(draft) => draft,
        Err(reason) => return Ok((StatusCode::BAD_REQUEST, reason).into_response()),
    };
    let kept = waited(spawn_blocking(move || add(&pool, &draft)).await)?;
    let cookie = kept.cookie().map(|cookie| [(header::SET_COOKIE, cookie)]);
    Ok((StatusCode::CREATED, cookie, Json(kept)).into_response())
}

/// What was waited for, or 500.
fn waited<T>(result: Result<Result<T, Failed>, tokio::task::JoinError>) -> Result<T, StatusCode> {
    result.ok().and_then(Result::ok).ok_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn main() -> Result<(), Failed> {
    let (path, port) = arguments();
    let router = Router::new().route("/", get(show).post(sign)).with_state(pool(path)?);
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        axum::serve(listener, router).await
    })?;
    Ok(())
}
