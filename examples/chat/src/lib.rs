//! A chat: what one says over a WebSocket, all hear. The page at `/` talks to it.
//!
//! Each socket lives in a task of the lambda's runtime, so that its Context goes back at once. A swap leaves the
//! sockets that are open with the generation that they began with: who joins later meets those of the next one.

use std::{io, sync::OnceLock};

use effe_abi::{
    AsyncLambda, AsyncResponse, AsyncWebSocket, Options, Params, Request, Result, StartError, Started, export,
};
use tokio::sync::broadcast::{self, Sender, error::RecvError};

/// What was said and not everybody has heard. Who is further behind misses some of it.
const BEHIND: usize = 100;

static SAID: OnceLock<Sender<String>> = OnceLock::new();

struct Chat;

impl AsyncLambda for Chat {
    const OPTIONS: Options = Options::new().upgrades();

    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Chat)
    }

    async fn run(chat: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        chat?;
        match request.path() {
            "/chat" => {
                let socket = request.websocket(response)?;
                let name = request.query_string().unwrap_or("somebody").to_owned();
                tokio::spawn(async move {
                    // An error is a client that has left, or broken the protocol.
                    let _ = talk(socket, &name).await;
                });
            }
            "/" => {
                response.html(include_str!("page.html"));
            }
            _ => {
                response.status(404).text("there is nothing here\n");
            }
        }
        Ok(())
    }
}

/// Hears one client, and tells it what the others say, until it leaves.
async fn talk(mut socket: AsyncWebSocket, name: &str) -> io::Result<()> {
    let said = SAID.get_or_init(|| broadcast::channel(BEHIND).0);
    let mut others = said.subscribe();
    loop {
        tokio::select! {
            message = socket.receive() => match message? {
                Some(message) => drop(said.send(format!("{name}: {}", message.to_text().unwrap_or("(no text)")))),
                None => return Ok(()),
            },
            heard = others.recv() => match heard {
                Ok(text) => socket.send(text).await?,
                Err(RecvError::Lagged(n)) => socket.send(format!("({n} messages were missed)")).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

export!(async Chat);

#[cfg(test)]
mod tests {
    use effe_abi::testing::Effe;

    use super::LAMBDA;

    #[test]
    fn the_page_talks_to_the_socket_and_the_socket_wants_a_handshake() {
        let effe = Effe::of(&LAMBDA);
        let page = effe.get("/");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.text().contains("new WebSocket("));
        assert_eq!(effe.get("/else").status, 404);
        assert_eq!(effe.get("/chat").status, 426);
    }

    #[test]
    fn all_hear_what_one_says() {
        let effe = Effe::of(&LAMBDA);
        let (mut ada, mut bob) = (effe.websocket("/chat?ada").unwrap(), effe.websocket("/chat?bob").unwrap());
        // Who has said something hears it, and so hears the others from then on.
        bob.send("here").unwrap();
        assert_eq!(bob.receive().unwrap(), Some("bob: here".into()));
        ada.send("hello").unwrap();
        while ada.receive().unwrap() != Some("ada: hello".into()) {}
        assert_eq!(bob.receive().unwrap(), Some("ada: hello".into()));
        ada.client().go_away();
        assert_eq!((ada.receive().unwrap(), ada.closed_with()), (None, Some(1001)));
    }
}
