//! An axum Router: `GET /` says hello, `GET /{name}` greets.

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use effe_abi::{Params, Result, export};

/// Makes the router. It is called once, before the first request; each Context gets a clone of the result.
async fn app(params: Params) -> Result<Router> {
    let greeting = params.get("greeting").unwrap_or("Hello");
    Ok(Router::new().route("/", get(hello)).route("/{name}", get(greet)).with_state(greeting))
}

async fn hello(State(greeting): State<&'static str>) -> String {
    format!("{greeting} from effe\n")
}

async fn greet(State(greeting): State<&'static str>, Path(name): Path<String>) -> String {
    format!("{greeting}, {name}\n")
}

export!(tower app);

#[cfg(test)]
mod tests {
    use effe_abi::testing::Effe;

    use super::*;

    #[test]
    fn it_greets() {
        let effe = Effe::with(&LAMBDA, &[("greeting", "Ciao")]);
        assert_eq!(effe.get("/").text(), "Ciao from effe\n");
        assert_eq!(effe.get("/world").text(), "Ciao, world\n");
    }
}
