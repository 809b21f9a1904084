//! Sends the body back piece by piece as it arrives: memory never holds a whole body, however large it is.

use effe_abi::{Lambda, Options, Params, Request, Response, Result, StartError, Started, export};

struct Pipe;

impl Lambda for Pipe {
    const OPTIONS: Options = Options::new().stream_request().stream_response();

    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Pipe)
    }

    fn run(pipe: Started<Self>, request: &Request, response: &mut Response) -> Result {
        pipe?;
        let content_type = request.header_bytes("content-type").unwrap_or(b"application/octet-stream");
        response.header("content-type", content_type);
        let mut body = request.reader();
        while let Some(piece) = body.next_chunk()? {
            response.send(piece)?; // moved, not copied; waits while the client is slow
        }
        Ok(())
    }
}

export!(Pipe);

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Call, Effe};

    use super::LAMBDA;

    #[test]
    fn each_piece_comes_back() {
        let effe = Effe::of(&LAMBDA);
        let call = Call::post("/").header("content-type", "text/plain").chunk("one ").chunk("two");
        let answer = effe.call(call);
        assert_eq!((answer.status, answer.text().as_str()), (200, "one two"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
    }

    #[test]
    fn no_body_comes_back_as_none() {
        assert_eq!(Effe::of(&LAMBDA).get("/").bytes(), b"");
    }
}
