//! Severities, on syslog's scale.

use std::{fmt, str::FromStr};

/// How severe a record is. The numbers are syslog's, and the ones of the ABI. More severe is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Code of the lambda panicked, or the effe can't go on.
    Critical = 2,
    /// Something failed.
    Error,
    /// Something will fail, or is not as it should be.
    Warning,
    /// Normal and important.
    Notice,
    /// Normal.
    Info,
    /// Helps to find a fault.
    Debug,
    /// The finest level. Syslog has no such level and gets it as debug.
    Trace,
}

impl Severity {
    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
            Severity::Info => "info",
            Severity::Debug => "debug",
            Severity::Trace => "trace",
        }
    }
}

impl From<u32> for Severity {
    /// Every number has a severity: below the range it is critical, above it trace.
    fn from(number: u32) -> Severity {
        match number {
            0..=2 => Severity::Critical,
            3 => Severity::Error,
            4 => Severity::Warning,
            5 => Severity::Notice,
            6 => Severity::Info,
            7 => Severity::Debug,
            _ => Severity::Trace,
        }
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Severity, String> {
        match text {
            "critical" => Ok(Severity::Critical),
            "error" => Ok(Severity::Error),
            "warning" | "warn" => Ok(Severity::Warning),
            "notice" => Ok(Severity::Notice),
            "info" => Ok(Severity::Info),
            "debug" => Ok(Severity::Debug),
            "trace" => Ok(Severity::Trace),
            _ => Err("write critical, error, warning, notice, info, debug or trace".to_owned()),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for number in 2..=8 {
            let severity = Severity::from(number);
            assert_eq!(severity as u32, number);
            assert_eq!(severity.as_str().parse(), Ok(severity));
        }
        assert!("verbose".parse::<Severity>().is_err());
        assert!(Severity::Critical < Severity::Trace);
    }
}
