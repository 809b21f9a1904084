//! Fetches a page from another server: the parameter `url` is its address, `timeout` how many seconds it may take (10
//! by default). Each Context keeps its connection open from one request to the next.

use std::{sync::Arc, time::Duration};

use effe_abi::{Lambda, Options, Params, Request, Response, Result, StartError, Started, export};
use ureq::{
    Agent,
    tls::{RootCerts, TlsConfig},
};

/// The largest page that is sent to the client, in bytes.
const LIMIT: u64 = 1024 * 1024;

struct Fetch {
    agent: Agent,
    url: &'static str,
}

impl Lambda for Fetch {
    const OPTIONS: Options = Options::new().waits();

    fn start(params: Params) -> Result<Self, StartError<Self>> {
        let timeout = Duration::from_secs(params.parse("timeout")?.unwrap_or(10));
        // The certificates of the machine or of SSL_CERT_FILE: the operator chooses which to trust.
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder().timeout_global(Some(timeout)).tls_config(tls).build().into();
        Ok(Fetch { agent, url: params.required("url")? })
    }

    fn run(fetch: Started<Self>, _: &Request, response: &mut Response) -> Result {
        match fetch?.page() {
            Ok((content_type, page)) => response.header("content-type", content_type).body(page),
            Err(err) => {
                // The client learns that the fetch failed; the reason is in the operator's log.
                log::error!("upstream: {err}");
                response.status(502).text("the page can't be fetched now\n")
            }
        };
        Ok(())
    }
}

export!(Fetch);

impl Fetch {
    /// The content type and the text of the page. It is read to its end, so that the connection can be used again.
    fn page(&self) -> Result<(String, Vec<u8>), ureq::Error> {
        let mut answer = self.agent.get(self.url).call()?;
        let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
        Ok((content_type, answer.body_mut().with_config().limit(LIMIT).read_to_vec()?))
    }
}

#[cfg(test)]
mod tests;
