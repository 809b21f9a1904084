//! Forwards each request to another server, and its response to the client. Both bodies are forwarded piece by piece,
//! as fast as the slower side reads. If the client disconnects, the request to the other server ends, too. `--set
//! upstream=http://host:port` sets the other server.

use std::sync::OnceLock;

use effe_abi::{AsyncLambda, AsyncResponse, Options, Params, Request, Result, StartError, Started, export};
use reqwest::{
    Body, Client, Url,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};

/// Hop-by-hop headers, which a proxy doesn't forward.
static HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HOST,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// One client for all Contexts, so that they share its pool of connections.
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
        let (mut head, body) = request.to_http()?.into_parts();
        let has_body = head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
            || head.headers.contains_key(TRANSFER_ENCODING);
        remove_hop_by_hop(&mut head.headers);
        let mut call = reqwest::Request::new(
            head.method,
            Url::parse(&format!("{}{}", proxy.upstream, request.target()))?,
        );
        *call.headers_mut() = head.headers;
        *call.body_mut() = has_body.then(|| Body::wrap(body));
        match proxy.client.execute(call).await {
            Ok(mut answer) => {
                remove_hop_by_hop(answer.headers_mut());
                response.send_http(answer.into()).await
            }
            Err(err) => {
                log::warn!("{}: {err}", proxy.upstream);
                response.status(502).text("the upstream does not answer\n");
                Ok(())
            }
        }
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let found: Vec<_> = headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

export!(async Proxy);

#[cfg(test)]
mod tests;
