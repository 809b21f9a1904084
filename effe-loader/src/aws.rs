//! AWS Lambda, both ways: the loader as a function that polls the Runtime API, and AWS's clients that call an effe.
//! Events become requests for the handler, and its responses become answers in the shape of their events.
//!
//! 1. `aws/runtime.rs` polls the Runtime API, in one task for each invocation that may be under way, all on the main
//!    thread; or `aws/api.rs` answers AWS's clients, on the thread `effe-aws`.
//! 2. `aws/event.rs` makes a request of the event, or an error. It is pure, and so is `aws/event/fold.rs`, which makes
//!    the answer.
//! 3. `aws/invoker.rs` calls the `HandlerService` of its thread. The request carries an `Invocation`
//!    (`http/invocation.rs`): its deadline counts beside `--run-timeout`, the lambda asks for its facts by keys of
//!    `attribute`, and what went wrong is noted in it. Without the feature that field has no size.
//! 4. A failure of the handler's, which a client would be told by a status, marks its response; here it becomes a
//!    function error.

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
