//! HTTP/2 in a loader that is built without it: every connection speaks HTTP/1.1.

use std::{net::SocketAddr, rc::Rc};

use crate::{handler::service::HandlerService, net::connection::Connection};

/// Gives the connection back.
pub async fn take(
    connection: Connection,
    _: &Rc<HandlerService>,
    _: Option<SocketAddr>,
) -> Option<Connection> {
    Some(connection)
}
