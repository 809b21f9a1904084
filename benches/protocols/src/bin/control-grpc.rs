//! The service of the example grpc, served by tonic itself on one thread: `control-grpc PORT`.

use std::{error::Error, net::Ipv4Addr};

use protocols::port;
use tonic::transport::Server;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Server::builder().add_routes(grpc::routes());
    runtime.block_on(server.serve((Ipv4Addr::LOCALHOST, port()).into()))?;
    Ok(())
}
