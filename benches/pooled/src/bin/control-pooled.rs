//! The router of the lambda `pooled`, served by axum itself on one thread: `control-pooled PATH PORT`.

use std::{env, error::Error};

use pooled::router;
use tokio::{net::TcpListener, runtime::Builder};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().ok_or("usage: control-pooled PATH PORT")?;
    let port = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        axum::serve(listener, router(&path).await?).await?;
        Ok(())
    })
}
