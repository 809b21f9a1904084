//! Reads a body as it comes, and tells how long it was. While it waits for the client, it keeps no thread.

use effe_abi::{AsyncLambda, AsyncResponse, Options, Params, Request, Result, StartError, Started, export};

struct Upload;

impl AsyncLambda for Upload {
    const OPTIONS: Options = Options::new().stream_request();

    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Upload)
    }

    async fn run(upload: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        upload?;
        let (mut body, mut length) = (request.body(), 0);
        while let Some(piece) = body.chunk().await {
            length += piece?.len();
        }
        response.text(format!("{length}\n"));
        Ok(())
    }
}

export!(async Upload);
