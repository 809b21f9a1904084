//! Writes the head of a response.

use actix_http::body::BodySize;
use bytes::BytesMut;
use http::{StatusCode, Version};

use super::write_buf::put_field;
use crate::{message::response::ResponseHead, rt::date};

/// Bytes of a head beside its fields, which are asked for at once.
const MOST: usize = 192;

/// What the head must say of the connection and the body.
#[derive(Clone, Copy)]
pub struct Framing {
    /// The version that the client speaks.
    pub version: Version,
    pub size: BodySize,
    /// Whether the connection is used again.
    pub is_kept: bool,
}

/// Writes the head of a response.
#[inline]
pub fn encode(head: &ResponseHead, framing: Framing, output: &mut BytesMut) {
    let Framing { version, size, is_kept } = framing;
    let is_http11 = version >= Version::HTTP_11;
    output.reserve(MOST + head.fields.n_bytes());
    match size {
        // Most are like this.
        BodySize::Sized(length) if head.status == StatusCode::OK && is_http11 => {
            output.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: ");
            put_number(length, output);
        }
        size => {
            status_line(head.status, is_http11, output);
            put_framing(head.status, size, is_http11, output);
        }
    }
    let offers = head.fields.has("upgrade");
    if let Some(options) = match (is_kept, is_http11, offers) {
        (true, true, false) | (false, false, false) => None,
        (true, true, true) | (false, false, true) => Some("upgrade"),
        (false, true, false) => Some("close"),
        (false, true, true) => Some("close, upgrade"),
        (true, false, false) => Some("keep-alive"),
        (true, false, true) => Some("keep-alive, upgrade"),
    } {
        put_field(output, "connection", options.as_bytes());
    }
    head.fields.iter().for_each(|(name, value)| put_field(output, name, value));
    output.extend_from_slice(&date::last_line());
}

/// Writes the head of an interim response.
pub fn encode_interim(head: &ResponseHead, output: &mut BytesMut) {
    status_line(head.status, true, output);
    head.fields.iter().for_each(|(name, value)| put_field(output, name, value));
    output.extend_from_slice(b"\r\n");
}

fn status_line(status: StatusCode, is_http11: bool, output: &mut BytesMut) {
    let reason = match status.as_u16() {
        103 => "Early Hints",
        _ => status.canonical_reason().unwrap_or_default(),
    };
    let version = if is_http11 { "HTTP/1.1 " } else { "HTTP/1.0 " };
    for part in [version, status.as_str(), " ", reason, "\r\n"] {
        output.extend_from_slice(part.as_bytes());
    }
}

/// Says how long the body is, where that has a place.
fn put_framing(status: StatusCode, size: BodySize, is_http11: bool, output: &mut BytesMut) {
    match size {
        // RFC 9110, section 8.6, and RFC 9112, section 6.1; that of a 304 would be another response's.
        _ if status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {}
        BodySize::Sized(length) => {
            output.extend_from_slice(b"content-length: ");
            put_number(length, output);
        }
        BodySize::Stream if is_http11 => output.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodySize::Stream | BodySize::None => {}
    }
}

/// Writes a number and the end of its line.
fn put_number(mut number: u64, output: &mut BytesMut) {
    let mut digits = *b"00000000000000000000\r\n";
    let mut at = digits.len() - 2;
    loop {
        at -= 1;
        // A digit.
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::fields::Fields;

    fn encoded(status: u16, fields: &[(&str, &str)], framing: (Version, BodySize, bool)) -> String {
        let fields: Fields = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let status = StatusCode::from_u16(status).unwrap();
        let head = ResponseHead { status, fields: Arc::new(fields), is_last: false };
        let (version, size, is_kept) = framing;
        let mut output = BytesMut::new();
        encode(&head, Framing { version, size, is_kept }, &mut output);
        let text = String::from_utf8(output.to_vec()).unwrap();
        let (head, date) = text.split_once("date: ").unwrap();
        assert!(date.ends_with(" GMT\r\n\r\n"), "{text}");
        head.replace("\r\n", "~")
    }

    #[test]
    fn a_head_says_how_its_body_and_the_connection_go_on() {
        use BodySize::{None, Sized, Stream};
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        for (status, framing, head) in [
            (200, (new, Sized(0), true), "HTTP/1.1 200 OK~content-length: 0~"),
            (
                200,
                (new, Sized(u64::MAX), false),
                "HTTP/1.1 200 OK~content-length: 18446744073709551615~connection: close~",
            ),
            (200, (old, Sized(10), true), "HTTP/1.0 200 OK~content-length: 10~connection: keep-alive~"),
            (404, (old, Stream, false), "HTTP/1.0 404 Not Found~"),
            (299, (new, Stream, true), "HTTP/1.1 299 ~transfer-encoding: chunked~"),
            (204, (new, Sized(0), true), "HTTP/1.1 204 No Content~"),
            (304, (new, Sized(5), true), "HTTP/1.1 304 Not Modified~"),
            (200, (new, None, true), "HTTP/1.1 200 OK~"),
        ] {
            assert_eq!(encoded(status, &[], framing), head);
        }
    }

    #[test]
    fn what_may_be_upgraded_to_is_an_option_of_the_connection() {
        let offered = [("upgrade", "a"), ("x", "y")];
        for (framing, connection) in [
            ((Version::HTTP_11, BodySize::None, true), "upgrade"),
            ((Version::HTTP_11, BodySize::None, false), "close, upgrade"),
            ((Version::HTTP_10, BodySize::None, true), "keep-alive, upgrade"),
            ((Version::HTTP_10, BodySize::None, false), "upgrade"),
        ] {
            let head = encoded(426, &offered, framing);
            let lines = format!("~connection: {connection}~upgrade: a~x: y~");
            assert!(head.ends_with(&lines), "{head}");
        }
    }
}
