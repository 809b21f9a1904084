//! A request's head as the protocols read it, with what the parser doesn't know: whether TLS carries it.

use std::ops::{Deref, DerefMut};

/// A request without its body. All that isn't here is actix-http's.
pub struct Request {
    request: actix_http::Request,
    is_tls: bool,
}

impl Request {
    /// What a parser has read from a connection.
    pub fn new(request: actix_http::Request, is_tls: bool) -> Request {
        Request { request, is_tls }
    }

    /// Whether its own connection is encrypted; behind a proxy, the proxy's connection to us.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl Deref for Request {
    type Target = actix_http::Request;

    fn deref(&self) -> &actix_http::Request {
        &self.request
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut actix_http::Request {
        &mut self.request
    }
}
