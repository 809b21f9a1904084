//! The example of 2016: `Hello from Effe:  N`, where N is chosen once per Context.

use std::{
    hash::{BuildHasher, RandomState},
    io::Write,
};

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

struct Hello {
    n: u64,
}

impl Lambda for Hello {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Hello { n: 1 + RandomState::new().hash_one(()) % 2 })
    }

    fn run(hello: Started<Self>, _: &Request, response: &mut Response) -> Result {
        let hello = hello?;
        response.header("content-type", "text/plain");
        writeln!(response, "Hello from Effe:  {}", hello.n)?;
        Ok(())
    }
}

export!(Hello);

#[cfg(test)]
mod tests {
    use effe_abi::testing::Effe;

    use super::LAMBDA;

    #[test]
    fn a_context_says_hello_with_one_number() {
        let effe = Effe::of(&LAMBDA);
        let first = effe.get("/");
        assert_eq!((first.status, first.header("content-type")), (200, Some("text/plain")));
        assert!(["Hello from Effe:  1\n", "Hello from Effe:  2\n"].contains(&first.text().as_str()));
        assert_eq!(effe.get("/again").text(), first.text());
        assert_eq!(effe.started(), 1);
    }
}
