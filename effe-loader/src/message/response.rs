//! A response's head, as a lambda has said it and a protocol sends it.

use std::sync::Arc;

use http::StatusCode;

use super::fields::Fields;

#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    /// Without those of the framing and of the connection, which a protocol adds. Responses that are alike share them.
    pub fields: Arc<Fields>,
    /// Whether it is the last one on its connection.
    pub is_last: bool,
}

impl ResponseHead {
    pub fn new(status: StatusCode, fields: Arc<Fields>) -> ResponseHead {
        ResponseHead { status, fields, is_last: false }
    }

    /// The fields, to be changed for this response alone.
    pub fn fields_mut(&mut self) -> &mut Fields {
        Arc::make_mut(&mut self.fields)
    }
}
