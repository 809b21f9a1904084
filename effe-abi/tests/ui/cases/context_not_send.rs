//! A Context must be `Send`, since it is used on one thread after another.

use std::rc::Rc;

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

struct Shared {
    _counter: Rc<u32>,
}

impl Lambda for Shared {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Shared { _counter: Rc::new(0) })
    }

    fn run(_: Started<Self>, _: &Request, _: &mut Response) -> Result {
        Ok(())
    }
}

export!(Shared);

fn main() {}
