//! A run on the server's own thread, while its connection waits.

use std::time::Duration;

use actix_http::Response;

use super::{Handler, failure::Failure, response::respond};
use crate::{body::outgoing::Body, effe::generation::Generation, http::request::Request};

impl Handler {
    /// The answer, and how long the run took; `None` if it can't be here.
    pub(super) fn run_inline(
        &self,
        generation: &Generation,
        request: &Request,
        body: &[u8],
    ) -> Option<(Result<Response<Body>, Failure>, Duration)> {
        if !generation.placement.is_inline() {
            return None;
        }
        self.monitor.look();
        let mut response = self.response.borrow_mut();
        response.clear();
        let (effe, status) = (&self.worker.effe, &self.worker.status);
        let took = effe.run_inline(generation, request, body, &mut response, status)?;
        Some((respond(&mut response, request).ok_or(Failure::Lambda), took))
    }
}
