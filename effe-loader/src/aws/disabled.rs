//! AWS Lambda in a loader that is built without it: none of it can be.

#[path = "settings/disabled.rs"]
mod settings;
mod wanted;

use std::{io, sync::Arc, time::Instant};

use tokio::sync::mpsc::UnboundedReceiver;

pub use self::{
    settings::Function,
    wanted::{Api, Serving},
};
use crate::{
    effe::{Effe, monitor::Monitor},
    error::Error,
    handler::access_log::Wanted,
    process::control::Stop,
};

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
