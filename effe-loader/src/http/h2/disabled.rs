//! HTTP/2 in a loader that is built without it: every connection speaks HTTP/1.1.

use std::{net::SocketAddr, rc::Rc};

use crate::{http::service::Service, net::connection::Connection};

/// Gives the connection back, for HTTP/1.1.
pub async fn take(connection: Connection, _: &Rc<dyn Service>, _: Option<SocketAddr>) -> Option<Connection> {
    Some(connection)
}
