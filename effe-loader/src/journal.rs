//! The journal: where everything goes that the loader and its lambda have to say.
//!
//! Whoever logs puts a [`Record`] into a bounded queue and never waits; one thread writes. What the lambda says goes
//! to syslog, what the loader says to stderr and to syslog, and stderr gets everything while there is no syslog.
//! The `syslog` crate's formatter writes the datagrams' heads, but its loggers are not used: they block their caller
//! when the daemon stops reading, never recover from its restart, and let line feeds through.

mod handle;
mod install;
mod queue;
mod settings;
mod writer;

mod access;
mod record;
mod severity;

mod json;
mod line;
mod stderr;
mod syslog;

mod dependencies;
mod panics;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::{
    access::Access,
    dependencies::LinkedLambda,
    handle::Journal,
    record::{Record, Source},
    settings::Settings,
    severity::Severity,
    stderr::{Format, Sink},
    syslog::{SyslogFormat, SyslogTarget},
};
