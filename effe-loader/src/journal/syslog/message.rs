//! A record as a syslog message of one line: RFC 3164, which every daemon reads, or RFC 5424, whose
//! structured data keeps the fields apart.
//!
//! The `syslog` crate writes the heads, with UTC times. rsyslog and journald put their own time of arrival in
//! its place.

use std::{collections::BTreeMap, process, str::FromStr};

use syslog::{Facility, Formatter3164, Formatter5424, LogFormat};

use crate::journal::{
    line,
    record::{Record, Source},
    severity::Severity,
};

/// The name of our structured data. 32473 is the enterprise number that IANA reserves for examples.
const DATA: &str = "effe@32473";
const TAG_LIMIT: usize = 48;

/// How records look in syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogFormat {
    /// `<priority>time tag[pid]: text name=value`; over TCP a line each.
    Rfc3164,
    /// `<priority>1 time host tag pid 0 [effe@32473 name="value"] text`; over TCP with its length before it.
    Rfc5424,
}

impl FromStr for SyslogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<SyslogFormat, String> {
        match text {
            "rfc3164" => Ok(SyslogFormat::Rfc3164),
            "rfc5424" => Ok(SyslogFormat::Rfc5424),
            _ => Err("write rfc3164 or rfc5424".to_owned()),
        }
    }
}

pub(super) enum Formatter {
    Old(Formatter3164),
    New(Formatter5424),
}

impl Formatter {
    /// `local` is for the local socket: in the old format, its messages have no host name.
    pub(super) fn new(format: SyslogFormat, local: bool, tag: &str) -> Formatter {
        // LOG_DAEMON: distributions file a server with the other daemons.
        let (facility, process, pid) = (Facility::LOG_DAEMON, tag_of(tag), process::id());
        match format {
            SyslogFormat::Rfc3164 => {
                let hostname = (!local).then(hostname);
                Formatter::Old(Formatter3164 { facility, hostname, process, pid })
            }
            SyslogFormat::Rfc5424 => {
                Formatter::New(Formatter5424 { facility, hostname: Some(hostname()), process, pid })
            }
        }
    }

    /// A message with at most `limit` bytes after the head.
    pub(super) fn message(&self, record: &Record, limit: usize) -> Vec<u8> {
        let severity = severity(record.severity);
        let mut message = Vec::new();
        // It fails only if writing to the buffer fails, and a Vec doesn't.
        let _ = match self {
            Formatter::Old(formatter) => {
                let text = body(record, !record.is_bare());
                formatter.format(&mut message, severity, cut(text, limit))
            }
            Formatter::New(formatter) => {
                let text = body(record, false);
                let (data, length) = data(record, limit / 2);
                formatter.format(&mut message, severity, (0, data, cut(text, limit - length)))
            }
        };
        message
    }

    /// A message as a stream carries it, RFC 6587: with its length before it, or, in the old format, as a
    /// line.
    pub(super) fn framed(&self, mut message: Vec<u8>) -> Vec<u8> {
        match self {
            // There is no line feed in it.
            Formatter::Old(_) => message.push(b'\n'),
            Formatter::New(_) => drop(message.splice(..0, format!("{} ", message.len()).into_bytes())),
        }
        message
    }
}

fn severity(severity: Severity) -> syslog::Severity {
    match severity {
        Severity::Critical => syslog::Severity::LOG_CRIT,
        Severity::Error => syslog::Severity::LOG_ERR,
        Severity::Warning => syslog::Severity::LOG_WARNING,
        Severity::Notice => syslog::Severity::LOG_NOTICE,
        Severity::Info => syslog::Severity::LOG_INFO,
        Severity::Debug | Severity::Trace => syslog::Severity::LOG_DEBUG,
    }
}

/// The text of a message after its head, on one line.
fn body(record: &Record, with_fields: bool) -> String {
    let mut text = String::new();
    if record.source == Source::Lambda {
        text.push_str("lambda: ");
    }
    if !record.target.is_empty() {
        text.push_str(&record.target);
        text.push_str(": ");
    }
    text.push_str(&record.text);
    if with_fields {
        record.push_fields(&mut text);
    }
    escaped(&text)
}

