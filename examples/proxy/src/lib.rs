//! Hands each request on to another server, and what that answers back to the client; both bodies pass through piece by
//! piece, as fast as the slower side takes them. A client that leaves ends the request upstream as well.
//! `--set upstream=http://host:port` says where to.

use std::sync::OnceLock;

use effe_abi::{AsyncLambda, AsyncResponse, Options, Params, Request, Result, StartError, Started, export};
use reqwest::{Body, Client, Method};

/// Headers that are between two neighbours and no further.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// One client for all: its pool of connections is worth sharing.
static CLIENT: OnceLock<Client> = OnceLock::new();

struct Proxy {
    client: &'static Client,
    upstream: &'static str,
}

impl AsyncLambda for Proxy {
    const OPTIONS: Options = Options::new().stream_request().stream_response().keep_cancelled();

    async fn init(params: Params) -> Result {
        params.required("upstream")?;
        Ok(())
    }

    async fn start(params: Params) -> Result<Self, StartError<Self>> {
        let client = CLIENT.get_or_init(Client::new);
        Ok(Proxy { client, upstream: params.required("upstream")?.trim_end_matches('/') })
    }

    async fn run(proxy: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        let proxy = proxy?;
        let method = Method::from_bytes(request.method().as_bytes())?;
        let has_body = request.header("content-length").is_some_and(|length| length != "0")
            || request.header("transfer-encoding").is_some();
        let mut call = proxy.client.request(method, format!("{}{}", proxy.upstream, request.target()));
        for (name, value) in request.headers().filter(|(name, _)| !HOP_BY_HOP.contains(name)) {
            call = call.header(name, value);
        }
        if has_body {
            call = call.body(Body::wrap_stream(request.body()));
        }
        let mut answer = match call.send().await {
            Ok(answer) => answer,
            Err(err) => {
                log::warn!("{}: {err}", proxy.upstream);
                response.status(502).text("the upstream does not answer\n");
                return Ok(());
            }
        };
        response.status(answer.status().as_u16());
        for (name, value) in answer.headers().iter().filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()))
        {
            response.add_header(name.as_str(), value);
        }
        while let Some(piece) = answer.chunk().await? {
            response.send(piece).await?;
        }
        Ok(())
    }
}

export!(async Proxy);

#[cfg(test)]
mod tests;
