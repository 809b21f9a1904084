//! Echoes what comes over WebSockets, in the run; with `--set task=yes` in a task of the lambda's runtime, so that the
//! run returns at once.

use std::io;

use effe_abi::{
    AsyncLambda, AsyncResponse, AsyncWebSocket, Options, Params, Request, Result, StartError, Started, export,
};

struct Socket {
    has_tasks: bool,
}

impl AsyncLambda for Socket {
    const OPTIONS: Options = Options::new().upgrades();

    async fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Socket { has_tasks: params.get("task").is_some() })
    }

    async fn run(own: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        let has_tasks = own?.has_tasks;
        let socket = request.websocket(response)?;
        if has_tasks {
            tokio::spawn(echo(socket));
        } else {
            // A client that leaves is no fault.
            let _ = echo(socket).await;
        }
        Ok(())
    }
}

async fn echo(mut socket: AsyncWebSocket) -> io::Result<()> {
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}

export!(async Socket);
