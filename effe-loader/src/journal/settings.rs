//! What a journal has to know before it starts.

use super::{
    severity::Severity,
    stderr::{Format, Sink},
    syslog::{SyslogFormat, SyslogTarget},
};

/// What a journal has to know before it starts.
pub struct Settings {
    /// Where syslog is.
    pub syslog: SyslogTarget,
    /// How records look there.
    pub syslog_format: SyslogFormat,
    /// How lines on stderr look.
    pub format: Format,
    /// The least severe level that is wanted.
    pub level: Severity,
    /// The program's name in syslog.
    pub tag: String,
    /// What stands for stderr.
    pub sink: Sink,
}

impl Settings {
    /// The two that an operator chooses first; the rest as the loader has it.
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
