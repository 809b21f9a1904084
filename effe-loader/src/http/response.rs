//! A response as a `Service` gives it.

use std::{any::Any, sync::Arc};

use http::StatusCode;

use crate::{
    body::outgoing::Body,
    message::{fields::Fields, response::ResponseHead},
};

/// A response, whose body may still be written.
pub struct Response {
    pub head: ResponseHead,
    pub body: Body,
    /// What its maker tells whoever made the request, where that is another part of the loader.
    pub note: Option<Box<dyn Any>>,
}

impl Response {
    #[inline]
    pub fn new(status: StatusCode, fields: Arc<Fields>, body: Body) -> Response {
        Response { head: ResponseHead::new(status, fields), body, note: None }
    }

    /// A response without fields.
    pub fn bare(status: StatusCode, body: Body) -> Response {
        Response::new(status, Arc::default(), body)
    }

    /// Sets a field that is known to be one.
    pub fn set(&mut self, name: &str, value: &str) {
        self.head.fields_mut().insert(name, value.as_bytes());
    }

    /// The same response with another body.
    pub fn map_body(self, map: impl FnOnce(Body) -> Body) -> Response {
        Response { body: map(self.body), ..self }
    }
}
