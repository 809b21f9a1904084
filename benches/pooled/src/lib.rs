//! A guest book as an axum Router with a pool of sqlx: the lambda, and what `control-pooled` serves. The pool is of the
//! Router, so all requests share it. The parameter `path` names the database.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use effe_abi::{Params, Result, export};
use serde::{Deserialize, Serialize};
use sqlx::{
    FromRow, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

/// `?newest=10`.
#[derive(Deserialize)]
struct Wanted {
    newest: u32,
}

#[derive(Deserialize)]
struct Draft {
    name: String,
    text: String,
}

#[derive(FromRow, Serialize)]
struct Kept {
    id: i64,
    at: String,
    name: String,
    text: String,
}

async fn app(params: Params) -> Result<Router> {
    Ok(router(params.required("path")?).await?)
}

export!(tower app);

/// The router, with its pool and its table.
///
/// # Errors
/// If the database can't be opened or made.
pub async fn router(path: &str) -> sqlx::Result<Router> {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePoolOptions::new().connect_with(options).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS entries (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
             name TEXT NOT NULL,
             text TEXT NOT NULL
         ) STRICT",
    )
    .execute(&pool)
    .await?;
    Ok(Router::new().route("/", get(show).post(sign)).with_state(pool))
}

async fn show(
    State(pool): State<SqlitePool>,
    Query(wanted): Query<Wanted>,
) -> std::result::Result<Json<Vec<Kept>>, StatusCode> {
    let select = sqlx::query_as("SELECT id, at, name, text FROM entries ORDER BY id DESC LIMIT ?1");
    select.bind(wanted.newest).fetch_all(&pool).await.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn sign(
    State(pool): State<SqlitePool>,
    Json(draft): Json<Draft>,
) -> std::result::Result<(StatusCode, Json<Kept>), StatusCode> {
    let insert =
        sqlx::query_as("INSERT INTO entries (name, text) VALUES (?1, ?2) RETURNING id, at, name, text");
    let kept = insert.bind(draft.name).bind(draft.text).fetch_one(&pool).await;
    kept.map(|kept| (StatusCode::CREATED, Json(kept))).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
