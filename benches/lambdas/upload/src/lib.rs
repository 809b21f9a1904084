//! Reads a body as it comes, and tells how long it was. While it waits for the client, it keeps a thread of the pool.

use effe_abi::{Lambda, Options, Params, Request, Response, Result, StartError, Started, export};

struct Upload;

impl Lambda for Upload {
    const OPTIONS: Options = Options::new().stream_request();

    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Upload)
    }

    fn run(upload: Started<Self>, request: &Request, response: &mut Response) -> Result {
        upload?;
        let (mut body, mut length) = (request.reader(), 0);
        while let Some(piece) = body.next_chunk()? {
            length += piece.len();
        }
        response.text(format!("{length}\n"));
        Ok(())
    }
}

export!(Upload);
