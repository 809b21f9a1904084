//! AWS Lambda in a loader that is built without it: a process is never a function.

use std::{
    ffi::OsString,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    effe::{Effe, monitor::Monitor},
    error::Error,
    handler::access_log::Wanted,
    net::{activity::ClientTimeouts, private_listener::Address, token::Token},
    process::control::{Drain, Stop},
};

/// There is none.
#[derive(Clone, Debug)]
pub enum Function {}

impl Function {
    pub fn of_environment() -> Result<Option<Function>, String> {
        Ok(None)
    }

    pub fn defaults() -> [(&'static str, OsString); 0] {
        []
    }

    pub fn misplaced(_: &str) -> String {
        String::new()
    }
}

/// What serves a function.
#[expect(dead_code, reason = "no function is served here")]
pub struct Serving<'a> {
    pub function: &'a Function,
    pub effe: Arc<Effe>,
    pub monitor: Arc<Monitor>,
    pub timeouts: ClientTimeouts,
    pub access_log: &'a Wanted,
    pub drain: Drain,
    pub streams: bool,
}

impl Serving<'_> {
    pub fn serve(
        self,
        _: UnboundedReceiver<Stop>,
        _: impl FnOnce(),
        _: impl Fn(String) + 'static,
    ) -> io::Result<(Stop, usize)> {
        match *self.function {}
    }
}

pub fn report_init_error(function: &Function, _: &Error) {
    match *function {}
}

pub fn report_usage(function: &Function, _: &str) {
    match *function {}
}

/// Where AWS's clients would be listened to.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "nothing is bound here")]
pub struct Api {
    pub place: Address,
    pub token: Option<Token>,
    pub retry_delay: Duration,
}

pub enum BoundApi {}

pub enum RunningApi {}

impl Api {
    pub fn bind(&self) -> Result<BoundApi, Error> {
        Err(Error::System {
            what: "listen to AWS's clients".into(),
            source: io::ErrorKind::Unsupported.into(),
        })
    }
}

impl BoundApi {
    pub fn start(self, _: Arc<Effe>, _: Arc<Monitor>, _: &Wanted) -> Result<RunningApi, Error> {
        match self {}
    }
}

impl RunningApi {
    pub fn drain(&self, _: Instant) -> usize {
        match *self {}
    }
}
