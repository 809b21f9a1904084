//! A JSON object that is written on one line, member by member.

use std::{borrow::Cow, fmt};

use serde_json::Value;

use super::line;

pub(super) struct Object<'a> {
    out: &'a mut String,
    names: Vec<Cow<'a, str>>,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut String) -> Object<'a> {
        Object { out, names: Vec::with_capacity(16) }
    }

    pub(super) fn text(&mut self, name: &'a str, value: &str) {
        self.name(name);
        push(self.out, value);
    }

    pub(super) fn number(&mut self, name: &'a str, value: impl fmt::Display) {
        use fmt::Write;
        self.name(name);
        let _ = write!(self.out, "{value}");
    }

    pub(super) fn end(self) {
        self.out.push('}');
    }

    fn name(&mut self, name: &'a str) {
        let mut name = Cow::Borrowed(name);
        // A name that is there already gets a `_`: parsers disagree about which of two equal names counts.
        while self.names.contains(&name) {
            name.to_mut().push('_');
        }
        self.out.push(if self.names.is_empty() { '{' } else { ',' });
        push(self.out, &name);
        self.out.push(':');
        self.names.push(name);
    }
}

/// Appends a string. serde_json escapes only what JSON demands: DEL, C1 and Unicode's line ends are escaped
/// here.
fn push(out: &mut String, text: &str) {
    // Most texts need no escape, and this takes a fifth of the time.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    line::escape(out, &Value::from(text).to_string(), line::json);
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    #[test]
    fn any_members_are_one_line_that_reads_back_as_they_were() {
        bolero::check!().with_type::<Vec<(String, String)>>().for_each(|members| {
            let mut out = String::new();
            let mut object = Object::begin(&mut out);
            // An object has a name once at least.
            object.number("n", 7);
            members.iter().for_each(|(name, value)| object.text(name, value));
            object.end();
            assert!(!out.contains(line::is_unsafe), "{out:?}");
            let read: Map<String, Value> = serde_json::from_str(&out).unwrap();
            assert_eq!(read.len(), 1 + members.len(), "a name that is taken gets another");
            let mut values: Vec<_> = members.iter().map(|(_, value)| value.as_str()).collect();
            let mut found: Vec<_> = read.values().filter_map(Value::as_str).collect();
            values.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, values);
        });
    }
}
