//! A hello on lambda_http, as its documentation has it. Lambda's environment says where the Runtime API is.

use lambda_http::{Body, Error, Request, Response, run, service_fn};

async fn hello(_: Request) -> Result<Response<Body>, Error> {
    let n = 1;
    Ok(Response::builder()
        .header("content-type", "text/plain")
        .body(format!("Hello from Effe:  {n}\n").into())?)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    run(service_fn(hello)).await
}
