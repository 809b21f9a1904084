//! A request's body can't be kept for later: it belongs to the loader.

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

struct Keeper {
    last: &'static [u8],
}

impl Lambda for Keeper {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Keeper { last: b"" })
    }

    fn run(keeper: Started<Self>, request: &Request, _: &mut Response) -> Result {
        keeper?.last = request.bytes()?;
        Ok(())
    }
}

export!(Keeper);

fn main() {}
