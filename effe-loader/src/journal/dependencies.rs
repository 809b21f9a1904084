//! The loader's dependencies log through the `log` crate; here their records become the journal's.

use std::sync::OnceLock;

use super::{Journal, Record, Severity, Source};

static INSTALLED: OnceLock<Bridge> = OnceLock::new();

/// Makes `journal` the program's logger, if it has none.
pub(super) fn install(journal: &Journal) -> bool {
    let bridge = INSTALLED.get_or_init(|| Bridge(journal.clone()));
    log::set_logger(bridge).is_ok()
}

/// Lets the `log` macros be as quiet as the journal.
pub(super) fn follow(level: Severity) {
    log::set_max_level(match level {
        Severity::Critical | Severity::Error => log::LevelFilter::Error,
        _ => log::LevelFilter::Warn,
    });
}

struct Bridge(Journal);

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let severity = severity(metadata.level()).filter(|_| !is_about_clients(metadata.target()));
        severity.is_some_and(|severity| self.0.wants(severity))
    }

    fn log(&self, record: &log::Record<'_>) {
        let Some(severity) = severity(record.level()).filter(|_| self.enabled(record.metadata())) else {
            return;
        };
        self.0.log(Record {
            severity,
            source: Source::Loader,
            target: record.target().to_owned().into(),
            text: record.args().to_string(),
            fields: Vec::new(),
        });
    }

    fn flush(&self) {}
}

/// Whether a record is about one client's connection: what a client sends must not fill the operator's log, and what
/// a lambda does wrong is said where it is seen.
fn is_about_clients(target: &str) -> bool {
    target.starts_with("actix_http::h1") || target.starts_with("actix_http::h2")
}

/// What of other people's code concerns an operator: its warnings and errors.
fn severity(level: log::Level) -> Option<Severity> {
    match level {
        log::Level::Error => Some(Severity::Error),
        log::Level::Warn => Some(Severity::Warning),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use log::Log as _;

    use super::*;
    use crate::journal::{
        Format, SyslogTarget,
        testing::{Captured, start},
    };

    #[test]
    fn warnings_and_errors_become_the_loaders() {
        let stderr = Captured::default();
        // Not installed: a program has one logger, and other tests are in this program too.
        let bridge = Bridge(start(SyslogTarget::None, Format::Text, &stderr));
        for level in [log::Level::Error, log::Level::Warn, log::Level::Info] {
            let args = format_args!("at {level}");
            bridge.log(&log::Record::builder().level(level).target("actix").args(args).build());
        }
        assert!(bridge.0.close(Duration::from_secs(20)));
        let text = stderr.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("effe-loader: error: actix: at ERROR\n"), "{text}");
        assert!(text.contains("effe-loader: warning: actix: at WARN\n"), "{text}");
    }
}
