//! A lambda that has been opened, behind a safe face: generations, Contexts, and calls that can't be misused.
//!
//! It knows nothing of HTTP: an exchange is a thing to hand on.

mod context;
mod context_counts;
mod fault;
mod futures;
mod loaded;
mod out_param;
mod verified;

pub mod host;
pub mod parameters;

mod copy;
mod elf;
mod ffi;
mod file;
mod ownership;
mod policy;
mod trial;

pub use self::{
    context::{Context, Started},
    context_counts::ContextCounts,
    fault::Fault,
    file::PluginFile,
    futures::{Running, Starting},
    loaded::Plugin,
    policy::{Digest, Policy},
    trial::{answer as answer_trial, asked_for as asked_for_trial},
    verified::Verified,
};
