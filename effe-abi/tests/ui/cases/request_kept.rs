//! A request can't be kept for later: it ends when Run returns.

use std::sync::Mutex;

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

static KEPT: Mutex<Option<&'static Request>> = Mutex::new(None);

struct Keeper;

impl Lambda for Keeper {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Keeper)
    }

    fn run(_: Started<Self>, request: &Request, _: &mut Response) -> Result {
        *KEPT.lock().unwrap() = Some(request);
        Ok(())
    }
}

export!(Keeper);

fn main() {}
