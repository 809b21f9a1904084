//! AWS Lambda, both ways: the loader as a function that polls the Runtime API, and AWS's clients that call an effe.
//! Events become requests for the handler, and its responses become answers in the shape of their events.

mod api;
mod client;
mod endpoint;
mod event;
mod failure;
mod invoker;
mod payload;
mod runtime;
mod settings;
mod wanted;

pub use self::{
    runtime::{report_init_error, report_usage},
    settings::Function,
    wanted::{Api, Serving},
};
