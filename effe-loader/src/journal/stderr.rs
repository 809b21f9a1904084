//! Lines on stderr, as text for people or as JSON for log collectors.
//!
//! In text, the loader's notices are bare sentences; everything else has time, source and severity. Times are
//! UTC: reading the local time zone is not safe in a process whose lambda may change the environment.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    num::NonZero,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use time::{
    OffsetDateTime,
    format_description::well_known::{
        Iso8601,
        iso8601::{Config, EncodedConfig, TimePrecision},
    },
};

use super::{
    json::Object,
    line,
    queue::{AccessEntry, Entry},
    record::{Record, Source},
    severity::Severity,
};

/// RFC 3339 to the millisecond, and to the second.
const MILLIS: EncodedConfig = precision(NonZero::new(3));
const SECONDS: EncodedConfig = precision(None);

/// Bytes that a pipe takes in one piece.
const PIECE: usize = 4096;

/// How long a line waits for room on a stderr that is non-blocking.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How lines on stderr look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text if stderr is a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "auto" => Ok(Format::Auto),
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("write auto, text or json".to_owned()),
        }
    }
}

/// Where lines are written.
pub enum Sink {
    /// The process's stderr.
    Stderr,
    /// A test's stand-in for it.
    Writer {
        /// Takes each line whole.
        writer: Box<dyn Write + Send>,
        /// Whether it counts as a terminal.
        terminal: bool,
    },
}

/// Writes lines to stderr. Errors are ignored: there is no place to report them.
pub(super) struct Stderr {
    writer: Box<dyn Write + Send>,
    terminal: bool,
    colour: bool,
    json: bool,
    /// Whether only a part of the last line was written.
    is_partial: bool,
}

impl Stderr {
    pub(super) fn new(sink: Sink, format: Format) -> Stderr {
        let (writer, terminal) = match sink {
            Sink::Stderr => (Box::new(io::stderr()) as Box<dyn Write + Send>, io::stderr().is_terminal()),
            Sink::Writer { writer, terminal } => (writer, terminal),
        };
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        let json = match format {
            Format::Auto => !terminal,
            Format::Text => false,
            Format::Json => true,
        };
        Stderr { writer, terminal, colour: terminal && !no_colour && !dumb, json, is_partial: false }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn write(&mut self, entry: &Entry) {
        let mut text = if self.is_partial { "\n".to_owned() } else { String::new() };
        match self.json {
            true => push_json(&mut text, entry),
            false => push_text(&mut text, entry, self.terminal, self.colour),
        }
        text.push('\n');
        self.put(text.as_bytes());
    }

    /// Writes lines of the access log, as many at a time as a pipe takes in one piece.
    pub(super) fn write_accesses(&mut self, entries: impl Iterator<Item = AccessEntry>) {
        let (mut piece, mut line) = (String::with_capacity(PIECE), String::new());
        if self.is_partial {
            piece.push('\n');
        }
        for AccessEntry { at, access } in entries {
            line.clear();
            match self.json {
                true => access.push_json(&mut line, &time::<MILLIS>(at)),
                false => access.push_text(&mut line, &time::<SECONDS>(at)),
            }
            line.push('\n');
            if piece.len() + line.len() > PIECE {
                self.put(piece.as_bytes());
                piece.clear();
            }
            piece.push_str(&line);
        }
        self.put(piece.as_bytes());
    }

    /// Writes a line with one call if it can, so that lines of processes that share a stderr don't mix.
    fn put(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let since = Instant::now();
        let mut rest = line;
        while !rest.is_empty() {
            match self.writer.write(rest) {
                Ok(0) => break,
                Ok(n_written) => rest = &rest[n_written..],
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock && since.elapsed() < TIMEOUT => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(_) => break,
            }
        }
        // If nothing of this line was written, the line before it is still the last one.
        self.is_partial = if rest.len() == line.len() { self.is_partial } else { !rest.is_empty() };
    }
}

/// Appends one line. On a terminal, further lines of the text follow as an indented block.
fn push_text(out: &mut String, entry: &Entry, terminal: bool, colour: bool) {
    let record = &entry.record;
    let bare = record.is_bare();
    if !bare {
        let source = match record.source {
            Source::Loader => "effe-loader",
            Source::Lambda => "lambda",
        };
        let (on, off) = if colour { colours(record.severity) } else { ("", "") };
        let _ = write!(out, "{} {source}: {on}{}{off}: ", time::<SECONDS>(entry.at), record.severity);
        if !record.target.is_empty() {
            line::escape(out, &record.target, line::backslash);
            out.push_str(": ");
        }
    }
    let (first, block) = match record.text.split_once('\n') {
        Some((first, block)) if terminal => (first, block),
        _ => (record.text.as_str(), ""),
    };
    line::escape(out, first, line::backslash);
    if !bare {
        let mut fields = String::new();
        record.push_fields(&mut fields);
        line::escape(out, &fields, line::backslash);
    }
    for line in block.lines() {
        out.push_str("\n    ");
        line::escape(out, line, line::backslash);
    }
}

fn push_json(out: &mut String, entry: &Entry) {
    let record = &entry.record;
    let time = time::<MILLIS>(entry.at);
    let mut object = Object::begin(out);
    object.text("time", &time);
    object.text("level", record.severity.as_str());
    object.text("source", record.source.as_str());
    object.text("target", &record.target);
    object.text("message", &record.text);
    for (name, value) in &record.fields {
        object.text(name, value);
    }
    object.end();
}

fn time<const CONFIG: EncodedConfig>(at: OffsetDateTime) -> String {
    // It fails only for years after 9999, which the kernel's clock can't reach.
    at.format(&Iso8601::<CONFIG>).unwrap_or_default()
}

const fn precision(decimal_digits: Option<NonZero<u8>>) -> EncodedConfig {
    Config::DEFAULT.set_time_precision(TimePrecision::Second { decimal_digits }).encode()
}

fn colours(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Critical => ("\x1b[1;31m", "\x1b[0m"),
        Severity::Error => ("\x1b[31m", "\x1b[0m"),
        Severity::Warning => ("\x1b[33m", "\x1b[0m"),
        _ => ("", ""),
    }
}

