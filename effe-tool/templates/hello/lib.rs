//! A lambda that says hello.

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

/// The Context: what is costly to make and kept from one request to the next.
struct Hello {
    greeting: &'static str,
}

impl Lambda for Hello {
    /// Makes a Context. The operator gives parameters: `--set greeting=Ciao`.
    fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Hello { greeting: params.get("greeting").unwrap_or("Hello") })
    }

    /// Answers one request. An error goes to the operator's log, and the client gets 500.
    fn run(hello: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let hello = hello?;
        response.text(format!("{} from effe: {}\n", hello.greeting, request.path()));
        Ok(())
    }
}

export!(Hello);

#[cfg(test)]
mod tests {
    use effe_abi::testing::Effe;

    use super::LAMBDA;

    #[test]
    fn it_greets_as_the_operator_says() {
        let effe = Effe::with(&LAMBDA, &[("greeting", "Ciao")]);
        assert_eq!(effe.get("/world").text(), "Ciao from effe: /world\n");
    }
}
