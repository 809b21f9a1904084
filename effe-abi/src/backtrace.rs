//! The calls that led to a panic, for the log: those of the lambda, without the calls of the panic machinery and those
//! of the loader and this crate.
//!
//! When it is called, and where the text goes, is left to `report.rs`.

use std::{
    backtrace::Backtrace,
    env,
    fmt::Write,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// There is at most one backtrace in this time: to find the names of the calls takes milliseconds, and a client may
/// know how to make a lambda panic.
const INTERVAL: Duration = Duration::from_secs(1);

/// The calls that led to a panic, the innermost first, one a line; to be called from its hook. `None` if the
/// environment variable `RUST_BACKTRACE` is 0, or if the last backtrace is less than a second old.
pub(crate) fn of_panic() -> Option<String> {
    static WANTED: OnceLock<bool> = OnceLock::new();
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let wanted = WANTED.get_or_init(|| env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0"));
    if !wanted {
        return None;
    }
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < INTERVAL) {
        return None;
    }
    *last = Some(Instant::now());
    drop(last);
    let calls = calls(&Backtrace::force_capture().to_string());
    (!calls.is_empty()).then_some(calls)
}

/// The lambda's own calls in the text of a backtrace.
fn calls(text: &str) -> String {
    let mut calls: Vec<(&str, Option<&str>)> = Vec::new();
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("at ") {
            Some(place) => {
                if let Some((_, known)) = calls.last_mut() {
                    *known = Some(place);
                }
            }
            None => {
                let name = line.trim_start_matches(|ch: char| ch.is_ascii_digit());
                calls.push((name.strip_prefix(": ").unwrap_or(line), None));
            }
        }
    }
    let panicking = |name: &str| {
        ["rust_begin_unwind", "core::panicking::", "std::panicking::", "__rust_end_short_backtrace"]
            .iter()
            .any(|part| name.contains(part))
    };
    // The functions that catch a panic have such names, too, so this must not be searched from the outside.
    let outside = |name: &str| {
        ["effe_abi::export", "effe_abi::fence", "effe_abi::async_entries", "__rust_begin_short_backtrace"]
            .iter()
            .any(|part| name.contains(part))
    };
    let begin = calls.iter().position(|(name, _)| name.contains("rust_begin_unwind"));
    let begin = begin.map_or(0, |begin| begin + 1);
    let begin = begin + calls[begin..].iter().take_while(|(name, _)| panicking(name)).count();
    let mut out = String::new();
    for (name, place) in calls[begin..].iter().take_while(|(name, _)| !outside(name)) {
        let _ = match place {
            Some(place) => writeln!(out, "in {name} at {place}"),
            None => writeln!(out, "in {name}"),
        };
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn only_the_authors_calls_are_left() {
        let text = "   0: std::backtrace::Backtrace::force_capture
             at /rustc/1/library/std/src/backtrace.rs:1:1
   1: effe_abi::report::hook
   2: std::panicking::panic_with_hook
   3: std::sys::backtrace::__rust_end_short_backtrace
   4: __rustc::rust_begin_unwind
             at /rustc/1/library/std/src/panicking.rs:689:5
   5: core::panicking::panic_fmt
   6: core::option::unwrap_failed
   7: hello::inner
             at ./src/lib.rs:7:9
      hello::inlined
             at ./src/lib.rs:9:9
   8: <hello::Hello as effe_abi::lambda::Lambda>::run
   9: effe_abi::export::run::{{closure}}
  10: std::panicking::catch_unwind
";
        let expected = "in core::option::unwrap_failed\nin hello::inner at ./src/lib.rs:7:9\n\
                        in hello::inlined at ./src/lib.rs:9:9\n\
                        in <hello::Hello as effe_abi::lambda::Lambda>::run";
        assert_eq!(calls(text), expected);
        assert_eq!(calls("   0: <unknown>\n   1: <unknown>\n"), "in <unknown>\nin <unknown>");
        assert_eq!(calls(""), "");
    }
}
