//! A WebSocket that sends back what it hears.

use effe_abi::{
    AsyncLambda, AsyncResponse, Options, Params, Request, Result, StartError, Started, export,
};

/// The Context: what is costly to make and kept from one request to the next.
struct Echo;

impl AsyncLambda for Echo {
    /// Run may take its connection over.
    const OPTIONS: Options = Options::new().upgrades();

    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Echo)
    }

    /// Makes the connection a WebSocket. A client that doesn't ask for one is told so, with 426.
    async fn run(echo: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        echo?;
        let mut socket = request.websocket(response)?;
        // It outlives this run, whose Context serves the next request. It ends in an error where the client just
        // leaves.
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

export!(async Echo);

#[cfg(test)]
mod tests {
    use effe_abi::testing::Effe;

    use super::*;

    #[test]
    fn a_client_that_speaks_http_alone_is_told_what_to_upgrade_to() {
        let answer = Effe::of(&LAMBDA).get("/");
        assert_eq!((answer.status, answer.header("upgrade")), (426, Some("websocket")));
    }
}
