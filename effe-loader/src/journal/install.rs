//! Makes a journal the place where the program's panics go, and the records of the `log` crate: those of the
//! loader's dependencies, and of a lambda that is part of the program. A lambda in a plugin has a `log` crate of
//! its own, which leads to its host.

use std::{
    backtrace::Backtrace,
    env,
    io::{self, Write as _},
    panic,
    sync::OnceLock,
    thread,
};

use super::{
    handle::{Journal, THREAD},
    line,
    record::Record,
    severity::Severity,
};
use crate::rt::panics::{is_held, panic_text};

static INSTALLED: OnceLock<Bridge> = OnceLock::new();

pub struct LinkedLambda {
    pub crate_name: &'static str,
    /// The id of the request whose Run this thread is in.
    pub request_id: fn() -> Option<String>,
}

impl Journal {
    /// Makes this journal the program's logger: warnings and errors of dependencies are logged as the
    /// loader's, and panics as critical lines. If a lambda is part of the program, what its crate logs is the
    /// lambda's. A program that has a logger already keeps it.
    pub fn install(&self, lambda: Option<LinkedLambda>) {
        self.log_panics();
        let bridge = INSTALLED.get_or_init(|| Bridge { journal: self.clone(), lambda });
        if log::set_logger(bridge).is_ok() {
            let _ = self.state().set_log_level.set(set_log_level);
            set_log_level(self.level());
        }
    }

    /// Logs panics with place and backtrace, in place of stderr. A lambda that is part of the program sets a
    /// hook of its own on top.
    fn log_panics(&self) {
        let journal = self.clone();
        panic::set_hook(Box::new(move |info| {
            if is_held(info) {
                return;
            }
            let text = panic_text(info);
            let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
            let name = thread::current().name().unwrap_or("unnamed").to_owned();
            let mut text = format!("thread {name} panicked{place}: {text}");
            if name == THREAD {
                // It may panic again, for the same reason.
                let mut escaped = String::new();
                line::escape(&mut escaped, &text, line::backslash);
                let _ = writeln!(io::stderr(), "effe-loader: critical: {escaped}");
                return;
            }
            if env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0") {
                text = format!("{text}\n{}", Backtrace::force_capture());
            }
            journal.critical(text);
        }));
    }
}

fn set_log_level(level: Severity) {
    let has_lambda = INSTALLED.get().is_some_and(|bridge| bridge.lambda.is_some());
    log::set_max_level(match level {
        Severity::Critical | Severity::Error => log::LevelFilter::Error,
        Severity::Info if has_lambda => log::LevelFilter::Info,
        Severity::Debug if has_lambda => log::LevelFilter::Debug,
        Severity::Trace if has_lambda => log::LevelFilter::Trace,
        _ => log::LevelFilter::Warn,
    });
}

struct Bridge {
    journal: Journal,
    lambda: Option<LinkedLambda>,
}

impl Bridge {
    /// The lambda, if a record with this target comes from its crate.
    fn lambda_of(&self, target: &str) -> Option<&LinkedLambda> {
        self.lambda.as_ref().filter(|lambda| {
            let rest = target.strip_prefix(lambda.crate_name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    }
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // Of dependencies, only warnings and errors are logged.
        let concerns = metadata.level() <= log::Level::Warn && !is_about_clients(metadata.target());
        self.journal.wants(severity(metadata.level()))
            && (concerns || self.lambda_of(metadata.target()).is_some())
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (severity, target, text) = (severity(record.level()), record.target(), record.args().to_string());
        self.journal.log(match self.lambda_of(target) {
            Some(lambda) => Record::of_lambda(severity, target, text, (lambda.request_id)()),
            None => Record { target: target.to_owned().into(), ..Record::of_loader(severity, text) },
        });
    }

    fn flush(&self) {}
}

/// Whether a record is about one client's connection. These are left out: clients must not be able to fill
/// the log, and a lambda's mistakes are logged by the loader itself.
fn is_about_clients(target: &str) -> bool {
    target.starts_with("h2::")
}

fn severity(level: log::Level) -> Severity {
    match level {
        log::Level::Error => Severity::Error,
        log::Level::Warn => Severity::Warning,
        log::Level::Info => Severity::Info,
        log::Level::Debug => Severity::Debug,
        log::Level::Trace => Severity::Trace,
    }
}

#[cfg(test)]
mod tests {
    use log::Log as _;

    use super::*;
    use crate::journal::testing::{LONG, start_alone};

    /// What comes of a record at each of some levels, of each of some targets.
    fn said(lambda: Option<LinkedLambda>, targets: &[&str]) -> Vec<String> {
        let (stderr, journal) = start_alone();
        // Not installed: a program has one logger, and other tests are in this program too.
        let bridge = Bridge { journal, lambda };
        for target in targets {
            for level in [log::Level::Error, log::Level::Warn, log::Level::Info] {
                let args = format_args!("at {level}");
                bridge.log(&log::Record::builder().level(level).target(target).args(args).build());
            }
        }
        assert!(bridge.journal.close(LONG));
        stderr.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn warnings_and_errors_become_the_loaders() {
        let lines = said(None, &["actix", "h2::proto::ping_pong"]);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].ends_with("effe-loader: error: actix: at ERROR"), "{lines:#?}");
        assert!(lines[1].ends_with("effe-loader: warning: actix: at WARN"), "{lines:#?}");
    }

    #[test]
    fn what_a_lambda_logs_that_is_linked_in_is_the_lambdas() {
        let lambda = LinkedLambda { crate_name: "hello", request_id: || Some("abc".to_owned()) };
        let lines = said(Some(lambda), &["hello", "hello::inner", "hello_world"]);
        assert_eq!(lines.len(), 3 + 3 + 2, "{lines:#?}");
        assert!(lines[2].ends_with("lambda: info: hello: at INFO request_id=abc"), "{lines:#?}");
        assert!(lines[5].ends_with("lambda: info: hello::inner: at INFO request_id=abc"), "{lines:#?}");
        assert!(lines[6].ends_with("effe-loader: error: hello_world: at ERROR"), "{lines:#?}");
    }
}
