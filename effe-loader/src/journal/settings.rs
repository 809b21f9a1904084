//! The settings that a journal is started with.

use super::{
    severity::Severity,
    stderr::{Format, Sink},
    syslog::{SyslogFormat, SyslogTarget},
};

/// The settings that a journal is started with.
pub struct Settings {
    /// Where syslog is.
    pub syslog: SyslogTarget,
    /// How records look there.
    pub syslog_format: SyslogFormat,
    /// How lines on stderr look.
    pub format: Format,
    /// The least severe level that is written.
    pub level: Severity,
    /// The program's name in syslog.
    pub tag: String,
    /// Stderr, or a test's stand-in for it.
    pub sink: Sink,
}

impl Settings {
    /// Settings with these two, and the loader's own for the rest.
    pub fn new(syslog: SyslogTarget, format: Format) -> Settings {
        Settings {
            syslog,
            syslog_format: SyslogFormat::Rfc3164,
            format,
            level: Severity::Info,
            tag: "effe-loader".to_owned(),
            sink: Sink::Stderr,
        }
    }
}
