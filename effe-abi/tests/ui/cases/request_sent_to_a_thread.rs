//! A request can't be sent to a thread that may outlive Run.

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

struct Spawner;

impl Lambda for Spawner {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Spawner)
    }

    fn run(_: Started<Self>, request: &Request, _: &mut Response) -> Result {
        std::thread::spawn(move || println!("{}", request.path()));
        Ok(())
    }
}

export!(Spawner);

fn main() {}