impl Record {
    /// Whether it is written as a bare sentence: a notice of the loader's own.
    pub(super) fn is_bare(&self) -> bool {
        let normal = matches!(self.severity, Severity::Notice | Severity::Info);
        normal && self.source == Source::Loader && self.target.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::{self, Sender};
    use serde_json::Value;

    use super::*;
    use crate::journal::testing::lambda;

    fn entry(record: Record) -> Entry {
        Entry { at: OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_120_000_000).unwrap(), record }
    }

    fn text(record: Record, terminal: bool, colour: bool) -> String {
        let mut out = String::new();
        push_text(&mut out, &entry(record), terminal, colour);
        out
    }

    fn json(record: Record) -> Value {
        let mut out = String::new();
        push_json(&mut out, &entry(record));
        serde_json::from_str(&out).unwrap_or_else(|err| panic!("{err}: {out}"))
    }

    #[test]
    fn text_says_when_who_and_how_bad() {
        let expected = "2026-09-21T14:13:20Z lambda: error: hello::db: no\\nway id=\"a b\"";
        assert_eq!(text(lambda(Severity::Error, "no\nway"), false, false), expected);
    }

    #[test]
    fn a_terminal_shows_colour_and_blocks() {
        let record = lambda(Severity::Critical, "panicked\nat \x1b[0m\n\n  at b\rc\n");
        let expected = "2026-09-21T14:13:20Z lambda: \x1b[1;31mcritical\x1b[0m: hello::db: panicked id=\"a b\"\n    \
                        at \\u{1b}[0m\n    \n      at b\\rc";
        assert_eq!(text(record, true, true), expected);
    }

    #[test]
    fn the_loaders_notices_are_bare() {
        let record =
            Record { source: Source::Loader, target: "".into(), ..lambda(Severity::Notice, "draining") };
        assert_eq!(text(record.clone(), false, false), "draining");
        let record = Record { severity: Severity::Warning, ..record };
        let expected = "2026-09-21T14:13:20Z effe-loader: warning: draining id=\"a b\"";
        assert_eq!(text(record, false, false), expected);
    }

    #[test]
    fn json_has_the_fields_beside_the_standard_members() {
        let fields =
            [("address", "1"), ("level", "forged"), ("address", "2"), ("message", "\u{85}"), ("a\"b", "")];
        let fields = fields.map(|(name, value)| (name, value.to_owned())).into();
        let value = json(Record { fields, ..lambda(Severity::Warning, "said\n\u{7f}\u{2028}") });
        let expected = serde_json::json!({
            "time": "2026-09-21T14:13:20.120Z",
            "level": "warning",
            "source": "lambda",
            "target": "hello::db",
            "message": "said\n\u{7f}\u{2028}",
            "address": "1",
            "level_": "forged",
            "address_": "2",
            "message_": "\u{85}",
            "a\"b": "",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_stderr_that_is_full_for_a_while_gets_its_line() {
        /// Takes a byte every other time.
        struct Halting {
            full: bool,
            taken: Sender<u8>,
        }
        impl Write for Halting {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.full = !self.full;
                if self.full {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.taken.send(bytes[0]).unwrap();
                Ok(1)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (taken, written) = channel::unbounded();
        let writer = Box::new(Halting { full: false, taken });
        let mut stderr = Stderr::new(Sink::Writer { writer, terminal: false }, Format::Text);
        let record = Record { source: Source::Loader, target: "".into(), ..lambda(Severity::Info, "short") };
        stderr.write(&entry(record));
        assert_eq!(written.try_iter().collect::<Vec<_>>(), b"short\n");
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("auto".parse(), Ok(Format::Auto));
        assert_eq!("text".parse(), Ok(Format::Text));
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!("JSON ".parse::<Format>().is_err());
    }
}
