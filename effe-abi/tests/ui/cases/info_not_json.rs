//! Info must be a JSON object, which is checked while the lambda is compiled.

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

struct Silent;

impl Lambda for Silent {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Silent)
    }

    fn run(_: Started<Self>, _: &Request, _: &mut Response) -> Result {
        Ok(())
    }
}

export!(Silent, info = "{\"name\": \"silent\",}");

fn main() {}
