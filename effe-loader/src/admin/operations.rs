//! What the admin listener shows and has done, whatever carries it out: an effe in this process, or a supervisor with
//! several.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use serde_json::Value;

use super::metrics::Scrape;
use crate::{
    journal::Severity,
    process::control::{Change, Changed},
};

/// What needs time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

pub trait Operations {
    /// Whether the effe wants requests, or why not.
    fn readiness(&self) -> Later<'_, Result<(), String>>;

    /// The whole state as JSON.
    fn state(&self) -> Later<'_, Value>;

    /// The Info of the generation that serves, as JSON.
    fn info(&self) -> Later<'_, Bytes>;

    /// All numbers at one moment, more or less.
    fn scrape(&self) -> Later<'_, Scrape>;

    /// The log's level.
    fn level(&self) -> Severity;

    fn set_level(&self, level: Severity);

    /// Carries out a change; `None` if the effe is on its way out, or not up yet.
    fn change(&self, change: Change) -> Later<'_, Option<Result<Changed, String>>>;

    fn drain(&self);
}
