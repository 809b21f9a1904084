//! Plugins: how a file is checked, tried and mapped, and safe calls into the lambda that it holds.
//!
//! A plugin passes these modules in turn: `file` finds it, `ownership` and `policy` say whether it may be
//! loaded, `copy` makes a private copy, `elf` checks the copy's headers, `trial` opens it in a child, and
//! `verified` holds what has passed and maps it through `ffi`. `loaded` is the plugin that is mapped;
//! `context` and `futures` are its Contexts and their calls. HTTP and exchanges are not known here: an
//! exchange is only passed on.

mod context;
mod fault;
mod futures;
mod loaded;
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
    copy::same_bytes,
    fault::Fault,
    file::PluginFile,
    futures::{Running, Starting},
    loaded::{ContextCounts, Plugin},
    policy::{Digest, Policy},
    trial::{answer as answer_trial, asked_for as asked_for_trial},
    verified::Verified,
};
