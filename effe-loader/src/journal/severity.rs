//! Severities, on syslog's scale.

use std::str::FromStr;

/// How severe a record is. The numbers are syslog's, and the ones of the ABI. More severe compares as less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Code of the lambda panicked, or the effe can't go on.
    Critical = 2,
    Error,
    /// Something will fail, or is not as it should be.
    Warning,
    /// What every operator wants to know, such as the start of a drain.
    Notice,
    Info,
    Debug,
    /// The finest level. Syslog has no such level and gets it as debug.
    Trace,
}

impl Severity {
    const NAMES: [&str; 7] = ["critical", "error", "warning", "notice", "info", "debug", "trace"];

    pub fn as_str(self) -> &'static str {
        Severity::NAMES[self as usize - 2]
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
        let name = if text == "warn" { "warning" } else { text };
        let found = (2..=8).map(Severity::from).find(|severity| severity.as_str() == name);
        found.ok_or_else(|| "write critical, error, warning, notice, info, debug or trace".to_owned())
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
