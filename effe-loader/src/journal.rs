//! The journal: the log of the loader and of its lambda.
//!
//! To log is to put a [`Record`] into a bounded queue, which never waits; one thread writes. The lambda's
//! records go to syslog, the loader's to stderr and to syslog. While there is no syslog, stderr gets
//! everything. Lines of the access log have a queue of their own and go to stderr.
//!
//! The `syslog` crate's formatter writes the datagrams' heads, but its loggers are not used: they block their
//! caller when the daemon stops reading, never recover from its restart, and let line feeds through.

mod handle;
mod install;
mod writer;

mod access;
mod record;
mod severity;
#[cfg_attr(not(feature = "aws"), path = "journal/tap/disabled.rs")]
mod tap;

mod json;
mod line;
mod stderr;
mod syslog;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

#[cfg(feature = "aws")]
pub use self::tap::{Tap, keep_last};
pub use self::{
    access::Access,
    handle::Journal,
    install::LinkedLambda,
    record::{Record, Source},
    severity::Severity,
    stderr::Format,
    syslog::{SyslogFormat, SyslogTarget},
    writer::Settings,
};
