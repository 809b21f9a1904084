//! A request as its connection hands it over to who answers, whichever protocol has brought it.

use actix_http::Request;

use crate::{body::incoming::Incoming, net::connection::Answering};

/// A request that has come.
pub struct Arrival {
    /// Its head.
    pub request: Request,
    /// Of how many bytes that is.
    pub n_head: usize,
    /// Its body.
    pub incoming: Incoming,
    /// What its connection has to know of it.
    pub answering: Answering,
}
