//! Plugins: how a file is checked, tried and mapped, and safe calls into the lambda that it holds.
//!
//! A plugin passes these modules in turn: `file` finds it, `ownership` and `policy` say whether it may be
//! loaded, `copy` makes a private copy, `elf` checks the copy's headers, `trial` opens it in a child, and
//! `verified` holds what has passed and maps it through `ffi`, which has `root` check
//! what is exported. `entries` are what comes of it; `loaded` is the plugin that is mapped;
//! `context` and `futures` are its Contexts and their calls, and
//! `views` reads what a lambda hands in. HTTP and exchanges are not known here: an
//! exchange is only passed on.

mod context;
mod fault;
mod futures;
mod loaded;
mod verified;

pub mod host;
pub mod parameters;
pub mod views;

mod copy;
mod elf;
mod entries;
mod ffi;
mod file;
mod ownership;
mod policy;
mod root;
#[cfg(test)]
mod testing;
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