/// The fields as structured data, and how many bytes that takes. No fields if it would be more than `limit`.
fn data(record: &Record, limit: usize) -> (BTreeMap<String, BTreeMap<String, String>>, usize) {
    // Characters that can't be in a name become `_`.
    let plain = |ch: char| if ch.is_ascii_graphic() && !"=]\"".contains(ch) { ch } else { '_' };
    let params: BTreeMap<String, String> = record
        .fields
        .iter()
        .map(|(name, value)| (name.chars().take(32).map(plain).collect(), escaped(value)))
        .collect();
    // An escape takes one byte more for each of three characters.
    let length = params.iter().map(|(name, value)| name.len() + value.len() + 4);
    let escapes = params.values().map(|value| value.matches(['"', '\\', ']']).count());
    let length = DATA.len() + 2 + length.sum::<usize>() + escapes.sum::<usize>();
    if params.is_empty() || length > limit {
        return (BTreeMap::new(), 0);
    }
    (BTreeMap::from([(DATA.to_owned(), params)]), length)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    line::escape(&mut out, text, line::octal);
    out
}

/// A text, cut to `limit` bytes.
fn cut(mut text: String, limit: usize) -> String {
    let end = line::boundary(&text, limit);
    if end < text.len() {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A tag that every daemon understands: RFC 3164 demands letters and digits; a few more characters are in
/// common use.
fn tag_of(name: &str) -> String {
    let plain = |ch: char| if ch.is_ascii_alphanumeric() || "-_./".contains(ch) { ch } else { '_' };
    name.chars().take(TAG_LIMIT).map(plain).collect()
}

fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let good = !name.is_empty() && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic());
    if good { name } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::testing::lambda;

    fn message(format: SyslogFormat, record: &Record, limit: usize) -> String {
        let formatter = Formatter::new(format, false, "effe-loader");
        String::from_utf8(formatter.message(record, limit)).unwrap()
    }

    #[test]
    fn tags_are_plain() {
        assert_eq!(tag_of("effe-loader"), "effe-loader");
        assert_eq!(tag_of("a b[1]: \n"), "a_b_1____");
        assert_eq!(tag_of(&"x".repeat(100)).len(), TAG_LIMIT);
    }

    #[test]
    fn the_new_format_keeps_the_fields_apart() {
        let mut record = lambda(Severity::Error, "said\nso");
        record.fields = vec![("id", "a\"]\n\\".to_owned()), ("a]=b", "c".to_owned())];
        let said = message(SyslogFormat::Rfc5424, &record, 1_000);
        let expected = format!(
            " {} effe-loader {} 0 [effe@32473 a__b=\"c\" id=\"a\\\"\\]#012\\\\\"] lambda: hello::db: said#012so",
            hostname(),
            process::id()
        );
        assert!(said.starts_with("<27>1 2") && said.ends_with(&expected), "{said}");
    }

    #[test]
    fn neither_format_exceeds_its_limit() {
        let mut record = lambda(Severity::Error, &"ü\n\"]".repeat(1_000));
        record.fields = (0..3).map(|_| ("id", "\"]\n".repeat(100))).collect();
        for format in [SyslogFormat::Rfc3164, SyslogFormat::Rfc5424] {
            let head = message(format, &lambda(Severity::Error, ""), 0).len();
            for limit in [64, 200, 1_000, 2_000, 8_000] {
                let said = message(format, &record, limit);
                assert!(said.len() <= head + limit + "…".len(), "{limit}: {}", said.len());
                assert!(said.ends_with('…') && !said.contains(char::is_control), "{said}");
            }
        }
    }

    #[test]
    fn any_record_is_one_frame_within_its_limit() {
        type Said = (String, String, Vec<String>, u16, bool);
        bolero::check!().with_type::<Said>().for_each(|(text, target, values, limit, new)| {
            let limit = usize::from(*limit);
            let format = if *new { SyslogFormat::Rfc5424 } else { SyslogFormat::Rfc3164 };
            let bare = Record { fields: Vec::new(), ..lambda(Severity::Error, "") };
            let head = message(format, &bare, 0).len();
            let fields = values.iter().map(|value| ("id", value.clone())).collect();
            let record = Record { target: target.clone().into(), fields, ..lambda(Severity::Error, text) };
            let said = message(format, &record, limit);
            assert!(said.len() <= head + limit + "…".len(), "{limit}: {said}");
            assert!(!said.contains(line::is_unsafe), "{said:?}");
            let framed = if *new { format!("{} {said}", said.len()) } else { format!("{said}\n") };
            let formatter = Formatter::new(format, false, "effe-loader");
            assert_eq!(formatter.framed(said.into_bytes()), framed.into_bytes());
        });
    }

    #[test]
    fn a_stream_has_lines_or_lengths() {
        let framed = |format| Formatter::new(format, false, "x").framed(b"abc".to_vec());
        assert_eq!(framed(SyslogFormat::Rfc3164), b"abc\n");
        assert_eq!(framed(SyslogFormat::Rfc5424), b"3 abc");
    }
}
