//! A method whose feature is off says which feature it needs.

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started};

struct Poor;

struct Wanted {
    name: String,
}

impl Lambda for Poor {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Poor)
    }

    fn run(_: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let Wanted { name } = request.form()?;
        let wanted = request.query::<Wanted>()?;
        let guest = request.cookie("guest").unwrap_or("nobody");
        response.set_cookie(("guest", name)).text(format!("{guest} {}", wanted.name));
        Ok(())
    }
}

effe_abi::export!(Poor);

fn main() {}
