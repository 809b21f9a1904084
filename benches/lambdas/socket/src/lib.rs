//! Echoes what comes over WebSockets, each of which has a task of the lambda's runtime.

use effe_abi::{AsyncLambda, AsyncResponse, Options, Params, Request, Result, StartError, Started, export};

struct Socket;

impl AsyncLambda for Socket {
    const OPTIONS: Options = Options::new().upgrades();

    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Socket)
    }

    async fn run(socket: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        socket?;
        let mut socket = request.websocket(response)?;
        tokio::spawn(async move {
            while let Ok(Some(message)) = socket.receive().await {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

export!(async Socket);
