//! An echo over WebSockets as an axum Router: the lambda, and what `control-websocket` serves.

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    routing::any,
};
use effe_abi::{Params, Result, export};

/// The router.
pub fn router() -> Router {
    Router::new().route("/", any(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) }))
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if let Message::Text(_) | Message::Binary(_) = message
            && socket.send(message).await.is_err()
        {
            return;
        }
    }
}

async fn app(_: Params) -> Result<Router> {
    Ok(router())
}

export!(tower app);
