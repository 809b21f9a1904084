//! The router of the lambda of the same name, served by axum itself on one thread: `control-axum PORT`.

use controls::port;
use router::router;
use tokio::net::TcpListener;

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port())).await?;
        axum::serve(listener, router()).await
    })
}
