//! A hello on lambda_runtime, as its documentation has it. Lambda's environment says where the Runtime API is.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;

async fn hello(_: LambdaEvent<Value>) -> Result<&'static str, Error> {
    Ok("Hello from Effe:  1\n")
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    run(service_fn(hello)).await
}
