//! Which function is asked for, and how.

use http::Method;

use super::{
    name::{decoded, parse},
    reply::ApiError,
};
use crate::message::request::RequestHead;

/// What is asked for.
pub struct Route {
    pub name: String,
    pub qualifier: Option<String>,
    pub is_streamed: bool,
}

impl Route {
    pub fn of(head: &RequestHead) -> Result<Route, ApiError> {
        let nothing =
            || ApiError::new(404, "UnknownOperationException", "only functions can be invoked here");
        let path = head.path();
        let function = path
            .strip_prefix("/2015-03-31/functions/")
            .and_then(|rest| Some((rest.strip_suffix("/invocations")?, false)))
            .or_else(|| {
                let rest = path.strip_prefix("/2021-11-15/functions/")?;
                Some((rest.strip_suffix("/response-streaming-invocations")?, true))
            });
        let (function, is_streamed) = function.filter(|_| head.method == Method::POST).ok_or_else(nothing)?;
        let (name, mut qualifier) =
            parse(function).ok_or_else(|| ApiError::parameter("the function's name is none"))?;
        for pair in head.query().unwrap_or_default().split('&') {
            if let Some(value) = pair.strip_prefix("Qualifier=") {
                qualifier = decoded(value);
            }
        }
        Ok(Route { name, qualifier, is_streamed })
    }

    pub fn arn(&self) -> String {
        let qualifier = self.qualifier.as_ref().map(|qualifier| format!(":{qualifier}")).unwrap_or_default();
        format!("arn:aws:lambda:us-east-1:000000000000:function:{}{qualifier}", self.name)
    }
}
