//! Sends the body of the request back, with its content type.

use std::io::Write;

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

struct Echo;

impl Lambda for Echo {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Echo)
    }

    fn run(echo: Started<Self>, request: &Request, response: &mut Response) -> Result {
        echo?;
        let content_type = request.header_bytes("content-type").unwrap_or(b"application/octet-stream");
        response.header("content-type", content_type);
        response.write_all(request.bytes()?)?;
        Ok(())
    }
}

export!(Echo);

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Call, Effe};

    use super::LAMBDA;

    #[test]
    fn the_body_and_its_type_come_back() {
        let effe = Effe::of(&LAMBDA);
        let answer = effe.call(Call::post("/").header("content-type", "text/plain; a=b").body("ping"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "ping"));
        assert_eq!(answer.header("content-type"), Some("text/plain; a=b"));
    }

    #[test]
    fn any_bytes_come_back_and_no_bytes_too() {
        let effe = Effe::of(&LAMBDA);
        let bytes = (0..=255).cycle().take(100_000).collect::<Vec<u8>>();
        assert_eq!(effe.call(Call::new("PUT", "/").body(&bytes)).bytes(), bytes);
        let answer = effe.get("/");
        assert_eq!((answer.status, answer.bytes()), (200, Vec::new()));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    }
}
