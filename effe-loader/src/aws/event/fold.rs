//! Answers in the shape of their events.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;

use super::shape::Shape;
use crate::message::fields::Fields;

/// Headers that are about a connection. The length is the body's, which whoever sends the answer measures.
const NOT_OURS: [&str; 4] = ["connection", "transfer-encoding", "trailer", "upgrade"];

/// Zeros between the head of a streamed answer and its body.
pub const N_ZEROS: usize = 8;

/// An answer as the sender of an event of this shape expects it. The result of an event that isn't HTTP is the body
/// itself; an empty one is `null`, since results are JSON.
pub fn fold(shape: Shape, status: StatusCode, fields: &Fields, body: &[u8]) -> Vec<u8> {
    if shape == Shape::Other {
        return if body.is_empty() { b"null".to_vec() } else { body.to_vec() };
    }
    let mut out = Vec::with_capacity(body.len() + 256);
    push_head(&mut out, shape, status, fields);
    // What is text goes as text: API Gateway decodes base64 only for the media types that it is told of.
    let is_text = !fields.has("content-encoding");
    match std::str::from_utf8(body).ok().filter(|_| is_text || body.is_empty()) {
        Some(text) => {
            out.extend_from_slice(b",\"isBase64Encoded\":false,\"body\":");
            push_text(&mut out, text);
        }
        None => {
            out.extend_from_slice(b",\"isBase64Encoded\":true,\"body\":\"");
            out.extend_from_slice(STANDARD.encode(body).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
    out
}

/// What comes before the body of a streamed answer: its head as JSON, and eight zeros. The shape is that of 2.0,
/// whatever the event's is (Lambda Developer Guide, "Response streaming with custom runtimes").
pub fn prelude(status: StatusCode, fields: &Fields) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    push_head(&mut out, Shape::Gateway2, status, fields);
    out.push(b'}');
    out.extend_from_slice(&[0; N_ZEROS]);
    out
}

/// All of the head, the object still open.
fn push_head(out: &mut Vec<u8>, shape: Shape, status: StatusCode, fields: &Fields) {
    out.extend_from_slice(format!("{{\"statusCode\":{}", status.as_u16()).as_bytes());
    if let Shape::LoadBalancer { .. } = shape {
        out.extend_from_slice(b",\"statusDescription\":");
        let reason = status.canonical_reason().unwrap_or("Unknown");
        push_text(out, &format!("{} {reason}", status.as_u16()));
    }
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in fields.iter() {
        if !NOT_OURS.contains(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    let is_multi = matches!(shape, Shape::Gateway1 | Shape::LoadBalancer { is_multi: true });
    if is_multi {
        out.extend_from_slice(b",\"multiValueHeaders\":");
        push_members(out, &names, |out, name| {
            push_list(out, fields.get_all(name).map(text));
        });
    } else {
        let is_v2 = shape == Shape::Gateway2;
        out.extend_from_slice(b",\"headers\":{");
        let mut is_first = true;
        for name in names {
            // A cookie may hold a comma, so that cookies can't be joined. Payload 2.0 has a list for them; where names
            // are told apart by their case alone, each gets another spelling.
            if name == "set-cookie" {
                let spellings = fields.get_all(name).zip(0..).filter(|_| !is_v2);
                for (value, n) in spellings {
                    push_member(out, &mut is_first, &spelled(name, n));
                    push_text(out, &text(value));
                }
                continue;
            }
            push_member(out, &mut is_first, name);
            let values: Vec<_> = fields.get_all(name).map(text).collect();
            push_text(out, &values.join(", "));
        }
        out.push(b'}');
        if is_v2 {
            out.extend_from_slice(b",\"cookies\":");
            push_list(out, fields.get_all("set-cookie").map(text));
        }
    }
}

/// The nth way to spell a name: the bits of `n` say which of its letters are capitals.
fn spelled(name: &str, n: u32) -> String {
    let mut bits = n;
    name.chars()
        .map(|letter| {
            let is_capital = letter.is_ascii_lowercase() && bits & 1 == 1;
            if letter.is_ascii_lowercase() {
                bits >>= 1;
            }
            if is_capital { letter.to_ascii_uppercase() } else { letter }
        })
        .collect()
}

fn push_members(out: &mut Vec<u8>, names: &[&str], mut push_value: impl FnMut(&mut Vec<u8>, &str)) {
    out.push(b'{');
    let mut is_first = true;
    for name in names {
        push_member(out, &mut is_first, name);
        push_value(out, name);
    }
    out.push(b'}');
}

fn push_member(out: &mut Vec<u8>, is_first: &mut bool, name: &str) {
    if !std::mem::replace(is_first, false) {
        out.push(b',');
    }
    push_text(out, name);
    out.push(b':');
}

fn push_list<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = Cow<'a, str>>) {
    out.push(b'[');
    for (value, n) in values.zip(0..) {
        if n > 0 {
            out.push(b',');
        }
        push_text(out, &value);
    }
    out.push(b']');
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    // It can't fail: text has a form in JSON, and a `Vec` takes all that is written.
    let _ = serde_json::to_writer(out, text);
}

/// A header's value; one that isn't UTF-8 is Latin-1, as HTTP once had it (RFC 9110, section 5.5).
fn text(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => value.iter().copied().map(char::from).collect::<String>().into(),
    }
}
