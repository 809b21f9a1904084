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
    access::Access,
    json::Object,
    line,
    record::{Entry, Record, Source},
    severity::Severity,
};

/// RFC 3339 to the millisecond, and to the second.
const MILLIS: EncodedConfig = precision(NonZero::new(3));
const SECONDS: EncodedConfig = precision(None);

/// Bytes that a pipe takes in one piece.
const PIECE: usize = 4096;

/// How long a line waits for room on a stderr that is non-blocking.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text if stderr is a terminal, else JSON.
    Auto,
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

/// Where lines are written: the process's stderr, or a test's stand-in for it.
pub struct Sink {
    /// Takes each line whole.
    pub writer: Box<dyn Write + Send>,
    pub is_terminal: bool,
}

impl Sink {
    pub fn stderr() -> Sink {
        Sink { writer: Box::new(io::stderr()), is_terminal: io::stderr().is_terminal() }
    }
}

/// Writes lines to stderr. Errors are ignored: there is no place to report them.
pub(super) struct Stderr {
    sink: Sink,
    colour: bool,
    json: bool,
    /// Whether only a part of the last line was written.
    is_partial: bool,
}

impl Stderr {
    pub(super) fn new(sink: Sink, format: Format) -> Stderr {
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colour = sink.is_terminal && !no_colour && !dumb;
        let json = format == Format::Json || format == Format::Auto && !sink.is_terminal;
        Stderr { sink, colour, json, is_partial: false }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.sink.is_terminal
    }

    pub(super) fn write(&mut self, entry: &Entry<Record>) {
        let mut text = if self.is_partial { "\n".to_owned() } else { String::new() };
        match self.json {
            true => push_json(&mut text, entry),
            false => push_text(&mut text, entry, self.is_terminal(), self.colour),
        }
        text.push('\n');
        self.put(text.as_bytes());
    }

    /// Writes lines of the access log, as many at a time as a pipe takes in one piece.
    pub(super) fn write_accesses(&mut self, entries: impl Iterator<Item = Entry<Access>>) {
        let (mut piece, mut line) = (String::with_capacity(PIECE), String::new());
        if self.is_partial {
            piece.push('\n');
        }
        for Entry { at, what: access } in entries {
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
        let since = Instant::now();
        let mut rest = line;
        while !rest.is_empty() {
            match self.sink.writer.write(rest) {
                Ok(n_written @ 1..) => rest = &rest[n_written..],
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock && since.elapsed() < TIMEOUT => {
                    thread::sleep(Duration::from_millis(10));
                }
                Ok(_) | Err(_) => break,
            }
        }
        // If nothing of this line was written, the line before it is still the last one.
        if rest.len() < line.len() {
            self.is_partial = !rest.is_empty();
        }
    }
}

/// On a terminal, further lines of the text follow as an indented block.
fn push_text(out: &mut String, entry: &Entry<Record>, terminal: bool, colour: bool) {
    let Entry { at, what: record } = entry;
    let bare = record.is_bare();
    if !bare {
        let source = match record.source {
            Source::Loader => "effe-loader",
            Source::Lambda => "lambda",
        };
        let on = if colour { colour_of(record.severity) } else { "" };
        let off = if on.is_empty() { "" } else { "\x1b[0m" };
        let (time, severity) = (time::<SECONDS>(*at), record.severity.as_str());
        let _ = write!(out, "{time} {source}: {on}{severity}{off}: ");
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

fn push_json(out: &mut String, entry: &Entry<Record>) {
    let Entry { at, what: record } = entry;
    let time = time::<MILLIS>(*at);
    let mut object = Object::begin(out);
    object.text("time", &time);
    object.text("level", record.severity.as_str());
    object.text("source", if record.source == Source::Loader { "loader" } else { "lambda" });
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

fn colour_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "\x1b[1;31m",
        Severity::Error => "\x1b[31m",
        Severity::Warning => "\x1b[33m",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::{self, Sender};
    use serde_json::Value;

    use super::*;
    use crate::journal::testing::lambda;

    fn entry(what: Record) -> Entry<Record> {
        Entry { at: OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_120_000_000).unwrap(), what }
    }

    fn loader(severity: Severity, text: &str) -> Record {
        Record { source: Source::Loader, target: "".into(), ..lambda(severity, text) }
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
        let said = |severity| text(loader(severity, "draining"), false, false);
        assert_eq!(said(Severity::Notice), "draining");
        let expected = "2026-09-21T14:13:20Z effe-loader: warning: draining id=\"a b\"";
        assert_eq!(said(Severity::Warning), expected);
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
        let mut stderr = Stderr::new(Sink { writer, is_terminal: false }, Format::Text);
        stderr.write(&entry(loader(Severity::Info, "short")));
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
