//! Panics of the loader's own code: one critical line with place and backtrace, wherever lines go.

use std::{backtrace::Backtrace, env, panic, thread};

use super::{handle::Journal, severity::Severity};

/// Logs panics in this journal, in place of stderr. A lambda that is part of the program sets a hook of its
/// own on top.
pub(super) fn install(journal: &Journal) {
    let journal = journal.clone();
    panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref().copied()).unwrap_or("(no message)");
        let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
        let name = thread::current().name().unwrap_or("unnamed").to_owned();
        let mut text = format!("thread {name} panicked{place}: {text}");
        if env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0") {
            text = format!("{text}\n{}", Backtrace::force_capture());
        }
        journal.report(Severity::Critical, text, []);
    }));
}
