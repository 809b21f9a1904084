//! A line of the access log: one request and its response. These lines have a queue of their own, so that a
//! flood of requests can't keep an error out of the log. They go to stderr only.

use std::{net::SocketAddr, time::Duration};

use super::{json::Object, line, record::FIELD_LIMIT};

/// Bytes of a method; the longest that is registered has 17.
const METHOD_LIMIT: usize = 32;

/// A request that has ended. Its strings may hold any characters: they are escaped where they are written.
#[derive(Clone, Debug)]
pub struct Access {
    pub request_id: String,
    pub peer: Option<SocketAddr>,
    pub method: String,
    /// Without the query.
    pub path: String,
    pub version: &'static str,
    pub status: u16,
    /// Of the response's body.
    pub bytes: u64,
    /// From the request's head to the response.
    pub took: Duration,
    /// Further fields that the operator has asked for: names and values.
    pub extra: Vec<(String, String)>,
}

impl Access {
    pub(super) fn cut(&mut self) {
        line::cut(&mut self.method, METHOD_LIMIT);
        line::cut(&mut self.path, FIELD_LIMIT);
        for (_, value) in &mut self.extra {
            line::cut(value, FIELD_LIMIT);
        }
    }

    pub(super) fn push_text(&self, out: &mut String, time: &str) {
        let Access { method, path, status, bytes, took, .. } = self;
        let peer = self.peer.map_or_else(|| "-".to_owned(), |peer| peer.ip().to_string());
        let mut text = format!("{time} access: {peer} {method} {path} {status} {bytes} B {took:.1?}");
        line::push_field(&mut text, "request_id", &self.request_id);
        for (name, value) in &self.extra {
            line::push_field(&mut text, name, value);
        }
        line::escape(out, &text, line::backslash);
    }

    /// For collectors. The duration is in seconds.
    pub(super) fn push_json(&self, out: &mut String, time: &str) {
        let Access { method, path, status, .. } = self;
        let message = format!("{method} {path} {status}");
        let mut object = Object::begin(out);
        object.text("time", time);
        object.text("level", "info");
        object.text("source", "access");
        object.text("message", &message);
        object.text("request_id", &self.request_id);
        if let Some(peer) = self.peer {
            object.text("peer", &peer.ip().to_string());
        }
        object.text("method", method);
        object.text("path", path);
        object.text("version", self.version);
        object.number("status", status);
        object.number("bytes", self.bytes);
        object.number("duration", format_args!("{:.6}", self.took.as_secs_f64()));
        for (name, value) in &self.extra {
            object.text(name, value);
        }
        object.end();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::journal) fn access() -> Access {
        Access {
            request_id: "abc".into(),
            peer: Some("127.0.0.1:80".parse().unwrap()),
            method: "GET".into(),
            path: "/a\u{85}\n b".into(),
            version: "HTTP/1.1",
            status: 200,
            bytes: 5,
            took: Duration::from_micros(1_250),
            extra: vec![("user-agent".into(), "x \"y\"\u{1b}".into()), ("status".into(), "forged".into())],
        }
    }

    #[test]
    fn text_is_one_line() {
        let mut out = String::new();
        access().push_text(&mut out, "now");
        let expected = "now access: 127.0.0.1 GET /a\\u{85}\\n b 200 5 B 1.2ms request_id=abc \
                        user-agent=\"x \\\"y\\\"\\u{1b}\" status=forged";
        assert_eq!(out, expected);
    }

    #[test]
    fn json_has_numbers_and_no_name_twice() {
        let mut out = String::new();
        access().push_json(&mut out, "now");
        assert!(!out.chars().any(line::is_unsafe), "{out}");
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let expected = serde_json::json!({
            "time": "now", "level": "info", "source": "access", "message": "GET /a\u{85}\n b 200",
            "request_id": "abc", "peer": "127.0.0.1", "method": "GET", "path": "/a\u{85}\n b", "version": "HTTP/1.1",
            "status": 200, "bytes": 5, "duration": 0.00125, "user-agent": "x \"y\"\u{1b}", "status_": "forged",
        });
        assert_eq!(value, expected);
    }
}
