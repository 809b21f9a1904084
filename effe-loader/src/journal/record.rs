//! A record: one entry of the log, before it is formatted.

use std::borrow::Cow;

use time::OffsetDateTime;

use super::{line, severity::Severity};

/// Bytes of each part of a record. With its head and a few fields it fits into the 8 KiB that rsyslog takes.
const TEXT_LIMIT: usize = 8 * 1024 - 512;
pub const FIELD_LIMIT: usize = 1024;
const TARGET_LIMIT: usize = 128;

/// Who logs a record. This decides where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The loader and its dependencies: stderr, and syslog if it is there.
    Loader,
    /// The lambda: syslog; stderr too if it is a terminal, and instead if there is no syslog.
    Lambda,
}

/// Something to be written, and when it was logged, which may be long before it is written.
pub(super) struct Entry<T> {
    pub(super) at: OffsetDateTime,
    pub(super) what: T,
}

impl<T> Entry<T> {
    pub(super) fn now(what: T) -> Entry<T> {
        Entry { at: OffsetDateTime::now_utc(), what }
    }
}

/// One entry of the log. Its strings may hold any characters: they are escaped where they are written.
#[derive(Clone, Debug)]
pub struct Record {
    pub severity: Severity,
    pub source: Source,
    /// The part of the program that logs it; may be empty.
    pub target: Cow<'static, str>,
    /// A sentence that suffices by itself. Lines after the first are details, such as a backtrace.
    pub text: String,
    /// Facts for machines: members of a JSON line, `name=value` elsewhere.
    pub fields: Vec<(&'static str, String)>,
}

impl Record {
    /// A record of a lambda's. `request_id` is the request of the Run that it is logged in, if there is one:
    /// a task that the author spawned is in no Run.
    pub fn of_lambda(severity: Severity, target: &str, text: String, request_id: Option<String>) -> Record {
        let fields = request_id.map(|id| ("request_id", id)).into_iter().collect();
        Record { severity, source: Source::Lambda, target: target.to_owned().into(), text, fields }
    }

    pub fn of_loader(severity: Severity, text: String) -> Record {
        Record { severity, source: Source::Loader, target: Cow::Borrowed(""), text, fields: Vec::new() }
    }

    /// Cuts strings that are too long, so that a queue of records has a bound and syslog takes each record.
    pub fn cut(&mut self) {
        line::cut(&mut self.text, TEXT_LIMIT);
        if self.target.len() > TARGET_LIMIT {
            line::cut(self.target.to_mut(), TARGET_LIMIT);
        }
        for (_, value) in &mut self.fields {
            line::cut(value, FIELD_LIMIT);
        }
    }

    /// Whether it is written as a bare sentence: a notice of the loader's own.
    pub(super) fn is_bare(&self) -> bool {
        let normal = matches!(self.severity, Severity::Notice | Severity::Info);
        normal && self.source == Source::Loader && self.target.is_empty()
    }

    pub(super) fn push_fields(&self, out: &mut String) {
        for (name, value) in &self.fields {
            line::push_field(out, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::testing::lambda;

    #[test]
    fn fields_cannot_pass_for_others() {
        let mut record = lambda(Severity::Error, "");
        let values = ["1", "", "a b", "1 status=200", "a\"b", "a\\"];
        record.fields = values.map(|value| ("x", value.to_owned())).into();
        let mut out = String::new();
        record.push_fields(&mut out);
        assert_eq!(out, r#" x=1 x="" x="a b" x="1 status=200" x="a\"b" x="a\\""#);
    }
}
