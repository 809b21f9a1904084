//! What the loader is to be for AWS, as its start has it. It is the same in a loader that is built without: there the
//! compiler sees that none of it can be.

use std::{sync::Arc, time::Duration};

use super::settings::Function;
use crate::{
    effe::{Effe, monitor::Monitor},
    handler::access_log::Wanted,
    net::{activity::ClientTimeouts, private_listener::Address, token::Token},
    process::control::Drain,
};

/// What serves a function.
#[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "no function is served"))]
pub struct Serving<'a> {
    pub function: &'a Function,
    pub effe: Arc<Effe>,
    pub monitor: Arc<Monitor>,
    pub timeouts: ClientTimeouts,
    pub access_log: &'a Wanted,
    pub drain: Drain,
    /// Whether answers are streamed.
    pub streams: bool,
}

/// Where AWS's clients are listened to, and who may call.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "nobody is listened to"))]
pub struct Api {
    pub place: Address,
    pub token: Option<Token>,
    /// Before an event that nobody waits for is tried again.
    pub retry_delay: Duration,
}
