//! The async form of `hello`, which is ready at once; `?ms=N` is answered after so many milliseconds, as by `sleep`.

use std::{
    hash::{BuildHasher, RandomState},
    io::Write,
    time::Duration,
};

use effe_abi::{AsyncLambda, AsyncResponse, Params, Request, Result, StartError, Started, export};
use tokio::time::sleep;

struct Patient {
    n: u64,
}

impl AsyncLambda for Patient {
    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Patient { n: 1 + RandomState::new().hash_one(()) % 2 })
    }

    async fn run(patient: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        let patient = patient?;
        if let Some(millis) = request.query_string().and_then(|query| query.strip_prefix("ms=")) {
            sleep(Duration::from_millis(millis.parse()?)).await;
            response.text(format!("slept {millis} ms\n"));
            return Ok(());
        }
        response.header("content-type", "text/plain");
        writeln!(response, "Hello from Effe:  {}", patient.n)?;
        Ok(())
    }
}

export!(async Patient);
